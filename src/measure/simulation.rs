//! One host in virtual time: the pump, the gates and the store's turns as a supervisor runs them, without
//! its actors and threads. Hours of an outage pass as fast as the database takes the turns.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use diesel::QueryResult;

use crate::{
    AskService, HoldService, Outcome, Service, StoreConnection, Stored,
    store::{
        Moment,
        claim::Claiming,
        lease,
        service::{self, News, Order},
        turn::{self, Sweeping, Turned},
    },
    supervisor::{
        gate::{Cap, Gate, Gates},
        pump::{Action, Ended, Ending, Pump, Rules, ahead},
    },
};

/// Attempts at once, as a processor's own.
const AT_ONCE: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(300);
const LEASE: Duration = Duration::from_secs(60);
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// What a turn takes in virtual time.
const TURN_TAKES: Duration = Duration::from_millis(2);

/// See the module; of one model.
pub struct Simulation<M: Stored<C::Backend>, C: StoreConnection> {
    conn: C,
    host: Arc<str>,
    services: Arc<[Service]>,
    pump: Pump<M::Id, M>,
    now: Moment,
    wall: Instant,
    coming: BTreeMap<(Moment, u64), Coming<M>>,
    scheduled: u64,
    /// When to go on, and when to look for due rows, as in the processor's actor.
    timers: [Option<Moment>; 2],
    row_took: Duration,
    swept: Sweeping,
    turns: usize,
    news: Vec<(DateTime<Utc>, String)>,
}

/// What is to happen at an instant.
enum Coming<M: crate::Asyncable> {
    Turned(Box<Turned<M::Id, M>>),
    Finished { id: M::Id, token: Moment, began: Moment, ended: Ended },
    Timer { set: Moment, wakes: bool },
    Wake,
    Sweep,
    Renew,
}

impl<M, C> Simulation<M, C>
where
    M: Stored<C::Backend>,
    C: StoreConnection,
{
    /// A host that starts at `now` on a database with all its tables; its processor calls `services`.
    pub fn new(conn: C, now: DateTime<Utc>, services: &[Service]) -> Self {
        let gates = services.iter().map(|service| shared(Gate::new(*service))).collect();
        let gates = Gates::new(M::COLUMNS.name, gates, shared(Cap::new(usize::MAX)));
        let settles = services.iter().map(Service::settles).max();
        let rules = Rules {
            policy: M::POLICY,
            settles_within: settles.unwrap_or(Service::SETTLES_WITHIN),
            at_once: AT_ONCE,
            timeout: TIMEOUT,
            services: services.into(),
        };
        let mut simulation = Simulation {
            conn,
            host: "simulated".into(),
            services: services.into(),
            pump: Pump::new(rules, gates),
            now: Moment::at(now),
            wall: Instant::now(),
            coming: BTreeMap::new(),
            scheduled: 0,
            timers: [None; 2],
            row_took: Duration::from_secs(1),
            swept: Sweeping::default(),
            turns: 0,
            news: Vec::new(),
        };
        simulation.at(simulation.now, Coming::Sweep);
        simulation.at(simulation.now, Coming::Renew);
        simulation
    }

    /// Runs until `until`. `call` is asked at the beginning of each attempt what it ends with, and after
    /// how long.
    ///
    /// # Errors
    /// What the database said.
    pub fn run(
        &mut self,
        until: DateTime<Utc>,
        mut call: impl FnMut(&M, DateTime<Utc>) -> (Outcome, Duration),
    ) -> QueryResult<()> {
        let until = Moment::at(until);
        while let Some(next) = self.coming.first_entry().filter(|next| next.key().0 <= until) {
            let ((at, _), coming) = next.remove_entry();
            self.pass_to(at);
            self.happen(coming)?;
            self.act(&mut call)?;
        }
        self.pass_to(until);
        Ok(())
    }

    /// The connection, for what happens beside the host.
    pub fn conn(&mut self) -> &mut C {
        &mut self.conn
    }

    /// Now, in virtual time.
    pub fn now(&self) -> DateTime<Utc> {
        self.now.zoned
    }

    /// Turns at the database until now.
    pub fn turns(&self) -> usize {
        self.turns
    }

    /// Which services went `down` or came back `up`, and when.
    pub fn news(&self) -> &[(DateTime<Utc>, String)] {
        &self.news
    }

    /// What the supervisor does with the message.
    ///
    /// # Errors
    /// What the database said.
    pub fn hold(&mut self, hold: HoldService) -> QueryResult<bool> {
        let HoldService { service, by, reason, until } = hold;
        self.order(service, &by, &Order::Hold { reason, until: until.map(Moment::at) })
    }

    /// What the supervisor does with the message.
    ///
    /// # Errors
    /// What the database said.
    pub fn ask(&mut self, ask: AskService) -> QueryResult<bool> {
        self.order(ask.service, &ask.by, &Order::AskNow)
    }

    fn order(&mut self, service: Service, by: &str, order: &Order) -> QueryResult<bool> {
        let now = self.now;
        let done = self.conn.write(|conn| service::order(conn, service.name(), by, order, now))?;
        self.at(now, Coming::Wake);
        Ok(done)
    }

    fn pass_to(&mut self, at: Moment) {
        self.wall += at.since(self.now);
        self.now = self.now.max(at);
    }

    fn at(&mut self, at: Moment, coming: Coming<M>) {
        self.scheduled += 1; // what was scheduled first happens first
        self.coming.insert((at.max(self.now), self.scheduled), coming);
    }

    fn happen(&mut self, coming: Coming<M>) -> QueryResult<()> {
        let (now, wall) = (self.now, self.wall);
        match coming {
            Coming::Turned(turned) => self.pump.turned(Ok(*turned), now, wall),
            Coming::Finished { id, token, began, ended } => {
                self.row_took = (self.row_took * 7 + now.since(began)) / 8;
                let ahead = ahead(TURN_TAKES, self.row_took, AT_ONCE);
                let ending = Ending { ended, began, reached: Default::default() };
                self.pump.finished(&id, token, ending, now, ahead);
            }
            Coming::Timer { set, wakes } => {
                // One that was set for later than another since goes off in vain.
                let this = self.timers[usize::from(wakes)].take_if(|at| *at == set);
                if this.is_some() && wakes {
                    self.pump.wake();
                }
            }
            Coming::Wake => self.pump.wake(),
            Coming::Sweep => self.sweep()?,
            Coming::Renew => self.renew()?,
        }
        Ok(())
    }

    fn act(
        &mut self,
        call: &mut impl FnMut(&M, DateTime<Utc>) -> (Outcome, Duration),
    ) -> QueryResult<()> {
        let now = self.now;
        for action in self.pump.next(now, self.wall) {
            match action {
                Action::Start(hold, row) => {
                    let (outcome, takes) = call(&row, now.zoned);
                    let ended = match outcome {
                        Ok(()) => Ended::Done(Vec::new()),
                        Err(failure) => Ended::Failed(failure),
                    };
                    let (id, token) = (hold.id, hold.token);
                    self.at(now.plus(takes), Coming::Finished { id, token, began: now, ended });
                }
                Action::Turn(turn) => {
                    self.turns += 1;
                    let (conn, expires_at) = (&mut self.conn, now.plus(LEASE));
                    let turned = turn::take::<M, C>(conn, now, expires_at, &self.host, &turn)?;
                    self.at(now.plus(TURN_TAKES), Coming::Turned(Box::new(turned)));
                }
                Action::News(news, _) => self.news.push(match news {
                    News::Down { service, .. } => (now.zoned, format!("{service} down")),
                    News::Up { service, .. } => (now.zoned, format!("{service} up")),
                }),
                Action::GoAt(at) => self.come_back(at, false),
                Action::WakeAt(at) => self.come_back(at, true),
                // Steps are not simulated, and nothing else waits.
                Action::Expect(wait) => self.pump.in_vain(wait),
                // For whoever asked or waits, and for logs.
                Action::Answer(..)
                | Action::Abort(..)
                | Action::Failed(..)
                | Action::Refused(..)
                | Action::Shunned(..)
                | Action::Step(..)
                | Action::Drained => {}
            }
        }
        Ok(())
    }

    fn come_back(&mut self, at: Moment, wakes: bool) {
        let set = &mut self.timers[usize::from(wakes)];
        if set.is_none_or(|set| set > at) {
            *set = Some(at);
            self.at(at, Coming::Timer { set: at, wakes });
        }
    }

    fn sweep(&mut self) -> QueryResult<()> {
        let now = self.now;
        self.at(now.plus(SWEEP_EVERY), Coming::Sweep);
        self.pump.wake();
        self.conn.write(|conn| service::end_holds(conn, now))?;
        let claiming = Claiming {
            now,
            expires_at: now.plus(LEASE),
            host: self.host.clone(),
            limit: self.pump.room().min(64),
            retries_first: false,
            services: self.services.clone(),
            shunned: self.pump.shunned(),
            careful: false,
        };
        let held = self.pump.renewed(self.wall);
        let tally = std::mem::take(&mut self.pump.tally);
        let swept = turn::sweep::<M, C>(&mut self.conn, &claiming, &held, tally, &mut self.swept)?;
        self.pump.claimed(swept.claims, now, self.wall);
        Ok(())
    }

    fn renew(&mut self) -> QueryResult<()> {
        self.at(self.now.plus(LEASE / 4), Coming::Renew);
        let tokens = self.pump.renewed(self.wall);
        let (conn, expires_at) = (&mut self.conn, self.now.plus(LEASE));
        let lost = lease::renew(conn, M::COLUMNS.name, &self.host, &tokens, expires_at)?;
        if !lost.is_empty() {
            self.pump.lost(&lost);
        }
        Ok(())
    }
}

fn shared<T>(value: T) -> std::rc::Rc<std::cell::RefCell<T>> {
    std::rc::Rc::new(std::cell::RefCell::new(value))
}
