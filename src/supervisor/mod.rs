//! The supervisor: owns the sweep timer and the registry of processors, and rebuilds what has died.
//!
//! The actors of this folder turn messages into calls and hold no rule; what is decided is decided by the
//! [`pump`] and the [`gate`]s. The supervisor actor is not generic: it knows its processors as recipients by
//! their models' types, and so its [`Handle`] has no type parameter either.

mod desk;
mod event;
pub(crate) mod gate;
mod handle;
mod messages;
#[cfg(feature = "dashboard")]
pub(crate) mod mine;
#[cfg(feature = "metrics")]
mod numbers;
#[cfg(not(feature = "metrics"))]
#[path = "no_numbers.rs"]
mod numbers;
#[cfg(feature = "dashboard")]
pub(crate) mod page;
pub(crate) mod pausing;
mod processor;
pub(crate) mod pump;
mod start;
mod worker;

use std::{
    any::{Any, TypeId},
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, MailboxError, Message, Recipient,
    ResponseActFuture, ResponseFuture, System, WrapFuture,
};
use diesel::ConnectionResult;

use desk::{Desk, Ordered};
pub use event::Event;
use event::{Events, Listener, Reach};
use gate::{Cap, Gate, Gates};
pub use handle::Handle;
pub use messages::{
    AskService, Cancel, Explain, GetCounts, GetStatus, HoldService, Pause, ReleaseService,
    RequestError, Restart, Resume, Shutdown, Submit, SubmitAll, Subscribe, Sweep, Wake,
};
use messages::{Asked, Control, Requested};
use pausing::{DeskOf, Pauses};
use processor::{ProcessorActor, State};
use pump::{Pump, Rules};
pub use start::StartError;
use start::{Settings, check_model, check_own};
use worker::{Arbiters, Workers};

use crate::{
    Asyncable, Counts, Explanation, Processor, RetryPolicy, Service, Status, Stored,
    clock::Clock,
    processor::Copied,
    store::{
        DialectParts, Moment, StoreConnection,
        actor::{Access, Connect, Store},
        pause,
        service::Order,
        submit::{Canceled, Restarted},
        turn::{Answer, Fact, Question, Request},
    },
};

/// What the processors of one supervisor share.
struct Env<C: StoreConnection> {
    connect: Connect<C>,
    clock: Clock,
    host: Arc<str>,
    lease_for: Duration,
    arbiters: Arbiters,
    /// One writer for all, where the database allows only one.
    store: Option<Addr<Store<C>>>,
    leases: Addr<Store<C>>,
    reads: Addr<Store<C>>,
    events: Events,
    reach: Reach,
    /// By the service's name.
    gates: HashMap<&'static str, Rc<RefCell<Gate>>>,
    cap: Rc<RefCell<Cap>>,
    others: Others,
}

/// The processors of one process, by their models' names: for those that share a service or a cap.
#[derive(Clone, Default)]
pub(crate) struct Others(Rc<RefCell<HashMap<&'static str, Recipient<Control>>>>);

impl Others {
    fn know(&self, model: &'static str, control: Recipient<Control>) {
        self.0.borrow_mut().insert(model, control);
    }

    pub(crate) fn go(&self, model: &str) {
        if let Some(control) = self.0.borrow().get(model) {
            control.do_send(Control::Go);
        }
    }

    pub(crate) fn wake_all(&self) {
        self.0.borrow().values().for_each(|control| control.do_send(Control::Wake));
    }
}

impl<C: StoreConnection> Env<C> {
    fn store(&self) -> Addr<Store<C>> {
        let open = || Store::start(1, Access::Write, &self.connect, &self.clock);
        self.store.clone().unwrap_or_else(open)
    }
}

/// A processor as the supervisor knows it: the first two are recipients that only its model's type names.
struct Entry {
    requests: Box<dyn Any>,
    questions: Box<dyn Any>,
    control: Recipient<Control>,
    model: &'static str,
    #[cfg(feature = "dashboard")]
    page: Recipient<page::ModelAsked>,
}

/// Also whether it is paused from the beginning.
type Build<C> = Box<dyn Fn(&Env<C>, bool) -> Entry + Send>;
type Check<C> = Box<dyn Fn(&mut C) -> Result<(), StartError> + Send>;

struct Registration<C: StoreConnection> {
    model: TypeId,
    processor: TypeId,
    name: &'static str,
    policy: RetryPolicy,
    settings: Arc<Mutex<Settings>>,
    services: &'static [Service],
    check: Check<C>,
    build: Build<C>,
}

/// Configures and starts the supervisor of one database.
///
/// `start` makes a thread with its own actix `System`: it is the same in an actix, a multi-thread tokio
/// and a plain host, and it outlives the host's own System.
pub struct Supervisor<C: StoreConnection> {
    connect: Connect<C>,
    registrations: Vec<Registration<C>>,
    clock: Clock,
    listeners: Vec<Listener>,
    sweep_every: Duration,
    lease_for: Duration,
    services: Vec<Service>,
    at_once_in_all: usize,
    name: Option<String>,
}

impl<C: StoreConnection> Supervisor<C> {
    /// A supervisor of the database at `url`. SQLite is set to WAL with full synchronisation.
    pub fn new(url: impl Into<String>) -> Self {
        let url = url.into();
        Self::connecting(move || C::open(&url))
    }

    /// A supervisor that opens its connections itself: for TLS, passwords that change, and PRAGMAs.
    pub fn connecting(connect: impl Fn() -> ConnectionResult<C> + Send + Sync + 'static) -> Self {
        Supervisor {
            connect: Arc::new(connect),
            registrations: Vec::new(),
            clock: Clock::system(),
            listeners: Vec::new(),
            sweep_every: Duration::from_secs(10),
            lease_for: Duration::from_secs(60),
            services: Vec::new(),
            at_once_in_all: usize::MAX,
            name: None,
        }
    }

    /// Works on `P`'s model with copies of `processor`, one an arbiter.
    pub fn processor<P>(self, processor: P) -> Self
    where
        P: Processor<Model: Stored<C::Backend>> + Copied,
    {
        // The host's `Clone + Send` need not be `Sync`.
        let shared = Mutex::new(processor);
        self.processor_with(move || locked(&shared).clone())
    }

    /// As `processor`, for one that is not `Send`: made on each arbiter.
    pub fn processor_with<P>(mut self, make: impl Fn() -> P + Send + Sync + 'static) -> Self
    where
        P: Processor<Model: Stored<C::Backend>>,
    {
        let chosen = Settings { at_once: P::AT_ONCE, timeout: P::TIMEOUT };
        let settings = Arc::new(Mutex::new(chosen));
        let chosen = settings.clone();
        let make = Arc::new(make);
        let build = move |env: &Env<C>, paused: bool| {
            let Settings { at_once, timeout } = *locked(&chosen);
            let gates = P::SERVICES.iter().filter_map(|service| env.gates.get(service.name()));
            let gates: Vec<_> = gates.cloned().collect();
            // As they are configured, which may be otherwise than the processor says.
            let services: Arc<[Service]> =
                gates.iter().map(|gate| gate.borrow().service()).collect();
            let settles = services.iter().map(|service| service.settles()).max();
            let gates = Gates::new(P::Model::COLUMNS.name, gates, env.cap.clone());
            let rules = Rules {
                policy: P::Model::POLICY,
                settles_within: settles.unwrap_or(Service::SETTLES_WITHIN),
                at_once,
                timeout,
                services: services.clone(),
            };
            let mut pump = Pump::new(rules, gates.clone());
            pump.pause(paused);
            let address = ProcessorActor::<P, C> {
                pump,
                gates,
                services,
                others: env.others.clone(),
                store: env.store(),
                leases: env.leases.clone(),
                reads: env.reads.clone(),
                workers: Workers::start(env.arbiters.clone(), env.reads.clone(), make.clone()),
                host: env.host.clone(),
                clock: env.clock.clone(),
                events: env.events.clone(),
                reach: env.reach.clone(),
                lease_for: env.lease_for,
                timeout,
                at_once,
                state: State::default(),
            }
            .start();
            env.others.know(P::Model::COLUMNS.name, address.clone().recipient());
            Entry {
                requests: Box::new(address.clone().recipient::<Requested<P::Model>>()),
                questions: Box::new(address.clone().recipient::<Asked<P::Model>>()),
                model: P::Model::COLUMNS.name,
                #[cfg(feature = "dashboard")]
                page: address.clone().recipient(),
                control: address.recipient(),
            }
        };
        self.registrations.push(Registration {
            model: TypeId::of::<P::Model>(),
            processor: TypeId::of::<P>(),
            name: P::Model::COLUMNS.name,
            policy: P::Model::POLICY,
            settings,
            services: P::SERVICES,
            check: Box::new(check_model::<P::Model, C>),
            build: Box::new(build),
        });
        self
    }

    /// Attempts at once, instead of the processor's own [`Processor::AT_ONCE`].
    pub fn at_once<P: Processor>(self, at_once: usize) -> Self {
        self.set::<P>(|settings| settings.at_once = at_once)
    }

    /// Attempts at once of all models together. Default no limit; at least 1. Models that wait for a slot
    /// get them in turn.
    pub fn at_once_in_all(mut self, at_once: usize) -> Self {
        self.at_once_in_all = at_once.max(1);
        self
    }

    /// A service as configured, instead of what the processors that name it say.
    pub fn service(mut self, service: Service) -> Self {
        self.services.retain(|known| known.name() != service.name());
        self.services.push(service);
        self
    }

    /// What this host is called where people see it. Default the machine's name.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The longest attempt, instead of the processor's own [`Processor::TIMEOUT`].
    pub fn timeout<P: Processor>(self, timeout: Duration) -> Self {
        self.set::<P>(|settings| settings.timeout = timeout)
    }

    fn set<P: Processor>(self, change: impl Fn(&mut Settings)) -> Self {
        let chosen = self.registrations.iter().filter(|known| known.processor == TypeId::of::<P>());
        chosen.for_each(|known| change(&mut locked(&known.settings)));
        self
    }

    /// How often to look for rows that other processes submitted, and for lapsed leases. Default 10 s, in
    /// wall time; at most a day.
    pub fn sweep_every(mut self, every: Duration) -> Self {
        self.sweep_every = every.clamp(Duration::from_millis(1), DAY);
        self
    }

    /// How long a host that has stopped answering keeps its rows. Default 60 s of wall time, at least 1 s,
    /// at most a day; renewed four times as often.
    pub fn lease_for(mut self, lease: Duration) -> Self {
        self.lease_for = lease.clamp(Duration::from_secs(1), DAY);
        self
    }

    /// Tells `listener` what happens, on a thread of the supervisor's own. May be called more than once.
    pub fn on_event(mut self, listener: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.listeners.push(Arc::new(listener));
        self
    }

    /// The clock to go by. Default [`Clock::system`].
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Checks the settings, the database and the tables, and starts.
    ///
    /// # Errors
    /// [`StartError`] says which, and by name.
    pub fn start(self) -> Result<Handle, StartError> {
        for (index, one) in self.registrations.iter().enumerate() {
            if self.registrations[..index].iter().any(|other| other.name == one.name) {
                return Err(StartError::Twice(one.name));
            }
            locked(&one.settings).check(one.name, &one.policy, one.services)?;
        }
        let services = self.all_services()?;
        let mut conn = (self.connect)().map_err(StartError::Connect)?;
        if conn.is_private().unwrap_or(false) {
            return Err(StartError::Private);
        }
        check_own(&mut conn)?;
        self.registrations.iter().try_for_each(|known| (known.check)(&mut conn))?;
        let paused = pause::all(&mut conn).map_err(StartError::Migrations)?;
        let paused = paused.into_iter().map(|(model, _)| model).collect();
        drop(conn);
        let mut me = self;
        let events = Events::to(std::mem::take(&mut me.listeners)).map_err(StartError::Thread)?;
        let (tell, told) = std::sync::mpsc::channel();
        let run = move || {
            let system = System::new();
            let pauses = Pauses::of(paused);
            let supervisor = system.block_on(async move { me.run(events, services, pauses) });
            drop(tell.send(supervisor)); // the host waits for it
            if let Err(error) = system.run() {
                log::error!(error:% = error; "the supervisor's system ended: {error}");
            }
        };
        let thread = std::thread::Builder::new().name("asyncable".to_owned());
        thread.spawn(run).map_err(StartError::Thread)?;
        let addr = told.recv().map_err(|error| StartError::Thread(std::io::Error::other(error)))?;
        Ok(Handle { addr })
    }

    /// Each service that a processor names, as it is configured.
    fn all_services(&self) -> Result<Vec<Service>, StartError> {
        let mut all: Vec<Service> = self.services.clone();
        for service in self.registrations.iter().flat_map(|known| known.services) {
            match all.iter().find(|known| known.name() == service.name()) {
                None => all.push(*service),
                Some(known) if known == service => {}
                Some(known) if self.services.contains(known) => {}
                Some(known) => return Err(StartError::Service(known.name())),
            }
        }
        Ok(all)
    }

    fn run(self, events: Events, services: Vec<Service>, pauses: Pauses) -> Addr<SupervisorActor> {
        numbers::describe();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let store = |threads, access| Store::start(threads, access, &self.connect, &self.clock);
        let one_writer = !<C::Backend as DialectParts>::CONCURRENT_CLAIMS;
        let name = self.name.or_else(machine_name).unwrap_or_else(|| "host".to_owned());
        let gates = services.into_iter();
        let gates =
            gates.map(|service| (service.name(), Rc::new(RefCell::new(Gate::new(service)))));
        let env = Env {
            gates: gates.collect(),
            cap: Rc::new(RefCell::new(Cap::new(self.at_once_in_all))),
            others: Others::default(),
            // One process, not one machine: its number may have been another's before.
            host: format!("{name}-{}-{:x}", std::process::id(), nonce()).into(),
            lease_for: self.lease_for,
            arbiters: Arbiters::start(cores.min(4)),
            store: one_writer.then(|| store(1, Access::Write)),
            leases: store(1, Access::Write),
            reads: store(2, Access::Read),
            reach: Reach::new(events.clone()),
            events,
            connect: self.connect,
            clock: self.clock,
        };
        let mut entries = HashMap::new();
        let mut builds: Vec<(TypeId, Rebuild)> = Vec::new();
        let env = Rc::new(env);
        let mut alive = BTreeMap::new();
        for known in self.registrations {
            let services: Vec<&str> = known.services.iter().map(Service::name).collect();
            let paused = pauses.has(known.name);
            alive.insert(known.name, (services.join(","), paused));
            entries.insert(known.model, (known.build)(&env, paused));
            let (env, build, name) = (env.clone(), known.build, known.name);
            let build = move |pauses: &Pauses| build(&env, pauses.has(name));
            builds.push((known.model, Box::new(build)));
        }
        let (store, host) = (env.leases.clone(), env.host.clone());
        let desk = Desk {
            store,
            #[cfg(feature = "dashboard")]
            reads: env.reads.clone(),
            host,
            events: env.events.clone(),
        }
        .start();
        log::info!(processors = entries.len(); "asyncable has started");
        SupervisorActor {
            entries,
            builds,
            events: env.events.clone(),
            others: env.others.clone(),
            alive,
            #[cfg(feature = "dashboard")]
            house: desk.clone().recipient(),
            #[cfg(feature = "dashboard")]
            messages: (desk.clone().recipient(), desk.clone().recipient()),
            pauses,
            desk: DeskOf {
                orders: desk.clone().recipient(),
                alive: desk.clone().recipient(),
                notes: desk.clone().recipient(),
                pauses: desk.recipient(),
            },
            alive_for: env.clock.of_real(3 * self.sweep_every.max(ALIVE_FOR / 3)),
            sweep_every: self.sweep_every,
            renew_every: self.lease_for / 4,
            stopping: false,
            stopped: false,
        }
        .start()
    }
}

fn machine_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok())?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

const DAY: Duration = Duration::from_secs(86_400);

/// How long ago a process may have been heard of that is still alive: three sweeps by default.
pub(crate) const ALIVE_FOR: Duration = Duration::from_secs(30);

/// How long a stop waits for the host's listeners, when all else is done.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// A number that no other process with this one's id has had: it only has to differ.
fn nonce() -> i64 {
    chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default()
}

/// What a panic of the host's leaves behind is still a setting.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Makes a processor, as paused as it is to be.
type Rebuild = Box<dyn Fn(&Pauses) -> Entry>;

/// The supervisor actor. Not generic: it knows its processors by their models' types.
pub struct SupervisorActor {
    entries: HashMap<TypeId, Entry>,
    builds: Vec<(TypeId, Rebuild)>,
    events: Events,
    others: Others,
    /// What this host says of itself.
    alive: BTreeMap<&'static str, (String, bool)>,
    pauses: Pauses,
    desk: DeskOf,
    #[cfg(feature = "dashboard")]
    house: Recipient<desk::HouseAsk>,
    #[cfg(feature = "dashboard")]
    messages: (Recipient<mine::GetMessages>, Recipient<mine::MarkRead>),
    /// How long ago a process may have been heard of that is still alive, in the clock's time.
    alive_for: Duration,
    sweep_every: Duration,
    renew_every: Duration,
    /// Drains, and grants what is still asked.
    stopping: bool,
    /// Grants nothing any more.
    stopped: bool,
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.say_alive(ctx);
        ctx.run_interval(self.sweep_every, |me, ctx| me.sweep(ctx));
        ctx.run_interval(self.renew_every, |me, _| me.tell(Control::Renew));
    }
}

impl SupervisorActor {
    fn tell(&self, control: Control) {
        for entry in self.entries.values() {
            // A full mailbox means the last one is still being worked; the next tick repeats it.
            drop(entry.control.try_send(control));
        }
    }

    fn order(&self, service: Service, by: String, order: Order) -> Reply<bool> {
        let service = service.name();
        let known = self.alive.values().any(|(names, _)| names.split(',').any(|n| n == service));
        if !known {
            return Box::pin(std::future::ready(Err(RequestError::NotRegistered(service))));
        }
        let asked = self.desk.orders.send(Ordered { service: service.to_owned(), by, order });
        let others = self.others.clone();
        Box::pin(async move {
            let done = asked.await?;
            others.wake_all();
            done
        })
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        self.say_alive(ctx);
        for (model, build) in &self.builds {
            // A panic in a handler ends a supervised actor for good: build it anew. Its rows come back
            // when their leases lapse.
            if !self.stopping
                && self.entries.get(model).is_none_or(|entry| !entry.control.connected())
            {
                log::error!("a processor had died and is built anew");
                self.entries.insert(*model, build(&self.pauses));
            }
        }
        self.tell(Control::Sweep);
    }

    /// Its System ends only after it has stopped: what a store still granted could not be answered.
    fn goes_on(&self) -> Result<(), RequestError> {
        match self.stopped {
            true => Err(RequestError::Stopped(MailboxError::Closed)),
            false => Ok(()),
        }
    }

    fn entry<M: Asyncable>(&self) -> Result<&Entry, RequestError> {
        self.goes_on()?;
        self.entries.get(&TypeId::of::<M>()).ok_or(RequestError::NotRegistered(M::COLUMNS.name))
    }

    fn request<M: Asyncable>(&self, request: Request<M::Id>) -> Reply<Answer> {
        let entry = self.entry::<M>();
        self.pass(entry.map(|entry| &entry.requests), Requested::<M>(request))
    }

    fn question<M: Asyncable>(&self, question: Question<M::Id>) -> Reply<Fact> {
        let entry = self.entry::<M>();
        self.pass(entry.map(|entry| &entry.questions), Asked::<M>(question))
    }

    /// Sends a message to the recipient for it in `to`.
    fn pass<A, T>(&self, to: Result<&Box<dyn Any>, RequestError>, message: A) -> Reply<T>
    where
        A: Message<Result = Result<T, RequestError>> + Send + 'static,
        T: Send + 'static,
    {
        let sent = to.map(|to| to.downcast_ref::<Recipient<A>>().map(|to| to.send(message)));
        Box::pin(async move {
            match sent? {
                Some(sent) => sent.await?,
                None => Err(RequestError::Stopped(MailboxError::Closed)),
            }
        })
    }

    fn control<M: Asyncable>(&self, control: Control) -> Result<(), RequestError> {
        self.entry::<M>().map(|entry| entry.control.do_send(control))
    }
}

type Reply<T> = ResponseFuture<Result<T, RequestError>>;

fn refused<T>(answer: Answer, model: &'static str, id: String) -> Result<T, RequestError> {
    Err(match answer {
        Answer::Refused(why) => RequestError::Database(why),
        _ => RequestError::NotFound { model, id },
    })
}

impl<M: Asyncable> Handler<Submit<M>> for SupervisorActor {
    type Result = ResponseFuture<Result<(), RequestError>>;

    fn handle(&mut self, submit: Submit<M>, _: &mut Context<Self>) -> Self::Result {
        let id = submit.id.to_string();
        let asked = self.request::<M>(Request::Submit { ids: vec![submit.id], due: submit.due });
        Box::pin(async move {
            match asked.await? {
                Answer::Submitted { not_found } if not_found.is_empty() => Ok(()),
                answer => refused(answer, M::COLUMNS.name, id),
            }
        })
    }
}

impl<M: Asyncable> Handler<SubmitAll<M>> for SupervisorActor {
    type Result = ResponseFuture<Result<(), RequestError>>;

    fn handle(&mut self, submit: SubmitAll<M>, _: &mut Context<Self>) -> Self::Result {
        let asked = self.request::<M>(Request::Submit { ids: submit.ids, due: submit.due });
        Box::pin(async move {
            match asked.await? {
                Answer::Submitted { not_found } if not_found.is_empty() => Ok(()),
                Answer::Submitted { not_found } => {
                    Err(RequestError::NotFound { model: M::COLUMNS.name, id: not_found.join(", ") })
                }
                answer => refused(answer, M::COLUMNS.name, String::new()),
            }
        })
    }
}

impl<M: Asyncable> Handler<Restart<M>> for SupervisorActor {
    type Result = ResponseFuture<Result<Restarted, RequestError>>;

    fn handle(&mut self, restart: Restart<M>, _: &mut Context<Self>) -> Self::Result {
        let asked = self.request::<M>(Request::Restart { ids: restart.ids, by: restart.by });
        Box::pin(async move {
            match asked.await? {
                Answer::Restarted(restarted) => Ok(restarted),
                answer => refused(answer, M::COLUMNS.name, String::new()),
            }
        })
    }
}

impl<M: Asyncable> Handler<Cancel<M>> for SupervisorActor {
    type Result = ResponseFuture<Result<Canceled, RequestError>>;

    fn handle(&mut self, cancel: Cancel<M>, _: &mut Context<Self>) -> Self::Result {
        let id = cancel.id.to_string();
        let asked = self.request::<M>(Request::Cancel { id: cancel.id, by: cancel.by });
        Box::pin(async move {
            match asked.await? {
                Answer::Canceled(canceled) => Ok(canceled),
                answer => refused(answer, M::COLUMNS.name, id),
            }
        })
    }
}

impl<M: Asyncable> Handler<GetStatus<M>> for SupervisorActor {
    type Result = Reply<Status>;

    fn handle(&mut self, asked: GetStatus<M>, _: &mut Context<Self>) -> Self::Result {
        let id = asked.id.to_string();
        let fact = self.question::<M>(Question::Status(asked.id));
        Box::pin(async move {
            match fact.await? {
                Fact::Status(Some(status)) => Ok(status),
                _ => Err(RequestError::NotFound { model: M::COLUMNS.name, id }),
            }
        })
    }
}

impl<M: Asyncable> Handler<Explain<M>> for SupervisorActor {
    type Result = Reply<Explanation>;

    fn handle(&mut self, asked: Explain<M>, _: &mut Context<Self>) -> Self::Result {
        let id = asked.id.to_string();
        let fact = self.question::<M>(Question::Explain { id: asked.id, alive: self.alive_for });
        Box::pin(async move {
            match fact.await? {
                Fact::Explained(Some(explanation)) => Ok(explanation),
                _ => Err(RequestError::NotFound { model: M::COLUMNS.name, id }),
            }
        })
    }
}

impl<M: Asyncable> Handler<GetCounts<M>> for SupervisorActor {
    type Result = Reply<Counts>;

    fn handle(&mut self, _: GetCounts<M>, _: &mut Context<Self>) -> Self::Result {
        let fact = self.question::<M>(Question::Counts);
        Box::pin(async move {
            match fact.await? {
                Fact::Counts(counts) => Ok(counts),
                _ => Err(RequestError::Stopped(MailboxError::Closed)),
            }
        })
    }
}

impl<M: Asyncable> Handler<Wake<M>> for SupervisorActor {
    type Result = Result<(), RequestError>;

    fn handle(&mut self, _: Wake<M>, _: &mut Context<Self>) -> Self::Result {
        self.control::<M>(Control::Wake)
    }
}

impl Handler<HoldService> for SupervisorActor {
    type Result = Reply<()>;

    fn handle(&mut self, hold: HoldService, _: &mut Context<Self>) -> Self::Result {
        let HoldService { service, by, reason, until } = hold;
        let until = until.map(Moment::at);
        let held = self.order(service, by, Order::Hold { reason, until });
        Box::pin(async move { held.await.map(drop) })
    }
}

impl Handler<ReleaseService> for SupervisorActor {
    type Result = Reply<bool>;

    fn handle(&mut self, release: ReleaseService, _: &mut Context<Self>) -> Self::Result {
        self.order(release.service, release.by, Order::Release)
    }
}

impl Handler<AskService> for SupervisorActor {
    type Result = Reply<bool>;

    fn handle(&mut self, ask: AskService, _: &mut Context<Self>) -> Self::Result {
        self.order(ask.service, ask.by, Order::AskNow)
    }
}

impl Handler<Sweep> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, _: Sweep, ctx: &mut Context<Self>) {
        self.sweep(ctx);
    }
}

impl Handler<Subscribe> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, Subscribe(to): Subscribe, _: &mut Context<Self>) {
        self.events.listen(Arc::new(move |event: &Event| to.do_send(event.clone())));
    }
}

impl Handler<Shutdown> for SupervisorActor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, shutdown: Shutdown, _: &mut Context<Self>) -> Self::Result {
        self.stopping = true;
        let drain = Control::Drain(shutdown.grace);
        let drained: Vec<_> =
            self.entries.values().map(|entry| entry.control.send(drain)).collect();
        let events = self.events.clone();
        let drained = async move {
            for processor in drained {
                let _ = processor.await; // one that is gone has nothing to drain
            }
            events.all_told(TOLD_WITHIN).await;
        };
        Box::pin(drained.into_actor(self).map(|(), me, _| {
            log::info!("asyncable has stopped");
            me.stopped = true;
            // Ends the arbiters, the stores with their connections, and this thread.
            System::current().stop();
        }))
    }
}
