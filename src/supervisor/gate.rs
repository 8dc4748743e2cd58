//! Gates: what one process lets through to a service, and to all of them. Told what happens and when, they
//! answer whether an attempt may begin; no clock and no SQL, but shared by the processors of a process.
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
    /// It is there, and asks to be left alone for a while.
    Wait,
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
            self.first_failed_at = None;
        }
        self.open = open;
        self.closed_at = state.closed_at;
    }

    fn was_there(&mut self) {
        self.in_a_row = 0;
        self.first_failed_at = None;
    }

    fn answered(&mut self, now: Moment) {
        self.was_there();
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
        if self.open || !self.service.is_down(self.in_a_row, failed, self.recent.len()) {
            return None;
        }
        self.open = true;
        if self.service.is_down(self.in_a_row, 0, 0) {
            return Some(first);
        }
        // By its rate: others were answered in between.
        self.recent.iter().find(|(_, failed)| *failed).map(|(at, _)| *at)
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
        let waits = |gate: &Gate| !(gate.has_slot(ticket) || probe && gate.open);
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
                Kind::RetryAfter(_) => Said::Wait,
                Kind::Lost | Kind::Unsettled => Said::Nothing,
            },
        }
    }

    /// Takes the end of an attempt into account.
    pub(crate) fn heard(&self, ended: &Ended, began: Moment, now: Moment) -> Heard {
        match self.said(ended) {
            Said::Nothing => Heard::default(),
            // Neither a failure nor a success; but it was there to say it, so what failed before is no outage
            // with what fails after.
            Said::Wait => {
                self.services.iter().for_each(|gate| gate.borrow_mut().was_there());
                Heard { there: true, ..Heard::default() }
            }
            Said::Answer => {
                self.services.iter().for_each(|gate| gate.borrow_mut().answered(now));
                Heard { there: true, ..Heard::default() }
            }
            Said::Failure(service) => {
                let mut gates = self.services.iter().map(|gate| gate.borrow_mut());
                let Some(mut gate) = gates.find(|gate| gate.service.name() == service) else {
                    return Heard::default();
                };
                let first_failed_at = gate.failed(began, now);
                Heard {
                    there: false,
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
    pub(crate) there: bool,
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

    fn unavailable() -> Ended {
        Ended::Failed(Failure::unavailable(VBMS, "503"))
    }

    fn refused() -> Ended {
        Ended::Failed(Failure::permanent("no such file number"))
    }

    fn done() -> Ended {
        Ended::Done(Vec::new())
    }

    /// An attempt that began and ended at this instant; answers since when the service is down, if it is so
    /// by this one.
    fn hear(gates: &Gates, ended: &Ended, now: Moment) -> Option<Moment> {
        gates.heard(ended, now, now).down.map(|down| down.first_failed_at)
    }

    /// The service, as the database has it.
    fn said(open: bool, closed_at: Option<Moment>) -> ServiceState {
        ServiceState {
            name: VBMS.name().to_owned(),
            open,
            since: Some(at(0)),
            closed_at,
            next_probe_at: None,
            asked: false,
            probes: 0,
            code: None,
            held: None,
        }
    }

    mod breaker {
        use super::*;

        #[test]
        fn a_service_is_down_after_so_many_failures_in_a_row_since_the_first_of_them() {
            let gates = only(VBMS.open_after(3));
            let down: Vec<_> = (1..=4).map(|n| hear(&gates, &unavailable(), at(n))).collect();
            assert_eq!(down, [None, None, Some(at(1)), None], "told once");
        }

        #[test]
        fn failures_that_the_outage_is_to_blame_for_begin_with_the_one_that_shows_it() {
            let gates = only(VBMS.open_after(3));
            let outage = |n| gates.heard(&unavailable(), at(n), at(n)).outage;
            assert_eq!([1, 2, 3, 4].map(outage), [false, false, true, true]);
        }

        #[test]
        fn any_answer_begins_the_count_anew_also_a_refusal() {
            for answer in [done(), refused()] {
                let gates = only(VBMS.open_after(2));
                assert_eq!(hear(&gates, &unavailable(), at(1)), None);
                assert!(gates.heard(&answer, at(2), at(2)).there);
                assert_eq!(hear(&gates, &unavailable(), at(3)), None);
                assert_eq!(hear(&gates, &unavailable(), at(4)), Some(at(3)));
            }
        }

        #[test]
        fn a_service_whose_count_is_zero_is_never_down() {
            let gates = only(VBMS.open_after(0));
            assert!((1..=1000).all(|n| hear(&gates, &unavailable(), at(n)).is_none()));
        }

        /// Failures and answers by turns, a second apart; answers when it was down, and since when.
        fn by_turns(gates: &Gates, apart: u64) -> Option<(u64, Moment)> {
            (0..100).find_map(|n| {
                let ended = if n % 2 == 0 { unavailable() } else { done() };
                hear(gates, &ended, at(n * apart)).map(|since| (n, since))
            })
        }

        #[test]
        fn a_service_that_fails_half_of_a_minutes_attempts_is_down_since_the_first_failure_of_them()
        {
            // The 20th attempt is an answer; the 21st is a failure, the eleventh.
            let gates = only(Service::new("vbms"));
            assert_eq!(by_turns(&gates, 1000), Some((20, at(0))));
            let gates = only(Service::new("vbms").open_at_percent(60));
            assert_eq!(by_turns(&gates, 1000), None);
            let gates = only(Service::new("vbms").open_at_percent(0));
            assert_eq!(by_turns(&gates, 1000), None);
        }

        #[test]
        fn attempts_of_more_than_a_minute_ago_and_fewer_than_twenty_make_no_rate() {
            let gates = only(Service::new("vbms"));
            assert_eq!(by_turns(&gates, 4000), None);
        }

        #[test]
        fn refusals_panics_the_hosts_own_failures_and_waits_that_a_service_asks_for_never_count() {
            let wait = Failure::retry_after(Duration::from_secs(5), "busy");
            let own = Failure::unknown("the attempt's thread ended before it did").own();
            let (lost, unsettled) = (Failure::lost(), Failure::unsettled("upload"));
            for failure in
                [Failure::permanent("no"), Failure::panicked(), own, lost, unsettled, wait]
            {
                let gates = only(VBMS.open_after(1));
                let heard = gates.heard(&Ended::Failed(failure.clone()), at(1), at(1));
                assert_eq!(
                    (heard.failed, heard.down, heard.outage),
                    (None, None, false),
                    "{failure:?}"
                );
            }
            let heard = only(VBMS.open_after(1)).heard(&Ended::NotBegun, at(1), at(1));
            assert_eq!(heard, Heard::default());
        }

        #[test]
        fn a_wait_that_a_service_asks_for_says_that_it_was_there_and_ends_a_row_of_failures() {
            let gates = only(VBMS.open_after(2));
            assert_eq!(hear(&gates, &unavailable(), at(1)), None);
            let wait = Ended::Failed(Failure::retry_after(Duration::from_secs(5), "busy"));
            let heard = gates.heard(&wait, at(2), at(2));
            assert_eq!(heard, Heard { there: true, ..Heard::default() });
            assert_eq!(hear(&gates, &unavailable(), at(3)), None);
            assert_eq!(hear(&gates, &unavailable(), at(4)), Some(at(3)));
        }

        #[test]
        fn waits_that_a_service_asks_for_make_its_rate_neither_better_nor_worse() {
            let gates = only(Service::new("vbms"));
            let wait = Ended::Failed(Failure::retry_after(Duration::from_secs(5), "busy"));
            // Half of twenty are failures, none of them in a row.
            let down = (0..20).filter_map(|n| {
                let ended = if n % 2 == 0 { unavailable() } else { done() };
                hear(&gates, &wait, at(10 * n)).or(hear(&gates, &ended, at(10 * n + 1)))
            });
            assert_eq!(down.count(), 0, "the twentieth is an answer");
            assert_eq!(hear(&gates, &unavailable(), at(300)), Some(at(1)));
        }

        #[test]
        fn what_names_no_service_counts_only_where_the_processor_calls_one() {
            const BGS: Service = Service::new("bgs");
            for failure in [Failure::transient("reset"), Failure::unknown("time-out")] {
                let ended = Ended::Failed(failure);
                let one = only(VBMS.open_after(1));
                assert_eq!(hear(&one, &ended, at(1)), Some(at(1)));
                let services = vec![gate(VBMS.open_after(1)), gate(BGS.open_after(1))];
                let two = Gates::new("claims", services, no_cap());
                assert_eq!(two.heard(&ended, at(1), at(1)), Heard::default());
                let none = Gates::new("claims", Vec::new(), no_cap());
                assert_eq!(none.heard(&ended, at(1), at(1)), Heard::default());
            }
        }

        #[test]
        fn an_unavailable_service_is_the_one_that_the_failure_names() {
            const BGS: Service = Service::new("bgs");
            let services = vec![gate(VBMS.open_after(1)), gate(BGS.open_after(1))];
            let gates = Gates::new("claims", services, no_cap());
            let heard = gates.heard(&Ended::Failed(Failure::unavailable(BGS, "503")), at(1), at(1));
            assert_eq!(heard.failed, Some("bgs"));
            assert_eq!(heard.down, Some(Down { service: "bgs", first_failed_at: at(1) }));
            let other = Service::new("other");
            let ended = Ended::Failed(Failure::unavailable(other, "503"));
            assert_eq!(
                gates.heard(&ended, at(2), at(2)),
                Heard::default(),
                "it calls no such service"
            );
        }

        #[test]
        fn failures_of_attempts_begun_before_it_came_back_do_not_count() {
            let gates = only(VBMS.open_after(2));
            gates.told(&[said(false, Some(at(100)))]);
            for n in 101..200 {
                assert_eq!(gates.heard(&unavailable(), at(99), at(n)).down, None);
            }
            assert_eq!(
                gates.heard(&unavailable(), at(100), at(200)).down,
                None,
                "the first that counts"
            );
            let down = gates.heard(&unavailable(), at(100), at(201)).down;
            assert_eq!(down.map(|down| down.first_failed_at), Some(at(200)));
        }

        #[test]
        fn a_service_that_was_seen_to_come_back_by_another_host_is_counted_anew() {
            let gates = only(VBMS.open_after(2));
            hear(&gates, &unavailable(), at(1));
            assert_eq!(hear(&gates, &unavailable(), at(2)), Some(at(1)));
            gates.told(&[said(true, None)]);
            gates.told(&[said(false, Some(at(100)))]);
            // The database takes no outage that began before the last one ended.
            assert_eq!(hear(&gates, &unavailable(), at(101)), None);
            assert_eq!(hear(&gates, &unavailable(), at(102)), Some(at(101)));
        }

        #[test]
        fn what_a_claim_saw_before_the_service_was_found_down_costs_no_more_than_a_telling() {
            let gates = only(VBMS.open_after(2));
            hear(&gates, &unavailable(), at(1));
            assert_eq!(hear(&gates, &unavailable(), at(2)), Some(at(1)));
            gates.told(&[said(false, None)]);
            assert_eq!(
                hear(&gates, &unavailable(), at(3)),
                Some(at(1)),
                "the database may have missed it"
            );
        }
    }

    mod pace {
        use super::*;

        /// Whether some second has more starts than the limit.
        fn crowded(starts: &[Moment], limit: usize) -> bool {
            starts
                .windows(limit + 1)
                .any(|some| some[limit].since(some[0]) < Duration::from_secs(1))
        }

        #[test]
        fn a_limit_that_does_not_divide_a_second_is_kept_too() {
            for limit in 1..=100 {
                let gates = only(VBMS.starts_per_second(limit));
                let (mut now, mut starts) = (at(0), Vec::new());
                while starts.len() < 3 * limit as usize {
                    match gates.start(now, false) {
                        Ok(()) => starts.push(now),
                        Err(Wait::Until(until)) => now = until,
                        Err(Wait::ForASlot) => panic!("there is no limit of them"),
                    }
                }
                assert!(!crowded(&starts, limit as usize), "{limit}: {starts:?}");
                let lasts = starts[starts.len() - 1].since(starts[0]);
                assert!(
                    lasts < Duration::from_millis(3001),
                    "{limit}: {lasts:?}, slower than it may be"
                );
            }
        }

        proptest! {
            #[test]
            fn no_second_has_more_starts_than_the_limit_whenever_two_models_ask(
                limit in 1u32..40,
                asks in proptest::collection::vec((0u64..400_000, any::<bool>()), 1..300),
            ) {
                let (vbms, cap) = (gate(VBMS.starts_per_second(limit)), no_cap());
                let models = ["one", "two"].map(|model| Gates::new(model, vec![vbms.clone()], cap.clone()));
                let (mut now, mut starts) = (at(0), Vec::new());
                for (micros, second) in asks {
                    now = now.plus(Duration::from_micros(micros));
                    if models[usize::from(second)].start(now, false).is_ok() {
                        starts.push(now);
                    }
                }
                prop_assert!(!crowded(&starts, limit as usize), "{:?}", starts);
            }
        }
    }

    mod coming_back {
        use super::*;

        /// A service that was down until now.
        fn back(service: Service) -> Gates {
            let gates = only(service);
            gates.told(&[said(true, None)]);
            gates.told(&[said(false, Some(at(100)))]);
            gates
        }

        #[test]
        fn one_attempt_runs_and_twice_as_many_after_each_full_round_of_successes() {
            let gates = back(VBMS.at_once(20));
            let mut rounds = Vec::new();
            for _ in 0..7 {
                let started = start_all(&gates, at(100));
                rounds.push(started);
                for _ in 0..started {
                    assert_eq!(gates.at_once(), started, "until the round is full");
                    gates.end();
                    hear(&gates, &done(), at(101));
                }
            }
            assert_eq!(rounds, [1, 2, 4, 8, 16, 20, 20]);
        }

        #[test]
        fn an_attempt_that_is_not_answered_is_no_part_of_a_round() {
            let gates = back(VBMS);
            assert_eq!(start_all(&gates, at(100)), 1);
            gates.end();
            hear(&gates, &unavailable(), at(101));
            assert_eq!(start_all(&gates, at(101)), 1);
        }

        #[test]
        fn a_model_is_bound_by_the_service_that_came_back_last() {
            const BGS: Service = Service::new("bgs").at_once(8);
            let gates = Gates::new("claims", vec![gate(BGS), gate(VBMS)], no_cap());
            gates.told(&[said(true, None)]);
            assert_eq!(gates.at_once(), 8);
            gates.told(&[said(false, Some(at(100)))]);
            assert_eq!((gates.at_once(), gates.ahead()), (1, 1));
        }

        #[test]
        fn a_probe_is_not_kept_waiting_by_what_hangs_at_the_service_that_is_down() {
            let gates = only(VBMS.at_once(2).starts_per_second(1));
            assert_eq!(start_all(&gates, at(0)) + start_all(&gates, at(1000)), 2);
            gates.told(&[said(true, None)]);
            assert_eq!(gates.start(at(30_000), false), Err(Wait::ForASlot));
            assert_eq!(gates.start(at(30_000), true), Ok(()));
        }

        #[test]
        fn a_probe_keeps_to_the_limits_of_services_that_are_up_and_of_the_host() {
            const BGS: Service = Service::new("bgs").at_once(1);
            let (vbms, bgs) = (gate(VBMS), gate(BGS));
            for cap in [no_cap(), cap(1)] {
                let other = Gates::new("other", vec![bgs.clone()], cap.clone());
                assert_eq!(other.start(at(0), false), Ok(()));
                let gates = Gates::new("claims", vec![vbms.clone(), bgs.clone()], cap);
                gates.told(&[said(true, None)]);
                assert_eq!(gates.start(at(0), true), Err(Wait::ForASlot));
                other.end();
                assert_eq!(gates.start(at(0), true), Ok(()));
                gates.end();
            }
        }
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
