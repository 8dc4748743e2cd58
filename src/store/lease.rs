//! Leases: renewed by whoever holds them, rescued by anybody once they lapse.
//!
//! A lease belongs to a batch, not to a row. A crash costs about a lease (a minute), not a retry
//! interval, and the happy path writes nothing per row. See `docs/protocol.md`, Heartbeat and rescue.

use std::{collections::HashSet, time::Duration};

use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    dialect::DialectParts,
    history,
    statement::{Statement, Value, padded},
};
use crate::asyncable::{Asyncable, Stored};

/// Renews the leases of the batches in `tokens`; answers those that are lost.
///
/// Only tokens that a live pump says it holds, never "all of this host's": a claim whose commit was not
/// answered, or a pump rebuilt after a panic, would keep its rows for as long as the process lives.
pub(crate) fn renew<C>(
    conn: &mut C,
    model: &'static str,
    host: &str,
    tokens: &[Moment],
    expires_at: Moment,
) -> QueryResult<Vec<Moment>>
where
    C: LoadConnection<Backend: Dialect>,
{
    let mut lost = Vec::new();
    for chunk in tokens.chunks(128) {
        let listed = padded(chunk.to_vec()).into_iter().map(Value::Time).collect();
        let sql = "UPDATE asyncable_claims SET expires_at = $expires_at WHERE model = $model \
                   AND host = $host AND expires_at IS NOT NULL AND claimed_at IN ($tokens) \
                   RETURNING claimed_at";
        let binds = vec![
            ("expires_at", Value::Time(expires_at)),
            ("model", model.into()),
            ("host", host.into()),
            ("tokens", Value::List(listed)),
        ];
        let rows = Statement::plain(sql, binds)?.load(conn)?;
        let renewed: QueryResult<HashSet<Moment>> = rows.iter().map(|row| row.time(0)).collect();
        let renewed = renewed?;
        lost.extend(chunk.iter().filter(|token| !renewed.contains(token)));
    }
    Ok(lost)
}

/// A row that its host has lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rescued {
    pub(crate) id: String,
    /// How many attempts in a row have ended their process, if that is enough to park it.
    pub(crate) poison: Option<u32>,
}

/// Turns the unsettled rows of one lapsed batch into due retries of kind `lost`; answers their ids, or
/// nothing if no batch has lapsed. In the caller's write transaction.
///
/// A loss counts as a failure of its row: due at once the first two times, then after `wait`. Otherwise a
/// row that kills its process would do so every minute.
///
/// A row whose attempts have ended their process so often in a row that it is poison is parked instead.
pub(crate) fn rescue<M, C>(
    conn: &mut C,
    now: Moment,
    wait: Duration,
) -> QueryResult<Option<Vec<Rescued>>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let lapsed = format!(
        "SELECT claimed_at FROM asyncable_claims WHERE model = $model AND expires_at <= $now \
         ORDER BY expires_at LIMIT 1{}",
        C::Backend::SKIP_LOCKED
    );
    let binds = vec![("model", M::COLUMNS.name.into()), ("now", Value::Time(now))];
    let Some(row) = Statement::plain(&lapsed, binds)?.first(conn)? else { return Ok(None) };
    let token = row.time(0)?;
    let times = || {
        vec![
            ("token", Value::Time(token)),
            ("now", Value::Time(now)),
            ("later", Value::Time(now.plus(wait))),
            ("most", Value::Text(M::POLICY.most_crashes().to_string())),
        ]
    };
    let lost = format!(
        "INSERT INTO asyncable_retries (model, row_id, attempted_at, last_submitted_at, submitted_at, \
         due_at, kind, failures, code, place, crashes, first_failed_at, last_failed_at) \
         SELECT {{model}}, row_id, attempted_at, last_submitted_at, submitted_at, \
         CASE WHEN 1 < CAST($most AS INTEGER) THEN $now END, \
         CASE WHEN 1 < CAST($most AS INTEGER) THEN 'lost' ELSE 'permanent' END, 1, \
         CASE WHEN 1 < CAST($most AS INTEGER) THEN 'lost' ELSE 'poison' END, \
         NULL, 1, $now, $now FROM (SELECT {{id text}} AS row_id, {{utc A}} AS attempted_at, \
         {{utc L}} AS last_submitted_at, {{utc S}} AS submitted_at FROM {{m}} WHERE {UNSETTLED}\
         {{of m skip locked}}) l WHERE true {UPSERT_LOST} \
         RETURNING row_id, kind = 'permanent', crashes"
    );
    let rows = Statement::of::<M>(&lost, times())?.load(conn)?;
    let read = |row: &super::cell::Record| {
        let crashes = row.int(2)?.try_into().unwrap_or(u32::MAX);
        Ok(Rescued { id: row.text(0)?, poison: row.flag(1)?.then_some(crashes) })
    };
    let lost: QueryResult<Vec<Rescued>> = rows.iter().map(read).collect();
    if !rows.is_empty() {
        history::append_lost::<M, C>(conn, now, token)?;
    }
    // Sees the rows that the second statement skipped as locked: a later sweep rescues them.
    let end = format!(
        "UPDATE asyncable_claims SET expires_at = NULL WHERE model = {{model}} AND claimed_at = $token \
         AND NOT EXISTS (SELECT 1 FROM {{m}} WHERE {UNSETTLED})"
    );
    Statement::of::<M>(&end, times())?.execute(conn)?;
    Ok(Some(lost?))
}

/// A row of the batch that no entry speaks of: the batch-mates of a crashed attempt that had failed keep
/// their wait, and the parked stay parked.
const UNSETTLED: &str = "{A} = $token:A AND {open} AND NOT EXISTS (SELECT 1 FROM asyncable_retries r \
     WHERE r.model = {model} AND r.row_id = {id text} AND r.attempted_at = {utc A})";

/// As a settle's, but a loss never replaces what the attempt itself has said, and the third one waits.
const UPSERT_LOST: &str = "ON CONFLICT (model, row_id) DO UPDATE SET \
     attempted_at = excluded.attempted_at, last_submitted_at = excluded.last_submitted_at, \
     submitted_at = excluded.submitted_at, place = excluded.place, \
     last_failed_at = excluded.last_failed_at, \
     kind = CASE WHEN asyncable_retries.submitted_at = excluded.submitted_at \
     AND asyncable_retries.crashes + 1 >= CAST($most AS INTEGER) THEN 'permanent' ELSE excluded.kind END, \
     code = CASE WHEN asyncable_retries.submitted_at = excluded.submitted_at \
     AND asyncable_retries.crashes + 1 >= CAST($most AS INTEGER) THEN 'poison' ELSE excluded.code END, \
     due_at = CASE WHEN asyncable_retries.submitted_at = excluded.submitted_at \
     AND asyncable_retries.crashes + 1 >= CAST($most AS INTEGER) THEN NULL \
     WHEN asyncable_retries.submitted_at = excluded.submitted_at \
     AND asyncable_retries.failures >= 2 THEN $later ELSE excluded.due_at END, \
     crashes = CASE WHEN asyncable_retries.submitted_at = excluded.submitted_at \
     THEN asyncable_retries.crashes + 1 ELSE 1 END, \
     failures = CASE WHEN asyncable_retries.submitted_at = excluded.submitted_at \
     THEN asyncable_retries.failures + 1 ELSE 1 END, \
     warned = CASE WHEN asyncable_retries.submitted_at = excluded.submitted_at \
     THEN asyncable_retries.warned ELSE 0 END, \
     first_failed_at = CASE WHEN asyncable_retries.submitted_at = excluded.submitted_at \
     AND asyncable_retries.failures > 0 THEN asyncable_retries.first_failed_at ELSE excluded.first_failed_at END \
     WHERE asyncable_retries.attempted_at <> excluded.attempted_at";

/// Whether a lease that a live pump holds has lapsed: a stall, or a clock that jumped. Such a host skips
/// rescue in that sweep, since the others are about to renew theirs.
pub(crate) fn any_lapsed<M, C>(conn: &mut C, held: &[Moment], now: Moment) -> QueryResult<bool>
where
    C: LoadConnection<Backend: Dialect>,
    M: Asyncable,
{
    for chunk in held.chunks(128) {
        let listed = padded(chunk.to_vec()).into_iter().map(Value::Time).collect();
        let sql = "SELECT 1 FROM asyncable_claims WHERE model = $model AND expires_at <= $now \
                   AND claimed_at IN ($held) LIMIT 1";
        let binds = vec![
            ("model", M::COLUMNS.name.into()),
            ("now", Value::Time(now)),
            ("held", Value::List(listed)),
        ];
        if Statement::plain(sql, binds)?.first(conn)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
