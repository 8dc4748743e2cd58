//! What the host's monitoring is told: a small recorder hears everything of this process.
#![cfg(feature = "metrics")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use asyncable::{
    Asyncable, Attempt, Clock, Columns, Failure, Handle, HoldService, Outcome, Processor,
    ReleaseService, Service, Submit, SubmitAll, Supervisor, Sweep, columns,
};
use chrono::{DateTime, TimeZone, Utc};
use diesel::{connection::SimpleConnection, prelude::*};
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

use support::on_each_backend;

mod schema {
    diesel::table! {
        appeals (id) {
            id -> BigInt,
            created_by -> Text,
            file_number -> Text,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::appeals;

const DDL: &str = "CREATE TABLE appeals (id {key}, created_by TEXT NOT NULL DEFAULT 'jdoe', \
     file_number TEXT NOT NULL DEFAULT '796104437', submitted_at TIMESTAMP, \
     attempted_at TIMESTAMP, processed_at TIMESTAMP, error TEXT); \
     CREATE INDEX appeals_work ON appeals (attempted_at, submitted_at) WHERE processed_at IS NULL;";

/// A number as it was told: its kind, its name and its labels.
type Name = (&'static str, String, BTreeMap<String, String>);

/// Keeps all that is told in this process.
#[derive(Default)]
struct Heard {
    counters: Mutex<BTreeMap<Name, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<Name, Arc<AtomicU64>>>,
    histograms: Mutex<BTreeMap<Name, Arc<Samples>>>,
    described: Mutex<BTreeSet<String>>,
}

#[derive(Default)]
struct Samples(Mutex<Vec<f64>>);

impl HistogramFn for Samples {
    fn record(&self, value: f64) {
        self.0.lock().expect("a lock").push(value);
    }
}

fn name(kind: &'static str, key: &Key) -> Name {
    let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
    (kind, key.name().to_owned(), labels.collect())
}

fn kept<T: Default>(all: &Mutex<BTreeMap<Name, Arc<T>>>, name: Name) -> Arc<T> {
    all.lock().expect("a lock").entry(name).or_default().clone()
}

impl Heard {
    fn describe(&self, name: KeyName) {
        self.described.lock().expect("a lock").insert(name.as_str().to_owned());
    }

    /// Every number that was told.
    fn names(&self) -> BTreeSet<Name> {
        let counters = self.counters.lock().expect("a lock");
        let gauges = self.gauges.lock().expect("a lock");
        let histograms = self.histograms.lock().expect("a lock");
        counters.keys().chain(gauges.keys()).chain(histograms.keys()).cloned().collect()
    }

    fn counter(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        kept(&self.counters, spelled("counter", name, labels)).load(SeqCst)
    }

    fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        f64::from_bits(kept(&self.gauges, spelled("gauge", name, labels)).load(SeqCst))
    }

    fn samples(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let samples = kept(&self.histograms, spelled("histogram", name, labels));
        samples.0.lock().expect("a lock").clone()
    }
}

fn spelled(kind: &'static str, name: &str, labels: &[(&str, &str)]) -> Name {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    (kind, name.to_owned(), labels.collect())
}

struct Ear(Arc<Heard>);

impl Recorder for Ear {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.0.describe(name);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.0.describe(name);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.0.describe(name);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(kept(&self.0.counters, name("counter", key)))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(kept(&self.0.gauges, name("gauge", key)))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(kept(&self.0.histograms, name("histogram", key)))
    }
}

/// The process's recorder.
fn heard() -> &'static Heard {
    static HEARD: OnceLock<Arc<Heard>> = OnceLock::new();
    HEARD.get_or_init(|| {
        let heard = Arc::new(Heard::default());
        metrics::set_global_recorder(Ear(heard.clone())).expect("the first recorder");
        heard
    })
}

/// Waits until `so`.
async fn until(what: &str, so: impl Fn() -> bool) {
    let waited = async {
        while !so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

fn began() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 24, 12, 0, 0).single().expect("an instant")
}

/// Each test has a model and a service of its own name, since all tell the same recorder.
macro_rules! work {
    ($model:ident, $processor:ident, $name:expr, $service:ident) => {
        const $service: Service = Service::new($name).open_after(2);

        #[derive(Queryable, Selectable, Identifiable)]
        #[diesel(table_name = appeals)]
        struct $model {
            id: i64,
        }

        impl Asyncable for $model {
            type Id = i64;
            const COLUMNS: Columns<appeals::table> =
                columns!(appeals, user = created_by, subject = file_number).name($name);
        }

        #[derive(Clone)]
        struct $processor;

        impl Processor for $processor {
            type Model = $model;
            const SERVICES: &'static [Service] = &[$service];

            async fn process(&self, row: &$model, _: &Attempt) -> Outcome {
                outcome(row.id, $service)
            }
        }
    };
}

/// What an attempt at a row comes to, by its id.
fn outcome(id: i64, service: Service) -> Outcome {
    match id {
        1..=9 => Ok(()),
        10..=19 => Err(Failure::permanent("the file of Jane Doe is closed").with_code("refused")),
        20..=29 => Err(Failure::unavailable(service, "no answer for 796104437")),
        _ => Err(Failure::retry_after(Duration::from_secs(3600), "too many")),
    }
}

on_each_backend! {
    work!(Counted, Counting, here("counted_sqlite", "counted_postgres"), COUNTED_SERVICE);
    work!(Stood, Standing, here("stood_sqlite", "stood_postgres"), STOOD_SERVICE);
    work!(Down, Downing, here("down_sqlite", "down_postgres"), DOWN_SERVICE);
    work!(Troubled, Troubling, here("troubled_sqlite", "troubled_postgres"), TROUBLED_SERVICE);
    work!(Paged, Paging, here("paged_sqlite", "paged_postgres"), PAGED_SERVICE);
    work!(Labelled, Labelling, here("labelled_sqlite", "labelled_postgres"), LABELLED_SERVICE);

    /// This backend's of two names.
    const fn here(sqlite: &'static str, postgres: &'static str) -> &'static str {
        if BACKEND.len() == "SQLite".len() { sqlite } else { postgres }
    }

    fn start<P: Processor<Model: asyncable::Stored<<Conn as diesel::Connection>::Backend>> + Clone + Send>(
        processor: P,
        ids: &[i64],
    ) -> (Db, Handle) {
        heard();
        let db = Db::migrated(DDL);
        let ids: Vec<_> = ids.iter().map(|id| appeals::id.eq(*id)).collect();
        diesel::insert_into(appeals::table).values(ids).execute(&mut db.conn()).expect("appeals");
        let started = Supervisor::<Conn>::new(db.url()).clock(Clock::fast(1e-3, began())).processor(processor).start();
        (db, started.expect("it starts"))
    }

    #[actix_rt::test]
    async fn attempts_are_counted_by_what_they_came_to() {
        let (_db, handle) = start(Counting, &[1, 2, 3, 10, 30]);
        handle.send(SubmitAll::<Counted>::new([1, 2, 3, 10, 30])).await.expect("submitted");
        let model = ("model", COUNTED_SERVICE.name());
        let settled = || heard().counter("asyncable_settled_rows_total", &[model]);
        until("all are settled", || settled() == 5).await;
        for (outcome, attempts) in [("processed", 3), ("permanent", 1), ("retry_after", 1), ("transient", 0)] {
            let labels = [model, ("outcome", outcome)];
            assert_eq!(heard().counter("asyncable_attempts_total", &labels), attempts, "{outcome}");
            let took = heard().samples("asyncable_attempt_seconds", &labels);
            assert_eq!(took.len() as u64, attempts, "{outcome}");
            assert!(took.iter().all(|seconds| *seconds >= 0.0));
        }
        assert_eq!(heard().counter("asyncable_claimed_rows_total", &[model]), 5);
        assert!(!heard().samples("asyncable_turn_seconds", &[model]).is_empty());
        assert_eq!(heard().counter("asyncable_database_trouble_total", &[model]), 0);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn each_sweep_tells_where_rows_stand_and_how_long_they_wait() {
        let (db, handle) = start(Standing, &[1, 10, 30, 31]);
        let model = ("model", STOOD_SERVICE.name());
        let rows = |state| heard().gauge("asyncable_rows", &[model, ("state", state)]);
        handle.send(SubmitAll::<Stood>::new([10, 30])).await.expect("submitted");
        handle.send(Submit::<Stood>::new(31).after(Duration::from_secs(3600))).await.expect("submitted");
        until("both have failed", || heard().counter("asyncable_settled_rows_total", &[model]) == 2).await;
        handle.send(HoldService::new(STOOD_SERVICE, "Bo Kim", "maintenance")).await.expect("held");
        db.conn().batch_execute("UPDATE appeals SET submitted_at = '2026-11-24 11:00:00' WHERE id = 1").expect("a due row");
        handle.addr().send(Sweep).await.expect("swept");
        until("they are counted", || (rows("parked"), rows("failing"), rows("scheduled"), rows("due")) == (1.0, 1.0, 1.0, 1.0)).await;
        let oldest = || heard().gauge("asyncable_oldest_due_seconds", &[model]).floor();
        until("and how long they wait", || oldest() == 3600.0).await;
        assert_eq!((rows("running"), rows("expired"), rows("expiring")), (0.0, 0.0, 0.0));
        let service = ("service", STOOD_SERVICE.name());
        let held = || heard().gauge("asyncable_service_held", &[service]);
        handle.addr().send(Sweep).await.expect("swept");
        until("the hold is told", || held() == 1.0).await;
        handle.send(ReleaseService { service: STOOD_SERVICE, by: "Bo Kim".into() }).await.expect("released");
        until("the row is done", || heard().counter("asyncable_settled_rows_total", &[model]) == 3).await;
        handle.addr().send(Sweep).await.expect("swept");
        until("nothing waits", || (rows("due"), held()) == (0.0, 0.0)).await;
        until("nothing is old", || oldest() == 0.0).await;
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_service_that_goes_down_is_told_at_once() {
        let (_db, handle) = start(Downing, &[20, 21, 22]);
        let service = ("service", DOWN_SERVICE.name());
        handle.send(SubmitAll::<Down>::new([20, 21, 22])).await.expect("submitted");
        until("it is down", || heard().gauge("asyncable_service_down", &[service]) == 1.0).await;
        handle.addr().send(Sweep).await.expect("swept");
        let told = || heard().names().contains(&spelled("gauge", "asyncable_service_probes", &[service]));
        until("a sweep tells of probes", told).await;
        assert_eq!(heard().gauge("asyncable_service_down", &[service]), 1.0);
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_database_that_takes_no_turn_is_counted() {
        let (db, handle) = start(Troubling, &[1]);
        db.conn().batch_execute(match BACKEND {
            "SQLite" => "CREATE TRIGGER refused BEFORE INSERT ON asyncable_claims BEGIN SELECT RAISE(ABORT, 'no'); END",
            _ => "ALTER TABLE asyncable_claims ADD CONSTRAINT refused CHECK (false) NOT VALID",
        }).expect("claims are refused");
        handle.send(Submit::<Troubled>::new(1)).await.ok(); // refused with its turn, or granted before it
        db.conn().batch_execute("UPDATE appeals SET submitted_at = '2026-11-24 11:00:00'").expect("a due row");
        handle.wake::<Troubled>();
        let model = ("model", TROUBLED_SERVICE.name());
        until("it is counted", || heard().counter("asyncable_database_trouble_total", &[model]) > 0).await;
        assert_eq!(heard().counter("asyncable_attempts_total", &[model, ("outcome", "processed")]), 0);
        handle.shutdown(Duration::ZERO).await;
    }

    /// The names of the page's table, with their kinds and labels.
    fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
        let page = include_str!("../docs/metrics.md");
        let lines = page.lines().filter(|line| line.starts_with("| `asyncable_"));
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let named = |line: &str| {
            let cells = cells(line);
            let labels = cells[3].split(", ").map(|label| label.trim_matches('`').to_owned());
            (cells[1].trim_matches('`').to_owned(), (cells[2].clone(), labels.collect()))
        };
        lines.map(named).collect()
    }

    #[actix_rt::test]
    async fn every_number_is_on_the_page_and_every_name_on_the_page_is_told() {
        let (_db, handle) = start(Paging, &[20, 21, 1]);
        handle.send(SubmitAll::<Paged>::new([20, 21])).await.expect("submitted");
        let service = ("service", PAGED_SERVICE.name());
        until("it is down", || heard().gauge("asyncable_service_down", &[service]) == 1.0).await;
        handle.addr().send(Sweep).await.expect("swept");
        let documented = documented();
        let described: BTreeSet<String> = heard().described.lock().expect("a lock").clone();
        assert_eq!(described, documented.keys().cloned().collect());
        // Trouble is told where there is some, which another test makes.
        let rare = "asyncable_database_trouble_total";
        let told = || heard().names().into_iter().map(|(_, name, _)| name).collect::<BTreeSet<_>>();
        let all = || documented.keys().all(|name| name == rare || told().contains(name));
        until("all are told", all).await;
        for (kind, name, labels) in heard().names() {
            let (known, of) = &documented[&name];
            assert_eq!((kind, labels.into_keys().collect()), (known.as_str(), of.clone()), "{name}");
        }
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn no_label_is_of_a_row_a_person_or_a_text() {
        let (_db, handle) = start(Labelling, &[10]);
        handle.send(Submit::<Labelled>::new(10)).await.expect("submitted");
        let labels = [("model", LABELLED_SERVICE.name()), ("outcome", "permanent")];
        until("it is parked", || heard().counter("asyncable_attempts_total", &labels) > 0).await;
        let models = ["counted", "stood", "down", "troubled", "paged", "labelled"];
        let states = ["scheduled", "due", "running", "failing", "parked", "expired", "expiring"];
        let outcomes = ["processed", "transient", "unavailable", "retry_after", "unknown", "permanent", "lost", "unsettled"];
        for (_, name, labels) in heard().names() {
            for (label, value) in labels {
                let known = match label.as_str() {
                    "model" | "service" => models.iter().any(|model| value.starts_with(&format!("{model}_"))),
                    "state" => states.contains(&value.as_str()),
                    "outcome" => outcomes.contains(&value.as_str()),
                    _ => false,
                };
                assert!(known, "{name}: {label}={value}");
            }
        }
        handle.shutdown(Duration::ZERO).await;
    }
}
