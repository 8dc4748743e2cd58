//! What a host may ask of a running supervisor: public actix messages.

use std::{marker::PhantomData, time::Duration};

use actix::{MailboxError, Message, Recipient};
use chrono::{DateTime, Utc};

use super::event::Event;
use crate::{
    Asyncable, Counts, Explanation, Service, Status,
    store::{
        submit::{Canceled, Restarted},
        turn::{Answer, By, Due, Fact, Question, Request},
    },
};

/// Why a request about rows was not granted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// This supervisor has no processor for the model.
    #[error("no processor is registered for {0}")]
    NotRegistered(&'static str),
    /// There is no such row. Nothing was changed.
    #[error("no row {id} in {model}")]
    NotFound {
        /// The model's name.
        model: &'static str,
        /// The ids that name no row, separated by commas.
        id: String,
    },
    /// The supervisor has stopped. What was sent before [`Shutdown`] was answered may have been granted.
    #[error("the supervisor has stopped")]
    Stopped(#[from] MailboxError),
    /// The database refused the request or could not be reached. Whether it was granted is not known
    /// only where the connection broke during the commit.
    #[error("the database did not grant the request: {0}")]
    Database(String),
}

macro_rules! request {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* } -> $answer:ty) => {
        $(#[$doc])*
        pub struct $name<M: Asyncable> { $(pub(crate) $field: $type),* }
        impl<M: Asyncable> Message for $name<M> {
            type Result = Result<$answer, RequestError>;
        }
    };
}

request!(
    /// Submits one row; answered once it is durable.
    Submit { id: M::Id, due: Due } -> ()
);
request!(
    /// Submits many rows in one transaction. `NotFound` names the ids that are no row's; the others are
    /// submitted.
    SubmitAll { ids: Vec<M::Id>, due: Due } -> ()
);
request!(
    /// Restarts rows; see [`Asyncable::restart`].
    Restart { ids: Vec<M::Id>, by: Option<By> } -> Restarted
);
request!(
    /// Cancels a row; see [`Asyncable::cancel`].
    Cancel { id: M::Id, by: Option<By> } -> Canceled
);
request!(
    /// Asks where a row's work stands, by the supervisor's clock; see [`Asyncable::status`].
    GetStatus { id: M::Id } -> Status
);

request!(
    /// Asks why a row is not running, by the supervisor's clock; see [`Explanation`].
    Explain { id: M::Id } -> Explanation
);

macro_rules! due {
    ($($name:ident),*) => { $(
        impl<M: Asyncable> $name<M> {
            /// Due at `at`; an instant in the past is now.
            pub fn at(mut self, at: DateTime<Utc>) -> Self {
                self.due = Due::At(at);
                self
            }

            /// Due after this long, by the supervisor's clock.
            pub fn after(mut self, delay: Duration) -> Self {
                self.due = Due::After(delay);
                self
            }
        }
    )* };
}
due!(Submit, SubmitAll);

macro_rules! by {
    ($($name:ident),*) => { $(
        impl<M: Asyncable> $name<M> {
            /// Who does it, and why: kept in `asyncable_actions`.
            pub fn by(mut self, who: impl Into<String>, reason: impl Into<String>) -> Self {
                self.by = Some(By { who: who.into(), reason: reason.into() });
                self
            }
        }
    )* };
}
by!(Restart, Cancel, Pause, Resume);

impl<M: Asyncable> Submit<M> {
    /// At once.
    pub fn new(id: impl Into<M::Id>) -> Self {
        Submit { id: id.into(), due: Due::Now }
    }
}

impl<M: Asyncable> SubmitAll<M> {
    /// At once.
    pub fn new(ids: impl IntoIterator<Item = M::Id>) -> Self {
        SubmitAll { ids: ids.into_iter().collect(), due: Due::Now }
    }
}

impl<M: Asyncable> Restart<M> {
    /// One row.
    pub fn new(id: impl Into<M::Id>) -> Self {
        Restart { ids: vec![id.into()], by: None }
    }

    /// Many rows.
    pub fn all(ids: impl IntoIterator<Item = M::Id>) -> Self {
        Restart { ids: ids.into_iter().collect(), by: None }
    }
}

impl<M: Asyncable> Cancel<M> {
    /// One row.
    pub fn new(id: impl Into<M::Id>) -> Self {
        Cancel { id: id.into(), by: None }
    }
}

impl<M: Asyncable> Explain<M> {
    /// One row.
    pub fn new(id: impl Into<M::Id>) -> Self {
        Explain { id: id.into() }
    }
}

impl<M: Asyncable> GetStatus<M> {
    /// One row.
    pub fn new(id: impl Into<M::Id>) -> Self {
        GetStatus { id: id.into() }
    }
}

macro_rules! about_a_model {
    ($(#[$doc:meta])* $name:ident -> $answer:ty) => {
        $(#[$doc])*
        pub struct $name<M>(PhantomData<fn() -> M>);

        impl<M> $name<M> {
            /// For the model `M`.
            pub fn new() -> Self {
                $name(PhantomData)
            }
        }

        impl<M> Default for $name<M> {
            fn default() -> Self {
                Self::new()
            }
        }

        impl<M: Asyncable> Message for $name<M> {
            type Result = Result<$answer, RequestError>;
        }
    };
}

about_a_model!(
    /// Counts a model's open rows by where they stand; see [`Counts`].
    GetCounts -> Counts
);
about_a_model!(
    /// Says that a row may be due: after the commit of a transaction that submitted one.
    Wake -> ()
);
macro_rules! pausing {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name<M> {
            pub(crate) by: Option<By>,
            pub(crate) everywhere: bool,
            model: PhantomData<fn() -> M>,
        }

        impl<M> $name<M> {
            /// For the model `M`, in this process.
            pub fn new() -> Self {
                $name { by: None, everywhere: false, model: PhantomData }
            }

            /// In all processes, those that start later among them: here at once, elsewhere with their next
            /// sweep. It is kept in `asyncable_pauses`. What is paused in one process stays paused there.
            pub fn everywhere(mut self) -> Self {
                self.everywhere = true;
                self
            }
        }

        impl<M> Default for $name<M> {
            fn default() -> Self {
                Self::new()
            }
        }

        impl<M: Asyncable> Message for $name<M> {
            type Result = Result<(), RequestError>;
        }
    };
}

pausing!(
    /// Stops claiming a model's rows: in this process as long as it lives, or everywhere. What runs ends;
    /// the rest is given back. The time counts against the rows' windows: to wait for a service that is down,
    /// hold it ([`HoldService`]). In this process it is so also where the answer is that who did it, and why,
    /// could not be kept.
    Pause
);
pausing!(
    /// Claims a paused model's rows again; also where the answer is that who did it could not be kept.
    Resume
);

/// A request on its way to its processor.
pub(crate) struct Requested<M: Asyncable>(pub(crate) Request<M::Id>);

impl<M: Asyncable> Message for Requested<M> {
    type Result = Result<Answer, RequestError>;
}

/// A question on its way to its processor.
pub(crate) struct Asked<M: Asyncable>(pub(crate) Question<M::Id>);

impl<M: Asyncable> Message for Asked<M> {
    type Result = Result<Fact, RequestError>;
}

/// What the supervisor tells every processor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Control {
    Sweep,
    Renew,
    Wake,
    /// A slot may be free that the model waited for.
    Go,
    Pause(bool),
    Drain(Duration),
}

impl Message for Control {
    type Result = ();
}

/// Holds a service down until it is released or a given time: rows that need it wait, and spend no
/// attempt. What runs ends. Kept in `asyncable_actions` with who did it and why.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub struct HoldService {
    pub(crate) service: Service,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) until: Option<DateTime<Utc>>,
}

impl HoldService {
    /// Until somebody releases it.
    pub fn new(service: Service, by: impl Into<String>, reason: impl Into<String>) -> Self {
        HoldService { service, by: by.into(), reason: reason.into(), until: None }
    }

    /// Until then, at the latest.
    pub fn until(mut self, until: DateTime<Utc>) -> Self {
        self.until = Some(until);
        self
    }
}

/// Releases a held service: its rows run again. Answers false where it was not held.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<bool, RequestError>")]
pub struct ReleaseService {
    /// Which.
    pub service: Service,
    /// Who does it.
    pub by: String,
}

/// Asks a service that is down now, with the next row, instead of when its time comes. Answers false where
/// it is not down.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<bool, RequestError>")]
pub struct AskService {
    /// Which.
    pub service: Service,
    /// Who does it.
    pub by: String,
}

/// Looks for due rows and lapsed leases now, in all processors.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Sweep;

/// Tells an actor of the host's everything that happens; see [`Event`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct Subscribe(pub Recipient<Event>);

/// Stops the supervisor: claims no more, gives what runs up to `grace`, and gives back the rest, which
/// costs no attempt. Answered when all of that is done and listeners have been told of it (one that takes
/// longer than 5 seconds is not waited for); later messages are answered `Stopped`.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Shutdown {
    /// Wall time that running attempts are given.
    pub grace: Duration,
}
