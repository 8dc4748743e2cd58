//! The way in to a running supervisor: its address, and short-hands for its messages.

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
    pub async fn send<M: Answered>(&self, message: M) -> Result<M::Answer, M::Error> {
        message.send_to(&self.addr).await
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

    /// Sends [`Shutdown`] and waits until it is done; the supervisor's threads and connections then end.
    /// One that has stopped already stays so.
    pub async fn shutdown(&self, grace: Duration) {
        let _ = self.addr.send(Shutdown { grace }).await; // fails where it has stopped already
    }
}

/// A message that a supervisor answers with a `Result`. Implemented for all that it does.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no message that a supervisor answers with a `Result`",
    note = "send `Submit::<Model>::new(id)`, or another of asyncable's messages about a model",
    note = "messages that cannot fail, such as `Sweep`, go to `handle.addr()`"
)]
pub trait Answered: Sized {
    /// What it is answered with.
    type Answer;
    /// Why it is not.
    type Error;

    #[doc(hidden)]
    fn send_to(
        self,
        supervisor: &Addr<SupervisorActor>,
    ) -> impl Future<Output = Result<Self::Answer, Self::Error>> + Send;
}

#[diagnostic::do_not_recommend]
impl<M, T, E> Answered for M
where
    SupervisorActor: Handler<M>,
    M: Message<Result = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: From<MailboxError> + Send + 'static,
{
    type Answer = T;
    type Error = E;

    async fn send_to(self, supervisor: &Addr<SupervisorActor>) -> Result<T, E> {
        supervisor.send(self).await?
    }
}
