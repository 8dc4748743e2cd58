//! Attempts that have ended, as the page shows them: of a row, and of an hour; and the tries of a service that
//! was down, which are no row's. Each is a range of an index, and goes on from a key.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    buckets::{self, Bucket},
    cell::Record,
    counts::Counts,
    page::Key,
    statement::{Statement, Value},
};

/// Tries that are shown at once.
const PAGE: usize = 50;

/// An attempt of a row's history.
#[derive(Clone, Debug)]
pub(crate) struct Try {
    pub(crate) number: i64,
    pub(crate) host: String,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) ended_at: DateTime<Utc>,
    pub(crate) outcome: String,
    pub(crate) code: Option<String>,
    pub(crate) place: Option<String>,
    pub(crate) step: Option<String>,
    /// May hold personal data.
    pub(crate) error: Option<String>,
}

/// A row's tries, the newest first, and where the older ones begin, if there are some.
pub(crate) fn of_row<C>(
    conn: &mut C,
    model: &str,
    row_id: &str,
    before: Option<Moment>,
) -> QueryResult<(Vec<Try>, Option<Moment>)>
where
    C: LoadConnection<Backend: Dialect>,
{
    let older = if before.is_some() { " AND attempted_at < $before" } else { "" };
    let sql = format!(
        "SELECT number, host, started_at, ended_at, outcome, code, place, step, error, attempted_at \
         FROM asyncable_attempts WHERE model = $model AND row_id = $row{older} \
         ORDER BY attempted_at DESC LIMIT {}",
        PAGE + 1
    );
    let mut binds = vec![("model", model.into()), ("row", row_id.into())];
    binds.extend(before.map(|before| ("before", Value::Time(before))));
    let rows = Statement::plain(&sql, binds)?.load(conn)?;
    let attempt = |row: &Record| {
        Ok(Try {
            number: row.int(0)?,
            host: row.text(1)?,
            started_at: row.time(2)?.zoned,
            ended_at: row.time(3)?.zoned,
            outcome: row.text(4)?,
            code: row.maybe_text(5)?,
            place: row.maybe_text(6)?,
            step: row.maybe_text(7)?,
            error: row.maybe_text(8)?,
        })
    };
    let older = match rows.len() > PAGE {
        true => Some(rows[PAGE - 1].time(9)?),
        false => None,
    };
    Ok((rows.iter().take(PAGE).map(attempt).collect::<QueryResult<_>>()?, older))
}

/// An attempt that ended in an hour.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) at: DateTime<Utc>,
    pub(crate) row_id: String,
    pub(crate) outcome: String,
    pub(crate) code: Option<String>,
}

/// What a model's rows did in an hour.
#[derive(Clone, Debug)]
pub(crate) struct Hour {
    pub(crate) model: &'static str,
    /// Its six times ten minutes.
    pub(crate) buckets: Vec<Bucket>,
    /// How many attempts ended how, at most [`Counts::MOST`] in all.
    pub(crate) causes: Vec<(String, Option<String>, u32)>,
    pub(crate) ended: Vec<Ended>,
    /// Where the next ones begin.
    pub(crate) next: Option<Key>,
}

impl Hour {
    /// What was done in all of it, and how many rows waited at most.
    pub(crate) fn total(&self) -> Bucket {
        let buckets = || self.buckets.iter();
        Bucket {
            finished: buckets().map(|bucket| bucket.finished).sum(),
            failed: buckets().map(|bucket| bucket.failed).sum(),
            waiting: buckets().map(|bucket| bucket.waiting).max().unwrap_or(0),
        }
    }
}

/// The failed attempts of an hour, and the successes that ended failures, the first one first.
pub(crate) fn hour<C>(
    conn: &mut C,
    model: &'static str,
    from: Moment,
    after: Option<&Key>,
) -> QueryResult<Hour>
where
    C: LoadConnection<Backend: Dialect>,
{
    let until = from.plus(Duration::from_secs(3600));
    let binds = || {
        let (at, id) = after.map_or((from, ""), |(at, id)| (*at, id.as_str()));
        vec![
            ("model", model.into()),
            ("from", Value::Time(from)),
            ("until", Value::Time(until)),
            ("at", Value::Time(at)),
            ("id", id.into()),
        ]
    };
    const OF_THE_HOUR: &str = "model = $model AND ended_at >= $from AND ended_at < $until";
    let causes = format!(
        "SELECT outcome, code, count(*) FROM (SELECT outcome, code FROM asyncable_attempts \
         WHERE {OF_THE_HOUR} LIMIT {}) ended GROUP BY outcome, code \
         ORDER BY count(*) DESC, outcome, code LIMIT 100",
        Counts::MOST
    );
    let used = |names: &[&str]| {
        binds().into_iter().filter(|(name, _)| names.contains(name)).collect::<Vec<_>>()
    };
    let causes = Statement::plain(&causes, used(&["model", "from", "until"]))?.load(conn)?;
    let cause = |row: &Record| {
        let rows = row.int(2)?.try_into().unwrap_or(Counts::MOST);
        Ok((row.text(0)?, row.maybe_text(1)?, rows))
    };
    let ended = format!(
        "SELECT ended_at, row_id, outcome, code FROM asyncable_attempts WHERE {OF_THE_HOUR} \
         AND ended_at >= $at AND NOT (ended_at = $at AND row_id <= $id) \
         ORDER BY ended_at, row_id LIMIT {}",
        PAGE + 1
    );
    let ended = Statement::plain(&ended, binds())?.load(conn)?;
    let next = match ended.len() > PAGE {
        true => Some((ended[PAGE - 1].time(0)?, ended[PAGE - 1].text(1)?)),
        false => None,
    };
    let line = |row: &Record| {
        Ok(Ended {
            at: row.time(0)?.zoned,
            row_id: row.text(1)?,
            outcome: row.text(2)?,
            code: row.maybe_text(3)?,
        })
    };
    Ok(Hour {
        model,
        buckets: buckets::from(conn, model, from, 6)?,
        causes: causes.iter().map(cause).collect::<QueryResult<_>>()?,
        ended: ended.iter().take(PAGE).map(line).collect::<QueryResult<_>>()?,
        next,
    })
}

/// A try of a service that did not answer.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) at: DateTime<Utc>,
    pub(crate) model: String,
    pub(crate) row_id: String,
    pub(crate) code: String,
}

/// The last tries of a service, the newest first.
pub(crate) fn probes<C>(conn: &mut C, service: &str) -> QueryResult<Vec<Probe>>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "SELECT at, model, row_id, code FROM asyncable_probes WHERE service = $service \
               ORDER BY at DESC LIMIT 20";
    let rows = Statement::plain(sql, vec![("service", service.into())])?.load(conn)?;
    let probe = |row: &Record| {
        Ok(Probe {
            at: row.time(0)?.zoned,
            model: row.text(1)?,
            row_id: row.text(2)?,
            code: row.text(3)?,
        })
    };
    rows.iter().map(probe).collect()
}
