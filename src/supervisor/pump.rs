//! The pump: a processor's decisions, as a pure state machine.
//!
//! No clock, no mailbox, no SQL: inputs are told with their instant, and [`Pump::next`] answers what to
//! do. At most one turn is in flight; what arrives meanwhile joins the next.
//!
//! What it promises: an outcome that was reached is sent until it is recorded or its lease is lost; what an
//! attempt records of its steps is in the same turn as its outcome or in an earlier one; and a lease is
//! renewed only while something of its batch may still end (see [`Pump::renewed`]).

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use super::gate::{Gates, Heard, Wait};
use crate::{
    failure::{Failure, Kind, PANIC},
    outage::window_began,
    retry::RetryPolicy,
    service::Service,
    step::Reached,
    store::{
        Moment,
        buckets::Tally,
        claim::{Claimed, Claims, Hold},
        service::{self, News, Permit, ServiceWork, Standing},
        settle::{Failed, Ran, Settle, Settled, Verdict, WhenDone},
        step::{StepAnswer, StepWork},
        turn::{Answer, Request, Turn, Turned},
    },
};

/// What to do now.
pub(crate) enum Action<K, R> {
    Start(Hold<K>, R),
    Turn(Turn<K>),
    Answer(u64, Result<Answer, String>),
    /// The lease is lost: stop the attempt.
    Abort(K, Moment),
    /// A failure is recorded: tell the host.
    Failed(K, Failed),
    /// The database refused to record what became of a row in the row itself, and only of this one.
    Refused(K, String),
    /// The database refuses that a row, by its id, is attempted.
    Shunned(String, String),
    /// For the attempt that waits for it.
    Step(u64, StepAnswer),
    /// Of a service, with how many of the model's rows wait.
    News(News, u32),
    /// Come back then: an attempt may begin.
    GoAt(Moment),
    /// Look for due rows then: a service may be asked.
    WakeAt(Moment),
    /// A turn waits for attempts that will be heard of at once: tell [`Pump::in_vain`] in a moment.
    Expect(u64),
    /// Nothing is held and nothing is under way any more.
    Drained,
}

/// How an attempt ended, when, and how far it had come.
pub(crate) struct Ending {
    pub(crate) ended: Ended,
    pub(crate) began: Moment,
    pub(crate) reached: Reached,
}

/// How an attempt ended.
pub(crate) enum Ended {
    Done(Vec<WhenDone>),
    Failed(Failure),
    /// It never began: its worker died, or was kept busy for too long by the host's code.
    NotBegun,
}

/// What a pump goes by.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) policy: RetryPolicy,
    /// How long a call of unknown outcome may still be under way.
    pub(crate) settles_within: Duration,
    /// At least 1.
    pub(crate) at_once: usize,
    /// The longest attempt, in wall time.
    pub(crate) timeout: Duration,
    /// What the processor calls.
    pub(crate) services: Arc<[Service]>,
}

/// How long after its last possible end an attempt is still believed to go on.
const SLACK: Duration = Duration::from_secs(5);

/// How long a row is left alone that the database did not let anybody attempt. Each time that it is tried
/// costs a turn, and whoever mends it waits for as long at most.
const SHUN: Duration = Duration::from_secs(300);

struct Waiting<K, R> {
    hold: Hold<K>,
    row: R,
    since: Instant,
}

struct Running<K> {
    hold: Hold<K>,
    /// By then it has ended, unless the host's code blocks its thread.
    ends: Instant,
}

pub(crate) struct Pump<K, R> {
    rules: Rules,
    /// What was recorded since the last sweep.
    pub(crate) tally: Tally,
    gates: Gates,
    /// What attempts have found out about services.
    found: Vec<ServiceWork>,
    /// Batches of one row that asks services which are down.
    probes: HashSet<Moment>,
    /// By how much outages lengthen the window.
    longer: Duration,
    /// Rows, by id, that cannot be attempted, and until when they are left alone.
    shunned: BTreeMap<String, Moment>,
    /// Outages whose rows are to become due, by service; and those whose rows have.
    release: BTreeMap<String, (Moment, Moment)>,
    released: BTreeMap<String, Moment>,
    queue: VecDeque<Waiting<K, R>>,
    /// By row and token: a blocked attempt that lost its lease may still be there when its row comes again.
    running: HashMap<(K, Moment), Running<K>>,
    outcomes: Vec<Settle<K>>,
    locked: Vec<Settle<K>>,
    requests: Vec<(u64, Request<K>)>,
    steps: Vec<(u64, StepWork<K>)>,
    locked_steps: Vec<(u64, StepWork<K>)>,
    in_flight: Option<InFlight<K>>,
    /// What a turn that failed was to record: sent again as it is.
    repeat: Option<Recording<K>>,
    /// Rows of each batch not yet answered for.
    held: BTreeMap<Moment, usize>,
    /// There may be something due.
    due: bool,
    retries_first: bool,
    pub(crate) paused: bool,
    draining: bool,
    ahead: usize,
    expected: Expected,
    actions: Vec<Action<K, R>>,
}

/// Attempts that go on now, since they began or their step is recorded. One that comes to its next step or
/// its end in no time had better be in the next turn, with all the others: otherwise each turn carries half
/// of them, and costs as much. So a turn waits for them, but for attempts that take longer only now and then:
/// each wait in vain doubles the number of turns that do not wait.
#[derive(Default)]
struct Expected {
    attempts: usize,
    /// Attempts take steps here.
    steps: bool,
    waiting: bool,
    /// How many times a turn has waited.
    waits: u64,
    /// Turns that go without waiting after the next wait in vain, and those of them that are left.
    skip: u32,
    left: u32,
}

impl Expected {
    fn goes_on(&mut self) {
        self.attempts += 1;
    }

    fn heard(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        if self.attempts == 0 && std::mem::take(&mut self.waiting) {
            self.skip = 0;
        }
    }

    fn in_vain(&mut self, wait: u64) {
        if self.waits == wait && std::mem::take(&mut self.waiting) {
            self.skip = (2 * self.skip + 1).min(1023);
            self.left = self.skip;
            self.attempts = 0;
        }
    }

    /// Whether a turn should wait.
    fn wait(&mut self) -> bool {
        if self.attempts == 0 {
            return false;
        }
        self.waiting = self.left == 0;
        if self.waiting {
            self.waits += 1;
        } else {
            self.left -= 1;
            self.attempts = 0;
        }
        self.waiting
    }
}

/// Facts: what became of attempts and their steps, and the batches that are ended by it.
#[derive(Clone)]
struct Recording<K> {
    settle: Arc<Vec<Settle<K>>>,
    steps: Arc<Vec<(u64, StepWork<K>)>>,
    services: Arc<Vec<ServiceWork>>,
    ends: Vec<Moment>,
}

struct InFlight<K> {
    recording: Recording<K>,
    tickets: Vec<u64>,
    /// Services whose outages' rows it makes due.
    releases: Vec<String>,
    claimed: bool,
}

impl<K: Clone + Eq + Hash + ToString, R> Pump<K, R> {
    pub(crate) fn new(rules: Rules, gates: Gates) -> Self {
        Pump {
            tally: Tally::default(),
            gates,
            found: Vec::new(),
            probes: HashSet::new(),
            longer: Duration::ZERO,
            shunned: BTreeMap::new(),
            release: BTreeMap::new(),
            released: BTreeMap::new(),
            rules: Rules { at_once: rules.at_once.max(1), ..rules },
            queue: VecDeque::new(),
            running: HashMap::new(),
            outcomes: Vec::new(),
            locked: Vec::new(),
            requests: Vec::new(),
            steps: Vec::new(),
            locked_steps: Vec::new(),
            in_flight: None,
            repeat: None,
            held: BTreeMap::new(),
            due: true,
            retries_first: false,
            paused: false,
            draining: false,
            ahead: 0,
            expected: Expected::default(),
            actions: Vec::new(),
        }
    }

    pub(crate) fn request(&mut self, ticket: u64, request: Request<K>) {
        // Perhaps it has been mended.
        if let Request::Submit { ids, .. } | Request::Restart { ids, .. } = &request
            && !self.shunned.is_empty()
        {
            let ids: HashSet<String> = ids.iter().map(ToString::to_string).collect();
            self.shunned.retain(|id, _| !ids.contains(id));
        }
        self.requests.push((ticket, request));
        self.due = true;
    }

    /// A running attempt has something of its steps recorded.
    pub(crate) fn step(&mut self, ticket: u64, work: StepWork<K>) {
        if let StepWork::Begin { .. } | StepWork::Again { .. } = work {
            self.expected.steps = true;
            self.expected.heard();
        }
        self.steps.push((ticket, work));
    }

    /// If it still waits, this wait has lasted for a moment.
    pub(crate) fn in_vain(&mut self, wait: u64) {
        self.expected.in_vain(wait);
    }

    /// There may be something due; rows that were only locked are tried again.
    pub(crate) fn wake(&mut self) {
        self.due = true;
        self.outcomes.append(&mut self.locked);
        self.steps.append(&mut self.locked_steps);
    }

    pub(crate) fn pause(&mut self, paused: bool) {
        self.paused = paused;
        self.due = true;
        if paused {
            self.release_queue();
        }
    }

    /// Claims no more, and gives back what has not begun.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.release_queue();
    }

    /// Gives back what has not begun.
    fn release_queue(&mut self) {
        self.release_if(|_, _| true);
    }

    fn release_if(&mut self, gone: impl Fn(&Self, &Waiting<K, R>) -> bool) {
        for waiting in std::mem::take(&mut self.queue) {
            if gone(self, &waiting) {
                let (hold, verdict) = (waiting.hold, Verdict::Release);
                self.outcomes.push(Settle { hold, verdict, ran: None });
            } else {
                self.queue.push_back(waiting);
            }
        }
    }

    /// A service is down or held: gives back what has not begun, but for the row that asks it.
    fn release_closed(&mut self) {
        self.release_if(|me, waiting| !me.probes.contains(&waiting.hold.token));
    }

    /// The grace is over: what still runs is stopped and given back, which costs no attempt.
    pub(crate) fn stop_running(&mut self) {
        for ((id, token), Running { hold, .. }) in self.running.drain() {
            self.gates.end();
            self.actions.push(Action::Abort(id, token));
            self.outcomes.push(Settle { hold, verdict: Verdict::Release, ran: None });
        }
    }

    pub(crate) fn claimed(&mut self, claims: Claims<K, R>, now: Moment, wall: Instant) {
        if let Some(standing) = claims.standing {
            self.told(standing, claims.claimed.first().map(|claimed| claimed.hold.token), now);
        }
        for (id, why) in claims.refused {
            self.shunned.insert(id.clone(), now.plus(SHUN));
            self.actions.push(Action::Shunned(id, why));
        }
        for Claimed { hold, row } in claims.claimed {
            *self.held.entry(hold.token).or_default() += 1;
            match row {
                Ok(_) if self.draining || self.paused => {
                    self.outcomes.push(Settle { hold, verdict: Verdict::Release, ran: None });
                }
                Ok(row) => self.queue.push_back(Waiting { hold, row, since: wall }),
                Err(why) => {
                    let failure = Failure::transient(why).with_code("row_unreadable");
                    let verdict = self.judge(&hold, failure, None, false, now);
                    self.outcomes.push(Settle { hold, verdict, ran: None });
                }
            }
        }
    }

    /// Where the services stand, as a claim has seen it; `token` is its batch.
    fn told(&mut self, standing: Standing, token: Option<Moment>, now: Moment) {
        self.gates.told(&standing.states);
        let policy = &self.rules.policy;
        let plain = now.minus(policy.open_for());
        if !policy.counts_outages() {
            let began = window_began(now, policy.open_for(), &standing.outages);
            self.longer = plain.since(began);
        }
        if let (Permit::Probe(_), Some(token)) = (&standing.permit, token) {
            self.probes.insert(token);
        }
        if standing.permit != Permit::All {
            self.release_closed();
            if let Some(at) = standing.next_at(now) {
                self.actions.push(Action::WakeAt(at));
            }
        }
        for state in standing.states.into_iter().filter(|state| !state.open && state.held.is_none())
        {
            if let (Some(since), Some(until)) = (state.since, state.closed_at)
                && self.released.get(&state.name) != Some(&until)
            {
                self.release.insert(state.name, (since, until));
                self.due = true; // by the next turn, not by the next sweep
            }
        }
    }

    /// An attempt has ended; `ahead` is how many rows to claim ahead by what was measured.
    pub(crate) fn finished(
        &mut self,
        id: &K,
        token: Moment,
        ending: Ending,
        now: Moment,
        ahead: usize,
    ) {
        let Some(Running { hold, .. }) = self.running.remove(&(id.clone(), token)) else {
            return; // aborted meanwhile
        };
        self.expected.heard();
        self.ahead = ahead.min(240);
        self.gates.end();
        let Ending { ended, began, reached } = ending;
        let heard = self.gates.heard(&ended, began, now);
        self.tell(&heard, &ended, &hold);
        let verdict = match ended {
            Ended::Done(writes) => Verdict::Done(writes),
            // Nothing of it is recorded; what is still its own of the row goes back.
            Ended::Failed(failure) if failure.kind() == Kind::Lost => Verdict::Release,
            Ended::Failed(failure) => {
                self.judge(&hold, failure, reached.not_before(), heard.outage, now)
            }
            Ended::NotBegun => Verdict::Release,
        };
        let ran = Some(Ran { began, ended: now, step: reached.step });
        self.outcomes.push(Settle { hold, verdict, ran });
    }

    /// Notes for the database what an attempt's end says about its services.
    fn tell(&mut self, heard: &Heard, ended: &Ended, hold: &Hold<K>) {
        if let (Some(down), Ended::Failed(failure)) = (&heard.down, ended) {
            let services = &self.rules.services;
            if let Some(service) = services.iter().find(|service| service.name() == down.service) {
                let (service, code) = (*service, failure.stored_code());
                let first_failed_at = down.first_failed_at;
                self.found.push(ServiceWork::Down { service, code, first_failed_at });
                self.release_closed();
            }
        }
        let token = hold.token;
        if self.probes.remove(&token) {
            let code = match ended {
                Ended::Failed(failure) => failure.stored_code(),
                Ended::Done(_) | Ended::NotBegun => String::new(),
            };
            let row_id = hold.id.to_string();
            self.found.push(match heard.there {
                true => ServiceWork::Answered { token },
                false => ServiceWork::Unanswered { token, service: heard.failed, row_id, code },
            });
            self.due = true;
        }
    }

    /// What comes of a failure: when the row is due again, or that it is parked.
    ///
    /// `not_before`: a call of the attempt's may still be under way at its service until then. `outage`:
    /// the failure is not the row's, which keeps its attempts.
    fn judge(
        &self,
        hold: &Hold<K>,
        failure: Failure,
        not_before: Option<Moment>,
        outage: bool,
        now: Moment,
    ) -> Verdict {
        let counted = failure.kind() != Kind::Unsettled && !outage;
        let failures = hold.failures.saturating_add(counted.into());
        let Rules { policy, settles_within, .. } = &self.rules;
        let crashes = match counted {
            true if failure.code() == PANIC => hold.crashes.saturating_add(1),
            true => 0,
            // It has only waited: a row whose step ends its process would never be seen to.
            false => hold.crashes,
        };
        let failure = if policy.is_poison(crashes) { failure.poison(crashes) } else { failure };
        let wait = policy.wait_after(failures, seed(&hold.id.to_string(), failures));
        let due_at = match failure.kind() {
            Kind::Permanent => None,
            Kind::Lost | Kind::Unsettled => Some(now),
            Kind::RetryAfter(after) => Some(now.plus(after.max(Duration::from_secs(1)))),
            Kind::Unknown => Some(now.plus(wait.max(*settles_within))),
            Kind::Transient | Kind::Unavailable(_) => Some(now.plus(wait)),
        };
        // Not later than the window's end: that is when the claim notes that the row has expired.
        let window_ends = hold.last_submitted_at.plus(policy.open_for() + self.longer);
        let due_at = due_at.map(|at| at.max(not_before.unwrap_or(at)).min(window_ends).max(now));
        let attempt = hold.failures.saturating_add(1);
        Verdict::Failed(Failed { due_at, failure, attempt, counted, crashes })
    }

    pub(crate) fn turned(
        &mut self,
        turned: Result<Turned<K, R>, String>,
        now: Moment,
        wall: Instant,
    ) {
        let Some(sent) = self.in_flight.take() else { return };
        let turned = match turned {
            Ok(turned) => turned,
            Err(error) => {
                // No outcome is lost: the same ones are sent again. Who asked for something is told.
                let tickets = sent.tickets.into_iter();
                self.actions
                    .extend(tickets.map(|ticket| Action::Answer(ticket, Err(error.clone()))));
                self.repeat = Some(sent.recording);
                self.due = true;
                return;
            }
        };
        for (ticket, answer) in turned.answers {
            self.actions.push(Action::Answer(ticket, Ok(answer)));
        }
        for (name, count) in sent.releases.iter().zip(&turned.released) {
            match self.release.get(name) {
                Some((_, until)) if *count < service::PAGE => {
                    self.released.insert(name.clone(), *until);
                    self.release.remove(name);
                }
                _ => {}
            }
            self.due = true;
        }
        for news in turned.news {
            self.due = true;
            self.actions.push(Action::News(news, turned.waiting));
        }
        for ((ticket, work), answer) in sent.recording.steps.iter().zip(turned.steps) {
            match answer {
                StepAnswer::Locked => self.locked_steps.push((*ticket, work.clone())),
                answer @ StepAnswer::Begun(_) => {
                    self.expected.goes_on();
                    self.actions.push(Action::Step(*ticket, answer));
                }
                answer => self.actions.push(Action::Step(*ticket, answer)),
            }
        }
        for (item, answer) in sent.recording.settle.iter().zip(turned.settled) {
            match answer {
                Settled::Locked => {
                    let verdict = match &item.verdict {
                        Verdict::Failed(failed) => Verdict::Failed(failed.clone()),
                        Verdict::Release => Verdict::Release,
                        Verdict::Done(writes) => Verdict::Done(writes.iter().map(taken).collect()),
                    };
                    let (hold, ran) = (item.hold.clone(), item.ran.clone());
                    self.locked.push(Settle { hold, verdict, ran });
                    continue;
                }
                Settled::NotDone(code, why) => {
                    let failure = Failure::transient(why).with_code(code);
                    let verdict = self.judge(&item.hold, failure, None, false, now);
                    let (hold, ran) = (item.hold.clone(), item.ran.clone());
                    self.outcomes.push(Settle { hold, verdict, ran });
                    continue;
                }
                kept @ (Settled::Kept | Settled::KeptBeside(_)) => {
                    if let Settled::KeptBeside(why) = kept {
                        self.actions.push(Action::Refused(item.hold.id.clone(), why));
                    }
                    match &item.verdict {
                        Verdict::Done(_) => self.tally.finished += 1,
                        Verdict::Failed(failed) if failed.counted => self.tally.failed += 1,
                        Verdict::Failed(_) | Verdict::Release => {}
                    }
                    if let Verdict::Failed(failed) = &item.verdict {
                        self.actions.push(Action::Failed(item.hold.id.clone(), failed.clone()));
                    }
                }
                Settled::Superseded => self.due = true,
                Settled::Refused(why) => {
                    self.actions.push(Action::Refused(item.hold.id.clone(), why));
                }
                Settled::Lost => {}
            }
            if let Some(count) = self.held.get_mut(&item.hold.token) {
                *count -= 1;
                if *count == 0 {
                    self.held.remove(&item.hold.token);
                }
            }
        }
        if sent.claimed && !turned.claims.drained() {
            self.due = true;
        }
        self.claimed(turned.claims, now, wall);
    }

    /// Batches whose leases are to be renewed: not those of which nothing is left but attempts that
    /// should have ended. The host's code blocks their thread, perhaps for ever; other hosts may have
    /// them when the lease lapses. Rows that have waited here for a whole attempt are given back.
    pub(crate) fn renewed(&mut self, wall: Instant) -> Vec<Moment> {
        if let Some(before) = wall.checked_sub(self.rules.timeout) {
            self.release_if(|_, waiting| waiting.since <= before);
        }
        let mut overdue: HashMap<Moment, usize> = HashMap::new();
        for running in self.running.values().filter(|running| running.ends < wall) {
            *overdue.entry(running.hold.token).or_default() += 1;
        }
        let held = self.held.iter().filter(|(token, rows)| overdue.get(token) != Some(rows));
        held.map(|(token, _)| *token).collect()
    }

    pub(crate) fn holds(&self, token: &Moment) -> bool {
        self.held.contains_key(token)
    }

    pub(crate) fn lost(&mut self, tokens: &[Moment]) {
        self.queue.retain(|waiting| !tokens.contains(&waiting.hold.token));
        self.outcomes.retain(|item| !tokens.contains(&item.hold.token));
        let lost = self.running.extract_if(|(_, token), _| tokens.contains(token));
        for ((id, token), _) in lost {
            self.gates.end();
            self.actions.push(Action::Abort(id, token));
        }
        self.probes.retain(|token| !tokens.contains(token));
        self.held.retain(|token, _| !tokens.contains(token));
        self.due = true;
    }

    /// By how much outages lengthen the window.
    pub(crate) fn longer(&self) -> Duration {
        self.longer
    }

    pub(crate) fn room(&self) -> usize {
        let at_once = self.rules.at_once.min(self.gates.at_once());
        (at_once + self.ahead.min(self.gates.ahead()))
            .saturating_sub(self.queue.len() + self.running.len())
    }

    /// Rows that no claim is to try now.
    pub(crate) fn shunned(&self) -> Arc<[String]> {
        self.shunned.keys().cloned().collect()
    }

    /// What to do now.
    pub(crate) fn next(&mut self, now: Moment, wall: Instant) -> Vec<Action<K, R>> {
        self.shunned.retain(|_, until| *until > now);
        loop {
            let more = self.running.len() < self.rules.at_once;
            let Some(first) = self.queue.front().filter(|_| more) else {
                self.gates.leave();
                break;
            };
            match self.gates.start(now, self.probes.contains(&first.hold.token)) {
                Ok(()) => {}
                Err(Wait::ForASlot) => break,
                Err(Wait::Until(at)) => {
                    self.actions.push(Action::GoAt(at));
                    break;
                }
            }
            let Some(Waiting { hold, row, .. }) = self.queue.pop_front() else { break };
            // Its worker may let it wait for as long as an attempt may take, and then not begin it.
            let ends = wall + 2 * self.rules.timeout + SLACK;
            let running = Running { hold: hold.clone(), ends };
            self.running.insert((hold.id.clone(), hold.token), running);
            if self.expected.steps {
                self.expected.goes_on();
            }
            self.actions.push(Action::Start(hold, row));
        }
        if self.in_flight.is_none() {
            self.turn();
        }
        if self.draining
            && self.in_flight.is_none()
            && self.held.is_empty()
            && self.repeat.is_none()
            && self.steps.is_empty()
        {
            self.actions.push(Action::Drained);
        }
        std::mem::take(&mut self.actions)
    }

    fn turn(&mut self) {
        let room = self.room();
        let worth = room > 0 && self.queue.len() <= self.ahead / 2;
        let claims = self.due && worth && !self.paused && !self.draining;
        let facts = !self.outcomes.is_empty()
            || !self.steps.is_empty()
            || !self.found.is_empty()
            || self.repeat.is_some();
        if !claims && !facts && self.requests.is_empty() {
            return;
        }
        // Who has asked for something waits for nobody.
        let patient = self.requests.is_empty() && self.repeat.is_none() && !self.draining;
        if patient && self.expected.waiting {
            return;
        }
        if patient && self.expected.wait() {
            return self.actions.push(Action::Expect(self.expected.waits));
        }
        let recording = self.repeat.take().unwrap_or_else(|| {
            let steps = Arc::new(std::mem::take(&mut self.steps));
            let services = Arc::new(std::mem::take(&mut self.found));
            let settle = Arc::new(std::mem::take(&mut self.outcomes));
            let mut counts: HashMap<Moment, usize> = HashMap::new();
            for item in settle.iter() {
                *counts.entry(item.hold.token).or_default() += 1;
            }
            let ends =
                counts.into_iter().filter(|(token, count)| self.held.get(token) == Some(count));
            let ends = ends.map(|(token, _)| token).collect();
            Recording { settle, steps, services, ends }
        });
        let requests = std::mem::take(&mut self.requests);
        if claims {
            // Before the turn, not after it: a wake during the turn must not be lost.
            self.due = false;
            self.retries_first = !self.retries_first;
        }
        let tickets = requests.iter().map(|(ticket, _)| *ticket).collect();
        let claim = claims.then_some((room.min(256), self.retries_first));
        let Recording { settle, steps, services, ends } = recording.clone();
        let releases: Vec<String> = self.release.keys().cloned().collect();
        let release = self.release.values().copied().collect();
        self.in_flight = Some(InFlight { recording, tickets, releases, claimed: claims });
        let settles_within = self.rules.settles_within;
        self.actions.push(Action::Turn(Turn {
            requests,
            steps,
            settles_within,
            services,
            release,
            settle,
            ends,
            claim,
            shunned: self.shunned(),
            calls: self.rules.services.clone(),
        }));
    }
}

/// How many rows to claim ahead: those that are worked off during one turn, and half as many again.
pub(crate) fn ahead(turn_takes: Duration, row_takes: Duration, at_once: usize) -> usize {
    let rows = turn_takes.as_secs_f64() / row_takes.as_secs_f64().max(1e-6);
    (rows * 1.5 * at_once as f64) as usize
}

/// The host's write, out of a turn that did not run it.
fn taken(write: &WhenDone) -> WhenDone {
    let mut write = write.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    std::sync::Mutex::new(std::mem::replace(&mut *write, Box::new(|_| Ok(()))))
}

/// FNV-1a: the same row and attempt always gets the same jitter.
fn seed(id: &str, failures: u32) -> u64 {
    let bytes = id.bytes().chain(failures.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::{
        super::gate::{Cap, Gate},
        *,
    };
    use crate::store::service::ServiceState;
    use chrono::{TimeZone, Utc};

    type TestPump = Pump<i64, &'static str>;

    fn at(seconds: u64) -> Moment {
        let began = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).single().expect("an instant");
        Moment::at(began).plus(Duration::from_secs(seconds))
    }

    fn rules(at_once: usize) -> Rules {
        Rules {
            policy: RetryPolicy::DEFAULT,
            settles_within: Duration::from_secs(900),
            at_once,
            timeout: Duration::from_secs(300),
            services: Arc::new([]),
        }
    }

    fn gates() -> Gates {
        Gates::new("letters", Vec::new(), Rc::new(RefCell::new(Cap::new(usize::MAX))))
    }

    fn pump(at_once: usize) -> TestPump {
        Pump::new(rules(at_once), gates())
    }

    /// The beginning of wall time, as far as these tests go.
    fn wall() -> Instant {
        static BEGAN: std::sync::LazyLock<Instant> =
            std::sync::LazyLock::new(|| Instant::now() + Duration::from_secs(86_400));
        *BEGAN
    }

    fn rows(token: Moment, ids: &[i64]) -> Claims<i64, &'static str> {
        let claimed = ids.iter().map(|id| Claimed {
            hold: Hold {
                id: *id,
                token,
                seen: "seen".to_owned(),
                last_submitted_at: at(0),
                submitted_at: Some(at(0)),
                failures: 0,
                crashes: 0,
            },
            row: Ok("row"),
        });
        Claims { claimed: claimed.collect(), put_aside: ids.len(), ..Claims::none() }
    }

    fn turned(
        claims: Claims<i64, &'static str>,
        settled: Vec<Settled>,
    ) -> Turned<i64, &'static str> {
        Turned {
            answers: Vec::new(),
            steps: Vec::new(),
            settled,
            news: Vec::new(),
            waiting: 0,
            released: Vec::new(),
            sent: Vec::new(),
            claims,
        }
    }

    fn ending(ended: Ended) -> Ending {
        Ending { ended, began: at(1), reached: Reached::default() }
    }

    fn done() -> Ending {
        ending(Ended::Done(vec![]))
    }

    /// The actions as words.
    fn next(pump: &mut TestPump) -> Vec<String> {
        let word = |action| match action {
            Action::Start(hold, _) => format!("start {}", hold.id),
            Action::Turn(turn) => format!(
                "turn: {} settled, {} ended, claim {:?}",
                turn.settle.len(),
                turn.ends.len(),
                turn.claim.map(|(limit, _)| limit)
            ),
            Action::Answer(ticket, answer) => format!("answer {ticket}: {}", answer.is_ok()),
            Action::Abort(id, _) => format!("abort {id}"),
            Action::Failed(id, failed) => format!("failed {id}: {}", failed.failure.code()),
            Action::News(news, _) => format!("{news:?}"),
            Action::GoAt(at) => format!("go at {}", at.zoned.format("%T")),
            Action::WakeAt(at) => format!("wake at {}", at.zoned.format("%T")),
            Action::Step(ticket, answer) => format!("step {ticket}: {answer:?}"),
            Action::Refused(id, _) => format!("refused {id}"),
            Action::Shunned(id, _) => format!("shunned {id}"),
            Action::Expect(wait) => format!("expect {wait}"),
            Action::Drained => "drained".to_owned(),
        };
        pump.next(at(1), wall()).into_iter().map(word).collect()
    }

    #[test]
    fn a_row_that_cannot_be_attempted_is_left_alone_until_it_is_asked_for_or_five_minutes_are_over()
    {
        let mut pump = pump(1);
        next(&mut pump);
        let refused = ["7", "8"].map(|id| (id.to_owned(), "no".to_owned())).to_vec();
        let claims = Claims { refused, ..Claims::none() };
        pump.turned(Ok(turned(claims, vec![])), at(1), wall());
        // It looks on at once: the others are behind these.
        let now = ["shunned 7", "shunned 8", "turn: 0 settled, 0 ended, claim Some(1)"];
        assert_eq!(next(&mut pump), now);
        assert_eq!(*pump.shunned(), ["7", "8"]);
        pump.turned(Ok(turned(Claims::none(), vec![])), at(1), wall());
        pump.request(1, Request::Restart { ids: vec![8], by: None });
        assert_eq!(*pump.shunned(), ["7"]);
        pump.next(at(301), wall());
        assert_eq!(*pump.shunned(), [] as [String; 0]);
    }

    #[test]
    fn a_row_is_claimed_started_settled_and_its_batch_ended() {
        let mut pump = pump(1);
        assert_eq!(next(&mut pump), ["turn: 0 settled, 0 ended, claim Some(1)"]);
        pump.turned(Ok(turned(rows(at(1), &[7]), vec![])), at(1), wall());
        assert_eq!(next(&mut pump), ["start 7"]);
        pump.finished(&7, at(1), done(), at(2), 0);
        assert_eq!(next(&mut pump), ["turn: 1 settled, 1 ended, claim Some(1)"]);
        pump.turned(Ok(turned(Claims::none(), vec![Settled::Kept])), at(2), wall());
        assert_eq!(next(&mut pump), [] as [&str; 0]);
        assert_eq!(pump.renewed(wall()), []);
    }

    #[test]
    fn only_one_turn_is_in_flight_and_a_wake_meanwhile_is_not_lost() {
        let mut pump = pump(4);
        assert_eq!(next(&mut pump).len(), 1);
        pump.wake();
        assert_eq!(next(&mut pump), [] as [&str; 0]);
        pump.turned(Ok(turned(Claims::none(), vec![])), at(1), wall());
        assert_eq!(next(&mut pump), ["turn: 0 settled, 0 ended, claim Some(4)"]);
    }

    #[test]
    fn a_failed_turn_is_sent_again_with_its_outcomes_and_its_askers_are_told() {
        let mut pump = pump(1);
        next(&mut pump);
        pump.turned(Ok(turned(rows(at(1), &[7]), vec![])), at(1), wall());
        next(&mut pump);
        pump.finished(&7, at(1), done(), at(2), 0);
        pump.request(3, Request::Cancel { id: 9, by: None });
        assert_eq!(next(&mut pump), ["turn: 1 settled, 1 ended, claim Some(1)"]);
        pump.turned(Err("away".to_owned()), at(3), wall());
        assert_eq!(next(&mut pump), ["answer 3: false", "turn: 1 settled, 1 ended, claim Some(1)"]);
    }

    #[test]
    fn a_row_locked_by_somebody_is_settled_in_a_later_turn_and_keeps_its_lease() {
        let mut pump = pump(1);
        next(&mut pump);
        pump.turned(Ok(turned(rows(at(1), &[7]), vec![])), at(1), wall());
        next(&mut pump);
        pump.finished(&7, at(1), done(), at(2), 0);
        next(&mut pump);
        pump.turned(Ok(turned(Claims::none(), vec![Settled::Locked])), at(2), wall());
        assert_eq!(pump.renewed(wall()), [at(1)]);
        pump.wake();
        assert_eq!(next(&mut pump), ["turn: 1 settled, 1 ended, claim Some(1)"]);
    }

    #[test]
    fn a_lost_lease_stops_its_attempts_and_drops_what_was_claimed_ahead() {
        let mut pump = pump(1);
        next(&mut pump);
        pump.turned(Ok(turned(rows(at(1), &[7, 8]), vec![])), at(1), wall());
        next(&mut pump);
        pump.lost(&[at(1)]);
        assert_eq!(next(&mut pump)[0], "abort 7");
        assert_eq!(pump.renewed(wall()), []);
        pump.finished(&7, at(1), done(), at(2), 0);
        assert!(pump.outcomes.is_empty(), "a stale outcome is not recorded");
    }

    #[test]
    fn a_stop_gives_back_what_has_not_begun_and_then_what_runs() {
        let mut pump = pump(1);
        next(&mut pump);
        pump.turned(Ok(turned(rows(at(1), &[7, 8]), vec![])), at(1), wall());
        next(&mut pump);
        pump.drain();
        assert_eq!(next(&mut pump), ["turn: 1 settled, 0 ended, claim None"]);
        pump.turned(Ok(turned(Claims::none(), vec![Settled::Kept])), at(2), wall());
        pump.stop_running();
        assert_eq!(next(&mut pump), ["abort 7", "turn: 1 settled, 1 ended, claim None"]);
        pump.turned(Ok(turned(Claims::none(), vec![Settled::Kept])), at(2), wall());
        assert_eq!(next(&mut pump), ["drained"]);
    }

    #[test]
    fn a_row_that_never_began_is_given_back_without_costing_an_attempt() {
        let mut pump = pump(1);
        next(&mut pump);
        pump.turned(Ok(turned(rows(at(1), &[7]), vec![])), at(1), wall());
        next(&mut pump);
        pump.finished(&7, at(1), ending(Ended::NotBegun), at(2), 0);
        assert!(matches!(pump.outcomes[0].verdict, Verdict::Release));
    }

    #[test]
    fn a_lease_is_renewed_while_anything_of_its_batch_may_still_end() {
        let mut pump = pump(1);
        next(&mut pump);
        pump.turned(Ok(turned(rows(at(1), &[7, 8]), vec![])), at(1), wall());
        next(&mut pump);
        let later = |seconds| wall() + Duration::from_secs(seconds);
        assert_eq!(pump.renewed(later(299)), [at(1)]);
        // Row 8 has waited for as long as an attempt may take: it is given back, and settled ..
        assert_eq!(pump.renewed(later(301)), [at(1)]);
        assert_eq!(pump.queue.len(), 0);
        next(&mut pump);
        pump.turned(Ok(turned(Claims::none(), vec![Settled::Kept])), at(2), later(301));
        assert_eq!(pump.renewed(later(604)), [at(1)]);
        // .. and row 7's thread is blocked: others may have it.
        assert_eq!(pump.renewed(later(606)), []);
        assert!(pump.holds(&at(1)), "its outcome may still come");
    }

    #[test]
    fn a_paused_model_claims_nothing() {
        let mut pump = pump(1);
        pump.pause(true);
        assert_eq!(next(&mut pump), [] as [&str; 0]);
        pump.pause(false);
        assert_eq!(next(&mut pump), ["turn: 0 settled, 0 ended, claim Some(1)"]);
    }

    const VBMS: Service = Service::new("vbms");

    /// A claim that took these rows while the service is down.
    fn down(
        permit: Permit,
        next_probe_at: Moment,
        asked: bool,
        ids: &[i64],
    ) -> Claims<i64, &'static str> {
        let state = ServiceState {
            name: VBMS.name().to_owned(),
            open: true,
            since: Some(at(0)),
            closed_at: None,
            next_probe_at: Some(next_probe_at),
            asked,
            probes: 0,
            code: None,
            held: None,
        };
        let standing = Standing { states: vec![state], outages: Vec::new(), permit };
        Claims { standing: Some(standing), ..rows(at(1), ids) }
    }

    /// What a pump does, at second 1, that has claimed so.
    fn after(claims: Claims<i64, &'static str>) -> Vec<String> {
        let gate = Rc::new(RefCell::new(Gate::new(VBMS)));
        let cap = Rc::new(RefCell::new(Cap::new(usize::MAX)));
        let rules = Rules { services: [VBMS].into(), ..rules(1) };
        let mut pump = TestPump::new(rules, Gates::new("letters", vec![gate], cap));
        next(&mut pump);
        pump.turned(Ok(turned(claims, vec![])), at(1), wall());
        next(&mut pump)
    }

    #[test]
    fn a_pump_comes_back_when_a_service_that_is_down_may_be_asked() {
        assert_eq!(after(down(Permit::None, at(30), false, &[])), ["wake at 00:00:30"]);
        assert_eq!(after(down(Permit::None, at(30), true, &[])), ["wake at 00:00:30"]);
        // The time has come since the claim.
        assert_eq!(after(down(Permit::None, at(1), false, &[])), ["wake at 00:00:01"]);
    }

    #[test]
    fn a_pump_does_not_look_again_and_again_while_another_asks_or_it_has_no_row_to_ask_with() {
        let probe = || Permit::Probe(vec![VBMS.name().to_owned()]);
        assert_eq!(after(down(Permit::None, at(0), true, &[])), [] as [&str; 0]);
        assert_eq!(after(down(probe(), at(0), false, &[])), [] as [&str; 0]);
        assert_eq!(after(down(probe(), at(0), false, &[7])), ["start 7"]);
    }

    #[test]
    fn what_an_outage_held_back_is_released_once_and_at_once_by_whoever_learns_that_it_is_over() {
        let mut pump = pump(1);
        let mut turns = Vec::new();
        for released in [0, service::PAGE, 3, 0] {
            let mut over = down(Permit::All, at(0), false, &[]);
            let state = &mut over.standing.as_mut().expect("a standing").states[0];
            (state.open, state.closed_at) = (false, Some(at(1)));
            for action in pump.next(at(1), wall()) {
                let Action::Turn(turn) = action else { continue };
                turns.push(turn.release.clone());
                let count = vec![released; turn.release.len()];
                let told = Turned { released: count, ..turned(over, vec![]) };
                pump.turned(Ok(told), at(1), wall());
                break;
            }
        }
        let outage = vec![(at(0), at(1))];
        assert_eq!(turns, [vec![], outage.clone(), outage, vec![]]);
    }

    /// When a row submitted at 0 is due again after a failure at `now`; `None`: parked.
    fn due_after(failure: Failure, now: Moment) -> Option<Moment> {
        let claims = rows(at(0), &[7]);
        match pump(1).judge(&claims.claimed[0].hold, failure, None, false, now) {
            Verdict::Failed(failed) => failed.due_at,
            _ => panic!("a failure is a failure"),
        }
    }

    #[test]
    fn each_kind_of_failure_says_when_the_row_is_due_again() {
        let after = |seconds| Failure::retry_after(Duration::from_secs(seconds), "busy");
        assert_eq!(due_after(Failure::transient("x"), at(10)), Some(at(10 + 3 * 3600)));
        assert_eq!(due_after(Failure::unknown("x"), at(10)), Some(at(10 + 3 * 3600)));
        assert_eq!(due_after(after(30), at(10)), Some(at(40)));
        assert_eq!(due_after(after(0), at(10)), Some(at(11)));
        assert_eq!(due_after(Failure::permanent("x"), at(10)), None);
    }

    #[test]
    fn no_wait_reaches_past_the_windows_end() {
        let four_days = 4 * 86_400;
        assert_eq!(due_after(Failure::transient("x"), at(four_days - 60)), Some(at(four_days)));
    }

    #[test]
    fn an_unknown_outcome_waits_until_the_service_has_settled() {
        const QUICK: RetryPolicy = RetryPolicy::DEFAULT.first(&[Duration::from_secs(60)]);
        let pump: TestPump = Pump::new(Rules { policy: QUICK, ..rules(1) }, gates());
        let hold = &rows(at(0), &[7]).claimed[0].hold;
        let Verdict::Failed(failed) = pump.judge(hold, Failure::unknown("x"), None, false, at(10))
        else {
            panic!("a failure is a failure")
        };
        assert_eq!(failed.due_at, Some(at(910)));
    }

    fn hold(id: i64) -> Hold<i64> {
        rows(at(1), &[id]).claimed.remove(0).hold
    }

    fn begin(pump: &mut TestPump, id: i64) {
        let (name, key) = ("look".to_owned(), format!("letters/{id}/look"));
        pump.step(id.unsigned_abs(), StepWork::Begin { hold: hold(id), name, key });
    }

    fn begun() -> StepAnswer {
        let known = crate::store::step::Known::Started;
        StepAnswer::Begun(crate::store::step::Begun {
            key: "key".to_owned(),
            find_after: at(2),
            known,
        })
    }

    /// A pump of two running attempts whose first steps are recorded.
    fn with_two_steps() -> TestPump {
        let mut pump = pump(2);
        next(&mut pump);
        pump.turned(Ok(turned(rows(at(1), &[1, 2]), vec![])), at(1), wall());
        next(&mut pump);
        begin(&mut pump, 1);
        begin(&mut pump, 2);
        next(&mut pump);
        let steps = vec![begun(), begun()];
        pump.turned(Ok(Turned { steps, ..turned(Claims::none(), vec![]) }), at(1), wall());
        next(&mut pump);
        pump
    }

    #[test]
    fn a_turn_waits_for_attempts_that_go_on_with_it_and_carries_them_all() {
        let mut pump = with_two_steps();
        pump.finished(&1, at(1), done(), at(2), 0);
        assert_eq!(next(&mut pump), ["expect 1"]);
        assert_eq!(next(&mut pump), [""; 0], "it waits");
        pump.finished(&2, at(1), done(), at(2), 0);
        assert_eq!(next(&mut pump), ["turn: 2 settled, 1 ended, claim Some(2)"]);
        pump.in_vain(1);
        assert_eq!(next(&mut pump), [""; 0], "the moment of a wait that is over says nothing");
    }

    #[test]
    fn a_turn_waits_for_a_moment_and_each_wait_in_vain_makes_waits_rarer() {
        let mut pump = with_two_steps();
        pump.finished(&1, at(1), done(), at(2), 0);
        assert_eq!(next(&mut pump), ["expect 1"]);
        pump.in_vain(1);
        assert_eq!(next(&mut pump), ["turn: 1 settled, 0 ended, claim Some(1)"]);
        // The other one makes a long call; a new row's attempt begins, and its step is recorded at once.
        pump.turned(Ok(turned(rows(at(3), &[3]), vec![Settled::Kept])), at(3), wall());
        assert_eq!(next(&mut pump), ["start 3"]);
        pump.step(9, StepWork::Result { key: "letters/2/look".to_owned(), json: "7".to_owned() });
        assert_eq!(next(&mut pump), ["turn: 0 settled, 0 ended, claim None"]);
    }

    #[test]
    fn who_asks_for_something_does_not_wait_for_attempts() {
        let mut pump = with_two_steps();
        pump.finished(&1, at(1), done(), at(2), 0);
        assert_eq!(next(&mut pump), ["expect 1"]);
        pump.request(1, Request::Submit { ids: vec![9], due: crate::store::turn::Due::Now });
        assert_eq!(next(&mut pump), ["turn: 1 settled, 0 ended, claim Some(1)"]);
    }
}
