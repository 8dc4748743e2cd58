//! How many of a model's open rows stand where, without reading them all: each count is a range of an index,
//! and stops at [`Counts::MOST`].

use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    statement::{Statement, Value},
};
use crate::{
    asyncable::Stored,
    scope::{CLAIMS_ROW, ENTRYS_ROW, EXPIRED_FRESH, FRESH, Instants, SCHEDULED},
};

/// How many of a model's open rows stand where, at most [`Counts::MOST`] each: no question of a person's
/// may cost more the worse things are.
///
/// Each is counted as the scope of its name ([`Asyncable::due`](crate::Asyncable::due) and the others)
/// selects, but for attempts that nobody owns, which only the sweep looks for. A failing row whose wait
/// is over is due as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Submitted, and due later.
    pub scheduled: u32,
    /// An attempt could start now.
    pub due: u32,
    /// Being worked on.
    pub in_flight: u32,
    /// Failed, and tried again by themselves.
    pub failing: u32,
    /// Of those that are due, scheduled, failing or parked: their windows end soon
    /// ([`RetryPolicy::warn_before`](crate::RetryPolicy::warn_before)).
    pub expiring: u32,
    /// Waiting for a person.
    pub parked: u32,
    /// Not done when their window ended.
    pub expired: u32,
}

impl Counts {
    /// Where each count stops: this many or more.
    pub const MOST: u32 = 10_000;
}

const EXPIRING_FRESH: &str =
    "FROM {m} WHERE {open} AND {A} IS NULL AND {L} <= $soon:L AND {L} > $expiry:L";

/// The rows of entries; each list of entries is one range of an index.
fn of_entries(entries: &str, and: &str) -> String {
    format!(
        "FROM (SELECT row_id, attempted_at, last_submitted_at FROM asyncable_retries \
         WHERE model = {{model}} AND {entries} LIMIT {most}) r {ENTRYS_ROW}{and}",
        most = Counts::MOST
    )
}

const OPEN: &str = " AND {L} > $expiry:L";

/// Counts a model's open rows.
pub(crate) fn counts<M, C>(conn: &mut C, instants: &Instants) -> QueryResult<Counts>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let mut count = |rows: &str| count::<M, C>(conn, instants, rows);
    let failing = count(&of_entries("due_at IS NOT NULL ORDER BY due_at", OPEN))?;
    let parked = count(&of_entries("kind = 'permanent' ORDER BY last_submitted_at", ""))?;
    but::<M, C>(conn, instants, parked, failing)
}

/// As `counts`, but for those that have been counted.
pub(crate) fn but<M, C>(
    conn: &mut C,
    instants: &Instants,
    parked: u32,
    failing: u32,
) -> QueryResult<Counts>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let due = due_at::<M, C>(conn, instants)?;
    let mut count = |rows: &str| count::<M, C>(conn, instants, rows);
    let most = |a: u32, b: u32| (a + b).min(Counts::MOST);
    Ok(Counts {
        scheduled: count(&format!("FROM {{m}} WHERE {SCHEDULED}"))?,
        due,
        in_flight: count(&format!(
            "FROM asyncable_claims c {CLAIMS_ROW} WHERE c.model = {{model}} AND c.expires_at > $now"
        ))?,
        failing,
        expiring: most(
            count(EXPIRING_FRESH)?,
            count(&of_entries(
                "last_submitted_at > $expiry AND last_submitted_at <= $soon ORDER BY last_submitted_at",
                "",
            ))?,
        ),
        parked,
        expired: most(
            count(&format!("FROM {{m}} WHERE {EXPIRED_FRESH}"))?,
            count(&of_entries("last_submitted_at <= $expiry ORDER BY last_submitted_at", ""))?,
        ),
    })
}

/// Counts the rows on which an attempt could start now, if their services were up.
pub(crate) fn due<M, C>(conn: &mut C, now: Moment) -> QueryResult<u32>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    due_at::<M, C>(conn, &Instants::new(now, &M::POLICY))
}

/// As [`due`], at instants that may know of outages.
pub(crate) fn due_at<M, C>(conn: &mut C, instants: &Instants) -> QueryResult<u32>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let most = |a: u32, b: u32| (a + b).min(Counts::MOST);
    Ok(most(
        count::<M, C>(conn, instants, &format!("FROM {{m}} WHERE {FRESH} ORDER BY {{A}}, {{L}}"))?,
        count::<M, C>(conn, instants, &of_entries("due_at <= $now ORDER BY due_at", OPEN))?,
    ))
}

/// Counts the due rows that come before one: retries that were due before `at`, or new ones submitted
/// before it.
pub(crate) fn ahead<M, C>(
    conn: &mut C,
    instants: &Instants,
    retry: bool,
    at: Moment,
) -> QueryResult<u32>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let earlier = Instants { now: at, fresh: at, ..*instants };
    match retry {
        true => count::<M, C>(conn, &earlier, &of_entries("due_at < $now ORDER BY due_at", OPEN)),
        false => {
            let rows = FRESH.replace("<= $fresh:L", "< $fresh:L");
            count::<M, C>(conn, &earlier, &format!("FROM {{m}} WHERE {rows} ORDER BY {{A}}, {{L}}"))
        }
    }
}

fn count<M, C>(conn: &mut C, instants: &Instants, rows: &str) -> QueryResult<u32>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let sql = format!("SELECT count(*) FROM (SELECT 1 {rows} LIMIT {}) counted", Counts::MOST);
    let binds = vec![
        ("now", Value::Time(instants.now)),
        ("fresh", Value::Time(instants.fresh)),
        ("expiry", Value::Time(instants.expiry)),
        ("soon", Value::Time(instants.expiry.plus(M::POLICY.warn_before()))),
    ];
    let counted = Statement::of::<M>(&sql, binds)?.first(conn)?;
    let counted = counted.map_or(Ok(0), |row| row.int(0))?;
    Ok(counted.try_into().unwrap_or(Counts::MOST))
}

/// Since when the oldest due row is due.
#[cfg(any(feature = "dashboard", feature = "metrics"))]
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
         {ENTRYS_ROW} WHERE {{L}} > $expiry:L ORDER BY r.due_at LIMIT 1",
        most = Counts::MOST
    );
    let retry = Statement::of::<M>(&retry, binds())?.first(conn)?;
    let retry = retry.map(|row| row.time(0)).transpose()?;
    let fresh = fresh.map(|last| last.plus(M::POLICY.first_wait()));
    Ok(fresh.into_iter().chain(retry).min())
}

/// Where one row stands; nothing if there is no such row.
pub(crate) fn status<M, C>(
    conn: &mut C,
    id: &M::Id,
    now: Moment,
) -> QueryResult<Option<crate::Status>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let instants = Instants::new(now, &M::POLICY);
    let sql = format!("SELECT {} FROM {{m}} WHERE {{id}} = $id", crate::scope::status_text::<M>());
    let binds =
        vec![("expiry", Value::Time(instants.expiry)), ("id", Value::Id(M::id_fragment(id)))];
    let row = Statement::of::<M>(&sql, binds)?.first(conn)?;
    let read = |row: super::cell::Record| {
        let read = row.text(0)?.parse();
        read.map_err(|wrong: String| diesel::result::Error::DeserializationError(wrong.into()))
    };
    row.map(read).transpose()
}
