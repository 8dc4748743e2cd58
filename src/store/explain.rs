//! Reads why a row is not running: what the claim would make of it, asked in the claim's own words.
//!
//! Whether the row is due or runs is asked by the texts that scopes and claims are made of; which services
//! the model calls, and whether anybody works on it, by `asyncable_hosts`, since a host's data crate knows
//! neither.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    cell::Record,
    counts,
    pause::{self, Paused},
    service::{self, Permit, Standing},
    statement::{Statement, Value, quoted},
};
use crate::{
    Explanation,
    asyncable::{Asyncable, Stored},
    scope::{DUE, IN_FLIGHT, Instants},
};

/// Explains one row; nothing if there is no such row. `alive`: how long ago a process may have been heard
/// of that is still alive.
pub(crate) fn explain<M, C>(
    conn: &mut C,
    id: &M::Id,
    now: Moment,
    alive: Duration,
) -> QueryResult<Option<Explanation>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let around = Around::of::<M, C>(conn, now, alive)?;
    let Some(row) = facts::<M, C>(conn, std::slice::from_ref(id), &around.instants)?.pop() else {
        return Ok(None);
    };
    let facts = Facts::read(&row)?;
    Ok(Some(match around.explain::<M>(&facts) {
        Explanation::Due { .. } => {
            Explanation::Due { ahead: ahead::<M, C>(conn, &facts, &around.instants)? }
        }
        Explanation::Paused { by: None, reason: None } => paused_here(conn, M::COLUMNS.name)?,
        explanation => explanation,
    }))
}

/// Who has paused a model in a process, and why, if they have said so.
fn paused_here<C>(conn: &mut C, model: &str) -> QueryResult<Explanation>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "SELECT action, who, reason FROM asyncable_actions WHERE target = $model \
               AND row_id IS NULL AND action IN ('paused', 'resumed') ORDER BY at DESC, id DESC LIMIT 1";
    let last = Statement::plain(sql, vec![("model", model.into())])?.first(conn)?;
    match last.filter(|last| last.text(0).is_ok_and(|action| action == "paused")) {
        Some(last) => {
            Ok(Explanation::Paused { by: last.maybe_text(1)?, reason: last.maybe_text(2)? })
        }
        None => Ok(Explanation::Paused { by: None, reason: None }),
    }
}

/// A row as lists show it: no content of the host's but who and what about.
#[cfg(feature = "dashboard")]
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) id: String,
    pub(crate) explanation: Explanation,
    pub(crate) submitted_at: Option<DateTime<Utc>>,
    /// When its window ends or has ended, if it is submitted and not done.
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) attempted_at: Option<DateTime<Utc>>,
    pub(crate) failures: u32,
    pub(crate) code: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) subject: Option<String>,
    /// The model names a column for it.
    cancels: bool,
}

#[cfg(feature = "dashboard")]
impl Line {
    /// Whether a restart does anything.
    pub(crate) fn may_restart(&self) -> bool {
        self.explanation.may_restart()
    }

    /// Whether canceling does anything, and rows of the model can be canceled at all.
    pub(crate) fn may_cancel(&self) -> bool {
        self.cancels && self.explanation.may_cancel()
    }
}

/// Explains rows for a list: a due one without its place in the line.
#[cfg(feature = "dashboard")]
pub(crate) fn lines<M, C>(conn: &mut C, ids: &[M::Id], around: &Around) -> QueryResult<Vec<Line>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let line = |row: &Record| {
        let facts = Facts::read(row)?;
        let open = facts.processed_at.is_none() && facts.canceled_at.is_none();
        let last = facts.last_submitted_at.filter(|_| open);
        Ok(Line {
            id: row.text(15)?,
            explanation: around.explain::<M>(&facts),
            submitted_at: facts.last_submitted_at.map(|at| at.zoned),
            expires_at: last.map(|last| around.window_ends::<M>(last)),
            attempted_at: facts.attempted_at.map(|at| at.zoned),
            failures: facts.entry.as_ref().map_or(0, |entry| entry.failures),
            code: facts.entry.as_ref().map(|entry| entry.code.clone()),
            user: row.maybe_text(16)?,
            subject: row.maybe_text(17)?,
            cancels: M::COLUMNS.canceled_at.is_some(),
        })
    };
    facts::<M, C>(conn, ids, &around.instants)?.iter().map(line).collect()
}

/// What is so around a model's rows: who works on them, and the services that they need.
pub(crate) struct Around {
    now: Moment,
    hosts: Vec<Host>,
    alive: Duration,
    paused: Option<Paused>,
    standing: Standing,
    instants: Instants,
    /// By how much outages lengthen the window.
    longer: Duration,
}

impl Around {
    pub(crate) fn of<M, C>(conn: &mut C, now: Moment, alive: Duration) -> QueryResult<Self>
    where
        C: LoadConnection<Backend: Dialect>,
        M: Stored<C::Backend>,
    {
        let hosts = hosts(conn, M::COLUMNS.name)?;
        let services = hosts.iter().flat_map(|host| host.services.split(','));
        let services: Vec<&str> = services.filter(|name| !name.is_empty()).collect();
        let window = M::POLICY.open_for();
        let standing = service::standing_of(conn, &services, now, window, false)?;
        let instants = Instants::with_outages(now, &M::POLICY, &standing.outages);
        let longer = now.minus(window).since(instants.expiry);
        let paused = pause::of(conn, M::COLUMNS.name)?;
        Ok(Around { now, hosts, alive, paused, standing, instants, longer })
    }

    /// What the claim compares a row's instants with: a window is longer by what it has of outages.
    #[cfg(any(feature = "dashboard", feature = "metrics"))]
    pub(crate) fn instants(&self) -> &Instants {
        &self.instants
    }

    /// When a row expires that was submitted then.
    pub(crate) fn window_ends<M: Asyncable>(&self, last: Moment) -> DateTime<Utc> {
        last.plus(M::POLICY.open_for() + self.longer).zoned
    }

    fn explain<M: Asyncable>(&self, facts: &Facts) -> Explanation {
        let window_ends = |last: Moment| self.window_ends::<M>(last);
        if let Some(settled) = facts.settled(&window_ends) {
            return settled;
        }
        match facts {
            Facts { due: true, .. } => self.of_due(),
            Facts { attempted_at: None, last_submitted_at: Some(last), .. } => {
                Explanation::Scheduled { due_at: last.plus(M::POLICY.first_wait()).zoned }
            }
            Facts { attempted_at: Some(attempted_at), .. } => {
                Explanation::Orphaned { due_at: attempted_at.plus(M::POLICY.interval()).zoned }
            }
            _ => Explanation::NotSubmitted,
        }
    }

    fn of_due(&self) -> Explanation {
        let alive = |host: &Host| host.seen_at.plus(self.alive) >= self.now;
        if let Some(why) = of_standing(&self.standing, self.now) {
            return why;
        }
        match (self.hosts.iter().any(alive), &self.paused) {
            (false, _) => Explanation::NoProcessor,
            (true, Some(Paused { who, reason, .. })) => {
                Explanation::Paused { by: who.clone(), reason: reason.clone() }
            }
            (true, None) if self.hosts.iter().all(|host| host.paused || !alive(host)) => {
                Explanation::Paused { by: None, reason: None }
            }
            (true, None) => Explanation::Due { ahead: 0 },
        }
    }
}

/// What keeps a due row of the model waiting, if a service does.
fn of_standing(standing: &Standing, now: Moment) -> Option<Explanation> {
    if standing.permit == Permit::All {
        return None;
    }
    let held = standing.states.iter().find_map(|state| Some((state, state.held.as_ref()?)));
    if let Some((state, held)) = held {
        return Some(Explanation::ServiceHeld {
            service: state.name.clone(),
            by: held.by.clone(),
            reason: held.reason.clone(),
            until: held.until.map(|until| until.zoned),
        });
    }
    let open = standing.states.iter().filter(|state| state.open);
    let last = open.max_by_key(|state| (state.asked, state.next_probe_at))?;
    Some(Explanation::WaitingForService {
        service: last.name.clone(),
        since: last.since.unwrap_or(now).zoned,
        asked_at: if last.asked { None } else { last.next_probe_at.map(|at| at.zoned) },
    })
}

/// A process that works on the model.
struct Host {
    services: String,
    paused: bool,
    seen_at: Moment,
}

/// Those that were heard of last, whether they are alive or not.
fn hosts<C>(conn: &mut C, model: &str) -> QueryResult<Vec<Host>>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "SELECT services, paused, seen_at FROM asyncable_hosts WHERE model = $model \
               ORDER BY seen_at DESC LIMIT 100";
    let host = |row: &Record| {
        Ok(Host { services: row.text(0)?, paused: row.flag(1)?, seen_at: row.time(2)? })
    };
    let hosts = Statement::plain(sql, vec![("model", model.into())])?.load(conn)?;
    hosts.iter().map(host).collect()
}

fn facts<M, C>(conn: &mut C, ids: &[M::Id], instants: &Instants) -> QueryResult<Vec<Record>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let canceled = if M::COLUMNS.canceled_at.is_some() { "{X}" } else { "NULL" };
    let shown = |column: Option<&str>| {
        column.map_or_else(
            || "NULL".to_owned(),
            |column| format!("CAST({{m}}.{} AS TEXT)", quoted::<C::Backend>(column)),
        )
    };
    let (user, subject) = (shown(M::COLUMNS.user), shown(M::COLUMNS.subject));
    let sql = format!(
        "SELECT {{L}}, {{A}}, {{P}}, {canceled}, CASE WHEN {DUE} THEN 1 ELSE 0 END, \
         CASE WHEN {IN_FLIGHT} THEN 1 ELSE 0 END, CASE WHEN {{L}} <= $expiry:L THEN 1 ELSE 0 END, \
         e.due_at, e.kind, e.failures, e.code, e.first_failed_at, e.last_failed_at, \
         k.host, k.expires_at, {{id text}}, {user}, {subject} FROM {{m}} \
         LEFT JOIN asyncable_retries e ON e.model = {{model}} AND e.row_id = {{id text}} \
         AND e.attempted_at = {{utc A}} AND e.last_submitted_at = {{utc L}} \
         LEFT JOIN asyncable_claims k ON k.model = {{model}} AND k.claimed_at = {{utc A}} \
         WHERE {{id}} IN ($ids)"
    );
    let binds = vec![
        ("now", Value::Time(instants.now)),
        ("fresh", Value::Time(instants.fresh)),
        ("retry", Value::Time(instants.retry)),
        ("expiry", Value::Time(instants.expiry)),
        ("ids", super::submit::id_list::<M, C::Backend>(ids)),
    ];
    Statement::of::<M>(&sql, binds)?.load(conn)
}

/// What a row and the library's entries of it say.
struct Facts {
    last_submitted_at: Option<Moment>,
    attempted_at: Option<Moment>,
    processed_at: Option<Moment>,
    canceled_at: Option<Moment>,
    due: bool,
    in_flight: bool,
    expired: bool,
    entry: Option<Entry>,
    /// The process that claimed it last, and the end of its lease if the batch has not ended.
    claimed: Option<(String, Moment)>,
}

/// The entry that speaks of its last attempt.
struct Entry {
    due_at: Option<Moment>,
    kind: String,
    failures: u32,
    code: String,
    first_failed_at: Moment,
    last_failed_at: Moment,
}

impl Facts {
    fn read(row: &Record) -> QueryResult<Self> {
        // An instant that nobody can read is as good as none.
        let time = |index| row.maybe_time(index).unwrap_or(None);
        let entry = row.maybe_text(8)?.map(|kind| {
            Ok::<_, diesel::result::Error>(Entry {
                due_at: row.maybe_time(7)?,
                kind,
                failures: row.int(9)?.try_into().unwrap_or(u32::MAX),
                code: row.text(10)?,
                first_failed_at: row.time(11)?,
                last_failed_at: row.time(12)?,
            })
        });
        Ok(Facts {
            last_submitted_at: time(0),
            attempted_at: time(1),
            processed_at: time(2),
            canceled_at: time(3),
            due: row.flag(4)?,
            in_flight: row.flag(5)?,
            expired: row.flag(6)?,
            entry: entry.transpose()?,
            claimed: row.maybe_text(13)?.zip(row.maybe_time(14)?),
        })
    }

    /// What there is to say of a row that is not due.
    fn settled(&self, window_ends: &impl Fn(Moment) -> DateTime<Utc>) -> Option<Explanation> {
        if let Some(at) = self.processed_at {
            return Some(Explanation::Processed { at: at.zoned });
        }
        if let Some(at) = self.canceled_at {
            return Some(Explanation::Canceled { at: at.zoned });
        }
        let Some(last) = self.last_submitted_at else { return Some(Explanation::NotSubmitted) };
        let claimed = self.claimed.as_ref().map(|(host, until)| (host.clone(), until.zoned));
        if self.in_flight {
            return claimed.map(|(host, until)| Explanation::Running { host, until });
        }
        if self.expired {
            return Some(Explanation::Expired { at: window_ends(last) });
        }
        if self.due {
            return None;
        }
        let Some(entry) = &self.entry else {
            return claimed.map(|(host, since)| Explanation::Lapsed { host, since });
        };
        let (code, failures) = (entry.code.clone(), entry.failures);
        match (entry.kind.as_str(), entry.due_at) {
            ("permanent", _) => {
                let since = entry.last_failed_at.zoned;
                Some(Explanation::Parked { code, since, failures })
            }
            ("unknown" | "unsettled", Some(at)) => {
                Some(Explanation::Unknown { code, asked_at: at.zoned, failures })
            }
            (_, Some(at)) => Some(Explanation::Failing {
                code,
                next_at: at.zoned,
                failures,
                since: entry.first_failed_at.zoned,
                window_ends: window_ends(last),
            }),
            (_, None) => None,
        }
    }
}

/// Due rows that come before this one.
fn ahead<M, C>(conn: &mut C, facts: &Facts, instants: &Instants) -> QueryResult<u32>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let before = match (&facts.entry, facts.last_submitted_at) {
        (Some(Entry { due_at: Some(due_at), .. }), _) => Some((true, *due_at)),
        (_, Some(last)) if facts.attempted_at.is_none() => Some((false, last)),
        _ => None,
    };
    before.map_or(Ok(0), |(retry, at)| counts::ahead::<M, C>(conn, instants, retry, at))
}
