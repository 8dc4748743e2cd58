//! Models that share a store and a process: one with a backlog does not starve another.

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use asyncable::{
    Asyncable, Attempt, Columns, Outcome, Processor, Service, SubmitAll, Supervisor, columns,
};
use chrono::{TimeDelta, Utc};
use diesel::{connection::SimpleConnection, prelude::*};

use support::on_each_backend;

mod schema {
    diesel::table! {
        bulk (id) {
            id -> BigInt,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
    diesel::table! {
        letters (id) {
            id -> BigInt,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::{bulk, letters};

/// Two tables alike.
fn ddl() -> String {
    let table = |name: &str| {
        format!(
            "CREATE TABLE {name} (id {{key}}, submitted_at TIMESTAMP, attempted_at TIMESTAMP, \
             processed_at TIMESTAMP, error TEXT); \
             CREATE INDEX {name}_work ON {name} (attempted_at, submitted_at) \
             WHERE processed_at IS NULL;"
        )
    };
    table("bulk") + &table("letters")
}

#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = bulk)]
struct Bulk {
    id: i64,
}

impl Asyncable for Bulk {
    type Id = i64;
    const COLUMNS: Columns<bulk::table> = columns!(bulk);
}

#[derive(Queryable, Selectable, Identifiable)]
struct Letter {
    id: i64,
}

impl Asyncable for Letter {
    type Id = i64;
    const COLUMNS: Columns<letters::table> = columns!(letters);
}

/// What was begun, in order, of both models.
type Order = Arc<Mutex<Vec<&'static str>>>;

const POST: Service = Service::new("post").at_once(4);

#[derive(Clone)]
struct DoBulk(Order);

impl Processor for DoBulk {
    type Model = Bulk;
    const SERVICES: &'static [Service] = &[POST];

    async fn process(&self, _: &Bulk, _: &Attempt) -> Outcome {
        self.0.lock().expect("the order").push("bulk");
        tokio::task::yield_now().await;
        Ok(())
    }
}

#[derive(Clone)]
struct DoLetter(Order);

impl Processor for DoLetter {
    type Model = Letter;
    const SERVICES: &'static [Service] = &[POST];

    async fn process(&self, _: &Letter, _: &Attempt) -> Outcome {
        self.0.lock().expect("the order").push("letter");
        tokio::task::yield_now().await;
        Ok(())
    }
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let so = async {
        let mut look = actix_rt::time::interval(Duration::from_millis(2));
        while !so() {
            look.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), so).await.unwrap_or_else(|_| panic!("{what}"));
}

on_each_backend! {
    const BACKLOG: usize = 100_000;
    const LETTERS: usize = 40;

    /// A hundred thousand rows of the one model are due, and none of the other.
    fn backlog() -> Db {
        let db = Db::migrated(&ddl());
        let submitted = (Utc::now() - TimeDelta::days(1)).format("%Y-%m-%d %H:%M:%S");
        let instant = if BACKEND == "SQLite" { "TEXT" } else { "TIMESTAMP" };
        let sql = format!(
            "INSERT INTO bulk (submitted_at) WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL \
             SELECT x + 1 FROM n WHERE x < {BACKLOG}) SELECT CAST('{submitted}' AS {instant}) FROM n; \
             INSERT INTO letters (id) WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL \
             SELECT x + 1 FROM n WHERE x < {LETTERS}) SELECT x FROM n;"
        );
        db.conn().batch_execute(&sql).expect("rows");
        db
    }

    /// How many rows of the backlog are begun between the submission of the letters and the last of them.
    async fn begun_before_the_last_letter(set: impl FnOnce(Supervisor<Conn>) -> Supervisor<Conn>) -> usize {
        let db = backlog();
        let order = Order::default();
        let count = |what: &str| order.lock().expect("the order").iter().filter(|begun| **begun == what).count();
        let supervisor = Supervisor::<Conn>::new(db.url())
            .processor(DoBulk(order.clone()))
            .processor(DoLetter(order.clone()));
        let handle = set(supervisor).start().expect("it starts");
        until("the backlog is worked on", || count("bulk") >= 500).await;
        handle.send(SubmitAll::<Letter>::new(1..=LETTERS as i64)).await.expect("submitted");
        let submitted = order.lock().expect("the order").len();
        until("the letters are begun", || count("letter") == LETTERS).await;
        handle.shutdown(Duration::from_secs(10)).await;
        let order = order.lock().expect("the order");
        let last = order.iter().rposition(|begun| *begun == "letter").expect("a letter");
        order[submitted.min(last)..last].iter().filter(|begun| **begun == "bulk").count()
    }

    #[actix_rt::test]
    async fn a_model_with_a_hundred_thousand_due_rows_does_not_starve_another_on_the_same_store() {
        let begun = begun_before_the_last_letter(|supervisor| supervisor).await;
        // Turns of the one are taken between turns of the other, and so are the service's slots. Were the
        // backlog first, this would be all of it.
        assert!(begun < BACKLOG / 10, "{begun} rows of the backlog were begun first");
    }

    #[actix_rt::test]
    async fn nor_does_it_where_both_share_what_may_run_at_once() {
        let begun = begun_before_the_last_letter(|supervisor| supervisor.at_once_in_all(2)).await;
        assert!(begun < BACKLOG / 10, "{begun} rows of the backlog were begun first");
    }
}
