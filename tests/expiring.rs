//! Rows whose windows end: told of in time, once, and again when they have.

mod support;

use std::{collections::BTreeMap, time::Duration};

use asyncable::{
    Asyncable, Attempt, Clock, Columns, Event, Failure, GetCounts, Outcome, Pause, Processor,
    RetryPolicy, SubmitAll, Supervisor, columns,
};
use chrono::{TimeDelta, Utc};
use diesel::prelude::*;
use tokio::sync::mpsc;

use support::on_each_backend;

mod schema {
    diesel::table! {
        permits (id) {
            id -> BigInt,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::permits;

const DDL: &str = "CREATE TABLE permits (id {key}, submitted_at TIMESTAMP, \
    attempted_at TIMESTAMP, processed_at TIMESTAMP, error TEXT); \
    CREATE INDEX permits_work ON permits (attempted_at, submitted_at) WHERE processed_at IS NULL;";

#[derive(Queryable, Selectable, Identifiable)]
struct Permit {
    id: i64,
}

impl Asyncable for Permit {
    type Id = i64;
    const COLUMNS: Columns<permits::table> = columns!(permits);
    const POLICY: RetryPolicy = RetryPolicy::DEFAULT;
}

/// The same rows, tried for ever.
#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = permits)]
struct Patient {
    id: i64,
}

impl Asyncable for Patient {
    type Id = i64;
    const COLUMNS: Columns<permits::table> = columns!(permits).name("patient");
    const POLICY: RetryPolicy = RetryPolicy::DEFAULT.window(Duration::MAX);
}

#[derive(Clone)]
struct GrantInTheEnd;

impl Processor for GrantInTheEnd {
    type Model = Patient;

    async fn process(&self, _: &Patient, attempt: &Attempt) -> Outcome {
        match attempt.number() {
            1..=40 => Err(Failure::transient("nobody there")),
            _ => Ok(()),
        }
    }
}

#[derive(Clone)]
struct Grant;

impl Processor for Grant {
    type Model = Permit;

    async fn process(&self, _: &Permit, _: &Attempt) -> Outcome {
        Err(Failure::transient("nobody there"))
    }
}

on_each_backend! {
    /// Half of the rows fail every three hours; half are new to a model that is then paused.
    #[actix_rt::test]
    async fn each_row_is_told_of_once_a_day_before_its_window_ends_and_once_when_it_has() {
        let db = Db::migrated(DDL);
        let ids: Vec<_> = (1..=20).map(|id| permits::id.eq(id)).collect();
        diesel::insert_into(permits::table).values(ids).execute(&mut db.conn()).expect("permits");
        let began = Utc::now();
        let (tell, mut events) = mpsc::unbounded_channel();
        // Four days pass in some five seconds, with ten sweeps or so a day.
        let handle = Supervisor::<Conn>::new(db.url())
            .clock(Clock::fast(72_000.0, began))
            .sweep_every(Duration::from_millis(100))
            .on_event(move |event| drop(tell.send(event.clone())))
            .processor(Grant)
            .start()
            .expect("it starts");
        handle.send(SubmitAll::<Permit>::new(1..=10)).await.expect("submitted");
        let failed = async {
            while !matches!(events.recv().await, Some(Event::AttemptFailed { id, .. }) if id == "10") {}
        };
        tokio::time::timeout(Duration::from_secs(60), failed).await.expect("they fail");
        handle.send(Pause::<Permit>::new()).await.expect("paused");
        handle.send(SubmitAll::<Permit>::new(11..=20)).await.expect("submitted");
        let mut told: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let mut most_expiring = 0;
        let expired = async {
            while told.values().filter(|told| told.contains(&"expired")).count() < 20 {
                match events.recv().await.expect("a supervisor") {
                    Event::ExpiresSoon { model: "permits", id, at } => {
                        let window = TimeDelta::days(4);
                        assert!(at >= began + window && at <= began + window + TimeDelta::days(1), "{at}");
                        told.entry(id).or_default().push("soon");
                        let counts = handle.send(GetCounts::<Permit>::new()).await.expect("counts");
                        most_expiring = most_expiring.max(counts.expiring);
                    }
                    Event::Expired { model: "permits", id } => told.entry(id).or_default().push("expired"),
                    _ => {}
                }
                if told.values().filter(|told| told.contains(&"soon")).count() == 20 {
                    // Those that failed are found to have expired by a claim.
                    handle.send(asyncable::Resume::<Permit>::new()).await.expect("resumed");
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), expired).await.expect("all expire");
        handle.shutdown(Duration::ZERO).await;
        let once: Vec<&Vec<&str>> = told.values().collect();
        assert_eq!(once, vec![&vec!["soon", "expired"]; 20]);
        assert!(most_expiring > 0);
    }

    #[actix_rt::test]
    async fn a_row_whose_window_never_ends_is_tried_until_it_is_done_and_nothing_is_told() {
        let db = Db::migrated(DDL);
        diesel::insert_into(permits::table).values(permits::id.eq(1)).execute(&mut db.conn()).expect("a permit");
        let (tell, mut events) = mpsc::unbounded_channel();
        let handle = Supervisor::<Conn>::new(db.url())
            .clock(Clock::fast(72_000.0, Utc::now()))
            .sweep_every(Duration::from_millis(100))
            .on_event(move |event| drop(tell.send(event.clone())))
            .processor(GrantInTheEnd)
            .start()
            .expect("it starts");
        handle.send(SubmitAll::<Patient>::new([1])).await.expect("submitted");
        // Forty times three hours: five days.
        let done = async {
            let processed = permits::table.filter(Patient::processed()).count();
            let mut look = actix_rt::time::interval(Duration::from_millis(20));
            while processed.get_result::<i64>(&mut db.conn()).expect("a count") == 0 {
                look.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), done).await.expect("it is done within a minute");
        // As long as it takes, which is not long.
        handle.shutdown(Duration::MAX).await;
        let mut attempts = 0;
        while let Ok(event) = events.try_recv() {
            assert!(matches!(event, Event::AttemptFailed { .. }), "{event:?}");
            attempts += 1;
        }
        assert_eq!(attempts, 40);
    }
}
