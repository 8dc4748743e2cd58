//! Submit, restart and cancel: what people and the host's own code write to a row.
//!
//! These run on any connection of the host's, and race with claims and settles of other processes. The
//! rules, and what breaks without them:
//!
//! - A row that is **running** keeps its `attempted_at`. Its settle finds that `last_submitted_at` has
//!   changed and gives the row back. Clearing it would run old and new content at once.
//! - Whether a row is running is asked in a second statement, after its lock is held. Under READ
//!   COMMITTED a single UPDATE that waited for a claim still looks for the claim in the snapshot from
//!   before it, finds no lease, and clears `attempted_at` under a running attempt.
//! - `submitted_at` strictly rises, so a generation, and an idempotency key, never comes back. Where one
//!   column is both it is also when the row is due, and rises above every attempt only: two submissions
//!   between which no attempt began may share an instant, and with it a key that nobody has used.
//!
//! See `docs/protocol.md`, Submit, restart, cancel.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult,
    connection::LoadConnection,
    result::Error::{NotFound, QueryBuilderError},
};

use super::{
    Dialect, Moment,
    dialect::DialectParts,
    messages::{self, Sent},
    statement::{Statement, Value, padded},
    trouble::within,
};
use crate::asyncable::{Asyncable, Key, Stored};

/// Rows a statement names at most: keeps the number of distinct statements, and their size, small.
const CHUNK: usize = 256;

/// The instant of an operation, and from when its row is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct When {
    now: Moment,
    /// Ask PostgreSQL for its clock: this machine's may be wrong.
    databases_clock: bool,
    at: Option<Moment>,
}

impl When {
    /// By the machine's clock, or the database's where that is another machine.
    pub(crate) fn now() -> Self {
        When { now: Moment::at(Utc::now()), databases_clock: true, at: None }
    }

    /// By the caller's clock.
    pub(crate) fn given(now: Moment) -> Self {
        When { now, databases_clock: false, at: None }
    }

    pub(crate) fn due_at(mut self, at: DateTime<Utc>) -> Self {
        let at = Moment::at(at);
        self.at = (at > self.now).then_some(at);
        self
    }

    fn now_value<DB: Dialect>(&self) -> Value<DB> {
        if self.databases_clock { Value::Now(self.now) } else { Value::Time(self.now) }
    }

    /// `$at`: when the row is due; now, unless it was delayed.
    fn at_value<DB: Dialect>(&self) -> Value<DB> {
        self.at.map_or_else(|| self.now_value(), Value::Time)
    }
}

/// What became of a wish to cancel a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Canceled {
    /// The row is canceled. A running attempt is not interrupted, but starts no further step and its
    /// outcome is not recorded.
    Done,
    /// It was canceled before; the first time is kept.
    Before,
    /// It is processed, and stays so.
    Processed,
}

impl Canceled {
    pub(crate) fn done(self) -> bool {
        self == Canceled::Done
    }
}

/// What became of a wish to restart rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restarted {
    /// Rows that are due again.
    pub restarted: usize,
    /// Rows left as they were: processed, or never submitted.
    pub left_alone: usize,
    /// Ids that name no row.
    pub not_found: usize,
}

impl Restarted {
    /// The answer for a single row.
    pub(crate) fn one(&self) -> QueryResult<bool> {
        if self.not_found > 0 { Err(NotFound) } else { Ok(self.restarted > 0) }
    }
}

/// Submits one row, or answers `NotFound`.
pub(crate) fn one<M, C>(conn: &mut C, id: M::Id, when: When) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    match submit::<M, C>(conn, &[id], &when)?.is_empty() {
        true => Err(NotFound),
        false => Ok(()),
    }
}

/// Submits rows; answers the ids that name one, as text.
pub(crate) fn submit<M, C>(conn: &mut C, ids: &[M::Id], when: &When) -> QueryResult<HashSet<String>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let mut found = HashSet::new();
    match ids {
        // Most submissions: one row, nobody at it, one statement, no transaction of our own.
        [id] => {
            found.extend(submit_unattempted::<M, C>(conn, ids, when)?);
            if found.is_empty() {
                let id = std::slice::from_ref(id);
                let attempted = within(conn, |conn| submit_attempted::<M, C>(conn, id, when))?;
                found.extend(attempted);
            }
        }
        _ => within(conn, |conn| -> QueryResult<()> {
            for chunk in ids.chunks(CHUNK) {
                found.extend(submit_unattempted::<M, C>(conn, chunk, when)?);
                let rest = missing::<M>(chunk, &found);
                if !rest.is_empty() {
                    found.extend(submit_attempted::<M, C>(conn, &rest, when)?);
                }
            }
            Ok(())
        })?,
    }
    Ok(found)
}

fn missing<M: Asyncable>(ids: &[M::Id], found: &HashSet<String>) -> Vec<M::Id> {
    ids.iter().filter(|id| !found.contains(&id.to_string())).cloned().collect()
}

/// The cheap case: rows that no attempt has touched since their last submission.
fn submit_unattempted<M, C>(conn: &mut C, ids: &[M::Id], when: &When) -> QueryResult<Vec<String>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let columns = M::COLUMNS;
    let cleared = if columns.canceled_at.is_some() { ", {=X} = NULL" } else { "" };
    let (set, guard) = if columns.one_column() {
        ("{=S} = $at:S".to_owned(), "")
    } else if C::Backend::CONCURRENT_CLAIMS {
        // PostgreSQL's GREATEST passes over NULLs; its intervals know microseconds.
        ("{=S} = GREATEST($now:S, {S} + interval '1 microsecond'), {=L} = $at:L".to_owned(), "")
    } else {
        // SQLite's date functions stop at milliseconds: a row whose submitted_at does not lie before
        // now is left to the second statement, which adds the microsecond in Rust.
        ("{=S} = $now:S, {=L} = $at:L".to_owned(), " AND ({S} IS NULL OR {S} < $now:S)")
    };
    let sql = format!(
        "UPDATE {{m}} SET {set}, {{=P}} = NULL{cleared}, {{=E}} = NULL \
         WHERE {{id}} IN ($ids) AND {{A}} IS NULL{guard} RETURNING {{id text}}"
    );
    let binds = vec![
        ("now", when.now_value()),
        ("at", when.at_value()),
        ("ids", id_list::<M, C::Backend>(ids)),
    ];
    Statement::of::<M>(&sql, binds)?.load(conn)?.iter().map(|row| row.text(0)).collect()
}

/// Rows that an attempt has touched: locked first, then written by what is so once the lock is held.
fn submit_attempted<M, C>(conn: &mut C, ids: &[M::Id], when: &When) -> QueryResult<Vec<String>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let mut found = Vec::new();
    for row in lock::<M, C>(conn, ids)? {
        let columns = M::COLUMNS;
        let now = row.now(when);
        let after_attempt = row.attempted_at.map(Moment::next);
        let at = when.at.unwrap_or(now).max(after_attempt.unwrap_or(now));
        let generation = match row.submitted_at {
            _ if columns.one_column() => at,
            Some(submitted_at) => now.max(submitted_at.next()),
            None => now,
        };
        let set = if columns.one_column() { "" } else { "{=L} = $at:L, " };
        let cleared = if columns.canceled_at.is_some() { ", {=X} = NULL" } else { "" };
        let sql = format!(
            "UPDATE {{m}} SET {set}{{=S}} = $generation:S, {{=P}} = NULL{cleared}, {{=E}} = NULL, \
             {{=A}} = {kept} WHERE {{id}} = $id",
            kept = kept_if_running()
        );
        let id = M::Id::from_str_or_not_found(&row.id)?;
        let binds = vec![
            ("at", Value::Time(at)),
            ("generation", Value::Time(generation)),
            ("now", Value::Time(now)),
            ("id", Value::Id(M::id_fragment(&id))),
            ("model", columns.name.into()),
        ];
        Statement::of::<M>(&sql, binds)?.execute(conn)?;
        found.push(row.id);
    }
    Ok(found)
}

/// Restarts rows that were submitted and are not processed.
pub(crate) fn restart<M, C>(conn: &mut C, ids: &[M::Id], when: &When) -> QueryResult<Restarted>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let mut answer = Restarted::default();
    within(conn, |conn| -> QueryResult<()> {
        for chunk in ids.chunks(CHUNK) {
            let rows = lock::<M, C>(conn, chunk)?;
            let distinct: HashSet<String> = chunk.iter().map(ToString::to_string).collect();
            answer.not_found += distinct.len() - rows.len();
            for row in rows {
                if row.processed || row.submitted_at.is_none() {
                    answer.left_alone += 1;
                    continue;
                }
                restart_one::<M, C>(conn, row, when)?;
                answer.restarted += 1;
            }
        }
        Ok(())
    })?;
    Ok(answer)
}

fn restart_one<M, C>(conn: &mut C, row: Locked, when: &When) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let columns = M::COLUMNS;
    let now = row.now(when);
    // Above what a running attempt has seen: otherwise its outcome would count for this restart.
    let at = row.attempted_at.map_or(now, |attempted_at| now.max(attempted_at.next()));
    let cleared = if columns.canceled_at.is_some() { ", {=X} = NULL" } else { "" };
    let sql = format!(
        "UPDATE {{m}} SET {{=L}} = $at:L{cleared}, {{=E}} = NULL, {{=A}} = {kept} WHERE {{id}} = $id",
        kept = kept_if_running()
    );
    let id = M::Id::from_str_or_not_found(&row.id)?;
    if columns.one_column() {
        messages::moved::<M, C>(conn, &id, at)?;
    }
    let binds = vec![
        ("at", Value::Time(at)),
        ("now", Value::Time(now)),
        ("id", Value::Id(M::id_fragment(&id))),
        ("model", columns.name.into()),
    ];
    Statement::of::<M>(&sql, binds)?.execute(conn)?;
    if let Some(generation) = row.submitted_at
        && columns.one_column()
    {
        super::step::move_steps::<M, C>(conn, &row.id, generation, at)?;
    }
    Statement::plain(
        "DELETE FROM asyncable_retries WHERE model = $model AND row_id = $row_id",
        vec![("model", columns.name.into()), ("row_id", row.id.as_str().into())],
    )?
    .execute(conn)?;
    Ok(())
}

/// Gives a row up, and tells its user; `by` whom, and why.
pub(crate) fn cancel<M, C>(
    conn: &mut C,
    id: M::Id,
    when: &When,
    by: Option<(&str, &str)>,
) -> QueryResult<(Canceled, Option<Sent>)>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    if M::COLUMNS.canceled_at.is_none() {
        let name = M::COLUMNS.name;
        return Err(QueryBuilderError(format!("{name} names no canceled_at column").into()));
    }
    let wish = "UPDATE {m} SET {=X} = $now:X WHERE {id} = $id AND {open} RETURNING {id text}";
    let wished = |conn: &mut C| {
        let binds = vec![("now", when.now_value()), ("id", Value::Id(M::id_fragment(&id)))];
        Ok::<_, diesel::result::Error>(Statement::of::<M>(wish, binds)?.first(conn)?.is_some())
    };
    let canceled = match M::COLUMNS.user {
        None => wished(conn)?.then_some(None),
        Some(_) => within(conn, |conn| {
            let canceled = wished(conn)?;
            let told =
                canceled.then(|| messages::canceled::<M, C>(conn, &id, when.now_value(), by));
            told.transpose()
        })?,
    };
    if let Some(sent) = canceled {
        return Ok((Canceled::Done, sent));
    }
    let ask = "SELECT CASE WHEN {P} IS NULL THEN 0 ELSE 1 END FROM {m} WHERE {id} = $id";
    let binds = vec![("id", Value::Id(M::id_fragment(&id)))];
    match Statement::of::<M>(ask, binds)?.first(conn)? {
        None => Err(NotFound),
        Some(row) if row.flag(0)? => Ok((Canceled::Processed, None)),
        Some(_) => Ok((Canceled::Before, None)),
    }
}

/// A row under this transaction's lock, as it is.
struct Locked {
    id: String,
    submitted_at: Option<Moment>,
    attempted_at: Option<Moment>,
    processed: bool,
    databases_now: Option<Moment>,
}

impl Locked {
    fn now(&self, when: &When) -> Moment {
        match self.databases_now {
            Some(now) if when.databases_clock => now,
            _ => when.now,
        }
    }
}

/// Locks rows until the transaction ends.
#[cfg(feature = "dashboard")]
pub(crate) fn hold<M, C>(conn: &mut C, ids: &[M::Id]) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    if ids.is_empty() {
        return Ok(());
    }
    lock::<M, C>(conn, ids).map(drop)
}

fn lock<M, C>(conn: &mut C, ids: &[M::Id]) -> QueryResult<Vec<Locked>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    if C::Backend::FOR_UPDATE.is_empty() {
        // SQLite has no row locks: a write that changes nothing takes the database's, so that what is
        // read next stays so, whatever kind of transaction the host has begun.
        let hold = "UPDATE asyncable_claims SET model = model WHERE 1 = 0";
        Statement::<C::Backend>::plain(hold, vec![])?.execute(conn)?;
    }
    let now = C::Backend::database_now(crate::columns::Zone::Naive).unwrap_or("NULL");
    let sql = format!(
        "SELECT {{id text}}, {{S}}, {{A}}, CASE WHEN {{P}} IS NULL THEN 0 ELSE 1 END, {now} \
         FROM {{m}} WHERE {{id}} IN ($ids) ORDER BY {{id}}{{for update}}"
    );
    let binds = vec![("ids", id_list::<M, C::Backend>(ids))];
    let rows = Statement::of::<M>(&sql, binds)?.load(conn)?;
    let read = |row: &super::cell::Record| {
        Ok(Locked {
            id: row.text(0)?,
            // A spelling nobody can read is as good as none: the row gets a new one now.
            submitted_at: row.maybe_time(1).unwrap_or(None),
            attempted_at: row.maybe_time(2).unwrap_or(None),
            processed: row.flag(3)?,
            databases_now: row.maybe_time(4)?,
        })
    };
    rows.iter().map(read).collect()
}

/// The attempt that runs now keeps its token; anybody else's is cleared. P and X are the old values: a
/// processed or canceled row's token is nobody's, and keeping it would wait for ever.
fn kept_if_running() -> &'static str {
    "CASE WHEN {open} AND EXISTS (SELECT 1 FROM asyncable_claims c WHERE c.model = $model \
     AND c.claimed_at = {utc A} AND c.expires_at > $now) \
     AND NOT EXISTS (SELECT 1 FROM asyncable_retries r WHERE r.model = $model \
     AND r.row_id = {id text} AND r.attempted_at = {utc A}) THEN {A} END"
}

pub(crate) fn id_list<M, DB>(ids: &[M::Id]) -> Value<DB>
where
    DB: Dialect,
    M: Stored<DB>,
{
    let ids = padded(ids.to_vec());
    Value::List(ids.iter().map(|id| Value::Id(M::id_fragment(id))).collect())
}

/// Reading back an id that the database spelled.
pub(crate) trait FromStrOrNotFound: Sized {
    fn from_str_or_not_found(text: &str) -> QueryResult<Self>;
}

impl<K: Key> FromStrOrNotFound for K {
    fn from_str_or_not_found(text: &str) -> QueryResult<Self> {
        K::from_str(text).map_err(|_| {
            diesel::result::Error::DeserializationError(
                "the key column holds a value that the model's `type Id` cannot".into(),
            )
        })
    }
}
