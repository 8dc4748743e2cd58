//! Gates: what one process lets through to a service, and to all of them. Pure: told what happens and
//! when, they answer whether an attempt may begin.
//!
//! A gate counts a service's failures (its breaker), spaces its starts and bounds how many run at once.
//! When a service comes back, one attempt runs, and twice as many after each full round of successes.
//!
//! Models that share a gate take turns: whoever has waited longest goes first, at every gate it passes. A
//! slot that is free is kept for it while it waits for its turn at the next gate: a model that calls two
//! busy services would never find both free. Starts are kept only for those who have all their slots, or a
//! slow service would hold up those who call another.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use super::pump::Ended;
use crate::{
    failure::Kind,
    service::Service,
    store::{Moment, service::ServiceState},
};

/// Why an attempt may not begin yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until [`Gates::called`] names the model: an attempt has ended, also one of another model's.
    ForASlot,
    Until(Moment),
}

/// What an attempt's end says about a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// It is there.
    Answer,
    /// It is not.
    Failure(&'static str),
    Nothing,
}

/// A service's failures of the last minute.
const RECENT: Duration = Duration::from_secs(60);

/// Models that wait, by their tickets: the one that has waited longest first.
#[derive(Debug, Default)]
struct Line {
    waiting: BTreeMap<u64, &'static str>,
    /// It may be somebody's turn now whose it was not before.
    moved: bool,
}

impl Line {
    fn leave(&mut self, model: &'static str) {
        let before = self.waiting.len();
        self.waiting.retain(|_, waiting| *waiting != model);
        self.moved |= self.waiting.len() < before;
    }

    /// How many have waited longer than one with this ticket.
    fn before(&self, ticket: u64) -> usize {
        self.waiting.range(..ticket).count()
    }

    /// The first `free` of them, once each time that the line has moved.
    fn called(&mut self, free: usize) -> Vec<&'static str> {
        let free = if std::mem::take(&mut self.moved) { free } else { 0 };
        self.waiting.values().take(free).copied().collect()
    }
}

/// What runs, and who waits for it.
#[derive(Debug, Default)]
struct Slots {
    running: HashMap<&'static str, usize>,
    line: Line,
}

impl Slots {
    fn free(&self, at_once: usize) -> usize {
        at_once.saturating_sub(self.running.values().sum())
    }

    fn start(&mut self, model: &'static str) {
        *self.running.entry(model).or_default() += 1;
        self.line.leave(model);
    }

    fn end(&mut self, model: &'static str) {
        if let Some(running) = self.running.get_mut(model) {
            *running = running.saturating_sub(1);
        }
        self.line.moved = true;
    }

    fn forget(&mut self, model: &'static str) {
        self.running.remove(model);
        self.line.leave(model);
        self.line.moved = true;
    }
}

/// See the module; of one service.
#[derive(Debug)]
pub(crate) struct Gate {
    service: Service,
    /// As the database said last.
    open: bool,
    closed_at: Option<Moment>,
    in_a_row: u32,
    first_failed_at: Option<Moment>,
    recent: VecDeque<(Moment, bool)>,
    slots: Slots,
    next_start_at: Option<Moment>,
    /// Those who have their slots, and wait for a start.
    starts: Line,
    /// How many may run at once after an outage, until that is as many as ever.
    ramp: Option<usize>,
    /// Successes at this step of the ramp.
    round: usize,
}

impl Gate {
    pub(crate) fn new(service: Service) -> Self {
        Gate {
            service,
            open: false,
            closed_at: None,
            in_a_row: 0,
            first_failed_at: None,
            recent: VecDeque::new(),
            slots: Slots::default(),
            next_start_at: None,
            starts: Line::default(),
            ramp: None,
            round: 0,
        }
    }

    pub(crate) fn service(&self) -> Service {
        self.service
    }

    fn at_once(&self) -> usize {
        self.service.most_at_once().min(self.ramp.unwrap_or(usize::MAX)).max(1)
    }

    fn free(&self) -> usize {
        self.slots.free(self.at_once())
    }

    fn has_slot(&self, ticket: u64) -> bool {
        self.slots.line.before(ticket) < self.free()
    }

    /// When a model may start that has its slots.
    fn start_at(&self, ticket: u64, now: Moment) -> Moment {
        let next = self.next_start_at.map_or(now, |at| at.max(now));
        let before = u32::try_from(self.starts.before(ticket)).unwrap_or(u32::MAX);
        next.plus(self.service.spacing().saturating_mul(before))
    }

    fn start(&mut self, model: &'static str, now: Moment) {
        self.slots.start(model);
        self.starts.leave(model);
        let spacing = self.service.spacing();
        if !spacing.is_zero() {
            self.next_start_at =
                Some(self.next_start_at.map_or(now, |at| at.max(now)).plus(spacing));
        }
    }

    /// Takes the database's word for whether the service is down.
    fn told(&mut self, state: &ServiceState) {
        if self.open && !state.open && state.held.is_none() {
            self.ramp = Some(1);
            self.round = 0;
        }
        let open = state.open || state.held.is_some();
        if open || self.closed_at != state.closed_at {
            self.recent.clear();
            self.in_a_row = 0;
        }
        self.open = open;
        self.closed_at = state.closed_at;
    }

    fn answered(&mut self, now: Moment) {
        self.in_a_row = 0;
        self.first_failed_at = None;
        self.remember(now, false);
        let Some(ramp) = self.ramp else { return };
        self.round += 1;
        if self.round >= ramp {
            self.round = 0;
            let next = ramp.saturating_mul(2);
            // From here on other limits are narrower.
            self.ramp = (next < 4096).then_some(next);
        }
    }

    /// A failure of an attempt that began at `began`; answers since when it has failed, if by this one the
    /// service is down.
    fn failed(&mut self, began: Moment, now: Moment) -> Option<Moment> {
        if self.closed_at.is_some_and(|closed_at| began < closed_at) {
            return None; // of the outage that is over
        }
        self.in_a_row += 1;
        let first = *self.first_failed_at.get_or_insert(now);
        self.remember(now, true);
        let failed = self.recent.iter().filter(|(_, failed)| *failed).count();
        let down = self.service.is_down(self.in_a_row, failed, self.recent.len());
        (down && !self.open).then(|| {
            self.open = true;
            first
        })
    }

    fn remember(&mut self, now: Moment, failed: bool) {
        self.recent.push_back((now, failed));
        let from = now.minus(RECENT);
        while self.recent.len() > 1000 || self.recent.front().is_some_and(|(at, _)| *at < from) {
            self.recent.pop_front();
        }
    }
}

/// What all models of a process share: how many attempts run at once, and who waits since when.
#[derive(Debug)]
pub(crate) struct Cap {
    at_once: usize,
    slots: Slots,
    /// Of all who wait, whatever for.
    tickets: HashMap<&'static str, u64>,
    last_ticket: u64,
}

impl Cap {
    pub(crate) fn new(at_once: usize) -> Self {
        let (slots, tickets) = (Slots::default(), HashMap::new());
        Cap { at_once, slots, tickets, last_ticket: 0 }
    }

    fn free(&self) -> usize {
        self.slots.free(self.at_once)
    }

    fn has_slot(&self, ticket: u64) -> bool {
        self.slots.line.before(ticket) < self.free()
    }

    /// The model's place in every line, until it starts or has nothing to start. One that does not wait is
    /// behind all who do.
    fn ticket(&self, model: &'static str) -> u64 {
        self.tickets.get(model).copied().unwrap_or(self.last_ticket + 1)
    }

    fn keep(&mut self, model: &'static str, ticket: u64) {
        self.tickets.insert(model, ticket);
        self.last_ticket = self.last_ticket.max(ticket);
    }
}

/// The gates that one model's attempts pass.
#[derive(Clone, Debug)]
pub(crate) struct Gates {
    model: &'static str,
    services: Vec<Rc<RefCell<Gate>>>,
    cap: Rc<RefCell<Cap>>,
}

/// What the database is to be told of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Down {
    pub(crate) service: &'static str,
    pub(crate) first_failed_at: Moment,
}

impl Gates {
    pub(crate) fn new(
        model: &'static str,
        services: Vec<Rc<RefCell<Gate>>>,
        cap: Rc<RefCell<Cap>>,
    ) -> Self {
        // What ran before the processor was rebuilt runs no more.
        let gates = Gates { model, services, cap };
        gates.leave();
        gates.each_slots(|_, slots| slots.forget(model));
        gates
    }

    /// How many attempts of the model's may run at once now, as far as services go.
    pub(crate) fn at_once(&self) -> usize {
        let services = self.services.iter().map(|gate| gate.borrow().at_once());
        services.min().unwrap_or(usize::MAX).min(self.cap.borrow().at_once)
    }

    /// How many rows may be claimed ahead: about a second's, where starts are spaced.
    pub(crate) fn ahead(&self) -> usize {
        let services = self.services.iter().map(|gate| {
            let gate = gate.borrow();
            let spacing = gate.service.spacing().as_secs_f64();
            let second = if spacing > 0.0 { (1.0 / spacing) as usize } else { usize::MAX };
            second.min(gate.ramp.unwrap_or(usize::MAX))
        });
        services.min().unwrap_or(usize::MAX)
    }

    /// Begins an attempt, or says what to wait for. `probe`: it asks the services that are down.
    pub(crate) fn start(&self, now: Moment, probe: bool) -> Result<(), Wait> {
        let ticket = self.cap.borrow().ticket(self.model);
        let waits_at = self.waits_at(ticket, probe);
        let at = self.services.iter().map(|gate| gate.borrow().start_at(ticket, now)).max();
        let wait = match at {
            _ if waits_at.is_some() => Wait::ForASlot,
            Some(at) if at > now => Wait::Until(at),
            _ => {
                self.services.iter().for_each(|gate| gate.borrow_mut().start(self.model, now));
                let mut cap = self.cap.borrow_mut();
                cap.slots.start(self.model);
                cap.tickets.remove(self.model);
                return Ok(());
            }
        };
        self.cap.borrow_mut().keep(self.model, ticket);
        let stand = |line: &mut Line, stands: bool| match stands {
            true => {
                line.waiting.insert(ticket, self.model);
            }
            false => line.leave(self.model),
        };
        let last = waits_at.unwrap_or(usize::MAX);
        self.each_slots(|index, slots| stand(&mut slots.line, index <= last));
        for gate in &self.services {
            stand(&mut gate.borrow_mut().starts, waits_at.is_none());
        }
        Err(wait)
    }

    /// The first gate at which no slot is the model's; the cap comes after the services.
    fn waits_at(&self, ticket: u64, probe: bool) -> Option<usize> {
        // What a service that is down still keeps running must not keep a probe from it.
        let waits = |gate: &Gate| !(probe && gate.open) && !gate.has_slot(ticket);
        let waits_at = self.services.iter().position(|gate| waits(&gate.borrow()));
        waits_at.or_else(|| (!self.cap.borrow().has_slot(ticket)).then_some(self.services.len()))
    }

    fn each_slots(&self, mut of: impl FnMut(usize, &mut Slots)) {
        for (index, gate) in self.services.iter().enumerate() {
            of(index, &mut gate.borrow_mut().slots);
        }
        of(self.services.len(), &mut self.cap.borrow_mut().slots);
    }

    /// There is nothing to start, or the model must not: others need not wait for it.
    pub(crate) fn leave(&self) {
        self.each_slots(|_, slots| slots.line.leave(self.model));
        self.services.iter().for_each(|gate| gate.borrow_mut().starts.leave(self.model));
        self.cap.borrow_mut().tickets.remove(self.model);
    }

    /// An attempt is over, whatever became of it.
    pub(crate) fn end(&self) {
        self.each_slots(|_, slots| slots.end(self.model));
    }

    /// Other models whose turn it may be now: each must try, and then ask this in its turn.
    pub(crate) fn called(&self) -> BTreeSet<&'static str> {
        let mut models = BTreeSet::new();
        for gate in &self.services {
            let mut gate = gate.borrow_mut();
            let free = gate.free();
            models.extend(gate.slots.line.called(free));
        }
        let mut cap = self.cap.borrow_mut();
        let free = cap.free();
        models.extend(cap.slots.line.called(free));
        models.remove(self.model);
        models
    }

    pub(crate) fn told(&self, states: &[ServiceState]) {
        for gate in &self.services {
            let mut gate = gate.borrow_mut();
            if let Some(state) = states.iter().find(|state| state.name == gate.service.name()) {
                gate.told(state);
            }
        }
    }

    /// What the end of an attempt says about the services.
    fn said(&self, ended: &Ended) -> Said {
        let only = match self.services.as_slice() {
            [only] => Said::Failure(only.borrow().service.name()),
            _ => Said::Nothing,
        };
        match ended {
            Ended::Done(_) => Said::Answer,
            Ended::NotBegun => Said::Nothing,
            Ended::Failed(failure) if failure.is_own() => Said::Nothing,
            Ended::Failed(failure) => match failure.kind() {
                Kind::Permanent => Said::Answer,
                Kind::Unavailable(service) => Said::Failure(service.name()),
                Kind::Transient | Kind::Unknown => only,
                Kind::RetryAfter(_) | Kind::Lost | Kind::Unsettled => Said::Nothing,
            },
        }
    }

    /// Takes the end of an attempt into account.
    pub(crate) fn heard(&self, ended: &Ended, began: Moment, now: Moment) -> Heard {
        match self.said(ended) {
            Said::Nothing => Heard::default(),
            Said::Answer => {
                self.services.iter().for_each(|gate| gate.borrow_mut().answered(now));
                Heard { answer: true, ..Heard::default() }
            }
            Said::Failure(service) => {
                let mut gates = self.services.iter().map(|gate| gate.borrow_mut());
                let Some(mut gate) = gates.find(|gate| gate.service.name() == service) else {
                    return Heard::default();
                };
                let first_failed_at = gate.failed(began, now);
                Heard {
                    answer: false,
                    failed: Some(service),
                    down: first_failed_at.map(|first_failed_at| Down { service, first_failed_at }),
                    outage: gate.open,
                }
            }
        }
    }
}

/// What an attempt's end has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// All its services are there.
    pub(crate) answer: bool,
    /// This one is not.
    pub(crate) failed: Option<&'static str>,
    /// And by that it is down.
    pub(crate) down: Option<Down>,
    /// It is the outage's doing, not the row's.
    pub(crate) outage: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Failure;
    use chrono::{TimeZone, Utc};
    use proptest::prelude::*;

    const VBMS: Service = Service::new("vbms").open_at_percent(0);

    fn at(millis: u64) -> Moment {
        let began = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).single().expect("an instant");
        Moment::at(began).plus(Duration::from_millis(millis))
    }

    fn gate(service: Service) -> Rc<RefCell<Gate>> {
        Rc::new(RefCell::new(Gate::new(service)))
    }

    fn cap(at_once: usize) -> Rc<RefCell<Cap>> {
        Rc::new(RefCell::new(Cap::new(at_once)))
    }

    fn no_cap() -> Rc<RefCell<Cap>> {
        cap(usize::MAX)
    }

    fn only(service: Service) -> Gates {
        Gates::new("claims", vec![gate(service)], no_cap())
    }

    /// Begins as many attempts as may begin now.
    fn start_all(gates: &Gates, now: Moment) -> usize {
        (0..1000).take_while(|_| gates.start(now, false).is_ok()).count()
    }

    mod turns {
        use super::*;
        use std::{cmp::Reverse, collections::BinaryHeap};

        #[test]
        fn attempts_at_once_are_counted_over_all_models_that_call_a_service() {
            let (vbms, cap) = (gate(VBMS.at_once(3)), no_cap());
            let one = Gates::new("one", vec![vbms.clone()], cap.clone());
            let two = Gates::new("two", vec![vbms], cap);
            assert_eq!(one.start(at(0), false), Ok(()));
            assert_eq!(start_all(&two, at(0)), 2);
            assert_eq!(one.start(at(0), false), Err(Wait::ForASlot));
            one.end();
            assert_eq!(start_all(&one, at(0)), 0, "the other has waited longer");
            assert_eq!(start_all(&two, at(0)), 1);
        }

        #[test]
        fn an_end_calls_who_waits_for_a_slot_and_nobody_else() {
            let (vbms, cap) = (gate(VBMS.at_once(1)), no_cap());
            let [one, two, three] = ["one", "two", "three"]
                .map(|model| Gates::new(model, vec![vbms.clone()], cap.clone()));
            one.called(); // as processors do when they are built
            assert_eq!(one.start(at(0), false), Ok(()));
            assert_eq!(two.start(at(0), false), Err(Wait::ForASlot));
            assert_eq!(three.start(at(0), false), Err(Wait::ForASlot));
            assert_eq!(two.called(), BTreeSet::new(), "nothing is free");
            one.end();
            assert_eq!(one.called(), BTreeSet::from(["two"]), "it has waited longest");
            assert_eq!(one.called(), BTreeSet::new(), "once");
            two.leave();
            assert_eq!(two.called(), BTreeSet::from(["three"]), "the other wanted none");
            assert_eq!(three.start(at(0), false), Ok(()));
            assert_eq!(three.called(), BTreeSet::new());
        }

        #[test]
        fn one_slot_goes_from_model_to_model_however_many_rows_each_has() {
            for (vbms, cap) in [(VBMS.at_once(1), no_cap()), (VBMS, cap(1))] {
                let vbms = gate(vbms);
                let all = ["one", "two", "three"]
                    .map(|model| Gates::new(model, vec![vbms.clone()], cap.clone()));
                let mut started = Vec::new();
                for _ in 0..9 {
                    // Each of them tries, the one that has just run first of all.
                    let last = started.last().copied();
                    for index in last.into_iter().chain([0, 1, 2]) {
                        if all[index].start(at(0), false).is_ok() {
                            started.push(index);
                        }
                    }
                    all[*started.last().expect("one runs")].end();
                }
                assert_eq!(started, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
            }
        }

        #[test]
        fn a_model_that_calls_two_busy_services_gets_its_turn_at_both() {
            let (vbms, bgs, cap) = (gate(VBMS.at_once(1)), gate(BGS.at_once(1)), no_cap());
            let one = Gates::new("vbms", vec![vbms.clone()], cap.clone());
            let two = Gates::new("bgs", vec![bgs.clone()], cap.clone());
            let both = Gates::new("both", vec![vbms, bgs], cap);
            assert_eq!(one.start(at(0), false), Ok(()));
            assert_eq!(two.start(at(0), false), Ok(()));
            assert_eq!(both.start(at(0), false), Err(Wait::ForASlot));
            one.end();
            assert_eq!(both.start(at(0), false), Err(Wait::ForASlot));
            assert_eq!(one.start(at(0), false), Err(Wait::ForASlot), "the slot is kept");
            two.end();
            assert_eq!(two.start(at(0), false), Err(Wait::ForASlot), "and so is the other");
            assert_eq!(both.start(at(0), false), Ok(()));
        }

        #[test]
        fn a_model_that_waits_for_a_slow_service_keeps_no_start_of_another() {
            let (vbms, bgs, cap) =
                (gate(VBMS.starts_per_second(1)), gate(BGS.at_once(1)), no_cap());
            let one = Gates::new("vbms", vec![vbms.clone()], cap.clone());
            let two = Gates::new("bgs", vec![bgs.clone()], cap.clone());
            let both = Gates::new("both", vec![vbms, bgs], cap);
            assert_eq!(two.start(at(0), false), Ok(()));
            assert_eq!(both.start(at(0), false), Err(Wait::ForASlot));
            assert_eq!(one.start(at(0), false), Ok(()));
            assert_eq!(one.start(at(1000), false), Ok(()));
        }

        #[test]
        fn spaced_starts_go_from_model_to_model() {
            let (vbms, cap) = (gate(VBMS.starts_per_second(10)), no_cap());
            let one = Gates::new("one", vec![vbms.clone()], cap.clone());
            let two = Gates::new("two", vec![vbms], cap);
            assert_eq!(one.start(at(0), false), Ok(()));
            assert_eq!(two.start(at(0), false), Err(Wait::Until(at(100))));
            assert_eq!(one.start(at(0), false), Err(Wait::Until(at(200))));
            assert_eq!(one.start(at(100), false), Err(Wait::Until(at(200))), "not its turn");
            assert_eq!(two.start(at(100), false), Ok(()));
            assert_eq!(one.start(at(200), false), Ok(()));
        }

        #[test]
        fn a_processor_built_anew_begins_with_nothing_running_and_no_place_in_line() {
            let (vbms, cap) = (gate(VBMS.at_once(1)), no_cap());
            let one = Gates::new("one", vec![vbms.clone()], cap.clone());
            let two = Gates::new("two", vec![vbms.clone()], cap.clone());
            assert_eq!(one.start(at(0), false), Ok(()));
            assert_eq!(one.start(at(0), false), Err(Wait::ForASlot));
            assert_eq!(two.start(at(0), false), Err(Wait::ForASlot));
            let one = Gates::new("one", vec![vbms], cap);
            assert_eq!(one.called(), BTreeSet::from(["two"]));
            assert_eq!(two.start(at(0), false), Ok(()));
        }

        const BGS: Service = Service::new("bgs").open_at_percent(0);
        const NAMES: [&str; 5] = ["one", "two", "three", "four", "five"];

        /// What happens next to a model, as its actor would see it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        enum Next {
            End,
            Go,
        }

        /// Models that always have rows, at gates that they share; each of its attempts takes so long.
        struct Models {
            gates: Vec<Gates>,
            takes: Vec<u64>,
            running: Vec<usize>,
            starts: Vec<Vec<u64>>,
            events: BinaryHeap<Reverse<(u64, u64, Next, usize)>>,
            told: u64,
        }

        impl Models {
            fn tell(&mut self, millis: u64, next: Next, model: usize) {
                self.told += 1; // what comes first is done first
                self.events.push(Reverse((millis, self.told, next, model)));
            }

            fn go(&mut self, millis: u64, model: usize) {
                loop {
                    match self.gates[model].start(at(millis), false) {
                        Ok(()) => {
                            self.running[model] += 1;
                            self.starts[model].push(millis);
                            self.tell(millis + self.takes[model], Next::End, model);
                        }
                        Err(Wait::ForASlot) => break,
                        Err(Wait::Until(until)) => {
                            let wait = until.since(at(millis)).as_micros().div_ceil(1000);
                            self.tell(millis + wait as u64, Next::Go, model);
                            break;
                        }
                    }
                }
                for called in self.gates[model].called() {
                    let called = NAMES.iter().position(|name| *name == called).expect("a model");
                    self.tell(millis, Next::Go, called);
                }
            }

            /// Answers when the last thing happened; before `until`, if all stood still.
            fn run(&mut self, until: u64, mut look: impl FnMut(&Self)) -> u64 {
                (0..self.gates.len()).for_each(|model| self.go(0, model));
                while let Some(Reverse((millis, _, next, model))) = self.events.pop() {
                    if millis > until {
                        return millis;
                    }
                    if next == Next::End {
                        self.running[model] -= 1;
                        self.gates[model].end();
                    }
                    self.go(millis, model);
                    look(self);
                }
                0
            }
        }

        proptest! {
            #![proptest_config(ProptestConfig::with_cases(100))]

            #[test]
            fn whatever_gates_models_share_the_limits_hold_and_none_is_kept_out(
                limits in proptest::collection::vec((1usize..4, 0u32..9), 3),
                most in 1usize..6,
                models in proptest::collection::vec(
                    (proptest::collection::vec(any::<bool>(), 3), 1u64..5_000), 2..=5),
            ) {
                let names = ["a", "b", "c"];
                let services = names.iter().zip(&limits).map(|(name, (at_once, starts))| {
                    Service::new(name).at_once(*at_once).starts_per_second(*starts)
                });
                let shared: Vec<_> = services.map(gate).collect();
                let cap = cap(most);
                let of = |named: &Vec<bool>| -> Vec<_> {
                    let named = shared.iter().zip(named).filter(|(_, named)| **named);
                    named.map(|(gate, _)| gate.clone()).collect()
                };
                let count = models.len();
                let mut all = Models {
                    gates: models.iter().zip(NAMES)
                        .map(|((named, _), name)| Gates::new(name, of(named), cap.clone())).collect(),
                    takes: models.iter().map(|(_, takes)| *takes).collect(),
                    running: vec![0; count],
                    starts: vec![Vec::new(); count],
                    events: BinaryHeap::new(),
                    told: 0,
                };
                let mut too_many = Vec::new();
                let last = all.run(120_000, |all| {
                    for (index, (at_once, _)) in limits.iter().enumerate() {
                        let running: usize = all.running.iter().zip(&models)
                            .filter(|(_, (named, _))| named[index]).map(|(running, _)| running).sum();
                        if running > *at_once {
                            too_many.push((names[index], running));
                        }
                    }
                    if all.running.iter().sum::<usize>() > most {
                        too_many.push(("all", all.running.iter().sum()));
                    }
                });
                prop_assert!(last > 120_000, "all stood still");
                prop_assert_eq!(too_many, []);
                for (index, (_, limit)) in limits.iter().enumerate().filter(|(_, (_, limit))| *limit > 0) {
                    let mut starts: Vec<u64> = all.starts.iter().zip(&models)
                        .filter(|(_, (named, _))| named[index]).flat_map(|(starts, _)| starts.clone()).collect();
                    starts.sort_unstable();
                    let second = starts.windows(*limit as usize + 1).all(|some| some[some.len() - 1] - some[0] >= 1000);
                    prop_assert!(second, "{} of {limit} a second: {starts:?}", names[index]);
                }
                // A turn comes when all others have had theirs: one slow attempt and one spaced start each.
                let patience: u64 = 2 * all.takes.iter().map(|takes| takes + 1000).sum::<u64>();
                for (model, starts) in all.starts.iter().enumerate() {
                    let mut instants = vec![0];
                    instants.extend(starts.iter().copied().chain([120_000]));
                    let longest = instants.windows(2).map(|two| two[1] - two[0]).max();
                    prop_assert!(longest <= Some(patience), "{} waited {longest:?} of {patience}", NAMES[model]);
                }
            }
        }
    }
}
