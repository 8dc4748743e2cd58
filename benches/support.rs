//! What the benches share: a table of jobs on each backend, and a PostgreSQL of their own.

#![allow(dead_code, reason = "each bench uses its own part of this")]

use asyncable::{Asyncable, Columns, StoreConnection, columns};
use diesel::prelude::*;

pub(crate) mod schema {
    diesel::table! {
        jobs (id) {
            id -> BigInt,
            submitted_at -> Nullable<Timestamp>,
            last_submitted_at -> Nullable<Timestamp>,
            attempted_at -> Nullable<Timestamp>,
            processed_at -> Nullable<Timestamp>,
            canceled_at -> Nullable<Timestamp>,
            error -> Nullable<Text>,
        }
    }
}
pub(crate) use schema::jobs;

#[derive(Queryable, Selectable, Identifiable)]
pub(crate) struct Job {
    pub(crate) id: i64,
}

impl Asyncable for Job {
    type Id = i64;
    const COLUMNS: Columns<jobs::table> =
        columns!(jobs, last_submitted_at = last_submitted_at, canceled_at = canceled_at);
}

const TABLE: &str = "CREATE TABLE jobs (id BIGINT PRIMARY KEY, submitted_at TIMESTAMP, \
    last_submitted_at TIMESTAMP, attempted_at TIMESTAMP, processed_at TIMESTAMP, \
    canceled_at TIMESTAMP, error TEXT)";

/// As `cargo run --example migration` prints it.
pub(crate) const INDEX: &str = "CREATE INDEX jobs_asyncable ON jobs (attempted_at, last_submitted_at) \
    WHERE processed_at IS NULL AND canceled_at IS NULL";

/// A backend that is measured.
pub(crate) trait Measured:
    StoreConnection + diesel_migrations::MigrationHarness<Self::Backend>
where
    Job: asyncable::Stored<Self::Backend>,
{
    /// A `FROM` of the numbers `n` from 1 to `count`.
    fn numbers(count: u64) -> String;
    /// What keeps a table's statistics up to date by itself: nothing on SQLite.
    const ANALYZE: &'static str;

    /// Jobs that are not processed.
    fn open_jobs(&mut self) -> i64;

    fn make_tables(&mut self) {
        asyncable::migrate(self).expect("the library's tables");
        self.batch_execute(TABLE).expect("the table of jobs");
        self.batch_execute(INDEX).expect("its index");
    }

    /// Adds `count` rows with ids above `above`; `values` are the columns from submitted_at to error.
    fn add(&mut self, above: u64, count: u64, values: &str) {
        let numbers = Self::numbers(count);
        let sql = format!("INSERT INTO jobs SELECT n + {above}, {values} FROM {numbers}");
        self.batch_execute(&sql).expect("rows");
    }
}

#[cfg(feature = "sqlite")]
impl Measured for SqliteConnection {
    const ANALYZE: &'static str = "";

    fn open_jobs(&mut self) -> i64 {
        let open = jobs::table.filter(jobs::processed_at.is_null()).count();
        open.get_result(self).expect("a count")
    }

    fn numbers(count: u64) -> String {
        format!(
            "(WITH RECURSIVE numbers(n) AS \
             (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) SELECT n FROM numbers)"
        )
    }
}

#[cfg(feature = "postgres")]
impl Measured for PgConnection {
    const ANALYZE: &'static str = "VACUUM ANALYZE";

    fn open_jobs(&mut self) -> i64 {
        let open = jobs::table.filter(jobs::processed_at.is_null()).count();
        open.get_result(self).expect("a count")
    }

    fn numbers(count: u64) -> String {
        format!("generate_series(1, {count}) numbers(n)")
    }
}

/// A PostgreSQL server with its default durability; the tests' own does not wait for its disk.
#[cfg(feature = "postgres")]
pub(crate) struct Server {
    bin: std::path::PathBuf,
    data: std::path::PathBuf,
    pub(crate) url: String,
}

#[cfg(feature = "postgres")]
impl Server {
    /// Nothing where `scripts/test` did not say how to start one.
    pub(crate) fn start(name: &str) -> Option<Server> {
        let bin = std::path::PathBuf::from(std::env::var_os("ASYNCABLE_TEST_PG_BIN")?);
        let data = std::path::PathBuf::from(std::env::var_os("ASYNCABLE_TEST_PG_DIR")?);
        let data = data.join(format!("{name}-{}", std::process::id()));
        let run = |program: &str, arguments: &[&str]| {
            let mut command = std::process::Command::new(bin.join(program));
            command.arg("-D").arg(&data).args(arguments);
            command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
            assert!(command.status().expect("a program of PostgreSQL's").success(), "{program}");
        };
        run("initdb", &["-U", "bench", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("its number").port();
        drop(free);
        let options =
            format!("-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''");
        let log = data.join("log");
        run("pg_ctl", &["start", "-w", "-s", "-l", &log.display().to_string(), "-o", &options]);
        let url = format!("postgres://bench@127.0.0.1:{port}/postgres");
        Some(Server { bin, data, url })
    }
}

#[cfg(feature = "postgres")]
impl Drop for Server {
    fn drop(&mut self) {
        let mut stop = std::process::Command::new(self.bin.join("pg_ctl"));
        stop.arg("-D").arg(&self.data).args(["stop", "-s", "-m", "immediate"]);
        let _stopped_or_gone_with_the_script = stop.status();
    }
}
