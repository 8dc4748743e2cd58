//! A host that is frozen (a suspended machine, a swapped-out process) wakes up when its rows are another's.
#![cfg(target_os = "linux")] // whether a process is frozen is read in /proc

#[path = "support/records.rs"]
mod records;
mod support;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use asyncable::{
    Asyncable, Attempt, Columns, Event, Handle, Outcome, Pause, Processor, Submit, Supervisor,
    columns,
};
use chrono::{NaiveDateTime, TimeDelta, Utc};
use diesel::{connection::SimpleConnection, prelude::*};
use tokio::sync::{Semaphore, mpsc};

use records::Records;
use support::on_each_backend;

mod schema {
    diesel::table! {
        parcels (id) {
            id -> BigInt,
            runs -> BigInt,
            carrier -> Nullable<Text>,
            submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
use schema::parcels;

const DDL: &str = "CREATE TABLE parcels (id {key}, runs BIGINT NOT NULL DEFAULT 0, carrier TEXT, \
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

/// A whole row: id, runs, carrier, attempted, processed, error.
type Whole =
    (i64, i64, Option<String>, Option<NaiveDateTime>, Option<NaiveDateTime>, Option<String>);

/// Set in the process that is frozen: the database it works on.
const FROZEN: &str = "ASYNCABLE_TEST_FROZEN";

/// What a backend says about the frozen process.
trait Watched: Connection {
    /// A URL under which the connections of the process are known.
    fn named(url: String) -> String;
    /// Whether one of them is in a transaction, with locks that would stop everybody else as well.
    fn in_transaction(&mut self) -> bool;
}

#[cfg(feature = "sqlite")]
impl Watched for diesel::SqliteConnection {
    fn named(url: String) -> String {
        url
    }

    fn in_transaction(&mut self) -> bool {
        self.batch_execute("PRAGMA busy_timeout = 0").expect("no wait");
        let free = self.batch_execute("BEGIN IMMEDIATE; ROLLBACK").is_ok();
        self.batch_execute("PRAGMA busy_timeout = 10000").expect("a wait");
        !free
    }
}

#[cfg(feature = "postgres")]
impl Watched for diesel::PgConnection {
    fn named(url: String) -> String {
        format!("{url}&application_name=frozen_{}", std::process::id())
    }

    fn in_transaction(&mut self) -> bool {
        let ours = format!("application_name = 'frozen_{}'", std::process::id());
        let count = |conn: &mut Self, state: &str| -> i64 {
            let sql = format!("count(*) FROM pg_stat_activity WHERE {ours} AND {state}");
            let count = diesel::select(diesel::dsl::sql::<diesel::sql_types::BigInt>(&sql));
            count.get_result(conn).expect("a count")
        };
        // What was sent before the freeze is still worked off.
        while count(self, "state = 'active'") > 0 {
            std::thread::yield_now();
        }
        count(self, "xact_start IS NOT NULL") > 0
    }
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

/// The other process. Killed when dropped.
struct Other {
    child: Child,
    commands: ChildStdin,
    lines: mpsc::UnboundedReceiver<String>,
}

/// Marks what the other process says among what the test harness prints there.
const SAYS: &str = "the other: ";

fn say(what: &str) {
    let line = format!("\n{SAYS}{what}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("said");
}

impl Other {
    fn start(test: &str, url: String) -> Other {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", test, "--nocapture"])
            .env(FROZEN, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(said) = line.strip_prefix(SAYS) {
                    let _ = sender.send(said.to_owned()); // the test may have ended
                }
            }
        });
        let commands = child.stdin.take().expect("its input");
        Other { child, commands, lines }
    }

    async fn says(&mut self) -> String {
        let line = tokio::time::timeout(Duration::from_secs(60), self.lines.recv()).await;
        line.expect("a line within a minute").expect("it lives")
    }

    /// Asks it for something; read when it is awake.
    fn ask(&mut self, what: &str) {
        self.commands.write_all(format!("{what}\n").as_bytes()).expect("asked");
    }

    fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    }

    /// Whether all its threads stand still.
    fn is_frozen(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        threads.expect("a process").all(|thread| {
            let stat = std::fs::read_to_string(thread.expect("a thread").path().join("stat"));
            // The state follows the name, which stands in brackets and may hold anything.
            let state = stat.map(|stat| stat.rsplit(") ").next().unwrap_or_default().to_owned());
            state.is_ok_and(|state| state.starts_with('T'))
        })
    }

    /// Freezes it between two transactions: in the middle of one it would stop everybody.
    async fn freeze(&self, conn: &mut impl Watched) {
        loop {
            self.signal("STOP");
            until("it stands still", || self.is_frozen()).await;
            if !conn.in_transaction() {
                return;
            }
            self.signal("CONT");
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _gone_already = self.child.wait();
    }
}

on_each_backend! {
    /// Waits at a gate, and writes down who was there.
    #[derive(Clone)]
    struct Deliver {
        carrier: &'static str,
        began: mpsc::UnboundedSender<(i64, u32)>,
        gate: Arc<Semaphore>,
    }

    impl Processor for Deliver {
        type Model = Parcel;

        async fn process(&self, parcel: &Parcel, attempt: &Attempt) -> Outcome {
            let (id, carrier) = (parcel.id, self.carrier);
            let _ = self.began.send((id, attempt.number())); // the test may have ended
            self.gate.acquire().await?.forget();
            attempt.when_done(move |conn: &mut Conn| {
                let row = diesel::update(parcels::table.find(id));
                let runs = parcels::runs.eq(parcels::runs + 1);
                row.set((runs, parcels::carrier.eq(carrier))).execute(conn).map(drop)
            });
            Ok(())
        }
    }

    struct Host {
        handle: Handle,
        began: mpsc::UnboundedReceiver<(i64, u32)>,
        gate: Arc<Semaphore>,
        events: Arc<Mutex<Vec<String>>>,
    }

    impl Host {
        async fn next(&mut self) -> (i64, u32) {
            let next = tokio::time::timeout(Duration::from_secs(60), self.began.recv()).await;
            next.expect("an attempt within a minute").expect("a processor")
        }
    }

    fn host(url: String, carrier: &'static str) -> Host {
        let (sender, began) = mpsc::unbounded_channel();
        let (gate, events) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
        let heard = events.clone();
        let handle = Supervisor::<Conn>::new(url)
            .sweep_every(Duration::from_millis(50))
            .lease_for(Duration::from_secs(2))
            .on_event(move |event: &Event| heard.lock().expect("events").push(format!("{event:?}")))
            .processor(Deliver { carrier, began: sender, gate: gate.clone() })
            .start()
            .expect("it starts");
        Host { handle, began, gate, events }
    }

    fn submit_one(conn: &mut Conn) {
        // Clocks of the test and of the database need not agree to the microsecond.
        let submitted = (Utc::now() - TimeDelta::minutes(1)).naive_utc();
        let row = diesel::insert_into(parcels::table).values(parcels::submitted_at.eq(submitted));
        row.execute(conn).expect("a row");
    }

    fn rows(conn: &mut Conn) -> Vec<Whole> {
        let whole = (parcels::id, parcels::runs, parcels::carrier, parcels::attempted_at,
            parcels::processed_at, parcels::error);
        parcels::table.order(parcels::id).select(whole).load(conn).expect("rows")
    }

    /// Not a test of its own: what the frozen process runs.
    #[actix_rt::test]
    async fn the_other() {
        let Ok(url) = std::env::var(FROZEN) else { return };
        let records = Records::keep().await;
        let mut host = host(url, "frozen");
        let (sender, mut commands) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for command in std::io::stdin().lines().map_while(Result::ok) {
                let _ = sender.send(command); // it may have ended
            }
        });
        loop {
            tokio::select! {
                began = host.began.recv() => say(&format!("{:?}", began.expect("a processor"))),
                command = commands.recv() => match command.as_deref() {
                    Some("open the gate") => host.gate.add_permits(1000),
                    Some("submit the third row") => {
                        host.handle.send(Submit::<Parcel>::new(3)).await.expect("durable");
                    }
                    _ => break,
                }
            }
        }
        host.handle.shutdown(Duration::from_secs(10)).await;
        for (level, text) in records.so_far() {
            say(&format!("{level} {text}"));
        }
        for event in host.events.lock().expect("events").iter() {
            say(event);
        }
        say("stopped");
    }

    #[actix_rt::test]
    async fn a_host_that_wakes_after_its_rows_were_rescued_changes_nothing_and_goes_on() {
        let db = Db::migrated(DDL);
        let conn = &mut db.conn();
        submit_one(conn);
        submit_one(conn);
        conn.batch_execute("INSERT INTO parcels (submitted_at) VALUES (NULL)").expect("a third row");
        let module = module_path!().split_once("::").map_or("", |(_, module)| module);
        let mut other = Other::start(&format!("{module}::the_other"), Conn::named(db.url()));
        let mut began = [other.says().await, other.says().await];
        began.sort();
        assert_eq!(began, ["(1, 1)", "(2, 1)"]);
        other.freeze(conn).await;

        let mut second = host(db.url(), "second");
        let mut again = [second.next().await, second.next().await];
        again.sort_unstable();
        // A loss counts as a failed attempt.
        assert_eq!(again, [(1, 2), (2, 2)]);
        until("both losses are told", || second.events.lock().expect("events").len() == 2).await;
        let mut lost = second.events.lock().expect("events").clone();
        lost.sort();
        let event = |id: &str| format!("{:?}", Event::Lost { model: "parcels", id: id.to_owned() });
        assert_eq!(lost, [event("1"), event("2")]);
        second.handle.send(Pause::<Parcel>::new()).await.expect("it claims no more");

        // The first host's attempts end well as soon as it wakes, while the second's still run.
        let rescued = rows(conn)[..2].to_vec();
        other.ask("open the gate");
        other.ask("submit the third row");
        other.signal("CONT");
        until("the first host goes on", || rows(conn)[2].4.is_some()).await;
        other.ask("stop");
        // It says nothing of an error: only that it began the third row.
        assert_eq!([other.says().await, other.says().await], ["(3, 1)", "stopped"]);
        assert_eq!(rows(conn)[..2], rescued);

        second.gate.add_permits(2);
        second.handle.shutdown(Duration::from_secs(10)).await;
        let rows = rows(conn);
        assert!(rows.iter().all(|row| row.4.is_some() && row.5.is_none()), "{rows:?}");
        let carried: Vec<_> = rows.iter().map(|row| (row.0, row.1, row.2.as_deref())).collect();
        assert_eq!(carried, [(1, 1, Some("second")), (2, 1, Some("second")), (3, 1, Some("frozen"))]);
    }
}
