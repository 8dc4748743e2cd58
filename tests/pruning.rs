//! Pruning: what is kept for how long of attempts, their texts, steps and entries, and that what an open row
//! needs is never pruned.

mod support;
#[path = "support/steps.rs"]
mod with_steps;

use std::sync::{Arc, Mutex, Once};

use asyncable::{
    Asyncable, Attempt, Cancel, Failure, GetStatus, Outcome, Restart, Status, Stored, Submit,
    SubmitAll,
};
use chrono::{DateTime, TimeDelta, Utc};
use diesel::{connection::SimpleConnection, prelude::*};
use tokio::sync::{Semaphore, mpsc};

use support::on_each_backend;
use with_steps::*;

mod schema {
    diesel::table! {
        asyncable_hosts (host, model) {
            host -> Text,
            model -> Text,
        }
    }
    diesel::table! {
        asyncable_probes (id) {
            id -> BigInt,
            row_id -> Text,
        }
    }
}
use schema::{asyncable_hosts, asyncable_probes};

fn days(days: i64) -> TimeDelta {
    TimeDelta::days(days)
}

/// Keeps what the library logs of pruning that failed.
struct Failures;

static FAILURES: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Failures {
    fn keep() {
        static LOGGER: Once = Once::new();
        LOGGER.call_once(|| {
            log::set_logger(&Failures).expect("the process's logger");
            log::set_max_level(log::LevelFilter::Debug);
        });
    }
}

impl log::Log for Failures {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("asyncable")
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args().to_string();
        if text.starts_with("pruning of") {
            FAILURES.lock().expect("failures").push(text);
        }
    }

    fn flush(&self) {}
}

/// An attempt older than anything, of a model that nobody has: gone as soon as something was pruned.
const MARKER: &str = "INSERT INTO asyncable_attempts (model, row_id, attempted_at, number, host, \
    started_at, ended_at, outcome) VALUES ('marker', '1', '2000-01-01', 1, '', '2000-01-01', \
    '2000-01-01', 'failed')";

on_each_backend! {
    type Backend = <Conn as diesel::Connection>::Backend;

    reads_of_the_librarys_tables!();

    fn kept(db: &Db, model: &str) -> i64 {
        use asyncable_attempts::dsl;
        let kept = dsl::asyncable_attempts.filter(dsl::model.eq(model)).count();
        kept.get_result(&mut db.conn()).expect("a count")
    }

    /// Lets a supervisor prune whose clock says `at`. Its processor has nothing to do.
    async fn pruned(db: &Db, at: DateTime<Utc>) {
        db.conn().batch_execute(MARKER).expect("a marker");
        let idle = Work::by(async move |_: &Claim, _: &Attempt| Err(Failure::permanent("not due")));
        let handle = start::<Conn, _>(&db.url(), at, idle);
        until("it prunes", || (kept(db, "marker") == 0).then_some(())).await;
        handle.shutdown(SOON).await;
    }

    /// Each of three rows has failed once and has a step's result; then the first is processed, the second
    /// parked, which is open, and the third canceled.
    async fn three_rows_that_failed() -> Db {
        let db = Db::migrated(DDL);
        let work = Work::by(async move |claim: &Claim, attempt: &Attempt| {
            attempt.step("establish").run(async |_| Ok(600)).await?;
            match (claim.id, attempt.number()) {
                (1, 2) => Ok(()),
                (1, _) => Err(Failure::retry_after(std::time::Duration::from_secs(1), "busy")),
                (2, _) => Err(Failure::permanent("refused")),
                (_, _) => Err(Failure::transient("not yet")),
            }
        });
        let handle = start::<Conn, _>(&db.url(), noon(), work);
        handle.send(SubmitAll::<Claim>::new([1, 2, 3])).await.expect("durable");
        processed(&db, 1).await;
        entry_of(&db, "claims", 2, "permanent").await;
        entry_of(&db, "claims", 3, "transient").await;
        handle.send(Cancel::<Claim>::new(3)).await.expect("canceled");
        handle.shutdown(SOON).await;
        db
    }

    /// Of each row: attempts in the history, those of them with a text, steps, and whether it has an entry.
    fn what_is_left(db: &Db) -> [(usize, usize, usize, bool); 3] {
        [1, 2, 3].map(|id| {
            let history = history(db, "claims", id);
            let with_text = history.iter().filter(|past| past.error.is_some()).count();
            (history.len(), with_text, steps(db, "claims", id).len(), entry(db, "claims", id).is_some())
        })
    }

    #[actix_rt::test]
    async fn nothing_is_pruned_within_30_days() {
        let db = three_rows_that_failed().await;
        pruned(&db, noon() + days(29)).await;
        assert_eq!(what_is_left(&db), [(2, 1, 1, false), (1, 1, 1, true), (1, 1, 1, true)]);
    }

    #[actix_rt::test]
    async fn after_30_days_the_texts_of_errors_and_the_steps_of_ended_rows_are_pruned() {
        let db = three_rows_that_failed().await;
        pruned(&db, noon() + days(31)).await;
        assert_eq!(what_is_left(&db), [(2, 0, 0, false), (1, 0, 1, true), (1, 0, 0, true)]);
    }

    #[actix_rt::test]
    async fn after_90_days_attempts_and_the_entries_of_ended_rows_are_pruned_and_nothing_of_open_ones() {
        let db = three_rows_that_failed().await;
        pruned(&db, noon() + days(89)).await;
        assert_eq!(what_is_left(&db), [(2, 0, 0, false), (1, 0, 1, true), (1, 0, 0, true)]);
        pruned(&db, noon() + days(100)).await;
        assert_eq!(what_is_left(&db), [(0, 0, 0, false), (0, 0, 1, true), (0, 0, 0, false)]);
        pruned(&db, noon() + days(10_000)).await;
        assert_eq!(what_is_left(&db), [(0, 0, 0, false), (0, 0, 1, true), (0, 0, 0, false)]);
    }

    #[actix_rt::test]
    async fn the_steps_of_a_row_that_is_gone_or_submitted_anew_are_pruned() {
        let db = three_rows_that_failed().await;
        db.conn().batch_execute("DELETE FROM claims WHERE id = 1").expect("gone");
        Claim::as_of(noon() + days(20)).submit(&mut db.conn(), 2).expect("submitted");
        pruned(&db, noon() + days(31)).await;
        let left = [1, 2].map(|id| steps(&db, "claims", id).len());
        assert_eq!(left, [0, 0]);
    }

    /// A row is parked after its step and restarted 40 days later, while there is something to prune. Answers
    /// how often its step's call is made.
    async fn calls_of_one_restarted_late<M>(model: &str, restart: impl FnOnce(&mut Conn)) -> usize
    where
        M: Stored<Backend> + Asyncable<Id = i64>,
    {
        let (db, log) = (Db::migrated(DDL), Log::default());
        let (told, mut again) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let (late, calls, open) = (Arc::new(Mutex::new(false)), log.clone(), gate.clone());
        let is_late = late.clone();
        let work = Work::<M, _>::by(async move |_: &M, attempt: &Attempt| {
            let late = *is_late.lock().expect("a flag");
            if late {
                told.send(())?;
                open.acquire().await?.forget();
            }
            let step = attempt.step("establish").run(async |_| {
                calls.tell("call");
                Ok(600)
            });
            step.await?;
            if late { Ok(()) } else { Err(Failure::permanent("refused")) }
        });
        let first = start::<Conn, _>(&db.url(), noon(), work.clone());
        first.send(Submit::<M>::new(1)).await.expect("durable");
        entry_of(&db, model, 1, "permanent").await;
        first.shutdown(SOON).await;
        restart(&mut db.conn());
        *late.lock().expect("a flag") = true;
        db.conn().batch_execute(MARKER).expect("a marker");
        let second = start::<Conn, _>(&db.url(), noon() + days(40), work);
        next(&mut again).await;
        until("it prunes", || (kept(&db, "marker") == 0).then_some(())).await;
        gate.add_permits(1);
        until("its step has a result", || steps(&db, model, 1)[0].result.clone()).await;
        while second.send(GetStatus::<M>::new(1)).await.expect("answered") != Status::Processed {
            tokio::task::yield_now().await;
        }
        second.shutdown(SOON).await;
        log.so_far().len()
    }

    #[actix_rt::test]
    async fn the_steps_of_a_row_restarted_after_40_days_are_kept() {
        let restart = |conn: &mut Conn| assert!(Claim::as_of(noon() + days(40)).restart(conn, 1).expect("asked"));
        assert_eq!(calls_of_one_restarted_late::<Claim>("claims", restart).await, 1);
    }

    #[actix_rt::test]
    async fn so_are_those_of_one_with_one_column_for_when_it_was_submitted_which_the_restart_moves() {
        let restart = |conn: &mut Conn| assert!(Fax::as_of(noon() + days(40)).restart(conn, 1).expect("asked"));
        assert_eq!(calls_of_one_restarted_late::<Fax>("faxes", restart).await, 1);
    }

    #[actix_rt::test]
    async fn steps_are_kept_for_30_days_from_their_rows_end_however_old_they_are() {
        let db = Db::migrated(DDL);
        let work = |outcome: Outcome| {
            Work::by(async move |_: &Claim, attempt: &Attempt| {
                attempt.step("establish").run(async |_| Ok(600)).await?;
                outcome.clone()
            })
        };
        let first = start::<Conn, _>(&db.url(), noon(), work(Err(Failure::permanent("refused"))));
        first.send(Submit::<Claim>::new(1)).await.expect("durable");
        entry_of(&db, "claims", 1, "permanent").await;
        first.shutdown(SOON).await;
        let second = start::<Conn, _>(&db.url(), noon() + days(25), work(Ok(())));
        second.send(Restart::<Claim>::new(1)).await.expect("restarted");
        processed(&db, 1).await;
        second.shutdown(SOON).await;
        pruned(&db, noon() + days(50)).await;
        assert_eq!(steps(&db, "claims", 1).len(), 1);
        pruned(&db, noon() + days(56)).await;
        assert_eq!(steps(&db, "claims", 1).len(), 0);
    }

    fn hosts(db: &Db) -> Vec<String> {
        let hosts = asyncable_hosts::table.select(asyncable_hosts::host).order(asyncable_hosts::host);
        hosts.load(&mut db.conn()).expect("hosts")
    }

    #[actix_rt::test]
    async fn the_tries_of_a_service_that_was_down_are_kept_for_90_days() {
        let db = Db::migrated(DDL);
        let at = |days: i64| format!("'{}'", (noon() + TimeDelta::days(days)).format("%Y-%m-%d %H:%M:%S"));
        let tries = format!(
            "INSERT INTO asyncable_probes (service, at, model, row_id, code) VALUES \
             ('vbms', {}, 'claims', '1', ''), ('vbms', {}, 'claims', '2', '')", at(0), at(2)
        );
        db.conn().batch_execute(&tries).expect("tries");
        let kept = || {
            use asyncable_probes::dsl;
            dsl::asyncable_probes.select(dsl::row_id).load::<String>(&mut db.conn()).expect("tries")
        };
        pruned(&db, noon() + TimeDelta::days(89)).await;
        assert_eq!(kept(), ["1", "2"]);
        pruned(&db, noon() + TimeDelta::days(91)).await;
        assert_eq!(kept(), ["2"]);
    }

    #[actix_rt::test]
    async fn hosts_that_have_not_been_seen_for_a_week_are_pruned_and_those_that_have_been_are_not() {
        let db = Db::migrated(DDL);
        let at = noon() + days(100);
        let seen = |host: String, days_ago: i64| {
            let seen_at = (at - days(days_ago)).format("%Y-%m-%d %H:%M:%S");
            format!("('{host}', 'claims', '', '{seen_at}')")
        };
        // More than a page of those that are gone.
        let gone = (0..1200).map(|n| seen(format!("gone-{n}"), 8));
        let rest = [seen("a-quiet-one".to_owned(), 6), seen("another".to_owned(), 1)];
        let all: Vec<String> = gone.chain(rest).collect();
        let sql = "INSERT INTO asyncable_hosts (host, model, services, seen_at) VALUES ";
        db.conn().batch_execute(&(sql.to_owned() + &all.join(", "))).expect("hosts");
        let idle = Work::by(async move |_: &Claim, _: &Attempt| Ok(()));
        let handle = start::<Conn, _>(&db.url(), at, idle);
        let left = until("those that are gone are pruned, and this one is there", || {
            let left = hosts(&db);
            (left.len() == 3).then_some(left)
        });
        let left = left.await;
        handle.shutdown(SOON).await;
        assert!(["a-quiet-one", "another"].iter().all(|seen| left.iter().any(|host| host == seen)), "{left:?}");
    }

    /// A row `n` for each number up to `count`, in both of the tables that are gone through in pages.
    fn backlog(db: &Db, count: usize) {
        let rows = |row: fn(usize) -> String| (0..count).map(row).collect::<Vec<_>>().join(", ");
        let attempts = rows(|n| {
            format!("('gone', '{n}', '2000-01-01', 1, '', '2000-01-01', '2000-01-01', 'failed', 'x')")
        });
        let steps = rows(|n| format!("('claims', '9{n}', 1, 's', 'k{n}', '2000-01-01', 1, '2000-01-01')"));
        let sql = format!(
            "INSERT INTO asyncable_attempts (model, row_id, attempted_at, number, host, started_at, \
             ended_at, outcome, error) VALUES {attempts}; \
             INSERT INTO asyncable_steps (model, row_id, generation, name, key, attempted_at, tries, \
             find_after) VALUES {steps};"
        );
        db.conn().batch_execute(&sql).expect("a backlog");
    }

    #[actix_rt::test]
    async fn two_hosts_with_a_backlog_prune_all_of_it_at_once_and_without_an_error() {
        Failures::keep();
        let db = Db::migrated(DDL);
        backlog(&db, 2600);
        let hosts = [0, 1].map(|_| {
            let idle = Work::by(async move |_: &Claim, _: &Attempt| Ok(()));
            start::<Conn, _>(&db.url(), noon() + days(100), idle)
        });
        let steps = || -> i64 {
            asyncable_steps::table.count().get_result(&mut db.conn()).expect("a count")
        };
        // Several pages within a minute: one that is full is not followed by a minute's rest.
        until("all of it is pruned", || (kept(&db, "gone") == 0 && steps() == 0).then_some(())).await;
        for host in hosts {
            host.shutdown(SOON).await;
        }
        assert_eq!(*FAILURES.lock().expect("failures"), [] as [String; 0]);
    }
}
