//! What the page shows somebody of the rows that are theirs.

use std::time::Duration;

use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    cell::Record,
    explain::{self, Around, Line},
    messages::{LATE, SUBMISSION},
    page::named,
    statement::{Statement, Value},
    submit::FromStrOrNotFound,
};
use crate::{Explanation, asyncable::Stored};

/// Rows that somebody is shown, of a model and of all.
pub(crate) const MOST: usize = 50;

/// A row as its user sees it.
#[derive(Clone, Debug)]
pub(crate) struct Mine {
    pub(crate) line: Line,
    /// Submitted or restarted a day ago, or its user was told that it is late.
    pub(crate) late: bool,
    /// Why it was given up.
    pub(crate) note: Option<String>,
}

/// Where a row stands for its user: all that they are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Working,
    NotYet,
    Done,
    Canceled,
}

impl Standing {
    /// As programs are told it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Standing::Working => "working",
            Standing::NotYet => "not_yet",
            Standing::Done => "done",
            Standing::Canceled => "canceled",
        }
    }
}

impl Mine {
    pub(crate) fn standing(&self) -> Standing {
        match self.line.explanation {
            Explanation::Processed { .. } => Standing::Done,
            Explanation::Canceled { .. } => Standing::Canceled,
            Explanation::Parked { .. } | Explanation::Expired { .. } => Standing::NotYet,
            _ if self.late => Standing::NotYet,
            _ => Standing::Working,
        }
    }
}

/// The rows of a user that were submitted last, the newest first: a range of the host's own index on the
/// user and `last_submitted_at`.
pub(crate) fn mine<M, C>(
    conn: &mut C,
    user: &str,
    now: Moment,
    alive: Duration,
) -> QueryResult<Vec<Mine>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let columns = M::COLUMNS;
    let is_users = named::<C::Backend>(columns.user, columns.user_type, "$user", user);
    let Some(is_users) = is_users else { return Ok(Vec::new()) };
    let sql = format!(
        "SELECT {{id text}} FROM {{m}} WHERE {is_users} AND {{L}} IS NOT NULL \
         ORDER BY {{L}} DESC LIMIT {MOST}"
    );
    let rows = Statement::of::<M>(&sql, vec![("user", user.into())])?.load(conn)?;
    let order = rows.iter().map(|row| row.text(0)).collect::<QueryResult<Vec<String>>>()?;
    let ids: Vec<M::Id> =
        order.iter().filter_map(|id| M::Id::from_str_or_not_found(id).ok()).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let around = Around::of::<M, C>(conn, now, alive)?;
    let mut lines = explain::lines::<M, C>(conn, &ids, &around)?;
    lines.sort_by_key(|line| order.iter().position(|id| *id == line.id));
    let said = said::<M, C>(conn, order)?;
    let mine = |line: Line| {
        let said = || said.iter().filter(|said| said.0 == line.id);
        let day_ago = line.submitted_at.is_some_and(|at| Moment::at(at) <= now.minus(LATE));
        Mine {
            late: day_ago || said().any(|said| said.1 == "failing"),
            note: said().find(|said| said.1 == "canceled").and_then(|said| said.2.clone()),
            line,
        }
    };
    Ok(lines.into_iter().map(mine).collect())
}

/// What was said to users of these rows' submissions: the row, the kind, the note.
fn said<M, C>(conn: &mut C, ids: Vec<String>) -> QueryResult<Vec<(String, String, Option<String>)>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let sql = format!(
        "SELECT f.row_id, f.kind, f.note FROM asyncable_messages f JOIN {{m}} ON {{id}} = {{id from f.row_id}} \
         WHERE f.model = {{model}} AND f.row_id IN ($ids) AND f.kind IN ('failing', 'canceled') \
         AND f.kind <> 'note' AND f.submitted_at = {SUBMISSION}"
    );
    let ids = super::statement::padded(ids).into_iter().map(Value::Text).collect();
    let said = |row: &Record| Ok((row.text(0)?, row.text(1)?, row.maybe_text(2)?));
    let rows = Statement::of::<M>(&sql, vec![("ids", Value::List(ids))])?.load(conn)?;
    rows.iter().map(said).collect()
}
