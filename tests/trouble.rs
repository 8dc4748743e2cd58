//! What goes wrong around a supervisor: killed processes, a database that goes away, locks held elsewhere.

mod support;

use std::{
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use asyncable::{
    Asyncable, Attempt, Clock, Columns, Event, Outcome, Processor, Status, Supervisor, columns,
};
use chrono::{TimeDelta, Utc};
use diesel::{connection::SimpleConnection, prelude::*};
use tokio::sync::mpsc;

use support::on_each_backend;

mod schema {
    diesel::table! {
        parcels (id) {
            id -> BigInt,
            runs -> BigInt,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::parcels;

const DDL: &str = "CREATE TABLE parcels (id {key}, runs BIGINT NOT NULL DEFAULT 0, \
    submitted_at TIMESTAMP, attempted_at TIMESTAMP, processed_at TIMESTAMP, error TEXT); \
    CREATE INDEX parcels_work ON parcels (attempted_at, submitted_at) WHERE processed_at IS NULL;";

#[derive(Queryable, Selectable, Identifiable)]
struct Parcel {
    id: i64,
}

impl Asyncable for Parcel {
    type Id = i64;
    const COLUMNS: Columns<parcels::table> = columns!(parcels);
}

/// Set in a child process: the database it works on.
const CHILD: &str = "ASYNCABLE_TEST_CHILD";

on_each_backend! {
    /// Counts its runs in the transaction that settles the row.
    #[derive(Clone)]
    struct Deliver(mpsc::UnboundedSender<i64>);

    impl Processor for Deliver {
        type Model = Parcel;

        async fn process(&self, parcel: &Parcel, attempt: &Attempt) -> Outcome {
            let id = parcel.id;
            attempt.when_done(move |conn: &mut Conn| {
                let row = diesel::update(parcels::table.find(id));
                row.set(parcels::runs.eq(parcels::runs + 1)).execute(conn).map(drop)
            });
            let _ = self.0.send(id); // the test may have ended
            tokio::task::yield_now().await;
            Ok(())
        }
    }

    fn insert(db: &Db, count: usize) {
        let conn = &mut db.conn();
        // Clocks of the test and of the database need not agree to the microsecond.
        let submitted = parcels::submitted_at.eq((Utc::now() - TimeDelta::minutes(1)).naive_utc());
        conn.transaction(|conn| {
            (0..count).try_for_each(|_| {
                diesel::insert_into(parcels::table).values(submitted).execute(conn).map(drop)
            })
        })
        .expect("rows");
    }

    fn open_rows(db: &Db) -> i64 {
        let open = parcels::table.filter(parcels::processed_at.is_null()).count();
        open.get_result(&mut db.conn()).expect("a count")
    }

    fn supervisor(url: String) -> (Supervisor<Conn>, mpsc::UnboundedReceiver<i64>) {
        let (sender, delivered) = mpsc::unbounded_channel();
        let supervisor = Supervisor::<Conn>::new(url)
            .sweep_every(Duration::from_millis(50))
            .lease_for(Duration::from_secs(1))
            .processor(Deliver(sender));
        (supervisor, delivered)
    }

    async fn drained(db: &Db) {
        let mut look = actix_rt::time::interval(Duration::from_millis(50));
        let all = async {
            while open_rows(db) > 0 {
                look.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), all).await.expect("drained in two minutes");
    }

    /// Not a test of its own: what the killed child runs.
    #[actix_rt::test]
    async fn child() {
        let Ok(url) = std::env::var(CHILD) else { return };
        let (supervisor, mut delivered) = supervisor(url);
        let _handle = supervisor.start().expect("it starts");
        let mut count = 0;
        while delivered.recv().await.is_some() {
            count += 1;
            if count == 20 {
                // To be killed now.
                std::io::Write::write_all(&mut std::io::stderr(), b"under way\n").expect("told");
            }
        }
    }

    #[actix_rt::test]
    async fn a_process_killed_twenty_times_loses_no_row_and_records_each_once() {
        use std::io::BufRead;
        let db = Db::migrated(DDL);
        for _ in 0..20 {
            insert(&db, 200);
            let module = module_path!().split_once("::").map_or("", |(_, module)| module);
            let mut child = Command::new(std::env::current_exe().expect("this test"))
                .args(["--exact", &format!("{module}::child"), "--nocapture"])
                .env(CHILD, db.url())
                .stderr(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .expect("a child");
            let output = std::io::BufReader::new(child.stderr.take().expect("its output"));
            let under_way = output.lines().map_while(Result::ok).any(|line| line.contains("under way"));
            assert!(under_way, "the child worked");
            child.kill().expect("killed with SIGKILL");
            child.wait().expect("gone");
        }
        // A row lost three times waits by its policy: three hours, here three seconds.
        let (supervisor, _delivered) = supervisor(db.url());
        let fast = supervisor.clock(Clock::fast(3600.0, Utc::now()));
        let handle = fast.start().expect("it starts");
        drained(&db).await;
        handle.shutdown(Duration::from_secs(10)).await;
        let conn = &mut db.conn();
        let recorded: i64 = parcels::table.filter(parcels::runs.eq(1)).count().get_result(conn).expect("a count");
        assert_eq!(recorded, 20 * 200);
    }

    #[actix_rt::test]
    async fn a_database_that_goes_away_is_told_once_and_the_work_goes_on_when_it_is_back() {
        let db = Db::migrated(DDL);
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = events.clone();
        let (supervisor, mut delivered) = supervisor(db.url());
        let handle = supervisor
            .on_event(move |event| heard.lock().expect("events").push(format!("{event:?}")))
            .start()
            .expect("it starts");
        insert(&db, 1);
        assert_eq!(delivered.recv().await, Some(1));
        drained(&db).await;
        // As good as away: nothing that the store asks for is there.
        db.conn().batch_execute("ALTER TABLE asyncable_claims RENAME TO hidden").expect("away");
        let told = async {
            let mut look = actix_rt::time::interval(Duration::from_millis(20));
            while events.lock().expect("events").is_empty() {
                look.tick().await;
            }
        };
        insert(&db, 1);
        tokio::time::timeout(Duration::from_secs(60), told).await.expect("told");
        db.conn().batch_execute("ALTER TABLE hidden RENAME TO asyncable_claims").expect("back");
        let next = tokio::time::timeout(Duration::from_secs(60), delivered.recv()).await;
        assert_eq!(next.expect("it goes on"), Some(2));
        drained(&db).await;
        handle.shutdown(Duration::from_secs(10)).await;
        let events: Vec<String> = events.lock().expect("events").clone();
        let away = format!("{:?}", Event::DatabaseAway { model: "parcels" });
        let back = format!("{:?}", Event::DatabaseBack { model: "parcels" });
        assert_eq!(events, [away, back]);
    }

    #[actix_rt::test]
    async fn a_failing_write_of_the_hosts_fails_its_own_row_and_not_its_batch() {
        let db = Db::migrated(DDL);
        let (sender, mut delivered) = mpsc::unbounded_channel();
        #[derive(Clone)]
        struct Second(mpsc::UnboundedSender<i64>);
        impl Processor for Second {
            type Model = Parcel;
            async fn process(&self, parcel: &Parcel, attempt: &Attempt) -> Outcome {
                let id = parcel.id;
                attempt.when_done(move |conn: &mut Conn| match id {
                    2 => conn.batch_execute("INSERT INTO no_such_table VALUES (1)"),
                    _ => Ok(()),
                });
                let _ = self.0.send(id);
                Ok(())
            }
        }
        insert(&db, 3);
        let handle = Supervisor::<Conn>::new(db.url()).processor(Second(sender)).start().expect("it starts");
        for _ in 0..3 {
            delivered.recv().await;
        }
        handle.shutdown(Duration::from_secs(10)).await;
        let conn = &mut db.conn();
        let rows: Vec<(i64, Status)> = parcels::table.order(parcels::id).select((parcels::id, Parcel::status())).load(conn).expect("rows");
        assert_eq!(rows, [(1, Status::Processed), (2, Status::Attempted), (3, Status::Processed)]);
        let error: Option<String> = parcels::table.find(2).select(parcels::error).first(conn).expect("a row");
        assert!(error.is_some_and(|error| error.starts_with("when_done ")));
    }
}

#[cfg(feature = "postgres")]
#[actix_rt::test]
async fn a_row_locked_by_the_hosts_long_transaction_is_settled_when_it_ends() {
    use support::TestDb;
    let db = TestDb::<diesel::PgConnection>::migrated(DDL);
    let (sender, mut delivered) = mpsc::unbounded_channel();
    #[derive(Clone)]
    struct Gate(mpsc::UnboundedSender<i64>, Arc<tokio::sync::Semaphore>);
    impl Processor for Gate {
        type Model = Parcel;
        async fn process(&self, parcel: &Parcel, _: &Attempt) -> Outcome {
            let _ = self.0.send(parcel.id);
            let _permit = self.1.acquire().await?;
            Ok(())
        }
    }
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    db.conn()
        .batch_execute("INSERT INTO parcels (submitted_at) VALUES (now() - interval '2 days'), (now() - interval '2 days')")
        .expect("rows");
    let handle = Supervisor::<diesel::PgConnection>::new(db.url())
        .sweep_every(Duration::from_millis(50))
        .processor(Gate(sender, gate.clone()))
        .start()
        .expect("it starts");
    delivered.recv().await;
    delivered.recv().await;
    let mut host = db.conn();
    host.batch_execute("BEGIN; SELECT 1 FROM parcels WHERE id = 1 FOR UPDATE").expect("locked");
    gate.add_permits(2);
    let other = async {
        let mut look = actix_rt::time::interval(Duration::from_millis(20));
        let conn = &mut db.conn();
        loop {
            let done: Vec<i64> = parcels::table
                .filter(Parcel::processed())
                .select(parcels::id)
                .load(conn)
                .expect("ids");
            if done == [2] {
                break;
            }
            look.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), other).await.expect("the other row is settled");
    host.batch_execute("COMMIT").expect("ended");
    handle.shutdown(Duration::from_secs(10)).await;
    let open: i64 = parcels::table
        .filter(parcels::processed_at.is_null())
        .count()
        .get_result(&mut db.conn())
        .expect("a count");
    assert_eq!(open, 0);
}
