//! A night's outage, as whoever reads the log in the morning sees it.
//!
//! Alone in its file: the log is the process's, and all of it is counted.

#[path = "support/records.rs"]
mod records;
mod support;

use std::{
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
use chrono::{TimeDelta, Utc};
use diesel::{connection::SimpleConnection, prelude::*};
use log::Level;
use tokio::sync::mpsc;

use records::Records;
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
}
use schema::claims;

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
}

/// A service that is down for its first hundred calls: about eight hours.
#[derive(Clone, Default)]
struct Establish(Arc<AtomicUsize>);

impl Processor for Establish {
    type Model = Claim;
    const SERVICES: &'static [Service] = &[VBMS];

    async fn process(&self, _: &Claim, _: &Attempt) -> Outcome {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0..100 => Err(Failure::unavailable(VBMS, "503")),
            _ => Ok(()),
        }
    }
}

/// The number in a text between two others.
fn count(text: &str, before: &str, after: &str) -> Option<u32> {
    text.strip_prefix(before)?.strip_suffix(after)?.parse().ok()
}

on_each_backend! {
    #[actix_rt::test]
    async fn a_nights_outage_is_two_lines_and_two_events_however_many_rows_wait() {
        const ROWS: u32 = 3000;
        let records = Records::keep().await;
        let db = Db::migrated(DDL);
        let submitted = (Utc::now() - TimeDelta::minutes(1)).format("%Y-%m-%d %H:%M:%S");
        let sql = format!(
            "INSERT INTO claims (submitted_at) WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL \
             SELECT x + 1 FROM n WHERE x < {ROWS}) SELECT CAST('{submitted}' AS {instant}) FROM n",
            instant = if BACKEND == "SQLite" { "TEXT" } else { "TIMESTAMP" },
        );
        db.conn().batch_execute(&sql).expect("rows");
        let (tell, mut told) = mpsc::unbounded_channel();
        let handle = Supervisor::<Conn>::new(db.url())
            .clock(Clock::fast(7200.0, Utc::now()))
            .sweep_every(Duration::from_millis(20))
            .on_event(move |event| drop(tell.send(event.clone())))
            .processor(Establish::default())
            .start()
            .expect("it starts");
        let open = || claims::table.filter(claims::processed_at.is_null()).count();
        let all = async {
            let mut look = actix_rt::time::interval(Duration::from_millis(20));
            while open().get_result::<i64>(&mut db.conn()).expect("a count") > 0 {
                look.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), all).await.expect("done in two minutes");
        handle.shutdown(Duration::from_secs(10)).await;

        let lines = records.so_far();
        let [(down_level, down), (back_level, back)] = lines.as_slice() else {
            panic!("{} lines: {:?}", lines.len(), &lines[..lines.len().min(10)]);
        };
        assert_eq!((*down_level, *back_level), (Level::Error, Level::Warn));
        let waiting = count(down, "vbms is down: vbms_unavailable; ", " rows wait for it");
        let waited = count(back, "vbms is back; ", " rows have waited for it");
        let most = |count: Option<u32>| count.is_some_and(|count| (ROWS - 100..=ROWS).contains(&count));
        assert!(most(waiting) && most(waited), "{lines:?}");
        let mut events = Vec::new();
        while let Ok(event) = told.try_recv() {
            match event {
                // Those by which it was found out.
                Event::AttemptFailed { .. } => {}
                event => events.push(format!("{event:?}").split(' ').next().unwrap_or_default().to_owned()),
            }
        }
        assert_eq!(events, ["ServiceDown", "ServiceUp"]);
    }
}
