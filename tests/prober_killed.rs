//! Two processes with one breaker: while one of them asks the service that is down, the other does not; and
//! when the one that asks is killed, the other goes on, asks in its turn, and sees that the service is back.

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use asyncable::{
    Asyncable, Attempt, Clock, Columns, Event, Failure, Outcome, Processor, Service, Supervisor,
    columns,
};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
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
        asyncable_services (name) {
            name -> Text,
            state -> Text,
            probe_token -> Nullable<Timestamp>,
        }
    }
    diesel::table! {
        asyncable_hosts (host, model) {
            host -> Text,
            model -> Text,
            seen_at -> Timestamp,
        }
    }
    diesel::table! {
        asyncable_actions (id) {
            id -> BigInt,
            action -> Text,
        }
    }
    diesel::table! {
        asyncable_retries (model, row_id) {
            model -> Text,
            row_id -> Text,
            code -> Text,
        }
    }
}
use schema::{asyncable_actions, asyncable_hosts, asyncable_retries, asyncable_services, claims};

const DDL: &str = "CREATE TABLE claims (id {key}, submitted_at TIMESTAMP, \
    attempted_at TIMESTAMP, processed_at TIMESTAMP, error TEXT); \
    CREATE INDEX claims_work ON claims (attempted_at, submitted_at) WHERE processed_at IS NULL;";

const VBMS: Service = Service::new("vbms").open_after(5).open_at_percent(0);

/// The database that a child works on, and when the time of both processes began.
const CHILD: &str = "ASYNCABLE_TEST_CHILD";
const BEGAN: &str = "ASYNCABLE_TEST_BEGAN";

/// What the child says when it asks the service.
const ASKING: &str = "it asks";

const ROWS: i64 = 40;

#[derive(Queryable, Selectable, Identifiable)]
struct Claim {
    id: i64,
}

impl Asyncable for Claim {
    type Id = i64;
    const COLUMNS: Columns<claims::table> = columns!(claims);
}

/// In the process that is killed: the service is down, and the call that asks it is never answered.
#[derive(Clone, Default)]
struct Down(Arc<AtomicUsize>);

impl Processor for Down {
    type Model = Claim;
    const SERVICES: &'static [Service] = &[VBMS];
    const AT_ONCE: usize = 1;

    async fn process(&self, _: &Claim, _: &Attempt) -> Outcome {
        if self.0.fetch_add(1, Ordering::SeqCst) < 5 {
            return Err(Failure::unavailable(VBMS, "503"));
        }
        // The sixth: by the fifth it was down.
        writeln!(std::io::stderr(), "{ASKING}")?;
        std::future::pending().await
    }
}

/// In the other process: the service is back.
#[derive(Clone, Default)]
struct Up(Arc<AtomicUsize>);

impl Processor for Up {
    type Model = Claim;
    const SERVICES: &'static [Service] = &[VBMS];

    async fn process(&self, _: &Claim, _: &Attempt) -> Outcome {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// An hour is a second, in all processes the same.
fn clock(began: DateTime<Utc>) -> Clock {
    const SPEED: i32 = 3600;
    Clock::fast(SPEED.into(), began + (Utc::now() - began) * SPEED)
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let seen = async {
        let mut ticks = actix_rt::time::interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            if let Some(seen) = look() {
                return seen;
            }
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(60), seen).await;
    seen.unwrap_or_else(|_| panic!("{what}, within a minute"))
}

/// Ends the child also where the test fails.
struct Killed(Child);

impl Killed {
    fn now(&mut self) {
        self.0.kill().expect("killed with SIGKILL");
        self.0.wait().expect("gone");
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may be gone
        let _ = self.0.wait();
    }
}

on_each_backend! {
    fn supervisor(url: &str, began: DateTime<Utc>) -> Supervisor<Conn> {
        Supervisor::<Conn>::new(url)
            .clock(clock(began))
            .sweep_every(Duration::from_millis(20))
            .lease_for(Duration::from_secs(1))
    }

    /// Not a test of its own: what the killed process runs.
    #[actix_rt::test]
    async fn child() {
        let (Ok(url), Ok(began)) = (std::env::var(CHILD), std::env::var(BEGAN)) else { return };
        let began = began.parse().expect("an instant");
        let _handle = supervisor(&url, began).processor(Down::default()).start().expect("it starts");
        std::future::pending::<()>().await
    }

    /// A child that asks the service, and is not answered.
    fn asking(db: &Db, began: DateTime<Utc>) -> Killed {
        let module = module_path!().split_once("::").map_or("", |(_, module)| module);
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", &format!("{module}::child"), "--nocapture"])
            .env(CHILD, db.url())
            .env(BEGAN, began.to_rfc3339())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("a child");
        let output = BufReader::new(child.stderr.take().expect("its output"));
        let child = Killed(child);
        let asks = output.lines().map_while(Result::ok).any(|line| line.contains(ASKING));
        assert!(asks, "the child asks");
        child
    }

    fn db_of(rows: i64, began: DateTime<Utc>) -> Db {
        let db = Db::migrated(DDL);
        let submitted = claims::submitted_at.eq((began - TimeDelta::minutes(1)).naive_utc());
        let rows: Vec<_> = (1..=rows).map(|id| (claims::id.eq(id), submitted)).collect();
        diesel::insert_into(claims::table).values(rows).execute(&mut db.conn()).expect("claims");
        db
    }

    fn breaker(conn: &mut Conn) -> (String, Option<NaiveDateTime>) {
        let breaker = asyncable_services::table.find("vbms");
        breaker.select((asyncable_services::state, asyncable_services::probe_token)).first(conn).expect("a service")
    }

    #[actix_rt::test]
    async fn when_the_process_that_asks_is_killed_another_asks_and_sees_that_the_service_is_back() {
        let began = Utc::now();
        let db = db_of(ROWS, began);
        let conn = &mut db.conn();
        let mut prober = asking(&db, began);
        let down = breaker(conn);
        assert_eq!((down.0.as_str(), down.1.is_some()), ("open", true));
        let first: String = asyncable_hosts::table.select(asyncable_hosts::host).first(conn).expect("a host");

        let (up, (tell, mut told)) = (Up::default(), mpsc::unbounded_channel());
        let handle = supervisor(&db.url(), began)
            .on_event(move |event| drop(tell.send(event.clone())))
            .processor(up.clone())
            .start()
            .expect("it starts");
        // It is there and sweeps, again and again: each sweep says that it is alive.
        let other = || asyncable_hosts::table.filter(asyncable_hosts::host.ne(&first));
        let mut seen: Vec<NaiveDateTime> = Vec::new();
        until("the other process has swept twenty times", || {
            let at: Option<NaiveDateTime> = other().select(asyncable_hosts::seen_at).first(conn).optional().expect("a host");
            seen.extend(at);
            seen.dedup();
            (seen.len() > 20).then_some(())
        })
        .await;
        assert_eq!(up.0.load(Ordering::SeqCst), 0, "the first one asks");
        assert_eq!(breaker(conn), down, "and nobody else");

        prober.now();

        let open = || claims::table.filter(claims::processed_at.is_null()).count();
        let all = until("all are processed", || {
            (open().get_result::<i64>(conn).expect("a count") == 0).then_some(())
        });
        all.await;
        let back = async {
            loop {
                if let Event::ServiceUp { service, .. } = told.recv().await.expect("a supervisor") {
                    return service;
                }
            }
        };
        let back = tokio::time::timeout(Duration::from_secs(60), back).await.expect("told within a minute");
        handle.shutdown(Duration::from_secs(10)).await;
        assert_eq!(back, "vbms");
        assert_eq!(up.0.load(Ordering::SeqCst), usize::try_from(ROWS).expect("rows"), "each once");
        let (state, _) = breaker(conn);
        assert_eq!(state, "closed");
        let actions: Vec<String> = asyncable_actions::table
            .order(asyncable_actions::id)
            .select(asyncable_actions::action)
            .load(conn)
            .expect("actions");
        assert_eq!(actions, ["service_down", "service_up"]);
        let left: Vec<String> = asyncable_retries::table.select(asyncable_retries::code).load(conn).expect("entries");
        assert_eq!(left, [] as [String; 0]);
    }
}
