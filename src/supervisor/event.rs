//! What happens in a supervisor, told to the host.

use std::{panic::AssertUnwindSafe, sync::Arc, sync::mpsc};

use crate::Failure;

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
    /// The host that worked on a row died or stood still; the row is due again.
    Lost {
        /// The model's name.
        model: &'static str,
        /// The row.
        id: String,
    },
    /// The database does not take a model's work. Told once, until it is back.
    DatabaseAway {
        /// The model's name.
        model: &'static str,
    },
    /// It takes it again.
    DatabaseBack {
        /// The model's name.
        model: &'static str,
    },
}

pub(crate) type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

/// Tells listeners on a thread of its own: one that blocks delays the others, never the rows.
#[derive(Clone)]
pub(crate) struct Events(Option<mpsc::Sender<Event>>);

impl Events {
    pub(crate) fn to(listeners: Vec<Listener>) -> std::io::Result<Self> {
        if listeners.is_empty() {
            return Ok(Events(None));
        }
        let (tell, told) = mpsc::channel();
        let listen = move || {
            for event in told {
                for listener in &listeners {
                    let heard = std::panic::catch_unwind(AssertUnwindSafe(|| listener(&event)));
                    if heard.is_err() {
                        log::error!("a listener of the host's panicked");
                    }
                }
            }
        };
        std::thread::Builder::new().name("asyncable-events".to_owned()).spawn(listen)?;
        Ok(Events(Some(tell)))
    }

    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(tell) = &self.0 {
            let _ = tell.send(event()); // fails only where its thread is gone, with the process
        }
    }
}
