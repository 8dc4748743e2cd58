//! The turn: everything a processor has for the database, in one transaction.
//!
//! A processor has at most one turn in flight. Whatever arrives meanwhile joins the next one: that is the
//! group commit. A turn whose commit failed is sent again with the same outcomes, steps and findings, so each
//! of them bears being recorded twice. See `docs/protocol.md`, The turn.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment, StoreConnection,
    actions::{self, Action},
    buckets::{self, Tally},
    claim::{Age, Claiming, Claims, OrphanCursor, claim, claim_orphans},
    counts::{self, Counts},
    dialect::DialectParts,
    service::{self, News, Permit, ServiceWork},
    settle::{Settle, Settled, end_batches, settle},
    step::{self, StepAnswer, StepWork},
    submit::{self, Canceled, Restarted, When},
    trouble::{is_broken, within},
};
use crate::{Explanation, Status, asyncable::Stored, scope::Instants, service::Service};

/// When a submitted row is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Now,
    At(DateTime<Utc>),
    After(Duration),
}

impl Due {
    fn when(self, now: Moment) -> When {
        match self {
            Due::Now => When::given(now),
            Due::At(at) => When::given(now).due_at(at),
            Due::After(delay) => When::given(now).due_at(now.plus(delay).zoned),
        }
    }
}

/// What somebody asks for a row or rows.
#[derive(Clone, Debug)]
pub(crate) enum Request<K> {
    Submit { ids: Vec<K>, due: Due },
    Restart { ids: Vec<K>, by: Option<By> },
    Cancel { id: K, by: Option<By> },
}

/// Who asks for it, and why: kept with what was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct By {
    pub(crate) who: String,
    pub(crate) reason: String,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Ids that name no row.
    Submitted {
        not_found: Vec<String>,
    },
    Restarted(Restarted),
    Canceled(Canceled),
    NotFound,
    /// The database refused it, alone among its turn's.
    Refused(String),
}

/// What somebody asks about a row or rows: read beside the turns.
#[derive(Clone, Debug)]
pub(crate) enum Question<K> {
    Status(K),
    /// `alive`: how long ago a process may have been heard of that is still alive.
    Explain {
        id: K,
        alive: Duration,
    },
    Counts,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    /// Nothing, if there is no such row.
    Status(Option<Status>),
    /// As above.
    Explained(Option<Explanation>),
    Counts(Counts),
}

/// See the module.
pub(crate) struct Turn<K> {
    /// With the ticket of whoever waits for the answer.
    pub(crate) requests: Vec<(u64, Request<K>)>,
    /// What running attempts have recorded of their steps, with the tickets of those who wait for it.
    /// Shared, as `settle` is, with the pump, which sends it again if this turn fails.
    pub(crate) steps: Arc<Vec<(u64, StepWork<K>)>>,
    pub(crate) settles_within: Duration,
    /// What attempts have found out about services.
    pub(crate) services: Arc<Vec<ServiceWork>>,
    /// Outages that are over and whose rows become due, with their beginning and end.
    pub(crate) release: Vec<(Moment, Moment)>,
    pub(crate) settle: Arc<Vec<Settle<K>>>,
    /// Batches of which this turn settles the last rows.
    pub(crate) ends: Vec<Moment>,
    pub(crate) claim: Option<(usize, bool)>,
    /// Rows, by id, that no claim is to try.
    pub(crate) shunned: Arc<[String]>,
    /// What the model's processor calls.
    pub(crate) calls: Arc<[Service]>,
}

/// What a turn did.
#[derive(Debug)]
pub(crate) struct Turned<K, R> {
    pub(crate) answers: Vec<(u64, Answer)>,
    /// In the order of the turn's.
    pub(crate) steps: Vec<StepAnswer>,
    /// In the order of the turn's outcomes.
    pub(crate) settled: Vec<Settled>,
    pub(crate) news: Vec<News>,
    /// Rows of the model that wait, if there are news.
    pub(crate) waiting: u32,
    /// Rows that became due, in the order of the turn's outages.
    pub(crate) released: Vec<usize>,
    pub(crate) claims: Claims<K, R>,
}

/// Takes a turn. If a statement is refused, once more with each request and outcome on its own, so that
/// one bad row does not stop the others.
pub(crate) fn take<M, C>(
    conn: &mut C,
    now: Moment,
    expires_at: Moment,
    host: &Arc<str>,
    turn: &Turn<M::Id>,
) -> QueryResult<Turned<M::Id, M>>
where
    C: StoreConnection,
    M: Stored<C::Backend>,
{
    let all = |conn: &mut C, careful: bool| {
        conn.write(|conn| transact::<M, C>(conn, now, expires_at, host, turn, careful))
    };
    match all(conn, false) {
        Err(error) if !is_broken(&error) => all(conn, true),
        taken => taken,
    }
}

fn transact<M, C>(
    conn: &mut C,
    now: Moment,
    expires_at: Moment,
    host: &Arc<str>,
    turn: &Turn<M::Id>,
    careful: bool,
) -> QueryResult<Turned<M::Id, M>>
where
    C: StoreConnection,
    M: Stored<C::Backend>,
{
    let mut answers = Vec::with_capacity(turn.requests.len());
    // Requests keep their order; a run of plain submissions is one statement.
    for run in turn.requests.chunk_by(|a, b| !careful && plain(&a.1) && plain(&b.1)) {
        match run {
            [(ticket, request)] if careful => {
                let answer = match within(conn, |conn| grant::<M, C>(conn, now, request)) {
                    Err(error) if !is_broken(&error) => Answer::Refused(error.to_string()),
                    answer => answer?,
                };
                answers.push((*ticket, answer));
            }
            [(ticket, request)] => answers.push((*ticket, grant::<M, C>(conn, now, request)?)),
            run => answers.extend(submit_run::<M, C>(conn, now, run)?),
        }
    }
    let works: Vec<&StepWork<M::Id>> = turn.steps.iter().map(|(_, work)| work).collect();
    let steps = step::record::<M, C>(conn, now, turn.settles_within, &works, careful)?;
    let settled = settle::<M, C>(conn, now, host, &turn.settle, careful)?;
    let locked = |token: &Moment| {
        let mut outcomes = turn.settle.iter().zip(&settled);
        outcomes.any(|(item, answer)| item.hold.token == *token && unanswered(answer))
    };
    let ends: Vec<Moment> = turn.ends.iter().filter(|token| !locked(token)).copied().collect();
    end_batches::<M, C>(conn, host, &ends)?;
    let news = service::record(conn, M::COLUMNS.name, now, &turn.services)?;
    let waiting = if news.is_empty() { 0 } else { counts::due::<M, C>(conn, now)? };
    let releases = turn.release.iter();
    let releases =
        releases.map(|outage| service::release::<M, C>(conn, now, *outage, turn.settles_within));
    let released = releases.collect::<QueryResult<Vec<usize>>>()?;
    let claims = match turn.claim {
        Some((limit, retries_first)) => {
            let (host, services) = (host.clone(), turn.calls.clone());
            let shunned = turn.shunned.clone();
            let claiming = Claiming {
                now,
                expires_at,
                host,
                limit,
                retries_first,
                services,
                shunned,
                careful,
            };
            claim::<M, C>(conn, &claiming)?
        }
        None => Claims::none(),
    };
    Ok(Turned { answers, steps, settled, news, waiting, released, claims })
}

/// Whether an outcome must be settled in a later turn.
pub(crate) fn unanswered(settled: &Settled) -> bool {
    matches!(settled, Settled::Locked | Settled::NotDone(..))
}

fn plain<K>(request: &Request<K>) -> bool {
    matches!(request, Request::Submit { due: Due::Now, .. })
}

fn submit_run<M, C>(
    conn: &mut C,
    now: Moment,
    run: &[(u64, Request<M::Id>)],
) -> QueryResult<Vec<(u64, Answer)>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let ids = |request: &Request<M::Id>| match request {
        Request::Submit { ids, .. } => ids.clone(),
        _ => Vec::new(),
    };
    let all: HashSet<M::Id> = run.iter().flat_map(|(_, request)| ids(request)).collect();
    let all: Vec<M::Id> = all.into_iter().collect();
    let found = submit::submit::<M, C>(conn, &all, &When::given(now))?;
    let answer = |(ticket, request): &(u64, Request<M::Id>)| {
        let missing = ids(request).into_iter().map(|id| id.to_string());
        let not_found = missing.filter(|id| !found.contains(id)).collect();
        (*ticket, Answer::Submitted { not_found })
    };
    Ok(run.iter().map(answer).collect())
}

fn grant<M, C>(conn: &mut C, now: Moment, request: &Request<M::Id>) -> QueryResult<Answer>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let when = When::given(now);
    Ok(match request {
        Request::Submit { ids, due } => {
            let found = submit::submit::<M, C>(conn, ids, &due.when(now))?;
            let ids = ids.iter().map(ToString::to_string);
            Answer::Submitted { not_found: ids.filter(|id| !found.contains(id)).collect() }
        }
        Request::Restart { ids, by } => {
            let restarted = submit::restart::<M, C>(conn, ids, &when)?;
            if restarted.restarted > 0 {
                keep::<M, C>(conn, now, by.as_ref(), "restarted", ids, restarted.restarted)?;
            }
            Answer::Restarted(restarted)
        }
        Request::Cancel { id, by } => match submit::cancel::<M, C>(conn, id.clone(), &when) {
            Ok(canceled) => {
                if canceled.done() {
                    let ids = std::slice::from_ref(id);
                    keep::<M, C>(conn, now, by.as_ref(), "canceled", ids, 1)?;
                }
                Answer::Canceled(canceled)
            }
            Err(diesel::result::Error::NotFound) => Answer::NotFound,
            Err(error) => return Err(error),
        },
    })
}

/// Keeps who did something to rows, and why.
fn keep<M, C>(
    conn: &mut C,
    now: Moment,
    by: Option<&By>,
    action: &str,
    ids: &[M::Id],
    count: usize,
) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let Some(By { who, reason }) = by else { return Ok(()) };
    let only = if let [only] = ids { Some(only.to_string()) } else { None };
    let action = Action {
        row_id: only.as_deref(),
        count: only.is_none().then_some(count),
        reason: Some(reason),
        ..Action::of(action, M::COLUMNS.name)
    };
    actions::append(conn, now, who, &action)
}

/// What one sweep over a model found: lost rows, rows that expire or have expired, and orphans.
#[derive(Debug)]
pub(crate) struct Swept<K, R> {
    pub(crate) lost: Vec<super::lease::Rescued>,
    pub(crate) expiring: Vec<super::sweep::Expiring>,
    pub(crate) claims: Claims<K, R>,
}

/// How far a model's sweeps have come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sweeping {
    /// Of recent ones, and of old ones: by turns.
    orphans: [Option<OrphanCursor>; 2],
    old: bool,
    warned: Option<Moment>,
}

/// Rescues lapsed batches, notes what expires, mends instants and claims orphans, each in a transaction of
/// its own.
pub(crate) fn sweep<M, C>(
    conn: &mut C,
    claiming: &Claiming,
    held: &[Moment],
    tally: Tally,
    at: &mut Sweeping,
) -> QueryResult<Swept<M::Id, M>>
where
    C: StoreConnection,
    M: Stored<C::Backend>,
{
    /// Batches rescued in one sweep at most; the next one goes on.
    const BATCHES: usize = 16;
    let now = claiming.now;
    let mut lost = Vec::new();
    if !super::lease::any_lapsed::<M, C>(conn, held, now)? {
        let wait = M::POLICY.interval();
        for _ in 0..BATCHES {
            match conn.write(|conn| super::lease::rescue::<M, C>(conn, now, wait))? {
                Some(rows) => lost.extend(rows),
                None => break,
            }
        }
    }
    let waiting = counts::due::<M, C>(conn, now)?;
    conn.write(|conn| buckets::add(conn, M::COLUMNS.name, tally, waiting, now))?;
    let standing = service::standing(conn, &claiming.services, now, M::POLICY.open_for())?;
    let instants = Instants::with_outages(now, &M::POLICY, &standing.outages);
    let expire = |conn: &mut C| super::sweep::expire_fresh::<M, C>(conn, now, &instants);
    let mut expired = conn.write(expire)?;
    let expiring =
        conn.write(|conn| super::sweep::warn::<M, C>(conn, now, &instants, &mut at.warned))?;
    // Refused for one row, perhaps: the others of today's wait until midnight, and the sweep goes on.
    match C::Backend::normalise::<M, C>(conn, now) {
        Err(error) if is_broken(&error) => return Err(error),
        Ok(_) | Err(_) => {}
    }
    let mut claims = if claiming.limit > 0 && standing.permit == Permit::All {
        at.old = !at.old;
        let age = if at.old { Age::Old } else { Age::Recent };
        let cursor = &mut at.orphans[usize::from(at.old)];
        let from = cursor.clone();
        let mut orphans = |conn: &mut C, claiming: &Claiming| {
            *cursor = from.clone();
            conn.write(|conn| claim_orphans::<M, C>(conn, claiming, cursor, &instants, age))
        };
        match orphans(conn, claiming) {
            Err(error) if !is_broken(&error) => {
                orphans(conn, &Claiming { careful: true, ..claiming.clone() })?
            }
            found => found?,
        }
    } else {
        Claims::none()
    };
    claims.standing = Some(standing);
    claims.expired.append(&mut expired);
    Ok(Swept { lost, expiring, claims })
}
