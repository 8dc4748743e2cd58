//! What a sweep does beside rescue and orphans: notes that a row expired before its first attempt.

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
/// that expired within the last window are looked at, so a table full of old ones costs nothing.
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
         AND r.row_id = {{id text}} AND r.last_submitted_at = {{utc L}}) \
         ORDER BY {{A}}, {{L}} LIMIT {PAGE}) gone WHERE true \
         ON CONFLICT (model, row_id) DO UPDATE SET attempted_at = excluded.attempted_at, \
         last_submitted_at = excluded.last_submitted_at, submitted_at = excluded.submitted_at, \
         due_at = NULL, kind = 'expired', code = 'expired', place = NULL \
         WHERE asyncable_retries.last_submitted_at <> excluded.last_submitted_at RETURNING row_id"
    );
    let binds = vec![
        ("now", Value::Time(now)),
        ("expiry", Value::Time(instants.expiry)),
        ("long_ago", Value::Time(long_ago)),
    ];
    Statement::of::<M>(&sql, binds)?.load(conn)?.iter().map(|row| row.text(0)).collect()
}
