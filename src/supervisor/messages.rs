//! What a host may ask of a running supervisor: public actix messages.

use actix::{MailboxError, Message};
use chrono::{DateTime, Utc};

use crate::{
    Asyncable,
    store::{
        submit::{Canceled, Restarted},
        turn::{Answer, Request},
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
    /// The supervisor has stopped.
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
    Submit { id: M::Id, at: Option<DateTime<Utc>> } -> ()
);
request!(
    /// Submits many rows in one transaction. `NotFound` names the ids that are no row's; the others are
    /// submitted.
    SubmitAll { ids: Vec<M::Id> } -> ()
);
request!(
    /// Restarts rows; see [`Asyncable::restart`].
    Restart { ids: Vec<M::Id> } -> Restarted
);
request!(
    /// Cancels a row; see [`Asyncable::cancel`].
    Cancel { id: M::Id } -> Canceled
);

impl<M: Asyncable> Submit<M> {
    /// At once.
    pub fn new(id: impl Into<M::Id>) -> Self {
        Submit { id: id.into(), at: None }
    }

    /// Due at `at`; an instant in the past is now.
    pub fn at(mut self, at: DateTime<Utc>) -> Self {
        self.at = Some(at);
        self
    }
}

impl<M: Asyncable> SubmitAll<M> {
    /// At once.
    pub fn new(ids: impl IntoIterator<Item = M::Id>) -> Self {
        SubmitAll { ids: ids.into_iter().collect() }
    }
}

impl<M: Asyncable> Restart<M> {
    /// One row.
    pub fn new(id: impl Into<M::Id>) -> Self {
        Restart { ids: vec![id.into()] }
    }

    /// Many rows.
    pub fn all(ids: impl IntoIterator<Item = M::Id>) -> Self {
        Restart { ids: ids.into_iter().collect() }
    }
}

impl<M: Asyncable> Cancel<M> {
    /// One row.
    pub fn new(id: impl Into<M::Id>) -> Self {
        Cancel { id: id.into() }
    }
}

/// A request on its way to its processor.
pub(crate) struct Requested<M: Asyncable>(pub(crate) Request<M::Id>);

impl<M: Asyncable> Message for Requested<M> {
    type Result = Result<Answer, RequestError>;
}

/// What the supervisor tells every processor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Control {
    Sweep,
    Renew,
    Wake,
    Pause(bool),
    Drain(std::time::Duration),
}

impl Message for Control {
    type Result = ();
}

/// Looks for due rows and lapsed leases now, in all processors.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Sweep;

/// Stops claiming a model's rows in this process, or goes on. What runs ends; the rest is given back.
pub struct Pause<M> {
    pub(crate) paused: bool,
    model: std::marker::PhantomData<fn() -> M>,
}

impl<M> Pause<M> {
    /// Stop claiming.
    pub fn new() -> Self {
        Pause { paused: true, model: std::marker::PhantomData }
    }

    /// Go on.
    pub fn resume() -> Self {
        Pause { paused: false, model: std::marker::PhantomData }
    }
}

impl<M> Default for Pause<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Asyncable> Message for Pause<M> {
    type Result = Result<(), RequestError>;
}
