//! What an attempt may do, and what becomes of it: it takes too long, blocks its thread, panics, is not
//! `Send`; how many there are at once, and none of a paused model.

mod support;

use std::{
    cell::Cell,
    collections::HashSet,
    future::pending,
    marker::PhantomData,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::ThreadId,
    time::Duration,
};

use asyncable::{
    Asyncable, Attempt, Clock, Columns, Event, Handle, Outcome, Pause, Processor, Resume,
    RetryPolicy, Service, Status, StoreConnection, Stored, Submit, SubmitAll, Supervisor, Sweep,
    columns,
};
use chrono::{DateTime, NaiveDateTime, TimeDelta, TimeZone, Utc};
use diesel::prelude::*;
use tokio::sync::{Semaphore, mpsc};

use support::on_each_backend;

mod schema {
    diesel::table! {
        calls (id) {
            id -> BigInt,
            script -> Text,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
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
        asyncable_retries (model, row_id) {
            model -> Text,
            row_id -> Text,
            due_at -> Nullable<Timestamp>,
            kind -> Text,
            failures -> Integer,
            code -> Text,
        }
    }

    diesel::table! {
        asyncable_claims (model, claimed_at) {
            model -> Text,
            claimed_at -> Timestamp,
            expires_at -> Nullable<Timestamp>,
        }
    }
}
use schema::{asyncable_claims, asyncable_retries, calls, faxes};

/// Eight rows of each model, none of them submitted.
fn ddl() -> String {
    let work = "submitted_at TIMESTAMP, attempted_at TIMESTAMP, processed_at TIMESTAMP, error TEXT";
    format!(
        "CREATE TABLE calls (id {{key}}, script TEXT NOT NULL DEFAULT '', {work}); \
         CREATE TABLE faxes (id {{key}}, {work}); \
         INSERT INTO calls (error) VALUES {nulls}; INSERT INTO faxes (error) VALUES {nulls};",
        nulls = ["(NULL)"; 8].join(", ")
    )
}

#[derive(Queryable, Selectable, Identifiable)]
struct Call {
    id: i64,
    script: String,
}

impl Asyncable for Call {
    type Id = i64;
    const COLUMNS: Columns<calls::table> = columns!(calls);
    /// Much sooner than a service of an unknown outcome has settled.
    const POLICY: RetryPolicy = RetryPolicy::DEFAULT.first(&[Duration::from_secs(60)]);
}

#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = faxes)]
struct Fax {
    id: i64,
}

impl Asyncable for Fax {
    type Id = i64;
    const COLUMNS: Columns<faxes::table> = columns!(faxes);
}

/// Works on `M` as a closure says.
struct Work<M, F>(F, PhantomData<fn() -> M>);

impl<M, F: Clone> Clone for Work<M, F> {
    fn clone(&self) -> Self {
        Work(self.0.clone(), PhantomData)
    }
}

impl<M: Asyncable, F: AsyncFn(&M, &Attempt) -> Outcome + 'static> Work<M, F> {
    fn by(work: F) -> Self {
        Work(work, PhantomData)
    }
}

impl<M: Asyncable, F: AsyncFn(&M, &Attempt) -> Outcome + 'static> Processor for Work<M, F> {
    type Model = M;

    async fn process(&self, row: &M, attempt: &Attempt) -> Outcome {
        (self.0)(row, attempt).await
    }
}

const VBMS: Service = Service::new("vbms").settles_within(Duration::from_secs(30 * 60));

/// A service that does not answer the first attempt.
#[derive(Clone)]
struct Silent {
    clock: Clock,
    began: mpsc::UnboundedSender<(u32, DateTime<Utc>)>,
    dropped: mpsc::UnboundedSender<()>,
}

impl Processor for Silent {
    type Model = Call;
    const SERVICES: &'static [Service] = &[VBMS];
    const TIMEOUT: Duration = Duration::from_millis(50);

    async fn process(&self, _: &Call, attempt: &Attempt) -> Outcome {
        let _call = TellsWhenDropped(self.dropped.clone());
        self.began.send((attempt.number(), self.clock.now()))?;
        match attempt.number() {
            1 => pending().await,
            _ => Ok(()),
        }
    }
}

struct TellsWhenDropped(mpsc::UnboundedSender<()>);

impl Drop for TellsWhenDropped {
    fn drop(&mut self) {
        let _ = self.0.send(()); // the test may have ended
    }
}

/// A processor whose work can panic before there is a future at all.
#[derive(Clone)]
struct PanicsAtOnce;

impl Processor for PanicsAtOnce {
    type Model = Fax;

    fn process(&self, fax: &Fax, _: &Attempt) -> impl Future<Output = Outcome> {
        assert_ne!(fax.id, 1, "the host's code is wrong");
        async { Ok(()) }
    }
}

/// How many attempts run now, and how many ran at most.
#[derive(Clone)]
struct AtOnce {
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    began: mpsc::UnboundedSender<()>,
    gate: Arc<Semaphore>,
}

impl AtOnce {
    fn new() -> (Self, mpsc::UnboundedReceiver<()>) {
        let (began, beginnings) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        (AtOnce { running: Arc::default(), most: Arc::default(), began, gate }, beginnings)
    }

    async fn run(&self) -> Outcome {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        self.began.send(())?;
        self.gate.acquire().await?.forget();
        self.running.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

#[derive(Clone)]
struct CallsAtOnce(AtOnce);

impl Processor for CallsAtOnce {
    type Model = Call;
    const AT_ONCE: usize = 3;

    async fn process(&self, _: &Call, _: &Attempt) -> Outcome {
        self.0.run().await
    }
}

#[derive(Clone)]
struct FaxesAtOnce(AtOnce);

impl Processor for FaxesAtOnce {
    type Model = Fax;
    const AT_ONCE: usize = 2;

    async fn process(&self, _: &Fax, _: &Attempt) -> Outcome {
        self.0.run().await
    }
}

const SOON: Duration = Duration::from_secs(10);

/// The next that a processor tells.
async fn next<T>(told: &mut mpsc::UnboundedReceiver<T>) -> T {
    let next = tokio::time::timeout(Duration::from_secs(60), told.recv());
    next.await.expect("something within a minute").expect("a processor")
}

/// Looks again until there is an answer.
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
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

fn supervisor<C: StoreConnection>(url: String) -> Supervisor<C> {
    Supervisor::new(url).sweep_every(Duration::from_millis(20)).lease_for(Duration::from_secs(1))
}

/// A supervisor with one processor.
fn start<C, P>(url: String, processor: P) -> Handle
where
    C: StoreConnection,
    P: Processor<Model: Stored<C::Backend>> + Clone + Send,
{
    supervisor::<C>(url).processor(processor).start().expect("it starts")
}

on_each_backend! {
    fn db() -> Db {
        Db::migrated(&ddl())
    }

    fn scripted(scripts: &[&str]) -> Db {
        let db = db();
        for (script, id) in scripts.iter().zip(1_i64..) {
            let call = diesel::update(calls::table.find(id)).set(calls::script.eq(script));
            call.execute(&mut db.conn()).expect("scripted");
        }
        db
    }

    /// What is remembered of a failed row: kind, code, failures.
    fn remembered(db: &Db, row: &str) -> Option<(String, String, i32)> {
        let entry = asyncable_retries::table
            .filter(asyncable_retries::row_id.eq(row))
            .select((asyncable_retries::kind, asyncable_retries::code, asyncable_retries::failures));
        entry.first(&mut db.conn()).optional().expect("asked")
    }

    fn status(db: &Db, id: i64) -> (Status, Option<String>) {
        let row = calls::table.find(id).select((Call::status(), calls::error));
        row.first(&mut db.conn()).expect("a row")
    }

    fn processed_calls(db: &Db) -> Vec<i64> {
        let processed = calls::table.filter(Call::processed()).order(calls::id).select(calls::id);
        processed.load(&mut db.conn()).expect("asked")
    }

    fn processed_faxes(db: &Db) -> Vec<i64> {
        let processed = faxes::table.filter(Fax::processed()).order(faxes::id).select(faxes::id);
        processed.load(&mut db.conn()).expect("asked")
    }

    #[actix_rt::test]
    async fn an_attempt_that_takes_too_long_is_dropped_and_its_row_waits_until_the_service_has_settled() {
        let db = db();
        let from = Utc.with_ymd_and_hms(2026, 1, 1, 12, 0, 0).single().expect("an instant");
        let (began, mut beginnings) = mpsc::unbounded_channel();
        let (dropped, mut drops) = mpsc::unbounded_channel();
        let start = |clock: Clock| {
            let silent = Silent { clock: clock.clone(), began: began.clone(), dropped: dropped.clone() };
            supervisor::<Conn>(db.url()).clock(clock).processor(silent).start().expect("it starts")
        };

        let handle = start(Clock::fast(1.0, from));
        handle.send(Submit::<Call>::new(1)).await.expect("durable");
        let (number, began_at) = next(&mut beginnings).await;
        assert_eq!(number, 1);
        next(&mut drops).await;
        let due_at: NaiveDateTime = until("the failure is recorded", || {
            let entry = asyncable_retries::table.select(asyncable_retries::due_at);
            entry.first(&mut db.conn()).optional().expect("asked").flatten()
        })
        .await;
        handle.shutdown(SOON).await;
        let unknown = ("unknown".to_owned(), "timeout".to_owned(), 1);
        assert_eq!(remembered(&db, "1"), Some(unknown));
        assert_eq!(status(&db, 1).1.as_deref(), Some("timeout the attempt took longer than its time-out"));
        assert!(due_at.and_utc() >= began_at + TimeDelta::minutes(30), "{due_at} after {began_at}");

        let handle = start(Clock::fast(1000.0, from));
        let (number, again_at) = next(&mut beginnings).await;
        assert_eq!(number, 2);
        assert!(again_at >= due_at.and_utc(), "{again_at} before {due_at}");
        handle.shutdown(SOON).await;
        assert_eq!((processed_calls(&db), status(&db, 1).1), (vec![1], None));
    }

    #[actix_rt::test]
    async fn attempts_that_block_their_threads_keep_their_rows() {
        let db = db();
        let (began, mut beginnings) = mpsc::unbounded_channel();
        let (answer, answers) = std::sync::mpsc::channel::<()>();
        let answers = Arc::new(Mutex::new(answers));
        // One after the other on each arbiter, until there is an answer.
        let blocking = Work::by(async move |call: &Call, _: &Attempt| {
            began.send(call.id)?;
            answers.lock().map_err(|_| std::fmt::Error)?.recv()?;
            Ok(())
        });
        let (told, mut other_rows) = mpsc::unbounded_channel();
        let other = Work::by(async move |call: &Call, _: &Attempt| Ok(told.send(call.id)?));
        let losses = Arc::new(Mutex::new(Vec::new()));
        let heard = losses.clone();
        let listen = move |event: &Event| {
            if matches!(event, Event::Lost { .. }) {
                heard.lock().expect("events").push(format!("{event:?}"));
            }
        };

        let blocked_host = start::<Conn, _>(db.url(), blocking);
        blocked_host.send(SubmitAll::<Call>::new([1, 2, 3, 4])).await.expect("durable");
        next(&mut beginnings).await;
        let other_host =
            supervisor::<Conn>(db.url()).processor(other).on_event(listen).start().expect("it starts");
        let expires_at = || -> NaiveDateTime {
            let held = asyncable_claims::expires_at.is_not_null();
            let leases = asyncable_claims::table.filter(held).select(asyncable_claims::expires_at);
            let first = leases.order(asyncable_claims::claimed_at).first::<Option<_>>(&mut db.conn());
            first.expect("a lease").expect("an instant")
        };
        let at_first = expires_at();
        until("the lease is renewed three times over", || {
            (expires_at() > at_first + TimeDelta::seconds(3)).then_some(())
        })
        .await;
        // The other host does look, and works on what is free.
        other_host.addr().send(Sweep).await.expect("swept");
        other_host.send(Submit::<Call>::new(5)).await.expect("durable");
        assert_eq!(next(&mut other_rows).await, 5);

        for _ in 0..4 {
            answer.send(()).expect("somebody waits for it");
        }
        until("all are processed", || (processed_calls(&db) == [1, 2, 3, 4, 5]).then_some(())).await;
        blocked_host.shutdown(SOON).await;
        other_host.shutdown(SOON).await;
        assert!(other_rows.try_recv().is_err(), "no row but its own");
        assert_eq!(*losses.lock().expect("events"), [] as [String; 0]);
    }

    #[actix_rt::test]
    async fn a_paused_model_claims_nothing_while_others_go_on_and_goes_on_when_resumed() {
        let db = db();
        let (told, mut calls_seen) = mpsc::unbounded_channel();
        let calls_work = Work::by(async move |call: &Call, _: &Attempt| Ok(told.send(call.id)?));
        let (told, mut faxes_seen) = mpsc::unbounded_channel();
        let faxes_work = Work::by(async move |fax: &Fax, _: &Attempt| Ok(told.send(fax.id)?));
        let supervisor = supervisor::<Conn>(db.url()).processor(calls_work).processor(faxes_work);
        let handle = supervisor.start().expect("it starts");

        handle.send(Pause::<Call>::new()).await.expect("paused");
        for id in 1..=8 {
            // Each is a turn of its own, in which it would have claimed.
            handle.send(Submit::<Call>::new(id)).await.expect("durable, though paused");
            handle.addr().send(Sweep).await.expect("swept");
            handle.wake::<Call>();
        }
        handle.send(SubmitAll::<Fax>::new(1..=8)).await.expect("durable");
        for _ in 1..=8 {
            next(&mut faxes_seen).await;
        }
        until("the other model's rows are processed", || (processed_faxes(&db).len() == 8).then_some(())).await;
        assert!(calls_seen.try_recv().is_err(), "an attempt of a paused model");
        let untouched: i64 = calls::table
            .filter(calls::attempted_at.is_null().and(Call::due()))
            .count()
            .get_result(&mut db.conn())
            .expect("a count");
        assert_eq!(untouched, 8);

        handle.send(Resume::<Call>::new()).await.expect("resumed");
        for _ in 1..=8 {
            next(&mut calls_seen).await;
        }
        handle.shutdown(SOON).await;
        assert_eq!(processed_calls(&db), [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[actix_rt::test]
    async fn what_runs_when_its_model_is_paused_ends_and_the_rest_is_given_back() {
        let db = db();
        let (work, mut beginnings) = AtOnce::new();
        let handle = start::<Conn, _>(db.url(), CallsAtOnce(work.clone()));
        handle.send(SubmitAll::<Call>::new(1..=8)).await.expect("durable");
        for _ in 0..CallsAtOnce::AT_ONCE {
            next(&mut beginnings).await;
        }
        handle.send(Pause::<Call>::new()).await.expect("paused");
        work.gate.add_permits(8);
        until("those that ran are processed", || (processed_calls(&db).len() == 3).then_some(())).await;
        until("the rest are given back", || {
            let free = calls::table.filter(calls::attempted_at.is_null()).count();
            (free.get_result(&mut db.conn()) == Ok(5_i64)).then_some(())
        })
        .await;
        assert!(beginnings.try_recv().is_err(), "an attempt of a paused model");
        handle.send(Resume::<Call>::new()).await.expect("resumed");
        for _ in 0..5 {
            next(&mut beginnings).await;
        }
        handle.shutdown(SOON).await;
        assert_eq!(processed_calls(&db).len(), 8);
    }

    #[actix_rt::test]
    async fn a_panic_anywhere_in_an_attempt_is_that_attempts_failure_and_stops_no_other() {
        let db = scripted(&["at first", "", "after an await", "", "when dropped", "", "when done", ""]);
        struct PanicsWhenDropped;
        impl Drop for PanicsWhenDropped {
            fn drop(&mut self) {
                panic!("the host's code is wrong");
            }
        }
        let work = Work::by(async |call: &Call, attempt: &Attempt| {
            assert_ne!(call.script, "at first", "the host's code is wrong");
            tokio::task::yield_now().await;
            assert_ne!(call.script, "after an await", "the host's code is wrong");
            let _panics = (call.script == "when dropped").then(|| PanicsWhenDropped);
            let script = call.script.clone();
            attempt.when_done(move |conn: &mut Conn| {
                // In a transaction of its own, as a host may well have it.
                conn.transaction(|_| {
                    assert_ne!(script, "when done", "the host's code is wrong");
                    Ok(())
                })
            });
            Ok(())
        });
        let handle = start::<Conn, _>(db.url(), work);
        handle.send(SubmitAll::<Call>::new(1..=8)).await.expect("durable");
        until("every attempt ends", || {
            let ended = calls::table.filter(calls::processed_at.is_not_null().or(calls::error.is_not_null()));
            (ended.count().get_result(&mut db.conn()) == Ok(8_i64)).then_some(())
        })
        .await;
        handle.shutdown(SOON).await;
        assert_eq!(processed_calls(&db), [2, 4, 6, 8]);
        let codes = ["1", "3", "5", "7"].map(|row| remembered(&db, row).map(|(_, code, failures)| (code, failures)));
        let once = |code: &str| Some((code.to_owned(), 1));
        assert_eq!(codes, [once("panic"), once("panic"), once("panic"), once("when_done")]);
    }

    #[actix_rt::test]
    async fn a_panic_before_there_is_a_future_is_an_attempts_failure_too() {
        let db = db();
        let handle = start::<Conn, _>(db.url(), PanicsAtOnce);
        handle.send(SubmitAll::<Fax>::new([1, 2])).await.expect("durable");
        let panicked = until("the failure is recorded", || remembered(&db, "1")).await;
        assert_eq!(panicked, ("transient".to_owned(), "panic".to_owned(), 1));
        handle.shutdown(SOON).await;
        assert_eq!(processed_faxes(&db), [2]);
    }

    #[actix_rt::test]
    async fn a_processor_that_is_not_send_is_made_on_the_threads_it_works_on() {
        /// Counts without an atomic, over an await.
        struct Local {
            made_on: ThreadId,
            calls: Rc<Cell<usize>>,
            told: mpsc::UnboundedSender<(i64, ThreadId, usize)>,
        }
        impl Processor for Local {
            type Model = Call;
            async fn process(&self, call: &Call, _: &Attempt) -> Outcome {
                let calls = self.calls.clone();
                tokio::task::yield_now().await;
                calls.set(calls.get() + 1);
                assert_eq!(std::thread::current().id(), self.made_on);
                Ok(self.told.send((call.id, self.made_on, calls.get()))?)
            }
        }
        let db = db();
        let (told, mut seen) = mpsc::unbounded_channel();
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        let make = move || {
            count.fetch_add(1, Ordering::SeqCst);
            Local { made_on: std::thread::current().id(), calls: Rc::default(), told: told.clone() }
        };
        let handle = supervisor::<Conn>(db.url()).processor_with(make).start().expect("it starts");
        handle.send(SubmitAll::<Call>::new(1..=8)).await.expect("durable");
        let mut attempts = Vec::new();
        for _ in 1..=8 {
            attempts.push(next(&mut seen).await);
        }
        handle.shutdown(SOON).await;
        assert_eq!(processed_calls(&db), [1, 2, 3, 4, 5, 6, 7, 8]);
        let threads: HashSet<ThreadId> = attempts.iter().map(|(_, thread, _)| *thread).collect();
        assert_eq!(threads.len(), made.load(Ordering::SeqCst), "one a thread, each of them used");
        // Each counted its own: the last counts add up.
        let last = |thread: &ThreadId| {
            attempts.iter().filter(|(_, on, _)| on == thread).map(|(.., count)| *count).max()
        };
        assert_eq!(threads.iter().filter_map(last).sum::<usize>(), 8);
    }

    #[actix_rt::test]
    async fn as_many_attempts_run_at_once_as_the_processor_says_and_each_model_has_its_own() {
        let db = db();
        let (calls_work, mut calls_began) = AtOnce::new();
        let (faxes_work, mut faxes_began) = AtOnce::new();
        let handle = supervisor::<Conn>(db.url())
            .processor(CallsAtOnce(calls_work.clone()))
            .processor(FaxesAtOnce(faxes_work.clone()))
            .start()
            .expect("it starts");
        handle.send(SubmitAll::<Call>::new(1..=8)).await.expect("durable");
        handle.send(SubmitAll::<Fax>::new(1..=8)).await.expect("durable");
        for _ in 0..CallsAtOnce::AT_ONCE {
            next(&mut calls_began).await;
        }
        for _ in 0..FaxesAtOnce::AT_ONCE {
            next(&mut faxes_began).await;
        }
        // From here each end lets one begin.
        for _ in CallsAtOnce::AT_ONCE..8 {
            calls_work.gate.add_permits(1);
            next(&mut calls_began).await;
        }
        for _ in FaxesAtOnce::AT_ONCE..8 {
            faxes_work.gate.add_permits(1);
            next(&mut faxes_began).await;
        }
        calls_work.gate.add_permits(CallsAtOnce::AT_ONCE);
        faxes_work.gate.add_permits(FaxesAtOnce::AT_ONCE);
        handle.shutdown(SOON).await;
        assert_eq!((processed_calls(&db).len(), processed_faxes(&db).len()), (8, 8));
        let most = |work: &AtOnce| work.most.load(Ordering::SeqCst);
        assert_eq!((most(&calls_work), most(&faxes_work)), (3, 2));
    }

    #[actix_rt::test]
    async fn configuration_says_how_many_at_once_in_place_of_the_processor() {
        let db = db();
        let (work, mut began) = AtOnce::new();
        let supervisor = supervisor::<Conn>(db.url()).processor(CallsAtOnce(work.clone()));
        let handle = supervisor.at_once::<CallsAtOnce>(5).start().expect("it starts");
        handle.send(SubmitAll::<Call>::new(1..=8)).await.expect("durable");
        for _ in 0..5 {
            next(&mut began).await;
        }
        for _ in 5..8 {
            work.gate.add_permits(1);
            next(&mut began).await;
        }
        work.gate.add_permits(5);
        handle.shutdown(SOON).await;
        assert_eq!((processed_calls(&db).len(), work.most.load(Ordering::SeqCst)), (8, 5));
    }
}
