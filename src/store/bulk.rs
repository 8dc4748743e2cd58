//! Many rows at once: what people restart or cancel by a list or a filter, in batches.
//!
//! A bulk is a row of `asyncable_bulks`. Whichever host comes to it takes the next batch, in one transaction
//! with how far the bulk has come: so each row is done once, whoever dies on the way, and it may be stopped
//! between any two batches. It does what was promised and no more: only rows that stand as they stood when
//! they were seen, each looked at again under its lock.

use std::{collections::HashSet, time::Duration};

use chrono::{DateTime, Utc};
use diesel::{QueryResult, connection::LoadConnection};
use serde::{Deserialize, Serialize};

use super::{
    Dialect, Moment, StoreConnection,
    actions::{self, Action},
    cell::Record,
    explain::{self, Around, Line},
    messages::Sent,
    page::{self, Cursor, Group, Selection, State},
    statement::{Statement, Value},
    submit::{self, When},
    trouble::{is_broken, within},
    turn::By,
};
use crate::asyncable::Stored;

/// Rows of one batch.
pub(crate) const BATCH: usize = 500;
/// Rows left alone that are named; of more only their number is kept.
const NAMED: usize = 100;
/// How long lies between two batches of one that is paced.
const PACED: Duration = Duration::from_secs(10);

/// What is done to the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Restart,
    Cancel,
}

impl Deed {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Deed::Restart => "restart",
            Deed::Cancel => "cancel",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Deed> {
        [Deed::Restart, Deed::Cancel].into_iter().find(|deed| deed.as_str() == text)
    }

    /// As `asyncable_actions` names it.
    fn done(self) -> &'static str {
        match self {
            Deed::Restart => "restarted",
            Deed::Cancel => "canceled",
        }
    }

    fn may(self, line: &Line) -> bool {
        match self {
            Deed::Restart => line.may_restart(),
            Deed::Cancel => line.may_cancel(),
        }
    }
}

/// Which rows, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chosen {
    pub(crate) state: String,
    pub(crate) code: Option<String>,
    pub(crate) user: Option<String>,
    /// Microseconds since 1970.
    pub(crate) before: Option<i64>,
    /// These, if they were few enough to be named.
    pub(crate) rows: Option<Vec<String>>,
}

impl Chosen {
    pub(crate) fn of(selection: &Selection, rows: Option<Vec<String>>) -> Self {
        let Selection { state, code, user, before, .. } = selection;
        Chosen {
            state: state.as_str().to_owned(),
            code: code.clone(),
            user: user.clone(),
            before: before.map(Moment::epoch_micros),
            rows,
        }
    }

    fn selection(&self, seen: Moment, now: Moment) -> Selection {
        let before = self.before.and_then(DateTime::from_timestamp_micros);
        Selection {
            state: State::parse(&self.state).unwrap_or(State::Parked),
            code: self.code.clone(),
            user: self.user.clone(),
            before: before.map(Moment::at),
            seen: Some((seen, now)),
        }
    }
}

/// What somebody asks for.
#[derive(Clone, Debug)]
pub(crate) struct NewBulk {
    /// Sent with the form, so that a form sent twice is one bulk.
    pub(crate) id: String,
    pub(crate) deed: Deed,
    pub(crate) by: By,
    pub(crate) chosen: Chosen,
    pub(crate) seen: DateTime<Utc>,
    pub(crate) promised: u32,
    /// Rows a minute; 0 for no limit.
    pub(crate) pace: u32,
}

/// How far one has come.
#[derive(Clone, Debug)]
pub(crate) struct Bulk {
    pub(crate) id: String,
    pub(crate) deed: Deed,
    pub(crate) who: String,
    pub(crate) reason: String,
    pub(crate) chosen: Chosen,
    seen: Moment,
    pub(crate) promised: u32,
    pub(crate) pace: u32,
    cursor: String,
    pub(crate) done: u32,
    pub(crate) left_alone: u32,
    left_rows: Vec<String>,
    pub(crate) began_at: DateTime<Utc>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
    pub(crate) stopped_by: Option<String>,
}

impl Bulk {
    /// Rows that were left alone: what no longer stood as it was seen was not found again.
    pub(crate) fn left(&self) -> u32 {
        let gone = match (self.ended_at, &self.stopped_by, self.promised) {
            (Some(_), None, promised) if promised != u32::MAX => {
                promised.saturating_sub(self.done + self.left_alone)
            }
            _ => 0,
        };
        self.left_alone + gone
    }
}

const COLUMNS: &str = "id, action, who, reason, selection, seen_at, promised, pace, cursor, done, \
                       left_alone, left_rows, began_at, ended_at, stopped_by";

fn bulk(row: &Record) -> QueryResult<Bulk> {
    let number = |index| Ok::<u32, diesel::result::Error>(row.int(index)?.try_into().unwrap_or(0));
    let (deed, chosen) = (Deed::parse(&row.text(1)?), serde_json::from_str(&row.text(4)?));
    let (Some(deed), Ok(chosen)) = (deed, chosen) else {
        return Err(diesel::result::Error::DeserializationError(
            "asyncable_bulks holds a bulk that this version does not know".into(),
        ));
    };
    Ok(Bulk {
        id: row.text(0)?,
        deed,
        who: row.text(2)?,
        reason: row.text(3)?,
        chosen,
        seen: row.time(5)?,
        promised: number(6)?,
        pace: number(7)?,
        cursor: row.text(8)?,
        done: number(9)?,
        left_alone: number(10)?,
        left_rows: serde_json::from_str(&row.text(11)?).unwrap_or_default(),
        began_at: row.time(12)?.zoned,
        ended_at: row.maybe_time(13)?.map(|at| at.zoned),
        stopped_by: row.maybe_text(14)?,
    })
}

/// Keeps what somebody asks for; one of the same id is left as it is.
pub(crate) fn begin<C>(conn: &mut C, model: &str, new: &NewBulk, now: Moment) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "INSERT INTO asyncable_bulks (id, model, action, who, reason, selection, seen_at, promised, \
               pace, cursor, done, left_alone, left_rows, began_at, next_at) VALUES ($id, $model, $action, \
               $who, $reason, $selection, $seen, CAST($promised AS BIGINT), CAST($pace AS BIGINT), '', 0, 0, \
               '[]', $now, $now) ON CONFLICT (id) DO NOTHING";
    let binds = vec![
        ("id", new.id.as_str().into()),
        ("model", model.into()),
        ("action", new.deed.as_str().into()),
        ("who", new.by.who.as_str().into()),
        ("reason", new.by.reason.as_str().into()),
        ("selection", Value::Text(json(&new.chosen))),
        ("seen", Value::Time(Moment::at(new.seen))),
        ("promised", Value::Text(new.promised.to_string())),
        ("pace", Value::Text(new.pace.to_string())),
        ("now", Value::Time(now)),
    ];
    Statement::plain(sql, binds)?.execute(conn)?;
    Ok(())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Reads one.
pub(crate) fn read<C>(conn: &mut C, model: &str, id: &str) -> QueryResult<Option<Bulk>>
where
    C: LoadConnection<Backend: Dialect>,
{
    if id.contains('\0') {
        return Ok(None); // in no text of PostgreSQL's
    }
    let sql = format!("SELECT {COLUMNS} FROM asyncable_bulks WHERE id = $id AND model = $model");
    let binds = vec![("id", id.into()), ("model", model.into())];
    Statement::plain(&sql, binds)?.first(conn)?.as_ref().map(bulk).transpose()
}

/// Ends one before it is done; answers whether it went on.
pub(crate) fn stop<C>(
    conn: &mut C,
    model: &str,
    id: &str,
    who: &str,
    now: Moment,
) -> QueryResult<bool>
where
    C: StoreConnection,
{
    if id.contains('\0') {
        return Ok(false); // in no text of PostgreSQL's
    }
    conn.write(|conn| {
        let sql = format!(
            "UPDATE asyncable_bulks SET ended_at = $now, stopped_by = $who WHERE id = $id \
             AND model = $model AND ended_at IS NULL RETURNING {COLUMNS}"
        );
        let binds = vec![
            ("now", Value::Time(now)),
            ("who", who.into()),
            ("id", id.into()),
            ("model", model.into()),
        ];
        let Some(stopped) = Statement::plain(&sql, binds)?.first(conn)? else { return Ok(false) };
        tell(conn, model, &bulk(&stopped)?, now)?;
        Ok(true)
    })
}

/// Keeps in the history what a bulk that has ended has done.
fn tell<C>(conn: &mut C, model: &str, bulk: &Bulk, now: Moment) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
{
    let action = Action {
        count: usize::try_from(bulk.done).ok(),
        reason: Some(&bulk.reason),
        ..Action::of(bulk.deed.done(), model)
    };
    actions::append(conn, now, &bulk.who, &action)
}

/// Takes the next batch of the model's bulk that has waited longest, if one is to go on now; answers the
/// messages to the rows' users if there was one.
pub(crate) fn go_on<M, C>(conn: &mut C, now: Moment) -> QueryResult<Option<Vec<Sent>>>
where
    C: StoreConnection,
    M: Stored<C::Backend>,
{
    let sql = format!(
        "SELECT {COLUMNS} FROM asyncable_bulks WHERE model = {{model}} AND ended_at IS NULL \
         AND next_at <= $now ORDER BY next_at LIMIT 1"
    );
    let open = Statement::of::<M>(&sql, vec![("now", Value::Time(now))])?;
    if open.first(conn)?.is_none() {
        return Ok(None); // without the write lock
    }
    conn.write(|conn| {
        let open =
            Statement::of::<M>(&format!("{sql}{{skip locked}}"), vec![("now", Value::Time(now))])?;
        let Some(row) = open.first(conn)? else { return Ok(None) };
        batch::<M, C>(conn, now, bulk(&row)?).map(Some)
    })
}

fn batch<M, C>(conn: &mut C, now: Moment, mut bulk: Bulk) -> QueryResult<Vec<Sent>>
where
    C: StoreConnection,
    M: Stored<C::Backend>,
{
    let left = bulk.promised.saturating_sub(bulk.done + bulk.left_alone);
    let (size, wait) = pace(bulk.pace);
    let size = size.min(usize::try_from(left).unwrap_or(BATCH));
    let around = Around::of::<M, C>(conn, now, Duration::ZERO)?;
    let selection = bulk.chosen.selection(bulk.seen, now);
    let (ids, cursor) = next::<M, C>(conn, &around, &bulk, &selection, size)?;
    let keys: Vec<M::Id> = ids.iter().filter_map(|id| id.parse().ok()).collect();
    submit::hold::<M, C>(conn, &keys)?;
    let lines = explain::lines::<M, C>(conn, &keys, &around)?;
    let seen = bulk.seen.zoned;
    // What is submitted for later has an instant that is still to come.
    let unchanged = |at: Option<DateTime<Utc>>| at.is_none_or(|at| at <= seen || at > now.zoned);
    let kept: Vec<&Line> = lines
        .iter()
        .filter(|line| selection.state.has(&line.explanation) && bulk.deed.may(line))
        .filter(|line| unchanged(line.submitted_at) && unchanged(line.attempted_at))
        .collect();
    let kept: Vec<M::Id> = kept.into_iter().filter_map(|line| line.id.parse().ok()).collect();
    let (done, sent) = act::<M, C>(conn, now, &bulk, &kept)?;
    bulk.left_rows.extend(ids.iter().filter(|id| !done.contains(*id)).cloned());
    bulk.left_rows.truncate(NAMED);
    bulk.left_alone += count(ids.len() - done.len());
    bulk.done += count(done.len());
    let ended = cursor.is_none() || bulk.done + bulk.left_alone >= bulk.promised;
    if ended {
        tell(conn, M::COLUMNS.name, &bulk, now)?;
    }
    let sql = format!(
        "UPDATE asyncable_bulks SET cursor = $cursor, done = CAST($done AS BIGINT), \
         left_alone = CAST($left AS BIGINT), left_rows = $rows, next_at = $next, ended_at = {} WHERE id = $id",
        if ended { "$now" } else { "NULL" }
    );
    let binds = vec![
        ("cursor", Value::Text(cursor.unwrap_or_default())),
        ("done", Value::Text(bulk.done.to_string())),
        ("left", Value::Text(bulk.left_alone.to_string())),
        ("rows", Value::Text(json(&bulk.left_rows))),
        ("next", Value::Time(now.plus(wait))),
        ("now", Value::Time(now)),
        ("id", bulk.id.as_str().into()),
    ];
    Statement::plain(&sql, binds)?.execute(conn)?;
    Ok(sent)
}

/// A batch's size, and the wait after it.
fn pace(a_minute: u32) -> (usize, Duration) {
    let batches = 60 / PACED.as_secs();
    match u64::from(a_minute) {
        0 => (BATCH, Duration::ZERO),
        a_minute if a_minute < batches => (1, Duration::from_secs(60 / a_minute)),
        a_minute => {
            (usize::try_from(a_minute / batches).map_or(BATCH, |size| size.min(BATCH)), PACED)
        }
    }
}

fn count(rows: usize) -> u32 {
    rows.try_into().unwrap_or(u32::MAX)
}

/// The next rows, and where the ones after them begin, if there are any.
fn next<M, C>(
    conn: &mut C,
    around: &Around,
    bulk: &Bulk,
    selection: &Selection,
    size: usize,
) -> QueryResult<(Vec<String>, Option<String>)>
where
    C: StoreConnection,
    M: Stored<C::Backend>,
{
    if let Some(rows) = &bulk.chosen.rows {
        let from = bulk.cursor.parse().unwrap_or(0);
        let ids: Vec<String> = rows.iter().skip(from).take(size).cloned().collect();
        let on = from + ids.len();
        return Ok((ids, (on < rows.len()).then(|| on.to_string())));
    }
    let instants = around.instants().seen_at(bulk.seen);
    let cursor = cursor(&bulk.cursor);
    let (ids, on) = page::ids::<M, C>(conn, &instants, selection, cursor.as_ref(), size)?;
    Ok((ids, on.map(|on| place(&on))))
}

/// A place in a list, as text.
pub(crate) fn place(cursor: &Cursor) -> String {
    let places = cursor.iter().map(|key| key.as_ref().map(|(at, id)| (at.epoch_micros(), id)));
    json(&places.collect::<Vec<_>>())
}

/// Reads one; nothing, if it is none.
pub(crate) fn cursor(place: &str) -> Option<Cursor> {
    let places: Vec<Option<(i64, String)>> = serde_json::from_str(place).ok()?;
    let key = |(micros, id): (i64, String)| {
        let at = DateTime::from_timestamp_micros(micros)?;
        Some((Moment::at(at), id.replace('\0', "")))
    };
    places.into_iter().map(|place| place.map_or(Some(None), |place| key(place).map(Some))).collect()
}

/// Acts on rows; answers on which, and what their users were told. One that the database refuses to have
/// written stops no other.
fn act<M, C>(
    conn: &mut C,
    now: Moment,
    bulk: &Bulk,
    ids: &[M::Id],
) -> QueryResult<(HashSet<String>, Vec<Sent>)>
where
    C: StoreConnection,
    M: Stored<C::Backend>,
{
    let mut together = |ids: &[M::Id]| {
        within(conn, |conn| match bulk.deed {
            Deed::Restart => restart::<M, C>(conn, now, ids),
            Deed::Cancel => cancel::<M, C>(conn, now, bulk, ids),
        })
    };
    match together(ids) {
        Err(error) if !is_broken(&error) => {}
        acted => return acted,
    }
    let (mut done, mut sent) = (HashSet::new(), Vec::new());
    for id in ids {
        match together(std::slice::from_ref(id)) {
            Ok((one, told)) => {
                done.extend(one);
                sent.extend(told);
            }
            Err(error) if is_broken(&error) => return Err(error),
            Err(error) => {
                let (model, deed) = (M::COLUMNS.name, bulk.deed.as_str());
                log::error!(model, row_id:% = id, error:% = error; "{model} {id} is left alone, its {deed} was refused: {error}");
            }
        }
    }
    Ok((done, sent))
}

fn restart<M, C>(
    conn: &mut C,
    now: Moment,
    ids: &[M::Id],
) -> QueryResult<(HashSet<String>, Vec<Sent>)>
where
    C: StoreConnection,
    M: Stored<C::Backend>,
{
    // Locked and looked at: each of them may be restarted.
    submit::restart::<M, C>(conn, ids, &When::given(now))?;
    Ok((ids.iter().map(ToString::to_string).collect(), Vec::new()))
}

fn cancel<M, C>(
    conn: &mut C,
    now: Moment,
    bulk: &Bulk,
    ids: &[M::Id],
) -> QueryResult<(HashSet<String>, Vec<Sent>)>
where
    C: StoreConnection,
    M: Stored<C::Backend>,
{
    let by = Some((bulk.who.as_str(), bulk.reason.as_str()));
    let (mut done, mut sent) = (HashSet::new(), Vec::new());
    for id in ids {
        let (canceled, told) = submit::cancel::<M, C>(conn, id.clone(), &When::given(now), by)?;
        if canceled.done() {
            done.insert(id.to_string());
        }
        sent.extend(told);
    }
    Ok((done, sent))
}

/// A bulk with the rows that it has left alone, as they stand now.
pub(crate) fn shown<M, C>(
    conn: &mut C,
    id: &str,
    now: Moment,
    alive: Duration,
) -> QueryResult<Option<(Bulk, Vec<Line>)>>
where
    C: StoreConnection,
    M: Stored<C::Backend>,
{
    let Some(bulk) = read(conn, M::COLUMNS.name, id)? else { return Ok(None) };
    let around = Around::of::<M, C>(conn, now, alive)?;
    let ids: Vec<M::Id> = bulk.left_rows.iter().filter_map(|id| id.parse().ok()).collect();
    let lines = explain::lines::<M, C>(conn, &ids, &around)?;
    Ok(Some((bulk, lines)))
}

/// What would be done.
#[derive(Clone, Debug)]
pub(crate) struct Preview {
    pub(crate) selection: Selection,
    pub(crate) now: DateTime<Utc>,
    pub(crate) groups: Vec<Group>,
    /// Up to [`Counts::MOST`](crate::Counts::MOST).
    pub(crate) rows: u32,
    /// These, if they are few enough to be named.
    pub(crate) named: Option<Vec<String>>,
}

/// Looks at what would be done: to the rows named, or to all of the selection.
pub(crate) fn preview<M, C>(
    conn: &mut C,
    selection: &Selection,
    named: Option<&[String]>,
    deed: Deed,
    now: Moment,
    alive: Duration,
) -> QueryResult<Preview>
where
    C: StoreConnection,
    M: Stored<C::Backend>,
{
    let around = Around::of::<M, C>(conn, now, alive)?;
    let named = match named {
        Some(named) => Some(named.to_vec()),
        None => {
            let (ids, on) = page::ids::<M, C>(conn, around.instants(), selection, None, BATCH)?;
            on.is_none().then_some(ids)
        }
    };
    let (groups, rows, named) = match named {
        Some(ids) => {
            let keys: Vec<M::Id> = ids.iter().filter_map(|id| id.parse().ok()).collect();
            let lines = explain::lines::<M, C>(conn, &keys, &around)?;
            let lines = lines
                .iter()
                .filter(|line| selection.state.has(&line.explanation) && deed.may(line));
            let lines: Vec<&Line> = lines.collect();
            let kept: Vec<String> = lines.iter().map(|line| line.id.clone()).collect();
            (group(&lines), count(kept.len()), Some(kept))
        }
        None => {
            let groups = page::groups::<M, C>(conn, around.instants(), selection)?;
            let rows = page::total(&groups);
            (groups, rows, None)
        }
    };
    Ok(Preview { selection: selection.clone(), now: now.zoned, groups, rows, named })
}

fn group(lines: &[&Line]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for line in lines {
        match groups.iter_mut().find(|group| group.code == line.code) {
            Some(group) => {
                group.rows += 1;
                group.oldest = group.oldest.min(line.submitted_at);
            }
            None => {
                groups.push(Group { code: line.code.clone(), rows: 1, oldest: line.submitted_at })
            }
        }
    }
    groups.sort_by(|a, b| (b.rows, &a.code).cmp(&(a.rows, &b.code)));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_kept_by_batches_of_ten_seconds_or_of_one_row() {
        assert_eq!(pace(0), (500, Duration::ZERO));
        assert_eq!(pace(1), (1, Duration::from_secs(60)));
        assert_eq!(pace(5), (1, Duration::from_secs(12)));
        assert_eq!(pace(60), (10, Duration::from_secs(10)));
        assert_eq!(pace(u32::MAX), (500, Duration::from_secs(10)));
    }

    #[test]
    fn a_place_in_a_list_is_told_and_read_back_and_no_other_text_is_one() {
        let at = Moment::at(DateTime::from_timestamp_micros(7).expect("an instant"));
        let known = vec![None, Some((at, "a \"b\"]".to_owned()))];
        assert_eq!(cursor(&place(&known)), Some(known));
        for text in ["", "7", "[[", "[[9223372036854775807,\"x\"]]", "{\"a\":1}"] {
            assert_eq!(cursor(text), None, "{text}");
        }
    }
}
