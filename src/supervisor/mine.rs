//! What the page asks about somebody's messages: of no model in particular, so on the desk.

use actix::{Context, Handler, Message, ResponseFuture};

use super::{RequestError, SupervisorActor, desk::Desk};
use crate::{
    Messages, UserMessage,
    store::{StoreConnection, actor::Ask, messages},
};

/// Reads a page of somebody's messages.
#[derive(Clone)]
pub(crate) struct GetMessages(pub(crate) Messages);

impl Message for GetMessages {
    type Result = Result<Vec<UserMessage>, RequestError>;
}

impl<C: StoreConnection> Handler<GetMessages> for Desk<C> {
    type Result = ResponseFuture<Result<Vec<UserMessage>, RequestError>>;

    fn handle(&mut self, asked: GetMessages, _: &mut Context<Self>) -> Self::Result {
        let read = move |conn: &mut C, _| asked.0.load(conn);
        let read = self.reads.send(Ask(Box::new(read)));
        Box::pin(async move { read.await?.map_err(RequestError::Database) })
    }
}

/// Marks a message of a user's as read; answers whether they have it.
#[derive(Clone)]
pub(crate) struct MarkRead {
    pub(crate) user: String,
    pub(crate) message: i64,
}

impl Message for MarkRead {
    type Result = Result<bool, RequestError>;
}

impl<C: StoreConnection> Handler<MarkRead> for Desk<C> {
    type Result = ResponseFuture<Result<bool, RequestError>>;

    fn handle(&mut self, mark: MarkRead, _: &mut Context<Self>) -> Self::Result {
        let write = move |conn: &mut C, now| {
            conn.write(|conn| messages::mark_read(conn, &mark.user, mark.message, now))
        };
        let marked = self.store.send(Ask(Box::new(write)));
        Box::pin(async move { marked.await?.map_err(RequestError::Database) })
    }
}

impl Handler<GetMessages> for SupervisorActor {
    type Result = ResponseFuture<Result<Vec<UserMessage>, RequestError>>;

    fn handle(&mut self, asked: GetMessages, _: &mut Context<Self>) -> Self::Result {
        let asked = self.messages.0.send(asked);
        Box::pin(async move { asked.await? })
    }
}

impl Handler<MarkRead> for SupervisorActor {
    type Result = ResponseFuture<Result<bool, RequestError>>;

    fn handle(&mut self, mark: MarkRead, _: &mut Context<Self>) -> Self::Result {
        let asked = self.messages.1.send(mark);
        Box::pin(async move { asked.await? })
    }
}
