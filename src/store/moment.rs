//! An instant as the store binds it: to the microsecond, which is what both databases keep.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Timelike, Utc};

/// An instant in both of Diesel's spellings, cut to the microseconds that PostgreSQL keeps.
///
/// Both are kept because a bind must be borrowed from the statement that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Moment {
    pub(crate) naive: NaiveDateTime,
    pub(crate) zoned: DateTime<Utc>,
}

impl Moment {
    pub(crate) fn at(instant: DateTime<Utc>) -> Self {
        let whole = instant.nanosecond() / 1000 * 1000;
        // A leap second's nanoseconds reach past 10⁹, where `with_nanosecond` still answers.
        let zoned = instant.with_nanosecond(whole).unwrap_or(instant);
        Moment { naive: zoned.naive_utc(), zoned }
    }

    pub(crate) fn from_naive(naive: NaiveDateTime) -> Self {
        Self::at(naive.and_utc())
    }

    /// Later by `by`; the end of time where that does not fit.
    pub(crate) fn plus(self, by: Duration) -> Self {
        let later = TimeDelta::from_std(by).ok().and_then(|by| self.zoned.checked_add_signed(by));
        Self::at(later.unwrap_or(DateTime::<Utc>::MAX_UTC))
    }

    /// Earlier by `by`; the beginning of time where that does not fit.
    pub(crate) fn minus(self, by: Duration) -> Self {
        let earlier = TimeDelta::from_std(by).ok().and_then(|by| self.zoned.checked_sub_signed(by));
        Self::at(earlier.unwrap_or(DateTime::<Utc>::MIN_UTC))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub(crate) fn since(self, earlier: Moment) -> Duration {
        (self.zoned - earlier.zoned).to_std().unwrap_or_default()
    }

    /// The next instant that the databases can tell from this one.
    pub(crate) fn next(self) -> Self {
        self.plus(Duration::from_micros(1))
    }

    pub(crate) fn epoch_micros(self) -> i64 {
        self.zoned.timestamp_micros()
    }
}
