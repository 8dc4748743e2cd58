//! The history of attempts: what failed, and the success that ended it. Appended to, read by people,
//! never by the claim; pruned by age.

use std::collections::HashSet;

use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    settle::{Settle, Verdict},
    statement::{Statement, Value, padded},
};
use crate::asyncable::Stored;

/// How an attempt ended, as stored.
fn outcome(verdict: &Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Done(_) => Some("processed"),
        Verdict::Failed(failed) if failed.due_at.is_none() => Some("parked"),
        Verdict::Failed(failed) if failed.counted => Some("failed"),
        Verdict::Failed(_) | Verdict::Release => None,
    }
}

/// Appends the attempts that failed, and those that ended earlier failures. `kept` are of one kind and
/// their outcomes recorded; `thought_lost` are rows of which the history says that this attempt was lost.
pub(crate) fn append<M, C>(
    conn: &mut C,
    now: Moment,
    host: &str,
    kept: &[&Settle<M::Id>],
    thought_lost: &HashSet<String>,
) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let told = kept.iter().filter(|item| match &item.verdict {
        Verdict::Done(_) => {
            item.hold.failures > 0 || thought_lost.contains(&item.hold.id.to_string())
        }
        verdict => outcome(verdict).is_some(),
    });
    let told: Vec<&Settle<M::Id>> = told.copied().collect();
    if told.is_empty() {
        return Ok(());
    }
    // An attempt that was thought lost may still say what it came to. The row's instants are copied in SQL.
    let sql = "WITH v(row, number, started, ended, outcome, kind, code, place, step, error) \
         AS (VALUES $rows), d AS (SELECT DISTINCT * FROM v) \
         INSERT INTO asyncable_attempts (model, row_id, attempted_at, submitted_at, number, host, \
         started_at, ended_at, outcome, kind, code, place, step, error) \
         SELECT {model}, {id text}, {utc A}, {utc S}, CAST(d.number AS INTEGER), $host, d.started, d.ended, \
         d.outcome, NULLIF(d.kind, ''), NULLIF(d.code, ''), NULLIF(d.place, ''), NULLIF(d.step, ''), \
         NULLIF(d.error, '') FROM d JOIN {m} ON {id} = d.row WHERE true \
         ON CONFLICT (model, row_id, attempted_at) DO UPDATE SET \
         started_at = excluded.started_at, ended_at = excluded.ended_at, \
         outcome = excluded.outcome, kind = excluded.kind, code = excluded.code, \
         place = excluded.place, step = excluded.step, error = excluded.error \
         WHERE asyncable_attempts.outcome = 'lost'";
    let rows = padded(told).into_iter().map(|item| {
        let ran = item.ran.as_ref();
        let text = |text: Option<String>| Value::Text(text.unwrap_or_default());
        let failure = match &item.verdict {
            Verdict::Failed(failed) => Some(&failed.failure),
            _ => None,
        };
        vec![
            Value::Id(M::id_fragment(&item.hold.id)),
            Value::Text(item.hold.failures.saturating_add(1).to_string()),
            Value::Time(ran.map_or(item.hold.token, |ran| ran.began)),
            Value::Time(ran.map_or(now, |ran| ran.ended)),
            outcome(&item.verdict).unwrap_or_default().into(),
            text(failure.map(|failure| failure.kind().stored().to_owned())),
            text(failure.map(|failure| failure.stored_code())),
            text(failure.map(|failure| failure.place())),
            text(ran.and_then(|ran| ran.step.clone())),
            text(failure.map(|failure| failure.error_text())),
        ]
    });
    let binds = vec![("rows", Value::Rows(&[], rows.collect())), ("host", host.into())];
    Statement::of::<M>(sql, binds)?.execute(conn)?;
    Ok(())
}

/// Appends the attempts of a lapsed batch, in the transaction that rescued it.
pub(crate) fn append_lost<M, C>(conn: &mut C, now: Moment, token: Moment) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let sql = "INSERT INTO asyncable_attempts (model, row_id, attempted_at, submitted_at, number, host, \
         started_at, ended_at, outcome, kind, code) \
         SELECT r.model, r.row_id, r.attempted_at, r.submitted_at, r.failures, c.host, r.attempted_at, \
         $now, 'lost', r.kind, r.code FROM asyncable_claims c JOIN {m} ON {A} = {A from c.claimed_at} \
         JOIN asyncable_retries r ON r.model = c.model AND r.row_id = {id text} \
         AND r.attempted_at = c.claimed_at WHERE c.model = {model} AND c.claimed_at = $token \
         AND r.code IN ('lost', 'poison') AND {open} ON CONFLICT (model, row_id, attempted_at) DO NOTHING";
    let binds = vec![("now", Value::Time(now)), ("token", Value::Time(token))];
    Statement::of::<M>(sql, binds)?.execute(conn)?;
    Ok(())
}
