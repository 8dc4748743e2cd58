//! A supervisor on a real database: rows are processed, retried, parked, restarted and survive crashes.

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use asyncable::{
    Asyncable, Attempt, Cancel, Canceled, Clock, Columns, Failure, Handle, Outcome, Processor,
    RequestError, Restart, RetryPolicy, StartError, Status, StoreConnection, Submit, SubmitAll,
    Supervisor, Sweep, columns,
};
use chrono::{DateTime, TimeZone, Utc};
use diesel::{connection::SimpleConnection, prelude::*};
use tokio::sync::mpsc;

use support::on_each_backend;

mod schema {
    diesel::table! {
        letters (id) {
            id -> BigInt,
            text -> Text,
            submitted_at -> Nullable<Timestamp>,
            last_submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            canceled_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::letters;

const DDL: &str = "CREATE TABLE letters (id {key}, text TEXT NOT NULL, submitted_at TIMESTAMP, \
    last_submitted_at TIMESTAMP, attempted_at TIMESTAMP, processed_at TIMESTAMP, \
    canceled_at TIMESTAMP, error TEXT); \
    CREATE INDEX letters_work ON letters (attempted_at, last_submitted_at) \
    WHERE processed_at IS NULL AND canceled_at IS NULL; \
    INSERT INTO letters (text) VALUES ('ok'), ('ok'), ('ok');";

#[derive(Queryable, Selectable, Identifiable)]
struct Letter {
    id: i64,
    text: String,
}

impl Asyncable for Letter {
    type Id = i64;
    const COLUMNS: Columns<letters::table> =
        columns!(letters, last_submitted_at = last_submitted_at, canceled_at = canceled_at);
}

/// What a test's rows did: (id, attempt number, idempotency key).
type Seen = (i64, u32, String);

/// Does what the row's text says.
#[derive(Clone)]
struct Post {
    seen: mpsc::UnboundedSender<Seen>,
    gate: Arc<tokio::sync::Semaphore>,
}

impl Processor for Post {
    type Model = Letter;

    async fn process(&self, letter: &Letter, attempt: &Attempt) -> Outcome {
        let key = attempt.idempotency_key().to_string();
        let _ = self.seen.send((letter.id, attempt.number(), key)); // the test may have ended
        match letter.text.as_str() {
            "ok" => Ok(()),
            "fail once" if attempt.number() > 1 => Ok(()),
            "refused" => Err(Failure::permanent("file 123 is not known").with_code("post.refused")),
            "panic" => panic!("the host's code is wrong"),
            "long" => Err(Failure::transient("a\0b".repeat(1 << 19))),
            "wait" => {
                let _permit = self.gate.acquire().await?;
                Ok(())
            }
            _ => Err(Failure::retry_after(Duration::from_secs(60), "busy").with_code("post.busy")),
        }
    }
}

struct Host {
    handle: Handle,
    seen: mpsc::UnboundedReceiver<Seen>,
    gate: Arc<tokio::sync::Semaphore>,
}

impl Host {
    /// A supervisor whose clock runs a thousand times as fast.
    fn start<C>(url: String) -> Host
    where
        C: StoreConnection,
        Letter: asyncable::Stored<C::Backend>,
    {
        let (sender, seen) = mpsc::unbounded_channel();
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let post = Post { seen: sender, gate: gate.clone() };
        let handle = Supervisor::<C>::new(url)
            .clock(Clock::fast(1000.0, began()))
            .sweep_every(Duration::from_millis(20))
            .lease_for(Duration::from_secs(1))
            .processor(post)
            .start()
            .expect("it starts");
        Host { handle, seen, gate }
    }

    async fn next(&mut self) -> Seen {
        let next = tokio::time::timeout(Duration::from_secs(60), self.seen.recv());
        next.await.expect("an attempt within a minute").expect("a processor")
    }
}

fn began() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 1, 1, 12, 0, 0).single().expect("an instant")
}

on_each_backend! {
    fn db_with(text: &str) -> Db {
        let db = Db::migrated(DDL);
        diesel::update(letters::table).set(letters::text.eq(text)).execute(&mut db.conn()).expect("texts");
        db
    }

    fn status(db: &Db, id: i64) -> (Status, Option<String>) {
        let row = letters::table.find(id).select((Letter::status().at(began()), letters::error));
        row.first(&mut db.conn()).expect("a row")
    }

    #[actix_rt::test]
    async fn a_submitted_row_is_processed_and_its_error_cleared() {
        let db = db_with("fail");
        let conn = &mut db.conn();
        diesel::update(letters::table).set((letters::text.eq("ok"), letters::error.eq("old"))).execute(conn).expect("set");
        let mut host = Host::start::<Conn>(db.url());
        host.handle.send(Submit::<Letter>::new(1)).await.expect("durable");
        assert_eq!(host.next().await.0, 1);
        host.handle.shutdown(Duration::from_secs(10)).await;
        assert_eq!(status(&db, 1), (Status::Processed, None));
    }

    #[actix_rt::test]
    async fn a_row_submitted_in_the_hosts_own_transaction_is_found_by_the_sweep() {
        let db = db_with("ok");
        let mut host = Host::start::<Conn>(db.url());
        let conn = &mut db.conn();
        conn.transaction(|conn| Letter::as_of(began()).submit(conn, 2)).expect("submitted");
        assert_eq!(host.next().await.0, 2);
        host.handle.shutdown(Duration::from_secs(10)).await;
        assert_eq!(status(&db, 2), (Status::Processed, None));
    }

    #[actix_rt::test]
    async fn a_failed_row_is_tried_again_under_the_same_key_and_counted() {
        let db = db_with("fail once");
        let mut host = Host::start::<Conn>(db.url());
        host.handle.send(Submit::<Letter>::new(1)).await.expect("durable");
        let (first, second) = (host.next().await, host.next().await);
        assert_eq!((first.1, second.1), (1, 2));
        assert_eq!(first.2, second.2);
        host.handle.shutdown(Duration::from_secs(10)).await;
        assert_eq!(status(&db, 1), (Status::Processed, None));
    }

    #[actix_rt::test]
    async fn a_refused_row_is_parked_until_it_is_restarted_and_keeps_its_key() {
        let db = db_with("refused");
        let mut host = Host::start::<Conn>(db.url());
        host.handle.send(Submit::<Letter>::new(1)).await.expect("durable");
        let first = host.next().await;
        host.handle.addr().send(Sweep).await.expect("swept");
        while status(&db, 1).1.is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(status(&db, 1).1.as_deref(), Some("post.refused file 123 is not known"));
        let parked: Vec<i64> = letters::table.filter(Letter::parked()).select(letters::id).load(&mut db.conn()).expect("parked");
        assert_eq!(parked, [1]);
        diesel::update(letters::table.find(1)).set(letters::text.eq("ok")).execute(&mut db.conn()).expect("mended");
        let restarted = host.handle.send(Restart::<Letter>::new(1)).await.expect("restarted");
        assert_eq!((restarted.restarted, restarted.left_alone, restarted.not_found), (1, 0, 0));
        assert_eq!(host.next().await, (1, 1, first.2));
        host.handle.shutdown(Duration::from_secs(10)).await;
        assert_eq!(status(&db, 1), (Status::Processed, None));
    }

    #[actix_rt::test]
    async fn panics_and_huge_errors_fail_their_own_row_and_stop_no_other() {
        let db = db_with("ok");
        let conn = &mut db.conn();
        diesel::update(letters::table.find(1)).set(letters::text.eq("panic")).execute(conn).expect("set");
        diesel::update(letters::table.find(2)).set(letters::text.eq("long")).execute(conn).expect("set");
        let mut host = Host::start::<Conn>(db.url());
        host.handle.send(SubmitAll::<Letter>::new([1, 2, 3])).await.expect("durable");
        let mut seen = [host.next().await.0, host.next().await.0, host.next().await.0];
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3]);
        host.handle.shutdown(Duration::from_secs(10)).await;
        assert_eq!(status(&db, 1).1.as_deref(), Some("panic the host's code panicked"));
        assert_eq!(status(&db, 2).1.map(|error| error.len()), Some(16 * 1024));
        assert_eq!(status(&db, 3), (Status::Processed, None));
    }

    #[actix_rt::test]
    async fn a_graceful_stop_gives_a_running_row_back_and_costs_no_attempt() {
        let db = db_with("wait");
        let mut host = Host::start::<Conn>(db.url());
        host.handle.send(Submit::<Letter>::new(1)).await.expect("durable");
        host.next().await;
        host.handle.shutdown(Duration::ZERO).await;
        assert_eq!(status(&db, 1), (Status::Submitted, None));
        let mut second = Host::start::<Conn>(db.url());
        assert_eq!(second.next().await.1, 1);
        second.gate.add_permits(1);
        second.handle.shutdown(Duration::from_secs(10)).await;
        assert_eq!(status(&db, 1), (Status::Processed, None));
    }

    #[actix_rt::test]
    async fn a_cancel_wins_over_a_running_attempt_and_a_processed_row_refuses_it() {
        let db = db_with("wait");
        let mut host = Host::start::<Conn>(db.url());
        host.handle.send(SubmitAll::<Letter>::new([1, 2])).await.expect("durable");
        host.next().await;
        host.next().await;
        let canceled = host.handle.send(Cancel::<Letter>::new(1)).await.expect("canceled");
        assert_eq!(canceled, Canceled::Done);
        host.gate.add_permits(2);
        host.handle.shutdown(Duration::from_secs(10)).await;
        assert_eq!(status(&db, 1).0, Status::Canceled);
        assert_eq!(status(&db, 2).0, Status::Processed);
        assert!(!Letter::cancel(&mut db.conn(), 2).expect("asked"));
    }

    #[actix_rt::test]
    async fn a_newer_submission_wins_over_a_running_attempt_and_gets_a_new_key() {
        let db = db_with("wait");
        let mut host = Host::start::<Conn>(db.url());
        host.handle.send(Submit::<Letter>::new(1)).await.expect("durable");
        let first = host.next().await;
        host.handle.send(Submit::<Letter>::new(1)).await.expect("durable");
        host.gate.add_permits(1);
        let second = host.next().await;
        assert_eq!((second.0, second.1), (1, 1));
        assert_ne!(first.2, second.2);
        host.gate.add_permits(1);
        host.handle.shutdown(Duration::from_secs(10)).await;
        assert_eq!(status(&db, 1).0, Status::Processed);
    }

    #[actix_rt::test]
    async fn rows_of_a_host_that_died_are_rescued_when_their_lease_lapses() {
        let db = db_with("ok");
        let conn = &mut db.conn();
        Letter::as_of(began()).submit(conn, 1).expect("submitted");
        // What a killed host leaves behind: a claimed row and a lease nobody renews.
        conn.batch_execute(
            "UPDATE letters SET attempted_at = '2026-01-01 12:00:00.000001' WHERE id = 1; \
             INSERT INTO asyncable_claims VALUES \
             ('letters', '2026-01-01 12:00:00.000001', 'dead', '2026-01-01 12:00:01');",
        )
        .expect("left behind");
        let mut host = Host::start::<Conn>(db.url());
        // A loss counts as a failed attempt.
        let seen = host.next().await;
        assert_eq!((seen.0, seen.1), (1, 2));
        host.handle.shutdown(Duration::from_secs(10)).await;
        assert_eq!(status(&db, 1), (Status::Processed, None));
    }

    #[actix_rt::test]
    async fn an_attempt_that_nobody_owns_is_found_behind_thousands_of_parked_rows() {
        let db = Db::migrated(DDL);
        // All attempted at one instant, five hours ago, as the library's batches and foreign workers do.
        let rows = "INSERT INTO letters (text, submitted_at, last_submitted_at, attempted_at) \
            SELECT 'ok', '2026-01-01 06:00:00', '2026-01-01 06:00:00', '2026-01-01 07:00:00' FROM \
            (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) SELECT i FROM n) t; \
            INSERT INTO asyncable_retries (model, row_id, attempted_at, last_submitted_at, submitted_at, \
            kind, code, failures, first_failed_at, last_failed_at) \
            SELECT 'letters', CAST(id AS TEXT), attempted_at, last_submitted_at, submitted_at, \
            'permanent', 'io', 1, attempted_at, attempted_at FROM letters WHERE id > 3 AND id < 2503;";
        db.conn().batch_execute(rows).expect("rows");
        let mut host = Host::start::<Conn>(db.url());
        assert_eq!(host.next().await.0, 2503);
        host.handle.shutdown(Duration::from_secs(10)).await;
        let processed = letters::table.filter(letters::processed_at.is_not_null());
        assert_eq!(processed.select(letters::id).load::<i64>(&mut db.conn()).expect("ids"), [2503]);
    }

    #[actix_rt::test]
    async fn two_supervisors_on_one_database_run_each_row_once() {
        let db = Db::migrated(DDL);
        let conn = &mut db.conn();
        for _ in 0..300 {
            diesel::insert_into(letters::table)
                .values((letters::text.eq("ok"), letters::submitted_at.eq(began().naive_utc()),
                    letters::last_submitted_at.eq(began().naive_utc())))
                .execute(conn)
                .expect("a row");
        }
        let (mut one, mut two) = (Host::start::<Conn>(db.url()), Host::start::<Conn>(db.url()));
        let mut seen = Vec::new();
        while seen.len() < 300 {
            let next = async { tokio::select! { a = one.seen.recv() => a, b = two.seen.recv() => b } };
            let next = tokio::time::timeout(Duration::from_secs(60), next).await;
            seen.push(next.expect("within a minute").expect("a processor").0);
        }
        one.handle.shutdown(Duration::from_secs(10)).await;
        two.handle.shutdown(Duration::from_secs(10)).await;
        seen.extend(std::iter::from_fn(|| one.seen.try_recv().ok()).map(|seen| seen.0));
        seen.extend(std::iter::from_fn(|| two.seen.try_recv().ok()).map(|seen| seen.0));
        seen.sort_unstable();
        assert_eq!(seen, (4..=303).collect::<Vec<i64>>());
        let open: i64 = letters::table.filter(letters::id.gt(3)).filter(letters::processed_at.is_null()).count().get_result(conn).expect("a count");
        assert_eq!(open, 0);
    }

    #[actix_rt::test]
    async fn ids_and_models_that_are_not_there_are_typed_errors() {
        let db = db_with("ok");
        let host = Host::start::<Conn>(db.url());
        let missing = host.handle.send(Submit::<Letter>::new(99)).await.expect_err("no such row");
        assert!(matches!(missing, RequestError::NotFound { model: "letters", id } if id == "99"));
        let missing = host.handle.send(Cancel::<Letter>::new(99)).await.expect_err("no such row");
        assert!(matches!(missing, RequestError::NotFound { .. }));
        let restarted = host.handle.send(Restart::<Letter>::new(99)).await.expect("an answer");
        assert_eq!(restarted.not_found, 1);
        let unknown = host.handle.send(Submit::<Other>::new(1)).await.expect_err("no processor");
        assert!(matches!(unknown, RequestError::NotRegistered("others")));
        host.handle.shutdown(Duration::ZERO).await;
    }

    #[test]
    fn start_names_what_it_refuses() {
        let (sender, _) = mpsc::unbounded_channel();
        let post = Post { seen: sender, gate: Arc::new(tokio::sync::Semaphore::new(0)) };
        let start = |url: String, timeout: u64| {
            Supervisor::<Conn>::new(url)
                .processor(post.clone())
                .timeout::<Post>(Duration::from_secs(timeout))
                .start()
                .map(drop)
        };
        let empty = Db::empty();
        assert!(matches!(start(empty.url(), 60), Err(StartError::Migrations(_))));
        let db = Db::migrated("CREATE TABLE letters (id {key}, text TEXT);");
        assert!(matches!(start(db.url(), 60), Err(StartError::Columns { model: "letters", .. })));
        let too_long = start(db.url(), 3 * 3600);
        assert!(matches!(too_long, Err(StartError::Setting { model: "letters", .. })));
        assert!(matches!(start("/no/such/folder/app.db".to_owned(), 60), Err(StartError::Connect(_))));
    }

    pub(super) fn refused(ddl: &str, at_once: usize) -> String {
        let (sender, _) = mpsc::unbounded_channel();
        let post = Post { seen: sender, gate: Arc::new(tokio::sync::Semaphore::new(0)) };
        let db = Db::migrated(ddl);
        let started = Supervisor::<Conn>::new(db.url()).processor(post).at_once::<Post>(at_once).start();
        started.map(drop).expect_err("refused").to_string()
    }

    #[test]
    fn start_names_a_column_that_cannot_hold_what_it_is_to_hold() {
        let ddl = DDL.replace("attempted_at TIMESTAMP", "attempted_at TIMESTAMP NOT NULL DEFAULT '2026-01-01'");
        assert_eq!(refused(&ddl, 1), "the column attempted_at of letters is NOT NULL; it must be nullable");
        assert_eq!(refused(DDL, 0), "AT_ONCE of letters is 0; it must be at least 1");
    }
}

#[cfg(feature = "postgres")]
#[test]
fn columns_that_keep_less_than_the_library_needs_are_refused_by_name() {
    let refused = |from: &str, to: &str| postgres::refused(&DDL.replace(from, to), 1);
    let needed = "it must be an instant to the microsecond, as its `table!` says";
    assert_eq!(
        refused(" attempted_at TIMESTAMP", " attempted_at TIMESTAMP(0)"),
        format!("the column attempted_at of letters is timestamp(0) without time zone; {needed}")
    );
    assert_eq!(
        refused("canceled_at TIMESTAMP", "canceled_at TIMESTAMPTZ"),
        format!("the column canceled_at of letters is timestamp with time zone; {needed}")
    );
}

#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = letters)]
struct Other {
    id: i64,
}

impl Asyncable for Other {
    type Id = i64;
    const COLUMNS: Columns<letters::table> = columns!(letters).name("others");
    const POLICY: RetryPolicy = RetryPolicy::DEFAULT;
}

#[cfg(feature = "sqlite")]
#[test]
fn a_memory_database_is_refused_since_each_connection_would_have_its_own() {
    let memory = Supervisor::<diesel::SqliteConnection>::new(":memory:").start().map(drop);
    assert!(matches!(memory, Err(StartError::Private)));
}

#[test]
fn a_handle_goes_to_any_thread() {
    fn sendable<T: Send + Sync + Clone + 'static>() {}
    sendable::<Handle>();
    let _shared: Option<Arc<Mutex<Handle>>> = None;
}
