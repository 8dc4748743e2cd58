//! The processor actor of one model: turns messages into calls of the pump, and does what it says.
//!
//! It adds what the pump has not: timers, measured times, and growing waits while the database is away. If it
//! dies its rows come back when their leases lapse; its attempts are aborted, since others may have the rows.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, ResponseFuture, WrapFuture,
};
use futures_util::future::AbortHandle;
use tokio::sync::oneshot;

use super::{
    Others,
    event::{Event, Events, Reach},
    gate::Gates,
    messages::{Asked, Control, RequestError, Requested},
    numbers,
    pump::{Action, Ending, Pump, ahead},
    worker::{Finished, Owed, Perform, StepAsked, Workers},
};
use crate::{
    Asyncable, Failure, Processor, Service, Stored,
    clock::Clock,
    failure::POISON,
    scope::Instants,
    store::{
        Moment, StoreConnection,
        actor::{Ask, Store},
        claim::{Claiming, Hold},
        counts, explain,
        lease::{self, Rescued},
        prune::{self, Pruning},
        service::News,
        settle::Failed,
        step::StepAnswer,
        sweep::Expiring,
        turn::{self, Answer, Fact, Question, Sweeping},
    },
};

type Id<P> = <<P as Processor>::Model as Asyncable>::Id;

pub(crate) struct ProcessorActor<P: Processor, C: StoreConnection> {
    pub(crate) pump: Pump<Id<P>, P::Model>,
    pub(crate) store: Addr<Store<C>>,
    pub(crate) leases: Addr<Store<C>>,
    pub(crate) reads: Addr<Store<C>>,
    pub(crate) workers: Workers<P>,
    pub(crate) host: Arc<str>,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    pub(crate) reach: Reach,
    pub(crate) gates: Gates,
    pub(crate) others: Others,
    pub(crate) services: Arc<[Service]>,
    pub(crate) lease_for: Duration,
    pub(crate) timeout: Duration,
    pub(crate) at_once: usize,
    pub(crate) state: State<Id<P>>,
}

/// How long a turn waits for attempts that should be heard of at once.
const EXPECT_FOR: Duration = Duration::from_millis(2);

/// What an actor remembers beside its pump.
pub(crate) struct State<K> {
    aborts: HashMap<(K, Moment), AbortHandle>,
    waiting: HashMap<u64, oneshot::Sender<Result<Answer, RequestError>>>,
    steps: HashMap<u64, oneshot::Sender<StepAnswer>>,
    tickets: u64,
    swept: Sweeping,
    sweeping: bool,
    /// A batch of what somebody does to many rows is under way.
    #[cfg(feature = "dashboard")]
    pub(super) bulk: bool,
    /// When to go on, and when to look for due rows, if a timer is set for it.
    timers: [Option<Moment>; 2],
    pruning: Option<Pruning>,
    prune_at: Instant,
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
            steps: HashMap::new(),
            tickets: 0,
            swept: Sweeping::default(),
            sweeping: false,
            #[cfg(feature = "dashboard")]
            bulk: false,
            timers: [None; 2],
            pruning: Some(Pruning::default()),
            prune_at: Instant::now(),
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

    fn expiring(&self, rows: Vec<Expiring>) {
        if rows.is_empty() {
            return;
        }
        let (model, count) = (P::Model::COLUMNS.name, rows.len());
        log::warn!(model, count; "{count} rows of {model} expire soon without being processed");
        for Expiring { id, last_submitted_at } in rows {
            let at = last_submitted_at.plus(P::Model::POLICY.open_for() + self.pump.longer()).zoned;
            self.events.tell(|| Event::ExpiresSoon { model, id, at });
        }
    }

    /// A failure is recorded.
    fn failed(&self, id: &Id<P>, failed: Failed) {
        let Failed { due_at, failure, attempt, .. } = failed;
        let (model, code, place) = (P::Model::COLUMNS.name, failure.code(), failure.place());
        if due_at.is_none() {
            log::error!(model, row_id:% = id, code; "{model} {id} is parked: {code} at {place}");
        } else {
            log::debug!(model, row_id:% = id, code; "attempt {attempt} on {model} {id} failed: {code} at {place}");
        }
        let id = id.to_string();
        self.events.tell(|| match due_at {
            None => Event::Parked { model, id, failure },
            Some(_) => Event::AttemptFailed { model, id, attempt, failure },
        });
    }

    /// A service went down or came back.
    fn news(&self, news: News, waiting: u32) {
        match news {
            News::Down { service, code, .. } => {
                numbers::service(&self.services, &service, true);
                log::error!(service = service.as_str(), code = code.as_str(), waiting; "{service} is down: {code}; {waiting} rows wait for it");
                self.events.tell(|| Event::ServiceDown { service, code, waiting });
            }
            News::Up { service, probes, .. } => {
                numbers::service(&self.services, &service, false);
                log::warn!(service = service.as_str(), probes, waiting; "{service} is back; {waiting} rows have waited for it");
                self.events.tell(|| Event::ServiceUp { service, probes, waiting });
            }
        }
        self.others.wake_all();
    }

    /// A row's host had lost it.
    fn rescued(&self, id: String, poison: Option<u32>) {
        let model = P::Model::COLUMNS.name;
        if let Some(crashes) = poison {
            log::error!(model, row_id = id.as_str(), code = POISON; "{model} {id} is parked: {POISON}");
            let failure = Failure::lost().poison(crashes);
            self.events.tell(|| Event::Parked { model, id: id.clone(), failure });
        }
        self.events.tell(|| Event::Lost { model, id });
    }

    /// A lease in the clock's time. Counted from when the store comes to it, not from now: what has
    /// waited there while the machine slept or the file was locked would be over before it began.
    fn lease(&self) -> Duration {
        self.clock.of_real(self.lease_for)
    }

    /// Does what the pump says, and calls those whose turn it is then.
    pub(super) fn go(&mut self, ctx: &mut Context<Self>) {
        if self.state.waits {
            self.gates.leave(); // the database is away; the timer goes on
        } else {
            self.act(ctx);
        }
        for model in self.gates.called() {
            self.others.go(model);
        }
    }

    fn act(&mut self, ctx: &mut Context<Self>) {
        for action in self.pump.next(self.clock.moment(), Instant::now()) {
            match action {
                Action::Start(hold, row) => self.start(hold, row, ctx),
                Action::Turn(turn) => self.turn(turn, ctx),
                Action::Answer(ticket, answer) => {
                    if let Some(waiting) = self.state.waiting.remove(&ticket) {
                        let answer = answer.map_err(RequestError::Database);
                        drop(waiting.send(answer)); // nobody may be waiting any more
                    }
                }
                Action::Abort(id, token) => {
                    if let Some(abort) = self.state.aborts.remove(&(id, token)) {
                        abort.abort();
                    }
                }
                Action::Failed(id, failed) => self.failed(&id, failed),
                Action::Refused(id, why) => {
                    let model = P::Model::COLUMNS.name;
                    log::error!(model, row_id:% = id; "the outcome of {model} {id} was refused: {why}");
                }
                Action::Shunned(id, why) => {
                    let model = P::Model::COLUMNS.name;
                    log::error!(model, row_id = id.as_str(); "{model} {id} cannot be attempted: {why}");
                }
                Action::Step(ticket, answer) => {
                    if let StepAnswer::Refused(why) = &answer {
                        let model = P::Model::COLUMNS.name;
                        log::error!(model; "a step of {model} could not be recorded: {why}");
                    }
                    if let Some(waiting) = self.state.steps.remove(&ticket) {
                        let _ = waiting.send(answer); // the attempt may have ended
                    }
                }
                Action::News(news, waiting) => self.news(news, waiting),
                Action::Expect(wait) => {
                    ctx.run_later(EXPECT_FOR, move |me, ctx| {
                        me.pump.in_vain(wait);
                        me.go(ctx);
                    });
                }
                Action::GoAt(at) => self.come_back(at, false, ctx),
                Action::WakeAt(at) => self.come_back(at, true, ctx),
                Action::Drained => {
                    self.state.drained.drain(..).for_each(|waiting| {
                        let _ = waiting.send(()); // nobody may be waiting any more
                    });
                }
            }
        }
    }

    /// Has a request granted in the next turn.
    pub(crate) fn request(
        &mut self,
        request: turn::Request<Id<P>>,
        answer: oneshot::Sender<Result<Answer, RequestError>>,
        ctx: &mut Context<Self>,
    ) {
        self.state.tickets += 1;
        self.state.waiting.insert(self.state.tickets, answer);
        self.pump.request(self.state.tickets, request);
        self.go(ctx);
    }

    /// Goes on at `at`, and looks for due rows if it `wakes`; one timer of a kind is enough, the earliest.
    fn come_back(&mut self, at: Moment, wakes: bool, ctx: &mut Context<Self>) {
        let set = &mut self.state.timers[usize::from(wakes)];
        if set.is_some_and(|set| set <= at) {
            return;
        }
        *set = Some(at);
        let wait = self.clock.real(at.since(self.clock.moment()));
        ctx.run_later(wait + Duration::from_millis(1), move |me, ctx| {
            let set = &mut me.state.timers[usize::from(wakes)];
            if *set == Some(at) {
                *set = None;
                if wakes {
                    me.pump.wake();
                }
                me.go(ctx);
            }
        });
    }

    fn start(&mut self, hold: Hold<Id<P>>, row: P::Model, ctx: &mut Context<Self>) {
        let (handle, abort) = AbortHandle::new_pair();
        self.state.aborts.insert((hold.id.clone(), hold.token), handle);
        let owed = Owed::new(&hold, ctx.address().recipient());
        let steps = ctx.address().recipient();
        self.workers.perform(Perform { hold, row, timeout: self.timeout, owed, steps, abort });
    }

    fn turn(&mut self, turn: turn::Turn<Id<P>>, ctx: &mut Context<Self>) {
        let (lease, host) = (self.lease(), self.host.clone());
        let began = Instant::now();
        let ask = Ask(Box::new(move |conn: &mut C, now| {
            turn::take::<P::Model, C>(conn, now, now.plus(lease), &host, &turn)
        }));
        let turned = self.store.send(ask).into_actor(self).map(move |answer, me, ctx| {
            let mut answer = answer.unwrap_or_else(|error| Err(error.to_string()));
            let (model, took) = (P::Model::COLUMNS.name, began.elapsed());
            me.state.turn_took = (me.state.turn_took * 3 + took) / 4;
            numbers::turn(model, &answer, took);
            match &mut answer {
                Ok(turned) => {
                    me.expired(&turned.claims.expired);
                    me.events.sent(model, std::mem::take(&mut turned.sent));
                    me.reach.found(model);
                    me.state.trouble = 0;
                }
                Err(error) => {
                    me.reach.lost(model, error);
                    me.state.trouble += 1;
                    me.state.waits = true;
                    let wait = Duration::from_millis(100 << me.state.trouble.min(7));
                    ctx.run_later(wait, |me, ctx| {
                        me.state.waits = false;
                        me.go(ctx);
                    });
                }
            }
            me.pump.turned(answer, me.clock.moment(), Instant::now());
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
        let held = self.pump.renewed(Instant::now());
        let (host, lease) = (self.host.clone(), self.lease());
        let begin = self.state.swept.clone();
        let (services, shunned) = (self.services.clone(), self.pump.shunned());
        let tally = std::mem::take(&mut self.pump.tally);
        let ask = Ask(Box::new(move |conn: &mut C, now| {
            let (host, mut at) = (host.clone(), begin.clone());
            let expires_at = now.plus(lease);
            let retries_first = false;
            let (services, shunned) = (services.clone(), shunned.clone());
            let claiming = Claiming {
                now,
                expires_at,
                host,
                limit,
                retries_first,
                services,
                shunned,
                careful: false,
            };
            let swept = turn::sweep::<P::Model, C>(conn, &claiming, &held, tally, &mut at)?;
            Ok((swept, at))
        }));
        let swept = self.store.send(ask).into_actor(self).map(move |answer, me, ctx| {
            me.state.sweeping = false;
            let model = P::Model::COLUMNS.name;
            match answer.unwrap_or_else(|error| Err(error.to_string())) {
                Ok((swept, at)) => {
                    me.state.swept = at;
                    let claims = &swept.claims;
                    let standing = claims.standing.as_ref();
                    numbers::swept(model, &me.services, standing, claims.claimed.len());
                    numbers::count::<P::Model, C>(&me.reads);
                    me.expiring(swept.expiring);
                    me.events.sent(model, swept.sent);
                    me.expired(&swept.claims.expired);
                    if !swept.lost.is_empty() {
                        let rows = swept.lost.len();
                        log::warn!(model, rows; "{rows} rows of {model} were lost by their host and are due again");
                        for Rescued { id, poison } in swept.lost {
                            me.rescued(id, poison);
                        }
                        me.pump.wake();
                    }
                    me.pump.claimed(swept.claims, me.clock.moment(), Instant::now());
                }
                Err(error) => {
                    me.pump.tally.finished += tally.finished;
                    me.pump.tally.failed += tally.failed;
                    log::debug!(model, error = error.as_str(); "a sweep of {model} failed: {error}");
                }
            }
            me.go(ctx);
        });
        ctx.spawn(swept);
        self.go(ctx);
    }

    /// Once a minute, and at each sweep while there is a backlog.
    fn prune(&mut self, ctx: &mut Context<Self>) {
        if Instant::now() < self.state.prune_at || self.state.waits {
            return;
        }
        let Some(at) = self.state.pruning.take() else { return };
        let ask = Ask(Box::new(move |conn: &mut C, now| {
            let mut at = at.clone();
            prune::prune::<P::Model, C>(conn, now, &mut at).map(|more| (at, more))
        }));
        let pruned = self.store.send(ask).into_actor(self).map(|answer, me, _| {
            let answer = answer.unwrap_or_else(|error| Err(error.to_string()));
            if let Err(error) = &answer {
                let model = P::Model::COLUMNS.name;
                log::debug!(model, error = error.as_str(); "pruning of {model} failed: {error}");
            }
            let (at, more) = answer.unwrap_or_default();
            me.state.pruning = Some(at);
            let minute = Duration::from_secs(60);
            me.state.prune_at = Instant::now() + if more { Duration::ZERO } else { minute };
        });
        ctx.spawn(pruned);
    }

    fn renew(&mut self, ctx: &mut Context<Self>) {
        let tokens = self.pump.renewed(Instant::now());
        self.go(ctx); // what has waited for too long goes back
        if tokens.is_empty() {
            return;
        }
        let (host, lease) = (self.host.clone(), self.lease());
        let ask = Ask(Box::new(move |conn: &mut C, now| {
            lease::renew(conn, P::Model::COLUMNS.name, &host, &tokens, now.plus(lease))
        }));
        let renewed = self.leases.send(ask).into_actor(self).map(|answer, me, ctx| {
            if let Ok(Ok(lost)) = answer
                && !lost.is_empty()
            {
                let lost: Vec<Moment> =
                    lost.into_iter().filter(|token| me.pump.holds(token)).collect();
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
        let Finished { id, token, ended, reached, took } = finished;
        let (now, key) = (self.clock.moment(), (id, token));
        let began = now.minus(took.mul_f64(self.clock.speed()));
        self.state.aborts.remove(&key);
        numbers::attempt(P::Model::COLUMNS.name, &ended, took);
        self.state.row_took = (self.state.row_took * 7 + took) / 8;
        let ahead = ahead(self.state.turn_took, self.state.row_took, self.at_once);
        self.pump.finished(&key.0, token, Ending { ended, began, reached }, now, ahead);
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
        self.request(requested.0, answer, ctx);
        Box::pin(async move {
            answered.await.unwrap_or(Err(RequestError::Stopped(actix::MailboxError::Closed)))
        })
    }
}

impl<P, C> Handler<StepAsked<P::Model>> for ProcessorActor<P, C>
where
    P: Processor<Model: Stored<C::Backend>>,
    C: StoreConnection,
{
    type Result = ResponseFuture<Option<StepAnswer>>;

    fn handle(&mut self, asked: StepAsked<P::Model>, ctx: &mut Context<Self>) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        self.state.tickets += 1;
        self.state.steps.insert(self.state.tickets, answer);
        self.pump.step(self.state.tickets, asked.0);
        self.go(ctx);
        Box::pin(async move { answered.await.ok() })
    }
}

impl<P, C> Handler<Asked<P::Model>> for ProcessorActor<P, C>
where
    P: Processor<Model: Stored<C::Backend>>,
    C: StoreConnection,
{
    type Result = ResponseFuture<Result<Fact, RequestError>>;

    fn handle(&mut self, asked: Asked<P::Model>, _: &mut Context<Self>) -> Self::Result {
        let fact = self.reads.send(Ask(Box::new(move |conn: &mut C, now| match &asked.0 {
            Question::Status(id) => counts::status::<P::Model, C>(conn, id, now).map(Fact::Status),
            Question::Explain { id, alive } => {
                explain::explain::<P::Model, C>(conn, id, now, *alive).map(Fact::Explained)
            }
            Question::Counts => {
                let instants = Instants::new(now, &P::Model::POLICY);
                counts::counts::<P::Model, C>(conn, &instants).map(Fact::Counts)
            }
        })));
        Box::pin(async move { fact.await?.map_err(RequestError::Database) })
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
            Control::Sweep => {
                self.sweep(ctx);
                self.prune(ctx);
                #[cfg(feature = "dashboard")]
                if !self.state.waits {
                    self.bulk(ctx);
                }
            }
            Control::Renew => self.renew(ctx),
            Control::Wake => {
                self.pump.wake();
                self.go(ctx);
            }
            Control::Go => self.go(ctx),
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
                let last = grace.saturating_add(Duration::from_secs(5));
                return Box::pin(
                    async move { drop(actix_rt::time::timeout(last, answered).await) },
                );
            }
        }
        Box::pin(std::future::ready(()))
    }
}
