//! What became of the rows: what the page counts while it happens, and the table at the end, which
//! compares every row with the script of its file number, each of its steps with what the services did, and
//! what has expired with what was told of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use asyncable::Status;
use chrono::NaiveDateTime;

use crate::{
    ledger::{Calls, Ledger},
    outage::{self, Outage},
    services,
};

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
    pub processed_at: Option<NaiveDateTime>,
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
        Row {
            model,
            id,
            claim,
            veteran_name,
            file_number,
            submitted_at: None,
            processed_at: None,
            state,
            code,
            own_effects: None,
        }
    }

    /// What the library calls this submission: see `Attempt::idempotency_key`.
    fn key(&self) -> String {
        let generation = self.submitted_at.unwrap_or_default().and_utc().timestamp_micros();
        format!("{}/{}/{generation}", self.model, self.id)
    }

    /// The calls that its work is made of: the service, the step, and what tells like steps apart. None,
    /// where the work is the host's own.
    fn steps(&self, issues: &HashMap<&str, Vec<i64>>) -> Vec<(&'static str, &'static str, String)> {
        match self.model {
            "request_issues" => vec![(services::BGS.name, "sync_decision", String::new())],
            "task_timers" => vec![],
            _ => {
                let vbms = services::VBMS.name;
                let issues = issues.get(self.claim.as_str()).into_iter().flatten();
                let issues = issues.map(|id| (vbms, "create_contention", format!("/{id}")));
                [(vbms, "establish_claim", String::new())].into_iter().chain(issues).collect()
            }
        }
    }

    fn should_end_as(&self) -> State {
        match self.model {
            "higher_level_reviews" | "supplemental_claims" => services::ends_as(&self.file_number),
            _ => "processed",
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

/// The tables of a run's end, and what is wrong with it.
pub struct Report {
    pub table: String,
    /// Rows whose work goes on in the next run.
    pub pending: usize,
    /// Rows that did not end as their script says.
    pub off_script: Vec<String>,
    /// Processed rows with a step that has no effect.
    pub missing: Vec<String>,
    /// Steps that have more than one, of whatever row.
    pub doubled: Vec<String>,
    /// Rows that have expired.
    pub expired: usize,
    /// Whether each of them was to be told of by an event: in a first run, which has heard all of them.
    pub told: bool,
}

/// Rows of which an event said that they have expired: the model's name and the row's id.
pub type Told = BTreeSet<(&'static str, String)>;

/// What the services did in one step of all rows.
#[derive(Default)]
struct Tally {
    calls: u64,
    asked: u64,
    effects: u64,
    missing: u64,
    doubled: u64,
}

impl Report {
    /// `told`: nothing, where an earlier run has heard of some.
    pub fn of(rows: &[Row], ledger: &Ledger, outages: &[Outage], told: Option<&Told>) -> Report {
        let mut issues: HashMap<&str, Vec<i64>> = HashMap::new();
        for row in rows.iter().filter(|row| row.model == "request_issues") {
            issues.entry(&row.claim).or_default().push(row.id);
        }
        let names = [services::VBMS.name, services::BGS.name];
        let mut services: BTreeMap<_, _> = names.map(|name| (name, ledger.service(name))).into();
        let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
        let (mut off_script, mut missing, mut doubled) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let called = row.steps(&issues).into_iter().map(|(service, step, item)| {
                let key = format!("{}/{step}{item}", row.key());
                let calls = services.get_mut(service).and_then(|keys| keys.remove(&key));
                (format!("{service} {step}"), key, calls.unwrap_or_default())
            });
            let own = row.own_effects.map(|effects| {
                let effects = effects.unsigned_abs().into();
                ("host fire_timer".to_owned(), row.key(), Calls { effects, ..Calls::default() })
            });
            for (step, key, Calls { calls, asked, effects, .. }) in called.chain(own) {
                let is_missing = effects == 0 && row.state == "processed";
                let tally = tallies.entry(step).or_default();
                tally.calls += calls;
                tally.asked += asked;
                tally.effects += effects;
                tally.missing += u64::from(is_missing);
                tally.doubled += u64::from(effects > 1);
                if is_missing {
                    missing.push(format!("{key} was not done, and its row is processed"));
                } else if effects > 1 {
                    doubled.push(format!("{key} was done {effects} times"));
                }
            }
            let (place, state, script) = (row.key(), row.state, row.should_end_as());
            let is_told = |told: &Told| told.contains(&(row.model, row.id.to_string()));
            if state == "expired" && told.is_some_and(|told| !is_told(told)) {
                off_script.push(format!("{place} has expired, and no event said so"));
            }
            if !is_pending(state) && state != script {
                off_script.push(format!("{place} is {state}; its script says {script}"));
            } else if state == "parked" && row.code.as_deref() != Some("vbms.refused_file_number") {
                off_script.push(format!("{place} is parked with {:?}", row.code));
            }
        }
        for (service, keys) in services {
            let gone =
                keys.keys().map(|key| format!("{service} was called for {key}: no such step"));
            off_script.extend(gone);
        }
        let pending = rows.iter().filter(|row| is_pending(row.state)).count();
        let table = [
            models_table(rows, ledger),
            steps_table(&tallies),
            outage::table(outages, rows, ledger),
        ];
        let table = table.join("\n");
        let expired = rows.iter().filter(|row| row.state == "expired").count();
        Report { table, pending, off_script, missing, doubled, expired, told: told.is_some() }
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

fn steps_table(tallies: &BTreeMap<String, Tally>) -> String {
    let mut table = line("steps", ["calls", "asked", "effects", "missing", "doubled"]);
    for (step, Tally { calls, asked, effects, missing, doubled }) in tallies {
        table += &line(step, [calls, asked, effects, missing, doubled]);
    }
    table
}

pub fn line(name: &str, fields: impl IntoIterator<Item = impl std::fmt::Display>) -> String {
    let fields: String = fields.into_iter().map(|field| format!("{field:>11}")).collect();
    format!("{name:<24}{fields}\n")
}
