//! A call that may still be under way at its service is neither made again nor asked about before it has
//! settled, and that wait costs the row no attempt. What has been answered is not waited for.
//!
//! The rows' policy would try again after a minute; the service has settled after half an hour.

mod support;
#[path = "support/steps.rs"]
mod with_steps;

use std::future::pending;

use asyncable::{Attempt, Failure, Handle, Outcome, Pause, Processor, Restart, Submit, Supervisor};
use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use tokio::sync::mpsc;

use support::on_each_backend;
use with_steps::*;

on_each_backend! {
    reads_of_the_librarys_tables!();

    fn db() -> Db {
        Db::migrated(DDL)
    }

    /// One step, which can be looked for.
    fn looking(service: &Scripted) -> impl Processor<Model = Claim> + Clone + Send {
        let service = service.clone();
        Work::by(async move |_: &Claim, attempt: &Attempt| {
            service.log.tell(format_args!("attempt {}", attempt.number()));
            let step = attempt
                .step("establish")
                .find(async |_| service.find("").await)
                .run(async |_| service.call("").await);
            step.await.map(drop)
        })
    }

    /// The same step, whose service does not answer. Tells when it is called.
    fn hanging() -> (impl Processor<Model = Claim> + Clone + Send, mpsc::UnboundedReceiver<()>) {
        let (told, calls) = mpsc::unbounded_channel();
        let work = Work::by(async move |_: &Claim, attempt: &Attempt| {
            let step = attempt.step("establish").run(async |_| {
                told.send(())?;
                pending::<Outcome<i64>>().await
            });
            step.await.map(drop)
        });
        (work, calls)
    }

    /// When the service will have settled. It was called within the minute after `from`.
    fn settles(db: &Db, from: DateTime<Utc>) -> DateTime<Utc> {
        let steps = steps(db, "claims", 1);
        let step = steps.iter().find(|step| step.name == "establish");
        let settles = step.expect("it is begun").find_after;
        assert!((from + minutes(30)..from + minutes(31)).contains(&settles), "{steps:?}");
        settles
    }

    /// Ten minutes after noon, the row is due and its step not begun: it waits for `settles`, after as many
    /// failures as before. Then it is looked for, in attempt number `attempt`.
    async fn waits_and_then_looks(db: &Db, settles: DateTime<Utc>, early: Handle, service: &Scripted, attempt: i32) {
        let waiting = entry_of(db, "claims", 1, "unsettled").await;
        early.shutdown(SOON).await;
        assert_eq!((waiting.due(), waiting.failures), (settles, attempt - 1));
        assert_eq!(service.log.so_far().last().cloned(), Some(format!("attempt {attempt}")), "and no call");
        let number = format!("attempt {attempt}");
        let before = service.log.so_far();
        let late = start::<Conn, _>(&db.url(), settles, looking(service));
        processed(db, 1).await;
        late.shutdown(SOON).await;
        assert_eq!(service.log.so_far(), [&before[..], &[number, "find ".to_owned()]].concat());
    }

    #[actix_rt::test]
    async fn a_call_of_unknown_outcome_waits_however_soon_its_row_is_due() {
        let (db, service) = (db(), Scripted::new([Err(Failure::unknown("no answer"))], [Ok(Some(600))]));
        let first = start::<Conn, _>(&db.url(), noon(), looking(&service));
        first.send(Submit::<Claim>::new(1)).await.expect("durable");
        let failed = entry_of(&db, "claims", 1, "unknown").await;
        first.shutdown(SOON).await;
        let settles = settles(&db, noon());
        assert!(failed.due() >= settles, "{failed:?}");
        let early = start::<Conn, _>(&db.url(), noon() + minutes(10), looking(&service));
        early.send(Restart::<Claim>::new(1)).await.expect("somebody cannot wait");
        // A restart begins the count again.
        waits_and_then_looks(&db, settles, early, &service, 1).await;
    }

    #[actix_rt::test]
    async fn a_call_whose_lease_was_lost_waits() {
        let (db, service) = (db(), Scripted::new([], [Ok(Some(600))]));
        let (work, mut calls) = hanging();
        let stalled = start::<Conn, _>(&db.url(), noon(), work);
        stalled.send(Submit::<Claim>::new(1)).await.expect("durable");
        next(&mut calls).await;
        stalled.send(Pause::<Claim>::new()).await.expect("it claims no more");
        let settles = settles(&db, noon());
        lapse(&db);
        let early = start::<Conn, _>(&db.url(), noon() + minutes(10), looking(&service));
        // The loss itself is a failure.
        waits_and_then_looks(&db, settles, early, &service, 2).await;
        stalled.shutdown(std::time::Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a_call_that_a_graceful_stop_cut_off_waits() {
        let (db, service) = (db(), Scripted::new([], [Ok(Some(600))]));
        let (work, mut calls) = hanging();
        let stopped = start::<Conn, _>(&db.url(), noon(), work);
        stopped.send(Submit::<Claim>::new(1)).await.expect("durable");
        next(&mut calls).await;
        stopped.shutdown(std::time::Duration::ZERO).await;
        let settles = settles(&db, noon());
        let early = start::<Conn, _>(&db.url(), noon() + minutes(10), looking(&service));
        waits_and_then_looks(&db, settles, early, &service, 1).await;
        assert_eq!(history(&db, "claims", 1), []);
    }

    /// What an attempt that leaves a call under way comes to: its row is not due before that has settled.
    async fn is_due_when_it_has_settled(supervisor: Supervisor<Conn>, kind: &str, db: &Db) {
        let handle = supervisor.start().expect("it starts");
        handle.send(Submit::<Claim>::new(1)).await.expect("durable");
        let failed = entry_of(db, "claims", 1, kind).await;
        handle.shutdown(SOON).await;
        let settles = settles(db, noon());
        assert!((settles..settles + minutes(1)).contains(&failed.due()), "{failed:?}");
        assert_eq!(failed.failures, 1);
    }

    #[actix_rt::test]
    async fn a_transient_failure_may_be_a_time_out_of_the_hosts_client_and_waits() {
        let (db, service) = (db(), Scripted::new([Err(Failure::transient("timed out"))], []));
        let supervisor = supervisor::<Conn>(&db.url(), noon()).processor(looking(&service));
        is_due_when_it_has_settled(supervisor, "transient", &db).await;
    }

    #[actix_rt::test]
    async fn an_attempt_that_times_out_during_a_call_waits() {
        let db = db();
        let (work, _calls) = hanging();
        // Long enough for the step to begin, also on a slow machine: what runs out before has called nothing.
        let short = std::time::Duration::from_secs(2);
        let supervisor = with_timeout(supervisor::<Conn>(&db.url(), noon()), work, short);
        is_due_when_it_has_settled(supervisor, "unknown", &db).await;
    }

    fn with_timeout<P>(supervisor: Supervisor<Conn>, work: P, timeout: std::time::Duration) -> Supervisor<Conn>
    where
        P: Processor<Model = Claim> + Clone + Send,
    {
        supervisor.processor(work).timeout::<P>(timeout)
    }

    #[actix_rt::test]
    async fn an_attempt_that_panics_during_a_call_waits() {
        let db = db();
        let work = Work::by(async move |_: &Claim, attempt: &Attempt| {
            let step = attempt.step("establish").run(async |_| -> Outcome<i64> {
                panic!("the host's code is wrong")
            });
            step.await.map(drop)
        });
        let supervisor = supervisor::<Conn>(&db.url(), noon()).processor(work);
        is_due_when_it_has_settled(supervisor, "transient", &db).await;
    }

    #[actix_rt::test]
    async fn a_call_that_another_steps_failure_cut_off_waits() {
        let db = db();
        let work = Work::by(async move |_: &Claim, attempt: &Attempt| {
            let (told, heard) = tokio::sync::oneshot::channel();
            let hangs = attempt.step("establish").run(async |_| {
                told.send(()).map_err(|()| Failure::permanent("nobody listens"))?;
                pending::<Outcome<i64>>().await
            });
            let fails = attempt.step("notify").run(async |_| {
                heard.await?;
                Err::<i64, _>(Failure::unavailable(BGS, "down"))
            });
            tokio::try_join!(hangs, fails).map(drop)
        });
        let supervisor = supervisor::<Conn>(&db.url(), noon()).processor(work);
        is_due_when_it_has_settled(supervisor, "unavailable", &db).await;
    }

    #[actix_rt::test]
    async fn a_call_made_again_has_as_long_to_settle_as_the_first() {
        let no_answer = || Err(Failure::unknown("no answer"));
        let (db, service) = (db(), Scripted::new([no_answer(), no_answer()], [Ok(None)]));
        let first = start::<Conn, _>(&db.url(), noon(), looking(&service));
        first.send(Submit::<Claim>::new(1)).await.expect("durable");
        let due_at = entry_of(&db, "claims", 1, "unknown").await.due();
        first.shutdown(SOON).await;
        let second = start::<Conn, _>(&db.url(), due_at, looking(&service));
        let failed = until("it fails again", || {
            entry(&db, "claims", 1).filter(|entry| entry.failures == 2)
        });
        let failed = failed.await;
        second.shutdown(SOON).await;
        assert!(failed.due() >= settles(&db, due_at), "{failed:?}");
    }

    /// A failure with which the service has answered; when its row is due again, or restarted if never, the
    /// step is looked for at once.
    async fn is_looked_for_without_a_wait(answer: Failure, kind: &str, wait: Option<TimeDelta>) {
        let (db, service) = (db(), Scripted::new([Err(answer)], [Ok(Some(600))]));
        let first = start::<Conn, _>(&db.url(), noon(), looking(&service));
        first.send(Submit::<Claim>::new(1)).await.expect("durable");
        let failed = entry_of(&db, "claims", 1, kind).await;
        first.shutdown(SOON).await;
        let again = match wait {
            Some(wait) => {
                let due = noon() + wait..noon() + wait + minutes(5);
                assert!(due.contains(&failed.due()), "{failed:?}");
                start::<Conn, _>(&db.url(), failed.due(), looking(&service))
            }
            None => {
                assert_eq!(failed.due_at, None);
                let again = start::<Conn, _>(&db.url(), noon() + minutes(1), looking(&service));
                again.send(Restart::<Claim>::new(1)).await.expect("restarted");
                again
            }
        };
        processed(&db, 1).await;
        again.shutdown(SOON).await;
        let number = if wait.is_some() { "attempt 2" } else { "attempt 1" };
        assert_eq!(service.log.so_far(), ["attempt 1", "call ", number, "find "]);
    }

    #[actix_rt::test]
    async fn a_service_that_serves_nobody_has_answered() {
        is_looked_for_without_a_wait(Failure::unavailable(BGS, "down"), "unavailable", Some(minutes(1))).await;
    }

    #[actix_rt::test]
    async fn a_service_that_says_when_to_come_back_has_answered() {
        let busy = Failure::retry_after(std::time::Duration::from_secs(120), "busy");
        is_looked_for_without_a_wait(busy, "retry_after", Some(minutes(2))).await;
    }

    #[actix_rt::test]
    async fn a_service_that_refuses_has_answered() {
        is_looked_for_without_a_wait(Failure::permanent("refused"), "permanent", None).await;
    }
}
