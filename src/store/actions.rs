//! What people did to services, and what the library did on its own account: appended to, never edited or
//! deleted, in the transaction that does it.

use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    statement::{Statement, Value},
};

/// Who did what nobody did.
pub(crate) const LIBRARY: &str = "asyncable";

/// Something that was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Action<'a> {
    pub(crate) action: &'a str,
    /// A model or a service.
    pub(crate) target: &'a str,
    pub(crate) row_id: Option<&'a str>,
    /// How many rows, where it is not one.
    pub(crate) count: Option<usize>,
    pub(crate) reason: Option<&'a str>,
}

impl<'a> Action<'a> {
    pub(crate) fn of(action: &'a str, target: &'a str) -> Self {
        Action { action, target, row_id: None, count: None, reason: None }
    }
}

/// Appends it, in the transaction that does it.
pub(crate) fn append<C>(conn: &mut C, now: Moment, who: &str, done: &Action<'_>) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "INSERT INTO asyncable_actions (at, who, action, target, row_id, count, reason) \
               VALUES ($now, $who, $action, $target, NULLIF($row, ''), \
               CAST(NULLIF($count, '') AS INTEGER), NULLIF($reason, ''))";
    let binds = vec![
        ("now", Value::Time(now)),
        ("who", who.into()),
        ("action", done.action.into()),
        ("target", done.target.into()),
        ("row", done.row_id.unwrap_or_default().into()),
        ("count", Value::Text(done.count.map(|count| count.to_string()).unwrap_or_default())),
        ("reason", done.reason.unwrap_or_default().into()),
    ];
    Statement::plain(sql, binds)?.execute(conn)?;
    Ok(())
}
