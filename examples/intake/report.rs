//! What became of the rows: what the page counts while it happens, and the table at the end, which
//! compares every row with the script of its file number and with what the services did.

use std::collections::{BTreeMap, HashMap};

use asyncable::Status;
use chrono::NaiveDateTime;

use crate::{ledger::Ledger, services};

/// Where a row's work stands, in one word.
pub type State = &'static str;

/// The first four end a row's work, at least until a person acts; the others are pending. Parked is said
/// of a row also after its window.
pub const STATES: [State; 7] =
    ["processed", "parked", "expired", "canceled", "failing", "running", "submitted"];

pub fn state(status: Status, parked: Option<bool>, failing: Option<bool>) -> State {
    match status {
        _ if parked == Some(true) => "parked",
        Status::Attempted if failing == Some(true) => "failing",
        Status::Attempted => "running",
        status => status.as_str(),
    }
}

fn is_pending(state: State) -> bool {
    STATES[4..].contains(&state)
}

/// What a query selects of a row's work: its status, whether it is parked, whether it is failing, and its
/// error.
pub type Work = (Status, Option<bool>, Option<bool>, Option<String>);

/// A row of one of the four models, as loaded.
pub struct Row {
    pub model: &'static str,
    pub id: i64,
    /// The claim that it is or belongs to: hlr-1 or sc-1.
    pub claim: String,
    pub veteran_name: String,
    pub file_number: String,
    pub submitted_at: Option<NaiveDateTime>,
    pub state: State,
    /// The code of its last error, which is safe to show; the text after it may not be.
    pub code: Option<String>,
    /// What the host itself did for it, where its work is the host's own.
    pub own_effects: Option<i32>,
}

impl Row {
    pub fn new(
        model: &'static str,
        id: i64,
        claim: String,
        (status, parked, failing, error): Work,
    ) -> Row {
        let state = state(status, parked, failing);
        let code = error.and_then(|error| error.split(' ').next().map(str::to_owned));
        let (veteran_name, file_number) = (String::new(), String::new());
        let (submitted_at, own_effects) = (None, None);
        Row { model, id, claim, veteran_name, file_number, submitted_at, state, code, own_effects }
    }

    /// What the library calls this submission: see `Attempt::idempotency_key`.
    fn key(&self) -> String {
        let generation = self.submitted_at.unwrap_or_default().and_utc().timestamp_micros();
        format!("{}/{}/{generation}", self.model, self.id)
    }

    fn service(&self) -> Option<&'static str> {
        match self.model {
            "higher_level_reviews" | "supplemental_claims" => Some(services::VBMS.name),
            "request_issues" => Some(services::BGS.name),
            _ => None,
        }
    }

    fn should_end_as(&self) -> State {
        if self.service() == Some(services::VBMS.name) {
            services::ends_as(&self.file_number)
        } else {
            "processed"
        }
    }
}

/// Rows by model and state.
pub type Counts = BTreeMap<&'static str, BTreeMap<State, i64>>;

pub fn pending(counts: &Counts) -> i64 {
    STATES[4..].iter().map(|state| in_state(counts, state)).sum()
}

pub fn in_state(counts: &Counts, state: State) -> i64 {
    counts.values().filter_map(|states| states.get(state)).sum()
}

/// One line on the way.
pub fn progress(counts: &Counts) -> String {
    let states = STATES.iter().map(|state| (state, in_state(counts, state)));
    let states = states.filter(|(_, rows)| *rows > 0);
    let states: Vec<String> = states.map(|(state, rows)| format!("{rows} {state}")).collect();
    if states.is_empty() { "no rows yet".to_owned() } else { states.join(", ") }
}

/// The table of a run's end, and what is wrong with it.
pub struct Report {
    pub table: String,
    /// Rows whose work goes on in the next run.
    pub pending: usize,
    pub lost: Vec<String>,
    pub doubled: Vec<String>,
}

impl Report {
    pub fn of(rows: &[Row], ledger: &Ledger) -> Report {
        let mut services: BTreeMap<_, _> = [services::VBMS.name, services::BGS.name]
            .map(|name| (name, ledger.service(name)))
            .into();
        let table = format!("{}\n{}", models_table(rows, ledger), services_table(&services));
        let (mut lost, mut doubled) = (Vec::new(), Vec::new());
        for row in rows {
            let place = format!("{} {} ({})", row.model, row.id, row.key());
            let called = row.service().and_then(|name| services.get_mut(name)?.remove(&row.key()));
            let effects = match row.own_effects {
                Some(own) => own.unsigned_abs().into(),
                None => called.unwrap_or_default().effects,
            };
            let (state, script) = (row.state, row.should_end_as());
            if state == "processed" && effects == 0 {
                lost.push(format!("{place} is processed, and nothing was done for it"));
            } else if !is_pending(state) && state != script {
                lost.push(format!("{place} is {state}; its script says {script}"));
            } else if state == "parked" && row.code.as_deref() != Some("vbms.refused_file_number") {
                lost.push(format!("{place} is parked with {:?}", row.code));
            }
            if effects > 1 {
                doubled.push(format!("{place} was done {effects} times"));
            }
        }
        for (service, keys) in services {
            lost.extend(
                keys.keys().map(|key| format!("{service} was called for {key}, which is gone")),
            );
        }
        let pending = rows.iter().filter(|row| is_pending(row.state)).count();
        Report { table, pending, lost, doubled }
    }
}

fn models_table(rows: &[Row], ledger: &Ledger) -> String {
    let mut counts = Counts::new();
    for row in rows {
        *counts.entry(row.model).or_default().entry(row.state).or_default() += 1;
    }
    let attempts = ledger.attempts();
    let shown = |state: &State| STATES[..3].contains(state) || in_state(&counts, state) > 0;
    let states: Vec<State> = STATES.into_iter().filter(shown).collect();
    let mut table = line("rows", states.iter().chain(&["attempts"]));
    for (model, by_state) in &counts {
        let attempts = attempts.get(*model).copied().unwrap_or(0);
        let rows = states.iter().map(|state| by_state.get(state).copied().unwrap_or(0).to_string());
        table += &line(model, rows.chain([attempts.to_string()]));
    }
    table
}

fn services_table(services: &BTreeMap<&str, HashMap<String, crate::ledger::Calls>>) -> String {
    let mut table = line("services", ["calls", "effects", "doubled"]);
    for (service, keys) in services {
        let calls: u64 = keys.values().map(|key| key.calls).sum();
        let effects: u64 = keys.values().map(|key| key.effects).sum();
        let doubled = keys.values().filter(|key| key.effects > 1).count();
        table += &line(service, [calls.to_string(), effects.to_string(), doubled.to_string()]);
    }
    table
}

fn line(name: &str, fields: impl IntoIterator<Item = impl std::fmt::Display>) -> String {
    let fields: String = fields.into_iter().map(|field| format!("{field:>11}")).collect();
    format!("{name:<22}{fields}\n")
}
