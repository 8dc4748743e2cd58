//! What was done in each ten minutes: kept for the page's drawings, written once a sweep.

use std::time::Duration;

use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    statement::{Statement, Value},
};

/// How long a bucket is.
pub(crate) const BUCKET: Duration = Duration::from_secs(600);
/// How long one is kept.
const KEPT: Duration = Duration::from_secs(8 * 86_400);

/// What attempts have come to since the last sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) finished: u64,
    pub(crate) failed: u64,
}

/// The beginning of an instant's bucket.
fn bucket(at: Moment) -> Moment {
    let micros = at.epoch_micros();
    let length = i64::try_from(BUCKET.as_micros()).unwrap_or(i64::MAX);
    at.minus(Duration::from_micros(micros.rem_euclid(length).unsigned_abs()))
}

/// Adds a tally to now's bucket, with how many rows wait; drops what is old.
pub(crate) fn add<C>(
    conn: &mut C,
    model: &str,
    tally: Tally,
    waiting: u32,
    now: Moment,
) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
{
    // The tallies of all hosts add up; of what waits, each sees the same.
    let sql = "INSERT INTO asyncable_buckets (model, at, finished, failed, waiting) VALUES ($model, $at, \
         CAST($finished AS BIGINT), CAST($failed AS BIGINT), CAST($waiting AS BIGINT)) \
         ON CONFLICT (model, at) DO UPDATE SET \
         finished = asyncable_buckets.finished + excluded.finished, \
         failed = asyncable_buckets.failed + excluded.failed, waiting = excluded.waiting";
    let binds = vec![
        ("model", model.into()),
        ("at", Value::Time(bucket(now))),
        ("finished", Value::Text(tally.finished.to_string())),
        ("failed", Value::Text(tally.failed.to_string())),
        ("waiting", Value::Text(waiting.to_string())),
    ];
    Statement::plain(sql, binds)?.execute(conn)?;
    let old = "DELETE FROM asyncable_buckets WHERE model = $model AND at < $old";
    let binds = vec![("model", model.into()), ("old", Value::Time(now.minus(KEPT)))];
    Statement::plain(old, binds)?.execute(conn)?;
    Ok(())
}

/// A bucket as the page draws it.
#[cfg(feature = "dashboard")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) finished: u64,
    pub(crate) failed: u64,
    pub(crate) waiting: u64,
}

/// The last `count` buckets, the oldest first; one that nobody wrote is empty.
#[cfg(feature = "dashboard")]
pub(crate) fn last<C>(
    conn: &mut C,
    model: &str,
    count: u32,
    now: Moment,
) -> QueryResult<Vec<Bucket>>
where
    C: LoadConnection<Backend: Dialect>,
{
    from(conn, model, bucket(now).minus(BUCKET * count.saturating_sub(1)), count)
}

/// So many buckets from `first` on.
#[cfg(feature = "dashboard")]
pub(crate) fn from<C>(
    conn: &mut C,
    model: &str,
    first: Moment,
    count: u32,
) -> QueryResult<Vec<Bucket>>
where
    C: LoadConnection<Backend: Dialect>,
{
    let last = first.plus(BUCKET * count.saturating_sub(1));
    let sql = "SELECT at, finished, failed, waiting FROM asyncable_buckets WHERE model = $model \
               AND at >= $first AND at <= $last ORDER BY at";
    let binds =
        vec![("model", model.into()), ("first", Value::Time(first)), ("last", Value::Time(last))];
    let mut buckets = vec![Bucket::default(); count as usize];
    for row in Statement::plain(sql, binds)?.load(conn)? {
        let index = row.time(0)?.since(first).as_secs() / BUCKET.as_secs();
        let number = |index| Ok::<_, diesel::result::Error>(row.int(index)?.unsigned_abs());
        if let Some(bucket) = buckets.get_mut(usize::try_from(index).unwrap_or(usize::MAX)) {
            *bucket = Bucket { finished: number(1)?, failed: number(2)?, waiting: number(3)? };
        }
    }
    Ok(buckets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{TimeZone, Utc};

    #[test]
    fn a_bucket_begins_at_a_tenth_minute() {
        let at = |minute, second| {
            let at = Utc.with_ymd_and_hms(2026, 11, 24, 9, minute, second);
            Moment::at(at.single().expect("an instant"))
        };
        assert_eq!(bucket(at(12, 3)), at(10, 0));
        assert_eq!(bucket(at(20, 0)), at(20, 0));
        assert_eq!(bucket(at(59, 59)), at(50, 0));
    }
}
