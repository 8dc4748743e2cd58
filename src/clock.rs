//! The time a supervisor goes by: a value that everything below is given, and the one place that asks a
//! machine. What is measured in it and what on the wall is said at [`Clock`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};

use crate::store::Moment;

/// The one source of "now" for a supervisor.
///
/// What a row waits for (retry interval, window, delays, Retry-After) is in this clock's time. What
/// guards against the machine (leases, sweeps, time-outs, the grace of a shutdown) is in the wall's.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Clock seconds a wall second, and where both began; nothing for the machine's clock.
    fast: Option<(f64, DateTime<Utc>, Instant)>,
    /// What to add to this machine's clock to get the database's, in microseconds.
    correction: Arc<AtomicI64>,
}

impl Clock {
    /// The machine's clock; on PostgreSQL corrected to the database's, so that a host's wrong clock
    /// neither delays nor repeats work.
    pub fn system() -> Self {
        Clock { fast: None, correction: Arc::default() }
    }

    /// A clock that begins at `from` and runs `speed` times as fast as the wall's: for demonstrations.
    ///
    /// A speed that is not above zero counts as 1, one below a thousandth as that, and one above a million
    /// as a million.
    pub fn fast(speed: f64, from: DateTime<Utc>) -> Self {
        let speed = if speed > 0.0 { speed.clamp(1e-3, 1e6) } else { 1.0 };
        Clock { fast: Some((speed, from, Instant::now())), correction: Arc::default() }
    }

    /// Now.
    pub fn now(&self) -> DateTime<Utc> {
        match self.fast {
            None => Utc::now() + TimeDelta::microseconds(self.correction.load(Ordering::Relaxed)),
            Some((speed, from, began)) => from + began.elapsed().mul_f64(speed),
        }
    }

    /// How long `duration` of this clock takes on the wall.
    pub fn real(&self, duration: Duration) -> Duration {
        duration.div_f64(self.speed())
    }

    pub(crate) fn speed(&self) -> f64 {
        self.fast.map_or(1.0, |(speed, ..)| speed)
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment::at(self.now())
    }

    /// How long a duration on the wall takes in this clock's time.
    pub(crate) fn of_real(&self, duration: Duration) -> Duration {
        duration.mul_f64(self.speed())
    }

    /// Takes the database's clock for right, which said `databases_now` when it was asked at `asked_at` of
    /// this machine's. A clock that is not the machine's stays as it is.
    ///
    /// The instant before the question, not after the answer: so this clock is ahead by what the question
    /// took. Behind, a row that the host has just submitted would not be due yet when its wake comes, and
    /// would wait for the next sweep.
    pub(crate) fn correct(&self, databases_now: Moment, asked_at: DateTime<Utc>) {
        let apart = databases_now.zoned - asked_at;
        self.correction.store(apart.num_microseconds().unwrap_or(0), Ordering::Relaxed);
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}
