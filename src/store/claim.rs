//! The claim: takes due rows by writes that only one host can win.
//!
//! The rows of one claim share a token, their new `attempted_at`: unique for ever, above every token
//! committed before, even if the clock went back. Whoever holds the token owns the rows, and every later
//! write of the attempt is guarded by it.
//!
//! Two arms, each of which reads only what it takes: **fresh** rows, and **retries** whose wait is over.
//! Which goes first alternates, or under constant load the other starves until its rows expire. The net
//! below them are the **orphans**, searched once a sweep.
//!
//! Of a model whose service is down one row is claimed, or none: see [`service`]. Every statement, and what
//! breaks without its parts, is in `docs/protocol.md`, Claim and Orphans.

use std::marker::PhantomData;

use diesel::{
    QueryResult,
    connection::LoadConnection,
    result::{DatabaseErrorKind, Error},
    row::Row,
};

use super::{
    Dialect, Moment,
    cell::Record,
    dialect::DialectParts,
    service::{self, Permit, Standing},
    statement::{ReadRow, Statement, Value, padded},
    submit::FromStrOrNotFound,
    trouble::{is_broken, within},
};
use crate::{
    asyncable::{Asyncable, Stored},
    scope::{ENTRYS_ROW, FRESH, Instants},
    service::Service,
};

/// What a claim may take.
#[derive(Clone, Debug)]
pub(crate) struct Claiming {
    pub(crate) now: Moment,
    /// The lease's end.
    pub(crate) expires_at: Moment,
    pub(crate) host: std::sync::Arc<str>,
    /// Rows at most; between 1 and 256.
    pub(crate) limit: usize,
    pub(crate) retries_first: bool,
    /// What the model's processor calls.
    pub(crate) services: std::sync::Arc<[Service]>,
    /// Rows, by id, that could not be written lately: left alone for a while.
    pub(crate) shunned: std::sync::Arc<[String]>,
    /// Row by row, after a first try has failed: one of them may not be written.
    pub(crate) careful: bool,
}

/// A claimed row, beside the row itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold<K> {
    pub(crate) id: K,
    /// Proves the claim when the attempt is settled.
    pub(crate) token: Moment,
    /// The text of `last_submitted_at` as the claim saw it: an outcome counts for this submission only.
    pub(crate) seen: String,
    /// `last_submitted_at`.
    pub(crate) last_submitted_at: Moment,
    /// `submitted_at`: the generation, of which the idempotency key is made.
    pub(crate) submitted_at: Option<Moment>,
    /// Failed attempts of this submission before this one.
    pub(crate) failures: u32,
    /// How many of the last of them, in a row, ended their process or panicked.
    pub(crate) crashes: u32,
}

impl<K> Hold<K> {
    /// Which submission it is: `submitted_at` in microseconds since 1970.
    pub(crate) fn generation(&self) -> i64 {
        self.submitted_at.unwrap_or(self.last_submitted_at).epoch_micros()
    }
}

/// A claimed row.
#[derive(Debug)]
pub(crate) struct Claimed<K, R> {
    pub(crate) hold: Hold<K>,
    /// The host's row as of its claim; the text is why it could not be read.
    pub(crate) row: Result<R, String>,
}

/// What a claim took.
#[derive(Debug)]
pub(crate) struct Claims<K, R> {
    pub(crate) claimed: Vec<Claimed<K, R>>,
    /// Entries of `asyncable_retries` that no longer spoke of a claimable row.
    pub(crate) put_aside: usize,
    /// Rows, by id, that were found to have expired while they waited.
    pub(crate) expired: Vec<String>,
    /// Rows that the database does not let anybody attempt, and why: a constraint or trigger of the host's.
    pub(crate) refused: Vec<(String, String)>,
    /// Where the model's services stand, if the claim has asked.
    pub(crate) standing: Option<Standing>,
}

impl<K, R> Claims<K, R> {
    pub(crate) fn none() -> Self {
        let (claimed, expired, refused) = (Vec::new(), Vec::new(), Vec::new());
        Claims { claimed, put_aside: 0, expired, refused, standing: None }
    }

    /// Nothing due is left behind only if nothing was claimed and nothing was put aside: the claim may
    /// have found nothing but entries to put aside, or rows to leave alone, with claimable ones behind them.
    pub(crate) fn drained(&self) -> bool {
        self.claimed.is_empty() && self.put_aside == 0 && self.refused.is_empty()
    }
}

/// Claims due rows, in the caller's write transaction.
pub(crate) fn claim<M, C>(conn: &mut C, claiming: &Claiming) -> QueryResult<Claims<M::Id, M>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let standing = service::standing(conn, &claiming.services, claiming.now, M::POLICY.open_for())?;
    let instants = Instants::with_outages(claiming.now, &M::POLICY, &standing.outages);
    let mut claims = Claims::none();
    let (most, probe) = match standing.permit {
        Permit::None => (0, false),
        // New rows first: each time another one asks.
        Permit::Probe(_) => (1, true),
        Permit::All => (claiming.limit, false),
    };
    if most == 0 {
        claims.standing = Some(standing);
        return Ok(claims);
    }
    // Most claims of a model with little work find nothing: they are to write nothing, and wait for no disk.
    let there_may_be =
        if probe { [true, true] } else { anything_due::<M, C>(conn, claiming, &instants)? };
    if there_may_be == [false, false] {
        claims.standing = Some(standing);
        return Ok(claims);
    }
    let token = reserve::<M, C>(conn, claiming)?;
    let retries_first = claiming.retries_first && !probe;
    for retries in [retries_first, !retries_first] {
        if !there_may_be[usize::from(retries)] {
            continue;
        }
        let room = most.saturating_sub(claims.claimed.len());
        if room == 0 {
            break;
        }
        // Powers of two: few distinct statements, each prepared once.
        let limit = 1 << room.ilog2();
        if retries {
            let asks = probe.then(|| Asks::of(claiming, &standing));
            claim_retries::<M, C>(conn, claiming, token, &instants, limit, asks, &mut claims)?;
        } else {
            claim_fresh::<M, C>(conn, claiming, token, &instants, limit, &mut claims)?;
        }
    }
    keep_or_give_back::<M, C>(conn, claiming, token, claims.claimed.is_empty())?;
    if probe && !claims.claimed.is_empty() {
        let (model, services) = (M::COLUMNS.name, &claiming.services);
        service::take_probe(conn, model, token, services, &standing, claiming.now)?;
    }
    claims.standing = Some(standing);
    Ok(claims)
}

/// Whether there are fresh rows, and entries whose wait is over.
fn anything_due<M, C>(
    conn: &mut C,
    claiming: &Claiming,
    instants: &Instants,
) -> QueryResult<[bool; 2]>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let but = But::of::<M>(claiming)?;
    // Scalars, not EXISTS: there PostgreSQL leaves out the order, and may read the table instead of the index.
    let sql = format!(
        "SELECT (SELECT 1 FROM {{m}} WHERE {FRESH}{} ORDER BY {{A}}, {{L}} LIMIT 1), \
         (SELECT 1 FROM asyncable_retries WHERE model = {{model}} AND due_at <= $now{} \
         ORDER BY due_at LIMIT 1)",
        but.rows, but.entries
    );
    let mut binds = vec![
        ("now", Value::Time(instants.now)),
        ("fresh", Value::Time(instants.fresh)),
        ("expiry", Value::Time(instants.expiry)),
    ];
    binds.extend(but.binds);
    let row = Statement::of::<M>(&sql, binds)?.first(conn)?;
    row.map_or(Ok([false, false]), |row| {
        Ok([row.maybe_int(0)?.is_some(), row.maybe_int(1)?.is_some()])
    })
}

/// A token above every one committed so far. On PostgreSQL it is reserved by inserting its lease; on
/// SQLite nobody else writes meanwhile.
fn reserve<M, C>(conn: &mut C, claiming: &Claiming) -> QueryResult<Moment>
where
    C: LoadConnection<Backend: Dialect>,
    M: Asyncable,
{
    let model = M::COLUMNS.name;
    if !C::Backend::CONCURRENT_CLAIMS {
        let last = "SELECT max(claimed_at) FROM asyncable_claims WHERE model = $model";
        let last = Statement::plain(last, vec![("model", model.into())])?.first(conn)?;
        let last = last.map(|row| row.maybe_time(0)).transpose()?.flatten();
        return Ok(last.map_or(claiming.now, |last| claiming.now.max(last.next())));
    }
    let reserve = "INSERT INTO asyncable_claims (model, claimed_at, host, expires_at) \
         SELECT $model, GREATEST($now, (SELECT max(claimed_at) + interval '1 microsecond' \
         FROM asyncable_claims WHERE model = $model)), $host, $expires_at \
         ON CONFLICT DO NOTHING RETURNING claimed_at";
    let mut now = claiming.now;
    // Another host may take the same microsecond at the same time; each round is one later.
    for _ in 0..100 {
        let binds = vec![
            ("model", model.into()),
            ("now", Value::Time(now)),
            ("host", (&*claiming.host).into()),
            ("expires_at", Value::Time(claiming.expires_at)),
        ];
        if let Some(row) = Statement::plain(reserve, binds)?.first(conn)? {
            return row.time(0);
        }
        now = now.next();
    }
    let message = format!("no token could be reserved for {model} in 100 rounds");
    Err(Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message)))
}

/// Leaves out the rows that are shunned.
pub(super) struct But<DB: Dialect> {
    /// Of the model's table, and of `asyncable_retries`: nothing, if none is.
    pub(super) rows: &'static str,
    pub(super) entries: &'static str,
    pub(super) binds: Vec<(&'static str, Value<DB>)>,
}

impl<DB: Dialect> But<DB> {
    pub(super) fn of<M: Stored<DB>>(claiming: &Claiming) -> QueryResult<Self> {
        if claiming.shunned.is_empty() {
            return Ok(But { rows: "", entries: "", binds: Vec::new() });
        }
        let shunned = claiming.shunned.iter();
        let ids: QueryResult<Vec<M::Id>> =
            shunned.clone().map(|id| M::Id::from_str_or_not_found(id)).collect();
        let texts = padded(shunned.collect()).into_iter().map(|id| id.as_str().into()).collect();
        Ok(But {
            rows: " AND {id} NOT IN ($shunned)",
            entries: " AND row_id NOT IN ($shunned_texts)",
            binds: vec![
                ("shunned", super::submit::id_list::<M, DB>(&ids?)),
                ("shunned_texts", Value::List(texts)),
            ],
        })
    }
}

fn claim_fresh<M, C>(
    conn: &mut C,
    claiming: &Claiming,
    token: Moment,
    instants: &Instants,
    limit: usize,
    claims: &mut Claims<M::Id, M>,
) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    // MATERIALIZED: a plain sub-select with LIMIT may be run once per row by PostgreSQL, and claims far
    // more than the limit. ORDER BY A first, although it is NULL throughout: PostgreSQL then reads the
    // index in order instead of sorting a million rows.
    let but = But::of::<M>(claiming)?;
    let due = format!(
        "WITH due AS MATERIALIZED (SELECT {{id}} AS id FROM {{m}} WHERE {FRESH}{} \
         ORDER BY {{A}}, {{L}} LIMIT {limit}{{skip locked}})",
        but.rows
    );
    take::<M, C>(conn, &due, claiming.careful, token, instants, || but.binds.clone(), claims)
}

/// Which rows a probe may take before their time: those that the outage keeps waiting. There may be no
/// others, and then nobody would ask.
struct Asks {
    /// Since when the services that it asks are down, the first of them.
    since: Moment,
    /// Until when a call of unknown outcome must have failed to have settled.
    settled: Moment,
    entries: &'static str,
}

impl Asks {
    fn of(claiming: &Claiming, standing: &Standing) -> Self {
        let open = standing.states.iter().filter(|state| state.open);
        let settles = claiming.services.iter().map(Service::settles).max().unwrap_or_default();
        Asks {
            since: open.filter_map(|state| state.since).min().unwrap_or(claiming.now),
            settled: claiming.now.minus(settles),
            // As failures are counted: those that name no service are of the only one.
            entries: match claiming.services.len() {
                1 => {
                    "due_at IS NOT NULL AND (due_at <= $now OR kind = 'unavailable' \
                     OR (last_failed_at >= $since AND (kind = 'transient' \
                     OR (kind = 'unknown' AND last_failed_at <= $settled))))"
                }
                _ => "due_at IS NOT NULL AND (due_at <= $now OR kind = 'unavailable')",
            },
        }
    }

    fn binds<DB: Dialect>(&self) -> [(&'static str, Value<DB>); 2] {
        [("since", Value::Time(self.since)), ("settled", Value::Time(self.settled))]
    }
}

/// Entries that a probe looks at. It puts aside those that no longer speak of a row, and the turn after it
/// looks on.
const PROBED: usize = 64;

fn claim_retries<M, C>(
    conn: &mut C,
    claiming: &Claiming,
    token: Moment,
    instants: &Instants,
    limit: usize,
    asks: Option<Asks>,
    claims: &mut Claims<M::Id, M>,
) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let (due, page, one) = match &asks {
        Some(asks) => (asks.entries, PROBED, " ORDER BY r.due_at LIMIT 1"),
        None => ("due_at <= $now", limit, ""),
    };
    let But { entries: but, binds: shunned, .. } = But::of::<M>(claiming)?;
    let more = || {
        let asks = asks.iter().flat_map(Asks::binds);
        asks.chain(shunned.iter().cloned()).collect::<Vec<_>>()
    };
    let any =
        format!("SELECT 1 FROM asyncable_retries WHERE model = $model AND {due}{but} LIMIT 1");
    let mut binds = vec![("model", M::COLUMNS.name.into()), ("now", Value::Time(instants.now))];
    binds.extend(more());
    if Statement::plain(&any, binds)?.first(conn)?.is_none() {
        return Ok(());
    }
    let these = format!(
        "WITH next AS MATERIALIZED (SELECT row_id, attempted_at, last_submitted_at, due_at \
         FROM asyncable_retries WHERE model = {{model}} AND {due}{but} \
         ORDER BY due_at LIMIT {page}{{skip locked}}), \
         due AS MATERIALIZED (SELECT {{id}} AS id FROM next r {ENTRYS_ROW} \
         WHERE {{L}} > $expiry:L{one}{{of m skip locked}})"
    );
    take::<M, C>(conn, &these, claiming.careful, token, instants, more, claims)?;
    // Put aside what no longer speaks of a row that can be claimed, also what was claimed just now:
    // such entries would pile up in front of the due ones, and of those that a probe may take. It leaves a
    // row that is merely locked.
    let sql = format!(
        "UPDATE asyncable_retries SET due_at = NULL WHERE model = {{model}} AND row_id IN (\
         SELECT row_id FROM asyncable_retries WHERE model = {{model}} AND {due}{but} \
         ORDER BY due_at LIMIT {page}{{skip locked}}) \
         AND NOT EXISTS (SELECT 1 FROM {{m}} WHERE {THE_ENTRYS_ROW} AND {{L}} > $expiry:L) \
         RETURNING row_id, EXISTS (SELECT 1 FROM {{m}} WHERE {THE_ENTRYS_ROW} AND {{L}} <= $expiry:L)"
    );
    let mut binds =
        vec![("now", Value::Time(instants.now)), ("expiry", Value::Time(instants.expiry))];
    binds.extend(more());
    for row in Statement::of::<M>(&sql, binds)?.load(conn)? {
        claims.put_aside += 1;
        if row.flag(1)? {
            claims.expired.push(row.text(0)?);
        }
    }
    Ok(())
}

/// The row that an entry of `asyncable_retries` still speaks of.
const THE_ENTRYS_ROW: &str = "{id} = {id from asyncable_retries.row_id} \
     AND {utc A} = asyncable_retries.attempted_at \
     AND {utc L} = asyncable_retries.last_submitted_at AND {open by key}";

/// What a claim reads of a row: the library's own values first, then the host's.
pub(super) const RETURNING: &str = "RETURNING {id text}, {spelled L}, {L}, {S}, \
     (SELECT r.failures FROM asyncable_retries r WHERE r.model = {model} \
     AND r.row_id = {id text} AND r.submitted_at = {utc S}), \
     (SELECT r.crashes FROM asyncable_retries r WHERE r.model = {model} \
     AND r.row_id = {id text} AND r.submitted_at = {utc S}), {row}";

const OWN: usize = 6;

/// Takes the rows of `due`, a WITH clause that names them. `careful`: one by one, so that a row that may not
/// be written stops no other.
fn take<M, C>(
    conn: &mut C,
    due: &str,
    careful: bool,
    token: Moment,
    instants: &Instants,
    more: impl Fn() -> Vec<(&'static str, Value<C::Backend>)>,
    claims: &mut Claims<M::Id, M>,
) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let binds = || {
        let mut binds = vec![
            ("token", Value::Time(token)),
            ("now", Value::Time(instants.now)),
            ("fresh", Value::Time(instants.fresh)),
            ("retry", Value::Time(instants.retry)),
            ("expiry", Value::Time(instants.expiry)),
        ];
        binds.extend(more());
        binds
    };
    if careful {
        // Locked, or nobody else writes: they stay due until they are taken.
        let these = format!("{due} SELECT CAST(id AS TEXT) FROM due");
        for row in Statement::of::<M>(&these, binds())?.load(conn)? {
            let id = row.text(0)?;
            let key = M::Id::from_str_or_not_found(&id)?;
            let one = format!(
                "UPDATE {{m}} SET {{=A}} = $token:A WHERE {{id}} = $id AND {{open}} {RETURNING}"
            );
            let mut binds = binds();
            binds.push(("id", Value::Id(M::id_fragment(&key))));
            let one = Statement::of::<M>(&one, binds)?;
            take_apart::<M, C>(conn, id, one, token, claims)?;
        }
        return Ok(());
    }
    let sql = format!(
        "{due} UPDATE {{m}} SET {{=A}} = $token:A WHERE {{id}} IN (SELECT id FROM due) {RETURNING}"
    );
    let mut reader = ReadClaimed { token, model: PhantomData::<M> };
    let taken = Statement::of::<M>(&sql, binds())?.load_with(conn, OWN, &mut reader)?;
    let mut taken: Vec<_> = taken.into_iter().flatten().collect();
    // What an UPDATE returns has no order, and the oldest submission has the nearest end of its window.
    taken.sort_by_key(|claimed| claimed.hold.last_submitted_at);
    claims.claimed.append(&mut taken);
    Ok(())
}

/// Takes the row of a statement, or notes why the database refuses that.
fn take_apart<M, C>(
    conn: &mut C,
    id: String,
    one: Statement<C::Backend>,
    token: Moment,
    claims: &mut Claims<M::Id, M>,
) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    let mut reader = ReadClaimed { token, model: PhantomData::<M> };
    match within(conn, |conn| one.load_with(conn, OWN, &mut reader)) {
        Ok(taken) => claims.claimed.extend(taken.into_iter().flatten()),
        Err(error) if is_broken(&error) => return Err(error),
        Err(error) => claims.refused.push((id, error.to_string())),
    }
    Ok(())
}

struct ReadClaimed<M> {
    token: Moment,
    model: PhantomData<M>,
}

impl<M, DB> ReadRow<DB> for ReadClaimed<M>
where
    DB: Dialect,
    M: Stored<DB>,
{
    type Out = Option<Claimed<M::Id, M>>;

    fn read<'a>(&mut self, own: Record, row: &impl Row<'a, DB>) -> QueryResult<Self::Out> {
        let model = M::COLUMNS.name;
        let Ok(id) = M::Id::from_str_or_not_found(&own.text(0)?) else {
            // It stays claimed until its lease lapses; the others go on.
            log::error!(model; "a row of {model} has a key that the model's `type Id` cannot hold");
            return Ok(None);
        };
        let hold = Hold {
            id,
            token: self.token,
            seen: own.text(1)?,
            last_submitted_at: own.maybe_time(2).ok().flatten().unwrap_or(self.token),
            submitted_at: own.maybe_time(3).ok().flatten(),
            failures: own.maybe_int(4)?.unwrap_or(0).try_into().unwrap_or(u32::MAX),
            crashes: own.maybe_int(5)?.unwrap_or(0).try_into().unwrap_or(u32::MAX),
        };
        // One row that does not fit the model must not stop the others.
        let row = M::read_row(row, OWN).map_err(|error| error.to_string());
        Ok(Some(Claimed { hold, row }))
    }
}

/// Ends the claim: a token that took nothing is given back; otherwise ended batches below it are
/// dropped. The highest token stays, so none comes back.
fn keep_or_give_back<M, C>(
    conn: &mut C,
    claiming: &Claiming,
    token: Moment,
    nothing: bool,
) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
    M: Asyncable,
{
    let model = || Value::from(M::COLUMNS.name);
    if nothing {
        if C::Backend::CONCURRENT_CLAIMS {
            let give_back =
                "DELETE FROM asyncable_claims WHERE model = $model AND claimed_at = $token";
            let binds = vec![("model", model()), ("token", Value::Time(token))];
            Statement::plain(give_back, binds)?.execute(conn)?;
        }
        return Ok(());
    }
    if !C::Backend::CONCURRENT_CLAIMS {
        let keep = "INSERT INTO asyncable_claims (model, claimed_at, host, expires_at) \
                    VALUES ($model, $token, $host, $expires_at)";
        let binds = vec![
            ("model", model()),
            ("token", Value::Time(token)),
            ("host", (&*claiming.host).into()),
            ("expires_at", Value::Time(claiming.expires_at)),
        ];
        Statement::plain(keep, binds)?.execute(conn)?;
    }
    let drop_ended = format!(
        "DELETE FROM asyncable_claims WHERE model = $model AND claimed_at IN (SELECT claimed_at \
         FROM asyncable_claims WHERE model = $model AND expires_at IS NULL AND claimed_at < $token{})",
        C::Backend::SKIP_LOCKED
    );
    let binds = vec![("model", model()), ("token", Value::Time(token))];
    Statement::plain(&drop_ended, binds)?.execute(conn)?;
    Ok(())
}

/// Claims a page of orphans: rows whose last attempt is older than the retry interval and that neither a
/// lease nor an entry in `asyncable_retries` speaks of. A foreign worker's attempts, and whatever was
/// lost with the library's own tables.
///
/// The net below everything, once a sweep, `PAGE` index entries from a cursor that wraps: parked rows
/// and long waits lie in this range too, so without a cursor the first page hides the rest.
pub(crate) fn claim_orphans<M, C>(
    conn: &mut C,
    claiming: &Claiming,
    cursor: &mut Option<OrphanCursor>,
    instants: &Instants,
    age: Age,
) -> QueryResult<Claims<M::Id, M>>
where
    C: LoadConnection<Backend: Dialect>,
    M: Stored<C::Backend>,
{
    const PAGE: usize = 1000;
    let range = match age {
        Age::Recent => "{A} > $expiry:A AND {A} < $retry:A",
        Age::Old => "{A} <= $expiry:A",
    };
    let from = match cursor {
        Some(_) => " AND ({A} > $cursor:A OR ({A} = $cursor:A AND {id} > $cursor_id))",
        None => "",
    };
    let page = format!(
        "SELECT {{A}}, {{id text}} FROM {{m}} WHERE {{open}}{from} AND {range} AND {{L}} <= $now:L AND {{L}} > $expiry:L \
         ORDER BY {{A}}, {{id}} LIMIT {PAGE}"
    );
    let mut binds = vec![
        ("now", Value::Time(instants.now)),
        ("retry", Value::Time(instants.retry)),
        ("expiry", Value::Time(instants.expiry)),
    ];
    if let Some(cursor) = cursor.as_ref() {
        binds.push(("cursor", Value::Time(cursor.attempted_at)));
        let id = M::Id::from_str_or_not_found(&cursor.id)?;
        binds.push(("cursor_id", Value::Id(M::id_fragment(&id))));
    }
    let rows = Statement::of::<M>(&page, binds)?.load(conn)?;
    let first = rows.first().map(|row| row.maybe_time(0).ok().flatten());
    let last =
        rows.last().map(|row| Ok::<_, Error>((row.maybe_time(0).ok().flatten(), row.text(1)?)));
    let (Some(first), Some(last)) = (first.flatten(), last.transpose()?) else {
        *cursor = None;
        return Ok(Claims::none());
    };
    let ids: Vec<M::Id> = rows
        .iter()
        .filter_map(|row| row.text(1).ok())
        .filter(|id| !claiming.shunned.contains(id))
        .filter_map(|id| M::Id::from_str_or_not_found(&id).ok())
        .collect();
    *cursor = match last {
        (Some(attempted_at), id) if rows.len() == PAGE && attempted_at >= first => {
            Some(OrphanCursor { attempted_at, id })
        }
        _ => None,
    };
    let token = reserve::<M, C>(conn, claiming)?;
    let mut claims = Claims::none();
    let limit = 1 << claiming.limit.max(1).ilog2();
    for ids in ids.chunks(if claiming.careful { 1 } else { 256 }) {
        let enough = if claiming.careful { limit } else { 1 };
        if claims.claimed.len() >= enough {
            break;
        }
        let sql = format!(
            "WITH due AS MATERIALIZED (SELECT {{id}} AS id FROM {{m}} WHERE {{id}} IN ($ids) AND {{open}} \
             AND {range} AND {{L}} <= $now:L AND {{L}} > $expiry:L \
             AND NOT EXISTS (SELECT 1 FROM asyncable_claims c WHERE c.model = {{model}} \
             AND c.claimed_at = {{utc A}} AND c.expires_at IS NOT NULL) \
             AND NOT EXISTS (SELECT 1 FROM asyncable_retries r WHERE r.model = {{model}} \
             AND r.row_id = {{id text}} AND r.attempted_at = {{utc A}} \
             AND r.last_submitted_at = {{utc L}} AND (r.due_at IS NOT NULL OR r.kind = 'permanent')) \
             LIMIT {limit}{{of m skip locked}}) \
             UPDATE {{m}} SET {{=A}} = $token:A WHERE {{id}} IN (SELECT id FROM due) {RETURNING}"
        );
        let binds = vec![
            ("ids", super::submit::id_list::<M, C::Backend>(ids)),
            ("token", Value::Time(token)),
            ("now", Value::Time(instants.now)),
            ("retry", Value::Time(instants.retry)),
            ("expiry", Value::Time(instants.expiry)),
        ];
        let these = Statement::of::<M>(&sql, binds)?;
        if claiming.careful {
            take_apart::<M, C>(conn, ids[0].to_string(), these, token, &mut claims)?;
            continue;
        }
        let mut reader = ReadClaimed { token, model: PhantomData::<M> };
        let taken = these.load_with(conn, OWN, &mut reader)?;
        claims.claimed.extend(taken.into_iter().flatten());
    }
    if !claims.claimed.is_empty() {
        // More of this page may be left: look at it again.
        *cursor = None;
    }
    keep_or_give_back::<M, C>(conn, claiming, token, claims.claimed.is_empty())?;
    Ok(claims)
}

/// Which orphans to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// Attempted within the window.
    Recent,
    /// Attempted before: submitted again since, by something that left the attempt's instant. Apart, since
    /// expired rows that nobody looks after lie in this range for ever.
    Old,
}

/// How far the search for orphans has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrphanCursor {
    attempted_at: Moment,
    id: String,
}
