//! What a sweep does beside rescue and orphans: notes that a row expired before its first attempt, and
//! which rows soon will.
//!
//! Both are told once a row and submission. A row that has failed has an entry to note that in; one that was
//! never attempted gets an entry, of kind `expired` or `waiting`, that says nothing else and that no claim
//! looks at.

use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    statement::{Statement, Value},
};
use crate::{asyncable::Stored, scope::Instants};

/// Rows noted in one sweep at most.
const PAGE: usize = 500;

/// Marks rows that expired without any attempt, once per row and submission; answers their ids.
///
/// Rows that failed first are found by the claim, when their last wait is over. These were never
/// attempted, so nothing speaks of them: an entry of kind `expired` is what makes it once. Only rows
/// that expired within the last retry interval are looked at, so a table full of old ones costs nothing.
pub(crate) fn expire_fresh<M, C>(
    conn: &mut C,
    now: Moment,
    instants: &Instants,
) -> QueryResult<Vec<String>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let long_ago = instants.expiry.minus(M::POLICY.interval());
    let sql = format!(
        "INSERT INTO asyncable_retries (model, row_id, attempted_at, last_submitted_at, submitted_at, \
         due_at, kind, failures, code, place, first_failed_at, last_failed_at) \
         SELECT {{model}}, row_id, last, last, submitted, NULL, 'expired', 0, 'expired', NULL, $now, $now \
         FROM (SELECT {{id text}} AS row_id, {{utc L}} AS last, {{utc S}} AS submitted FROM {{m}} \
         WHERE {{open}} AND {{A}} IS NULL AND {{L}} <= $expiry:L AND {{L}} > $long_ago:L \
         AND NOT EXISTS (SELECT 1 FROM asyncable_retries r WHERE r.model = {{model}} \
         AND r.row_id = {{id text}} AND r.last_submitted_at = {{utc L}} AND r.kind <> 'waiting') \
         ORDER BY {{A}}, {{L}} LIMIT {PAGE}) gone WHERE true \
         ON CONFLICT (model, row_id) DO UPDATE SET attempted_at = excluded.attempted_at, \
         last_submitted_at = excluded.last_submitted_at, submitted_at = excluded.submitted_at, \
         due_at = NULL, kind = 'expired', code = 'expired', place = NULL \
         WHERE asyncable_retries.last_submitted_at <> excluded.last_submitted_at \
         OR asyncable_retries.kind = 'waiting' RETURNING row_id"
    );
    let binds = vec![
        ("now", Value::Time(now)),
        ("expiry", Value::Time(instants.expiry)),
        ("long_ago", Value::Time(long_ago)),
    ];
    Statement::of::<M>(&sql, binds)?.load(conn)?.iter().map(|row| row.text(0)).collect()
}

/// A row whose window is nearly over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expiring {
    pub(crate) id: String,
    pub(crate) last_submitted_at: Moment,
}

/// Notes the rows whose windows end within [`RetryPolicy::warn_before`](crate::RetryPolicy), once per row
/// and submission; a page of each sweep. `from` remembers how far the rows without an entry have been
/// looked at.
pub(crate) fn warn<M, C>(
    conn: &mut C,
    now: Moment,
    instants: &Instants,
    from: &mut Option<Moment>,
) -> QueryResult<Vec<Expiring>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let soon = instants.expiry.plus(M::POLICY.warn_before());
    let binds = || {
        vec![
            ("now", Value::Time(now)),
            ("expiry", Value::Time(instants.expiry)),
            ("soon", Value::Time(soon)),
        ]
    };
    let mut expiring = Vec::new();
    let mut add = |rows: Vec<super::cell::Record>| -> QueryResult<()> {
        for row in rows.iter().filter(|row| row.flag(2).unwrap_or(false)) {
            expiring.push(Expiring { id: row.text(0)?, last_submitted_at: row.time(1)? });
        }
        Ok(())
    };
    let entries = format!(
        "UPDATE asyncable_retries SET warned = 1 WHERE model = {{model}} AND row_id IN (\
         SELECT row_id FROM asyncable_retries WHERE model = {{model}} AND warned = 0 \
         AND last_submitted_at > $expiry AND last_submitted_at <= $soon \
         ORDER BY last_submitted_at LIMIT {PAGE}) RETURNING row_id, last_submitted_at, \
         EXISTS (SELECT 1 FROM {{m}} WHERE {{id}} = {{id from asyncable_retries.row_id}} AND {{open by key}} \
         AND {{utc L}} = asyncable_retries.last_submitted_at)"
    );
    add(Statement::of::<M>(&entries, binds())?.load(conn)?)?;
    let begin = from.unwrap_or(instants.expiry).max(instants.expiry);
    let unattempted = "{open} AND {A} IS NULL AND {L} > $from:L AND {L} <= $soon:L";
    let with_from = |soon: Moment| {
        let mut binds = binds();
        binds.retain(|bind| bind.0 != "soon");
        binds.push(("from", Value::Time(begin)));
        binds.push(("soon", Value::Time(soon)));
        binds
    };
    let page = format!(
        "SELECT {{L}} FROM {{m}} WHERE {unattempted} ORDER BY {{A}}, {{L}} LIMIT 1 OFFSET {PAGE}"
    );
    let page = Statement::of::<M>(&page, with_from(soon))?.first(conn)?;
    let until = page.map(|row| row.maybe_time(0)).transpose()?.flatten().unwrap_or(soon);
    let rows = format!(
        "INSERT INTO asyncable_retries (model, row_id, attempted_at, last_submitted_at, submitted_at, \
         due_at, kind, failures, code, place, warned, first_failed_at, last_failed_at) \
         SELECT {{model}}, {{id text}}, {{utc L}}, {{utc L}}, {{utc S}}, NULL, 'waiting', 0, 'waiting', NULL, \
         1, $now, $now FROM {{m}} WHERE {unattempted} AND NOT EXISTS (SELECT 1 FROM asyncable_retries r \
         WHERE r.model = {{model}} AND r.row_id = {{id text}} AND r.last_submitted_at = {{utc L}}) \
         ON CONFLICT (model, row_id) DO UPDATE SET attempted_at = excluded.attempted_at, \
         last_submitted_at = excluded.last_submitted_at, submitted_at = excluded.submitted_at, \
         due_at = NULL, kind = 'waiting', code = 'waiting', place = NULL, failures = 0, crashes = 0, \
         warned = 1 WHERE asyncable_retries.last_submitted_at <> excluded.last_submitted_at \
         RETURNING row_id, last_submitted_at, 1 = 1"
    );
    add(Statement::of::<M>(&rows, with_from(until))?.load(conn)?)?;
    *from = Some(until);
    Ok(expiring)
}
