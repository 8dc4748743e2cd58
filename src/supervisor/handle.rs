//! The way in to a running supervisor.

use actix::{Addr, Handler, MailboxError, Message};

use std::time::Duration;

use super::{
    SupervisorActor,
    messages::{Shutdown, Wake},
};
use crate::Asyncable;

/// The way in to a running supervisor, from any thread and any runtime.
#[derive(Clone)]
pub struct Handle {
    pub(super) addr: Addr<SupervisorActor>,
}

impl Handle {
    /// Sends a message and waits for its answer.
    ///
    /// # Errors
    /// The message's own.
    pub async fn send<M, T, E>(&self, message: M) -> Result<T, E>
    where
        SupervisorActor: Handler<M>,
        M: Message<Result = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<MailboxError> + Send + 'static,
    {
        self.addr.send(message).await?
    }

    /// The supervisor's address, for those who speak actix.
    pub fn addr(&self) -> &Addr<SupervisorActor> {
        &self.addr
    }

    /// Says that a row of `M` may be due: after the commit of a transaction that submitted one. A model
    /// that has no processor here is another process's.
    pub fn wake<M: Asyncable>(&self) {
        self.addr.do_send(Wake::<M>::new());
    }

    /// Sends [`Shutdown`] and waits until it is done. A supervisor that has stopped already stays so.
    pub async fn shutdown(&self, grace: Duration) {
        let _ = self.addr.send(Shutdown { grace }).await; // fails where it has stopped already
    }
}
