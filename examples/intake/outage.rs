//! What each outage of a service cost: the third table of a run's end.

use chrono::{DateTime, NaiveDateTime, Utc};

use crate::{
    ledger::Ledger,
    report::{Row, line},
    services,
};

/// An outage, as the library's tables have it.
pub struct Outage {
    pub service: String,
    /// Since the first failure by which it was found out.
    pub since: NaiveDateTime,
    /// Nothing: it lasts.
    pub until: Option<NaiveDateTime>,
    /// Attempts on rows that were counted and failed for the want of it.
    pub attempts: i64,
}

/// The models whose rows call a service.
pub fn models(service: &str) -> &'static [&'static str] {
    match service {
        name if name == services::VBMS.name => &["higher_level_reviews", "supplemental_claims"],
        _ => &["request_issues"],
    }
}

/// The latest outages, and what they cost.
pub fn table(outages: &[Outage], rows: &[Row], ledger: &Ledger) -> String {
    const MOST: usize = 20;
    let mut table = line("outages", ["since", "until", "lasted", "calls", "attempts", "waited"]);
    for outage in &outages[outages.len().saturating_sub(MOST)..] {
        let Outage { service, since, until, attempts } = outage;
        let end = until.unwrap_or_else(|| ledger.clock.now().naive_utc());
        let calls = ledger.calls_between(service, since.and_utc(), end.and_utc());
        let lasted = (end - *since).num_minutes();
        table += &line(
            service,
            [
                instant(since.and_utc()),
                until.map_or("still".to_owned(), |until| instant(until.and_utc())),
                format!("{}h{:02}m", lasted / 60, lasted % 60),
                calls.to_string(),
                attempts.to_string(),
                rows.iter().filter(|row| waited(row, service, end)).count().to_string(),
            ],
        );
    }
    table
}

/// Whether the row was there when the outage ended, and done after it.
fn waited(row: &Row, service: &str, end: NaiveDateTime) -> bool {
    models(service).contains(&row.model)
        && row.submitted_at.is_some_and(|at| at <= end)
        && row.processed_at.is_some_and(|at| at > end)
}

fn instant(at: DateTime<Utc>) -> String {
    at.format("%a %H:%M").to_string()
}
