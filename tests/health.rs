//! Health, for machines: live, ready, and progressing; without a login and without a name.
#![cfg(feature = "dashboard")]

mod support;

use std::{sync::Arc, time::Duration};

use actix_web::{
    App, HttpRequest,
    test::{TestRequest, call_service, init_service, read_body},
    web,
};
use asyncable::{
    Access, Asyncable, Attempt, Clock, Columns, Dashboard, GetCounts, Handle, HoldService, Outcome,
    Pause, Processor, ReleaseService, Resume, Service as Outside, Supervisor, columns,
};
use chrono::{DateTime, TimeZone, Utc};
use diesel::{connection::SimpleConnection, prelude::*};
use tokio::sync::Semaphore;

use support::on_each_backend;

mod schema {
    diesel::table! {
        appeals (id) {
            id -> BigInt,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::appeals;

const DDL: &str = "CREATE TABLE appeals (id {key}, submitted_at TIMESTAMP, attempted_at TIMESTAMP, \
     processed_at TIMESTAMP, error TEXT); \
     CREATE INDEX appeals_work ON appeals (attempted_at, submitted_at) WHERE processed_at IS NULL;";

const VBMS: Outside = Outside::new("vbms");

#[derive(Queryable, Selectable, Identifiable)]
struct Appeal {
    id: i64,
}

impl Asyncable for Appeal {
    type Id = i64;
    const COLUMNS: Columns<appeals::table> = columns!(appeals);
}

/// One at a time, and none ends until it is let go.
#[derive(Clone)]
struct Long(Arc<Semaphore>);

impl Processor for Long {
    type Model = Appeal;
    const SERVICES: &'static [Outside] = &[VBMS];
    const AT_ONCE: usize = 1;

    async fn process(&self, _: &Appeal, _: &Attempt) -> Outcome {
        let _let_go = self.0.acquire().await?;
        Ok(())
    }
}

fn began() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 24, 12, 0, 0).single().expect("an instant")
}

async fn nobody(_: HttpRequest) -> Result<Access, actix_web::Error> {
    Err(actix_web::error::ErrorUnauthorized("log in first"))
}

/// What is answered to one who has no login.
async fn ask_page(page: Dashboard, address: &str) -> (u16, String) {
    let app = init_service(App::new().service(web::scope("/ops").service(page))).await;
    let request = TestRequest::get().uri(&format!("/ops{address}")).to_request();
    let response = call_service(&app, request).await;
    let status = response.status().as_u16();
    (status, String::from_utf8(read_body(response).await.to_vec()).expect("UTF-8"))
}

async fn ask(handle: &Handle, address: &str) -> (u16, String) {
    ask_page(Dashboard::new(handle.clone(), nobody), address).await
}

/// Asks until the answer is this.
async fn until(handle: &Handle, address: &str, status: u16, body: &str) {
    let last = Arc::new(std::sync::Mutex::new(None));
    let asked = async {
        loop {
            let answered = ask(handle, address).await;
            if answered == (status, body.to_owned()) {
                return;
            }
            *last.lock().expect("a lock") = Some(answered);
            tokio::task::yield_now().await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(60), asked).await.is_err() {
        panic!("{address} goes on to answer {:?}", last.lock().expect("a lock"));
    }
}

const WELL: &str = r#"{"ok":true}"#;
const SILENT: &str = r#"{"ok":false,"why":"the database does not answer"}"#;

/// One model waits, and by this much.
fn stuck_for(seconds: u64) -> String {
    format!(
        r#"{{"ok":false,"why":"due rows wait, and no host works on them","models_waiting":1,"longest_wait_s":{seconds}}}"#
    )
}

on_each_backend! {
    struct Setting {
        db: Db,
        handle: Handle,
        /// Lets attempts end.
        go: Arc<Semaphore>,
    }

    /// A supervisor whose clock hardly moves.
    fn start() -> Setting {
        let db = Db::migrated(DDL);
        let go = Arc::new(Semaphore::new(0));
        let handle = Supervisor::<Conn>::new(db.url())
            .clock(Clock::fast(1e-4, began()))
            .processor(Long(go.clone()))
            .start()
            .expect("it starts");
        Setting { db, handle, go }
    }

    impl Setting {
        fn sql(&self, sql: &str) {
            self.db.conn().batch_execute(sql).expect("SQL");
        }

        /// From now on the database answers, but lets nobody claim a row.
        fn refuse_claims(&self) {
            self.sql(match BACKEND {
                "SQLite" => "CREATE TRIGGER refused BEFORE INSERT ON asyncable_claims \
                             BEGIN SELECT RAISE(ABORT, 'no'); END",
                _ => "ALTER TABLE asyncable_claims ADD CONSTRAINT refused CHECK (false) NOT VALID",
            });
        }

        fn allow_claims(&self) {
            self.sql(match BACKEND {
                "SQLite" => "DROP TRIGGER refused",
                _ => "ALTER TABLE asyncable_claims DROP CONSTRAINT refused",
            });
        }

        /// An appeal that has been due for an hour.
        fn due_for_an_hour(&self, id: i64) {
            let sql = format!("INSERT INTO appeals (id, submitted_at) VALUES ({id}, '2026-11-24 11:00:00')");
            self.sql(&sql);
        }

        async fn end(self) {
            self.go.add_permits(1);
            self.handle.shutdown(Duration::from_secs(30)).await;
        }
    }

    #[actix_rt::test]
    async fn a_process_that_answers_is_live_whatever_else_is_wrong() {
        let setting = start();
        let handle = setting.handle.clone();
        assert_eq!(ask(&handle, "/health/live").await, (200, WELL.to_owned()));
        setting.end().await;
        assert_eq!(ask(&handle, "/health/live").await, (200, WELL.to_owned()));
    }

    #[actix_rt::test]
    async fn a_supervisor_that_runs_and_has_a_database_that_answers_is_ready() {
        let setting = start();
        assert_eq!(ask(&setting.handle, "/health/ready").await, (200, WELL.to_owned()));
        let rename = |from: &str, to: &str| {
            setting.sql(&format!("ALTER TABLE {from} RENAME TO {to}"));
        };
        rename("asyncable_hosts", "hidden");
        for address in ["/health/ready", "/health.json", "/health/progressing"] {
            assert_eq!(ask(&setting.handle, address).await, (503, SILENT.to_owned()), "{address}");
        }
        rename("hidden", "asyncable_hosts");
        assert_eq!(ask(&setting.handle, "/health/ready").await, (200, WELL.to_owned()));
        let handle = setting.handle.clone();
        setting.end().await;
        for address in ["/health/ready", "/health.json", "/health/progressing"] {
            assert_eq!(ask(&handle, address).await, (503, SILENT.to_owned()), "{address} of a stopped one");
        }
    }

    #[actix_rt::test]
    async fn due_rows_that_nobody_works_on_are_no_progress_once_they_have_waited_too_long() {
        let setting = start();
        let handle = &setting.handle;
        assert_eq!(ask(handle, "/health/progressing").await, (200, WELL.to_owned()), "nothing is due");
        setting.refuse_claims();
        setting.sql("INSERT INTO appeals (id, submitted_at) VALUES (1, '2026-11-24 11:55:00')");
        assert_eq!(ask(handle, "/health/progressing").await, (200, WELL.to_owned()), "it has been due for 5 minutes");
        setting.due_for_an_hour(2);
        assert_eq!(ask(handle, "/health/progressing").await, (503, stuck_for(3600)));
        let patient = Dashboard::new(handle.clone(), nobody).progress_within(Duration::from_secs(7200));
        assert_eq!(ask_page(patient, "/health/progressing").await, (200, WELL.to_owned()), "the limit is the host's");
        setting.allow_claims();
        handle.wake::<Appeal>();
        until(handle, "/health/progressing", 200, WELL).await;
        setting.end().await;
    }

    #[actix_rt::test]
    async fn a_retry_that_is_due_and_waits_is_no_progress_either() {
        let setting = start();
        setting.refuse_claims();
        setting.sql(
            "INSERT INTO appeals (id, submitted_at, attempted_at) \
             VALUES (1, '2026-11-24 08:00:00', '2026-11-24 08:30:00'); \
             INSERT INTO asyncable_retries (model, row_id, attempted_at, last_submitted_at, submitted_at, due_at, \
             kind, failures, code, first_failed_at, last_failed_at) \
             VALUES ('appeals', '1', '2026-11-24 08:30:00', '2026-11-24 08:00:00', '2026-11-24 08:00:00', \
             '2026-11-24 11:30:00', 'transient', 1, 'x', '2026-11-24 08:30:00', '2026-11-24 08:30:00')",
        );
        assert_eq!(ask(&setting.handle, "/health/progressing").await, (503, stuck_for(1800)));
        setting.end().await;
    }

    #[actix_rt::test]
    async fn a_backlog_that_is_worked_on_is_progress_however_old() {
        let setting = start();
        setting.due_for_an_hour(1);
        setting.due_for_an_hour(2);
        setting.handle.wake::<Appeal>();
        let runs = async {
            while setting.handle.send(GetCounts::<Appeal>::new()).await.expect("counts").in_flight == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), runs).await.expect("one runs");
        let due = setting.handle.send(GetCounts::<Appeal>::new()).await.expect("counts").due;
        assert_eq!((due, ask(&setting.handle, "/health/progressing").await), (1, (200, WELL.to_owned())));
        setting.end().await;
    }

    #[actix_rt::test]
    async fn rows_that_are_held_back_on_purpose_are_no_lack_of_progress() {
        let setting = start();
        let handle = &setting.handle;
        setting.refuse_claims();
        setting.due_for_an_hour(1);
        until(handle, "/health/progressing", 503, &stuck_for(3600)).await;
        handle.send(HoldService::new(VBMS, "Bo Kim", "maintenance")).await.expect("held");
        assert_eq!(ask(handle, "/health/progressing").await, (200, WELL.to_owned()), "their service is held");
        handle.send(ReleaseService { service: VBMS, by: "Bo Kim".into() }).await.expect("released");
        // They could run since a moment only.
        assert_eq!(ask(handle, "/health/progressing").await, (200, WELL.to_owned()));
        setting.sql("DELETE FROM asyncable_outages; DELETE FROM asyncable_services");
        until(handle, "/health/progressing", 503, &stuck_for(3600)).await;
        setting.sql(
            "INSERT INTO asyncable_services (name, state, since, next_probe_at, code) VALUES \
             ('vbms', 'open', '2026-11-24 11:30:00', '2026-11-24 12:05:00', 'x')",
        );
        assert_eq!(ask(handle, "/health/progressing").await, (200, WELL.to_owned()), "their service is down");
        setting.sql("DELETE FROM asyncable_services");
        until(handle, "/health/progressing", 503, &stuck_for(3600)).await;
        handle.send(Pause::<Appeal>::new()).await.expect("paused");
        until(handle, "/health/progressing", 200, WELL).await;
        handle.send(Resume::<Appeal>::new()).await.expect("resumed");
        until(handle, "/health/progressing", 503, &stuck_for(3600)).await;
        setting.end().await;
    }
}
