//! Services: which are down or held, and who asks them. See `docs/protocol.md`, Services.
//!
//! A claim reads the services of its model in its own transaction. While one is open it may claim one row
//! only, and only if for each open service the time has come and nobody asks it already; it then asks them
//! all at once, or two open services that one model names would wait for each other for ever. The right to
//! ask is leased by the claim's own batch: when its host dies, the right comes free with it.
//!
//! Each host counts failures for itself (`supervisor::gate`); what it finds out is recorded here, by writes
//! that do nothing the second time. A person's hold is apart from the breaker: either keeps rows waiting.

use std::{collections::BTreeMap, time::Duration};

use diesel::{QueryResult, connection::LoadConnection};

use super::{
    Dialect, Moment,
    actions::{self, Action},
    dialect::DialectParts,
    statement::{Statement, Value, padded},
};
use crate::{
    asyncable::{Asyncable, Stored},
    outage::Outage,
    service::Service,
};

/// A service as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceState {
    pub(crate) name: String,
    pub(crate) open: bool,
    /// Since when it was down last.
    pub(crate) since: Option<Moment>,
    pub(crate) closed_at: Option<Moment>,
    pub(crate) next_probe_at: Option<Moment>,
    /// A host asks it now.
    pub(crate) asked: bool,
    pub(crate) probes: u32,
    pub(crate) code: Option<String>,
    pub(crate) held: Option<Held>,
}

/// That a person holds a service down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) since: Moment,
    pub(crate) until: Option<Moment>,
    pub(crate) by: String,
    pub(crate) reason: String,
}

/// What a claim may take of a model's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    All,
    /// One row, which asks these services.
    Probe(Vec<String>),
    None,
}

/// The services of a model, and what follows for its claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) states: Vec<ServiceState>,
    pub(crate) outages: Vec<Outage>,
    pub(crate) permit: Permit,
}

impl Standing {
    pub(crate) fn clear() -> Self {
        Standing { states: Vec::new(), outages: Vec::new(), permit: Permit::All }
    }

    /// When a claim may be allowed that is not now, if that can be told.
    ///
    /// Not where only a row is missing to ask with, nor before whoever asks has its answer: the time to ask
    /// has come then, and a look at it would find the same at once, again and again.
    pub(crate) fn next_at(&self, now: Moment) -> Option<Moment> {
        if self.permit != Permit::None {
            return None;
        }
        let open = || self.states.iter().filter(|state| state.open);
        let probes = open().map(|state| state.next_probe_at);
        let held = self.states.iter().filter_map(|state| Some(state.held.as_ref()?.until));
        let at = probes.chain(held).flatten().max();
        at.filter(|at| *at > now || !open().any(|state| state.asked))
    }
}

/// Reads the services of a model. `window`: how far back outages matter.
pub(crate) fn standing<C>(
    conn: &mut C,
    services: &[Service],
    now: Moment,
    window: Duration,
) -> QueryResult<Standing>
where
    C: LoadConnection<Backend: Dialect>,
{
    let names: Vec<&str> = services.iter().map(Service::name).collect();
    standing_of(conn, &names, now, window, true)
}

/// As [`standing`], by names; `locks`: for a claim, which may take the right to ask.
pub(crate) fn standing_of<C>(
    conn: &mut C,
    names: &[&str],
    now: Moment,
    window: Duration,
    locks: bool,
) -> QueryResult<Standing>
where
    C: LoadConnection<Backend: Dialect>,
{
    if names.is_empty() {
        return Ok(Standing::clear());
    }
    let mut states = read(conn, names, now, false)?;
    if states.is_empty() {
        return Ok(Standing::clear());
    }
    if locks && states.iter().any(|state| state.open) && C::Backend::CONCURRENT_CLAIMS {
        // Somebody else may be about to ask: the right is taken under a lock.
        states = read(conn, names, now, true)?;
    }
    let past = states.iter().any(|state| {
        let over = state.closed_at.is_none_or(|at| at.plus(window).plus(window) > now);
        (state.since.is_some() && (state.open || over)) || state.held.is_some()
    });
    let outages =
        if past { outages(conn, names, now.minus(window.saturating_mul(4)))? } else { Vec::new() };
    let open = || states.iter().filter(|state| state.open);
    let permit = if states.iter().any(|state| state.held.is_some()) {
        Permit::None
    } else if open().next().is_none() {
        Permit::All
    } else if open().all(|state| !state.asked && state.next_probe_at.is_none_or(|at| at <= now)) {
        Permit::Probe(open().map(|state| state.name.clone()).collect())
    } else {
        Permit::None
    };
    Ok(Standing { states, outages, permit })
}

/// What the database knows of services; those it knows nothing of are up, and left out.
pub(crate) fn read<C>(
    conn: &mut C,
    names: &[&str],
    now: Moment,
    lock: bool,
) -> QueryResult<Vec<ServiceState>>
where
    C: LoadConnection<Backend: Dialect>,
{
    if names.is_empty() {
        return Ok(Vec::new()); // PostgreSQL knows no empty list
    }
    let listed = padded(names.to_vec()).into_iter().map(Value::from).collect();
    let lock = if lock { C::Backend::FOR_UPDATE } else { "" };
    let sql = format!(
        "SELECT name, state, since, closed_at, next_probe_at, CASE WHEN EXISTS (SELECT 1 \
         FROM asyncable_claims c WHERE c.model = s.probe_model AND c.claimed_at = s.probe_token \
         AND c.expires_at > $now) THEN 1 ELSE 0 END, probes, code, held_since, held_until, held_by, \
         held_reason FROM asyncable_services s WHERE name IN ($names) ORDER BY name{lock}"
    );
    let binds = vec![("now", Value::Time(now)), ("names", Value::List(listed))];
    let state = |row: &super::cell::Record| {
        let until = row.maybe_time(9)?;
        let holds = until.is_none_or(|until| until > now);
        let held = row.maybe_time(8)?.filter(|_| holds).map(|since| {
            let by = row.maybe_text(10)?.unwrap_or_default();
            let reason = row.maybe_text(11)?.unwrap_or_default();
            Ok::<_, diesel::result::Error>(Held { since, until, by, reason })
        });
        Ok(ServiceState {
            name: row.text(0)?,
            open: row.text(1)? == "open",
            since: row.maybe_time(2)?,
            closed_at: row.maybe_time(3)?,
            next_probe_at: row.maybe_time(4)?,
            asked: row.flag(5)?,
            probes: row.int(6)?.try_into().unwrap_or(u32::MAX),
            code: row.maybe_text(7)?,
            held: held.transpose()?,
        })
    };
    Statement::plain(&sql, binds)?.load(conn)?.iter().map(state).collect()
}

/// The outages of services that lasted at `from` or began later.
fn outages<C>(conn: &mut C, names: &[&str], from: Moment) -> QueryResult<Vec<Outage>>
where
    C: LoadConnection<Backend: Dialect>,
{
    // Far enough back: each outage may make the window reach further, and with it to an older outage.
    let listed = padded(names.to_vec()).into_iter().map(Value::from).collect();
    let sql = "SELECT since, until FROM asyncable_outages WHERE service IN ($names) \
               AND (until IS NULL OR until > $from) ORDER BY since DESC LIMIT 1000";
    let binds = vec![("names", Value::List(listed)), ("from", Value::Time(from))];
    let outage =
        |row: &super::cell::Record| Ok(Outage { since: row.time(0)?, until: row.maybe_time(1)? });
    Statement::plain(sql, binds)?.load(conn)?.iter().map(outage).collect()
}

/// Takes the right to ask services, for the batch of `token`.
pub(crate) fn take_probe<C>(
    conn: &mut C,
    model: &str,
    token: Moment,
    services: &[Service],
    standing: &Standing,
    now: Moment,
) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
{
    for state in standing.states.iter().filter(|state| state.open) {
        let service = services.iter().find(|service| service.name() == state.name);
        // The next one comes if this one is not answered either.
        let probes = state.probes.saturating_add(1);
        let wait = service.map_or(Duration::from_secs(300), |s| s.probe_after(probes));
        let sql = "UPDATE asyncable_services SET probe_model = $model, probe_token = $token, \
                   next_probe_at = $next WHERE name = $name";
        let binds = vec![
            ("model", model.into()),
            ("token", Value::Time(token)),
            ("next", Value::Time(now.plus(wait))),
            ("name", state.name.as_str().into()),
        ];
        Statement::plain(sql, binds)?.execute(conn)?;
    }
    Ok(())
}

/// What attempts have found out about services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServiceWork {
    /// It is down, by this process's count.
    Down { service: Service, code: String, first_failed_at: Moment },
    /// An attempt was answered: whatever it asked is up.
    Answered { token: Moment },
    /// An attempt that asked was not answered, by this service if it is known which.
    Unanswered { token: Moment, service: Option<&'static str>, row_id: String, code: String },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Down { service: String, since: Moment, code: String },
    Up { service: String, since: Moment, probes: u32 },
}

/// Records what attempts have found out, in the caller's write transaction. Each of it may be recorded
/// twice, and then does nothing.
pub(crate) fn record<C>(
    conn: &mut C,
    model: &str,
    now: Moment,
    works: &[ServiceWork],
) -> QueryResult<Vec<News>>
where
    C: LoadConnection<Backend: Dialect>,
{
    let mut news = Vec::new();
    for work in works {
        match work {
            ServiceWork::Down { service, code, first_failed_at } => {
                if down(conn, service, code, *first_failed_at, now)? {
                    let (service, since) = (service.name().to_owned(), *first_failed_at);
                    news.push(News::Down { service, since, code: code.clone() });
                }
            }
            ServiceWork::Answered { token } => news.append(&mut up(conn, model, *token, now)?),
            ServiceWork::Unanswered { token, service, row_id, code } => {
                let asked = Asked { model, row_id, code };
                unanswered(conn, &asked, *token, service.unwrap_or_default(), now)?;
            }
        }
    }
    Ok(news)
}

fn down<C>(
    conn: &mut C,
    service: &Service,
    code: &str,
    first_failed_at: Moment,
    now: Moment,
) -> QueryResult<bool>
where
    C: LoadConnection<Backend: Dialect>,
{
    // Not by failures from before it was last up.
    let sql = "INSERT INTO asyncable_services (name, state, since, next_probe_at, code) \
         VALUES ($name, 'open', $since, $next, $code) ON CONFLICT (name) DO UPDATE SET state = 'open', \
         since = excluded.since, next_probe_at = excluded.next_probe_at, code = excluded.code, \
         probes = 0, probe_model = NULL, probe_token = NULL WHERE asyncable_services.state <> 'open' \
         AND (asyncable_services.closed_at IS NULL OR asyncable_services.closed_at <= excluded.since) \
         RETURNING name";
    let binds = vec![
        ("name", service.name().into()),
        ("since", Value::Time(first_failed_at)),
        ("next", Value::Time(now.plus(service.probe_after(0)))),
        ("code", code.into()),
    ];
    if Statement::plain(sql, binds)?.first(conn)?.is_none() {
        return Ok(false);
    }
    begin_outage(conn, service.name(), first_failed_at)?;
    let action = Action { reason: Some(code), ..Action::of("service_down", service.name()) };
    actions::append(conn, now, actions::LIBRARY, &action)?;
    Ok(true)
}

fn begin_outage<C>(conn: &mut C, service: &str, since: Moment) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "INSERT INTO asyncable_outages (service, since) VALUES ($service, $since) \
               ON CONFLICT DO NOTHING";
    let binds = vec![("service", service.into()), ("since", Value::Time(since))];
    Statement::plain(sql, binds)?.execute(conn)?;
    Ok(())
}

/// Ends what lasts of a service's outages, unless it is down or held still.
fn end_outages<C>(conn: &mut C, service: &str, now: Moment) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "UPDATE asyncable_outages SET until = $now, probes = (SELECT probes \
         FROM asyncable_services WHERE name = $service) WHERE service = $service AND until IS NULL \
         AND NOT EXISTS (SELECT 1 FROM asyncable_services WHERE name = $service \
         AND (state = 'open' OR held_since IS NOT NULL))";
    let binds = vec![("now", Value::Time(now)), ("service", service.into())];
    Statement::plain(sql, binds)?.execute(conn)?;
    Ok(())
}

fn up<C>(conn: &mut C, model: &str, token: Moment, now: Moment) -> QueryResult<Vec<News>>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "UPDATE asyncable_services SET state = 'closed', closed_at = $now, probe_model = NULL, \
         probe_token = NULL, next_probe_at = NULL WHERE probe_model = $model AND probe_token = $token \
         AND state = 'open' RETURNING name, since, probes";
    let binds =
        vec![("now", Value::Time(now)), ("model", model.into()), ("token", Value::Time(token))];
    let mut news = Vec::new();
    for row in Statement::plain(sql, binds)?.load(conn)? {
        let (service, since) = (row.text(0)?, row.time(1)?);
        end_outages(conn, &service, now)?;
        let action = Action::of("service_up", &service);
        actions::append(conn, now, actions::LIBRARY, &action)?;
        let probes = row.int(2)?.try_into().unwrap_or(u32::MAX);
        news.push(News::Up { service, since, probes });
    }
    Ok(news)
}

/// The row that a service was asked with, and what came of it.
struct Asked<'a> {
    model: &'a str,
    row_id: &'a str,
    code: &'a str,
}

/// The service that did not answer waits; what else the attempt asked may be asked by another.
fn unanswered<C>(
    conn: &mut C,
    asked: &Asked<'_>,
    token: Moment,
    service: &str,
    now: Moment,
) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "UPDATE asyncable_services SET probe_model = NULL, probe_token = NULL, \
         probes = probes + CASE WHEN $service IN ('', name) THEN 1 ELSE 0 END, \
         next_probe_at = CASE WHEN $service IN ('', name) THEN next_probe_at ELSE $now END \
         WHERE probe_model = $model AND probe_token = $token AND state = 'open' \
         RETURNING CASE WHEN $service IN ('', name) THEN name ELSE '' END";
    let binds = vec![
        ("service", service.into()),
        ("now", Value::Time(now)),
        ("model", asked.model.into()),
        ("token", Value::Time(token)),
    ];
    for row in Statement::plain(sql, binds)?.load(conn)? {
        let service = row.text(0)?;
        if !service.is_empty() {
            keep_probe(conn, &service, asked, now)?;
        }
    }
    Ok(())
}

fn keep_probe<C>(conn: &mut C, service: &str, asked: &Asked<'_>, now: Moment) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "INSERT INTO asyncable_probes (service, at, model, row_id, code) \
               VALUES ($service, $now, $model, $row, $code)";
    let binds = vec![
        ("service", service.into()),
        ("now", Value::Time(now)),
        ("model", asked.model.into()),
        ("row", asked.row_id.into()),
        ("code", asked.code.into()),
    ];
    Statement::plain(sql, binds)?.execute(conn)?;
    Ok(())
}

/// A page of the rows that failed during an outage becomes due, the oldest submission first; answers how
/// many. What may still be under way at the service becomes due when that is over, and what is parked stays
/// so.
pub(crate) fn release<M, C>(
    conn: &mut C,
    now: Moment,
    outage: (Moment, Moment),
    settles_within: Duration,
) -> QueryResult<usize>
where
    C: LoadConnection<Backend: Dialect>,
    M: Asyncable + Stored<C::Backend>,
{
    let sql = format!(
        "UPDATE asyncable_retries SET due_at = CASE WHEN kind = 'unknown' AND last_failed_at > $settled \
         THEN $later ELSE last_submitted_at END WHERE model = {{model}} AND row_id IN (\
         SELECT row_id FROM asyncable_retries WHERE model = {{model}} AND due_at > $now \
         AND kind IN ('unavailable', 'transient', 'unknown') AND last_failed_at >= $since \
         AND last_failed_at <= $until \
         AND (kind <> 'unknown' OR last_failed_at <= $settled OR due_at > $later) \
         ORDER BY due_at LIMIT {PAGE}{{skip locked}})"
    );
    let binds = vec![
        ("now", Value::Time(now)),
        ("since", Value::Time(outage.0)),
        ("until", Value::Time(outage.1)),
        ("settled", Value::Time(now.minus(settles_within))),
        ("later", Value::Time(now.plus(settles_within))),
    ];
    Statement::of::<M>(&sql, binds)?.execute(conn)
}

/// Rows that one release makes due.
pub(crate) const PAGE: usize = 500;

/// What an operator does to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Hold { reason: String, until: Option<Moment> },
    Release,
    AskNow,
}

/// Carries out an operator's order, and keeps who gave it. Answers false where it changes nothing: the
/// service is not held, or not down.
pub(crate) fn order<C>(
    conn: &mut C,
    service: &str,
    by: &str,
    order: &Order,
    now: Moment,
) -> QueryResult<bool>
where
    C: LoadConnection<Backend: Dialect>,
{
    let (sql, action, reason, until) = match order {
        Order::Hold { reason, until } => (
            format!(
                "INSERT INTO asyncable_services (name, state, held_since, held_until, held_by, held_reason) \
                 VALUES ($name, 'closed', $now, {}, $by, $reason) ON CONFLICT (name) DO UPDATE SET \
                 held_since = COALESCE(asyncable_services.held_since, excluded.held_since), \
                 held_until = excluded.held_until, held_by = excluded.held_by, \
                 held_reason = excluded.held_reason",
                if until.is_some() { "$until" } else { "NULL" }
            ),
            "service_held",
            Some(reason.as_str()),
            *until,
        ),
        Order::Release => (
            "UPDATE asyncable_services SET held_since = NULL, held_until = NULL, held_by = NULL, \
             held_reason = NULL, closed_at = CASE WHEN state = 'closed' THEN $now ELSE closed_at END, \
             since = CASE WHEN state = 'closed' THEN held_since ELSE since END \
             WHERE name = $name AND held_since IS NOT NULL"
                .to_owned(),
            "service_released",
            None,
            None,
        ),
        Order::AskNow => (
            "UPDATE asyncable_services SET next_probe_at = $now WHERE name = $name AND state = 'open'"
                .to_owned(),
            "service_asked",
            None,
            None,
        ),
    };
    let binds = vec![
        ("name", service.into()),
        ("now", Value::Time(now)),
        ("by", by.into()),
        ("reason", reason.unwrap_or_default().into()),
        ("until", Value::Time(until.unwrap_or(now))),
    ];
    if Statement::plain(&sql, binds)?.execute(conn)? == 0 {
        return Ok(false);
    }
    match order {
        Order::Hold { .. } => begin_outage(conn, service, now)?,
        Order::Release => end_outages(conn, service, now)?,
        Order::AskNow => {}
    }
    actions::append(conn, now, by, &Action { reason, ..Action::of(action, service) })?;
    Ok(true)
}

/// Ends holds whose time is over; answers the services.
pub(crate) fn end_holds<C>(conn: &mut C, now: Moment) -> QueryResult<Vec<String>>
where
    C: LoadConnection<Backend: Dialect>,
{
    let sql = "UPDATE asyncable_services SET since = CASE WHEN state = 'closed' THEN held_since ELSE since END, \
         closed_at = CASE WHEN state = 'closed' THEN $now ELSE closed_at END, held_since = NULL, \
         held_until = NULL, held_by = NULL, held_reason = NULL WHERE held_until <= $now RETURNING name";
    let ended = Statement::plain(sql, vec![("now", Value::Time(now))])?.load(conn)?;
    let ended: QueryResult<Vec<String>> = ended.iter().map(|row| row.text(0)).collect();
    let ended = ended?;
    for service in &ended {
        end_outages(conn, service, now)?;
        let action = Action::of("service_released", service);
        actions::append(conn, now, actions::LIBRARY, &action)?;
    }
    Ok(ended)
}

/// Says that a host is alive and works on models; `models` with the services that each calls, and whether
/// it is paused there.
pub(crate) fn seen<C>(
    conn: &mut C,
    host: &str,
    models: &BTreeMap<&'static str, (String, bool)>,
    now: Moment,
) -> QueryResult<()>
where
    C: LoadConnection<Backend: Dialect>,
{
    for (model, (services, paused)) in models {
        let sql = "INSERT INTO asyncable_hosts (host, model, services, paused, seen_at) \
             VALUES ($host, $model, $services, CAST($paused AS INTEGER), $now) \
             ON CONFLICT (host, model) DO UPDATE SET services = excluded.services, \
             paused = excluded.paused, seen_at = excluded.seen_at";
        let binds = vec![
            ("host", host.into()),
            ("model", (*model).into()),
            ("services", services.as_str().into()),
            ("paused", if *paused { "1" } else { "0" }.into()),
            ("now", Value::Time(now)),
        ];
        Statement::plain(sql, binds)?.execute(conn)?;
    }
    Ok(())
}
