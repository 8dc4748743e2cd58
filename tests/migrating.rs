//! The library's own tables, beside a host's migrations in one database.

mod support;

use std::sync::Barrier;

use asyncable::{MigrateError, migrate, revert};
use diesel::{connection::SimpleConnection, prelude::*, sql_types::Text};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use support::*;

/// A host's own, dated as `diesel migration generate` does: one makes `reviews`, one adds a column.
const HOST: EmbeddedMigrations = embed_migrations!("tests/fixtures/host_migrations");
const HOSTS_FIRST: &str = "20240105000000";
const HOSTS_SECOND: &str = "20240201000000";

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

/// What `run_pending_migrations` and its like answer, as text.
fn versions<V: ToString, E: ToString>(answer: Result<Vec<V>, E>) -> Result<Vec<String>, String> {
    answer
        .map(|versions| versions.iter().map(ToString::to_string).collect())
        .map_err(|error| error.to_string())
}

on_each_backend! {
    /// Every table but Diesel's list, by name.
    fn every_table(conn: &mut Conn) -> Vec<String> {
        let catalog = match BACKEND {
            "SQLite" => "SELECT name FROM sqlite_master WHERE type = 'table'",
            _ => "SELECT tablename::text AS name FROM pg_tables WHERE schemaname = current_schema()",
        };
        let tables: Vec<Name> = diesel::sql_query(catalog).load(conn).expect("the catalog");
        let mut names: Vec<String> = tables.into_iter().map(|table| table.name).collect();
        names.retain(|name| name != "__diesel_schema_migrations");
        names.sort();
        names
    }

    /// The library's tables, by name.
    fn tables(conn: &mut Conn) -> Vec<String> {
        every_table(conn).into_iter().filter(|name| name.starts_with("asyncable_")).collect()
    }

    /// The versions that Diesel's list holds, oldest first.
    fn listed(conn: &mut Conn) -> Vec<String> {
        let mut listed: Vec<String> = conn
            .applied_migrations()
            .expect("the list")
            .iter()
            .map(ToString::to_string)
            .collect();
        listed.sort();
        listed
    }

    /// The library's versions and tables, as a database of their own shows them.
    fn ours() -> (Vec<String>, Vec<String>) {
        let db = Db::empty();
        let conn = &mut db.conn();
        migrate(conn).expect("migrate");
        (listed(conn), tables(conn))
    }

    #[test]
    fn the_tables_go_up_down_and_up() {
        let (versions, all) = ours();
        let ran = versions.len();
        let db = Db::empty();
        let conn = &mut db.conn();

        let mut seen = Vec::new();
        for step in [migrate::<Conn>, migrate, revert, revert, migrate] {
            let answer = step(conn).expect("a step");
            seen.push((answer, tables(conn)));
        }

        let none = Vec::new();
        assert_eq!(
            seen,
            [(ran, all.clone()), (0, all.clone()), (ran, none.clone()), (0, none), (ran, all)]
        );
    }

    #[test]
    fn every_version_of_ours_comes_before_any_dated_one() {
        let (mut versions, _) = ours();

        versions.retain(|version| !version.starts_with("00000000asyncable"));

        assert_eq!(versions, [""; 0]);
    }

    #[test]
    fn every_table_of_ours_is_one_that_the_host_leaves_out_of_its_schema() {
        let db = Db::empty();
        let conn = &mut db.conn();
        migrate(conn).expect("migrate");

        assert_eq!(every_table(conn), tables(conn));
    }

    #[test]
    fn of_four_processes_that_migrate_at_once_one_runs_the_migrations_and_none_fails() {
        let ran = ours().0.len();
        // A race that is lost once in some rounds is lost in production.
        for _ in 0..8 {
            let db = Db::empty();
            let url = db.url();
            let together = Barrier::new(4);
            let one_process = || {
                // As a host connects that has set nothing: SQLite then waits for no lock by itself.
                let mut conn = Conn::establish(&url).expect("a connection");
                together.wait();
                migrate(&mut conn).expect("migrate")
            };

            let mut answers: Vec<usize> = std::thread::scope(|scope| {
                let processes: Vec<_> = (0..4).map(|_| scope.spawn(one_process)).collect();
                processes.into_iter().map(|process| process.join().expect("no panic")).collect()
            });

            answers.sort_unstable();
            assert_eq!(answers, [0, 0, 0, ran]);
        }
    }

    #[test]
    fn a_migration_that_fails_leaves_nothing_of_its_run() {
        for taken in ours().1 {
            let db = Db::empty();
            let conn = &mut db.conn();
            conn.batch_execute(&format!("CREATE TABLE {taken} (of_the_host TEXT)")).expect("taken");

            let answer = migrate(conn);

            let failed = matches!(answer, Err(MigrateError::Failed { .. }));
            assert_eq!((failed, tables(conn), listed(conn)), (true, vec![taken], vec![]));
        }
    }

    #[test]
    fn a_revert_that_fails_leaves_everything() {
        let (versions, all) = ours();
        for missing in &all {
            let db = Db::empty();
            let conn = &mut db.conn();
            migrate(conn).expect("migrate");
            conn.batch_execute(&format!("ALTER TABLE {missing} RENAME TO elsewhere")).expect("away");
            let left: Vec<_> = all.iter().filter(|table| *table != missing).cloned().collect();

            let answer = revert(conn);

            let failed = matches!(answer, Err(MigrateError::Failed { .. }));
            assert_eq!((failed, tables(conn), listed(conn)), (true, left, versions.clone()));
        }
    }

    #[test]
    fn the_hosts_migrations_run_before_or_after_ours() {
        let (versions, all) = ours();
        let both: Vec<_> =
            versions.iter().map(String::as_str).chain([HOSTS_FIRST, HOSTS_SECOND]).collect();
        for host_first in [true, false] {
            let db = Db::empty();
            let conn = &mut db.conn();
            if host_first {
                conn.run_pending_migrations(HOST).expect("the host's");
            }
            let answer = migrate(conn).expect("ours");
            if !host_first {
                conn.run_pending_migrations(HOST).expect("the host's");
            }

            let pending = conn.has_pending_migration(HOST).expect("an answer");

            let expected = (versions.len(), false, both.iter().map(ToString::to_string).collect());
            assert_eq!((answer, pending, listed(conn)), expected);
            assert_eq!(tables(conn), all);
        }
    }

    #[test]
    fn the_host_reverts_and_redoes_its_last_migration_with_ours_in_place() {
        let (_, all) = ours();
        let db = Db::empty();
        let conn = &mut db.conn();
        conn.run_pending_migrations(HOST).expect("the host's");
        migrate(conn).expect("ours");

        let reverted = versions(conn.revert_last_migration(HOST).map(|version| vec![version]));
        let again = versions(conn.run_pending_migrations(HOST));

        let second = Ok(vec![HOSTS_SECOND.to_owned()]);
        assert_eq!((reverted, again, tables(conn)), (second.clone(), second, all));
    }

    #[test]
    fn reverting_all_of_the_hosts_stops_at_ours_after_its_own() {
        let (our_versions, all) = ours();
        let db = Db::empty();
        let conn = &mut db.conn();
        migrate(conn).expect("ours");
        conn.run_pending_migrations(HOST).expect("the host's");

        let answer = versions(conn.revert_all_migrations(HOST));

        let newest = our_versions.last().expect("a version");
        let unknown = format!("Unable to find migration version {newest} to revert in the migrations directory.");
        assert_eq!(answer, Err(unknown));
        assert_eq!((listed(conn), tables(conn)), (our_versions, all));
    }

    #[test]
    fn reverting_ours_first_lets_the_host_revert_all_of_its_own() {
        let db = Db::empty();
        let conn = &mut db.conn();
        conn.run_pending_migrations(HOST).expect("the host's");
        migrate(conn).expect("ours");

        revert(conn).expect("ours away");
        let left = listed(conn);
        let answer = versions(conn.revert_all_migrations(HOST));

        let hosts = [HOSTS_FIRST, HOSTS_SECOND].map(str::to_owned);
        let newest_first = hosts.iter().rev().cloned().collect();
        assert_eq!((left, answer, listed(conn)), (hosts.to_vec(), Ok(newest_first), vec![]));
    }
}

#[cfg(feature = "postgres")]
mod postgres_alone {
    use super::*;
    use diesel::{PgConnection, migration::MigrationConnection, sql_types::Bool};

    #[derive(QueryableByName)]
    struct Waiting {
        #[diesel(sql_type = Bool)]
        waiting: bool,
    }

    /// PostgreSQL refuses the second of two `CREATE TABLE IF NOT EXISTS` once the first has committed.
    #[test]
    fn a_host_that_makes_diesels_list_at_the_same_time_does_not_fail_ours() {
        let db = TestDb::<PgConnection>::empty();
        let (host, ours, observer) = (&mut db.conn(), &mut db.conn(), &mut db.conn());
        host.batch_execute("BEGIN").expect("the host's transaction");
        host.setup().expect("the host makes the list");
        let our_process =
            diesel::select(diesel::dsl::sql::<diesel::sql_types::Integer>("pg_backend_pid()"))
                .get_result::<i32>(ours)
                .expect("our process");

        let answer = std::thread::scope(|scope| {
            let migrating = scope.spawn(|| migrate(ours));
            let waits = format!(
                "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE pid = {our_process} AND NOT granted) \
                 AS waiting"
            );
            while !diesel::sql_query(&waits).get_result::<Waiting>(observer).expect("locks").waiting
            {
                assert!(!migrating.is_finished(), "ours did not wait for the host's");
            }
            host.batch_execute("COMMIT").expect("the host commits");
            migrating.join().expect("no panic")
        });

        assert!(matches!(answer, Ok(1..)), "{answer:?}");
    }
}
