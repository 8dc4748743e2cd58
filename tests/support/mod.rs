//! What the tests share: a database of a test's own on each backend.
//!
//! A store test is one function that runs on every backend: write it in
//! [`on_each_backend!`](crate::on_each_backend), where `Conn` and `Db` are this backend's. A test file's
//! `table!`s belong in a private module: at the root `missing_docs` asks for theirs.

#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(unused_imports, reason = "each test file uses its own part of this")]
#![allow(unused_macros, reason = "each test file uses its own part of this")]

use asyncable::StoreConnection;
use diesel_migrations::MigrationHarness;

/// Expands the items once a backend, each time in a module that has the backend's types:
/// `Conn` (the connection, so that Diesel's typed DSL works), `Db` (`TestDb<Conn>`), `Zoned` (the SQL type
/// of an instant with a zone) and `BACKEND`, its name.
///
/// What the items use of the file around them comes by `use super::*`.
macro_rules! on_each_backend {
    ($($items:tt)*) => {
        #[cfg(feature = "sqlite")]
        #[allow(dead_code, unused_imports, reason = "not every test file needs all of them")]
        mod sqlite {
            use super::*;
            type Conn = diesel::SqliteConnection;
            type Zoned = diesel::sql_types::TimestamptzSqlite;
            type Db = $crate::support::TestDb<Conn>;
            const BACKEND: &str = "SQLite";
            $($items)*
        }

        #[cfg(feature = "postgres")]
        #[allow(dead_code, unused_imports, reason = "not every test file needs all of them")]
        mod postgres {
            use super::*;
            type Conn = diesel::PgConnection;
            type Zoned = diesel::sql_types::Timestamptz;
            type Db = $crate::support::TestDb<Conn>;
            const BACKEND: &str = "PostgreSQL";
            $($items)*
        }
    };
}
pub(crate) use on_each_backend;

/// A database of one test's own: a temporary SQLite file, or a schema on the test's PostgreSQL server.
/// Gone when dropped.
pub(crate) struct TestDb<C: TestConnection> {
    place: C::Place,
}

impl<C: TestConnection> TestDb<C> {
    /// An empty database.
    pub(crate) fn empty() -> Self {
        TestDb { place: C::make_place() }
    }

    /// A database with the library's tables and the host's.
    ///
    /// In the DDL, `{key}` is the type of a whole-number key with its `PRIMARY KEY`: `id {key}, ..`. An
    /// INSERT that leaves it out gets the next number. Everything else is the same on both backends:
    /// BIGINT, TIMESTAMP, TIMESTAMPTZ, TEXT.
    pub(crate) fn migrated(host_ddl: &str) -> Self {
        let db = Self::empty();
        let mut conn = db.conn();
        asyncable::migrate(&mut conn).expect("the library's tables");
        db.make(host_ddl);
        db
    }

    /// Runs DDL, as [`migrated`](TestDb::migrated) spells it.
    pub(crate) fn make(&self, host_ddl: &str) {
        let ddl = host_ddl.replace("{key}", C::KEY);
        self.conn().batch_execute(&ddl).expect("the host's tables");
    }

    /// What `Supervisor::new` takes.
    pub(crate) fn url(&self) -> String {
        C::url(&self.place)
    }

    /// A connection to it, as a host would set it up.
    pub(crate) fn conn(&self) -> C {
        let mut conn = C::establish(&self.url()).expect("a connection to the test's database");
        conn.set_up();
        conn
    }
}

/// A backend that tests run on.
pub(crate) trait TestConnection: StoreConnection + MigrationHarness<Self::Backend> {
    /// Where one test's database is; removes it when dropped.
    type Place;
    /// The type of a whole-number primary key.
    const KEY: &'static str;

    fn make_place() -> Self::Place;
    fn url(place: &Self::Place) -> String;
    fn set_up(&mut self);
}

#[cfg(feature = "sqlite")]
impl TestConnection for diesel::SqliteConnection {
    type Place = tempfile::TempDir;
    const KEY: &'static str = "INTEGER PRIMARY KEY";

    fn make_place() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    fn url(place: &tempfile::TempDir) -> String {
        place.path().join("app.db").display().to_string()
    }

    fn set_up(&mut self) {
        use diesel::connection::SimpleConnection;
        // Nothing here must outlive a power cut.
        self.batch_execute(
            "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;",
        )
        .expect("pragmas");
    }
}

/// A schema of one test's own.
#[cfg(feature = "postgres")]
pub(crate) struct Schema {
    server: String,
    name: String,
}

#[cfg(feature = "postgres")]
impl Drop for Schema {
    fn drop(&mut self) {
        use diesel::{Connection, connection::SimpleConnection};
        // A connection that a failed test left open may hold locks; the schema then stays until the
        // server, which is a temporary one, is gone. A panic here would hide the test's own.
        if let Ok(mut conn) = diesel::PgConnection::establish(&self.server) {
            let _gone_or_left = conn.batch_execute(&format!(
                "SET client_min_messages = error; SET lock_timeout = '5s'; \
                 DROP SCHEMA {} CASCADE",
                self.name
            ));
        }
    }
}

#[cfg(feature = "postgres")]
impl TestConnection for diesel::PgConnection {
    type Place = Schema;
    const KEY: &'static str = "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY";

    fn make_place() -> Schema {
        use diesel::{Connection, connection::SimpleConnection};
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);

        let server = std::env::var("ASYNCABLE_TEST_POSTGRES").expect(
            "ASYNCABLE_TEST_POSTGRES names no PostgreSQL server: run ./scripts/test, which starts one",
        );
        let started = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("a clock after 1970")
            .as_nanos();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}_{started}", std::process::id());
        diesel::PgConnection::establish(&server)
            .expect("the server that ASYNCABLE_TEST_POSTGRES names")
            .batch_execute(&format!("CREATE SCHEMA {name}"))
            .expect("a schema of the test's own");
        Schema { server, name }
    }

    fn url(place: &Schema) -> String {
        let joint = if place.server.contains('?') { '&' } else { '?' };
        format!("{}{joint}options=-csearch_path%3D{}", place.server, place.name)
    }

    fn set_up(&mut self) {}
}
