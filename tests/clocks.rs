//! Hosts whose clocks disagree by days, and a clock that goes back.
//!
//! On PostgreSQL a supervisor goes by the database's clock, and on SQLite all hosts share the machine's;
//! clocks that are set, as here, stand for one that has just been wrong.

mod support;

use std::time::Duration;

use asyncable::{
    Asyncable, Attempt, Clock, Columns, Handle, Outcome, Processor, Submit, Supervisor, columns,
};
use chrono::{NaiveDateTime, TimeDelta, Utc};
use diesel::prelude::*;
use tokio::sync::mpsc;

use support::on_each_backend;

mod schema {
    diesel::table! {
        parcels (id) {
            id -> BigInt,
            runs -> BigInt,
            submitted_at -> Nullable<Timestamp>,
            last_submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::parcels;

const DDL: &str = "CREATE TABLE parcels (id {key}, runs BIGINT NOT NULL DEFAULT 0, \
    submitted_at TIMESTAMP, last_submitted_at TIMESTAMP, attempted_at TIMESTAMP, \
    processed_at TIMESTAMP, error TEXT); \
    CREATE INDEX parcels_work ON parcels (attempted_at, last_submitted_at) WHERE processed_at IS NULL;";

#[derive(Queryable, Selectable, Identifiable)]
struct Parcel {
    id: i64,
}

impl Asyncable for Parcel {
    type Id = i64;
    const COLUMNS: Columns<parcels::table> =
        columns!(parcels, last_submitted_at = last_submitted_at);
}

on_each_backend! {
    /// Counts its runs in the transaction that settles the row.
    #[derive(Clone)]
    struct Deliver(mpsc::UnboundedSender<(i64, String)>);

    impl Processor for Deliver {
        type Model = Parcel;

        async fn process(&self, parcel: &Parcel, attempt: &Attempt) -> Outcome {
            let id = parcel.id;
            attempt.when_done(move |conn: &mut Conn| {
                let row = diesel::update(parcels::table.find(id));
                row.set(parcels::runs.eq(parcels::runs + 1)).execute(conn).map(drop)
            });
            let _ = self.0.send((id, attempt.idempotency_key().to_string())); // the test may have ended
            tokio::task::yield_now().await;
            Ok(())
        }
    }

    struct Host {
        handle: Handle,
        delivered: mpsc::UnboundedReceiver<(i64, String)>,
    }

    impl Host {
        /// A host whose clock is wrong by so many days.
        fn wrong_by(days: i64, url: String) -> Host {
            let (sender, delivered) = mpsc::unbounded_channel();
            let handle = Supervisor::<Conn>::new(url)
                .clock(Clock::fast(1.0, Utc::now() + TimeDelta::days(days)))
                .sweep_every(Duration::from_millis(50))
                .lease_for(Duration::from_secs(1))
                .processor(Deliver(sender))
                .start()
                .expect("it starts");
            Host { handle, delivered }
        }

        async fn next(&mut self) -> (i64, String) {
            let next = tokio::time::timeout(Duration::from_secs(60), self.delivered.recv()).await;
            next.expect("an attempt within a minute").expect("a processor")
        }

        async fn stop(&self) {
            self.handle.shutdown(Duration::from_secs(10)).await;
        }
    }

    /// Rows that are due by the clocks of all hosts, and expired by none.
    fn insert(conn: &mut Conn, count: usize) {
        let submitted = (Utc::now() - TimeDelta::hours(36)).naive_utc();
        let both = (parcels::submitted_at.eq(submitted), parcels::last_submitted_at.eq(submitted));
        conn.transaction(|conn| {
            (0..count).try_for_each(|_| {
                diesel::insert_into(parcels::table).values(both).execute(conn).map(drop)
            })
        })
        .expect("rows");
    }

    async fn processed(conn: &mut Conn) {
        let mut look = actix_rt::time::interval(Duration::from_millis(20));
        let all = async {
            let open = parcels::table.filter(parcels::processed_at.is_null()).count();
            while open.get_result(conn) != Ok(0) {
                look.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("processed in a minute");
    }

    #[actix_rt::test]
    async fn hosts_whose_clocks_are_two_days_apart_record_each_row_once_and_lose_none() {
        let db = Db::migrated(DDL);
        let conn = &mut db.conn();
        insert(conn, 300);
        let (ahead, behind) = (Host::wrong_by(1, db.url()), Host::wrong_by(-1, db.url()));
        processed(conn).await;
        ahead.stop().await;
        behind.stop().await;
        // Each takes the other's leases for lapsed, or for good ones long after they are, so a row may
        // have run twice: but the second outcome is nobody's.
        let rows: Vec<(i64, Option<String>)> = parcels::table
            .select((parcels::runs, parcels::error))
            .distinct()
            .load(conn)
            .expect("rows");
        assert_eq!(rows, [(1, None)]);
    }

    #[actix_rt::test]
    async fn tokens_rise_also_when_the_clock_goes_back() {
        let db = Db::migrated(DDL);
        let conn = &mut db.conn();
        for days in [1, -1, 1, -1] {
            insert(conn, 1);
            let host = Host::wrong_by(days, db.url());
            processed(conn).await;
            host.stop().await;
        }
        let tokens: Vec<Option<NaiveDateTime>> = parcels::table
            .order(parcels::id)
            .select(parcels::attempted_at)
            .load(conn)
            .expect("tokens");
        assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
        assert!(tokens[0].is_some());
    }

    #[actix_rt::test]
    async fn a_row_submitted_again_after_the_clock_went_back_is_new_work_under_a_new_key() {
        let db = Db::migrated(DDL);
        let conn = &mut db.conn();
        insert(conn, 1);
        let mut ahead = Host::wrong_by(1, db.url());
        let mut keys = vec![ahead.next().await];
        processed(conn).await;
        ahead.handle.send(Submit::<Parcel>::new(1)).await.expect("durable");
        keys.push(ahead.next().await);
        processed(conn).await;
        ahead.stop().await;
        let mut behind = Host::wrong_by(-1, db.url());
        behind.handle.send(Submit::<Parcel>::new(1)).await.expect("durable");
        // It lies after the attempt that was recorded: due when the clock has come there.
        let mut later = Host::wrong_by(2, db.url());
        keys.push(tokio::select! { one = behind.next() => one, other = later.next() => other });
        processed(conn).await;
        behind.stop().await;
        later.stop().await;
        keys.dedup();
        assert_eq!(keys.len(), 3, "{keys:?}");
        assert!(keys.is_sorted());
        assert_eq!(parcels::table.select(parcels::runs).first(conn), Ok(3_i64));
    }
}
