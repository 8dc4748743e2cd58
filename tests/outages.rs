//! Services that are down: rows wait and spend no attempt, one at a time asks, and all run when it is back.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use asyncable::{
    AskService, Asyncable, Attempt, Clock, Columns, Event, Failure, Handle, HoldService, Outcome,
    Pause, Processor, ReleaseService, Restart, Resume, RetryPolicy, Service, StoreConnection,
    SubmitAll, Supervisor, columns,
};
use chrono::Utc;
use diesel::prelude::*;
use tokio::sync::mpsc;

use support::on_each_backend;

mod schema {
    diesel::table! {
        claims (id) {
            id -> BigInt,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
    diesel::table! {
        asyncable_attempts (model, row_id) {
            model -> Text,
            row_id -> Text,
            outcome -> Text,
        }
    }
    diesel::table! {
        asyncable_probes (id) {
            id -> BigInt,
            service -> Text,
            model -> Text,
            row_id -> Text,
            code -> Text,
        }
    }
    diesel::table! {
        asyncable_actions (id) {
            id -> BigInt,
            who -> Text,
            action -> Text,
            target -> Text,
            reason -> Nullable<Text>,
        }
    }
}
use schema::{asyncable_actions, asyncable_attempts, asyncable_probes, claims};

const DDL: &str = "CREATE TABLE claims (id {key}, submitted_at TIMESTAMP, \
    attempted_at TIMESTAMP, processed_at TIMESTAMP, error TEXT); \
    CREATE INDEX claims_work ON claims (attempted_at, submitted_at) WHERE processed_at IS NULL;";

const VBMS: Service = Service::new("vbms").open_at_percent(0);

#[derive(Queryable, Selectable, Identifiable)]
struct Claim {
    id: i64,
}

impl Asyncable for Claim {
    type Id = i64;
    const COLUMNS: Columns<claims::table> = columns!(claims);
    const POLICY: RetryPolicy = RetryPolicy::DEFAULT;
}

/// An outside service, and what it has seen.
#[derive(Clone, Default)]
struct Outside {
    down: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    at_once: Arc<AtomicUsize>,
    /// The most calls at once since it was last cleared.
    most_at_once: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct Establish(Outside);

impl Processor for Establish {
    type Model = Claim;
    const SERVICES: &'static [Service] = &[VBMS];
    const AT_ONCE: usize = 4;

    async fn process(&self, _: &Claim, _: &Attempt) -> Outcome {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        let at_once = self.0.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.0.at_once.fetch_sub(1, Ordering::SeqCst);
        match self.0.down.load(Ordering::SeqCst) {
            true => Err(Failure::unavailable(VBMS, "503")),
            false => Ok(()),
        }
    }
}

struct Host {
    handle: Handle,
    events: mpsc::UnboundedReceiver<Event>,
}

/// A supervisor to which an hour is a second.
fn start<C>(url: String, outside: &Outside) -> Host
where
    C: StoreConnection,
    Claim: asyncable::Stored<C::Backend>,
{
    let (tell, events) = mpsc::unbounded_channel();
    let handle = Supervisor::<C>::new(url)
        .clock(Clock::fast(3600.0, Utc::now()))
        .sweep_every(Duration::from_millis(20))
        .on_event(move |event| drop(tell.send(event.clone())))
        .processor(Establish(outside.clone()))
        .start()
        .expect("it starts");
    Host { handle, events }
}

impl Host {
    /// The next event that is not about one row.
    async fn service_event(&mut self) -> Event {
        let next = async {
            loop {
                match self.events.recv().await.expect("a supervisor") {
                    Event::AttemptFailed { .. } => {}
                    event => return event,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), next).await.expect("an event within a minute")
    }
}

on_each_backend! {
    fn db_of(rows: i64) -> Db {
        let db = Db::migrated(DDL);
        let ids: Vec<_> = (1..=rows).map(|id| claims::id.eq(id)).collect();
        diesel::insert_into(claims::table).values(ids).execute(&mut db.conn()).expect("claims");
        db
    }

    async fn all_processed(db: &Db) {
        let done = async {
            loop {
                let open = claims::table.filter(claims::processed_at.is_null()).count();
                if open.get_result::<i64>(&mut db.conn()).expect("a count") == 0 {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let done = tokio::time::timeout(Duration::from_secs(60), done).await;
        done.expect("all are processed within a minute");
    }

    fn failed_attempts(db: &Db) -> i64 {
        let failed = asyncable_attempts::table.filter(asyncable_attempts::outcome.eq("failed"));
        failed.count().get_result(&mut db.conn()).expect("a count")
    }

    #[actix_rt::test]
    async fn an_outage_costs_a_few_calls_and_no_attempts_and_the_rows_run_when_it_is_over() {
        let db = db_of(100);
        let outside = Outside::default();
        outside.down.store(true, Ordering::SeqCst);
        let mut host = start::<Conn>(db.url(), &outside);
        host.handle.send(SubmitAll::<Claim>::new(1..=100)).await.expect("submitted");
        let down = host.service_event().await;
        assert!(matches!(&down, Event::ServiceDown { service, code, .. }
            if service == "vbms" && code == "vbms_unavailable"), "{down:?}");
        // It is asked, in vain, a few times.
        let before = outside.calls.load(Ordering::SeqCst);
        let asked = async {
            while outside.calls.load(Ordering::SeqCst) < before + 5 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), asked).await.expect("it is asked");
        outside.down.store(false, Ordering::SeqCst);
        let up = host.service_event().await;
        assert!(matches!(&up, Event::ServiceUp { service, probes, .. } if service == "vbms" && *probes >= 3), "{up:?}");
        all_processed(&db).await;
        host.handle.shutdown(Duration::ZERO).await;
        // The four failures before the fifth are the rows'; the others are the outage's.
        assert_eq!(failed_attempts(&db), 4);
        let done: Vec<String> = asyncable_actions::table
            .order(asyncable_actions::id)
            .select(asyncable_actions::action)
            .load(&mut db.conn())
            .expect("actions");
        assert_eq!(done, ["service_down", "service_up"]);
        // Which row was taken for each try is kept: each time another.
        let tries: Vec<(String, String, String, String)> = asyncable_probes::table
            .select((asyncable_probes::service, asyncable_probes::model, asyncable_probes::code, asyncable_probes::row_id))
            .order(asyncable_probes::id)
            .load(&mut db.conn())
            .expect("tries");
        let Event::ServiceUp { probes, .. } = up else { unreachable!("it is up") };
        assert_eq!(tries.len(), probes as usize);
        let of_vbms = |(service, model, code, _): &(String, String, String, String)| {
            (service.as_str(), model.as_str(), code.as_str()) == ("vbms", "claims", "vbms_unavailable")
        };
        assert!(tries.iter().all(of_vbms), "{tries:?}");
        assert!(tries.windows(2).all(|two| two[0].3 != two[1].3), "{tries:?}");
    }

    #[actix_rt::test]
    async fn a_service_that_is_down_is_asked_by_one_attempt_at_a_time_of_all_hosts() {
        let db = db_of(50);
        let outside = Outside::default();
        outside.down.store(true, Ordering::SeqCst);
        let mut one = start::<Conn>(db.url(), &outside);
        let mut two = start::<Conn>(db.url(), &outside);
        one.handle.send(SubmitAll::<Claim>::new(1..=50)).await.expect("submitted");
        // Whichever of them finds it out tells its own host.
        tokio::select! {
            _ = one.service_event() => {}
            _ = two.service_event() => {}
        }
        // What was claimed before it was known to be down still calls; then only those who ask do.
        let called = async |more: usize| {
            let before = outside.calls.load(Ordering::SeqCst);
            while outside.calls.load(Ordering::SeqCst) < before + more {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), called(16)).await.expect("it is asked");
        outside.most_at_once.store(0, Ordering::SeqCst);
        tokio::time::timeout(Duration::from_secs(60), called(10)).await.expect("it is asked");
        assert_eq!(outside.most_at_once.load(Ordering::SeqCst), 1);
        outside.down.store(false, Ordering::SeqCst);
        all_processed(&db).await;
        one.handle.shutdown(Duration::ZERO).await;
        two.handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn whatever_an_operator_does_is_kept_with_who_did_it_and_why() {
        let db = db_of(10);
        let outside = Outside::default();
        outside.down.store(true, Ordering::SeqCst);
        let mut host = start::<Conn>(db.url(), &outside);
        host.handle.send(SubmitAll::<Claim>::new(1..=10)).await.expect("submitted");
        assert!(matches!(host.service_event().await, Event::ServiceDown { .. }));
        let by = || "Bo Kim".to_owned();
        assert!(host.handle.send(AskService { service: VBMS, by: by() }).await.expect("asked"));
        host.handle.send(HoldService::new(VBMS, by(), "maintenance")).await.expect("held");
        assert!(host.handle.send(ReleaseService { service: VBMS, by: by() }).await.expect("released"));
        host.handle.send(Pause::<Claim>::new().by(by(), "a bug")).await.expect("paused");
        host.handle.send(Resume::<Claim>::new().by(by(), "mended")).await.expect("resumed");
        host.handle.send(Restart::<Claim>::new(1).by(by(), "again")).await.expect("restarted");
        host.handle.shutdown(Duration::ZERO).await;
        let done: Vec<(String, String, Option<String>)> = asyncable_actions::table
            .filter(asyncable_actions::who.eq(by()))
            .order(asyncable_actions::id)
            .select((asyncable_actions::action, asyncable_actions::target, asyncable_actions::reason))
            .load(&mut db.conn())
            .expect("actions");
        let done: Vec<(&str, &str, Option<&str>)> =
            done.iter().map(|(action, target, reason)| (action.as_str(), target.as_str(), reason.as_deref())).collect();
        assert_eq!(done, [
            ("service_asked", "vbms", None),
            ("service_held", "vbms", Some("maintenance")),
            ("service_released", "vbms", None),
            ("paused", "claims", Some("a bug")),
            ("resumed", "claims", Some("mended")),
            ("restarted", "claims", Some("again")),
        ]);
    }

    #[actix_rt::test]
    async fn a_person_holds_a_service_down_and_releases_it() {
        let db = db_of(10);
        let outside = Outside::default();
        let mut host = start::<Conn>(db.url(), &outside);
        host.handle.send(HoldService::new(VBMS, "Bo Kim", "maintenance")).await.expect("held");
        assert!(matches!(host.service_event().await, Event::ServiceHeld { .. }));
        host.handle.send(SubmitAll::<Claim>::new(1..=10)).await.expect("submitted");
        host.handle.addr().send(asyncable::Sweep).await.expect("swept");
        assert_eq!(outside.calls.load(Ordering::SeqCst), 0);
        let released = ReleaseService { service: VBMS, by: "Ann Lee".to_owned() };
        assert!(host.handle.send(released.clone()).await.expect("released"));
        assert!(!host.handle.send(released).await.expect("an answer"), "it was not held");
        all_processed(&db).await;
        host.handle.shutdown(Duration::ZERO).await;
        let done: Vec<(String, String, Option<String>)> = asyncable_actions::table
            .order(asyncable_actions::id)
            .select((asyncable_actions::who, asyncable_actions::action, asyncable_actions::reason))
            .load(&mut db.conn())
            .expect("actions");
        let held = ("Bo Kim".to_owned(), "service_held".to_owned(), Some("maintenance".to_owned()));
        assert_eq!(done, [held, ("Ann Lee".to_owned(), "service_released".to_owned(), None)]);
    }
}
