//! What the host's monitoring is told (feature `metrics`): `docs/metrics.md` names each number.
//!
//! Labels are models, services, states and kinds of outcome: few, and known when the program is built. No
//! row, person, code or text is among them.

use std::time::Duration;

use ::metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use actix::Addr;

use super::pump::Ended;
use crate::{
    Counts, Service,
    asyncable::Stored,
    store::{
        StoreConnection,
        actor::{Ask, Store},
        counts,
        explain::Around,
        service::Standing,
        settle::Settled,
        turn::Turned,
    },
};

/// Says once what the numbers are.
pub(crate) fn describe() {
    describe_counter!("asyncable_attempts_total", "Attempts that have ended, by outcome");
    describe_histogram!("asyncable_attempt_seconds", Unit::Seconds, "How long attempts took");
    describe_counter!("asyncable_claimed_rows_total", "Rows claimed by this process");
    describe_counter!("asyncable_settled_rows_total", "Outcomes recorded by this process");
    describe_histogram!(
        "asyncable_turn_seconds",
        Unit::Seconds,
        "How long turns at the database took"
    );
    describe_counter!("asyncable_database_trouble_total", "Turns that the database did not take");
    describe_gauge!("asyncable_rows", "Rows that are not done, by state, at most 10,000 each");
    describe_gauge!(
        "asyncable_oldest_due_seconds",
        Unit::Seconds,
        "How long the oldest due row is due"
    );
    describe_gauge!("asyncable_service_down", "1 while the service is down");
    describe_gauge!("asyncable_service_held", "1 while a person holds the service down");
    describe_gauge!("asyncable_service_probes", "How often it was asked in vain since it is down");
}

/// An attempt has ended.
pub(crate) fn attempt(model: &'static str, ended: &Ended, took: Duration) {
    let outcome = match ended {
        Ended::Done(_) => "processed",
        Ended::Failed(failure) => failure.kind().stored(),
        Ended::NotBegun => return,
    };
    counter!("asyncable_attempts_total", "model" => model, "outcome" => outcome).increment(1);
    histogram!("asyncable_attempt_seconds", "model" => model, "outcome" => outcome).record(took);
}

/// A turn has come back, or has failed.
pub(crate) fn turn<K, R>(
    model: &'static str,
    turned: &Result<Turned<K, R>, String>,
    took: Duration,
) {
    let Ok(turned) = turned else {
        return counter!("asyncable_database_trouble_total", "model" => model).increment(1);
    };
    histogram!("asyncable_turn_seconds", "model" => model).record(took);
    claimed(model, turned.claims.claimed.len());
    let settled = turned.settled.iter().filter(|settled| **settled == Settled::Kept).count();
    counter!("asyncable_settled_rows_total", "model" => model).increment(settled as u64);
}

fn claimed(model: &'static str, rows: usize) {
    counter!("asyncable_claimed_rows_total", "model" => model).increment(rows as u64);
}

/// A sweep has come back: what it claimed, and where the model's services stand.
pub(crate) fn swept(
    model: &'static str,
    services: &[Service],
    standing: Option<&Standing>,
    rows: usize,
) {
    claimed(model, rows);
    let Some(standing) = standing else { return };
    for name in services.iter().map(Service::name) {
        let state = standing.states.iter().find(|state| state.name == name);
        let open = state.filter(|state| state.open);
        is_down(name, open.is_some());
        let held = state.is_some_and(|state| state.held.is_some());
        gauge!("asyncable_service_held", "service" => name).set(f64::from(u8::from(held)));
        let probes = open.map_or(0, |state| state.probes);
        gauge!("asyncable_service_probes", "service" => name).set(f64::from(probes));
    }
}

/// A service of the model's went down or came back.
pub(crate) fn service(services: &[Service], name: &str, down: bool) {
    // The constant's name: what was read from the database lives too short for a label.
    if let Some(service) = services.iter().find(|service| service.name() == name) {
        is_down(service.name(), down);
    }
}

fn is_down(service: &'static str, down: bool) {
    gauge!("asyncable_service_down", "service" => service).set(f64::from(u8::from(down)));
}

/// Counts the model's rows, on the connections that read: the counts are bounded, but a turn must not wait
/// for them.
pub(crate) fn count<M, C>(reads: &Addr<Store<C>>)
where
    C: StoreConnection,
    M: Stored<C::Backend>,
{
    let asked = reads.send(Ask(Box::new(|conn: &mut C, now| {
        let around = Around::of::<M, C>(conn, now, Duration::ZERO)?;
        let counts = counts::counts::<M, C>(conn, around.instants())?;
        let oldest = counts::oldest_due::<M, C>(conn, around.instants())?;
        Ok((counts, oldest.map(|at| now.since(at))))
    })));
    actix_rt::spawn(async move {
        // What fails is told by the turns; the next sweep counts again.
        if let Ok(Ok((counts, oldest))) = asked.await {
            rows(M::COLUMNS.name, &counts, oldest);
        }
    });
}

fn rows(model: &'static str, counts: &Counts, oldest_due: Option<Duration>) {
    let states = [
        ("scheduled", counts.scheduled),
        ("due", counts.due),
        ("running", counts.in_flight),
        ("failing", counts.failing),
        ("parked", counts.parked),
        ("expired", counts.expired),
        ("expiring", counts.expiring),
    ];
    for (state, rows) in states {
        gauge!("asyncable_rows", "model" => model, "state" => state).set(f64::from(rows));
    }
    let oldest = oldest_due.unwrap_or_default().as_secs_f64();
    gauge!("asyncable_oldest_due_seconds", "model" => model).set(oldest);
}
