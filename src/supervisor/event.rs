//! What happens in a supervisor, told to the host, on a thread of its own: a listener that blocks delays the
//! others, never the rows. `docs/operations.md` says what to wake a person for.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use actix::Message;
use chrono::{DateTime, Utc};
use tokio::sync::oneshot;

use crate::{Failure, MessageKind, store::messages::Sent};

/// Something a host may want to know. Identifiers and codes only, never a row's content, except in
/// [`Failure::chain`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// An attempt failed; the row is tried again by itself. A night's outage is many of these.
    AttemptFailed {
        /// The model's name.
        model: &'static str,
        /// The row.
        id: String,
        /// Which attempt of its submission it was, from 1.
        attempt: u32,
        /// Why.
        failure: Failure,
    },
    /// A row waits for a person.
    Parked {
        /// The model's name.
        model: &'static str,
        /// The row.
        id: String,
        /// Why.
        failure: Failure,
    },
    /// A row's window is over, and it is neither processed nor canceled.
    Expired {
        /// The model's name.
        model: &'static str,
        /// The row.
        id: String,
    },
    /// A row's window is nearly over ([`RetryPolicy::warn_before`](crate::RetryPolicy::warn_before)), and it
    /// is neither processed nor canceled. Told once.
    ExpiresSoon {
        /// The model's name.
        model: &'static str,
        /// The row.
        id: String,
        /// When it expires.
        at: DateTime<Utc>,
    },
    /// The user of a row was sent a message, by this supervisor: to be told on by mail, for instance. What it
    /// says stands in the table ([`Messages`](crate::Messages)), which also has those that were written on a
    /// connection of the host's own. Told at most once.
    MessageSent {
        /// The model's name.
        model: &'static str,
        /// The row.
        id: String,
        /// What is said of it.
        kind: MessageKind,
        /// Whom it is for.
        user: String,
    },
    /// The host that worked on a row died or stood still; the row is due again.
    Lost {
        /// The model's name.
        model: &'static str,
        /// The row.
        id: String,
    },
    /// An outside service is down: rows that need it wait, and spend no attempt.
    ServiceDown {
        /// Its name.
        service: String,
        /// The code of the failure by which it was found out.
        code: String,
        /// Rows that wait, of the model that found out; at most [`Counts::MOST`](crate::Counts::MOST).
        waiting: u32,
    },
    /// It is back, and the rows that waited run.
    ServiceUp {
        /// Its name.
        service: String,
        /// How often it had been asked in vain.
        probes: u32,
        /// Rows that waited, of the model that found out; at most [`Counts::MOST`](crate::Counts::MOST).
        waiting: u32,
    },
    /// A person holds a service down.
    ServiceHeld {
        /// Its name.
        service: String,
    },
    /// The database cannot be reached, or takes no work. Told once, until it is back.
    DatabaseAway {
        /// The model that found out first.
        model: &'static str,
    },
    /// It takes the work of all models again.
    DatabaseBack {
        /// The model that found out last.
        model: &'static str,
    },
}

impl Message for Event {
    type Result = ();
}

pub(crate) type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

enum Told {
    Event(Event),
    Listener(Listener),
    /// Answers when all before it is told.
    Until(oneshot::Sender<()>),
}

/// Tells listeners on a thread of its own: one that blocks delays the others, never the rows.
#[derive(Clone)]
pub(crate) struct Events {
    told: mpsc::Sender<Told>,
    heard: Arc<AtomicBool>,
}

impl Events {
    pub(crate) fn to(mut listeners: Vec<Listener>) -> std::io::Result<Self> {
        let heard = Arc::new(AtomicBool::new(!listeners.is_empty()));
        let (tell, told) = mpsc::channel();
        let listen = move || {
            for told in told {
                match told {
                    Told::Listener(listener) => listeners.push(listener),
                    Told::Until(told) => drop(told.send(())), // nobody may wait any more
                    Told::Event(event) => listeners.iter().for_each(|listener| {
                        let heard = std::panic::catch_unwind(AssertUnwindSafe(|| listener(&event)));
                        if heard.is_err() {
                            log::error!("a listener of the host's panicked");
                        }
                    }),
                }
            }
        };
        std::thread::Builder::new().name("asyncable-events".to_owned()).spawn(listen)?;
        Ok(Events { told: tell, heard })
    }

    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if self.heard.load(Ordering::Relaxed) {
            let _ = self.told.send(Told::Event(event())); // fails only where its thread is gone, with the process
        }
    }

    pub(crate) fn sent(&self, model: &'static str, sent: impl IntoIterator<Item = Sent>) {
        for Sent { id, kind, user } in sent {
            self.tell(|| Event::MessageSent { model, id, kind, user });
        }
    }

    pub(crate) fn listen(&self, listener: Listener) {
        let _ = self.told.send(Told::Listener(listener)); // as above
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Waits until the listeners have been told all that has happened, if they take no longer than `within`.
    pub(crate) async fn all_told(&self, within: Duration) {
        let (tell, told) = oneshot::channel();
        let _ = self.told.send(Told::Until(tell)); // as above: then `told` ends at once
        if actix_rt::time::timeout(within, told).await.is_err() {
            log::warn!(
                "a listener of the host's has not heard all events {within:?} after the last one"
            );
        }
    }
}

/// Whether the database takes the models' work: told and logged once when it stops to, and once when it
/// takes all of it again, however many models ask.
#[derive(Clone)]
pub(crate) struct Reach {
    away: Rc<RefCell<BTreeMap<&'static str, String>>>,
    events: Events,
}

impl Reach {
    pub(crate) fn new(events: Events) -> Self {
        Reach { away: Rc::default(), events }
    }

    /// `error` is what the database said to a turn of `model`.
    pub(crate) fn lost(&self, model: &'static str, error: &str) {
        let mut away = self.away.borrow_mut();
        if !away.contains_key(model) && !away.values().any(|known| known == error) {
            log::error!(model, error; "the database does not take {model}'s work: {error}");
        }
        if away.is_empty() {
            self.events.tell(|| Event::DatabaseAway { model });
        }
        away.entry(model).or_insert_with(|| error.to_owned());
    }

    pub(crate) fn found(&self, model: &'static str) {
        let mut away = self.away.borrow_mut();
        if away.remove(model).is_some() && away.is_empty() {
            log::warn!(model; "the database takes the work of all models again");
            self.events.tell(|| Event::DatabaseBack { model });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> Event {
        Event::DatabaseAway { model: "letters" }
    }

    #[actix_rt::test]
    async fn whoever_waits_for_the_listeners_waits_until_they_have_heard_all_that_came_before() {
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let (heard, may_go_on) =
            (Arc::new(std::sync::Mutex::new(0)), std::sync::Mutex::new(may_go_on));
        let count = heard.clone();
        let listener: Listener = Arc::new(move |_| {
            let _ = may_go_on.lock().expect("the test's").recv(); // ends with the test
            *count.lock().expect("the test's") += 1;
        });
        let events = Events::to(vec![listener]).expect("a thread");
        events.tell(away);
        events.tell(away);
        let told = events.all_told(Duration::from_secs(60));
        let going_on = async {
            assert_eq!(*heard.lock().expect("the test's"), 0);
            drop(go_on);
        };
        tokio::join!(told, going_on);
        assert_eq!(*heard.lock().expect("the test's"), 2);
    }

    #[actix_rt::test]
    async fn a_listener_that_never_ends_is_not_waited_for() {
        let (_go_on, may_go_on) = mpsc::channel::<()>();
        let may_go_on = std::sync::Mutex::new(may_go_on);
        let listener: Listener = Arc::new(move |_| {
            let _ = may_go_on.lock().expect("the test's").recv(); // ends with the test
        });
        let events = Events::to(vec![listener]).expect("a thread");
        events.tell(away);
        events.all_told(Duration::ZERO).await;
    }
}
