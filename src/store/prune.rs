//! Pruning: the history and the steps that nobody needs any more, and the hosts that are gone, in small
//! batches, by one host at a time.
//!
//! What an open row needs is never pruned, however old: its steps, and the entry that says why it waits.

use std::time::Duration;

use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment, StoreConnection,
    dialect::DialectParts,
    statement::{Statement, Value},
};
use crate::asyncable::Stored;

const DAY: Duration = Duration::from_secs(86_400);
/// How long an attempt is kept.
const ATTEMPTS: Duration = DAY.saturating_mul(90);
/// How long its error's text is: it may hold personal data.
const TEXTS: Duration = DAY.saturating_mul(30);
/// How long a step is, after its row's end.
const STEPS: Duration = DAY.saturating_mul(30);
/// How long an entry that speaks of no open row is.
const RETRIES: Duration = DAY.saturating_mul(90);
/// How long a host is that is not seen any more: Explain asks also those that are gone for what a model
/// calls.
const HOSTS: Duration = DAY.saturating_mul(7);
/// How long a message to a row's user is, read or not.
const MESSAGES: Duration = DAY.saturating_mul(120);
/// How long a try of a service that was down is.
const PROBES: Duration = DAY.saturating_mul(90);
/// Rows looked at in one go.
const PAGE: usize = 500;

/// How far pruning has come through the tables of which it must look at everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pruning {
    steps: Option<String>,
    retries: Option<(Moment, String)>,
}

/// Prunes a page of each table; answers whether to go on at the next sweep: there is more to do, or another
/// host is at it.
pub(crate) fn prune<M, C>(conn: &mut C, now: Moment, at: &mut Pruning) -> QueryResult<bool>
where
    C: StoreConnection,
    M: Stored<C::Backend>,
{
    conn.write(|conn| {
        let lock = Statement::<C::Backend>::plain(C::Backend::TRY_PRUNE, vec![])?;
        if !lock.first(conn)?.is_some_and(|row| row.flag(0) == Ok(true)) {
            return Ok(true);
        }
        let attempts = attempts(conn, now)?
            | by_age(conn, "asyncable_messages", now.minus(MESSAGES))?
            | by_age(conn, "asyncable_probes", now.minus(PROBES))?;
        let steps = steps::<M, C>(conn, now, at)?;
        let retries = retries::<M, C>(conn, now, at)?;
        let hosts = hosts(conn, now)?;
        Ok(attempts || steps || retries || hosts)
    })
}

fn attempts<C>(conn: &mut C, now: Moment) -> QueryResult<bool>
where
    C: LoadConnection<Backend: Dialect>,
{
    let mut full = false;
    for (what, which, age) in [
        ("DELETE FROM asyncable_attempts", "", ATTEMPTS),
        ("UPDATE asyncable_attempts SET error = NULL", "error IS NOT NULL AND ", TEXTS),
    ] {
        let sql = format!(
            "{what} WHERE (model, row_id, attempted_at) IN (SELECT model, row_id, attempted_at \
             FROM asyncable_attempts WHERE {which}ended_at < $old ORDER BY ended_at LIMIT {PAGE})"
        );
        let binds = vec![("old", Value::Time(now.minus(age)))];
        full |= Statement::plain(&sql, binds)?.execute(conn)? == PAGE;
    }
    Ok(full)
}

fn hosts<C>(conn: &mut C, now: Moment) -> QueryResult<bool>
where
    C: LoadConnection<Backend: Dialect>,
{
    // Again in the second half: PostgreSQL may have waited for a host that has just said that it is alive.
    let sql = format!(
        "DELETE FROM asyncable_hosts WHERE (host, model) IN (SELECT host, model FROM asyncable_hosts \
         WHERE seen_at < $old ORDER BY seen_at LIMIT {PAGE}) AND seen_at < $old"
    );
    let binds = vec![("old", Value::Time(now.minus(HOSTS)))];
    Ok(Statement::plain(&sql, binds)?.execute(conn)? == PAGE)
}

/// Of a table whose rows have an id, and an instant that an index orders.
fn by_age<C>(conn: &mut C, table: &str, old: Moment) -> QueryResult<bool>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = format!(
        "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE at < $old \
         ORDER BY at LIMIT {PAGE})"
    );
    Ok(Statement::plain(&sql, vec![("old", Value::Time(old))])?.execute(conn)? == PAGE)
}

fn steps<M, C>(conn: &mut C, now: Moment, at: &mut Pruning) -> QueryResult<bool>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let from = at.steps.take().unwrap_or_default();
    let page = format!(
        "SELECT max(row_id), count(*) FROM (SELECT row_id FROM asyncable_steps \
         WHERE model = {{model}} AND row_id > $from ORDER BY row_id LIMIT {PAGE}) page"
    );
    let page = Statement::of::<M>(&page, vec![("from", from.as_str().into())])?.first(conn)?;
    let Some(page) = page else { return Ok(false) };
    let (Some(to), count) = (page.maybe_text(0)?, page.int(1)?) else { return Ok(false) };
    // A step that was begun after its row's last submission is of that submission.
    let canceled = if M::COLUMNS.canceled_at.is_some() { " OR {X} >= $old:X" } else { "" };
    let sql = format!(
        "DELETE FROM asyncable_steps WHERE model = {{model}} AND row_id > $from AND row_id <= $to \
         AND find_after < $old AND NOT EXISTS (SELECT 1 FROM {{m}} \
         WHERE {{id}} = {{id from asyncable_steps.row_id}} \
         AND (({{open by key}} AND asyncable_steps.find_after >= {{utc S}}) OR {{P}} >= $old:P{canceled}))"
    );
    let binds = vec![
        ("from", from.as_str().into()),
        ("to", to.as_str().into()),
        ("old", Value::Time(now.minus(STEPS))),
    ];
    let pruned = Statement::of::<M>(&sql, binds)?.execute(conn)?;
    let full = count == PAGE as i64;
    at.steps = full.then_some(to);
    Ok(full && pruned > 0)
}

fn retries<M, C>(conn: &mut C, now: Moment, at: &mut Pruning) -> QueryResult<bool>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let old = now.minus(RETRIES);
    let (from, from_id) =
        at.retries.take().unwrap_or((Moment::from_naive(EARLIEST), String::new()));
    let page = format!(
        "SELECT last_submitted_at, row_id FROM asyncable_retries WHERE model = {{model}} \
         AND (last_submitted_at, row_id) > ($from, $from_id) AND last_submitted_at < $old \
         ORDER BY last_submitted_at, row_id LIMIT {PAGE}"
    );
    let binds = vec![
        ("from", Value::Time(from)),
        ("from_id", from_id.as_str().into()),
        ("old", Value::Time(old)),
    ];
    let page = Statement::of::<M>(&page, binds)?.load(conn)?;
    let Some(last) = page.last() else { return Ok(false) };
    let (to, to_id) = (last.time(0)?, last.text(1)?);
    let sql = "DELETE FROM asyncable_retries WHERE model = {model} \
         AND (last_submitted_at, row_id) > ($from, $from_id) \
         AND (last_submitted_at, row_id) <= ($to, $to_id) AND last_failed_at < $old \
         AND NOT EXISTS (SELECT 1 FROM {m} WHERE {id} = {id from asyncable_retries.row_id} \
         AND {open by key} AND {utc L} = asyncable_retries.last_submitted_at)";
    let binds = vec![
        ("from", Value::Time(from)),
        ("from_id", from_id.as_str().into()),
        ("to", Value::Time(to)),
        ("to_id", to_id.as_str().into()),
        ("old", Value::Time(old)),
    ];
    let pruned = Statement::of::<M>(sql, binds)?.execute(conn)?;
    let full = page.len() == PAGE;
    at.retries = full.then_some((to, to_id));
    Ok(full && pruned > 0)
}

/// Before any submission.
const EARLIEST: chrono::NaiveDateTime = chrono::DateTime::UNIX_EPOCH.naive_utc();
