//! An outside service, as a constant of the host's: its numbers, and pure functions of them.
//!
//! What a process counts of it is in `supervisor::gate`, what all hosts share in `store::service`, and what
//! a host should know in `docs/outages.md`.

use std::time::Duration;

/// An outside service that processors call: its breaker and its pace are shared by every processor that
/// names it, and its state by every host on the database.
///
/// A constant, so that a wrong name is a compile error:
///
/// ```
/// use asyncable::Service;
/// use std::time::Duration;
///
/// pub const VBMS: Service = Service::new("vbms")
///     .settles_within(Duration::from_secs(30 * 60))
///     .starts_per_second(20)
///     .at_once(8);
/// assert_eq!(VBMS.name(), "vbms");
/// ```
///
/// A service that fails [`open_after`](Service::open_after) times in a row is **down**: rows whose
/// processors name it are not claimed, and spend no attempt, but for one at a time that asks whether it is
/// back. Any answer about that row, a refusal too, says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    name: &'static str,
    settles_within: Duration,
    starts_per_second: u32,
    at_once: usize,
    open_after: u32,
    open_at_percent: u8,
    probe_after: Duration,
    probe_at_most: Duration,
}

impl Service {
    pub(crate) const SETTLES_WITHIN: Duration = Duration::from_secs(15 * 60);

    /// A service with the defaults of each setting below. The name is stored and shown.
    pub const fn new(name: &'static str) -> Self {
        Service {
            name,
            settles_within: Self::SETTLES_WITHIN,
            starts_per_second: 0,
            at_once: usize::MAX,
            open_after: 5,
            open_at_percent: 50,
            probe_after: Duration::from_secs(30),
            probe_at_most: Duration::from_secs(300),
        }
    }

    /// How long a call whose outcome is unknown (a time-out, a connection reset after sending) may still
    /// be under way at the service. Default 15 minutes.
    ///
    /// A row that failed so is not tried again before that: asked too early, the service answers that it
    /// has nothing, and the next call doubles what the first one did.
    pub const fn settles_within(mut self, settles_within: Duration) -> Self {
        self.settles_within = settles_within;
        self
    }

    /// Attempts begun a second at most, in this process, evenly spread. Default 0: no limit.
    pub const fn starts_per_second(mut self, starts: u32) -> Self {
        self.starts_per_second = starts;
        self
    }

    /// Attempts at once at most, in this process, of all processors that name it. Default no limit; at
    /// least 1 (checked at `start`).
    pub const fn at_once(mut self, at_once: usize) -> Self {
        self.at_once = at_once;
        self
    }

    /// Failures in a row after which it is down. Default 5; 0 is never.
    ///
    /// Counted are `unavailable` failures, and `transient` and `unknown` ones of processors that name no
    /// other service. Never `permanent`, which is an answer, nor what the host's own code did.
    pub const fn open_after(mut self, failures: u32) -> Self {
        self.open_after = failures;
        self
    }

    /// The share of failures, in per cent, of at least 20 attempts within the last minute, from which it
    /// is down although some are answered. Default 50; 0 is never.
    pub const fn open_at_percent(mut self, percent: u8) -> Self {
        self.open_at_percent = percent;
        self
    }

    /// How long after it went down it is asked for the first time, and at most how long between two times
    /// later: the wait doubles. Default 30 seconds and 5 minutes.
    pub const fn probe_every(mut self, first: Duration, at_most: Duration) -> Self {
        self.probe_after = first;
        self.probe_at_most = at_most;
        self
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) const fn settles(&self) -> Duration {
        self.settles_within
    }

    /// The time between two starts; zero without a limit.
    pub(crate) fn spacing(&self) -> Duration {
        match self.starts_per_second {
            0 => Duration::ZERO,
            // Rounded up to what an instant can tell: never one start more in a second.
            starts => Duration::from_micros(1_000_000_u64.div_ceil(u64::from(starts))),
        }
    }

    /// Its limits in this process: starts a second and attempts at once, where there is one.
    #[cfg(feature = "dashboard")]
    pub(crate) fn limits(&self) -> (Option<u32>, Option<usize>) {
        let starts = Some(self.starts_per_second).filter(|starts| *starts > 0);
        (starts, Some(self.at_once).filter(|at_once| *at_once < usize::MAX))
    }

    pub(crate) const fn most_at_once(&self) -> usize {
        self.at_once
    }

    /// Whether so many failures in a row, or so many of the last minute's attempts, mean that it is down.
    pub(crate) fn is_down(&self, in_a_row: u32, failed: usize, attempts: usize) -> bool {
        let in_a_row = self.open_after > 0 && in_a_row >= self.open_after;
        let percent = usize::from(self.open_at_percent);
        in_a_row || (percent > 0 && attempts >= 20 && failed * 100 >= attempts * percent)
    }

    /// How long to wait after this many times without an answer.
    pub(crate) fn probe_after(&self, probes: u32) -> Duration {
        self.probe_after.saturating_mul(1 << probes.min(16)).min(self.probe_at_most)
    }
}
