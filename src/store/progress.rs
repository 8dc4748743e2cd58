//! Whether work goes on: how long a model's oldest due row has waited, and whether anybody is at it.
//!
//! Every question is one range of an index and bounded, as the counts are.

use std::time::Duration;

use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment, counts,
    service::{self, Permit},
    statement::{Statement, Value},
};
use crate::{asyncable::Stored, scope::Instants};

/// How far a model's work has come.
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
    let oldest = counts::oldest_due::<M, C>(conn, &instants)?;
    let waits = oldest.map(|at| now.since(up_since.map_or(at, |up| up.max(at))));
    let moves =
        is_held(conn, M::COLUMNS.name, now)? || has_moved(conn, M::COLUMNS.name, now, lately)?;
    Ok(Progress { waits, moves })
}

/// Whether the model is paused in all processes, or in every one that is alive and works on it.
fn is_paused<C>(conn: &mut C, model: &str, now: Moment, alive: Duration) -> QueryResult<bool>
where
    C: LoadConnection<Backend: Dialect>,
{
    if super::pause::of(conn, model)?.is_some() {
        return Ok(true);
    }
    let sql = "SELECT paused FROM asyncable_hosts WHERE model = $model AND seen_at >= $since \
               ORDER BY seen_at DESC LIMIT 100";
    let binds = vec![("model", model.into()), ("since", Value::Time(now.minus(alive)))];
    let paused = Statement::plain(sql, binds)?.load(conn)?;
    let paused = paused.iter().map(|row| row.flag(0)).collect::<QueryResult<Vec<bool>>>()?;
    Ok(!paused.is_empty() && paused.into_iter().all(|paused| paused))
}

fn is_held<C>(conn: &mut C, model: &str, now: Moment) -> QueryResult<bool>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "SELECT 1 FROM asyncable_claims WHERE model = $model AND expires_at > $now LIMIT 1";
    let binds = vec![("model", model.into()), ("now", Value::Time(now))];
    Ok(Statement::plain(sql, binds)?.first(conn)?.is_some())
}

/// A pace may leave the model without a running row for a while.
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
