//! The supervisor: owns the sweep timer and the registry of processors, and rebuilds what has died.

mod event;
mod messages;
mod processor;
mod pump;

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix::{
    Actor, Addr, Arbiter, AsyncContext, Context, Handler, MailboxError, Message, Recipient,
    ResponseFuture, SyncArbiter, System,
};
use diesel::ConnectionResult;

pub use event::Event;
use event::{Events, Listener};
pub use messages::{Cancel, Pause, RequestError, Restart, Submit, SubmitAll, Sweep};
use messages::{Control, Requested};
use processor::{ProcessorActor, State, Worker};
use pump::Pump;

use crate::{
    Asyncable, Processor, Stored,
    clock::Clock,
    store::{
        StoreConnection,
        actor::{Connect, Store},
        statement::Statement,
        submit::{Canceled, Restarted},
        turn::{Answer, Request},
    },
};

/// Why a supervisor did not start. Nothing runs then, and nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The database could not be opened.
    #[error("could not connect to the database")]
    Connect(#[source] diesel::ConnectionError),
    /// Each connection would have a database of its own, as with `:memory:`.
    #[error("the database is private to one connection (`:memory:`): use a file")]
    Private,
    /// The library's own tables are missing or old.
    #[error("the tables of asyncable are missing or old: call asyncable::migrate(conn) first")]
    Migrations(#[source] diesel::result::Error),
    /// A model's table or one of its columns is not as `COLUMNS` says.
    #[error("the table of {model} does not have the columns that COLUMNS names: {source}")]
    Columns {
        /// The model's name.
        model: &'static str,
        /// What the database said.
        source: diesel::result::Error,
    },
    /// A setting that cannot work.
    #[error("{setting} of {model} is {value:?}; it must be {accepted}")]
    Setting {
        /// The model's name.
        model: &'static str,
        /// Which setting.
        setting: &'static str,
        /// What it was.
        value: Duration,
        /// What would do.
        accepted: &'static str,
    },
    /// Two processors work on models of one name.
    #[error("two processors are registered for {0}")]
    Twice(&'static str),
    /// The supervisor's thread could not be started.
    #[error("the supervisor's thread could not be started")]
    Thread(#[source] std::io::Error),
}

struct Env<C: StoreConnection> {
    connect: Connect<C>,
    clock: Clock,
    host: Arc<str>,
    lease_for: Duration,
    arbiters: Vec<Arbiter>,
    store: Option<Addr<Store<C>>>,
    leases: Addr<Store<C>>,
    events: Events,
}

impl<C: StoreConnection> Env<C> {
    fn open_store(&self) -> Addr<Store<C>> {
        let (connect, clock) = (self.connect.clone(), self.clock.clone());
        SyncArbiter::start(1, move || Store::new(connect.clone(), clock.clone()))
    }
}

struct Entry {
    requests: Box<dyn Any>,
    control: Recipient<Control>,
}

type Build<C> = Box<dyn Fn(&Env<C>) -> Entry + Send>;
type Check<C> = Box<dyn Fn(&mut C) -> Result<(), StartError> + Send>;

struct Registration<C: StoreConnection> {
    model: TypeId,
    processor: TypeId,
    name: &'static str,
    every: Duration,
    settings: Arc<Mutex<(usize, Duration)>>,
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
        }
    }

    /// Works on `P`'s model with copies of `processor`, one an arbiter.
    pub fn processor<P>(self, processor: P) -> Self
    where
        P: Processor<Model: Stored<C::Backend>> + Clone + Send,
    {
        // The host's `Clone + Send` need not be `Sync`.
        let shared = Mutex::new(processor);
        self.processor_with(move || {
            shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
        })
    }

    /// As `processor`, for one that is not `Send`: made on each arbiter.
    pub fn processor_with<P>(mut self, make: impl Fn() -> P + Send + Sync + 'static) -> Self
    where
        P: Processor<Model: Stored<C::Backend>>,
    {
        let settings = Arc::new(Mutex::new((P::AT_ONCE, P::TIMEOUT)));
        let chosen = settings.clone();
        let make = Arc::new(make);
        let build = move |env: &Env<C>| {
            let (at_once, timeout) =
                *chosen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let workers = env.arbiters.iter().map(|arbiter| {
                let make = make.clone();
                Worker::start_in_arbiter(&arbiter.handle(), move |_| Worker(Rc::new(make())))
            });
            let settles = P::SERVICES.iter().map(|service| service.settles()).max();
            let settles = settles.unwrap_or(Duration::from_secs(15 * 60));
            let address = ProcessorActor::<P, C> {
                pump: Pump::new(P::Model::POLICY, settles, at_once),
                store: env.store.clone().unwrap_or_else(|| env.open_store()),
                leases: env.leases.clone(),
                workers: workers.collect(),
                host: env.host.clone(),
                clock: env.clock.clone(),
                events: env.events.clone(),
                lease_for: env.lease_for,
                timeout,
                at_once,
                state: State::default(),
            }
            .start();
            Entry {
                requests: Box::new(address.clone().recipient::<Requested<P::Model>>()),
                control: address.recipient(),
            }
        };
        self.registrations.push(Registration {
            model: TypeId::of::<P::Model>(),
            processor: TypeId::of::<P>(),
            name: P::Model::COLUMNS.name,
            every: P::Model::POLICY.interval(),
            settings,
            check: Box::new(check::<P::Model, C>),
            build: Box::new(build),
        });
        self
    }

    /// Attempts at once, instead of the processor's own [`Processor::AT_ONCE`].
    pub fn at_once<P: Processor>(self, at_once: usize) -> Self {
        self.set::<P>(|settings| settings.0 = at_once)
    }

    /// The longest attempt, instead of the processor's own [`Processor::TIMEOUT`].
    pub fn timeout<P: Processor>(self, timeout: Duration) -> Self {
        self.set::<P>(|settings| settings.1 = timeout)
    }

    fn set<P: Processor>(self, change: impl Fn(&mut (usize, Duration))) -> Self {
        let chosen = self.registrations.iter().filter(|known| known.processor == TypeId::of::<P>());
        chosen.for_each(|known| {
            change(&mut known.settings.lock().unwrap_or_else(|p| p.into_inner()))
        });
        self
    }

    /// How often to look for rows that other processes submitted, and for lapsed leases. Default 10 s, in
    /// wall time.
    pub fn sweep_every(mut self, every: Duration) -> Self {
        self.sweep_every = every.max(Duration::from_millis(1));
        self
    }

    /// How long a host that has stopped answering keeps its rows. Default 60 s of wall time, at least 1 s;
    /// renewed four times as often.
    pub fn lease_for(mut self, lease: Duration) -> Self {
        self.lease_for = lease.max(Duration::from_secs(1));
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
            let timeout = one.settings.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).1;
            if timeout.is_zero() || timeout >= one.every {
                return Err(StartError::Setting {
                    model: one.name,
                    setting: "the time-out",
                    value: timeout,
                    accepted: "above zero and below the retry interval",
                });
            }
        }
        let mut conn = (self.connect)().map_err(StartError::Connect)?;
        if conn.is_private().unwrap_or(false) {
            return Err(StartError::Private);
        }
        for table in ["asyncable_claims", "asyncable_retries"] {
            let look = format!("SELECT model FROM {table} WHERE 1 = 0");
            Statement::<C::Backend>::plain(&look, vec![])
                .and_then(|look| look.execute(&mut conn))
                .map_err(StartError::Migrations)?;
        }
        self.registrations.iter().try_for_each(|known| (known.check)(&mut conn))?;
        drop(conn);
        let mut me = self;
        let events = Events::to(std::mem::take(&mut me.listeners)).map_err(StartError::Thread)?;
        let (tell, told) = std::sync::mpsc::channel();
        let run = move || {
            let system = System::new();
            let supervisor = system.block_on(async move { me.run(events) });
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

    fn run(self, events: Events) -> Addr<SupervisorActor> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (connect, clock) = (self.connect.clone(), self.clock.clone());
        let leases = SyncArbiter::start(1, move || Store::new(connect.clone(), clock.clone()));
        let mut env = Env {
            connect: self.connect,
            clock: self.clock,
            // One process, not one machine: its number may have been another's before.
            host: format!("{}-{:x}", std::process::id(), nonce()).into(),
            lease_for: self.lease_for,
            arbiters: (0..cores.min(4)).map(|_| Arbiter::new()).collect(),
            store: None,
            leases,
            events,
        };
        if !<C::Backend as crate::store::DialectParts>::CONCURRENT_CLAIMS {
            env.store = Some(env.open_store()); // one writer for all
        }
        let mut entries = HashMap::new();
        let mut builds: Vec<(TypeId, Box<dyn Fn() -> Entry>)> = Vec::new();
        let env = Rc::new(env);
        for known in self.registrations {
            entries.insert(known.model, (known.build)(&env));
            let (env, build) = (env.clone(), known.build);
            builds.push((known.model, Box::new(move || build(&env))));
        }
        log::info!(processors = entries.len(); "asyncable has started");
        SupervisorActor {
            entries,
            builds,
            sweep_every: self.sweep_every,
            renew_every: self.lease_for / 4,
            stopping: false,
        }
        .start()
    }
}

/// A number that no other process with this one's id has had: it only has to differ.
fn nonce() -> i64 {
    chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default()
}

fn check<M, C>(conn: &mut C) -> Result<(), StartError>
where
    C: StoreConnection,
    M: Stored<C::Backend>,
{
    let look = "SELECT {id}, {S}, {L}, {A}, {P}, {E}, {row} FROM {m} WHERE {open} AND 1 = 0";
    let look = Statement::of::<M>(look, vec![]).and_then(|look| look.execute(conn));
    look.map(drop).map_err(|source| StartError::Columns { model: M::COLUMNS.name, source })
}

/// The supervisor actor. Not generic: it knows its processors by their models' types.
pub struct SupervisorActor {
    entries: HashMap<TypeId, Entry>,
    builds: Vec<(TypeId, Box<dyn Fn() -> Entry>)>,
    sweep_every: Duration,
    renew_every: Duration,
    stopping: bool,
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(self.sweep_every, |me, _| me.sweep());
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

    fn sweep(&mut self) {
        for (model, build) in &self.builds {
            // A panic in a handler ends a supervised actor for good: build it anew. Its rows come back
            // when their leases lapse.
            if !self.stopping
                && self.entries.get(model).is_none_or(|entry| !entry.control.connected())
            {
                log::error!("a processor had died and is built anew");
                self.entries.insert(*model, build());
            }
        }
        self.tell(Control::Sweep);
    }

    fn ask<M: Asyncable>(
        &self,
        request: Request<M::Id>,
    ) -> ResponseFuture<Result<Answer, RequestError>> {
        let entry = self.entries.get(&TypeId::of::<M>());
        let to = entry.and_then(|entry| entry.requests.downcast_ref::<Recipient<Requested<M>>>());
        match to {
            Some(to) => {
                let sent = to.send(Requested(request));
                Box::pin(async move { sent.await? })
            }
            None => Box::pin(std::future::ready(Err(RequestError::NotRegistered(M::COLUMNS.name)))),
        }
    }
}

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
        let asked = self.ask::<M>(Request::Submit { ids: vec![submit.id], at: submit.at });
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
        let asked = self.ask::<M>(Request::Submit { ids: submit.ids, at: None });
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
        let asked = self.ask::<M>(Request::Restart { ids: restart.ids });
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
        let asked = self.ask::<M>(Request::Cancel { id: cancel.id });
        Box::pin(async move {
            match asked.await? {
                Answer::Canceled(canceled) => Ok(canceled),
                answer => refused(answer, M::COLUMNS.name, id),
            }
        })
    }
}

impl<M: Asyncable> Handler<Pause<M>> for SupervisorActor {
    type Result = Result<(), RequestError>;

    fn handle(&mut self, pause: Pause<M>, _: &mut Context<Self>) -> Self::Result {
        let entry = self.entries.get(&TypeId::of::<M>());
        let entry = entry.ok_or(RequestError::NotRegistered(M::COLUMNS.name))?;
        entry.control.do_send(Control::Pause(pause.paused));
        Ok(())
    }
}

impl Handler<Sweep> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, _: Sweep, _: &mut Context<Self>) {
        self.sweep();
    }
}

struct Wake(TypeId);

impl Message for Wake {
    type Result = ();
}

impl Handler<Wake> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, wake: Wake, _: &mut Context<Self>) {
        if let Some(entry) = self.entries.get(&wake.0) {
            entry.control.do_send(Control::Wake);
        }
    }
}

struct Shutdown(Duration);

impl Message for Shutdown {
    type Result = ();
}

impl Handler<Shutdown> for SupervisorActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, shutdown: Shutdown, _: &mut Context<Self>) -> Self::Result {
        self.stopping = true;
        let drain = Control::Drain(shutdown.0);
        let drained: Vec<_> =
            self.entries.values().map(|entry| entry.control.send(drain)).collect();
        Box::pin(async move {
            for processor in drained {
                let _ = processor.await; // one that is gone has nothing to drain
            }
            log::info!("asyncable has stopped");
            // Ends the arbiters, the stores with their connections, and this thread. What is sent from
            // now on is answered with `Stopped`.
            System::current().stop();
        })
    }
}

/// The way in to a running supervisor, from any thread and any runtime.
#[derive(Clone)]
pub struct Handle {
    addr: Addr<SupervisorActor>,
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

    /// Says that a row of `M` may be due: after the commit of a transaction that submitted one.
    pub fn wake<M: Asyncable>(&self) {
        self.addr.do_send(Wake(TypeId::of::<M>()));
    }

    /// Stops: claims no more, gives what runs up to `grace`, and gives back the rest, which costs no
    /// attempt. Then its threads and connections end, and whatever is still sent is answered with
    /// [`RequestError::Stopped`].
    pub async fn shutdown(&self, grace: Duration) {
        let _ = self.addr.send(Shutdown(grace)).await; // stopped already
    }
}
