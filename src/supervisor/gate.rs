//! Gates: what one process lets through to a service, and to all of them. Pure: told what happens and
//! when, they answer whether an attempt may begin.
//!
//! A gate counts a service's failures (its breaker), spaces its starts and bounds how many run at once.
//! When a service comes back, one attempt runs, and twice as many after each full round of successes.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, VecDeque},
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
    /// Until an attempt ends, also one of another model's.
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
    running: HashMap<&'static str, usize>,
    next_start_at: Option<Moment>,
    /// How many may run at once after an outage, until that is as many as ever.
    ramp: Option<usize>,
    /// Successes at this step of the ramp.
    round: usize,
    blocked: BTreeSet<&'static str>,
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
            running: HashMap::new(),
            next_start_at: None,
            ramp: None,
            round: 0,
            blocked: BTreeSet::new(),
        }
    }

    pub(crate) fn service(&self) -> Service {
        self.service
    }

    fn at_once(&self) -> usize {
        self.service.most_at_once().min(self.ramp.unwrap_or(usize::MAX)).max(1)
    }

    fn may_start(&mut self, model: &'static str, now: Moment) -> Result<(), Wait> {
        if self.running.values().sum::<usize>() >= self.at_once() {
            self.blocked.insert(model);
            return Err(Wait::ForASlot);
        }
        match self.next_start_at {
            Some(at) if at > now => Err(Wait::Until(at)),
            _ => Ok(()),
        }
    }

    fn start(&mut self, model: &'static str, now: Moment) {
        *self.running.entry(model).or_default() += 1;
        let spacing = self.service.spacing();
        if !spacing.is_zero() {
            self.next_start_at =
                Some(self.next_start_at.map_or(now, |at| at.max(now)).plus(spacing));
        }
    }

    fn end(&mut self, model: &'static str) {
        if let Some(running) = self.running.get_mut(model) {
            *running = running.saturating_sub(1);
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

/// What all models of a process share: how many attempts run at once.
#[derive(Debug)]
pub(crate) struct Cap {
    at_once: usize,
    running: HashMap<&'static str, usize>,
    blocked: BTreeSet<&'static str>,
}

impl Cap {
    pub(crate) fn new(at_once: usize) -> Self {
        Cap { at_once, running: HashMap::new(), blocked: BTreeSet::new() }
    }

    /// While others wait, a model gets no more than its share.
    fn may_start(&mut self, model: &'static str) -> Result<(), Wait> {
        let mine = self.running.get(model).copied().unwrap_or(0);
        let others = self.blocked.iter().filter(|other| **other != model).count();
        let busy = self.running.iter().filter(|(other, n)| **other != model && **n > 0);
        let busy = busy.filter(|(other, _)| !self.blocked.contains(*other)).count();
        let share = self.at_once.div_ceil(1 + others + busy);
        let full = self.running.values().sum::<usize>() >= self.at_once;
        if full || (others > 0 && mine >= share) {
            self.blocked.insert(model);
            return Err(Wait::ForASlot);
        }
        self.blocked.remove(model);
        Ok(())
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
        for gate in &services {
            gate.borrow_mut().running.remove(model);
        }
        cap.borrow_mut().running.remove(model);
        Gates { model, services, cap }
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

    /// Begins an attempt, or says what to wait for. `probe`: it asks a service that is down.
    pub(crate) fn start(&self, now: Moment, probe: bool) -> Result<(), Wait> {
        if !probe {
            for gate in &self.services {
                gate.borrow_mut().may_start(self.model, now)?;
            }
            self.cap.borrow_mut().may_start(self.model)?;
        }
        self.services.iter().for_each(|gate| gate.borrow_mut().start(self.model, now));
        *self.cap.borrow_mut().running.entry(self.model).or_default() += 1;
        Ok(())
    }

    /// An attempt is over, whatever became of it.
    pub(crate) fn end(&self) {
        self.services.iter().for_each(|gate| gate.borrow_mut().end(self.model));
        if let Some(running) = self.cap.borrow_mut().running.get_mut(self.model) {
            *running = running.saturating_sub(1);
        }
    }

    /// Models that wait for a slot which may be there now.
    pub(crate) fn unblocked(&self) -> BTreeSet<&'static str> {
        let mut models = std::mem::take(&mut self.cap.borrow_mut().blocked);
        for gate in &self.services {
            models.append(&mut gate.borrow_mut().blocked);
        }
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
