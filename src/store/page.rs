//! What the operator's page reads. Every query is one range of an index and bounded, however many rows
//! there are; lists go on from a key, not from an offset.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    buckets::{self, Bucket},
    cell::Record,
    counts::{self, Counts},
    explain::{self, Line},
    service::{self, ServiceState},
    statement::{Statement, Value},
};
use crate::{
    asyncable::Stored,
    scope::{FRESH, Instants},
};

/// Which rows of a model to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Scheduled,
    Due,
    Running,
    Failing,
    Parked,
    Expired,
}

impl State {
    pub(crate) const ALL: [State; 6] = [
        State::Scheduled,
        State::Due,
        State::Running,
        State::Failing,
        State::Parked,
        State::Expired,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Scheduled => "scheduled",
            State::Due => "due",
            State::Running => "running",
            State::Failing => "failing",
            State::Parked => "parked",
            State::Expired => "expired",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// Where a list goes on: after this instant and id.
pub(crate) type After = (Moment, String);

/// Rows on a page.
pub(crate) const PAGE: usize = 50;

/// A page of a list.
#[derive(Clone, Debug)]
pub(crate) struct List {
    pub(crate) lines: Vec<Line>,
    /// Where the next page begins, if there is one.
    pub(crate) next: Option<After>,
}

/// Lists a model's rows in a state, the oldest submission first; failing ones by their next try.
pub(crate) fn list<M, C>(
    conn: &mut C,
    now: Moment,
    alive: Duration,
    state: State,
    code: Option<&str>,
    after: Option<&After>,
) -> QueryResult<List>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let instants = Instants::new(now, &M::POLICY);
    let mut keys = Vec::new();
    for source in sources(state).iter().copied() {
        keys.append(&mut page::<M, C>(conn, &instants, source, code, after)?);
    }
    keys.sort();
    keys.dedup();
    let more = keys.len() > PAGE;
    keys.truncate(PAGE);
    let next = if more { keys.last().cloned() } else { None };
    let ids: Vec<M::Id> = keys.iter().filter_map(|(_, id)| id.parse().ok()).collect();
    let mut lines = explain::lines::<M, C>(conn, &ids, now, alive)?;
    let place = |id: &str| keys.iter().position(|(_, known)| known == id);
    lines.sort_by_key(|line| place(&line.id));
    Ok(List { lines, next })
}

/// Where a state's rows are found: never attempted ones, or those that an entry speaks of.
#[derive(Clone, Copy)]
enum Source {
    Fresh(&'static str),
    /// The entries, their order's column, and what is asked of the row.
    Entries(&'static str, &'static str, &'static str),
    Claimed,
}

fn sources(state: State) -> &'static [Source] {
    const OPEN: &str = " AND {L} > $expiry:L";
    match state {
        State::Scheduled => &[Source::Fresh("{open} AND {A} IS NULL AND {L} > $fresh:L")],
        State::Due => {
            &[Source::Fresh(FRESH), Source::Entries("r.due_at <= $now", "r.due_at", OPEN)]
        }
        State::Running => &[Source::Claimed],
        State::Failing => &[Source::Entries("r.due_at > $now", "r.due_at", OPEN)],
        State::Parked => &[Source::Entries("r.kind = 'permanent'", "r.last_submitted_at", "")],
        State::Expired => &[
            Source::Fresh("{open} AND {A} IS NULL AND {L} <= $expiry:L"),
            Source::Entries("r.last_submitted_at <= $expiry", "r.last_submitted_at", ""),
        ],
    }
}

fn page<M, C>(
    conn: &mut C,
    instants: &Instants,
    source: Source,
    code: Option<&str>,
    after: Option<&After>,
) -> QueryResult<Vec<After>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let begin = (Moment::from_naive(DateTime::UNIX_EPOCH.naive_utc()), String::new());
    let (at, id) = after.unwrap_or(&begin);
    let limit = PAGE + 1;
    let sql = match source {
        Source::Fresh(_) if code.is_some() => return Ok(Vec::new()),
        Source::Fresh(rows) => format!(
            "SELECT {{L}}, {{id text}} FROM {{m}} WHERE {rows} AND {{L}} >= $at:L \
             AND NOT ({{L}} = $at:L AND {{id text}} <= $id) ORDER BY {{A}}, {{L}}, {{id text}} LIMIT {limit}"
        ),
        Source::Entries(entries, key, and) => {
            let code = if code.is_some() { " AND r.code = $code" } else { "" };
            format!(
                "SELECT {key}, r.row_id FROM asyncable_retries r JOIN {{m}} ON {{id}} = {{id from r.row_id}} \
                 WHERE r.model = {{model}} AND {entries} AND {key} >= $at \
                 AND NOT ({key} = $at AND r.row_id <= $id){code} AND {{utc A}} = r.attempted_at \
                 AND {{utc L}} = r.last_submitted_at AND {{open}}{and} ORDER BY {key}, r.row_id LIMIT {limit}"
            )
        }
        Source::Claimed if code.is_some() => return Ok(Vec::new()),
        Source::Claimed => format!(
            "SELECT {{utc A}}, {{id text}} FROM asyncable_claims c JOIN {{m}} ON {{A}} = {{A from c.claimed_at}} \
             WHERE c.model = {{model}} AND c.expires_at > $now AND {{open}} AND {{utc A}} >= $at \
             AND NOT ({{utc A}} = $at AND {{id text}} <= $id) AND NOT EXISTS (SELECT 1 \
             FROM asyncable_retries r WHERE r.model = {{model}} AND r.row_id = {{id text}} \
             AND r.attempted_at = {{utc A}}) ORDER BY {{A}}, {{id text}} LIMIT {limit}"
        ),
    };
    let binds = vec![
        ("now", Value::Time(instants.now)),
        ("fresh", Value::Time(instants.fresh)),
        ("expiry", Value::Time(instants.expiry)),
        ("at", Value::Time(*at)),
        ("id", id.as_str().into()),
        ("code", code.unwrap_or_default().into()),
    ];
    let key = |row: &Record| Ok((row.time(0)?, row.text(1)?));
    Statement::of::<M>(&sql, binds)?.load(conn)?.iter().map(key).collect()
}

/// Rows that need a person, by cause.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    pub(crate) code: String,
    pub(crate) rows: u32,
    pub(crate) oldest: Option<DateTime<Utc>>,
}

/// What a model's part of the overview shows.
#[derive(Clone, Debug)]
pub(crate) struct ModelOverview {
    pub(crate) model: &'static str,
    pub(crate) counts: Counts,
    pub(crate) causes: Vec<Cause>,
    pub(crate) oldest_due: Option<DateTime<Utc>>,
    /// The last day's ten minutes, the oldest first.
    pub(crate) day: Vec<Bucket>,
}

pub(crate) fn model_overview<M, C>(conn: &mut C, now: Moment) -> QueryResult<ModelOverview>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let counts = counts::counts::<M, C>(conn, now)?;
    let instants = Instants::new(now, &M::POLICY);
    let sql = format!(
        "SELECT code, count(*), min(last) FROM (SELECT r.code, {{utc L}} AS last \
         FROM (SELECT * FROM asyncable_retries WHERE model = {{model}} AND kind = 'permanent' \
         ORDER BY last_submitted_at LIMIT {most}) r JOIN {{m}} ON {{id}} = {{id from r.row_id}} \
         WHERE {{utc A}} = r.attempted_at AND {{utc L}} = r.last_submitted_at AND {{open}}) parked \
         GROUP BY code ORDER BY count(*) DESC, code LIMIT 20",
        most = Counts::MOST
    );
    let cause = |row: &Record| {
        let rows = row.int(1)?.try_into().unwrap_or(Counts::MOST);
        let oldest = row.maybe_time(2)?.map(|at| at.zoned);
        Ok(Cause { code: row.text(0)?, rows, oldest })
    };
    let causes = Statement::of::<M>(&sql, vec![])?.load(conn)?;
    let causes = causes.iter().map(cause).collect::<QueryResult<_>>()?;
    let oldest = page::<M, C>(conn, &instants, Source::Fresh(FRESH), None, None)?;
    let oldest = oldest.first().map(|(at, _)| at.zoned);
    let day = buckets::last(conn, M::COLUMNS.name, 144, now)?;
    Ok(ModelOverview { model: M::COLUMNS.name, counts, causes, oldest_due: oldest, day })
}

/// An attempt of a row's history.
#[derive(Clone, Debug)]
pub(crate) struct Try {
    pub(crate) number: i64,
    pub(crate) host: String,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) ended_at: DateTime<Utc>,
    pub(crate) outcome: String,
    pub(crate) code: Option<String>,
    pub(crate) place: Option<String>,
    pub(crate) step: Option<String>,
    /// May hold personal data.
    pub(crate) error: Option<String>,
}

/// A step of its submission.
#[derive(Clone, Debug)]
pub(crate) struct StepLine {
    pub(crate) name: String,
    pub(crate) done: bool,
    pub(crate) tries: i64,
}

/// A note, or something that was done.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: DateTime<Utc>,
    pub(crate) who: String,
    /// What was done; nothing for a note.
    pub(crate) action: Option<String>,
    pub(crate) target: String,
    pub(crate) row_id: Option<String>,
    pub(crate) count: Option<i64>,
    pub(crate) text: Option<String>,
}

/// Everything about a row that the page shows.
#[derive(Clone, Debug)]
pub(crate) struct RowPage {
    pub(crate) line: Line,
    pub(crate) steps: Vec<StepLine>,
    pub(crate) tries: Vec<Try>,
    pub(crate) notes: Vec<Entry>,
    pub(crate) actions: Vec<Entry>,
}

pub(crate) fn row<M, C>(
    conn: &mut C,
    id: &M::Id,
    now: Moment,
    alive: Duration,
) -> QueryResult<Option<RowPage>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let lines = explain::lines::<M, C>(conn, std::slice::from_ref(id), now, alive)?;
    let Some(line) = lines.into_iter().next() else { return Ok(None) };
    let row_id = id.to_string();
    let binds = || vec![("model", M::COLUMNS.name.into()), ("row", Value::Text(row_id.clone()))];
    let steps = "SELECT name, result IS NOT NULL, tries FROM asyncable_steps WHERE model = $model \
                 AND row_id = $row AND generation = (SELECT max(generation) FROM asyncable_steps \
                 WHERE model = $model AND row_id = $row) ORDER BY CASE WHEN result IS NULL THEN 1 ELSE 0 END, find_after, name LIMIT 200";
    let steps = Statement::plain(steps, binds())?.load(conn)?;
    let step =
        |row: &Record| Ok(StepLine { name: row.text(0)?, done: row.flag(1)?, tries: row.int(2)? });
    let tries = "SELECT number, host, started_at, ended_at, outcome, code, place, step, error \
                 FROM asyncable_attempts WHERE model = $model AND row_id = $row \
                 ORDER BY attempted_at DESC LIMIT 50";
    let tries = Statement::plain(tries, binds())?.load(conn)?;
    let attempt = |row: &Record| {
        Ok(Try {
            number: row.int(0)?,
            host: row.text(1)?,
            started_at: row.time(2)?.zoned,
            ended_at: row.time(3)?.zoned,
            outcome: row.text(4)?,
            code: row.maybe_text(5)?,
            place: row.maybe_text(6)?,
            step: row.maybe_text(7)?,
            error: row.maybe_text(8)?,
        })
    };
    let notes = "SELECT at, who, NULL, model, row_id, NULL, note FROM asyncable_notes \
                 WHERE model = $model AND row_id = $row ORDER BY at DESC, id DESC LIMIT 100";
    let notes = Statement::plain(notes, binds())?.load(conn)?;
    let actions = "SELECT at, who, action, target, row_id, count, reason FROM asyncable_actions \
                   WHERE target = $model AND row_id = $row ORDER BY at DESC, id DESC LIMIT 100";
    let actions = Statement::plain(actions, binds())?.load(conn)?;
    Ok(Some(RowPage {
        line,
        steps: steps.iter().map(step).collect::<QueryResult<_>>()?,
        tries: tries.iter().map(attempt).collect::<QueryResult<_>>()?,
        notes: notes.iter().map(entry).collect::<QueryResult<_>>()?,
        actions: actions.iter().map(entry).collect::<QueryResult<_>>()?,
    }))
}

fn entry(row: &Record) -> QueryResult<Entry> {
    Ok(Entry {
        at: row.time(0)?.zoned,
        who: row.text(1)?,
        action: row.maybe_text(2)?,
        target: row.text(3)?,
        row_id: row.maybe_text(4)?,
        count: row.maybe_int(5)?,
        text: row.maybe_text(6)?,
    })
}

/// Adds a note on a row. Not edited or deleted, ever.
pub(crate) fn note<C>(
    conn: &mut C,
    model: &str,
    row_id: &str,
    who: &str,
    text: &str,
    now: Moment,
) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "INSERT INTO asyncable_notes (model, row_id, at, who, note) \
               VALUES ($model, $row, $now, $who, $text)";
    let binds = vec![
        ("model", model.into()),
        ("row", row_id.into()),
        ("now", Value::Time(now)),
        ("who", who.into()),
        ("text", Value::Text(text.replace('\0', ""))),
    ];
    Statement::plain(sql, binds)?.execute(conn)?;
    Ok(())
}

/// A process that works on models.
#[derive(Clone, Debug)]
pub(crate) struct HostLine {
    pub(crate) host: String,
    pub(crate) seen_at: DateTime<Utc>,
}

/// An outage that is over, or lasts.
#[derive(Clone, Debug)]
pub(crate) struct OutageLine {
    pub(crate) service: String,
    pub(crate) since: DateTime<Utc>,
    pub(crate) until: Option<DateTime<Utc>>,
    pub(crate) probes: i64,
}

/// What the pages show beside models.
#[derive(Clone, Debug)]
pub(crate) struct House {
    pub(crate) now: DateTime<Utc>,
    pub(crate) services: Vec<ServiceState>,
    pub(crate) hosts: Vec<HostLine>,
    pub(crate) lately: Vec<Entry>,
    pub(crate) outages: Vec<OutageLine>,
}

/// `service`: the one whose outages and actions are asked for.
pub(crate) fn house<C>(
    conn: &mut C,
    names: &[&str],
    service: Option<&str>,
    now: Moment,
    alive: Duration,
) -> QueryResult<House>
where
    C: LoadConnection<Backend: Dialect>,
{
    let services = service::read(conn, names, now, false)?;
    let hosts = "SELECT host, max(seen_at) FROM asyncable_hosts WHERE seen_at > $since GROUP BY host \
                 ORDER BY host LIMIT 100";
    let hosts =
        Statement::plain(hosts, vec![("since", Value::Time(now.minus(alive)))])?.load(conn)?;
    let host = |row: &Record| Ok(HostLine { host: row.text(0)?, seen_at: row.time(1)?.zoned });
    let which = if service.is_some() { "WHERE target = $service AND row_id IS NULL" } else { "" };
    let lately = format!(
        "SELECT at, who, action, target, row_id, count, reason FROM asyncable_actions {which} \
         ORDER BY at DESC, id DESC LIMIT 12"
    );
    let binds = || vec![("service", Value::from(service.unwrap_or_default()))];
    let lately = Statement::plain(&lately, binds())?.load(conn)?;
    // A service's own, or all of the last day.
    let which =
        if service.is_some() { "service = $service" } else { "until IS NULL OR until > $day" };
    let outages = format!(
        "SELECT since, until, probes, service FROM asyncable_outages WHERE {which} \
         ORDER BY since DESC LIMIT 20"
    );
    let mut named = binds();
    named.push(("day", Value::Time(now.minus(Duration::from_secs(86_400)))));
    let outages = Statement::plain(&outages, named)?.load(conn)?;
    let outage = |row: &Record| {
        let until = row.maybe_time(1)?.map(|at| at.zoned);
        let (since, probes) = (row.time(0)?.zoned, row.int(2)?);
        Ok(OutageLine { service: row.text(3)?, since, until, probes })
    };
    Ok(House {
        now: now.zoned,
        services,
        hosts: hosts.iter().map(host).collect::<QueryResult<_>>()?,
        lately: lately.iter().map(entry).collect::<QueryResult<_>>()?,
        outages: outages.iter().map(outage).collect::<QueryResult<_>>()?,
    })
}
