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
    explain::{self, Around, Line},
    pause::{self, Paused},
    service::{self, ServiceState},
    statement::{Statement, Value, quoted},
    tries::{self, Probe, Try},
};
use crate::{
    Explanation,
    asyncable::{Asyncable, KeyType, Stored},
    scope::{self, CLAIMS_ROW, ENTRYS_ROW, FRESH, Instants, SCHEDULED},
};

/// Which rows of a model to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// Parked or expired.
    NeedsYou,
    /// Submitted, and neither processed nor canceled.
    NotDone,
    Scheduled,
    Due,
    Running,
    Failing,
    Parked,
    Expired,
}

impl State {
    pub(crate) const ALL: [State; 8] = [
        State::NeedsYou,
        State::NotDone,
        State::Scheduled,
        State::Due,
        State::Running,
        State::Failing,
        State::Parked,
        State::Expired,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::NeedsYou => "needs-you",
            State::NotDone => "not-done",
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

    /// Whether a row that stands so is listed here.
    pub(crate) fn has(self, explanation: &Explanation) -> bool {
        use Explanation as E;
        match self {
            State::NeedsYou => matches!(explanation, E::Parked { .. } | E::Expired { .. }),
            State::NotDone => {
                !matches!(explanation, E::NotSubmitted | E::Canceled { .. } | E::Processed { .. })
            }
            State::Scheduled => matches!(explanation, E::Scheduled { .. }),
            State::Due => matches!(
                explanation,
                E::Due { .. }
                    | E::WaitingForService { .. }
                    | E::ServiceHeld { .. }
                    | E::Paused { .. }
                    | E::NoProcessor
                    | E::Orphaned { .. }
            ),
            State::Running => matches!(explanation, E::Running { .. } | E::Lapsed { .. }),
            State::Failing => matches!(explanation, E::Failing { .. } | E::Unknown { .. }),
            State::Parked => matches!(explanation, E::Parked { .. }),
            State::Expired => matches!(explanation, E::Expired { .. }),
        }
    }
}

/// Which rows of a model somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) state: State,
    pub(crate) code: Option<String>,
    pub(crate) user: Option<String>,
    /// Last submitted then or before.
    pub(crate) before: Option<Moment>,
    /// As they were then: what has changed between it and the second instant, which is now, is left out.
    pub(crate) seen: Option<(Moment, Moment)>,
}

impl Selection {
    pub(crate) fn of(state: State) -> Self {
        Selection { state, code: None, user: None, before: None, seen: None }
    }

    /// It asks for what no index orders.
    fn is_narrow(&self) -> bool {
        self.code.is_some() || self.user.is_some()
    }

    /// Only what has failed has a cause, and not every model names its rows' users.
    fn may_be_in<M: Asyncable>(&self, source: Source) -> bool {
        (self.user.is_none() || M::COLUMNS.user.is_some())
            && (self.code.is_none() || matches!(source, Source::Entries(..)))
    }
}

/// A place in one of a list's sources: after this instant and id.
pub(crate) type Key = (Moment, String);

/// A place in a list: in each of its sources.
pub(crate) type Cursor = Vec<Option<Key>>;

/// Rows on a page.
pub(crate) const PAGE: usize = 50;
/// Rows that are looked at for a page of a narrow list, at most: it then answers with what it has found.
const LOOK: u32 = 5_000;

/// A page of a list.
#[derive(Clone, Debug)]
pub(crate) struct List {
    pub(crate) lines: Vec<Line>,
    /// Where the next page begins, if there may be one.
    pub(crate) next: Option<Cursor>,
}

/// Lists `most` rows of a model, the oldest submission first; due and failing ones by their next try.
pub(crate) fn list<M, C>(
    conn: &mut C,
    now: Moment,
    alive: Duration,
    selection: &Selection,
    after: Option<&Cursor>,
    most: usize,
) -> QueryResult<List>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let around = Around::of::<M, C>(conn, now, alive)?;
    let (ids, next) = ids::<M, C>(conn, around.instants(), selection, after, most)?;
    let parsed: Vec<M::Id> = ids.iter().filter_map(|id| id.parse().ok()).collect();
    let mut lines = explain::lines::<M, C>(conn, &parsed, &around)?;
    let place = |id: &str| ids.iter().position(|known| known == id);
    lines.sort_by_key(|line| place(&line.id));
    Ok(List { lines, next })
}

/// Rows by their id, or by their subject: the oldest first, at most a page. The host's own index serves
/// the latter, if there is one.
pub(crate) fn find<M, C>(
    conn: &mut C,
    what: &str,
    id: Option<M::Id>,
    now: Moment,
    alive: Duration,
) -> QueryResult<List>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let mut ids: Vec<M::Id> = id.into_iter().collect();
    let columns = M::COLUMNS;
    if let Some(is_about) =
        named::<C::Backend>(columns.subject, columns.subject_type, "$what", what)
    {
        let sql =
            format!("SELECT {{id text}} FROM {{m}} WHERE {is_about} ORDER BY {{id}} LIMIT {PAGE}");
        let rows = Statement::of::<M>(&sql, vec![("what", what.into())])?.load(conn)?;
        for row in rows {
            ids.extend(row.text(0)?.parse().ok());
        }
    }
    let around = Around::of::<M, C>(conn, now, alive)?;
    Ok(List { lines: explain::lines::<M, C>(conn, &ids, &around)?, next: None })
}

/// Whether a column of the host's has this text, asked so that an index on the column serves it; nothing, if
/// it can have no such value.
pub(crate) fn named<DB: Dialect>(
    column: Option<&'static str>,
    keeps: KeyType,
    bind: &str,
    text: &str,
) -> Option<String> {
    let column = format!("{{m}}.{}", quoted::<DB>(column?));
    // One spelling of each: `+7` and `07` are not 7.
    let fits = match keeps {
        KeyType::Text => !text.contains('\0') && !text.is_empty(),
        KeyType::Integer | KeyType::BigInt => {
            text.parse::<i64>().is_ok_and(|number| number.to_string() == text)
        }
        #[cfg(feature = "uuid")]
        KeyType::Uuid => uuid::Uuid::parse_str(text).is_ok_and(|id| id.to_string() == text),
        #[cfg(not(feature = "uuid"))]
        KeyType::Uuid => false,
    };
    // An integer may be larger than the column's: then it is no row's, and no error.
    let wide = match keeps {
        KeyType::Integer => KeyType::BigInt,
        other => other,
    };
    fits.then(|| format!("{column} = {}", DB::id_from_text(bind, wide)))
}

/// The ids of a page's rows, and where the next one begins.
pub(crate) fn ids<M, C>(
    conn: &mut C,
    instants: &Instants,
    selection: &Selection,
    after: Option<&Cursor>,
    limit: usize,
) -> QueryResult<(Vec<String>, Option<Cursor>)>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let sources = sources(selection.state);
    let mut cursor = after.cloned().unwrap_or_default();
    cursor.resize(sources.len(), None);
    let (mut keys, mut ends) = (Vec::new(), Vec::new());
    for (index, (source, from)) in sources.iter().zip(&cursor).enumerate() {
        let found = look::<M, C>(conn, instants, *source, selection, from.as_ref(), limit + 1)?;
        keys.extend(found.keys.into_iter().map(|key| (key, index)));
        ends.push(found.on);
    }
    keys.sort_by_key(|((at, _), index)| (*at, *index));
    let left: Vec<usize> = keys.iter().skip(limit).map(|(_, index)| *index).collect();
    keys.truncate(limit);
    for (key, index) in &keys {
        cursor[*index] = Some(key.clone());
    }
    let mut more = !left.is_empty();
    for (index, on) in ends.into_iter().enumerate().filter(|(index, _)| !left.contains(index)) {
        if on.is_some() {
            (cursor[index], more) = (on, true);
        }
    }
    let mut ids: Vec<String> = Vec::with_capacity(keys.len());
    for ((_, id), _) in keys {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok((ids, more.then_some(cursor)))
}

/// Where a state's rows are found: never attempted ones, those that an entry speaks of, or claimed ones.
#[derive(Clone, Copy)]
enum Source {
    Fresh(&'static str),
    /// The entries, their order's column, and what is asked of the row.
    Entries(&'static str, &'static str, &'static str),
    /// What is asked of the claim; its rows are no more than the hosts hold.
    Claimed(&'static str),
}

fn sources(state: State) -> &'static [Source] {
    const OPEN: &str = " AND {L} > $expiry:L";
    const EXPIRED_FRESH: Source = Source::Fresh(scope::EXPIRED_FRESH);
    const EXPIRED: Source =
        Source::Entries("r.last_submitted_at <= $expiry", "r.last_submitted_at", "");
    // Those that are expired as well are among the expired ones.
    const PARKED: Source = Source::Entries(
        "r.kind = 'permanent' AND r.last_submitted_at > $expiry",
        "r.last_submitted_at",
        "",
    );
    match state {
        State::NeedsYou => &[EXPIRED_FRESH, EXPIRED, PARKED],
        State::NotDone => &[
            Source::Fresh("{open} AND {A} IS NULL AND {L} IS NOT NULL"),
            Source::Entries("r.last_submitted_at IS NOT NULL", "r.last_submitted_at", ""),
            Source::Claimed("c.expires_at IS NOT NULL"),
        ],
        State::Scheduled => &[Source::Fresh(SCHEDULED)],
        State::Due => {
            const DUE: &str = "r.due_at <= $now AND r.last_submitted_at > $expiry";
            &[Source::Fresh(FRESH), Source::Entries(DUE, "r.due_at", OPEN)]
        }
        State::Running => &[Source::Claimed("c.expires_at > $now")],
        State::Failing => &[Source::Entries("r.due_at > $now", "r.due_at", OPEN)],
        State::Parked => &[PARKED],
        State::Expired => &[EXPIRED_FRESH, EXPIRED],
    }
}

/// What has not expired, by its last submission: never attempted, and failing.
const OPEN_SOURCES: [Source; 2] = [
    Source::Fresh("{open} AND {A} IS NULL AND {L} > $expiry:L"),
    Source::Entries(
        "r.last_submitted_at > $expiry AND r.kind <> 'permanent'",
        "r.last_submitted_at",
        "",
    ),
];

fn binds<DB: Dialect>(
    instants: &Instants,
    selection: &Selection,
    after: Option<&Key>,
) -> Vec<(&'static str, Value<DB>)> {
    let long_ago = Moment::from_naive(DateTime::UNIX_EPOCH.naive_utc());
    let text = |text: Option<&str>| Value::from(text.unwrap_or_default());
    vec![
        ("now", Value::Time(instants.now)),
        ("fresh", Value::Time(instants.fresh)),
        ("expiry", Value::Time(instants.expiry)),
        ("at", Value::Time(after.map_or(long_ago, |(at, _)| *at))),
        ("id", text(after.map(|(_, id)| id.as_str()))),
        ("before", Value::Time(selection.before.unwrap_or(long_ago))),
        ("seen", Value::Time(selection.seen.map_or(long_ago, |(seen, _)| seen))),
        ("present", Value::Time(selection.seen.map_or(long_ago, |(_, now)| now))),
        ("code", text(selection.code.as_deref())),
        ("user", text(selection.user.as_deref())),
    ]
}

/// What one source has.
struct Found {
    keys: Vec<Key>,
    /// Fewer than asked for, since enough rows were looked at: it goes on after this.
    on: Option<Key>,
}

fn look<M, C>(
    conn: &mut C,
    instants: &Instants,
    source: Source,
    selection: &Selection,
    after: Option<&Key>,
    limit: usize,
) -> QueryResult<Found>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    if !selection.may_be_in::<M>(source) {
        return Ok(Found { keys: Vec::new(), on: None });
    }
    let mut load = |sql: &str| -> QueryResult<Vec<Key>> {
        let rows = Statement::of::<M>(sql, binds(instants, selection, after))?.load(conn)?;
        rows.iter().map(|row| Ok((row.time(0)?, row.text(1)?))).collect()
    };
    let scan = Scan::of::<M, C::Backend>(source, selection);
    // A planner that has to do with less does better; mostly nearly all of a range's rows match.
    let few = u32::try_from(4 * limit).unwrap_or(LOOK);
    let mut looked = if selection.is_narrow() { LOOK } else { few.min(LOOK) };
    loop {
        let matching = scan.matching(looked);
        let sql = format!("SELECT r.at, r.row_id {matching} ORDER BY r.at, r.row_id LIMIT {limit}");
        let keys = load(&sql)?;
        if keys.len() >= limit {
            return Ok(Found { keys, on: None });
        }
        let last = load(&format!("{} LIMIT 1 OFFSET {}", scan.range(), looked - 1))?;
        if last.is_empty() || looked == LOOK {
            return Ok(Found { keys, on: last.into_iter().next() });
        }
        looked = LOOK;
    }
}

/// How a source's rows are found, as SQL: a range of an index in its order, and what is asked of the rows
/// in it.
struct Scan {
    columns: String,
    table: String,
    range: String,
    order: &'static str,
    /// What tells rows of the same place apart.
    ties: &'static str,
    join: &'static str,
    rows: String,
    /// What only a narrow list asks.
    narrow: String,
}

impl Scan {
    fn of<M, DB>(source: Source, selection: &Selection) -> Self
    where
        DB: Dialect,
        M: Stored<DB>,
    {
        let user = match M::COLUMNS.user {
            Some(column) => format!("CAST({{m}}.{} AS TEXT)", quoted::<DB>(column)),
            None => "''".to_owned(),
        };
        let before = if selection.before.is_some() { " AND {L} <= $before:L" } else { "" };
        let seen = |text| if selection.seen.is_some() { text } else { "" };
        let code = if selection.code.is_some() { " AND r.code = $code" } else { "" };
        let who = |who: &str| match selection.user {
            Some(_) => format!(" AND {who} = $user"),
            None => String::new(),
        };
        let of_rows = |range: String, table, order| Scan {
            columns: format!(
                "{{utc L}} AS at, {{id text}} AS row_id, {{utc L}} AS last_submitted_at, '' AS code, \
                 {user} AS who"
            ),
            table,
            range,
            order,
            ties: "{id text}",
            join: "",
            rows: "1 = 1".to_owned(),
            narrow: format!("{code}{}", who("r.who")),
        };
        match source {
            Source::Fresh(rows) => {
                let seen = seen(" AND ({L} <= $seen:L OR {L} > $present:L)");
                let range = format!(
                    "{rows} AND {{L}} >= $at:L AND NOT ({{L}} = $at:L AND {{id text}} <= $id){before}{seen}"
                );
                of_rows(range, "{m}".to_owned(), "{A}, {L}")
            }
            Source::Claimed(claims) => {
                let seen = seen(" AND {A} <= $seen:A");
                let range = format!(
                    "c.model = {{model}} AND {claims} AND {{utc L}} >= $at \
                     AND NOT ({{utc L}} = $at AND {{id text}} <= $id){before}{seen}"
                );
                let table = format!("asyncable_claims c {CLAIMS_ROW}");
                of_rows(range, table, "{L}")
            }
            Source::Entries(entries, key, and) => {
                let seen = seen(" AND r.last_submitted_at <= $seen AND r.last_failed_at <= $seen");
                let of_age = match selection.before {
                    Some(_) if key == "r.last_submitted_at" => {
                        " AND r.last_submitted_at <= $before"
                    }
                    _ => "",
                };
                Scan {
                    columns: format!(
                        "{key} AS at, r.row_id AS row_id, r.attempted_at AS attempted_at, \
                         r.last_submitted_at AS last_submitted_at, r.code AS code"
                    ),
                    table: "asyncable_retries r".to_owned(),
                    range: format!(
                        "r.model = {{model}} AND {entries} AND {key} >= $at \
                         AND NOT ({key} = $at AND r.row_id <= $id){of_age}{seen}"
                    ),
                    order: key,
                    ties: "r.row_id",
                    join: ENTRYS_ROW,
                    rows: format!("1 = 1{and}{before}"),
                    narrow: format!("{code}{}", who(&user)),
                }
            }
        }
    }

    /// What is looked at, in its order.
    fn range(&self) -> String {
        let Scan { columns, table, range, order, ties, .. } = self;
        format!("SELECT {columns} FROM {table} WHERE {range} ORDER BY {order}, {ties}")
    }

    /// Those that match among the first `looked` of the range, to select from.
    fn matching(&self, looked: u32) -> String {
        let (range, Scan { join, rows, narrow, .. }) = (self.range(), self);
        format!("FROM ({range} LIMIT {looked}) r {join} WHERE {rows}{narrow}")
    }

    /// As `matching`, to be counted: which of the last ones are among the first does not matter.
    fn counted(&self, looked: u32) -> String {
        let Scan { columns, table, range, order, join, rows, narrow, .. } = self;
        format!(
            "FROM (SELECT {columns} FROM {table} WHERE {range} ORDER BY {order} LIMIT {looked}) r {join} \
             WHERE {rows}{narrow}"
        )
    }
}

/// Rows of a selection that stand alike, for a preview.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Nothing, for those that never failed.
    pub(crate) code: Option<String>,
    pub(crate) rows: u32,
    pub(crate) oldest: Option<DateTime<Utc>>,
}

/// What a selection has, by cause: of each source at most [`Counts::MOST`] are counted.
pub(crate) fn groups<M, C>(
    conn: &mut C,
    instants: &Instants,
    selection: &Selection,
) -> QueryResult<Vec<Group>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let mut groups: Vec<Group> = Vec::new();
    let sources = sources(selection.state).iter().copied();
    for source in sources.filter(|source| selection.may_be_in::<M>(*source)) {
        let counted = Scan::of::<M, C::Backend>(source, selection).counted(Counts::MOST);
        let sql = format!(
            "SELECT r.code, count(*), min(r.last_submitted_at) {counted} GROUP BY r.code \
             ORDER BY count(*) DESC, r.code LIMIT 1000"
        );
        for row in Statement::of::<M>(&sql, binds(instants, selection, None))?.load(conn)? {
            let code = Some(row.text(0)?).filter(|code| !code.is_empty());
            let rows = row.int(1)?.try_into().unwrap_or(Counts::MOST);
            let oldest = row.maybe_time(2)?.map(|at| at.zoned);
            match groups.iter_mut().find(|group| group.code == code) {
                Some(group) => {
                    group.rows = (group.rows + rows).min(Counts::MOST);
                    group.oldest = group.oldest.min(oldest);
                }
                None => groups.push(Group { code, rows, oldest }),
            }
        }
    }
    Ok(groups)
}

/// What a model's part of the overview shows.
#[derive(Clone, Debug)]
pub(crate) struct ModelOverview {
    pub(crate) model: &'static str,
    pub(crate) counts: Counts,
    /// Parked and failing ones, by cause.
    pub(crate) parked: Vec<Group>,
    pub(crate) failing: Vec<Group>,
    pub(crate) oldest_due: Option<DateTime<Utc>>,
    /// When the first row expires that is not done by then.
    pub(crate) first_expires_at: Option<DateTime<Utc>>,
    /// The last day's ten minutes, the oldest first.
    pub(crate) day: Vec<Bucket>,
    /// Those that are alive and work on it.
    pub(crate) hosts: Vec<HostLine>,
}

/// The rows of groups, as far as they are counted.
pub(crate) fn total(groups: &[Group]) -> u32 {
    groups.iter().map(|group| group.rows).sum::<u32>().min(Counts::MOST)
}

/// The rows of a model that wait for a service: of its counts, those that are due and that fail.
pub(crate) fn waits<M, C>(conn: &mut C, now: Moment) -> QueryResult<Counts>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let around = Around::of::<M, C>(conn, now, Duration::ZERO)?;
    let failing = groups::<M, C>(conn, around.instants(), &Selection::of(State::Failing))?;
    let due = counts::due_at::<M, C>(conn, around.instants())?;
    Ok(Counts { due, failing: total(&failing), ..Counts::default() })
}

/// The half of a model's overview that says why rows stand still, and when the first one is lost.
#[derive(Clone, Debug)]
pub(crate) struct Causes {
    parked: Vec<Group>,
    failing: Vec<Group>,
    first_expires_at: Option<DateTime<Utc>>,
}

pub(crate) fn causes<M, C>(conn: &mut C, now: Moment) -> QueryResult<Causes>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let around = Around::of::<M, C>(conn, now, Duration::ZERO)?;
    let instants = around.instants();
    let parked = groups::<M, C>(conn, instants, &Selection::of(State::Parked))?;
    let failing = groups::<M, C>(conn, instants, &Selection::of(State::Failing))?;
    let mut first = None;
    for open in OPEN_SOURCES {
        let oldest = look::<M, C>(conn, instants, open, &Selection::of(State::Due), None, 1)?;
        first = first.into_iter().chain(oldest.keys.into_iter().map(|(at, _)| at)).min();
    }
    let first_expires_at = first.map(|at| around.window_ends::<M>(at));
    Ok(Causes { parked, failing, first_expires_at })
}

/// The other half: the rest of its counts, and what was done.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    counts: Counts,
    oldest_due: Option<DateTime<Utc>>,
    day: Vec<Bucket>,
    hosts: Vec<HostLine>,
}

pub(crate) fn flow<M, C>(conn: &mut C, now: Moment, alive: Duration) -> QueryResult<Flow>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let around = Around::of::<M, C>(conn, now, Duration::ZERO)?;
    let instants = around.instants();
    let counts = counts::but::<M, C>(conn, instants, 0, 0)?;
    let (due, fresh) = (Selection::of(State::Due), Source::Fresh(FRESH));
    let oldest = look::<M, C>(conn, instants, fresh, &due, None, 1)?;
    let oldest_due = oldest.keys.first().map(|(at, _)| at.zoned);
    let day = buckets::last(conn, M::COLUMNS.name, 144, now)?;
    let hosts = "SELECT host, seen_at, paused FROM asyncable_hosts WHERE model = $model \
                 AND seen_at > $since ORDER BY seen_at DESC LIMIT 100";
    let since = Value::Time(now.minus(alive));
    let binds = vec![("model", M::COLUMNS.name.into()), ("since", since)];
    let hosts = Statement::plain(hosts, binds)?.load(conn)?;
    let hosts = hosts.iter().map(host).collect::<QueryResult<_>>()?;
    Ok(Flow { counts, oldest_due, day, hosts })
}

impl ModelOverview {
    pub(crate) fn of(model: &'static str, causes: Causes, flow: Flow) -> Self {
        let Causes { parked, failing, first_expires_at } = causes;
        let Flow { counts, oldest_due, day, mut hosts } = flow;
        hosts.sort_by(|one, other| one.host.cmp(&other.host));
        let counts = Counts { parked: total(&parked), failing: total(&failing), ..counts };
        ModelOverview { model, counts, parked, failing, oldest_due, first_expires_at, day, hosts }
    }
}

/// A step of its submission.
#[derive(Clone, Debug)]
pub(crate) struct StepLine {
    pub(crate) name: String,
    /// As JSON, the beginning of it; nothing, where it is not known to have ended. May hold personal data.
    pub(crate) result: Option<String>,
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
    pub(crate) past: Past,
}

/// What is kept of a row, also when it is gone.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) steps: Vec<StepLine>,
    pub(crate) tries: Vec<Try>,
    /// The first of these is its last one.
    pub(crate) newest: bool,
    /// Where older ones begin, if there are some.
    pub(crate) older: Option<Moment>,
    pub(crate) notes: Vec<Entry>,
    pub(crate) actions: Vec<Entry>,
}

impl Past {
    pub(crate) fn is_empty(&self) -> bool {
        self.tries.is_empty() && self.notes.is_empty() && self.actions.is_empty()
    }
}

/// A row as it stands; nothing, if there is none.
pub(crate) fn row<M, C>(
    conn: &mut C,
    id: &M::Id,
    now: Moment,
    alive: Duration,
) -> QueryResult<Option<Line>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let around = Around::of::<M, C>(conn, now, alive)?;
    let lines = explain::lines::<M, C>(conn, std::slice::from_ref(id), &around)?;
    Ok(lines.into_iter().next())
}

/// The most of a step's result that is read, in characters.
const RESULT: usize = 1000;

/// What is kept of a row. `before`: of its tries, those that began before then.
pub(crate) fn past<C>(
    conn: &mut C,
    model: &str,
    row_id: &str,
    before: Option<Moment>,
) -> QueryResult<Past>
where
    C: LoadConnection<Backend: Dialect>,
{
    let binds = || vec![("model", model.into()), ("row", row_id.into())];
    let steps = format!(
        "SELECT name, substr(result, 1, {RESULT}), tries FROM asyncable_steps WHERE model = $model \
         AND row_id = $row AND generation = (SELECT max(generation) FROM asyncable_steps \
         WHERE model = $model AND row_id = $row) \
         ORDER BY CASE WHEN result IS NULL THEN 1 ELSE 0 END, find_after, name LIMIT 200"
    );
    let steps = Statement::plain(&steps, binds())?.load(conn)?;
    let step = |row: &Record| {
        Ok(StepLine { name: row.text(0)?, result: row.maybe_text(1)?, tries: row.int(2)? })
    };
    let (tries, older) = tries::of_row(conn, model, row_id, before)?;
    let notes = "SELECT at, who, NULL, model, row_id, NULL, note FROM asyncable_notes \
                 WHERE model = $model AND row_id = $row ORDER BY at DESC, id DESC LIMIT 100";
    let notes = Statement::plain(notes, binds())?.load(conn)?;
    let actions = "SELECT at, who, action, target, row_id, count, reason FROM asyncable_actions \
                   WHERE target = $model AND row_id = $row ORDER BY at DESC, id DESC LIMIT 100";
    let actions = Statement::plain(actions, binds())?.load(conn)?;
    Ok(Past {
        steps: steps.iter().map(step).collect::<QueryResult<_>>()?,
        tries,
        newest: before.is_none(),
        older,
        notes: notes.iter().map(entry).collect::<QueryResult<_>>()?,
        actions: actions.iter().map(entry).collect::<QueryResult<_>>()?,
    })
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
    /// All of what it works on is paused there.
    pub(crate) paused: bool,
}

fn host(row: &Record) -> QueryResult<HostLine> {
    Ok(HostLine { host: row.text(0)?, seen_at: row.time(1)?.zoned, paused: row.flag(2)? })
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
    /// The last tries of the service that is asked for.
    pub(crate) probes: Vec<Probe>,
    /// Models that are paused in all processes.
    pub(crate) pauses: Vec<(String, Paused)>,
    /// Models that others work on, as far as those have been heard of in the last week.
    pub(crate) models: Vec<String>,
}

/// `about`: the service or model whose outages and actions are asked for.
pub(crate) fn house<C>(
    conn: &mut C,
    names: &[&str],
    about: Option<&str>,
    now: Moment,
    alive: Duration,
) -> QueryResult<House>
where
    C: LoadConnection<Backend: Dialect>,
{
    let services = service::read(conn, names, now, false)?;
    let hosts = "SELECT host, max(seen_at), min(paused) FROM asyncable_hosts WHERE seen_at > $since \
                 GROUP BY host ORDER BY host LIMIT 100";
    let hosts =
        Statement::plain(hosts, vec![("since", Value::Time(now.minus(alive)))])?.load(conn)?;
    let models = "SELECT DISTINCT model FROM asyncable_hosts ORDER BY model LIMIT 100";
    let models = Statement::plain(models, vec![])?.load(conn)?;
    let which = if about.is_some() { "WHERE target = $about AND row_id IS NULL" } else { "" };
    let lately = format!(
        "SELECT at, who, action, target, row_id, count, reason FROM asyncable_actions {which} \
         ORDER BY at DESC, id DESC LIMIT 12"
    );
    let binds = || vec![("about", Value::from(about.unwrap_or_default()))];
    let lately = Statement::plain(&lately, binds())?.load(conn)?;
    // A service's own, or all of the last day.
    let which = if about.is_some() { "service = $about" } else { "until IS NULL OR until > $day" };
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
        probes: about.map_or(Ok(Vec::new()), |service| tries::probes(conn, service))?,
        pauses: pause::all(conn)?,
        models: models.iter().map(|row| row.text(0)).collect::<QueryResult<_>>()?,
    })
}
