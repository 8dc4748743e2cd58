//! Steps: that one is started, and what it came to. See `docs/protocol.md`, Steps.
//!
//! A start is guarded by the row's token and by the submission that the claim saw: an attempt that has
//! lost its row starts nothing. A result is a fact about the step's key, not a right, and is recorded
//! without a guard: a worker that lost its lease but got its answer spares its successor the call.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    claim::Hold,
    dialect::DialectParts,
    statement::{Statement, Value, padded},
    trouble::{is_broken, within},
};
use crate::asyncable::{Asyncable, Stored};

/// What an attempt asks the store to record of its steps.
#[derive(Clone, Debug)]
pub(crate) enum StepWork<K> {
    Begin {
        hold: Hold<K>,
        name: String,
        key: String,
    },
    /// After `find` has said that there is nothing.
    Again {
        hold: Hold<K>,
        key: String,
    },
    Result {
        key: String,
        json: String,
    },
    /// The call has been answered: it can be asked about at once.
    Answered {
        key: String,
    },
}

/// A step that the attempt may go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// As it was recorded at the first start.
    pub(crate) key: String,
    /// Its call may be under way until then.
    pub(crate) find_after: Moment,
    pub(crate) known: Known,
}

/// What is known of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    New,
    /// Started before, and not known to have ended.
    Started,
    /// Its JSON.
    Result(String),
}

/// What the store made of a [`StepWork`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StepAnswer {
    Begun(Begun),
    /// A call may still be under way until then.
    Early(Moment),
    /// The attempt no longer holds its row.
    Lost,
    /// Somebody's transaction holds the row; to be recorded in a later turn.
    Locked,
    Kept,
    /// The database refused it, alone among its turn's.
    Refused(String),
}

/// Records steps in the caller's write transaction; answers in their order. `careful`: each on its own,
/// after a first try has failed.
pub(crate) fn record<M, C>(
    conn: &mut C,
    now: Moment,
    settles_within: Duration,
    works: &[&StepWork<M::Id>],
    careful: bool,
) -> QueryResult<Vec<StepAnswer>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    if !careful {
        return together::<M, C>(conn, now, settles_within, works);
    }
    let alone = |work: &&StepWork<M::Id>| {
        let one = std::slice::from_ref(work);
        let done = within(conn, |conn| together::<M, C>(conn, now, settles_within, one));
        match done {
            Ok(answers) => Ok(answers.into_iter().next().unwrap_or(StepAnswer::Lost)),
            Err(error) if is_broken(&error) => Err(error),
            Err(error) => Ok(StepAnswer::Refused(error.to_string())),
        }
    };
    works.iter().map(alone).collect()
}

fn together<M, C>(
    conn: &mut C,
    now: Moment,
    settles_within: Duration,
    works: &[&StepWork<M::Id>],
) -> QueryResult<Vec<StepAnswer>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    // What ended comes first: a start in the same turn may be of the same step.
    let ended = works.iter().filter_map(|work| match work {
        StepWork::Result { key, json } => Some((key.as_str(), Some(json.as_str()))),
        StepWork::Answered { key } => Some((key.as_str(), None)),
        _ => None,
    });
    end::<C>(conn, now, &ended.collect::<Vec<_>>())?;
    let begins = works.iter().filter_map(|work| match work {
        StepWork::Begin { hold, name, key } => Some((hold, name.as_str(), key.as_str())),
        _ => None,
    });
    let begins: Vec<_> = begins.collect();
    let until = now.plus(settles_within);
    let begun = begin::<M, C>(conn, until, &begins)?;
    let agains = works.iter().filter_map(|work| match work {
        StepWork::Again { hold, key } => Some((hold, key.as_str())),
        _ => None,
    });
    let agains: Vec<_> = agains.collect();
    let again = again::<M, C>(conn, until, &agains)?;
    let missing_begins =
        begins.iter().filter(|(hold, name, _)| !begun.contains_key(&of(hold, name)));
    let missing_agains =
        agains.iter().filter(|(hold, key)| !again.contains(&((*key).to_owned(), hold.token)));
    let missing =
        missing_begins.map(|(hold, ..)| *hold).chain(missing_agains.map(|(hold, _)| *hold));
    let locked = locked::<M, C>(conn, missing.collect())?;
    let lost = |hold: &Hold<M::Id>| match locked.contains(&hold.id.to_string()) {
        true => StepAnswer::Locked,
        false => StepAnswer::Lost,
    };
    let answer = |work: &&StepWork<M::Id>| match work {
        StepWork::Begin { hold, name, .. } => match begun.get(&of(hold, name)) {
            None => lost(hold),
            Some(begun) if begun.known == Known::Started && begun.find_after > now => {
                StepAnswer::Early(begun.find_after)
            }
            Some(begun) => StepAnswer::Begun(begun.clone()),
        },
        StepWork::Again { hold, key } if again.contains(&(key.clone(), hold.token)) => {
            StepAnswer::Begun(Begun { key: key.clone(), find_after: until, known: Known::Started })
        }
        StepWork::Again { hold, .. } => lost(hold),
        StepWork::Result { .. } | StepWork::Answered { .. } => StepAnswer::Kept,
    };
    Ok(works.iter().map(answer).collect())
}

/// The rows that the attempts still hold, for the submissions that their claims saw. Locked until the
/// transaction ends, so that nothing starts after a cancel, restart or submission has committed.
const MINE: &str = "JOIN {m} ON {id} = s.row WHERE {plain A} = s.token AND {spelled L} = s.seen \
     AND {open by key}";

/// Of the attempts that could not start a step, the rows that they hold and somebody has locked.
fn locked<M, C>(conn: &mut C, holds: Vec<&Hold<M::Id>>) -> QueryResult<HashSet<String>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    if holds.is_empty() || !C::Backend::CONCURRENT_CLAIMS {
        return Ok(HashSet::new());
    }
    let sql =
        format!("WITH s(row, token, seen) AS (VALUES $rows) SELECT {{id text}} FROM s {MINE}");
    let rows = padded(holds).into_iter().map(|hold| {
        let id = Value::Id(M::id_fragment(&hold.id));
        vec![id, Value::Time(hold.token), hold.seen.as_str().into()]
    });
    let binds = vec![("rows", Value::Rows(&["", "A"], rows.collect()))];
    Statement::of::<M>(&sql, binds)?.load(conn)?.iter().map(|row| row.text(0)).collect()
}

/// A row, a token of it, and a step's name. The token, since a host may still have an attempt that has
/// lost its row beside the one that holds it.
type Of = (String, Moment, String);

fn of<K: ToString>(hold: &Hold<K>, name: &str) -> Of {
    (hold.id.to_string(), hold.token, name.to_owned())
}

/// Starts steps, or answers what is known of them.
fn begin<M, C>(
    conn: &mut C,
    until: Moment,
    begins: &[(&Hold<M::Id>, &str, &str)],
) -> QueryResult<HashMap<Of, Begun>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let mut begun = HashMap::new();
    // A start that is sent again, since the answer to its commit was lost, is the same start.
    let sql = format!(
        "WITH s(row, token, seen, name, key, generation) AS (VALUES $rows), \
         mine AS MATERIALIZED (SELECT {{id text}} AS row_id, s.name, s.key, s.generation, \
         {{utc A}} AS attempted_at FROM s {MINE}{{share of m skip locked}}), \
         d AS (SELECT DISTINCT row_id, name, key, generation, attempted_at FROM mine) \
         INSERT INTO asyncable_steps \
         (model, row_id, generation, name, key, attempted_at, tries, find_after) \
         SELECT {{model}}, row_id, CAST(generation AS BIGINT), name, key, attempted_at, 1, $until \
         FROM d WHERE true ON CONFLICT (model, row_id, generation, name) DO UPDATE SET \
         tries = asyncable_steps.tries + \
         CASE WHEN asyncable_steps.attempted_at = excluded.attempted_at THEN 0 ELSE 1 END, \
         attempted_at = excluded.attempted_at \
         RETURNING row_id, name, key, tries, find_after, result, attempted_at"
    );
    for chunk in begins.chunks(128) {
        let rows = padded(chunk.to_vec()).into_iter().map(|(hold, name, key)| {
            vec![
                Value::Id(M::id_fragment(&hold.id)),
                Value::Time(hold.token),
                hold.seen.as_str().into(),
                name.into(),
                key.into(),
                Value::Text(hold.generation().to_string()),
            ]
        });
        let rows = Value::Rows(&["", "A"], rows.collect());
        let binds = vec![("rows", rows), ("until", Value::Time(until))];
        for row in Statement::of::<M>(&sql, binds)?.load(conn)? {
            let known = match row.maybe_text(5)? {
                Some(json) => Known::Result(json),
                None if row.int(3)? > 1 => Known::Started,
                None => Known::New,
            };
            let step = Begun { key: row.text(2)?, find_after: row.time(4)?, known };
            begun.insert((row.text(0)?, row.time(6)?, row.text(1)?), step);
        }
    }
    Ok(begun)
}

/// Starts calls once more; answers the keys of those whose attempts still hold their rows, with their
/// tokens.
fn again<M, C>(
    conn: &mut C,
    until: Moment,
    agains: &[(&Hold<M::Id>, &str)],
) -> QueryResult<HashSet<(String, Moment)>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let mut started = HashSet::new();
    let sql = format!(
        "WITH s(row, token, seen, key) AS (VALUES $rows), \
         mine AS MATERIALIZED (SELECT s.key FROM s {MINE}{{share of m skip locked}}) \
         UPDATE asyncable_steps SET find_after = $until WHERE key IN (SELECT key FROM mine) \
         RETURNING key, attempted_at"
    );
    for chunk in agains.chunks(128) {
        let rows = padded(chunk.to_vec()).into_iter().map(|(hold, key)| {
            let id = Value::Id(M::id_fragment(&hold.id));
            vec![id, Value::Time(hold.token), hold.seen.as_str().into(), key.into()]
        });
        let rows = Value::Rows(&["", "A"], rows.collect());
        let binds = vec![("rows", rows), ("until", Value::Time(until))];
        for row in Statement::of::<M>(&sql, binds)?.load(conn)? {
            started.insert((row.text(0)?, row.time(1)?));
        }
    }
    Ok(started)
}

/// Records results, and answers without one; the first result of a key stands.
fn end<C>(conn: &mut C, now: Moment, ended: &[(&str, Option<&str>)]) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "WITH v(key, result) AS (VALUES $rows) \
         UPDATE asyncable_steps SET result = NULLIF(v.result, ''), \
         find_after = CASE WHEN v.result = '' THEN $now ELSE asyncable_steps.find_after END \
         FROM v WHERE asyncable_steps.key = v.key AND asyncable_steps.result IS NULL";
    for chunk in ended.chunks(128) {
        let rows = padded(chunk.to_vec()).into_iter();
        // No JSON is empty.
        let rows = rows.map(|(key, json)| vec![key.into(), json.unwrap_or("").into()]);
        let binds = vec![("rows", Value::Rows(&[], rows.collect())), ("now", Value::Time(now))];
        Statement::plain(sql, binds)?.execute(conn)?;
    }
    Ok(())
}

/// A restart on a table whose one column is both instants moves the generation: the steps go with it,
/// and keep their keys. They are of that submission also for pruning, which looks whether they were begun
/// after it; nothing waits longer for it, since the row is not due before then.
pub(crate) fn move_steps<M, C>(
    conn: &mut C,
    row_id: &str,
    from: Moment,
    to: Moment,
) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
    M: Asyncable,
{
    let sql = "UPDATE asyncable_steps SET generation = CAST($to AS BIGINT), \
               find_after = CASE WHEN find_after < $at THEN $at ELSE find_after END \
               WHERE model = $model AND row_id = $row_id AND generation = CAST($from AS BIGINT)";
    let binds = vec![
        ("at", Value::Time(to)),
        ("to", Value::Text(to.epoch_micros().to_string())),
        ("model", M::COLUMNS.name.into()),
        ("row_id", row_id.into()),
        ("from", Value::Text(from.epoch_micros().to_string())),
    ];
    Statement::plain(sql, binds)?.execute(conn)?;
    Ok(())
}
