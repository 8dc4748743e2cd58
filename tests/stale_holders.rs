//! An attempt that has lost its row calls nothing any more, its next step is an error, and what becomes of it
//! changes nothing. What it had called is not called again.

mod support;
#[path = "support/steps.rs"]
mod with_steps;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use asyncable::{
    Asyncable, Attempt, Cancel, Failure, GetStatus, Handle, Pause, Processor, Restart, Resume,
    Status, Stored, Submit,
};
use diesel::{connection::SimpleConnection, prelude::*};
use tokio::sync::{Notify, Semaphore, mpsc};

use support::on_each_backend;
use with_steps::*;

/// Where an attempt waits between its steps.
#[derive(Clone)]
struct Gate {
    there: mpsc::UnboundedSender<()>,
    open: Arc<Semaphore>,
    /// For an attempt that ends after another.
    first: Arc<Notify>,
}

impl Gate {
    fn new() -> (Self, mpsc::UnboundedReceiver<()>) {
        let (there, waiting) = mpsc::unbounded_channel();
        (Gate { there, open: Arc::new(Semaphore::new(0)), first: Arc::default() }, waiting)
    }

    fn open(&self) {
        self.open.add_permits(1);
    }

    async fn pass(&self) -> asyncable::Outcome {
        let _ = self.there.send(()); // the test may not look
        self.open.acquire().await?.forget();
        Ok(())
    }
}

/// Two steps with a gate between them; `host` is whose log lines they are.
fn two_steps<M: Asyncable<Id = i64>>(
    host: &'static str,
    log: &Log,
    gate: &Gate,
) -> impl Processor<Model = M> + Clone + Send {
    let (log, gate) = (log.clone(), gate.clone());
    Work::<M, _>::by(async move |_: &M, attempt: &Attempt| {
        let establish = attempt.step("establish").run(async |_| {
            log.tell(format_args!("{host} establishes"));
            Ok(600)
        });
        let claim = establish.await?;
        gate.pass().await?;
        let mut notify = pin!(attempt.step("notify").run(async |_| {
            log.tell(format_args!("{host} notifies of {claim}"));
            Ok(())
        }));
        // Once it was polled, the store has been asked.
        let asked = poll_fn(|context| Poll::Ready(notify.as_mut().poll(context))).await;
        let _ = gate.there.send(()); // the test may not look
        let notified = match asked {
            Poll::Ready(notified) => notified,
            Poll::Pending => notify.await,
        };
        notified.inspect_err(|failure| log.tell(format_args!("{host}: {:?}", failure.kind())))
    })
}

/// Waits for a line of the log.
async fn tells(log: &Log, line: &str) {
    until(line, || log.so_far().iter().any(|told| told == line).then_some(())).await;
}

async fn is<M: Asyncable<Id = i64>>(handle: &Handle, status: Status) {
    let mut ticks = actix_rt::time::interval(Duration::from_millis(20));
    let is = async {
        while handle.send(GetStatus::<M>::new(1)).await.expect("answered") != status {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is).await.expect("within a minute");
}

/// A backend on which a test can keep every turn waiting.
trait Blocked: Connection {
    const BLOCK: &'static str;
}

#[cfg(feature = "sqlite")]
impl Blocked for diesel::SqliteConnection {
    const BLOCK: &'static str = "BEGIN IMMEDIATE";
}

#[cfg(feature = "postgres")]
impl Blocked for diesel::PgConnection {
    const BLOCK: &'static str = "BEGIN; LOCK TABLE asyncable_claims IN EXCLUSIVE MODE";
}

on_each_backend! {
    type Backend = <Conn as diesel::Connection>::Backend;

    reads_of_the_librarys_tables!();

    fn db() -> Db {
        Db::migrated(DDL)
    }

    /// A host whose attempt on row 1 stands between its steps.
    async fn between_steps<M: Stored<Backend> + Asyncable<Id = i64>>(
        db: &Db,
        log: &Log,
    ) -> (Handle, Gate, mpsc::UnboundedReceiver<()>) {
        let (gate, mut waiting) = Gate::new();
        let handle = start::<Conn, _>(&db.url(), noon(), two_steps::<M>("first", log, &gate));
        handle.send(Submit::<M>::new(1)).await.expect("durable");
        next(&mut waiting).await;
        (handle, gate, waiting)
    }

    #[actix_rt::test]
    async fn a_host_that_lost_its_lease_starts_no_step_and_its_successor_goes_on_from_there() {
        let (db, log) = (db(), Log::default());
        let (stalled, gate, _waiting) = between_steps::<Claim>(&db, &log).await;
        stalled.send(Pause::<Claim>::new()).await.expect("it claims no more");
        lapse(&db);
        let (second_gate, mut second_waiting) = Gate::new();
        let second =
            start::<Conn, _>(&db.url(), noon() + minutes(1), two_steps::<Claim>("second", &log, &second_gate));
        next(&mut second_waiting).await;
        gate.open();
        tells(&log, "first: Lost").await;
        second_gate.open();
        processed(&db, 1).await;
        second.shutdown(SOON).await;
        stalled.shutdown(SOON).await;
        assert_eq!(log.so_far(), ["first establishes", "first: Lost", "second notifies of 600"]);
        let outcomes: Vec<_> = history(&db, "claims", 1).into_iter().map(|past| past.outcome).collect();
        assert_eq!(outcomes, ["lost", "processed"]);
    }

    #[actix_rt::test]
    async fn a_canceled_rows_attempt_starts_no_step() {
        let (db, log) = (db(), Log::default());
        let (handle, gate, _waiting) = between_steps::<Claim>(&db, &log).await;
        handle.send(Cancel::<Claim>::new(1)).await.expect("canceled");
        gate.open();
        tells(&log, "first: Lost").await;
        handle.shutdown(SOON).await;
        assert_eq!(log.so_far(), ["first establishes", "first: Lost"]);
        assert!(claim_is(&db, 1, Status::Canceled));
        assert_eq!((entry(&db, "claims", 1), history(&db, "claims", 1)), (None, vec![]));
    }

    #[actix_rt::test]
    async fn a_row_canceled_while_its_step_is_looked_for_is_not_called_again() {
        let (db, service) = (db(), Scripted::new([Err(Failure::unknown("no answer"))], [Ok(None)]));
        let (gate, mut waiting) = Gate::new();
        let work = {
            let (service, gate) = (service.clone(), gate.clone());
            Work::by(async move |_: &Claim, attempt: &Attempt| {
                let found = async |key: asyncable::IdempotencyKey| {
                    gate.pass().await?;
                    service.find(&key).await
                };
                let step = attempt.step("establish").find(found).run(async |_| service.call("").await);
                step.await.map(drop).inspect_err(|failure| service.log.tell(format_args!("{:?}", failure.kind())))
            })
        };
        let first = start::<Conn, _>(&db.url(), noon(), work.clone());
        first.send(Submit::<Claim>::new(1)).await.expect("durable");
        let due_at = entry_of(&db, "claims", 1, "unknown").await.due();
        first.shutdown(SOON).await;
        let second = start::<Conn, _>(&db.url(), due_at, work);
        next(&mut waiting).await;
        second.send(Cancel::<Claim>::new(1)).await.expect("canceled");
        gate.open();
        tells(&service.log, "Lost").await;
        second.shutdown(SOON).await;
        let key = &steps(&db, "claims", 1)[0].key;
        assert_eq!(service.log.so_far(), ["call ", "Unknown", &format!("find {key}"), "Lost"]);
    }

    /// What the log has after a row was submitted or restarted between its attempt's steps.
    async fn changed_between_steps<M, F>(change: impl FnOnce(Handle) -> F) -> Vec<String>
    where
        M: Stored<Backend> + Asyncable<Id = i64>,
        F: Future<Output = ()>,
    {
        let (db, log) = (db(), Log::default());
        let (handle, gate, mut waiting) = between_steps::<M>(&db, &log).await;
        change(handle.clone()).await;
        gate.open();
        next(&mut waiting).await; // it asks
        next(&mut waiting).await; // the next attempt stands between its steps
        gate.open();
        is::<M>(&handle, Status::Processed).await;
        handle.shutdown(SOON).await;
        log.so_far()
    }

    async fn submit<M: Stored<Backend> + Asyncable<Id = i64>>(handle: Handle) {
        handle.send(Submit::<M>::new(1)).await.expect("durable");
    }

    async fn restart<M: Stored<Backend> + Asyncable<Id = i64>>(handle: Handle) {
        assert_eq!(handle.send(Restart::<M>::new(1)).await.expect("restarted").restarted, 1);
    }

    const ONLY_THE_REST: [&str; 3] = ["first establishes", "first: Lost", "first notifies of 600"];
    const ALL_OF_IT: [&str; 4] =
        ["first establishes", "first: Lost", "first establishes", "first notifies of 600"];

    #[actix_rt::test]
    async fn a_row_restarted_during_its_attempt_starts_no_step_in_it_and_goes_on_from_there_in_the_next() {
        assert_eq!(changed_between_steps::<Claim, _>(restart::<Claim>).await, ONLY_THE_REST);
    }

    #[actix_rt::test]
    async fn so_does_a_restarted_row_with_one_column_for_when_it_was_submitted() {
        assert_eq!(changed_between_steps::<Fax, _>(restart::<Fax>).await, ONLY_THE_REST);
    }

    #[actix_rt::test]
    async fn a_row_submitted_during_its_attempt_starts_no_step_in_it_and_begins_anew_in_the_next() {
        assert_eq!(changed_between_steps::<Claim, _>(submit::<Claim>).await, ALL_OF_IT);
    }

    #[actix_rt::test]
    async fn so_does_a_submitted_row_with_one_column_for_when_it_was_submitted() {
        assert_eq!(changed_between_steps::<Fax, _>(submit::<Fax>).await, ALL_OF_IT);
    }

    #[actix_rt::test]
    async fn a_result_that_comes_after_the_lease_was_lost_spares_the_successor_the_call() {
        let (db, log) = (db(), Log::default());
        let (gate, mut waiting) = Gate::new();
        let work = |host: &'static str| {
            let (log, gate) = (log.clone(), gate.clone());
            Work::by(async move |_: &Claim, attempt: &Attempt| {
                let establish = attempt.step("establish").run(async |_| {
                    log.tell(format_args!("{host} establishes"));
                    gate.pass().await?;
                    Ok(600)
                });
                let claim = establish.await?;
                log.tell(format_args!("{host} has {claim}"));
                Ok(())
            })
        };
        let stalled = start::<Conn, _>(&db.url(), noon(), work("first"));
        stalled.send(Submit::<Claim>::new(1)).await.expect("durable");
        next(&mut waiting).await;
        stalled.send(Pause::<Claim>::new()).await.expect("it claims no more");
        lapse(&db);
        let second = start::<Conn, _>(&db.url(), noon() + minutes(1), work("second"));
        let settles = entry_of(&db, "claims", 1, "unsettled").await.due();
        second.shutdown(SOON).await;
        gate.open();
        let recorded = until("its result is recorded", || steps(&db, "claims", 1)[0].result.clone());
        assert_eq!(recorded.await, "600");
        stalled.shutdown(SOON).await;
        assert!(!claim_is(&db, 1, Status::Processed), "the attempt itself counts for nothing");
        let third = start::<Conn, _>(&db.url(), settles, work("third"));
        processed(&db, 1).await;
        third.shutdown(SOON).await;
        assert_eq!(log.so_far(), ["first establishes", "first has 600", "third has 600"]);
    }

    /// A host that has two attempts on row 1, since it stood still and another has rescued the row and given
    /// it back. Both wait at their gate. Not for the turn that has what both say then.
    async fn twice_at_the_gate(
        db: &Db,
        log: &Log,
        work: impl Processor<Model = Claim> + Clone + Send,
        waiting: &mut mpsc::UnboundedReceiver<()>,
    ) -> Handle {
        let handle = start::<Conn, _>(&db.url(), noon(), work);
        handle.send(Submit::<Claim>::new(1)).await.expect("durable");
        next(waiting).await;
        handle.send(Pause::<Claim>::new()).await.expect("it claims no more");
        lapse(db);
        let (gate, mut other_waiting) = Gate::new();
        let other = start::<Conn, _>(&db.url(), noon() + minutes(1), two_steps::<Claim>("other", log, &gate));
        next(&mut other_waiting).await;
        other.shutdown(Duration::ZERO).await;
        handle.send(Resume::<Claim>::new()).await.expect("resumed");
        next(waiting).await;
        handle
    }

    /// Opens the gate for both attempts while a turn is under way, so that the next one has what both say.
    async fn open_for_both(db: &Db, handle: &Handle, gate: &Gate, waiting: &mut mpsc::UnboundedReceiver<()>) {
        let mut conn = db.conn();
        conn.batch_execute(Conn::BLOCK).expect("blocked");
        let submitted = handle.send(Submit::<Claim>::new(2));
        let both = async {
            handle.send(GetStatus::<Claim>::new(1)).await.expect("answered");
            gate.open();
            gate.open();
            next(waiting).await;
            next(waiting).await;
            handle.send(GetStatus::<Claim>::new(1)).await.expect("answered");
            conn.batch_execute("COMMIT").expect("unblocked");
        };
        let (submitted, ()) = tokio::join!(submitted, both);
        submitted.expect("durable");
    }

    #[actix_rt::test]
    async fn an_attempt_whose_row_came_back_to_its_own_host_starts_no_step_beside_its_successor() {
        let (db, log) = (db(), Log::default());
        let (gate, mut waiting) = Gate::new();
        let work = two_steps::<Claim>("first", &log, &gate);
        let handle = twice_at_the_gate(&db, &log, work, &mut waiting).await;
        open_for_both(&db, &handle, &gate, &mut waiting).await;
        processed(&db, 1).await;
        tells(&log, "first: Lost").await;
        gate.open();
        processed(&db, 2).await;
        handle.shutdown(SOON).await;
        // Row 2 is another worker's: it may be heard before what row 1's attempts have to say.
        let mut of_both_rows = log.so_far();
        of_both_rows.sort();
        let notified = "first notifies of 600";
        let established = "first establishes";
        assert_eq!(of_both_rows, [established, established, notified, notified, "first: Lost"]);
    }

    #[actix_rt::test]
    async fn an_attempt_whose_row_came_back_to_its_own_host_does_not_speak_for_its_successor() {
        let (db, log) = (db(), Log::default());
        let (gate, mut waiting) = Gate::new();
        let work = {
            let (gate, began) = (gate.clone(), Arc::new(Semaphore::new(1)));
            Work::by(async move |_: &Claim, _: &Attempt| {
                let stale = began.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_ok();
                gate.pass().await?;
                if !stale {
                    // After the other.
                    tokio::task::yield_now().await;
                    gate.first.notified().await;
                }
                let failure = Failure::transient("not yet").with_code(if stale { "stale" } else { "current" });
                gate.first.notify_one();
                let _ = gate.there.send(());
                Err(failure)
            })
        };
        let handle = twice_at_the_gate(&db, &log, work, &mut waiting).await;
        open_for_both(&db, &handle, &gate, &mut waiting).await;
        let failed = entry_of(&db, "claims", 1, "transient").await;
        handle.shutdown(Duration::ZERO).await;
        assert_eq!((failed.code.as_str(), failed.failures), ("current", 2));
        let codes: Vec<_> = history(&db, "claims", 1).into_iter().filter_map(|past| past.code).collect();
        assert_eq!(codes, ["lost", "current"]);
    }
}

#[cfg(feature = "postgres")]
#[allow(dead_code, reason = "what reads the library's tables is for all test files")]
mod long_transactions {
    use super::*;

    type Conn = diesel::PgConnection;
    type Db = support::TestDb<Conn>;

    reads_of_the_librarys_tables!();

    /// An attempt that has asked for its second step, and the host's transaction that holds its row.
    async fn asked_while_locked(log: &Log, change: &str) -> (Db, Handle, Conn) {
        let db = Db::migrated(DDL);
        let (gate, mut waiting) = Gate::new();
        let handle = start::<Conn, _>(&db.url(), noon(), two_steps::<Claim>("first", log, &gate));
        handle.send(Submit::<Claim>::new(1)).await.expect("durable");
        next(&mut waiting).await;
        let mut host = db.conn();
        host.batch_execute(&format!("BEGIN; {change} WHERE id = 1")).expect("locked");
        gate.open();
        next(&mut waiting).await;
        // Answered in that turn or in a later one.
        handle.send(Submit::<Claim>::new(2)).await.expect("durable");
        handle.addr().send(asyncable::Sweep).await.expect("swept");
        assert_eq!(log.so_far()[0], "first establishes");
        assert!(
            !log.so_far().iter().any(|line| line.starts_with("first notifies")),
            "not called yet"
        );
        gate.open(); // for row 2
        (db, handle, host)
    }

    #[actix_rt::test]
    async fn a_row_in_the_hosts_long_transaction_delays_its_step_and_is_not_lost() {
        let log = Log::default();
        let (db, handle, mut host) =
            asked_while_locked(&log, "UPDATE claims SET error = 'seen'").await;
        // The other rows go on.
        processed(&db, 2).await;
        assert_eq!(
            log.so_far(),
            ["first establishes", "first establishes", "first notifies of 600"]
        );
        host.batch_execute("COMMIT").expect("ended");
        processed(&db, 1).await;
        handle.shutdown(SOON).await;
        assert_eq!(log.so_far()[3..], ["first notifies of 600"]);
        assert_eq!((entry(&db, "claims", 1), history(&db, "claims", 1)), (None, vec![]));
    }

    #[actix_rt::test]
    async fn a_row_that_such_a_transaction_cancels_starts_no_step() {
        let log = Log::default();
        let (db, handle, mut host) =
            asked_while_locked(&log, "UPDATE claims SET canceled_at = '2026-01-01'").await;
        processed(&db, 2).await;
        host.batch_execute("COMMIT").expect("ended");
        tells(&log, "first: Lost").await;
        handle.shutdown(SOON).await;
        let expected =
            ["first establishes", "first establishes", "first notifies of 600", "first: Lost"];
        assert_eq!(log.so_far(), expected);
        assert!(claim_is(&db, 1, Status::Canceled));
    }
}
