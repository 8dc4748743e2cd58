//! The processor actor of one model, and its workers: they turn messages into calls of the pump.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, Recipient,
    ResponseFuture, WrapFuture,
};
use futures_util::{
    FutureExt,
    future::{AbortHandle, Abortable},
};
use tokio::sync::oneshot;

use super::{
    event::{Event, Events},
    messages::{Control, RequestError, Requested},
    pump::{Action, Pump},
};
use crate::{
    Asyncable, Attempt, Failure, Kind, Processor, Stored,
    clock::Clock,
    store::{
        Moment, StoreConnection,
        actor::{Ask, Store},
        claim::{Claiming, Hold, OrphanCursor},
        lease,
        settle::WhenDone,
        turn::{self, Answer},
    },
};

/// Owns a copy of the host's processor, which need not be `Send`, on one arbiter.
pub(crate) struct Worker<P: Processor>(pub(crate) Rc<P>);

impl<P: Processor> Actor for Worker<P> {
    type Context = Context<Self>;
}

pub(crate) struct Perform<M: Asyncable> {
    hold: Hold<M::Id>,
    row: M,
    timeout: Duration,
    reply: Recipient<Finished<M>>,
    abort: futures_util::future::AbortRegistration,
}

impl<M: Asyncable> Message for Perform<M> {
    type Result = ();
}

pub(crate) struct Finished<M: Asyncable> {
    id: M::Id,
    token: Moment,
    outcome: Result<Vec<WhenDone>, Failure>,
    took: Duration,
}

impl<M: Asyncable> Message for Finished<M> {
    type Result = ();
}

impl<P: Processor> Handler<Perform<P::Model>> for Worker<P> {
    type Result = ();

    fn handle(&mut self, perform: Perform<P::Model>, _: &mut Context<Self>) {
        let processor = self.0.clone();
        let Perform { hold, row, timeout, reply, abort } = perform;
        let attempt = async move {
            let began = Instant::now();
            let generation = hold.submitted_at.unwrap_or(hold.last_submitted_at).epoch_micros();
            let number = hold.failures.saturating_add(1);
            let name = P::Model::COLUMNS.name;
            let attempt = Attempt::new(name, &hold.id.to_string(), generation, number, timeout);
            let process = async { processor.process(&row, &attempt).await };
            // A panic ends this attempt, not the worker.
            let process =
                AssertUnwindSafe(actix_rt::time::timeout(timeout, process)).catch_unwind();
            let outcome = match process.await {
                Ok(Ok(Ok(()))) => Ok(attempt.into_writes()),
                Ok(Ok(Err(failure))) => Err(failure),
                Ok(Err(_)) => {
                    Err(Failure::unknown("the attempt took too long").with_code("timeout"))
                }
                Err(_) => Err(Failure::transient("the host's code panicked").with_code("panic")),
            };
            // Ignores the mailbox's limit: a result is never dropped.
            reply.do_send(Finished {
                id: hold.id,
                token: hold.token,
                outcome,
                took: began.elapsed(),
            });
        };
        actix_rt::spawn(Abortable::new(attempt, abort).map(drop));
    }
}

pub(crate) struct ProcessorActor<P: Processor, C: StoreConnection> {
    pub(crate) pump: Pump<<P::Model as Asyncable>::Id, P::Model>,
    pub(crate) store: Addr<Store<C>>,
    pub(crate) leases: Addr<Store<C>>,
    pub(crate) workers: Vec<Addr<Worker<P>>>,
    pub(crate) host: Arc<str>,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    pub(crate) lease_for: Duration,
    pub(crate) timeout: Duration,
    pub(crate) at_once: usize,
    pub(crate) state: State<<P::Model as Asyncable>::Id>,
}

/// What an actor remembers beside its pump.
pub(crate) struct State<K> {
    aborts: HashMap<K, AbortHandle>,
    waiting: HashMap<u64, oneshot::Sender<Result<Answer, RequestError>>>,
    tickets: u64,
    next_worker: usize,
    cursor: Option<OrphanCursor>,
    sweeping: bool,
    /// Turns failed in a row: logged once, retried with growing waits.
    trouble: u32,
    waits: bool,
    turn_took: Duration,
    row_took: Duration,
    drained: Vec<oneshot::Sender<()>>,
}

impl<K> Default for State<K> {
    fn default() -> Self {
        State {
            aborts: HashMap::new(),
            waiting: HashMap::new(),
            tickets: 0,
            next_worker: 0,
            cursor: None,
            sweeping: false,
            trouble: 0,
            waits: false,
            turn_took: Duration::ZERO,
            row_took: Duration::from_secs(1),
            drained: Vec::new(),
        }
    }
}

impl<K> Drop for State<K> {
    fn drop(&mut self) {
        // Rebuilt after a panic, the rows may be claimed again: their old attempts must not go on.
        self.aborts.values().for_each(AbortHandle::abort);
    }
}

impl<P, C> Actor for ProcessorActor<P, C>
where
    P: Processor<Model: Stored<C::Backend>>,
    C: StoreConnection,
{
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.go(ctx);
    }
}

impl<P, C> ProcessorActor<P, C>
where
    P: Processor<Model: Stored<C::Backend>>,
    C: StoreConnection,
{
    fn expired(&self, ids: &[String]) {
        let model = P::Model::COLUMNS.name;
        for id in ids {
            log::error!(model, row_id = id.as_str(); "{model} {id} has expired without being processed");
            self.events.tell(|| Event::Expired { model, id: id.clone() });
        }
    }

    fn expires_at(&self) -> Moment {
        self.clock.after_real(self.lease_for)
    }

    /// Does what the pump says.
    fn go(&mut self, ctx: &mut Context<Self>) {
        if self.state.waits {
            return; // the database is away; the timer goes on
        }
        for action in self.pump.next() {
            match action {
                Action::Start(hold, row) => self.start(hold, row, ctx),
                Action::Turn(turn) => self.turn(turn, ctx),
                Action::Answer(ticket, answer) => {
                    if let Some(waiting) = self.state.waiting.remove(&ticket) {
                        let answer = answer.map_err(RequestError::Database);
                        drop(waiting.send(answer)); // nobody may be waiting any more
                    }
                }
                Action::Abort(id) => {
                    if let Some(abort) = self.state.aborts.remove(&id) {
                        abort.abort();
                    }
                }
                Action::Drained => {
                    self.state.drained.drain(..).for_each(|waiting| {
                        let _ = waiting.send(()); // nobody may be waiting any more
                    });
                }
            }
        }
    }

    fn start(
        &mut self,
        hold: Hold<<P::Model as Asyncable>::Id>,
        row: P::Model,
        ctx: &mut Context<Self>,
    ) {
        let (handle, abort) = AbortHandle::new_pair();
        self.state.aborts.insert(hold.id.clone(), handle);
        self.state.next_worker = (self.state.next_worker + 1) % self.workers.len();
        let reply = ctx.address().recipient();
        let perform = Perform { hold, row, timeout: self.timeout, reply, abort };
        self.workers[self.state.next_worker].do_send(perform);
    }

    fn turn(&mut self, turn: turn::Turn<<P::Model as Asyncable>::Id>, ctx: &mut Context<Self>) {
        let (expires_at, host) = (self.expires_at(), self.host.clone());
        let began = Instant::now();
        let ask = Ask(Box::new(move |conn: &mut C, now| {
            turn::take::<P::Model, C>(conn, now, expires_at, &host, &turn)
        }));
        let turned = self.store.send(ask).into_actor(self).map(move |answer, me, ctx| {
            let answer = answer.unwrap_or_else(|error| Err(error.to_string()));
            me.state.turn_took = (me.state.turn_took * 3 + began.elapsed()) / 4;
            let model = P::Model::COLUMNS.name;
            match &answer {
                Ok(turned) => {
                    me.expired(&turned.claims.expired);
                    if me.state.trouble > 0 {
                        log::warn!(model; "the database takes {model}'s work again");
                    }
                    if me.state.trouble > 0 {
                        me.events.tell(|| Event::DatabaseBack { model });
                    }
                    me.state.trouble = 0;
                }
                Err(error) => {
                    if me.state.trouble == 0 {
                        log::error!(model, error = error.as_str(); "the database does not take {model}'s work: {error}");
                    }
                    if me.state.trouble == 0 {
                        me.events.tell(|| Event::DatabaseAway { model });
                    }
                    me.state.trouble += 1;
                    me.state.waits = true;
                    let wait = Duration::from_millis(100 << me.state.trouble.min(7));
                    ctx.run_later(wait, |me, ctx| {
                        me.state.waits = false;
                        me.go(ctx);
                    });
                }
            }
            me.pump.turned(answer, me.clock.moment());
            me.go(ctx);
        });
        ctx.spawn(turned);
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        self.pump.wake();
        if self.state.sweeping || self.state.waits {
            return self.go(ctx);
        }
        self.state.sweeping = true;
        let limit = if self.pump.paused { 0 } else { self.pump.room().min(64) };
        let (host, expires_at, held) = (self.host.clone(), self.expires_at(), self.pump.held());
        let begin = self.state.cursor.take();
        let ask = Ask(Box::new(move |conn: &mut C, now| {
            let (host, mut cursor) = (host.clone(), begin.clone());
            let claiming = Claiming { now, expires_at, host, limit, retries_first: false };
            let swept = turn::sweep::<P::Model, C>(conn, &claiming, &held, &mut cursor)?;
            Ok((swept, cursor))
        }));
        let swept = self.store.send(ask).into_actor(self).map(|answer, me, ctx| {
            me.state.sweeping = false;
            let model = P::Model::COLUMNS.name;
            match answer.unwrap_or_else(|error| Err(error.to_string())) {
                Ok((swept, cursor)) => {
                    me.state.cursor = cursor;
                    me.expired(&swept.claims.expired);
                    if !swept.lost.is_empty() {
                        let rows = swept.lost.len();
                        log::warn!(model, rows; "{rows} rows of {model} were lost by their host and are due again");
                        for id in &swept.lost {
                            me.events.tell(|| Event::Lost { model, id: id.clone() });
                        }
                        me.pump.wake();
                    }
                    me.pump.claimed(swept.claims, me.clock.moment());
                }
                Err(error) => log::debug!(model, error = error.as_str(); "a sweep of {model} failed: {error}"),
            }
            me.go(ctx);
        });
        ctx.spawn(swept);
        self.go(ctx);
    }

    fn renew(&mut self, ctx: &mut Context<Self>) {
        let (tokens, host, expires_at) = (self.pump.held(), self.host.clone(), self.expires_at());
        if tokens.is_empty() {
            return;
        }
        let ask = Ask(Box::new(move |conn: &mut C, _| {
            lease::renew(conn, P::Model::COLUMNS.name, &host, &tokens, expires_at)
        }));
        let renewed = self.leases.send(ask).into_actor(self).map(|answer, me, ctx| {
            if let Ok(Ok(lost)) = answer
                && !lost.is_empty()
            {
                let held = me.pump.held();
                let lost: Vec<Moment> =
                    lost.into_iter().filter(|token| held.contains(token)).collect();
                me.pump.lost(&lost);
                me.go(ctx);
            }
        });
        ctx.spawn(renewed);
    }
}

impl<P, C> Handler<Finished<P::Model>> for ProcessorActor<P, C>
where
    P: Processor<Model: Stored<C::Backend>>,
    C: StoreConnection,
{
    type Result = ();

    fn handle(&mut self, finished: Finished<P::Model>, ctx: &mut Context<Self>) {
        self.state.aborts.remove(&finished.id);
        self.state.row_took = (self.state.row_took * 7 + finished.took) / 8;
        if let Err(failure) = &finished.outcome {
            let (model, code) = (P::Model::COLUMNS.name, failure.code());
            let (id, place) = (&finished.id, failure.place());
            let (row, why) = (id.to_string(), failure.clone());
            let attempt = self.pump.attempt(id);
            self.events.tell(|| match why.kind() {
                Kind::Permanent => Event::Parked { model, id: row, failure: why },
                _ => Event::AttemptFailed { model, id: row, attempt, failure: why },
            });
            if failure.kind() == Kind::Permanent {
                log::error!(model, row_id:% = id, code; "{model} {id} is parked: {code} at {place}");
            } else {
                log::debug!(model, row_id:% = id, code; "an attempt on {model} {id} failed: {code} at {place}");
            }
        }
        // Rows that are worked off during one turn, and half as many again.
        let ahead =
            self.state.turn_took.as_secs_f64() / self.state.row_took.as_secs_f64().max(1e-6);
        let ahead = (ahead * 1.5 * self.at_once as f64) as usize;
        let Finished { id, token, outcome, .. } = finished;
        self.pump.finished(&id, token, outcome, self.clock.moment(), ahead);
        self.go(ctx);
    }
}

impl<P, C> Handler<Requested<P::Model>> for ProcessorActor<P, C>
where
    P: Processor<Model: Stored<C::Backend>>,
    C: StoreConnection,
{
    type Result = ResponseFuture<Result<Answer, RequestError>>;

    fn handle(&mut self, requested: Requested<P::Model>, ctx: &mut Context<Self>) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        self.state.tickets += 1;
        self.state.waiting.insert(self.state.tickets, answer);
        self.pump.request(self.state.tickets, requested.0);
        self.go(ctx);
        Box::pin(async move {
            answered.await.unwrap_or(Err(RequestError::Stopped(actix::MailboxError::Closed)))
        })
    }
}

impl<P, C> Handler<Control> for ProcessorActor<P, C>
where
    P: Processor<Model: Stored<C::Backend>>,
    C: StoreConnection,
{
    type Result = ResponseFuture<()>;

    fn handle(&mut self, control: Control, ctx: &mut Context<Self>) -> Self::Result {
        match control {
            Control::Sweep => self.sweep(ctx),
            Control::Renew => self.renew(ctx),
            Control::Wake => {
                self.pump.wake();
                self.go(ctx);
            }
            Control::Pause(paused) => {
                self.pump.pause(paused);
                self.go(ctx);
            }
            Control::Drain(grace) => {
                let (drained, answered) = oneshot::channel();
                self.state.drained.push(drained);
                self.pump.drain();
                ctx.run_later(grace, |me, ctx| {
                    me.pump.stop_running();
                    me.go(ctx);
                });
                self.go(ctx);
                // The database may be away for good: the leases then lapse, and nothing is lost.
                let last = grace + Duration::from_secs(5);
                return Box::pin(
                    async move { drop(actix_rt::time::timeout(last, answered).await) },
                );
            }
        }
        Box::pin(std::future::ready(()))
    }
}
