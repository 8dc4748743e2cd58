//! The history of attempts, and rows whose attempts end their process or panic: parked as poison.

mod support;
#[path = "support/steps.rs"]
mod with_steps;

use std::{
    future::pending,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use asyncable::{
    Asyncable, Attempt, Columns, Event, Failure, GetStatus, Handle, Outcome, Pause, Processor,
    Restart, RetryPolicy, Status, Submit, Supervisor, columns,
};
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use tokio::sync::{Semaphore, mpsc};

use support::on_each_backend;
use with_steps::*;

/// Set in a child process: the database it works on, and when its clock begins.
const CHILD: &str = "ASYNCABLE_TEST_CHILD";
const FROM: &str = "ASYNCABLE_TEST_FROM";

/// The same table, worked on by what ends its process.
#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = claims)]
struct Deadly {
    id: i64,
}

impl Asyncable for Deadly {
    type Id = i64;
    const COLUMNS: Columns<claims::table> =
        columns!(claims, last_submitted_at = last_submitted_at, canceled_at = canceled_at)
            .name("deadly");
    const POLICY: RetryPolicy = RetryPolicy::DEFAULT.poison_after(3);
}

#[derive(Clone)]
struct EndsItsProcess;

impl Processor for EndsItsProcess {
    type Model = Deadly;

    async fn process(&self, _: &Deadly, _: &Attempt) -> Outcome {
        std::process::abort()
    }
}

/// What was told of parked and lost rows: the event's name, the row, and the failure's code.
type Told = Arc<Mutex<Vec<(&'static str, String, String)>>>;

fn listening<C: asyncable::StoreConnection>(supervisor: Supervisor<C>) -> (Supervisor<C>, Told) {
    let told = Told::default();
    let heard = told.clone();
    let listening = supervisor.on_event(move |event| {
        let told = match event {
            Event::Parked { id, failure, .. } => ("parked", id.clone(), failure.code().to_owned()),
            Event::Lost { id, .. } => ("lost", id.clone(), String::new()),
            _ => return,
        };
        heard.lock().expect("events").push(told);
    });
    (listening, told)
}

on_each_backend! {
    reads_of_the_librarys_tables!();

    fn db() -> Db {
        Db::migrated(DDL)
    }

    /// Waits until a row has failed so many times.
    async fn failed(db: &Db, model: &str, failures: i32) -> Entry {
        let entry = until("the failure is recorded", || {
            entry(db, model, 1).filter(|entry| entry.failures == failures)
        });
        entry.await
    }

    #[actix_rt::test]
    async fn failed_attempts_are_kept_with_the_success_that_ended_them() {
        let db = db();
        let places = Arc::new(Mutex::new(Vec::new()));
        let work = {
            let places = places.clone();
            Work::by(async move |_: &Claim, attempt: &Attempt| {
                if attempt.number() == 1 {
                    places.lock().expect("places").push(line!() + 1);
                    return Err(Failure::unavailable(BGS, "closed until nine").with_code("bgs.closed"));
                }
                attempt.step("establish").run(async |_| Ok(600)).await?;
                let notified = attempt.step("notify").of("veteran").run(async |_| {
                    if attempt.number() == 2 {
                        places.lock().expect("places").push(line!() + 1);
                        Err(std::io::Error::other("broken pipe"))?;
                    }
                    Ok(())
                });
                notified.await
            })
        };
        let mut from = noon();
        let mut hosts = Vec::new();
        for failures in 1..=2 {
            let handle = start::<Conn, _>(&db.url(), from, work.clone());
            if failures == 1 {
                handle.send(Submit::<Claim>::new(1)).await.expect("durable");
            }
            from = failed(&db, "claims", failures).await.due();
            handle.shutdown(SOON).await;
        }
        let last = start::<Conn, _>(&db.url(), from, work);
        processed(&db, 1).await;
        last.shutdown(SOON).await;

        let history = history(&db, "claims", 1);
        let mut before = noon().naive_utc();
        for past in &history {
            assert!(before <= past.started_at && past.started_at <= past.ended_at, "{history:?}");
            before = past.ended_at;
            hosts.push(past.host.as_str());
        }
        // Each supervisor counts as a host.
        hosts.dedup();
        assert_eq!(hosts.len(), 3, "{hosts:?}");
        let places = places.lock().expect("places").clone();
        let place = |index: usize| format!("{}:{}", file!(), places[index]);
        let told: Vec<_> = history
            .iter()
            .map(|past| {
                let texts = [&past.kind, &past.code, &past.place, &past.step, &past.error];
                (past.number, past.outcome.as_str(), texts.map(|text| text.as_deref().unwrap_or("-")))
            })
            .collect();
        let closed = "bgs.closed closed until nine";
        let broken = "std::io::Error broken pipe";
        let expected = [
            (1, "failed", ["unavailable", "bgs.closed", &place(0), "-", closed]),
            (2, "failed", ["transient", "std::io::Error", &place(1), "notify/veteran", broken]),
            (3, "processed", ["-", "-", "-", "notify/veteran", "-"]),
        ];
        assert_eq!(told, expected);
    }

    #[actix_rt::test]
    async fn a_first_time_success_is_not_kept() {
        let db = db();
        let work = Work::by(async move |_: &Claim, attempt: &Attempt| {
            attempt.step("establish").run(async |_| Ok(())).await
        });
        let handle = start::<Conn, _>(&db.url(), noon(), work);
        handle.send(Submit::<Claim>::new(1)).await.expect("durable");
        processed(&db, 1).await;
        handle.shutdown(SOON).await;
        assert_eq!(history(&db, "claims", 1), []);
    }

    #[actix_rt::test]
    async fn a_first_time_success_after_failures_of_an_earlier_submission_is_not_kept() {
        let (db, service) = (db(), Scripted::new([Err(Failure::transient("not yet")), Ok(1)], []));
        let work = Work::by(async move |_: &Claim, attempt: &Attempt| {
            attempt.step("establish").run(async |_| service.call("").await).await.map(drop)
        });
        let handle = start::<Conn, _>(&db.url(), noon(), work);
        handle.send(Submit::<Claim>::new(1)).await.expect("durable");
        failed(&db, "claims", 1).await;
        handle.send(Submit::<Claim>::new(1)).await.expect("durable");
        processed(&db, 1).await;
        handle.shutdown(SOON).await;
        let outcomes: Vec<_> = history(&db, "claims", 1).into_iter().map(|past| past.outcome).collect();
        assert_eq!(outcomes, ["failed"]);
    }

    #[actix_rt::test]
    async fn a_permanent_failure_is_kept_as_what_parked_the_row() {
        let db = db();
        let work = Work::by(async move |_: &Claim, _: &Attempt| Err(Failure::permanent("refused")));
        let handle = start::<Conn, _>(&db.url(), noon(), work);
        handle.send(Submit::<Claim>::new(1)).await.expect("durable");
        entry_of(&db, "claims", 1, "permanent").await;
        handle.shutdown(SOON).await;
        let history = history(&db, "claims", 1);
        let told: Vec<_> = history.iter().map(|past| (past.outcome.as_str(), past.kind.as_deref())).collect();
        assert_eq!(told, [("parked", Some("permanent"))]);
    }

    /// A host whose attempt goes on although another has rescued its row, and nobody has claimed it again.
    async fn thought_lost(db: &Db, outcome: Outcome) -> (Handle, Handle, Arc<Semaphore>) {
        let (told, mut began) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let open = gate.clone();
        let work = Work::by(async move |_: &Claim, _: &Attempt| {
            told.send(())?;
            open.acquire().await?.forget();
            outcome.clone()
        });
        let stalled = start::<Conn, _>(&db.url(), noon(), work.clone());
        stalled.send(Submit::<Claim>::new(1)).await.expect("durable");
        next(&mut began).await;
        let rescuer = start::<Conn, _>(&db.url(), noon(), work);
        for handle in [&stalled, &rescuer] {
            handle.send(Pause::<Claim>::new()).await.expect("it claims no more");
            // Answered by a turn: what was under way when it was paused is over.
            let none = handle.send(Restart::<Claim>::new(99)).await;
            assert!(!none.is_ok_and(|restarted| restarted.restarted > 0), "there is no such claim");
        }
        lapse(db);
        entry_of(db, "claims", 1, "lost").await;
        (stalled, rescuer, gate)
    }

    fn told(db: &Db) -> Vec<(i32, String, Option<String>)> {
        let history = history(db, "claims", 1).into_iter();
        history.map(|past| (past.number, past.outcome, past.code)).collect()
    }

    #[actix_rt::test]
    async fn a_lost_attempt_is_kept_until_the_truth_of_it_arrives() {
        let (db, failure) = (db(), Failure::transient("not yet").with_code("bgs.closed"));
        let (stalled, rescuer, gate) = thought_lost(&db, Err(failure)).await;
        let lost = &history(&db, "claims", 1)[0];
        assert_eq!(told(&db), [(1, "lost".to_owned(), Some("lost".to_owned()))]);
        gate.add_permits(1);
        let failed = entry_of(&db, "claims", 1, "transient").await;
        for handle in [stalled, rescuer] {
            handle.shutdown(SOON).await;
        }
        // The same failure, counted once.
        assert_eq!((failed.failures, failed.crashes), (1, 0));
        assert_eq!(told(&db), [(1, "failed".to_owned(), Some("bgs.closed".to_owned()))]);
        assert_eq!(history(&db, "claims", 1)[0].host, lost.host, "of the host that had it");
    }

    #[actix_rt::test]
    async fn a_lost_attempt_that_turns_out_to_have_succeeded_is_kept_as_that() {
        let db = db();
        let (stalled, rescuer, gate) = thought_lost(&db, Ok(())).await;
        gate.add_permits(1);
        processed(&db, 1).await;
        for handle in [stalled, rescuer] {
            handle.shutdown(SOON).await;
        }
        assert_eq!(told(&db), [(1, "processed".to_owned(), None)]);
        assert_eq!(entry(&db, "claims", 1), None);
    }

    /// Lets a row's attempts come, one supervisor each, until it has failed so often.
    async fn attempted<P>(db: &Db, work: &P, attempts: i32) -> (Entry, Told)
    where
        P: Processor<Model = Claim> + Clone + Send,
    {
        let (mut from, mut last) = (noon(), None);
        for failures in 1..=attempts {
            let (supervisor, told) = listening(supervisor::<Conn>(&db.url(), from));
            let handle = supervisor.processor(work.clone()).start().expect("it starts");
            if failures == 1 {
                handle.send(Submit::<Claim>::new(1)).await.expect("durable");
            }
            let failed = failed(db, "claims", failures).await;
            handle.shutdown(SOON).await;
            from = failed.due_at.map_or(from, |at| at.and_utc());
            last = Some((failed, told));
        }
        last.expect("an attempt")
    }

    fn panicking() -> impl Processor<Model = Claim> + Clone + Send {
        Work::by(async move |_: &Claim, _: &Attempt| panic!("the host's code is wrong"))
    }

    #[actix_rt::test]
    async fn a_row_whose_attempts_panic_four_times_in_a_row_is_tried_again() {
        let db = db();
        let (fourth, told) = attempted(&db, &panicking(), 4).await;
        assert_eq!((fourth.kind.as_str(), fourth.code.as_str(), fourth.crashes), ("transient", "panic", 4));
        assert_eq!(*told.lock().expect("events"), []);
    }

    #[actix_rt::test]
    async fn the_fifth_time_it_is_parked_as_poison_and_that_is_told() {
        let db = db();
        let (fifth, events) = attempted(&db, &panicking(), 5).await;
        assert_eq!((fifth.kind.as_str(), fifth.code.as_str(), fifth.due_at), ("permanent", "poison", None));
        let parked = ("parked", "1".to_owned(), "poison".to_owned());
        until("it is told", || (events.lock().expect("events").as_slice() == [parked.clone()]).then_some(())).await;
        let error: Option<String> = claims::table.find(1).select(claims::error).first(&mut db.conn()).expect("a row");
        let because = "poison 5 attempts in a row ended their process or panicked: the host's code panicked";
        assert_eq!(error.as_deref(), Some(because));
        let failed = |number, code: &str| (number, "failed".to_owned(), Some(code.to_owned()));
        let mut kept: Vec<_> = (1..=4).map(|number| failed(number, "panic")).collect();
        kept.push((5, "parked".to_owned(), Some("poison".to_owned())));
        assert_eq!(told(&db), kept);
    }

    #[actix_rt::test]
    async fn a_restart_makes_it_due_again_with_its_count_at_zero() {
        let db = db();
        attempted(&db, &panicking(), 5).await;
        let handle = start::<Conn, _>(&db.url(), noon() + minutes(24 * 60), panicking());
        handle.send(Restart::<Claim>::new(1)).await.expect("restarted");
        let again = failed(&db, "claims", 1).await;
        handle.shutdown(SOON).await;
        assert_eq!((again.kind.as_str(), again.crashes), ("transient", 1));
        assert_eq!(told(&db).last().map(|past| past.0), Some(1), "it is the first attempt again");
    }

    #[actix_rt::test]
    async fn an_attempt_that_ends_otherwise_begins_the_count_again() {
        let db = db();
        let work = Work::by(async move |_: &Claim, attempt: &Attempt| match attempt.number() {
            4 => Err(Failure::transient("not yet")),
            _ => panic!("the host's code is wrong"),
        });
        let (fifth, _) = attempted(&db, &work, 5).await;
        assert_eq!((fifth.kind.as_str(), fifth.crashes), ("transient", 1));
    }

    #[actix_rt::test]
    async fn a_wait_for_a_step_to_settle_does_not_begin_it_again() {
        let db = db();
        let (told, mut calls) = mpsc::unbounded_channel();
        let work = Work::by(async move |_: &Claim, attempt: &Attempt| {
            let step = attempt.step("establish").run(async |_| {
                told.send(())?;
                pending::<Outcome<i64>>().await
            });
            step.await.map(drop)
        });
        let mut from = noon();
        // Twice the host stands still for good during the call; its row is rescued, and then waits.
        for crashes in 1..=2 {
            let stalled = start::<Conn, _>(&db.url(), from, work.clone());
            if crashes == 1 {
                stalled.send(Submit::<Claim>::new(1)).await.expect("durable");
            }
            next(&mut calls).await;
            stalled.send(Pause::<Claim>::new()).await.expect("it claims no more");
            lapse(&db);
            let rescuer = start::<Conn, _>(&db.url(), from + minutes(1), work.clone());
            let waiting = until("it waits", || {
                entry(&db, "claims", 1).filter(|entry| entry.kind == "unsettled" && entry.failures == crashes)
            });
            let waiting = waiting.await;
            stalled.shutdown(Duration::ZERO).await;
            rescuer.shutdown(SOON).await;
            assert_eq!(waiting.crashes, crashes);
            from = waiting.due();
        }
    }

    /// Not a test of its own: what the child process runs, until the row ends it.
    #[actix_rt::test]
    async fn child() {
        let Ok(url) = std::env::var(CHILD) else { return };
        let from: DateTime<Utc> = std::env::var(FROM).expect("a time").parse().expect("a time");
        let _handle = start::<Conn, _>(&url, from, EndsItsProcess);
        pending::<()>().await;
    }

    #[actix_rt::test]
    async fn a_row_that_ends_its_process_is_parked_as_poison_and_that_is_told() {
        let db = db();
        let (supervisor, told) = listening(supervisor::<Conn>(&db.url(), noon() + minutes(2)));
        let rescuer = supervisor.processor(EndsItsProcess).start().expect("it starts");
        rescuer.send(Pause::<Deadly>::new()).await.expect("it lives");
        rescuer.send(Submit::<Deadly>::new(1).at(noon())).await.expect("durable");
        let module = module_path!().split_once("::").map_or("", |(_, module)| module);
        for failures in 1..=3 {
            let ended = Command::new(std::env::current_exe().expect("this test"))
                .args(["--exact", &format!("{module}::child")])
                .env(CHILD, db.url())
                .env(FROM, (noon() + minutes(5)).to_rfc3339())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            assert!(!ended.expect("a child").success(), "the row ended it");
            lapse(&db);
            let lost = failed(&db, "deadly", failures).await;
            let expected = if failures < 3 { ("lost", "lost") } else { ("permanent", "poison") };
            assert_eq!((lost.kind.as_str(), lost.code.as_str(), lost.crashes), (expected.0, expected.1, failures));
            assert_eq!(lost.due_at.is_some(), failures < 3);
        }
        let lost = ("lost", "1".to_owned(), String::new());
        let parked = ("parked", "1".to_owned(), "poison".to_owned());
        let expected = [lost.clone(), lost.clone(), parked, lost];
        until("all is told", || (told.lock().expect("events").len() == 4).then_some(())).await;
        assert_eq!(*told.lock().expect("events"), expected);
        let kept: Vec<_> = history(&db, "deadly", 1)
            .into_iter()
            .map(|past| (past.number, past.outcome, past.code.unwrap_or_default()))
            .collect();
        let lost = |number, code: &str| (number, "lost".to_owned(), code.to_owned());
        assert_eq!(kept, [lost(1, "lost"), lost(2, "lost"), lost(3, "poison")]);

        assert_eq!(rescuer.send(Restart::<Deadly>::new(1)).await.expect("restarted").restarted, 1);
        assert_eq!(entry(&db, "deadly", 1), None, "its count is at zero");
        let status = rescuer.send(GetStatus::<Deadly>::new(1)).await.expect("answered");
        assert_eq!(status, Status::Submitted, "as if it had not been attempted");
        rescuer.shutdown(SOON).await;
    }
}
