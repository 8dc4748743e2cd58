//! A processor, a worker or a store that dies is built anew, and nothing is lost.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use asyncable::{
    Asyncable, Attempt, Clock, Columns, Failure, Handle, Outcome, Processor, RetryPolicy,
    StoreConnection, SubmitAll, Supervisor, columns,
};
use chrono::Utc;
use diesel::prelude::*;

use support::on_each_backend;

mod schema {
    diesel::table! {
        parcels (id) {
            id -> BigInt,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::parcels;

const DDL: &str = "CREATE TABLE parcels (id {key}, submitted_at TIMESTAMP, \
    attempted_at TIMESTAMP, processed_at TIMESTAMP, error TEXT); \
    CREATE INDEX parcels_work ON parcels (attempted_at, submitted_at) WHERE processed_at IS NULL;";

#[derive(Queryable, Selectable, Identifiable)]
struct Parcel {
    id: i64,
}

impl Asyncable for Parcel {
    type Id = i64;
    const COLUMNS: Columns<parcels::table> = columns!(parcels);
    const POLICY: RetryPolicy = RetryPolicy::DEFAULT;
}

/// What goes wrong, and how often it still may.
#[derive(Clone, Default)]
struct Mishaps {
    /// The thread that an attempt runs on is stopped from within.
    threads: Arc<AtomicU32>,
    /// The host's code panics while a processor is made.
    making: Arc<AtomicU32>,
    /// The host's code panics while a connection is opened.
    opening: Arc<AtomicU32>,
}

/// Whether it goes wrong this time.
fn strikes(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

struct Post(Mishaps);

impl Processor for Post {
    type Model = Parcel;
    const AT_ONCE: usize = 8;

    async fn process(&self, parcel: &Parcel, attempt: &Attempt) -> Outcome {
        if parcel.id % 7 == 0 && strikes(&self.0.threads) {
            actix_rt::Arbiter::current().stop();
            std::future::pending::<()>().await;
        }
        if parcel.id == LOUD && attempt.number() == 1 {
            return Err(Failure::permanent("said aloud").with_code(LOUD_CODE));
        }
        Ok(())
    }
}

/// The parcel whose parking is logged, and with it the processor's end: see [`Logger`].
const LOUD: i64 = 1013;
const LOUD_CODE: &str = "rebuilt.loud";

/// A logger of the host's that panics once, in the middle of the library's own actor.
struct Logger(AtomicBool);

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let loud = record.args().to_string().contains(LOUD_CODE);
        assert!(!loud || self.0.swap(true, Ordering::SeqCst), "the host's logger is broken");
    }

    fn flush(&self) {}
}

static LOGGER: Logger = Logger(AtomicBool::new(true));

fn start<C>(url: String, mishaps: &Mishaps) -> Handle
where
    C: StoreConnection,
    Parcel: asyncable::Stored<C::Backend>,
{
    let (ours, opening) = (mishaps.clone(), mishaps.opening.clone());
    let connect = move || {
        // The first connection is the one that `start` looks with.
        assert!(!strikes(&opening), "the host's maker of connections is broken");
        C::establish(&url)
    };
    let make = move || {
        assert!(!strikes(&ours.making), "the host's maker of processors is broken");
        Post(ours.clone())
    };
    Supervisor::<C>::connecting(connect)
        .clock(Clock::fast(20_000.0, Utc::now()))
        .sweep_every(Duration::from_millis(20))
        .lease_for(Duration::from_secs(1))
        .processor_with(make)
        .start()
        .expect("it starts")
}

on_each_backend! {
    fn db_of(parcels: i64) -> Db {
        let db = Db::migrated(DDL);
        let ids: Vec<_> = (1..=parcels).map(|id| parcels::id.eq(id)).collect();
        diesel::insert_into(parcels::table).values(ids).execute(&mut db.conn()).expect("parcels");
        db
    }

    /// Waits until all but `rest` are processed.
    async fn processed_but(db: &Db, rest: i64) {
        let processed = async {
            loop {
                let open = parcels::table.filter(parcels::processed_at.is_null()).count();
                if open.get_result::<i64>(&mut db.conn()).expect("a count") == rest {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let processed = tokio::time::timeout(Duration::from_secs(60), processed).await;
        processed.expect("all but the rest are processed within a minute");
    }

    pub(super) fn survives_its_logger() {
        LOGGER.0.store(false, Ordering::SeqCst);
        actix_rt::System::new().block_on(async {
            let db = db_of(60);
            let loud = diesel::insert_into(parcels::table).values(parcels::id.eq(LOUD));
            loud.execute(&mut db.conn()).expect("a parcel");
            let handle = start::<Conn>(db.url(), &Mishaps::default());
            handle.send(SubmitAll::<Parcel>::new((1..=60).chain([LOUD]))).await.expect("submitted");
            processed_but(&db, 1).await; // the one that is parked
            assert!(LOGGER.0.load(Ordering::SeqCst), "the logger has panicked");
            handle.shutdown(Duration::ZERO).await;
        });
    }

    #[actix_rt::test]
    async fn a_thread_that_attempts_run_on_may_end_and_its_rows_are_processed() {
        let db = db_of(200);
        let mishaps = Mishaps::default();
        mishaps.threads.store(5, Ordering::SeqCst);
        let handle = start::<Conn>(db.url(), &mishaps);
        handle.send(SubmitAll::<Parcel>::new(1..=200)).await.expect("submitted");
        processed_but(&db, 0).await;
        assert_eq!(mishaps.threads.load(Ordering::SeqCst), 0, "all the mishaps have happened");
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_processor_that_could_not_be_made_costs_its_rows_an_attempt_and_no_more() {
        let db = db_of(40);
        let mishaps = Mishaps::default();
        mishaps.making.store(3, Ordering::SeqCst);
        let handle = start::<Conn>(db.url(), &mishaps);
        handle.send(SubmitAll::<Parcel>::new(1..=40)).await.expect("submitted");
        processed_but(&db, 0).await;
        assert_eq!(mishaps.making.load(Ordering::SeqCst), 0, "all the mishaps have happened");
        handle.shutdown(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_panic_while_a_connection_is_opened_ends_no_store() {
        let db = db_of(40);
        let mishaps = Mishaps::default();
        let handle = start::<Conn>(db.url(), &mishaps);
        mishaps.opening.store(3, Ordering::SeqCst);
        let submitted = async {
            while handle.send(SubmitAll::<Parcel>::new(1..=40)).await.is_err() {}
        };
        let submitted = tokio::time::timeout(Duration::from_secs(60), submitted).await;
        submitted.expect("the store comes back within a minute");
        processed_but(&db, 0).await;
        handle.shutdown(Duration::ZERO).await;
    }
}

/// Alone in its process where another test's logger would be in the way: both backends in one test.
#[test]
fn a_processor_that_panics_is_rebuilt_and_its_rows_come_back_when_their_lease_lapses() {
    log::set_logger(&LOGGER).expect("no other logger in this file");
    log::set_max_level(log::LevelFilter::Error);
    #[cfg(feature = "sqlite")]
    sqlite::survives_its_logger();
    #[cfg(feature = "postgres")]
    postgres::survives_its_logger();
}
