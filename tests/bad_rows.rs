//! Rows that other programs, or the host's own constraints, have made odd: they never stop the others.

#[path = "support/records.rs"]
mod records;
mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use asyncable::{
    Asyncable, Attempt, Columns, Event, Failure, Handle, Outcome, Processor, SubmitAll, Supervisor,
    columns,
};
use chrono::{TimeDelta, Utc};
use diesel::{connection::SimpleConnection, prelude::*};

use records::Records;
use support::on_each_backend;

mod schema {
    diesel::table! {
        asyncable_attempts (model, row_id, attempted_at) {
            model -> Text,
            row_id -> Text,
            attempted_at -> Timestamp,
            outcome -> Text,
        }
    }
    diesel::table! {
        letters (id) {
            id -> BigInt,
            text -> Text,
            submitted_at -> Nullable<Timestamp>,
            last_submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::{asyncable_attempts, letters};

/// The host's table, with a constraint of the host's.
fn ddl(constraint: &str) -> String {
    format!(
        "CREATE TABLE letters (id {{key}}, text TEXT, submitted_at TIMESTAMP, \
         last_submitted_at TIMESTAMP, attempted_at TIMESTAMP, processed_at TIMESTAMP, \
         error TEXT{constraint}); \
         CREATE INDEX letters_work ON letters (attempted_at, last_submitted_at) \
         WHERE processed_at IS NULL;"
    )
}

#[derive(Queryable, Selectable, Identifiable)]
struct Letter {
    id: i64,
    text: String,
}

impl Asyncable for Letter {
    type Id = i64;
    const COLUMNS: Columns<letters::table> =
        columns!(letters, last_submitted_at = last_submitted_at);
}

on_each_backend! {
    /// Does what the row's text says.
    #[derive(Clone)]
    struct Post;

    impl Processor for Post {
        type Model = Letter;

        async fn process(&self, letter: &Letter, attempt: &Attempt) -> Outcome {
            let id = letter.id;
            match letter.text.as_str() {
                "fail once" if attempt.number() == 1 => {
                    Err(Failure::retry_after(Duration::from_secs(1), "busy").with_code("post.busy"))
                }
                "fail" => Err(Failure::transient("busy ".repeat(100)).with_code("post.busy")),
                "ok, and write" => {
                    attempt.when_done(move |conn: &mut Conn| {
                        let row = diesel::update(letters::table.find(id));
                        row.set(letters::text.eq("written")).execute(conn).map(drop)
                    });
                    Ok(())
                }
                _ => Ok(()),
            }
        }
    }

    pub(super) struct Host {
        pub(super) handle: Handle,
        pub(super) events: Arc<Mutex<Vec<String>>>,
    }

    impl Host {
        pub(super) fn start(url: String) -> Host {
            let events = Arc::new(Mutex::new(Vec::new()));
            let heard = events.clone();
            let handle = Supervisor::<Conn>::new(url)
                .sweep_every(Duration::from_millis(50))
                .on_event(move |event: &Event| {
                    let said = match event {
                        Event::AttemptFailed { id, failure, .. } => format!("{id} {}", failure.code()),
                        other => format!("{other:?}"),
                    };
                    heard.lock().expect("events").push(said);
                })
                .processor(Post)
                .start()
                .expect("it starts");
            Host { handle, events }
        }

        /// Stops it, and answers what it told.
        pub(super) async fn stop(self) -> Vec<String> {
            self.handle.shutdown(Duration::from_secs(10)).await;
            let mut events = self.events.lock().expect("events").clone();
            events.sort();
            events
        }
    }

    pub(super) fn insert(conn: &mut Conn, texts: &[&str]) {
        let submitted = (Utc::now() - TimeDelta::minutes(1)).naive_utc();
        for text in texts {
            diesel::insert_into(letters::table)
                .values((letters::text.eq(text), letters::submitted_at.eq(submitted), letters::last_submitted_at.eq(submitted)))
                .execute(conn)
                .expect("a row");
        }
    }

    pub(super) async fn until(what: &str, mut so: impl FnMut() -> bool) {
        let mut look = actix_rt::time::interval(Duration::from_millis(20));
        let so = async {
            while !so() {
                look.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), so).await.unwrap_or_else(|_| panic!("{what}"));
    }

    pub(super) fn processed(conn: &mut Conn) -> Vec<i64> {
        let ids = letters::table.filter(Letter::processed()).select(letters::id).order(letters::id);
        ids.load(conn).expect("ids")
    }

    pub(super) fn errors(conn: &mut Conn) -> Vec<(i64, String)> {
        let errors = letters::table.filter(letters::error.is_not_null()).order(letters::id);
        errors.select((letters::id, letters::error.assume_not_null())).load(conn).expect("errors")
    }

    fn failing(conn: &mut Conn) -> Vec<i64> {
        let failing = letters::table.filter(Letter::failing()).select(letters::id);
        failing.order(letters::id).load(conn).expect("ids")
    }

    #[actix_rt::test]
    async fn an_error_text_that_the_hosts_column_refuses_is_kept_as_its_code() {
        let db = Db::migrated(&ddl(", CHECK (length(error) <= 100)"));
        let conn = &mut db.conn();
        insert(conn, &["ok", "fail", "ok, and write", "ok"]);
        let host = Host::start(db.url());
        until("the others are processed", || processed(conn) == [1, 3, 4]).await;
        until("the failure is recorded", || !errors(conn).is_empty()).await;
        assert_eq!(host.stop().await, ["2 post.busy"]);
        assert_eq!(errors(conn), [(2, "post.busy".to_owned())]);
        assert_eq!(failing(conn), [2]);
    }

    #[actix_rt::test]
    async fn a_row_that_takes_no_error_at_all_stops_no_other_waits_like_another_and_is_logged() {
        let records = Records::keep().await;
        let db = Db::migrated(&ddl(", CONSTRAINT no_errors CHECK (error IS NULL)"));
        let conn = &mut db.conn();
        insert(conn, &["ok", "fail", "ok, and write", "ok"]);
        let host = Host::start(db.url());
        until("the others are processed", || processed(conn) == [1, 3, 4]).await;
        until("the failure is recorded", || failing(conn) == [2]).await;
        let told = host.stop().await;
        assert_eq!(told, ["2 post.busy"]);
        let outcomes: Vec<(String, String)> = asyncable_attempts::table
            .select((asyncable_attempts::row_id, asyncable_attempts::outcome))
            .load(conn)
            .expect("attempts");
        assert_eq!(outcomes, [("2".to_owned(), "failed".to_owned())]);
        let refused = records.so_far().into_iter().filter(|(_, text)| text.contains("no_errors"));
        let refused: Vec<String> = refused.map(|(level, text)| format!("{level} {text}")).collect();
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].starts_with("ERROR the outcome of letters 2 was refused"), "{refused:?}");
    }

    #[actix_rt::test]
    async fn a_row_that_may_not_be_attempted_stops_no_other() {
        let records = Records::keep().await;
        let db = Db::migrated(&ddl(", CONSTRAINT untouchable CHECK (attempted_at IS NULL OR id NOT IN (1, 3))"));
        let conn = &mut db.conn();
        insert(conn, &["ok", "ok", "ok, and write", "fail once", "ok"]);
        let host = Host::start(db.url());
        until("the others are processed", || processed(conn) == [2, 4, 5]).await;
        host.stop().await;
        let refused = records.so_far().into_iter().filter(|(_, text)| text.contains("untouchable"));
        assert!(refused.count() >= 1);
    }

    #[actix_rt::test]
    async fn a_row_that_may_not_be_attempted_again_stops_no_other_and_is_tried_when_it_is_restarted() {
        let records = Records::keep().await;
        let db = Db::migrated(&ddl(", CONSTRAINT untouchable CHECK (attempted_at IS NULL OR text <> 'locked')"));
        let conn = &mut db.conn();
        insert(conn, &["fail once", "fail once", "fail once"]);
        let host = Host::start(db.url());
        until("all have failed", || failing(conn).len() == 3).await;
        // The constraint of a database that keeps it to new writes; here the row is changed around it.
        let around = match BACKEND {
            "SQLite" => "PRAGMA ignore_check_constraints = ON; UPDATE letters SET text = 'locked' WHERE id = 2; \
                         PRAGMA ignore_check_constraints = OFF;",
            _ => "ALTER TABLE letters DROP CONSTRAINT untouchable; UPDATE letters SET text = 'locked' WHERE id = 2; \
                  ALTER TABLE letters ADD CONSTRAINT untouchable CHECK (attempted_at IS NULL OR text <> 'locked') NOT VALID",
        };
        conn.batch_execute(around).expect("a row that may not be written");
        until("the others are processed", || processed(conn) == [1, 3]).await;
        until("it is logged", || records.so_far().iter().any(|(_, text)| text.contains("untouchable"))).await;
        conn.batch_execute(&around.replace("'locked' WHERE", "'ok' WHERE")).expect("mended");
        host.handle.send(asyncable::Restart::<Letter>::new(2)).await.expect("restarted");
        until("it is processed", || processed(conn) == [1, 2, 3]).await;
        host.stop().await;
    }

    #[actix_rt::test]
    async fn an_attempt_that_nobody_owns_and_that_may_not_be_written_hides_no_other() {
        let db = Db::migrated(&ddl(""));
        let conn = &mut db.conn();
        let ago = |hours| format!("'{}'", (Utc::now() - TimeDelta::hours(hours)).format("%Y-%m-%d %H:%M:%S%.6f"));
        for text in ["ok", "untouchable", "ok"] {
            let sql = format!(
                "INSERT INTO letters (text, submitted_at, last_submitted_at, attempted_at) \
                 VALUES ('{text}', {submitted}, {submitted}, {attempted})",
                submitted = ago(7),
                attempted = ago(6)
            );
            conn.batch_execute(&sql).expect("a foreign attempt");
        }
        let trigger = match BACKEND {
            "SQLite" => "CREATE TRIGGER guard BEFORE UPDATE ON letters WHEN old.text = 'untouchable' \
                         BEGIN SELECT RAISE(ABORT, 'not this one'); END",
            _ => "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
                  $$ BEGIN RAISE EXCEPTION 'not this one'; END $$; \
                  CREATE TRIGGER guard BEFORE UPDATE ON letters FOR EACH ROW \
                  WHEN (old.text = 'untouchable') EXECUTE FUNCTION refuse()",
        };
        conn.batch_execute(trigger).expect("a trigger of the host's");
        let host = Host::start(db.url());
        until("the others are processed", || processed(conn) == [1, 3]).await;
        host.stop().await;
    }

    #[actix_rt::test]
    async fn a_row_that_may_not_be_processed_stops_no_other() {
        let db = Db::migrated(&ddl(", CHECK (processed_at IS NULL OR id NOT IN (2, 4))"));
        let conn = &mut db.conn();
        insert(conn, &["ok", "ok", "ok, and write", "ok, and write", "ok"]);
        let host = Host::start(db.url());
        until("the others are processed", || processed(conn) == [1, 3, 5]).await;
        until("the refusals are recorded", || errors(conn).len() == 2).await;
        assert_eq!(host.stop().await, ["2 refused", "4 refused"]);
        for (id, error) in errors(conn) {
            assert!(error.starts_with("refused "), "{id}: {error}");
        }
    }

    #[actix_rt::test]
    async fn a_row_that_the_model_cannot_hold_fails_alone() {
        let db = Db::migrated(&ddl(""));
        let conn = &mut db.conn();
        insert(conn, &["ok", "ok", "ok"]);
        conn.batch_execute("UPDATE letters SET text = NULL WHERE id = 2").expect("a row without text");
        let host = Host::start(db.url());
        until("the others are processed", || processed(conn) == [1, 3]).await;
        until("it is recorded", || !errors(conn).is_empty()).await;
        assert_eq!(host.stop().await, ["2 row_unreadable"]);
        assert!(errors(conn)[0].1.starts_with("row_unreadable "));
    }
}

/// Instants as other programs write them: SQLite's columns take anything.
#[cfg(feature = "sqlite")]
mod instants_of_other_programs {
    use super::{sqlite::*, support::TestDb, *};
    use diesel::SqliteConnection;

    /// A row whose instants are these, in SQL: submitted, last submitted, attempted.
    fn insert_spelled(conn: &mut SqliteConnection, text: &str, instants: [&str; 3]) {
        let row =
            "INSERT INTO letters (text, submitted_at, last_submitted_at, attempted_at) VALUES";
        let instants = instants.join(", ");
        conn.batch_execute(&format!("{row} ('{text}', {instants})")).expect("a row");
    }

    #[actix_rt::test]
    async fn rows_submitted_in_any_spelling_of_an_instant_are_tried_and_tried_again() {
        let db = TestDb::<SqliteConnection>::migrated(&ddl(""));
        let conn = &mut db.conn();
        let at = Utc::now() - TimeDelta::minutes(10);
        let zone = chrono::FixedOffset::east_opt(2 * 3600).expect("a zone");
        let spelled: Vec<String> = [
            "%Y-%m-%d %H:%M:%S%.6f",
            "%Y-%m-%d %H:%M:%S%.3f",
            "%Y-%m-%d %H:%M:%S",
            "%Y-%m-%d %H:%M",
            "%Y-%m-%dT%H:%M:%S%.6f",
            "%Y-%m-%dT%H:%M:%S%.3fZ",
            "%Y-%m-%dT%H:%M:%SZ",
            "%Y-%m-%dT%H:%M",
            "%Y-%m-%d %H:%M:%S%.3f+00:00",
        ]
        .iter()
        .map(|format| format!("'{}'", at.format(format)))
        .chain([format!("'{}'", at.with_timezone(&zone).format("%Y-%m-%dT%H:%M:%S%:z"))])
        .collect();
        for instant in &spelled {
            insert_spelled(conn, "fail once", [instant, instant, "NULL"]);
        }
        let host = Host::start(db.url());
        let all: Vec<i64> = (1..=spelled.len() as i64).collect();
        until("all are processed", || processed(conn) == all).await;
        let mut failed: Vec<String> = all.iter().map(|id| format!("{id} post.busy")).collect();
        failed.sort();
        assert_eq!(host.stop().await, failed);
    }

    const GARBAGE: [&str; 7] = [
        "'soon'",
        "''",
        "1767268800",
        "1767268800000",
        "2461041.5",
        "x'00ff'",
        "'2026-13-45 99:99:99'",
    ];

    #[actix_rt::test]
    async fn what_is_no_instant_stops_no_other_row_and_is_mended_by_submitting_it() {
        let db = TestDb::<SqliteConnection>::migrated(&ddl(""));
        let conn = &mut db.conn();
        let now = "datetime('now')";
        for instant in GARBAGE {
            insert_spelled(conn, "ok", [instant, instant, "NULL"]);
            insert_spelled(conn, "ok", [now, now, instant]);
        }
        // These can be worked on: nothing but a key is made of `submitted_at`.
        for instant in GARBAGE {
            insert_spelled(conn, "ok", [instant, now, "NULL"]);
        }
        super::sqlite::insert(conn, &["ok", "fail", "ok"]);
        let bad = 2 * GARBAGE.len() as i64;
        let failing = bad + GARBAGE.len() as i64 + 2;
        let without =
            |ids: std::ops::RangeInclusive<i64>| ids.filter(|id| *id != failing).collect();
        let good: Vec<i64> = without(bad + 1..=failing + 1);
        let host = Host::start(db.url());
        until("the good ones are processed", || processed(conn) == good).await;
        until("the failure is recorded", || !errors(conn).is_empty()).await;
        host.handle.send(SubmitAll::<Letter>::new(1..=bad)).await.expect("durable");
        let all: Vec<i64> = without(1..=failing + 1);
        until("all but the failing one are processed", || processed(conn) == all).await;
        assert_eq!(host.stop().await, [format!("{failing} post.busy")]);
    }
}
