//! An instant as the store binds it: to the microsecond, which is what both databases keep.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc};

/// An instant in both of Diesel's spellings, cut to the microseconds that PostgreSQL keeps.
///
/// Both are kept because a bind must be borrowed from the statement that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Moment {
    pub(crate) naive: NaiveDateTime,
    pub(crate) zoned: DateTime<Utc>,
}

/// The years that are spelled with four digits: SQLite compares instants as texts, and PostgreSQL's do not
/// reach as far back as Rust's.
const FIRST: DateTime<Utc> = day(1, 1, 1);
const LAST: DateTime<Utc> = day(9999, 12, 31);

const fn day(year: i32, month: u32, day: u32) -> DateTime<Utc> {
    match NaiveDate::from_ymd_opt(year, month, day) {
        Some(day) => day.and_time(NaiveTime::MIN).and_utc(),
        None => DateTime::UNIX_EPOCH,
    }
}

impl Moment {
    /// The instant, or the first or last one that both databases know how to keep.
    pub(crate) fn at(instant: DateTime<Utc>) -> Self {
        let instant = instant.clamp(FIRST, LAST);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_beyond_what_the_databases_keep_is_the_last_or_the_first_that_they_do() {
        let spelled = |at: Moment| at.naive.format("%Y-%m-%d").to_string();
        let now = Moment::at(DateTime::UNIX_EPOCH);
        let ends = [now.plus(Duration::MAX), now.minus(Duration::MAX)];
        assert_eq!(ends.map(spelled), ["9999-12-31", "0001-01-01"]);
        let ends = [DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MIN_UTC].map(Moment::at);
        assert_eq!(ends.map(spelled), ["9999-12-31", "0001-01-01"]);
    }
}
