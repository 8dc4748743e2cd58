//! Rows whose work is made of steps, a service that writes down what it is asked, and what the library's
//! own tables say of them.
//!
//! Nothing here waits for an hour to pass: each supervisor is told what time it is when it starts, and the
//! next one begins later.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{
    collections::VecDeque,
    fmt::Display,
    marker::PhantomData,
    sync::{Arc, Mutex},
    time::Duration,
};

use asyncable::{
    Asyncable, Attempt, Clock, Columns, Failure, Handle, Outcome, Processor, RetryPolicy, Service,
    StoreConnection, Stored, Supervisor, columns,
};
use chrono::{DateTime, NaiveDateTime, TimeDelta, TimeZone, Utc};
use diesel::prelude::*;
use tokio::sync::mpsc;

pub(crate) mod schema {
    diesel::table! {
        claims (id) {
            id -> BigInt,
            submitted_at -> Nullable<Timestamp>,
            last_submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            canceled_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }

    diesel::table! {
        faxes (id) {
            id -> BigInt,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }

    diesel::table! {
        asyncable_claims (model, claimed_at) {
            model -> Text,
            claimed_at -> Timestamp,
            host -> Text,
            expires_at -> Nullable<Timestamp>,
        }
    }

    diesel::table! {
        asyncable_retries (model, row_id) {
            model -> Text,
            row_id -> Text,
            due_at -> Nullable<Timestamp>,
            kind -> Text,
            failures -> Integer,
            code -> Text,
            crashes -> Integer,
        }
    }

    diesel::table! {
        asyncable_steps (key) {
            model -> Text,
            row_id -> Text,
            name -> Text,
            key -> Text,
            find_after -> Timestamp,
            result -> Nullable<Text>,
        }
    }

    diesel::table! {
        asyncable_attempts (model, row_id, attempted_at) {
            model -> Text,
            row_id -> Text,
            attempted_at -> Timestamp,
            submitted_at -> Nullable<Timestamp>,
            number -> Integer,
            host -> Text,
            started_at -> Timestamp,
            ended_at -> Timestamp,
            outcome -> Text,
            kind -> Nullable<Text>,
            code -> Nullable<Text>,
            place -> Nullable<Text>,
            step -> Nullable<Text>,
            error -> Nullable<Text>,
        }
    }
}
pub(crate) use schema::{
    asyncable_attempts, asyncable_claims, asyncable_retries, asyncable_steps, claims, faxes,
};

/// Four rows of each model, none of them submitted.
pub(crate) const DDL: &str = "CREATE TABLE claims (id {key}, submitted_at TIMESTAMP, \
    last_submitted_at TIMESTAMP, attempted_at TIMESTAMP, processed_at TIMESTAMP, \
    canceled_at TIMESTAMP, error TEXT); \
    CREATE TABLE faxes (id {key}, submitted_at TIMESTAMP, attempted_at TIMESTAMP, \
    processed_at TIMESTAMP, error TEXT); \
    INSERT INTO claims (error) VALUES (NULL), (NULL), (NULL), (NULL); \
    INSERT INTO faxes (error) VALUES (NULL), (NULL), (NULL), (NULL);";

/// Tried again much sooner than a call of an unknown outcome has settled.
const POLICY: RetryPolicy =
    RetryPolicy::DEFAULT.first(&[Duration::from_secs(60), Duration::from_secs(60)]);

/// With a column for each instant.
#[derive(Queryable, Selectable, Identifiable)]
pub(crate) struct Claim {
    pub(crate) id: i64,
}

impl Asyncable for Claim {
    type Id = i64;
    const COLUMNS: Columns<claims::table> =
        columns!(claims, last_submitted_at = last_submitted_at, canceled_at = canceled_at);
    const POLICY: RetryPolicy = POLICY;
}

/// With one column for when it was submitted, first and last.
#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = faxes)]
pub(crate) struct Fax {
    pub(crate) id: i64,
}

impl Asyncable for Fax {
    type Id = i64;
    const COLUMNS: Columns<faxes::table> = columns!(faxes);
    const POLICY: RetryPolicy = POLICY;
}

/// Half an hour after it was called it has done what it will do.
pub(crate) const BGS: Service = Service::new("bgs").settles_within(Duration::from_secs(30 * 60));

/// Works on `M` as a closure says.
pub(crate) struct Work<M, F>(F, PhantomData<fn() -> M>);

impl<M, F: Clone> Clone for Work<M, F> {
    fn clone(&self) -> Self {
        Work(self.0.clone(), PhantomData)
    }
}

impl<M: Asyncable, F: AsyncFn(&M, &Attempt) -> Outcome + 'static> Work<M, F> {
    pub(crate) fn by(work: F) -> Self {
        Work(work, PhantomData)
    }
}

impl<M: Asyncable, F: AsyncFn(&M, &Attempt) -> Outcome + 'static> Processor for Work<M, F> {
    type Model = M;
    const SERVICES: &'static [Service] = &[BGS];

    async fn process(&self, row: &M, attempt: &Attempt) -> Outcome {
        (self.0)(row, attempt).await
    }
}

/// What happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn tell(&self, what: impl Display) {
        self.0.lock().expect("a log").push(what.to_string());
    }

    pub(crate) fn so_far(&self) -> Vec<String> {
        self.0.lock().expect("a log").clone()
    }
}

/// A service that answers as it was told to, in order, and writes down what it is asked.
#[derive(Clone)]
pub(crate) struct Scripted {
    pub(crate) log: Log,
    calls: Arc<Mutex<VecDeque<Outcome<i64>>>>,
    finds: Arc<Mutex<VecDeque<Outcome<Option<i64>>>>>,
}

impl Scripted {
    pub(crate) fn new(
        calls: impl IntoIterator<Item = Outcome<i64>>,
        finds: impl IntoIterator<Item = Outcome<Option<i64>>>,
    ) -> Self {
        Scripted {
            log: Log::default(),
            calls: Arc::new(Mutex::new(calls.into_iter().collect())),
            finds: Arc::new(Mutex::new(finds.into_iter().collect())),
        }
    }

    pub(crate) async fn call(&self, key: &str) -> Outcome<i64> {
        self.log.tell(format_args!("call {key}"));
        let answer = self.calls.lock().map_err(|_| std::fmt::Error)?.pop_front();
        answer.unwrap_or_else(|| Err(Failure::permanent("a call too many")))
    }

    pub(crate) async fn find(&self, key: &str) -> Outcome<Option<i64>> {
        self.log.tell(format_args!("find {key}"));
        let answer = self.finds.lock().map_err(|_| std::fmt::Error)?.pop_front();
        answer.unwrap_or_else(|| Err(Failure::permanent("a find too many")))
    }
}

/// When the tests begin.
pub(crate) fn noon() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 1, 1, 12, 0, 0).single().expect("an instant")
}

pub(crate) fn minutes(minutes: i64) -> TimeDelta {
    TimeDelta::minutes(minutes)
}

/// More than anything here takes.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A supervisor whose clock begins at `from`, and whose leases outlast the test unless they are
/// [made to lapse](lapse).
pub(crate) fn supervisor<C: StoreConnection>(url: &str, from: DateTime<Utc>) -> Supervisor<C> {
    Supervisor::new(url)
        .clock(Clock::fast(1.0, from))
        .sweep_every(Duration::from_millis(20))
        .lease_for(Duration::from_secs(3600))
}

/// One with one processor, started.
pub(crate) fn start<C, P>(url: &str, from: DateTime<Utc>, processor: P) -> Handle
where
    C: StoreConnection,
    P: Processor<Model: Stored<C::Backend>> + Clone + Send,
{
    supervisor::<C>(url, from).processor(processor).start().expect("it starts")
}

/// The next that a processor tells.
pub(crate) async fn next<T>(told: &mut mpsc::UnboundedReceiver<T>) -> T {
    let next = tokio::time::timeout(Duration::from_secs(60), told.recv());
    next.await.expect("something within a minute").expect("a processor")
}

/// Looks again until there is an answer.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let seen = async {
        let mut ticks = actix_rt::time::interval(Duration::from_millis(20));
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

/// What is remembered of a row that has failed and is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: String,
    pub(crate) code: String,
    pub(crate) failures: i32,
    pub(crate) crashes: i32,
    pub(crate) due_at: Option<NaiveDateTime>,
}

impl Entry {
    /// When the row is due again.
    pub(crate) fn due(&self) -> DateTime<Utc> {
        self.due_at.expect("it is not parked").and_utc()
    }
}

/// A step as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StepRow {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) find_after: DateTime<Utc>,
    pub(crate) result: Option<String>,
}

/// An attempt as the history has it.
#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub(crate) struct Past {
    pub(crate) number: i32,
    pub(crate) host: String,
    pub(crate) started_at: NaiveDateTime,
    pub(crate) ended_at: NaiveDateTime,
    pub(crate) outcome: String,
    pub(crate) kind: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) place: Option<String>,
    pub(crate) step: Option<String>,
    pub(crate) error: Option<String>,
}

/// Reads the library's own tables: once a backend, since Diesel's typed DSL is not generic over both.
macro_rules! reads_of_the_librarys_tables {
    () => {
        fn entry(db: &Db, model: &str, id: i64) -> Option<Entry> {
            use asyncable_retries::dsl;
            let entry = dsl::asyncable_retries
                .filter(dsl::model.eq(model).and(dsl::row_id.eq(id.to_string())))
                .select((dsl::kind, dsl::code, dsl::failures, dsl::crashes, dsl::due_at));
            let entry = entry.first(&mut db.conn()).optional().expect("asked");
            entry.map(|(kind, code, failures, crashes, due_at)| Entry {
                kind,
                code,
                failures,
                crashes,
                due_at,
            })
        }

        /// Waits until a row's entry is of this kind.
        async fn entry_of(db: &Db, model: &str, id: i64, kind: &str) -> Entry {
            until(&format!("{model} {id} is {kind}"), || {
                entry(db, model, id).filter(|entry| entry.kind == kind)
            })
            .await
        }

        fn steps(db: &Db, model: &str, id: i64) -> Vec<StepRow> {
            use asyncable_steps::dsl;
            let rows: Vec<(String, String, chrono::NaiveDateTime, Option<String>)> =
                dsl::asyncable_steps
                    .filter(dsl::model.eq(model).and(dsl::row_id.eq(id.to_string())))
                    .order((dsl::find_after, dsl::name))
                    .select((dsl::name, dsl::key, dsl::find_after, dsl::result))
                    .load(&mut db.conn())
                    .expect("asked");
            let step = |(name, key, at, result): (
                String,
                String,
                chrono::NaiveDateTime,
                Option<String>,
            )| { StepRow { name, key, find_after: at.and_utc(), result } };
            rows.into_iter().map(step).collect()
        }

        fn history(db: &Db, model: &str, id: i64) -> Vec<Past> {
            use asyncable_attempts::dsl;
            dsl::asyncable_attempts
                .filter(dsl::model.eq(model).and(dsl::row_id.eq(id.to_string())))
                .order(dsl::attempted_at)
                .select((
                    dsl::number,
                    dsl::host,
                    dsl::started_at,
                    dsl::ended_at,
                    dsl::outcome,
                    dsl::kind,
                    dsl::code,
                    dsl::place,
                    dsl::step,
                    dsl::error,
                ))
                .load(&mut db.conn())
                .expect("asked")
        }

        fn claim_is(db: &Db, id: i64, status: asyncable::Status) -> bool {
            let found = claims::table
                .find(id)
                .select(<Claim as asyncable::Asyncable>::status())
                .first::<asyncable::Status>(&mut db.conn());
            found.expect("a row") == status
        }

        async fn processed(db: &Db, id: i64) {
            until(&format!("claim {id} is processed"), || {
                claim_is(db, id, asyncable::Status::Processed).then_some(())
            })
            .await;
        }

        /// Lets all leases lapse, as if their hosts stood still; those do not notice.
        fn lapse(db: &Db) {
            use asyncable_claims::dsl;
            let live = diesel::update(dsl::asyncable_claims.filter(dsl::expires_at.is_not_null()));
            let lapsed = live.set(dsl::expires_at.eq(noon().naive_utc() - minutes(1)));
            assert_ne!(lapsed.execute(&mut db.conn()).expect("lapsed"), 0, "a lease");
        }
    };
}
pub(crate) use reads_of_the_librarys_tables;
