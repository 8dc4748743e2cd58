//! When a row that failed is tried again, and for how long: a value and pure functions of it.
//!
//! The source of the defaults is the `Asyncable` concern of the original: every 3 hours, for 4 days
//! from the last submission. How a wait is bounded by the window, and by a call that may still be under
//! way, is the pump's to say (`supervisor::pump`, `judge`).

use std::time::Duration;

/// How often a failing row is tried, and for how long.
///
/// ```
/// use asyncable::RetryPolicy;
/// use std::time::Duration;
///
/// const HOUR: Duration = Duration::from_secs(3600);
/// const POLICY: RetryPolicy = RetryPolicy::DEFAULT
///     .every(Duration::from_secs(12 * 3600))
///     .window(Duration::from_secs(30 * 86_400))
///     .first(&[Duration::from_secs(60), Duration::from_secs(600), HOUR]);
///
/// assert_eq!(POLICY.wait_after(1, 0), Duration::from_secs(60));
/// assert_eq!(POLICY.wait_after(4, 0), 12 * HOUR);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    every: Duration,
    window: Duration,
    first: &'static [Duration],
    jitter_percent: u8,
    first_attempt_after: Duration,
    poison_after: u32,
    outages_count: bool,
}

/// A hundred years: what is longer is for ever, and fits into no database's instants.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

const fn at_most(duration: Duration) -> Duration {
    if duration.as_secs() > LONGEST.as_secs() { LONGEST } else { duration }
}

impl RetryPolicy {
    /// Every 3 hours, for 4 days from the last submission; the first attempt at once; no jitter.
    pub const DEFAULT: RetryPolicy = RetryPolicy {
        every: Duration::from_secs(3 * 3600),
        window: Duration::from_secs(4 * 86_400),
        first: &[],
        jitter_percent: 0,
        first_attempt_after: Duration::ZERO,
        poison_after: 5,
        outages_count: false,
    };

    /// What the original does: as the default, but a new row too waits one retry interval before its
    /// first attempt. For a table that the original still works on.
    pub const fn original() -> Self {
        Self::DEFAULT.first_attempt_after(Self::DEFAULT.every)
    }

    /// The steady wait between attempts. Default 3 hours; must be above zero (checked at `start`).
    pub const fn every(mut self, every: Duration) -> Self {
        self.every = at_most(every);
        self
    }

    /// How long after its last submission a row may still be attempted; then it is expired. Default 4
    /// days; must be at least the retry interval (checked at `start`). `Duration::MAX` is for ever: as all
    /// durations of a policy, more than a hundred years counts as a hundred.
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = at_most(window);
        self
    }

    /// Quicker waits after the first failures, before the steady interval. Default none.
    ///
    /// `.first(&[1 min, 10 min])` waits 1 minute after the first failure, 10 after the second, and the
    /// steady interval from the third on.
    pub const fn first(mut self, waits: &'static [Duration]) -> Self {
        self.first = waits;
        self
    }

    /// Spreads each wait over ± this many percent of itself. Default 0, at most 50 (more counts as 50).
    pub const fn jitter(mut self, percent: u8) -> Self {
        self.jitter_percent = if percent > 50 { 50 } else { percent };
        self
    }

    /// How long a new submission waits for its first attempt. Default zero: at once.
    pub const fn first_attempt_after(mut self, wait: Duration) -> Self {
        self.first_attempt_after = at_most(wait);
        self
    }

    /// How many attempts in a row may end their process, or panic, before the row is parked as poison.
    /// Default 5; zero: however many.
    ///
    /// A host that dies or stands still loses all its running rows, so the count is not of this row's
    /// doing alone; but one attempt that ends otherwise begins it again.
    pub const fn poison_after(mut self, crashes: u32) -> Self {
        self.poison_after = crashes;
        self
    }

    /// Whether that many crashes in a row are too many.
    pub(crate) const fn is_poison(&self, crashes: u32) -> bool {
        self.poison_after > 0 && crashes >= self.poison_after
    }

    pub(crate) const fn most_crashes(&self) -> u32 {
        if self.poison_after == 0 { i32::MAX as u32 } else { self.poison_after }
    }

    /// Whether time in which a service of its processor is down or held counts against the window. Default
    /// false: such a row expires later by that time.
    ///
    /// Scopes and statuses know no outage: a row whose window was lengthened so is expired in them while
    /// it is still tried.
    pub const fn outages_count(mut self, count: bool) -> Self {
        self.outages_count = count;
        self
    }

    pub(crate) const fn counts_outages(&self) -> bool {
        self.outages_count
    }

    /// The wait after failure number `failures` (from 1).
    ///
    /// `seed` picks the random part: the same seed gives the same wait. Without jitter it has no effect.
    pub fn wait_after(&self, failures: u32, seed: u64) -> Duration {
        let index = failures.saturating_sub(1) as usize;
        let wait = self.first.get(index).copied().map_or(self.every, at_most);
        if self.jitter_percent == 0 {
            return wait;
        }
        // SplitMix64's finalizer: spreads consecutive seeds evenly, and needs no dependency.
        let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let unit = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        let spread = f64::from(self.jitter_percent) / 100.0;
        wait.mul_f64(1.0 - spread + 2.0 * spread * unit)
    }

    /// The steady wait between attempts.
    pub const fn interval(&self) -> Duration {
        self.every
    }

    /// How long after its last submission a row may be attempted.
    pub const fn open_for(&self) -> Duration {
        self.window
    }

    /// How long before its window's end a row is told of: a day, or a quarter of a shorter window.
    pub fn warn_before(&self) -> Duration {
        (self.window / 4).min(Duration::from_secs(86_400))
    }

    /// How long a new submission waits for its first attempt.
    pub const fn first_wait(&self) -> Duration {
        self.first_attempt_after
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_default_waits_three_hours_after_every_failure_for_four_days() {
        for failures in [0, 1, 2, 33, u32::MAX] {
            assert_eq!(RetryPolicy::DEFAULT.wait_after(failures, 7), 3 * HOUR);
        }
        assert_eq!(RetryPolicy::DEFAULT.open_for(), 96 * HOUR);
    }

    #[test]
    fn quick_first_waits_come_in_order_and_then_the_steady_one() {
        const POLICY: RetryPolicy =
            RetryPolicy::DEFAULT.first(&[Duration::from_secs(60), Duration::from_secs(600)]);
        let waits: Vec<u64> = (1..=4).map(|n| POLICY.wait_after(n, 0).as_secs()).collect();
        assert_eq!(waits, [60, 600, 10_800, 10_800]);
    }

    proptest! {
        #[test]
        fn jitter_stays_within_its_percentage(percent in 0u8..=100, seed: u64, failures in 1u32..10) {
            let policy = RetryPolicy::DEFAULT.jitter(percent);
            let spread = f64::from(percent.min(50)) / 100.0;
            let wait = policy.wait_after(failures, seed).as_secs_f64();
            prop_assert!(wait >= 10_800.0 * (1.0 - spread) - 1e-6);
            prop_assert!(wait <= 10_800.0 * (1.0 + spread) + 1e-6);
        }

        #[test]
        fn the_same_seed_gives_the_same_wait(seed: u64) {
            let policy = RetryPolicy::DEFAULT.jitter(20);
            prop_assert_eq!(policy.wait_after(3, seed), policy.wait_after(3, seed));
        }
    }
}
