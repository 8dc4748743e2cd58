//! The desk: what operators order, and what the supervisor says of itself, on the way to the database.
//!
//! On the leases' connection: neither waits behind a model's turn.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use actix::{Actor, Addr, Context, Handler, Message, ResponseFuture};

use super::{
    event::{Event, Events},
    messages::RequestError,
};
use crate::store::{
    StoreConnection,
    actions::{self, Action},
    actor::{Ask, Store},
    pause,
    service::{self, Order},
    turn::By,
};

/// Speaks to the database for the supervisor actor, which does not know its type.
pub(crate) struct Desk<C: StoreConnection> {
    pub(crate) store: Addr<Store<C>>,
    #[cfg(feature = "dashboard")]
    pub(crate) reads: Addr<Store<C>>,
    pub(crate) host: Arc<str>,
    pub(crate) events: Events,
}

impl<C: StoreConnection> Actor for Desk<C> {
    type Context = Context<Self>;
}

/// Carries out an operator's order.
pub(crate) struct Ordered {
    pub(crate) service: String,
    pub(crate) by: String,
    pub(crate) order: Order,
}

impl Message for Ordered {
    type Result = Result<bool, RequestError>;
}

impl<C: StoreConnection> Handler<Ordered> for Desk<C> {
    type Result = ResponseFuture<Result<bool, RequestError>>;

    fn handle(&mut self, ordered: Ordered, _: &mut Context<Self>) -> Self::Result {
        let Ordered { service, by, order } = ordered;
        let name = service.clone();
        let held = matches!(order, Order::Hold { .. });
        let events = self.events.clone();
        let asked = self.store.send(Ask(Box::new(move |conn: &mut C, now| {
            conn.write(|conn| service::order(conn, &name, &by, &order, now))
        })));
        Box::pin(async move {
            let done = asked.await?.map_err(RequestError::Database)?;
            if done && held {
                events.tell(|| Event::ServiceHeld { service });
            }
            Ok(done)
        })
    }
}

/// Keeps who did something to a model.
pub(crate) struct Noted {
    pub(crate) action: &'static str,
    pub(crate) target: &'static str,
    pub(crate) by: By,
}

impl Message for Noted {
    type Result = Result<(), RequestError>;
}

impl<C: StoreConnection> Handler<Noted> for Desk<C> {
    type Result = ResponseFuture<Result<(), RequestError>>;

    fn handle(&mut self, noted: Noted, _: &mut Context<Self>) -> Self::Result {
        let asked = self.store.send(Ask(Box::new(move |conn: &mut C, now| {
            let Noted { action, target, by } = &noted;
            let done = Action { reason: Some(&by.reason), ..Action::of(action, target) };
            conn.write(|conn| actions::append(conn, now, &by.who, &done))
        })));
        Box::pin(async move { asked.await?.map_err(RequestError::Database) })
    }
}

/// Pauses or resumes a model in all processes; false where it was so already.
pub(crate) struct Pausing {
    pub(crate) model: String,
    pub(crate) pauses: bool,
    pub(crate) by: Option<By>,
}

impl Message for Pausing {
    type Result = Result<bool, RequestError>;
}

impl<C: StoreConnection> Handler<Pausing> for Desk<C> {
    type Result = ResponseFuture<Result<bool, RequestError>>;

    fn handle(&mut self, pausing: Pausing, _: &mut Context<Self>) -> Self::Result {
        let asked = self.store.send(Ask(Box::new(move |conn: &mut C, now| {
            let Pausing { model, pauses, by } = &pausing;
            conn.write(|conn| pause::order(conn, model, *pauses, by.as_ref(), now))
        })));
        Box::pin(async move { asked.await?.map_err(RequestError::Database) })
    }
}

/// Says that this host is alive: its models with the services that each calls, and whether it is paused.
/// Answers which models are paused in all processes; nothing, if the database does not.
pub(crate) struct Alive(pub(crate) BTreeMap<&'static str, (String, bool)>);

impl Message for Alive {
    type Result = Option<HashSet<String>>;
}

impl<C: StoreConnection> Handler<Alive> for Desk<C> {
    type Result = ResponseFuture<Option<HashSet<String>>>;

    fn handle(&mut self, alive: Alive, _: &mut Context<Self>) -> Self::Result {
        let host = self.host.clone();
        let said = self.store.send(Ask(Box::new(move |conn: &mut C, now| {
            conn.write(|conn| {
                service::end_holds(conn, now)?;
                service::seen(conn, &host, &alive.0, now)
            })?;
            pause::all(conn)
        })));
        Box::pin(async move {
            match said.await.ok()? {
                Ok(paused) => Some(paused.into_iter().map(|(model, _)| model).collect()),
                Err(error) => {
                    log::debug!(error = error.as_str(); "the host could not say that it is alive: {error}");
                    None
                }
            }
        })
    }
}

/// What the page shows beside models.
#[cfg(feature = "dashboard")]
pub(crate) struct HouseAsk {
    pub(crate) services: Vec<String>,
    pub(crate) service: Option<String>,
    /// How long ago a process may have been heard of that is still alive.
    pub(crate) alive: std::time::Duration,
}

#[cfg(feature = "dashboard")]
impl Message for HouseAsk {
    type Result = Result<crate::store::page::House, RequestError>;
}

#[cfg(feature = "dashboard")]
impl<C: StoreConnection> Handler<HouseAsk> for Desk<C> {
    type Result = ResponseFuture<Result<crate::store::page::House, RequestError>>;

    fn handle(&mut self, ask: HouseAsk, _: &mut Context<Self>) -> Self::Result {
        let asked = self.reads.send(Ask(Box::new(move |conn: &mut C, now| {
            let names: Vec<&str> = ask.services.iter().map(String::as_str).collect();
            crate::store::page::house(conn, &names, ask.service.as_deref(), now, ask.alive)
        })));
        Box::pin(async move { asked.await?.map_err(RequestError::Database) })
    }
}
