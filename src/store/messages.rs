//! Messages to the users of rows, each in the transaction that makes true what it says, and each but notes
//! once per row and submission (`asyncable_messages_once`).
//!
//! That a row is late is said by the settle of a failure, where it is late by then; rows that wait longer
//! without an attempt, in an outage or parked, are found by the sweep. Models without a `user` column have
//! none of this, and a happy row of the others costs no statement, or where one column is both
//! `submitted_at` and `last_submitted_at` one a batch. See `docs/protocol.md`, Messages.

use std::time::Duration;

use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    cell::Record,
    settle::Settle,
    statement::{Statement, Value, padded},
    submit::{FromStrOrNotFound, id_list},
};
use crate::{
    asyncable::{Asyncable, Stored},
    messages::{MessageKind, UserMessage},
    scope::Instants,
};

const DAY: Duration = Duration::from_secs(86_400);

/// How long after its last submission a row that is not done is late, and its user is told.
pub(crate) const LATE: Duration = DAY;

/// A message that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) id: String,
    pub(crate) kind: MessageKind,
    pub(crate) user: String,
}

fn read(kind: MessageKind) -> impl Fn(&Record) -> QueryResult<Sent> {
    move |row| Ok(Sent { id: row.text(0)?, kind, user: row.text(1)? })
}

/// Which submission a row's state is of.
pub(super) const SUBMISSION: &str = "COALESCE({utc S}, {utc L})";

/// Tells the users of rows that have failed again, and are late. The failures are recorded by now.
pub(crate) fn failing<M, C>(
    conn: &mut C,
    now: Moment,
    kept: &[&Settle<M::Id>],
) -> QueryResult<Vec<Sent>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let late = now.minus(LATE);
    let ids = kept.iter().filter(|item| item.hold.last_submitted_at <= late);
    let ids: Vec<M::Id> = ids.map(|item| item.hold.id.clone()).collect();
    if M::COLUMNS.user.is_none() || ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "INSERT INTO asyncable_messages (model, row_id, submitted_at, user_name, kind, at) \
         SELECT {{model}}, {{id text}}, {SUBMISSION}, {{user}}, 'failing', $now FROM {{m}} \
         WHERE {{id}} IN ($ids) AND {{L}} <= $late:L AND {{user}} <> '' \
         ON CONFLICT DO NOTHING RETURNING row_id, user_name"
    );
    let binds = vec![
        ("ids", id_list::<M, C::Backend>(&ids)),
        ("late", Value::Time(late)),
        ("now", Value::Time(now)),
    ];
    let sent = Statement::of::<M>(&sql, binds)?.load(conn)?;
    sent.iter().map(read(MessageKind::Failing)).collect()
}

/// Tells those who were told that their rows were late that they are done.
pub(crate) fn done<M, C>(
    conn: &mut C,
    now: Moment,
    kept: &[&Settle<M::Id>],
) -> QueryResult<Vec<Sent>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let late = now.minus(LATE);
    // Restarting a late row makes it a new one where one column is both instants; its message moves along.
    let told = |item: &&&Settle<M::Id>| {
        let asked = item.hold.submitted_at.unwrap_or(item.hold.last_submitted_at);
        M::COLUMNS.one_column() || asked <= late
    };
    let ids: Vec<_> = kept.iter().filter(told).map(|item| item.hold.id.to_string()).collect();
    if M::COLUMNS.user.is_none() || ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "INSERT INTO asyncable_messages (model, row_id, submitted_at, user_name, kind, at) \
         SELECT f.model, f.row_id, f.submitted_at, f.user_name, 'done', $now FROM asyncable_messages f \
         JOIN {{m}} ON {{id}} = {{id from f.row_id}} WHERE f.model = {{model}} AND f.row_id IN ($ids) \
         AND f.kind = 'failing' AND f.kind <> 'note' AND f.submitted_at = {SUBMISSION} \
         ON CONFLICT DO NOTHING RETURNING row_id, user_name"
    );
    let ids = padded(ids).into_iter().map(Value::Text).collect();
    let binds = vec![("ids", Value::List(ids)), ("now", Value::Time(now))];
    let sent = Statement::of::<M>(&sql, binds)?.load(conn)?;
    sent.iter().map(read(MessageKind::Done)).collect()
}

/// Tells the user of a row that it was given up, in the transaction that gave it up; `by` whom, and why.
pub(crate) fn canceled<M, C>(
    conn: &mut C,
    id: &M::Id,
    now: Value<C::Backend>,
    by: Option<(&str, &str)>,
) -> QueryResult<Option<Sent>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    send::<M, C>(conn, id, now, MessageKind::Canceled, by.unwrap_or_default())
}

/// Sends a note along to the row's user, in the transaction that keeps it.
#[cfg(feature = "dashboard")]
pub(crate) fn note<M, C>(
    conn: &mut C,
    id: &M::Id,
    now: Moment,
    who: &str,
    text: &str,
) -> QueryResult<Option<Sent>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    send::<M, C>(conn, id, Value::Time(now), MessageKind::Note, (who, text))
}

fn send<M, C>(
    conn: &mut C,
    id: &M::Id,
    now: Value<C::Backend>,
    kind: MessageKind,
    (who, text): (&str, &str),
) -> QueryResult<Option<Sent>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    if M::COLUMNS.user.is_none() {
        return Ok(None);
    }
    // A row that was never submitted has no submission to speak of: the note is of its first.
    let sql = format!(
        "INSERT INTO asyncable_messages (model, row_id, submitted_at, user_name, kind, at, who, note) \
         SELECT {{model}}, {{id text}}, COALESCE({SUBMISSION}, $now), {{user}}, $kind, $now, \
         NULLIF($who, ''), NULLIF($text, '') FROM {{m}} WHERE {{id}} = $id AND {{user}} <> '' \
         ON CONFLICT DO NOTHING RETURNING row_id, user_name"
    );
    let binds = vec![
        ("id", Value::Id(M::id_fragment(id))),
        ("kind", kind.as_str().into()),
        ("now", now),
        ("who", Value::Text(who.replace('\0', ""))),
        ("text", Value::Text(text.replace('\0', ""))),
    ];
    let sent = Statement::of::<M>(&sql, binds)?.first(conn)?;
    sent.as_ref().map(read(kind)).transpose()
}

/// A restart moves the row's `submitted_at` to `at` where one column is both instants: what was said of its
/// submission moves along. Before the row itself is written.
pub(crate) fn moved<M, C>(conn: &mut C, id: &M::Id, at: Moment) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    if M::COLUMNS.user.is_none() {
        return Ok(());
    }
    let sql = "UPDATE asyncable_messages SET submitted_at = $at WHERE model = {model} AND row_id = $row \
               AND kind <> 'note' AND submitted_at = (SELECT {utc S} FROM {m} WHERE {id} = $id)";
    let binds = vec![
        ("at", Value::Time(at)),
        ("row", Value::Text(id.to_string())),
        ("id", Value::Id(M::id_fragment(id))),
    ];
    Statement::of::<M>(sql, binds)?.execute(conn)?;
    Ok(())
}

/// How far the search for rows that are late has come: through rows never attempted, and through the
/// entries of those that failed. It begins anew now and then, since a row may come to wait behind it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Telling {
    began: Option<Moment>,
    rows: Option<Place>,
    entries: Option<(Moment, String)>,
    /// Whether the last sweep has come to the end of the rows.
    through: bool,
}

#[derive(Clone, Debug)]
enum Place {
    After(Moment),
    /// Among the rows submitted at this instant, which may be any number: after the one of this id.
    Among(Moment, Option<String>),
}

/// Rows looked at in one sweep at most, of each of the two.
const PAGE: usize = 500;

/// How long a round of the search lasts at least.
const ROUND: Duration = Duration::from_secs(3600);

/// Tells the users of rows that have become late without an attempt: those that wait for a service, are
/// parked or expired. A page of each sweep, from the day before the oldest window's end on: nobody is told
/// of what was given up long ago, when a host first has this.
pub(crate) fn late<M, C>(
    conn: &mut C,
    now: Moment,
    instants: &Instants,
    at: &mut Telling,
) -> QueryResult<Vec<Sent>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    if M::COLUMNS.user.is_none() {
        return Ok(Vec::new());
    }
    let late = now.minus(LATE);
    let first = instants.expiry.min(late).minus(DAY);
    if at.began.is_none_or(|began| began.plus(ROUND) <= now && at.through) {
        let (rows, entries) = (Some(Place::After(first)), Some((first, String::new())));
        *at = Telling { began: Some(now), rows, entries, through: false };
    }
    let mut ids = waiting::<M, C>(conn, late, &mut at.rows)?;
    at.through = matches!(at.rows, Some(Place::After(until)) if until >= late);
    ids.append(&mut failed::<M, C>(conn, late, &mut at.entries)?);
    let mut sent = Vec::new();
    for ids in ids.chunks(256) {
        sent.append(&mut tell_late::<M, C>(conn, now, late, ids)?);
    }
    Ok(sent)
}

/// The next rows never attempted that are late.
fn waiting<M, C>(conn: &mut C, late: Moment, at: &mut Option<Place>) -> QueryResult<Vec<M::Id>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let Some(place) = at.take() else { return Ok(Vec::new()) };
    let sql = match &place {
        Place::After(_) => format!(
            "SELECT {{L}}, {{id text}} FROM {{m}} WHERE {{open}} AND {{A}} IS NULL \
             AND {{L}} > $at:L AND {{L}} <= $late:L ORDER BY {{A}}, {{L}} LIMIT {more}",
            more = PAGE + 1
        ),
        Place::Among(_, id) => format!(
            "SELECT {{L}}, {{id text}} FROM {{m}} WHERE {{open}} AND {{A}} IS NULL \
             AND {{L}} = $at:L{after} ORDER BY {{id}} LIMIT {PAGE}",
            after = if id.is_some() { " AND {id} > $id" } else { "" }
        ),
    };
    let (Place::After(from) | Place::Among(from, _)) = place;
    let mut binds = vec![("at", Value::Time(from)), ("late", Value::Time(late))];
    if let Place::Among(_, Some(id)) = &place {
        let id = M::Id::from_str_or_not_found(id)?;
        binds.push(("id", Value::Id(M::id_fragment(&id))));
    }
    let mut rows = Vec::new();
    for row in Statement::of::<M>(&sql, binds)?.load(conn)? {
        // A spelling nobody can read has no place in the order.
        if let Some(last) = row.maybe_time(0).ok().flatten() {
            rows.push((last, row.text(1)?));
        }
    }
    let next = match (&place, rows.last().cloned()) {
        (Place::Among(..), Some((_, id))) if rows.len() == PAGE => Place::Among(from, Some(id)),
        (Place::Among(..), _) => Place::After(from),
        (Place::After(_), Some((last, _))) if rows.len() > PAGE => {
            // The rest of those submitted at the page's last instant is not on it.
            rows.retain(|row| row.0 < last);
            match rows.last() {
                Some(before) if before.0 > from => Place::After(before.0),
                Some(_) => Place::After(late), // an odd spelling sorts elsewhere than it reads
                None => Place::Among(last, None),
            }
        }
        (Place::After(_), _) => Place::After(from.max(late)),
    };
    *at = Some(next);
    Ok(rows.iter().filter_map(|(_, id)| M::Id::from_str_or_not_found(id).ok()).collect())
}

/// The next rows that have failed and are late.
fn failed<M, C>(
    conn: &mut C,
    late: Moment,
    at: &mut Option<(Moment, String)>,
) -> QueryResult<Vec<M::Id>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Asyncable,
{
    let Some((from, from_id)) = at.take() else { return Ok(Vec::new()) };
    let sql = format!(
        "SELECT last_submitted_at, row_id FROM asyncable_retries WHERE model = $model \
         AND (last_submitted_at, row_id) > ($from, $from_id) AND last_submitted_at <= $late \
         ORDER BY last_submitted_at, row_id LIMIT {PAGE}"
    );
    let binds = vec![
        ("model", M::COLUMNS.name.into()),
        ("from", Value::Time(from)),
        ("from_id", from_id.as_str().into()),
        ("late", Value::Time(late)),
    ];
    let rows = Statement::plain(&sql, binds)?.load(conn)?;
    let last = rows.last().map(|row| Ok::<_, diesel::result::Error>((row.time(0)?, row.text(1)?)));
    *at = Some(last.transpose()?.unwrap_or((from, from_id)));
    let id = |row: &Record| M::Id::from_str_or_not_found(&row.text(1).ok()?).ok();
    Ok(rows.iter().filter_map(id).collect())
}

/// Of these rows, tells the users of those that are late and wait, and have not been told.
fn tell_late<M, C>(conn: &mut C, now: Moment, late: Moment, ids: &[M::Id]) -> QueryResult<Vec<Sent>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    // Under the row's lock: a settle that says that it is done comes before, and then it is not open, or after,
    // and then sees this message.
    let sql = format!(
        "INSERT INTO asyncable_messages (model, row_id, submitted_at, user_name, kind, at) \
         SELECT {{model}}, l.row_id, l.submission, l.user_name, 'failing', $now FROM (\
         SELECT {{id text}} AS row_id, {SUBMISSION} AS submission, {{user}} AS user_name FROM {{m}} \
         WHERE {{id}} IN ($ids) AND {{open}} AND {{L}} <= $late:L AND {{user}} <> '' \
         AND ({{A}} IS NULL OR EXISTS (SELECT 1 FROM asyncable_retries r WHERE r.model = {{model}} \
         AND r.row_id = {{id text}} AND r.attempted_at = {{utc A}} AND r.last_submitted_at = {{utc L}})) \
         AND NOT EXISTS (SELECT 1 FROM asyncable_messages f WHERE f.model = {{model}} \
         AND f.row_id = {{id text}} AND f.submitted_at = {SUBMISSION} AND f.kind = 'failing' \
         AND f.kind <> 'note'){{of m skip locked}}) l WHERE true \
         ON CONFLICT DO NOTHING RETURNING row_id, user_name"
    );
    let binds = vec![
        ("ids", id_list::<M, C::Backend>(ids)),
        ("late", Value::Time(late)),
        ("now", Value::Time(now)),
    ];
    let sent = Statement::of::<M>(&sql, binds)?.load(conn)?;
    sent.iter().map(read(MessageKind::Failing)).collect()
}

const COLUMNS: &str = "id, model, row_id, submitted_at, user_name, kind, at, who, note, read_at";

/// A page of a user's messages, the newest first.
pub(crate) fn of_user<C>(
    conn: &mut C,
    user: &str,
    unread: bool,
    before: Option<(Moment, i64)>,
    limit: u32,
) -> QueryResult<Vec<UserMessage>>
where
    C: LoadConnection<Backend: Dialect>,
{
    if user.contains('\0') {
        return Ok(Vec::new()); // in no text of PostgreSQL's
    }
    let unread = if unread { " AND read_at IS NULL" } else { "" };
    let older = match before {
        Some(_) => " AND (at, id) < ($at, CAST($id AS BIGINT))",
        None => "",
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM asyncable_messages WHERE user_name = $user{unread}{older} \
         ORDER BY at DESC, id DESC LIMIT {limit}"
    );
    let mut binds = vec![("user", user.into())];
    if let Some((at, id)) = before {
        binds.extend([("at", Value::Time(at)), ("id", Value::Text(id.to_string()))]);
    }
    let message = |row: &Record| {
        Ok(UserMessage {
            id: row.int(0)?,
            model: row.text(1)?,
            row_id: row.text(2)?,
            // Copied from the row: what is no instant there is none here.
            submitted_at: row.maybe_time(3).ok().flatten().unwrap_or(row.time(6)?).zoned,
            user: row.text(4)?,
            // One that a later version has written says at least who and what about.
            kind: MessageKind::parse(&row.text(5)?).unwrap_or(MessageKind::Note),
            at: row.time(6)?.zoned,
            who: row.maybe_text(7)?,
            note: row.maybe_text(8)?,
            read_at: row.maybe_time(9)?.map(|at| at.zoned),
        })
    };
    Statement::plain(&sql, binds)?.load(conn)?.iter().map(message).collect()
}

/// Marks a message of this user's as read; answers whether there is one.
pub(crate) fn mark_read<C>(conn: &mut C, user: &str, id: i64, now: Moment) -> QueryResult<bool>
where
    C: LoadConnection<Backend: Dialect>,
{
    if user.contains('\0') {
        return Ok(false);
    }
    let sql = "UPDATE asyncable_messages SET read_at = COALESCE(read_at, $now) \
               WHERE id = CAST($id AS BIGINT) AND user_name = $user";
    let binds =
        vec![("now", Value::Time(now)), ("id", Value::Text(id.to_string())), ("user", user.into())];
    Ok(Statement::plain(sql, binds)?.execute(conn)? > 0)
}
