//! Whether work goes on: how long a model's oldest due row has waited, and whether anybody is at it.
//!
//! Every question is one range of an index, and ends at its first row but for spent entries, which are
//! bounded as the counts are.

use std::time::Duration;

use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    counts::Counts,
    service::{self, Permit},
    statement::{Statement, Value},
};
use crate::{
    asyncable::Stored,
    scope::{FRESH, Instants},
};

/// How far a model's work has come.
#[cfg(feature = "dashboard")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// How long the oldest due row has waited while it could have run; nothing if none is due, or if none
    /// may run: a service is down or held, or the model is paused wherever it is worked on.
    pub(crate) waits: Option<Duration>,
    /// A process holds rows of the model, or has finished some of late.
    pub(crate) moves: bool,
}

/// `alive`: how long ago a process may have been heard of that is still alive; `lately`: how long ago what
/// was finished counts as going on.
#[cfg(feature = "dashboard")]
pub(crate) fn progress<M, C>(
    conn: &mut C,
    services: &[&str],
    now: Moment,
    alive: Duration,
    lately: Duration,
) -> QueryResult<Progress>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let standing = service::standing_of(conn, services, now, M::POLICY.open_for(), false)?;
    if standing.permit != Permit::All || is_paused(conn, M::COLUMNS.name, now, alive)? {
        return Ok(Progress { waits: None, moves: false });
    }
    let instants = Instants::with_outages(now, &M::POLICY, &standing.outages);
    // What was due during an outage has waited for its end.
    let up_since = standing.outages.iter().filter_map(|outage| outage.until).max();
    let oldest = oldest_due::<M, C>(conn, &instants)?;
    let waits = oldest.map(|at| now.since(up_since.map_or(at, |up| up.max(at))));
    let moves =
        is_held(conn, M::COLUMNS.name, now)? || has_moved(conn, M::COLUMNS.name, now, lately)?;
    Ok(Progress { waits, moves })
}

/// Since when the oldest due row is.
pub(crate) fn oldest_due<M, C>(conn: &mut C, instants: &Instants) -> QueryResult<Option<Moment>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let binds = || {
        vec![
            ("now", Value::Time(instants.now)),
            ("fresh", Value::Time(instants.fresh)),
            ("expiry", Value::Time(instants.expiry)),
        ]
    };
    let fresh = format!("SELECT {{L}} FROM {{m}} WHERE {FRESH} ORDER BY {{A}}, {{L}} LIMIT 1");
    let fresh = Statement::of::<M>(&fresh, binds())?.first(conn)?;
    let fresh = fresh.and_then(|row| row.maybe_time(0).unwrap_or(None));
    let retry = format!(
        "SELECT r.due_at FROM (SELECT row_id, attempted_at, last_submitted_at, due_at \
         FROM asyncable_retries WHERE model = {{model}} AND due_at <= $now ORDER BY due_at LIMIT {most}) r \
         JOIN {{m}} ON {{id}} = {{id from r.row_id}} WHERE {{utc A}} = r.attempted_at \
         AND {{utc L}} = r.last_submitted_at AND {{open}} AND {{L}} > $expiry:L ORDER BY r.due_at LIMIT 1",
        most = Counts::MOST
    );
    let retry = Statement::of::<M>(&retry, binds())?.first(conn)?;
    let retry = retry.map(|row| row.time(0)).transpose()?;
    let fresh = fresh.map(|last| last.plus(M::POLICY.first_wait()));
    Ok(fresh.into_iter().chain(retry).min())
}

/// Whether every process that is alive and works on the model has it paused.
#[cfg(feature = "dashboard")]
fn is_paused<C>(conn: &mut C, model: &str, now: Moment, alive: Duration) -> QueryResult<bool>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "SELECT paused FROM asyncable_hosts WHERE model = $model AND seen_at >= $since \
               ORDER BY seen_at DESC LIMIT 100";
    let binds = vec![("model", model.into()), ("since", Value::Time(now.minus(alive)))];
    let paused = Statement::plain(sql, binds)?.load(conn)?;
    let paused = paused.iter().map(|row| row.flag(0)).collect::<QueryResult<Vec<bool>>>()?;
    Ok(!paused.is_empty() && paused.into_iter().all(|paused| paused))
}

#[cfg(feature = "dashboard")]
fn is_held<C>(conn: &mut C, model: &str, now: Moment) -> QueryResult<bool>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "SELECT 1 FROM asyncable_claims WHERE model = $model AND expires_at > $now LIMIT 1";
    let binds = vec![("model", model.into()), ("now", Value::Time(now))];
    Ok(Statement::plain(sql, binds)?.first(conn)?.is_some())
}

/// A pace may leave the model without a running row for a while.
#[cfg(feature = "dashboard")]
fn has_moved<C>(conn: &mut C, model: &str, now: Moment, lately: Duration) -> QueryResult<bool>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "SELECT 1 FROM asyncable_buckets WHERE model = $model AND at > $since \
               AND finished + failed > 0 LIMIT 1";
    let since = now.minus(lately).minus(super::buckets::BUCKET);
    let binds = vec![("model", model.into()), ("since", Value::Time(since))];
    Ok(Statement::plain(sql, binds)?.first(conn)?.is_some())
}
