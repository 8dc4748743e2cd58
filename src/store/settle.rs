//! Settle: records what became of an attempt, if the attempt still holds the row.
//!
//! Every write is guarded by the row's token and by its being open: a stale holder changes nothing, and a
//! cancel wins. And an outcome counts only for the submission that the claim saw (`current` below): a
//! newer submission or a restart during the run wins over every outcome, also a failure, which must
//! neither delay nor park it; the row is then waiting again. See `docs/protocol.md`, Settle.

use std::{
    any::Any,
    collections::{HashMap, HashSet},
    sync::Mutex,
};

use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    claim::Hold,
    dialect::DialectParts,
    history,
    messages::{self, Sent},
    statement::{Statement, Value, padded},
    trouble::{is_broken, within},
};
use crate::{
    asyncable::{Asyncable, Stored},
    failure::Failure,
};

/// A write of the host's own, in the transaction that settles the row.
///
/// Behind a `Mutex` only so that the turn that carries it can be sent again when its commit failed.
pub(crate) type WhenDone = Mutex<Box<dyn FnMut(&mut dyn Any) -> QueryResult<()> + Send>>;

/// What became of an attempt.
pub(crate) enum Verdict {
    /// The row is processed. The writes are part of it: if one fails, the row is not processed.
    Done(Vec<WhenDone>),
    /// It failed and is due again, or parked.
    Failed(Failed),
    /// It is given back as if it had not been claimed.
    Release,
}

/// How an attempt failed, as the store keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    /// When the row is due again; `None`: it is parked.
    pub(crate) due_at: Option<Moment>,
    pub(crate) failure: Failure,
    /// Which attempt of its submission it was, from 1.
    pub(crate) attempt: u32,
    /// Whether it counts as a failure of the row.
    pub(crate) counted: bool,
    /// Attempts in a row, with this one, that ended their process or panicked.
    pub(crate) crashes: u32,
}

/// When an attempt ran, and how far it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) began: Moment,
    pub(crate) ended: Moment,
    /// The last step that was begun.
    pub(crate) step: Option<String>,
}

/// An attempt's outcome on its way to the store.
pub(crate) struct Settle<K> {
    pub(crate) hold: Hold<K>,
    pub(crate) verdict: Verdict,
    /// Nothing, for a row that was given back before it was begun or could not be read.
    pub(crate) ran: Option<Ran>,
}

/// What the store made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Recorded.
    Kept,
    /// A failure that the row itself takes no note of, for this reason: recorded in the library's tables.
    KeptBeside(String),
    /// A newer submission or a restart came during the attempt: the row is waiting again.
    Superseded,
    /// The lease was lost, or the row canceled: nothing was changed.
    Lost,
    /// Somebody's transaction holds the row; to be settled in a later turn.
    Locked,
    /// The row could not become processed, by a constraint or a failed write of the host's own: the
    /// attempt has failed, with this code and for this reason.
    NotDone(&'static str, String),
    /// The database refused this row's failure or release, alone among its turn's.
    Refused(String),
}

/// Settles outcomes, in the caller's write transaction; answers in their order. `sent`: takes the messages to
/// the rows' users.
///
/// `careful`: each on its own, after a first try has failed.
pub(crate) fn settle<M, C>(
    conn: &mut C,
    now: Moment,
    host: &str,
    items: &[Settle<M::Id>],
    careful: bool,
    sent: &mut Vec<Sent>,
) -> QueryResult<Vec<Settled>>
where
    C: LoadConnection<Backend: Dialect> + 'static,
    M: Stored<C::Backend>,
{
    let mut answers = vec![Settled::Lost; items.len()];
    let mut together: [Vec<usize>; 4] = Default::default();
    for (index, item) in items.iter().enumerate() {
        let group = match &item.verdict {
            Verdict::Done(writes) if writes.is_empty() => 0,
            Verdict::Failed(failed) if failed.due_at.is_some() => 1,
            Verdict::Failed(_) => 2,
            Verdict::Release => 3,
            // A write of the host's may fail, and takes only its own row with it.
            Verdict::Done(writes) => {
                answers[index] =
                    settle_with_writes::<M, C>(conn, now, host, item, writes, careful, sent)?;
                continue;
            }
        };
        if careful {
            answers[index] = settle_alone::<M, C>(conn, now, host, item, sent)?;
        } else {
            together[group].push(index);
        }
    }
    for group in together {
        for chunk in group.chunks(128) {
            let chunk_items: Vec<&Settle<M::Id>> = chunk.iter().map(|at| &items[*at]).collect();
            let settled = settle_alike::<M, C>(conn, now, host, &chunk_items, sent)?;
            for (at, answer) in chunk.iter().zip(settled) {
                answers[*at] = answer;
            }
        }
    }
    Ok(answers)
}

fn settle_with_writes<M, C>(
    conn: &mut C,
    now: Moment,
    host: &str,
    item: &Settle<M::Id>,
    writes: &[WhenDone],
    careful: bool,
    sent: &mut Vec<Sent>,
) -> QueryResult<Settled>
where
    C: LoadConnection<Backend: Dialect> + 'static,
    M: Stored<C::Backend>,
{
    enum Undo {
        Write(diesel::result::Error),
        Panicked,
        Own(diesel::result::Error),
    }
    impl From<diesel::result::Error> for Undo {
        fn from(error: diesel::result::Error) -> Self {
            Undo::Own(error)
        }
    }
    let done = Settle {
        hold: item.hold.clone(),
        verdict: Verdict::Done(Vec::new()),
        ran: item.ran.clone(),
    };
    let before = sent.len();
    let settled = within(conn, |conn| {
        let settled = settle_alike::<M, C>(conn, now, host, &[&done], sent)?;
        let settled = settled.into_iter().next().unwrap_or(Settled::Lost);
        if settled == Settled::Kept {
            for write in writes {
                // Poisoned: it panicked when this turn was taken before (see `store::actor`).
                let mut write = write.lock().map_err(|_| Undo::Panicked)?;
                write(conn).map_err(Undo::Write)?;
            }
        }
        Ok(settled)
    });
    if settled.is_err() {
        sent.truncate(before);
    }
    match settled {
        Ok(settled) => Ok(settled),
        Err(Undo::Write(error)) if !is_broken(&error) => {
            Ok(Settled::NotDone("when_done", error.to_string()))
        }
        Err(Undo::Panicked) => {
            Ok(Settled::NotDone("when_done", "the host's code panicked".to_owned()))
        }
        Err(Undo::Own(error)) if careful && !is_broken(&error) => {
            Ok(Settled::NotDone(REFUSED, error.to_string()))
        }
        Err(Undo::Write(error) | Undo::Own(error)) => Err(error),
    }
}

/// The code of an attempt that succeeded, and whose row the host's constraints keep from being processed.
const REFUSED: &str = "refused";

/// One outcome in a savepoint: if the database refuses it, then its shortened form.
fn settle_alone<M, C>(
    conn: &mut C,
    now: Moment,
    host: &str,
    item: &Settle<M::Id>,
    sent: &mut Vec<Sent>,
) -> QueryResult<Settled>
where
    C: LoadConnection<Backend: Dialect> + 'static,
    M: Stored<C::Backend>,
{
    let alone = |conn: &mut C, item: &Settle<M::Id>, sent: &mut Vec<Sent>| {
        let before = sent.len();
        let settled = within(conn, |conn| settle_alike::<M, C>(conn, now, host, &[item], sent));
        if settled.is_err() {
            sent.truncate(before);
        }
        settled
    };
    let settled = alone(conn, item, sent);
    let refused = match settled {
        Ok(settled) => return Ok(settled.into_iter().next().unwrap_or(Settled::Lost)),
        Err(error) if is_broken(&error) => return Err(error),
        Err(error) => error,
    };
    // Often the host's column is shorter than the text, or a check forbids it.
    if let Verdict::Failed(failed) = &item.verdict {
        let short = Failed { failure: failed.failure.clone().shortened(), ..failed.clone() };
        let short = Settle {
            hold: item.hold.clone(),
            verdict: Verdict::Failed(short),
            ran: item.ran.clone(),
        };
        let settled = alone(conn, &short, sent);
        match settled {
            Ok(settled) => return Ok(settled.into_iter().next().unwrap_or(Settled::Lost)),
            Err(error) if is_broken(&error) => return Err(error),
            Err(_) => {}
        }
        // The row takes no error at all. It must wait, be counted and expire like any other that fails.
        if within(conn, |conn| settle_beside::<M, C>(conn, now, host, &short))? {
            return Ok(Settled::KeptBeside(refused.to_string()));
        }
    }
    Ok(match &item.verdict {
        // Recorded as a failure it is seen and counted, and expires like one.
        Verdict::Done(_) => Settled::NotDone(REFUSED, refused.to_string()),
        _ => Settled::Refused(refused.to_string()),
    })
}

/// Records a failure in the library's own tables alone; false if the attempt no longer holds the row, or not
/// for the submission that its claim saw.
fn settle_beside<M, C>(
    conn: &mut C,
    now: Moment,
    host: &str,
    item: &Settle<M::Id>,
) -> QueryResult<bool>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let sql = "SELECT {id text} FROM {m} WHERE {id} = $id AND {A} = $token:A AND {spelled L} = $seen \
               AND {open by key}{of m skip locked}";
    let binds = vec![
        ("id", Value::Id(M::id_fragment(&item.hold.id))),
        ("token", Value::Time(item.hold.token)),
        ("seen", item.hold.seen.as_str().into()),
    ];
    if Statement::of::<M>(sql, binds)?.first(conn)?.is_none() {
        return Ok(false);
    }
    let due = matches!(&item.verdict, Verdict::Failed(failed) if failed.due_at.is_some());
    remember::<M, C>(conn, now, due, &[item])?;
    history::append::<M, C>(conn, now, host, &[item], &HashSet::new())?;
    Ok(true)
}

/// The rows of `$rows` that the attempt still holds and nobody else is writing. Looked up by their keys: a
/// batch shares its token, so that by the token each row would cost as many as the batch has.
const MINE: &str = "mine AS MATERIALIZED (SELECT {id} AS id, s.* FROM s JOIN {m} ON {id} = s.row \
     WHERE {plain A} = s.token AND {open by key}{of m skip locked})";

const CURRENT: &str = "CASE WHEN {spelled L} = mine.seen THEN";

/// Settles outcomes of one kind.
fn settle_alike<M, C>(
    conn: &mut C,
    now: Moment,
    host: &str,
    items: &[&Settle<M::Id>],
    sent: &mut Vec<Sent>,
) -> QueryResult<Vec<Settled>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let Some(first) = items.first() else { return Ok(Vec::new()) };
    let sql = match &first.verdict {
        Verdict::Done(_) => format!(
            "WITH s(row, token, seen, error) AS (VALUES $rows), {MINE} UPDATE {{m}} SET \
             {{=P}} = {CURRENT} $now:P END, {{=A}} = {CURRENT} {{A}} END, {{=E}} = NULL \
             FROM mine WHERE {{id}} = mine.id RETURNING {{id text}}, {{A}}"
        ),
        Verdict::Failed(_) => format!(
            "WITH s(row, token, seen, error) AS (VALUES $rows), {MINE} UPDATE {{m}} SET \
             {{=E}} = {CURRENT} mine.error ELSE {{E}} END, {{=A}} = {CURRENT} {{A}} END \
             FROM mine WHERE {{id}} = mine.id RETURNING {{id text}}, {{A}}"
        ),
        Verdict::Release => format!(
            "WITH s(row, token, seen, error) AS (VALUES $rows), {MINE} UPDATE {{m}} SET {{=A}} = NULL \
             FROM mine WHERE {{id}} = mine.id RETURNING {{id text}}, {{A}}"
        ),
    };
    let rows = padded(items.to_vec()).into_iter().map(|item| {
        let error = match &item.verdict {
            Verdict::Failed(failed) => failed.failure.error_text(),
            _ => String::new(),
        };
        vec![
            Value::Id(M::id_fragment(&item.hold.id)),
            Value::Time(item.hold.token),
            item.hold.seen.as_str().into(),
            Value::Text(error),
        ]
    });
    let rows = Value::Rows(&["", "A", "", ""], rows.collect());
    let binds = vec![("rows", rows), ("now", Value::Time(now))];
    let mut settled = HashMap::new();
    for row in Statement::of::<M>(&sql, binds)?.load(conn)? {
        settled.insert(row.text(0)?, row.maybe_time(1)?);
    }
    let released = matches!(first.verdict, Verdict::Release);
    let answer = |item: &Settle<M::Id>| match settled.get(&item.hold.id.to_string()) {
        Some(None) if released => Settled::Kept,
        Some(None) => Settled::Superseded,
        // A host may still have an attempt that has lost its row beside the one that holds it.
        Some(Some(token)) if *token == item.hold.token => Settled::Kept,
        Some(Some(_)) | None => Settled::Lost,
    };
    let mut answers: Vec<Settled> = items.iter().map(|item| answer(item)).collect();
    let kept = items.iter().zip(&answers).filter(|(_, answer)| **answer == Settled::Kept);
    let kept: Vec<&Settle<M::Id>> = kept.map(|(item, _)| *item).collect();
    let thought_lost = match &first.verdict {
        Verdict::Done(_) => {
            sent.append(&mut messages::done::<M, C>(conn, now, &kept)?);
            forget::<M, C>(conn, &kept)?
        }
        Verdict::Failed(failed) => {
            remember::<M, C>(conn, now, failed.due_at.is_some(), &kept)?;
            sent.append(&mut messages::failing::<M, C>(conn, now, &kept)?);
            HashSet::new()
        }
        Verdict::Release => HashSet::new(),
    };
    history::append::<M, C>(conn, now, host, &kept, &thought_lost)?;
    if C::Backend::CONCURRENT_CLAIMS && answers.contains(&Settled::Lost) {
        locked::<M, C>(conn, items, &mut answers)?;
    }
    Ok(answers)
}

/// Of the outcomes not recorded, those whose rows are only locked.
fn locked<M, C>(conn: &mut C, items: &[&Settle<M::Id>], answers: &mut [Settled]) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let rest = items.iter().zip(&*answers).filter(|(_, answer)| **answer == Settled::Lost);
    let rest: Vec<_> = padded(rest.map(|(item, _)| item).collect());
    let rows = rest
        .into_iter()
        .map(|item| vec![Value::Id(M::id_fragment(&item.hold.id)), Value::Time(item.hold.token)]);
    let rows = Value::Rows(&["", "A"], rows.collect());
    let sql = "WITH s(row, token) AS (VALUES $rows) SELECT {id text} FROM s JOIN {m} ON {id} = s.row \
               WHERE {A} = s.token AND {open}";
    let rows = Statement::of::<M>(sql, vec![("rows", rows)])?.load(conn)?;
    let locked: QueryResult<HashSet<String>> = rows.iter().map(|row| row.text(0)).collect();
    let locked = locked?;
    for (item, answer) in items.iter().zip(answers) {
        if *answer == Settled::Lost && locked.contains(&item.hold.id.to_string()) {
            *answer = Settled::Locked;
        }
    }
    Ok(())
}

/// A processed row has no failures to remember. Answers the rows whose attempt itself was thought lost, by a
/// rescue that came before its outcome.
fn forget<M, C>(conn: &mut C, kept: &[&Settle<M::Id>]) -> QueryResult<HashSet<String>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Asyncable,
{
    if kept.is_empty() {
        return Ok(HashSet::new());
    }
    let ids = padded(kept.to_vec());
    let ids = ids.iter().map(|item| Value::Text(item.hold.id.to_string())).collect();
    let sql = "DELETE FROM asyncable_retries WHERE model = $model AND row_id IN ($ids) \
               RETURNING row_id, attempted_at";
    let binds = vec![("model", M::COLUMNS.name.into()), ("ids", Value::List(ids))];
    let rows = Statement::plain(sql, binds)?.load(conn)?;
    let forgotten: QueryResult<HashSet<(String, Moment)>> =
        rows.iter().map(|row| Ok((row.text(0)?, row.time(1)?))).collect();
    let forgotten = forgotten?;
    let of = |item: &&Settle<M::Id>| (item.hold.id.to_string(), item.hold.token);
    let lost = kept.iter().map(of).filter(|of| forgotten.contains(of));
    Ok(lost.map(|(id, _)| id).collect())
}

/// Remembers failures, in the form that the claim looks for. The row's instants are copied in SQL, never
/// through Rust: an odd spelling in SQLite stays equal to itself.
fn remember<M, C>(conn: &mut C, now: Moment, due: bool, kept: &[&Settle<M::Id>]) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    if kept.is_empty() {
        return Ok(());
    }
    // A parked row's entry has no instant; in a VALUES of nothing but NULLs PostgreSQL sees no type.
    let due_at = if due { "v.due_at" } else { "NULL" };
    let sql = format!(
        "WITH v(row, due_at, kind, code, place, counted, crashes) AS (VALUES $rows), \
         d AS (SELECT DISTINCT * FROM v) \
         INSERT INTO asyncable_retries (model, row_id, attempted_at, last_submitted_at, submitted_at, \
         due_at, kind, failures, code, place, crashes, first_failed_at, last_failed_at) \
         SELECT {{model}}, {{id text}}, {{utc A}}, {{utc L}}, {{utc S}}, {due_at}, v.kind, \
         CAST(v.counted AS INTEGER), v.code, NULLIF(v.place, ''), CAST(v.crashes AS INTEGER), $now, $now FROM d AS v JOIN {{m}} ON {{id}} = v.row WHERE true {UPSERT}"
    );
    let rows = padded(kept.to_vec()).into_iter().filter_map(|item| match &item.verdict {
        Verdict::Failed(failed) => Some(vec![
            Value::Id(M::id_fragment(&item.hold.id)),
            Value::Time(failed.due_at.unwrap_or(now)),
            failed.failure.kind().stored().into(),
            Value::Text(failed.failure.stored_code()),
            Value::Text(failed.failure.place()),
            u32::from(failed.counted).to_string().as_str().into(),
            failed.crashes.to_string().as_str().into(),
        ]),
        _ => None,
    });
    let binds = vec![("rows", Value::Rows(&[], rows.collect())), ("now", Value::Time(now))];
    Statement::of::<M>(&sql, binds)?.execute(conn)?;
    Ok(())
}

/// The last WHERE makes an outcome sent twice harmless (the answer to its commit was lost), and lets the
/// true outcome replace the `lost` of a rescue that came between: then it is the same failure, counted
/// once.
const UPSERT: &str = "ON CONFLICT (model, row_id) DO UPDATE SET \
     attempted_at = excluded.attempted_at, last_submitted_at = excluded.last_submitted_at, \
     submitted_at = excluded.submitted_at, due_at = excluded.due_at, kind = excluded.kind, \
     failures = CASE WHEN asyncable_retries.submitted_at = excluded.submitted_at THEN \
     asyncable_retries.failures + CASE WHEN asyncable_retries.attempted_at = excluded.attempted_at \
     THEN 0 ELSE excluded.failures END ELSE excluded.failures END, \
     code = excluded.code, place = excluded.place, crashes = excluded.crashes, \
     warned = CASE WHEN asyncable_retries.submitted_at = excluded.submitted_at \
     THEN asyncable_retries.warned ELSE 0 END, \
     first_failed_at = CASE WHEN asyncable_retries.submitted_at = excluded.submitted_at \
     AND asyncable_retries.failures > 0 \
     THEN asyncable_retries.first_failed_at ELSE excluded.first_failed_at END, \
     last_failed_at = excluded.last_failed_at \
     WHERE asyncable_retries.attempted_at <> excluded.attempted_at OR asyncable_retries.kind = 'lost'";

/// Ends batches of which no row is held any more: in the transaction that settled the last.
pub(crate) fn end_batches<M, C>(conn: &mut C, host: &str, tokens: &[Moment]) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
    M: Asyncable,
{
    for chunk in tokens.chunks(128) {
        let tokens = padded(chunk.to_vec()).into_iter().map(Value::Time).collect();
        let sql = "UPDATE asyncable_claims SET expires_at = NULL WHERE model = $model \
                   AND host = $host AND claimed_at IN ($tokens)";
        let binds = vec![
            ("model", M::COLUMNS.name.into()),
            ("host", host.into()),
            ("tokens", Value::List(tokens)),
        ];
        Statement::plain(sql, binds)?.execute(conn)?;
    }
    Ok(())
}
