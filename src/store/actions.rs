//! What people did, and what the library did on its own account: appended to, never edited or deleted.

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
    pub(crate) reason: Option<&'a str>,
}

/// Appends it, in the transaction that does it.
pub(crate) fn append<C>(conn: &mut C, now: Moment, who: &str, done: &Action<'_>) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "INSERT INTO asyncable_actions (at, who, action, target, reason) \
               VALUES ($now, $who, $action, $target, NULLIF($reason, ''))";
    let binds = vec![
        ("now", Value::Time(now)),
        ("who", who.into()),
        ("action", done.action.into()),
        ("target", done.target.into()),
        ("reason", done.reason.unwrap_or_default().into()),
    ];
    Statement::plain(sql, binds)?.execute(conn)?;
    Ok(())
}
