//! Models that a person has paused in all processes, until another resumes them.
//!
//! Each process reads them when it starts and with each sweep, so no claim costs more for it.

use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    actions::{self, Action},
    cell::Record,
    statement::{Statement, Value},
    turn::By,
};

/// Who has paused a model, since when and why.
#[derive(Clone, Debug)]
pub(crate) struct Paused {
    #[cfg(feature = "dashboard")]
    pub(crate) since: Moment,
    /// Nothing, if they have not said so.
    pub(crate) who: Option<String>,
    pub(crate) reason: Option<String>,
}

/// Pauses or resumes a model in all processes; false where it was so already.
pub(crate) fn order<C>(
    conn: &mut C,
    model: &str,
    pauses: bool,
    by: Option<&By>,
    now: Moment,
) -> QueryResult<bool>
where
    C: LoadConnection<Backend: Dialect>,
{
    let (who, reason) = by.map_or(("", ""), |by| (by.who.as_str(), by.reason.as_str()));
    let sql = match pauses {
        true => {
            "INSERT INTO asyncable_pauses (model, since, who, reason) \
             VALUES ($model, $now, $who, $reason) ON CONFLICT (model) DO NOTHING"
        }
        false => "DELETE FROM asyncable_pauses WHERE model = $model",
    };
    let mut binds = vec![("model", model.into())];
    if pauses {
        let rest = [("now", Value::Time(now)), ("who", who.into()), ("reason", reason.into())];
        binds.extend(rest);
    }
    if Statement::plain(sql, binds)?.execute(conn)? == 0 {
        return Ok(false);
    }
    if by.is_some() {
        let action = if pauses { "paused" } else { "resumed" };
        let done = Action { reason: Some(reason), ..Action::of(action, model) };
        actions::append(conn, now, who, &done)?;
    }
    Ok(true)
}

/// All that are paused: no more than there are models.
pub(crate) fn all<C>(conn: &mut C) -> QueryResult<Vec<(String, Paused)>>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "SELECT since, who, reason, model FROM asyncable_pauses ORDER BY model";
    let rows = Statement::plain(sql, vec![])?.load(conn)?;
    rows.iter().map(|row| Ok((row.text(3)?, read(row)?))).collect()
}

/// Whether a model is paused, and by whom.
pub(crate) fn of<C>(conn: &mut C, model: &str) -> QueryResult<Option<Paused>>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "SELECT since, who, reason FROM asyncable_pauses WHERE model = $model";
    let row = Statement::plain(sql, vec![("model", model.into())])?.first(conn)?;
    row.as_ref().map(read).transpose()
}

fn read(row: &Record) -> QueryResult<Paused> {
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(Paused {
        #[cfg(feature = "dashboard")]
        since: row.time(0)?,
        who: said(row.text(1)?),
        reason: said(row.text(2)?),
    })
}
