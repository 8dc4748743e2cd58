//! What programs are answered with and send. Instants are RFC 3339 in UTC, ids are texts, and nothing is left
//! out but what somebody's role does not show. `openapi.json` describes each type under its name.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    Counts, Explanation, Restarted,
    dashboard::{Access, Role, answer::Around, handlers::hour::next_of, words},
    store::{buckets, explain::Line, page, pause, service, tries},
};

pub(super) type Instant = DateTime<Utc>;

#[derive(Serialize)]
pub(crate) struct Error {
    pub(crate) error: String,
}

#[derive(Serialize)]
pub(crate) struct Overview {
    pub(crate) now: Instant,
    pub(crate) access: Who,
    pub(crate) hosts: Vec<Host>,
    pub(crate) services: Vec<Service>,
    pub(crate) models: Vec<Model>,
    /// Models that others work on, perhaps another version.
    pub(crate) elsewhere: Vec<String>,
    pub(crate) lately: Vec<Done>,
    pub(crate) outages: Vec<Outage>,
}

/// As whom the request was taken.
#[derive(Serialize)]
pub(crate) struct Who {
    name: String,
    role: &'static str,
}

impl From<&Access> for Who {
    fn from(access: &Access) -> Self {
        Who { name: access.name.clone(), role: access.role.as_str() }
    }
}

#[derive(Serialize)]
pub(crate) struct Host {
    host: String,
    seen_at: Instant,
    paused: bool,
}

impl From<&page::HostLine> for Host {
    fn from(host: &page::HostLine) -> Self {
        let page::HostLine { host, seen_at, paused } = host.clone();
        Host { host, seen_at, paused }
    }
}

/// That a model is paused in all processes.
#[derive(Serialize)]
struct Paused {
    by: Option<String>,
    reason: Option<String>,
    since: Instant,
}

impl From<&pause::Paused> for Paused {
    fn from(paused: &pause::Paused) -> Self {
        let pause::Paused { since, who, reason } = paused.clone();
        Paused { by: who, reason, since: since.zoned }
    }
}

#[derive(Serialize)]
pub(crate) struct Service {
    name: String,
    state: &'static str,
    since: Option<Instant>,
    code: Option<String>,
    probes: u32,
    next_probe_at: Option<Instant>,
    asked: bool,
    held: Option<Held>,
}

#[derive(Serialize)]
struct Held {
    by: String,
    reason: String,
    since: Instant,
    until: Option<Instant>,
}

impl Service {
    /// One that the database knows nothing of is up.
    pub(crate) fn of(name: &str, known: Option<&service::ServiceState>) -> Self {
        let open = known.filter(|state| state.open);
        let held = known.and_then(|state| state.held.as_ref());
        let state = match (held, open) {
            (Some(_), _) => "held",
            (None, Some(_)) => "down",
            (None, None) => "up",
        };
        Service {
            name: name.to_owned(),
            state,
            since: open.and_then(|state| state.since).map(|at| at.zoned),
            code: open.and_then(|state| state.code.clone()),
            probes: open.map_or(0, |state| state.probes),
            next_probe_at: open.and_then(|state| state.next_probe_at).map(|at| at.zoned),
            asked: open.is_some_and(|state| state.asked),
            held: held.map(|held| Held {
                by: held.by.clone(),
                reason: held.reason.clone(),
                since: held.since.zoned,
                until: held.until.map(|at| at.zoned),
            }),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Model {
    model: &'static str,
    /// What the host's people call one row, and many.
    one: String,
    many: String,
    services: Vec<String>,
    paused: Option<Paused>,
    counts: CountsOf,
    parked: Vec<Cause>,
    failing: Vec<Cause>,
    oldest_due_at: Option<Instant>,
    first_expires_at: Option<Instant>,
    last_day: Vec<TenMinutes>,
    hosts: Vec<Host>,
}

impl Model {
    pub(crate) fn of(around: &Around, model: &page::ModelOverview) -> Self {
        let (name, names) = (model.model, &around.names);
        let called = around.labels.get(name).cloned();
        let (one, many) = called.unwrap_or_else(|| (name.to_owned(), name.to_owned()));
        let cause = |group| Cause::of(group, names.services_named(name, group));
        Model {
            model: name,
            one,
            many,
            services: names.services_of(name).to_vec(),
            paused: around.paused(name).map(Into::into),
            counts: (&model.counts).into(),
            parked: model.parked.iter().map(cause).collect(),
            failing: model.failing.iter().map(cause).collect(),
            first_expires_at: model.first_expires_at,
            oldest_due_at: model.oldest_due,
            last_day: model.day.iter().map(TenMinutes::from).collect(),
            hosts: model.hosts.iter().map(Into::into).collect(),
        }
    }
}

/// Each stops at 10,000.
#[derive(Serialize)]
pub(crate) struct CountsOf {
    scheduled: u32,
    due: u32,
    running: u32,
    failing: u32,
    parked: u32,
    expired: u32,
    expiring: u32,
}

impl From<&Counts> for CountsOf {
    fn from(counts: &Counts) -> Self {
        CountsOf {
            scheduled: counts.scheduled,
            due: counts.due,
            running: counts.in_flight,
            failing: counts.failing,
            parked: counts.parked,
            expired: counts.expired,
            expiring: counts.expiring,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Cause {
    code: Option<String>,
    /// The one that the code names, or all that the model calls.
    services: Vec<String>,
    rows: u32,
    oldest_at: Option<Instant>,
}

impl Cause {
    pub(crate) fn of(group: &page::Group, services: &[String]) -> Self {
        let page::Group { code, rows, oldest } = group.clone();
        Cause { code, services: services.to_vec(), rows, oldest_at: oldest }
    }
}

#[derive(Serialize)]
struct TenMinutes {
    finished: u64,
    failed: u64,
    waiting: u64,
}

impl From<&buckets::Bucket> for TenMinutes {
    fn from(bucket: &buckets::Bucket) -> Self {
        let buckets::Bucket { finished, failed, waiting } = *bucket;
        TenMinutes { finished, failed, waiting }
    }
}

/// Something that was done, by a person or the library.
#[derive(Serialize)]
pub(crate) struct Done {
    at: Instant,
    who: String,
    action: String,
    /// A model or a service.
    target: String,
    id: Option<String>,
    rows: Option<i64>,
    reason: Option<String>,
}

impl From<&page::Entry> for Done {
    fn from(entry: &page::Entry) -> Self {
        Done {
            at: entry.at,
            who: entry.who.clone(),
            action: entry.action.clone().unwrap_or_else(|| "noted".to_owned()),
            target: entry.target.clone(),
            id: entry.row_id.clone(),
            rows: entry.count,
            reason: entry.text.clone(),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Outage {
    service: String,
    since: Instant,
    until: Option<Instant>,
    probes: i64,
}

impl From<&page::OutageLine> for Outage {
    fn from(outage: &page::OutageLine) -> Self {
        let page::OutageLine { service, since, until, probes } = outage.clone();
        Outage { service, since, until, probes }
    }
}

#[derive(Serialize)]
pub(crate) struct Rows {
    pub(crate) now: Instant,
    pub(crate) model: String,
    pub(crate) state: &'static str,
    pub(crate) rows: Vec<Row>,
    /// `after` of the next page, if there is one.
    pub(crate) next: Option<String>,
}

/// What was found by an id or a subject.
#[derive(Serialize)]
pub(crate) struct FoundRows {
    pub(crate) now: Instant,
    pub(crate) model: String,
    pub(crate) rows: Vec<Row>,
}

#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) model: String,
    pub(crate) id: String,
    pub(crate) explanation: Explained,
    last_submitted_at: Option<Instant>,
    expires_at: Option<Instant>,
    attempted_at: Option<Instant>,
    failures: u32,
    code: Option<String>,
    user: Option<String>,
    subject: Option<String>,
    may_restart: bool,
    may_cancel: bool,
}

impl Row {
    pub(crate) fn of(model: &str, line: &Line, access: &Access) -> Self {
        let operate = access.may(Role::Operate);
        let subject = line.subject.as_ref();
        Row {
            model: model.to_owned(),
            id: line.id.clone(),
            explanation: (&line.explanation).into(),
            last_submitted_at: line.submitted_at,
            expires_at: line.expires_at,
            attempted_at: line.attempted_at,
            failures: line.failures,
            code: line.code.clone(),
            user: line.user.clone(),
            subject: subject.map(|s| if operate { s.clone() } else { words::last_three(s) }),
            may_restart: operate && line.may_restart(),
            may_cancel: operate && line.may_cancel(),
        }
    }
}

/// An explanation: its kind, its sentence, what comes of it or can be done, and what it names.
#[derive(Default, Serialize)]
pub(crate) struct Explained {
    pub(crate) kind: &'static str,
    sentence: String,
    advice: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Instant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Instant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Instant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ahead: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failures: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_ends: Option<Instant>,
}

impl From<&Explanation> for Explained {
    fn from(explanation: &Explanation) -> Self {
        let of = |kind| Explained {
            kind,
            sentence: explanation.to_string(),
            advice: words::advice(explanation),
            ..Explained::default()
        };
        match explanation.clone() {
            Explanation::NotSubmitted => of("not_submitted"),
            Explanation::Scheduled { due_at } => Explained { at: Some(due_at), ..of("scheduled") },
            Explanation::Due { ahead } => Explained { ahead: Some(ahead), ..of("due") },
            Explanation::WaitingForService { service, since, asked_at } => Explained {
                service: Some(service),
                since: Some(since),
                at: asked_at,
                ..of("waiting_for_service")
            },
            Explanation::ServiceHeld { service, by, reason, until } => Explained {
                service: Some(service),
                by: Some(by),
                reason: Some(reason),
                until,
                ..of("service_held")
            },
            Explanation::Paused { by, reason } => Explained { by, reason, ..of("paused") },
            Explanation::NoProcessor => of("no_processor"),
            Explanation::Running { host, until } => {
                Explained { host: Some(host), until: Some(until), ..of("running") }
            }
            Explanation::Lapsed { host, since } => {
                Explained { host: Some(host), since: Some(since), ..of("lapsed") }
            }
            Explanation::Failing { code, next_at, failures, since, window_ends } => Explained {
                code: Some(code),
                at: Some(next_at),
                failures: Some(failures),
                since: Some(since),
                window_ends: Some(window_ends),
                ..of("failing")
            },
            Explanation::Unknown { code, asked_at, failures } => Explained {
                code: Some(code),
                at: Some(asked_at),
                failures: Some(failures),
                ..of("unknown")
            },
            Explanation::Orphaned { due_at } => Explained { at: Some(due_at), ..of("orphaned") },
            Explanation::Parked { code, since, failures } => Explained {
                code: Some(code),
                since: Some(since),
                failures: Some(failures),
                ..of("parked")
            },
            Explanation::Expired { at } => Explained { at: Some(at), ..of("expired") },
            Explanation::Canceled { at } => Explained { at: Some(at), ..of("canceled") },
            Explanation::Processed { at } => Explained { at: Some(at), ..of("processed") },
        }
    }
}

#[derive(Serialize)]
pub(crate) struct RowInFull {
    pub(crate) now: Instant,
    pub(crate) row: Row,
    /// The host's own page of it.
    pub(crate) link: Option<String>,
    pub(crate) steps: Vec<Step>,
    pub(crate) attempts: Vec<Attempt>,
    /// `before` of older attempts, if there are any.
    pub(crate) older: Option<Instant>,
    pub(crate) notes: Vec<Note>,
    pub(crate) actions: Vec<Done>,
}

#[derive(Serialize)]
pub(crate) struct Step {
    name: String,
    done: bool,
    attempts: i64,
    /// Not there for those who may not read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Option<String>>,
}

impl Step {
    pub(crate) fn of(step: &page::StepLine, access: &Access) -> Self {
        let page::StepLine { name, result, tries } = step.clone();
        let done = result.is_some();
        let result = access.may(Role::Admin).then_some(result);
        Step { name, done, attempts: tries, result }
    }
}

#[derive(Serialize)]
pub(crate) struct Attempt {
    number: i64,
    host: String,
    started_at: Instant,
    ended_at: Instant,
    outcome: String,
    code: Option<String>,
    place: Option<String>,
    step: Option<String>,
    /// Not there for those who may not read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Option<String>>,
}

impl Attempt {
    pub(crate) fn of(attempt: &tries::Try, access: &Access) -> Self {
        let tries::Try { number, host, started_at, ended_at, outcome, code, place, step, error } =
            attempt.clone();
        let error = access.may(Role::Operate).then_some(error);
        Attempt { number, host, started_at, ended_at, outcome, code, place, step, error }
    }
}

#[derive(Serialize)]
pub(crate) struct Note {
    at: Instant,
    who: String,
    text: String,
}

impl From<&page::Entry> for Note {
    fn from(entry: &page::Entry) -> Self {
        let text = entry.text.clone().unwrap_or_default();
        Note { at: entry.at, who: entry.who.clone(), text }
    }
}

#[derive(Serialize)]
pub(crate) struct ModelInFull {
    pub(crate) now: Instant,
    pub(crate) model: Model,
    pub(crate) lately: Vec<Done>,
}

#[derive(Serialize)]
pub(crate) struct ServiceInFull {
    pub(crate) now: Instant,
    pub(crate) service: Service,
    pub(crate) limits: Limits,
    pub(crate) models: Vec<Waiting>,
    pub(crate) tries: Vec<Asked>,
    pub(crate) outages: Vec<Outage>,
    pub(crate) lately: Vec<Done>,
}

/// A try of a service that was not answered.
#[derive(Serialize)]
pub(crate) struct Asked {
    at: Instant,
    model: String,
    row: String,
    code: Option<String>,
}

impl From<&tries::Probe> for Asked {
    fn from(probe: &tries::Probe) -> Self {
        let tries::Probe { at, model, row_id, code } = probe.clone();
        Asked { at, model, row: row_id, code: Some(code).filter(|code| !code.is_empty()) }
    }
}

/// An hour of the past.
#[derive(Serialize)]
pub(crate) struct Hour {
    pub(crate) now: Instant,
    pub(crate) from: Instant,
    pub(crate) outages: Vec<Outage>,
    pub(crate) models: Vec<ModelsHour>,
}

#[derive(Serialize)]
pub(crate) struct ModelsHour {
    model: &'static str,
    finished: u64,
    failed: u64,
    waiting: u64,
    outcomes: Vec<Outcome>,
    ended: Vec<Ended>,
    /// `after` of the next ones, if there are any.
    next: Option<String>,
}

#[derive(Serialize)]
struct Outcome {
    outcome: String,
    code: Option<String>,
    attempts: u32,
}

#[derive(Serialize)]
struct Ended {
    row: String,
    at: Instant,
    outcome: String,
    code: Option<String>,
}

impl From<&tries::Hour> for ModelsHour {
    fn from(hour: &tries::Hour) -> Self {
        let buckets::Bucket { finished, failed, waiting } = hour.total();
        let outcome = |(outcome, code, attempts): (String, Option<String>, u32)| Outcome {
            outcome,
            code,
            attempts,
        };
        let ended = |ended: tries::Ended| {
            let tries::Ended { at, row_id, outcome, code } = ended;
            Ended { row: row_id, at, outcome, code }
        };
        ModelsHour {
            model: hour.model,
            finished,
            failed,
            waiting,
            outcomes: hour.causes.iter().cloned().map(outcome).collect(),
            ended: hour.ended.iter().cloned().map(ended).collect(),
            next: next_of(hour),
        }
    }
}

/// How hard a process may call a service.
#[derive(Serialize)]
pub(crate) struct Limits {
    starts_per_second: Option<u32>,
    at_once: Option<usize>,
}

impl From<(Option<u32>, Option<usize>)> for Limits {
    fn from((starts_per_second, at_once): (Option<u32>, Option<usize>)) -> Self {
        Limits { starts_per_second, at_once }
    }
}

/// A model's rows that need a service.
#[derive(Serialize)]
pub(crate) struct Waiting {
    pub(crate) model: &'static str,
    pub(crate) due: u32,
    pub(crate) failing: u32,
}

/// What came of a restart.
#[derive(Serialize)]
pub(crate) struct RestartedRows {
    restarted: usize,
    left_alone: usize,
    not_found: usize,
}

impl RestartedRows {
    pub(crate) fn of(asked: usize, done: &Restarted) -> Self {
        let Restarted { restarted, left_alone, .. } = *done;
        // What cannot be an id is no row either.
        let not_found = asked.saturating_sub(restarted + left_alone);
        RestartedRows { restarted, left_alone, not_found }
    }
}

#[derive(Serialize)]
pub(crate) struct CanceledRow {
    pub(crate) canceled: bool,
}

#[derive(Serialize)]
pub(crate) struct Noted {
    pub(crate) noted: bool,
    pub(crate) sent: bool,
}

/// What came of an order about a service or a model; not `done`: it was so already.
#[derive(Serialize)]
pub(crate) struct Ordered {
    pub(crate) done: bool,
}

/// What is looked for may be personal data: it stands in a body, and in no address or log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Find {
    pub(crate) model: String,
    pub(crate) what: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Restart {
    #[serde(default)]
    pub(crate) why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestartMany {
    pub(crate) ids: Vec<String>,
    #[serde(default)]
    pub(crate) why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cancel {
    pub(crate) why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewNote {
    pub(crate) text: String,
    /// Also to the row's user.
    #[serde(default)]
    pub(crate) send: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hold {
    pub(crate) why: String,
    pub(crate) until: Option<Instant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pause {
    pub(crate) why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resume {
    #[serde(default)]
    pub(crate) why: String,
}

/// An order that needs no word.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plain {}
