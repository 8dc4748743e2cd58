//! The database goes away while rows are worked on, and comes back: a server that is stopped,
//! connections that are cut, a file that another process has locked, a disk that is full.

#[path = "support/records.rs"]
mod records;
#[cfg(feature = "postgres")]
#[path = "support/server.rs"]
mod server;
mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use asyncable::{
    Asyncable, Attempt, Columns, Event, Failure, Handle, Outcome, Processor, Status, Supervisor,
    columns,
};
use chrono::{TimeDelta, Utc};
use diesel::{ConnectionResult, connection::SimpleConnection, prelude::*};
use log::Level;
use tokio::sync::{Semaphore, mpsc};

use records::Records;
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
    diesel::table! {
        receipts (id) {
            id -> BigInt,
            text -> Text,
        }
    }
}
use schema::{parcels, receipts};

const DDL: &str = "CREATE TABLE parcels (id {key}, runs BIGINT NOT NULL DEFAULT 0, \
    submitted_at TIMESTAMP, attempted_at TIMESTAMP, processed_at TIMESTAMP, error TEXT); \
    CREATE INDEX parcels_work ON parcels (attempted_at, submitted_at) WHERE processed_at IS NULL; \
    CREATE TABLE receipts (id {key}, text TEXT NOT NULL);";

#[derive(Queryable, Selectable, Identifiable)]
struct Parcel {
    id: i64,
}

impl Asyncable for Parcel {
    type Id = i64;
    const COLUMNS: Columns<parcels::table> = columns!(parcels);
}

/// Rows in a test, of which `AT_ONCE` run when the database goes away.
const ROWS: i64 = 16;
const AT_ONCE: usize = 12;

/// As long as a page or two, and nothing that could be compressed.
fn noise(length: usize) -> String {
    let mut state = 1_u64;
    let next = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'A' + ((state >> 33) % 58) as u8)
    };
    (0..length).map(next).collect()
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let mut look = actix_rt::time::interval(Duration::from_millis(20));
    let so = async {
        while !so() {
            look.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), so).await.unwrap_or_else(|_| panic!("{what}"));
}

on_each_backend! {
    /// Waits at a gate, and then ends in one of four ways.
    #[derive(Clone)]
    struct Carry {
        began: mpsc::UnboundedSender<i64>,
        gate: Arc<Semaphore>,
    }

    impl Processor for Carry {
        type Model = Parcel;
        const AT_ONCE: usize = AT_ONCE;

        async fn process(&self, parcel: &Parcel, attempt: &Attempt) -> Outcome {
            let id = parcel.id;
            let _ = self.began.send(id); // the test may have ended
            self.gate.acquire().await?.forget();
            match id % 4 {
                0 => Err(Failure::transient(noise(8192)).with_code("carry.busy")),
                1 => Err(Failure::permanent(noise(8192)).with_code("carry.refused")),
                2 => Ok(()),
                _ => {
                    attempt.when_done(move |conn: &mut Conn| {
                        let row = diesel::update(parcels::table.find(id));
                        row.set(parcels::runs.eq(parcels::runs + 1)).execute(conn)?;
                        let receipt = receipts::text.eq(noise(8192));
                        diesel::insert_into(receipts::table).values(receipt).execute(conn).map(drop)
                    });
                    Ok(())
                }
            }
        }
    }

    /// A supervisor at work, and what it tells.
    pub(super) struct Work {
        handle: Handle,
        began: mpsc::UnboundedReceiver<i64>,
        pub(super) gate: Arc<Semaphore>,
        events: Arc<Mutex<Vec<String>>>,
        /// Connections opened, or tried to.
        opened: Arc<AtomicUsize>,
        records: Records,
    }

    impl Work {
        /// Submits the rows and waits until as many run as may.
        pub(super) async fn begin(
            conn: &mut Conn,
            connect: impl Fn() -> ConnectionResult<Conn> + Send + Sync + 'static,
        ) -> Work {
            let records = Records::keep().await;
            // Clocks of the test and of the database need not agree to the microsecond.
            let submitted = parcels::submitted_at.eq((Utc::now() - TimeDelta::minutes(1)).naive_utc());
            for _ in 0..ROWS {
                diesel::insert_into(parcels::table).values(submitted).execute(conn).expect("a row");
            }
            let (sender, began) = mpsc::unbounded_channel();
            let gate = Arc::new(Semaphore::new(0));
            let (events, opened) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
            let (heard, opening) = (events.clone(), opened.clone());
            let connect = move || {
                opening.fetch_add(1, Ordering::Relaxed);
                connect()
            };
            let note = move |event: &Event| {
                if let Event::DatabaseAway { .. } | Event::DatabaseBack { .. } | Event::Lost { .. } = event {
                    heard.lock().expect("events").push(format!("{event:?}"));
                }
            };
            let handle = Supervisor::<Conn>::connecting(connect)
                .sweep_every(Duration::from_millis(50))
                .lease_for(Duration::from_secs(1))
                .on_event(note)
                .processor(Carry { began: sender, gate: gate.clone() })
                .start()
                .expect("it starts");
            let work = Work { handle, began, gate, events, opened, records };
            until("all that may run began", || work.began.len() == AT_ONCE).await;
            work
        }

        pub(super) fn told(&self) -> Vec<String> {
            self.events.lock().expect("events").clone()
        }

        /// While the database is away: attempts end, and time passes, told by how often it was tried.
        pub(super) async fn goes_on_without(&self, tries: usize) {
            self.gate.add_permits(AT_ONCE / 2);
            until("half of the attempts end", || self.gate.available_permits() == 0).await;
            until("it is told", || !self.told().is_empty()).await;
            let before = self.opened.load(Ordering::Relaxed);
            let often = || self.opened.load(Ordering::Relaxed) >= before + tries;
            until("it tries again and again", often).await;
            self.gate.add_permits(AT_ONCE / 4);
            until("more attempts end", || self.gate.available_permits() == 0).await;
        }

        /// After it: the rest is worked off, and nothing was done twice or lost.
        pub(super) async fn ends_well(&mut self, conn: &mut Conn) {
            self.gate.add_permits(1000);
            let open = parcels::table
                .filter(parcels::processed_at.is_null().and(parcels::error.is_null()))
                .count();
            until("all that was left is done", || open.get_result(conn) == Ok(0)).await;
            self.handle.shutdown(Duration::from_secs(10)).await;
            let mut began: Vec<i64> = std::iter::from_fn(|| self.began.try_recv().ok()).collect();
            began.sort_unstable();
            assert_eq!(began, (1..=ROWS).collect::<Vec<i64>>(), "each row's work was done once");
            let rows: Vec<(i64, i64, Status, Option<String>)> = parcels::table
                .order(parcels::id)
                .select((parcels::id, parcels::runs, Parcel::status(), parcels::error))
                .load(conn)
                .expect("rows");
            let wanted = |id: i64| match id % 4 {
                0 => (id, 0, Status::Attempted, Some(format!("carry.busy {}", noise(8192)))),
                1 => (id, 0, Status::Attempted, Some(format!("carry.refused {}", noise(8192)))),
                2 => (id, 0, Status::Processed, None),
                _ => (id, 1, Status::Processed, None),
            };
            assert_eq!(rows, (1..=ROWS).map(wanted).collect::<Vec<_>>());
            let parked = parcels::table.filter(Parcel::parked()).count();
            assert_eq!(parked.get_result(conn), Ok(ROWS / 4));
        }

        /// The outage is told and logged once, and so is its end.
        pub(super) fn told_once(&self) {
            assert_eq!(self.told_in_pairs(), 1);
        }

        /// As often as it is told or logged as away, so often as back, in turns. Answers how often.
        pub(super) fn told_in_pairs(&self) -> usize {
            let away = format!("{:?}", Event::DatabaseAway { model: "parcels" });
            let back = format!("{:?}", Event::DatabaseBack { model: "parcels" });
            let told = self.told();
            let times = told.len() / 2;
            assert_eq!(told, [away.as_str(), &back].repeat(times));
            let records = self.records.so_far().into_iter();
            let levels = records.filter(|(_, text)| text.contains("the database")).map(|(level, _)| level);
            assert_eq!(levels.collect::<Vec<_>>(), [Level::Error, Level::Warn].repeat(times));
            times
        }

        /// What the log says is the matter.
        pub(super) fn logged(&self) -> String {
            let mut records = self.records.so_far().into_iter();
            let record = records.find(|(_, text)| text.contains("does not take"));
            record.expect("a record").1
        }
    }
}

#[cfg(feature = "postgres")]
mod on_a_server {
    use super::{
        postgres::Work,
        server::{self, Server},
        support::TestDb,
        *,
    };
    use diesel::{PgConnection, dsl::sql, sql_types::BigInt};
    use std::{io::Write, path::PathBuf, process::Command};

    #[actix_rt::test]
    async fn a_stopped_server_is_told_once_and_no_outcome_reached_meanwhile_is_lost() {
        let server = Server::new("stopped");
        let conn = &mut server.conn();
        asyncable::migrate(conn).expect("the library's tables");
        conn.batch_execute(
            &DDL.replace("{key}", "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"),
        )
        .expect("the host's tables");
        let url = server.url();
        let mut work = Work::begin(conn, move || PgConnection::establish(&url)).await;
        server.stop();
        // Some of these are the leases' own, four a second: they have lapsed then.
        work.goes_on_without(8).await;
        server.start();
        work.ends_well(&mut server.conn()).await;
        work.told_once();
    }

    #[actix_rt::test]
    async fn connections_cut_again_and_again_lose_no_outcome_and_do_nothing_twice() {
        let db = TestDb::<PgConnection>::migrated(DDL);
        let conn = &mut db.conn();
        let name = format!("cut_{}", std::process::id());
        let url = format!("{}&application_name={name}", db.url());
        let mut work = Work::begin(conn, move || PgConnection::establish(&url)).await;
        let cut = format!(
            "count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '{name}'"
        );
        for _ in 0..AT_ONCE {
            let mut some = 0;
            until("connections are cut", || {
                some += diesel::select(sql::<BigInt>(&cut)).get_result::<i64>(conn).expect("cut");
                some > 0
            })
            .await;
            work.gate.add_permits(1);
        }
        work.ends_well(conn).await;
        // A cut that the sweep finds first is mended without a word; each other one has its end.
        work.told_in_pairs();
    }

    /// A disk of two megabytes. Gone when dropped.
    struct Disk(PathBuf);

    impl Disk {
        /// Only root may mount one, and not everywhere.
        fn mounted() -> Result<Disk, String> {
            use std::os::unix::fs::MetadataExt;
            let place = server::folder().join(format!("disk-{}", std::process::id()));
            std::fs::create_dir(&place).map_err(|error| error.to_string())?;
            let owner =
                std::fs::metadata(server::folder()).map_err(|error| error.to_string())?.uid();
            let options = format!("size=2m,mode=700,uid={owner}");
            let mount = Command::new("mount")
                .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
                .arg(&place)
                .output()
                .map_err(|error| error.to_string())?;
            match mount.status.success() {
                true => Ok(Disk(place)),
                false => Err(String::from_utf8_lossy(&mount.stderr).into_owned()),
            }
        }

        /// Writes until nothing more goes in.
        fn fill(&self) {
            let mut file = std::fs::File::create(self.filler()).expect("a file");
            while file.write_all(&[0; 512]).is_ok() {}
        }

        fn empty(&self) {
            std::fs::remove_file(self.filler()).expect("removed");
        }

        fn filler(&self) -> PathBuf {
            self.0.join("filler")
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            // Lazily: a server that still has a file open there would refuse it.
            let _gone_or_left = Command::new("umount").arg("-l").arg(&self.0).status();
            let _gone_or_left = std::fs::remove_dir(&self.0);
        }
    }

    #[actix_rt::test]
    async fn a_full_disk_is_told_once_and_no_outcome_reached_meanwhile_is_lost() {
        let disk = match Disk::mounted() {
            Ok(disk) => disk,
            Err(why) => {
                let why = format!("skipped: no disk to fill could be mounted: {why}\n");
                return std::io::stderr().write_all(why.as_bytes()).expect("told");
            }
        };
        let server = Server::new("full");
        let conn = &mut server.conn();
        for statement in [
            &format!("CREATE TABLESPACE small LOCATION '{}'", disk.0.display()),
            "ALTER ROLE asyncable SET default_tablespace = small",
            "SET default_tablespace = small",
        ] {
            conn.batch_execute(statement).expect("a tablespace");
        }
        asyncable::migrate(conn).expect("the library's tables");
        conn.batch_execute(
            &DDL.replace("{key}", "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"),
        )
        .expect("the host's tables");
        let url = server.url();
        let mut work = Work::begin(conn, move || PgConnection::establish(&url)).await;
        disk.fill();
        work.goes_on_without(3).await;
        disk.empty();
        work.ends_well(conn).await;
        work.told_once();
        assert!(work.logged().contains("No space"), "{}", work.logged());
    }
}

#[cfg(feature = "sqlite")]
mod in_a_file {
    use super::{sqlite::Work, support::TestDb, *};
    use diesel::{SqliteConnection, sql_types};
    use std::{
        io::{BufRead, BufReader, Write},
        process::{Child, Command, Stdio},
    };

    /// Opens the file with a wait that is short enough for a test.
    fn open(url: &str, settings: &str) -> ConnectionResult<SqliteConnection> {
        let mut conn = SqliteConnection::establish(url)?;
        let settings = format!("PRAGMA busy_timeout = 20; PRAGMA journal_mode = WAL; {settings}");
        conn.batch_execute(&settings)
            .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
        Ok(conn)
    }

    /// Set in a child process: the file that it locks.
    const LOCKED: &str = "ASYNCABLE_TEST_LOCKED";

    /// Not a test of its own: what the child runs that has the file locked until its input ends.
    #[test]
    fn another_process() {
        let Ok(url) = std::env::var(LOCKED) else { return };
        let conn = &mut open(&url, "").expect("the file");
        conn.immediate_transaction(|_| -> QueryResult<()> {
            std::io::stderr().write_all(b"locked\n").expect("told");
            let mut end = String::new();
            std::io::stdin().read_line(&mut end).expect("an end");
            Ok(())
        })
        .expect("a lock");
    }

    fn lock(url: &str) -> Child {
        let module = module_path!().split_once("::").map_or("", |(_, module)| module);
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", &format!("{module}::another_process"), "--nocapture"])
            .env(LOCKED, url)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("a child");
        let output = BufReader::new(child.stderr.take().expect("its output"));
        let locked = output.lines().map_while(Result::ok).any(|line| line.contains("locked"));
        assert!(locked, "the child has the lock");
        child
    }

    #[actix_rt::test]
    async fn a_file_locked_by_another_process_is_told_once_and_no_outcome_reached_meanwhile_is_lost()
     {
        let db = TestDb::<SqliteConnection>::migrated(DDL);
        let url = db.url();
        let mut work = Work::begin(&mut db.conn(), move || open(&url, "")).await;
        let mut child = lock(&db.url());
        work.goes_on_without(8).await;
        drop(child.stdin.take());
        assert!(child.wait().expect("it ends").success());
        work.ends_well(&mut db.conn()).await;
        work.told_once();
    }

    fn pages(conn: &mut SqliteConnection) -> i64 {
        let count = "SELECT page_count FROM pragma_page_count";
        diesel::dsl::sql::<sql_types::BigInt>(count).get_result(conn).expect("a count")
    }

    #[actix_rt::test]
    async fn a_full_disk_is_told_once_and_no_outcome_reached_meanwhile_is_lost() {
        let db = TestDb::<SqliteConnection>::migrated(DDL);
        let url = db.url();
        let conn = &mut db.conn();
        let size = Arc::new(AtomicI64::new(pages(conn) + 100));
        let disk = size.clone();
        let connect = move || {
            let size = disk.load(Ordering::Relaxed);
            open(&url, &format!("PRAGMA max_page_count = {size};"))
        };
        let mut work = Work::begin(conn, connect).await;
        // Somebody else takes the rest.
        while pages(conn) < size.load(Ordering::Relaxed) {
            let taken = diesel::insert_into(receipts::table).values(receipts::text.eq(noise(4000)));
            taken.execute(conn).expect("taken");
        }
        work.goes_on_without(3).await;
        size.store(1_000_000, Ordering::Relaxed);
        work.ends_well(conn).await;
        work.told_once();
        assert!(work.logged().contains("full"), "{}", work.logged());
    }
}
