//! The migrations that the library prints for a host's table, run as a host runs them.

#[path = "../examples/migration.rs"]
#[allow(dead_code, reason = "its `main` is not run here")]
mod example;
mod support;

use asyncable::{
    Asyncable, Columns, columns,
    host_table::{Backend, HostMigration, HostTable, Role},
};
use diesel::{connection::SimpleConnection, prelude::*, sql_types::Text};
use diesel_migrations::{FileBasedMigrations, MigrationHarness};
use schema::reviews;
use support::*;

mod schema {
    diesel::table! {
        reviews (id) {
            id -> BigInt,
            note -> Text,
            est_submitted_at -> Nullable<Timestamp>,
            est_last_submitted_at -> Nullable<Timestamp>,
            est_attempted_at -> Nullable<Timestamp>,
            est_processed_at -> Nullable<Timestamp>,
            what_failed -> Nullable<Text>,
            est_canceled_at -> Nullable<Timestamp>,
        }
    }
}

#[derive(Debug, Queryable, Selectable, Identifiable)]
struct Review {
    id: i64,
}

impl Asyncable for Review {
    type Id = i64;
    const COLUMNS: Columns<reviews::table> = columns!(
        reviews,
        est_submitted_at,
        est_attempted_at,
        est_processed_at,
        what_failed,
        last_submitted_at = est_last_submitted_at,
        canceled_at = est_canceled_at
    );
}

/// What [`Review`] has, added to a table that has only `id` and `note`.
fn review_table(backend: Backend) -> HostTable {
    HostTable::new("reviews", backend)
        .prefix("est_")
        .column(Role::Error, "what_failed")
        .column(Role::User, "note")
        .with(Role::LastSubmittedAt)
        .with(Role::CanceledAt)
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

fn lines<C>(conn: &mut C, query: &str) -> Vec<String>
where
    C: diesel::connection::LoadConnection,
    diesel::query_builder::SqlQuery: diesel::query_dsl::LoadQuery<'static, C, Line>,
{
    let lines: Vec<Line> = diesel::sql_query(query.to_owned()).load(conn).expect(query);
    lines.into_iter().map(|line| line.line).collect()
}

/// The folders of a host's migrations, and Diesel's reading of them.
fn on_disk(migrations: &[HostMigration]) -> (tempfile::TempDir, FileBasedMigrations) {
    let place = tempfile::tempdir().expect("a temporary folder");
    for (number, migration) in migrations.iter().enumerate() {
        let folder = place.path().join(format!("2026-01-01-00000{number}_{}", migration.name));
        std::fs::create_dir(&folder).expect("a folder");
        let write = |file, text: &str| std::fs::write(folder.join(file), text).expect(file);
        write("up.sql", &migration.up_sql);
        write("down.sql", &migration.down_sql);
        if let Some(metadata) = migration.metadata_toml {
            write("metadata.toml", metadata);
        }
    }
    let read = FileBasedMigrations::from_path(place.path()).expect("migrations");
    (place, read)
}

fn answer(arguments: &[&str]) -> Result<String, String> {
    example::answer(arguments.iter().map(ToString::to_string))
}

on_each_backend! {
    fn backend() -> Backend {
        match BACKEND {
            "SQLite" => Backend::Sqlite,
            _ => Backend::Postgres,
        }
    }

    /// The schema that a test's tables are in.
    fn schema_of(conn: &mut Conn) -> String {
        match backend() {
            Backend::Sqlite => "main".to_owned(),
            _ => lines(conn, "SELECT current_schema()::text AS line").remove(0),
        }
    }

    /// The columns of the one table that is not Diesel's, in their order, and the indexes on it that are
    /// not its key's.
    fn shape(conn: &mut Conn) -> (Vec<String>, Vec<String>) {
        let (columns, indexes) = match backend() {
            Backend::Sqlite => (
                "SELECT c.name AS line FROM sqlite_master m, pragma_table_info(m.name) c \
                 WHERE m.type = 'table' AND m.name NOT LIKE '\\_\\_diesel%' ESCAPE '\\' ORDER BY c.cid",
                "SELECT name AS line FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
            ),
            _ => (
                "SELECT column_name::text AS line FROM information_schema.columns \
                 WHERE table_schema = current_schema() AND table_name NOT LIKE '\\_\\_diesel%' \
                 ORDER BY ordinal_position",
                "SELECT c.relname::text AS line FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                 WHERE c.relnamespace = current_schema()::regnamespace AND NOT i.indisprimary \
                 AND i.indisvalid",
            ),
        };
        (lines(conn, columns), lines(conn, indexes))
    }

    #[test]
    fn what_is_printed_runs_up_down_and_up_on_a_table_with_rows() {
        let odd = r#"odd "name", with.a dot"#;
        let usual = ["submitted_at", "attempted_at", "processed_at", "error"];
        let all = [
            "submitted_at", "last_submitted_at", "attempted_at", "processed_at", "error", "canceled_at",
        ];
        let cases = [
            ("reviews", HostTable::new("reviews", backend()), usual.map(str::to_owned).to_vec()),
            (
                "reviews",
                HostTable::new("reviews", backend())
                    .with(Role::CanceledAt)
                    .with(Role::LastSubmittedAt)
                    .with_time_zone(),
                all.map(str::to_owned).to_vec(),
            ),
            (
                odd,
                HostTable::new(odd, backend())
                    .prefix(r#"p" "#)
                    .column(Role::Error, "select")
                    .index("the \"index\""),
                vec![
                    r#"p" submitted_at"#.to_owned(),
                    r#"p" attempted_at"#.to_owned(),
                    r#"p" processed_at"#.to_owned(),
                    "select".to_owned(),
                ],
            ),
        ];
        for ((table, host_table, added), in_schema) in
            cases.into_iter().flat_map(|case| [(case.clone(), false), (case, true)])
        {
            let db = Db::empty();
            let conn = &mut db.conn();
            let host_table = match in_schema {
                true => host_table.schema(schema_of(conn)),
                false => host_table,
            };
            let quoted = table.replace('"', "\"\"");
            db.make(&format!(
                r#"CREATE TABLE "{quoted}" (id {{key}}, note TEXT NOT NULL);
                   INSERT INTO "{quoted}" (note) VALUES ('a'), ('b')"#
            ));
            let before = shape(conn);
            let (_place, migrations) = on_disk(&host_table.migrations().expect("migrations"));

            conn.run_pending_migrations(migrations.clone()).expect("up");
            let up = shape(conn);
            conn.revert_all_migrations(migrations.clone()).expect("down");
            let down = shape(conn);
            conn.run_pending_migrations(migrations).expect("up again");
            let again = shape(conn);

            let columns: Vec<String> =
                ["id", "note"].map(str::to_owned).into_iter().chain(added).collect();
            let notes = lines(conn, &format!(r#"SELECT note AS line FROM "{quoted}" ORDER BY id"#));
            assert_eq!((&up.0, up.1.len(), notes), (&columns, 1, vec!["a".into(), "b".into()]));
            assert_eq!((down, again), (before, up));
        }
    }

    #[test]
    fn the_columns_are_those_that_the_model_names() {
        let db = Db::migrated(
            "CREATE TABLE reviews (id {key}, note TEXT NOT NULL);
             INSERT INTO reviews (note) VALUES ('old'), ('submitted'), ('canceled')",
        );
        let conn = &mut db.conn();
        for migration in review_table(backend()).migrations().expect("migrations") {
            conn.batch_execute(&migration.up_sql).expect("up");
        }

        Review::submit(conn, 2).expect("submit");
        Review::submit(conn, 3).expect("submit");
        Review::cancel(conn, 3).expect("cancel");

        let due = reviews::table.filter(Review::due()).select(reviews::id).load::<i64>(conn);
        assert_eq!(due, Ok(vec![2]));
    }

    /// The search of a claim's fresh arm, see docs/protocol.md.
    #[test]
    fn the_claim_of_rows_never_attempted_searches_the_index_and_sorts_nothing() {
        let db = Db::empty();
        db.make("CREATE TABLE reviews (id {key}, note TEXT NOT NULL)");
        let conn = &mut db.conn();
        for migration in review_table(backend()).migrations().expect("migrations") {
            conn.batch_execute(&migration.up_sql).expect("up");
        }
        let search = "SELECT id FROM reviews WHERE est_processed_at IS NULL AND est_canceled_at IS NULL \
             AND est_attempted_at IS NULL AND est_last_submitted_at <= '2026-01-05 00:00:00' \
             AND est_last_submitted_at > '2026-01-01 00:00:00' \
             ORDER BY est_attempted_at, est_last_submitted_at LIMIT 64";

        let plan = match backend() {
            Backend::Sqlite => {
                #[derive(QueryableByName)]
                struct Step {
                    #[diesel(sql_type = Text)]
                    detail: String,
                }
                let steps: Vec<Step> =
                    diesel::sql_query(format!("EXPLAIN QUERY PLAN {search}")).load(conn).expect("plan");
                steps.into_iter().map(|step| step.detail).collect::<Vec<_>>()
            }
            _ => {
                #[derive(QueryableByName)]
                struct Step {
                    #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
                    detail: String,
                }
                // An empty table is read whole, whatever its indexes.
                conn.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off").expect("set");
                let steps: Vec<Step> =
                    diesel::sql_query(format!("EXPLAIN (COSTS off) {search}")).load(conn).expect("plan");
                // How a condition is spelled differs from release to release.
                let named = |step: Step| step.detail.split(": ").next().map(str::to_owned);
                steps.into_iter().filter_map(named).collect()
            }
        };

        let expected = match backend() {
            Backend::Sqlite => vec![
                "SEARCH reviews USING INDEX reviews_est_work (est_attempted_at=? \
                 AND est_last_submitted_at>? AND est_last_submitted_at<?)"
                    .to_owned(),
            ],
            _ => vec![
                "Limit".to_owned(),
                "  ->  Index Scan using reviews_est_work on reviews".to_owned(),
                "        Index Cond".to_owned(),
            ],
        };
        assert_eq!(plan, expected);
    }
}

#[test]
fn each_file_says_what_it_locks_and_each_index_which_query_it_serves() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        for migration in review_table(backend).migrations().expect("migrations") {
            for file in [&migration.up_sql, &migration.down_sql] {
                assert!(file.starts_with("-- ") && file.contains("-- Locks: "), "{file}");
            }
            let indexes = migration.up_sql.matches("CREATE INDEX").count();
            assert_eq!(migration.up_sql.matches("-- Serves ").count(), indexes);
        }
    }
}

#[test]
fn the_example_prints_each_file_under_its_name() {
    let printed = answer(&["reviews", "--backend", "postgres"]).expect("migrations");

    let files: Vec<&str> = printed.lines().filter(|line| line.contains(" ==== ")).collect();
    assert_eq!(
        files,
        [
            "-- ==== add_asyncable_columns/up.sql",
            "-- ==== add_asyncable_columns/down.sql",
            "-- ==== index_asyncable_work/up.sql",
            "-- ==== index_asyncable_work/down.sql",
            "# ==== index_asyncable_work/metadata.toml",
        ]
    );
}

#[test]
fn the_user_of_rows_is_a_column_that_is_there_and_gets_an_index() {
    let sqlite = answer(&["reviews", "--column", "user=created_by"]).expect("a migration");
    let index = r#"CREATE INDEX "reviews_user" ON "reviews" ("created_by", "submitted_at");"#;
    assert!(sqlite.contains(index) && sqlite.contains(r#"DROP INDEX "reviews_user";"#), "{sqlite}");
    assert!(!sqlite.contains(r#"COLUMN "created_by""#), "{sqlite}");

    let arguments = ["reviews", "--backend", "postgres", "--column", "user=created_by"];
    let postgres = answer(&arguments).expect("migrations");

    let index =
        r#"CREATE INDEX CONCURRENTLY "reviews_user" ON "reviews" ("created_by", "submitted_at");"#;
    assert!(postgres.contains("-- ==== index_asyncable_user/up.sql") && postgres.contains(index));
    assert!(postgres.contains("# ==== index_asyncable_user/metadata.toml"), "{postgres}");
}

#[test]
fn the_example_takes_every_option() {
    let arguments = "benefits.reviews --prefix est_ --column error=what_failed --with canceled_at \
         --with-time-zone --index waiting --backend sqlite";

    let printed = answer(&arguments.split(' ').collect::<Vec<_>>()).expect("migrations");

    let statements: Vec<&str> =
        printed.lines().filter(|line| !line.is_empty() && !line.starts_with("--")).collect();
    assert_eq!(
        statements,
        [
            r#"ALTER TABLE "benefits"."reviews" ADD COLUMN "est_submitted_at" TIMESTAMPTZ;"#,
            r#"ALTER TABLE "benefits"."reviews" ADD COLUMN "est_attempted_at" TIMESTAMPTZ;"#,
            r#"ALTER TABLE "benefits"."reviews" ADD COLUMN "est_processed_at" TIMESTAMPTZ;"#,
            r#"ALTER TABLE "benefits"."reviews" ADD COLUMN "what_failed" TEXT;"#,
            r#"ALTER TABLE "benefits"."reviews" ADD COLUMN "est_canceled_at" TIMESTAMPTZ;"#,
            r#"CREATE INDEX "benefits"."waiting" ON "reviews" ("est_attempted_at", "est_submitted_at")"#,
            r#"  WHERE "est_processed_at" IS NULL AND "est_canceled_at" IS NULL;"#,
            r#"DROP INDEX "benefits"."waiting";"#,
            r#"ALTER TABLE "benefits"."reviews" DROP COLUMN "est_submitted_at";"#,
            r#"ALTER TABLE "benefits"."reviews" DROP COLUMN "est_attempted_at";"#,
            r#"ALTER TABLE "benefits"."reviews" DROP COLUMN "est_processed_at";"#,
            r#"ALTER TABLE "benefits"."reviews" DROP COLUMN "what_failed";"#,
            r#"ALTER TABLE "benefits"."reviews" DROP COLUMN "est_canceled_at";"#,
        ]
    );
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let long = "a".repeat(60);
    let cases: [(&[&str], &str); 12] = [
        (&[], "which table? see --help"),
        (&[""], "the name of the table is empty"),
        (&["benefits."], "the name of the table is empty"),
        (&[".reviews"], "the name of the schema is empty"),
        (&["a", "b"], "one table at a time, \"b\" is a second; see --help"),
        (&["a", "--queue"], "unknown option --queue; see --help"),
        (&["a", "--backend"], "--backend needs a value; see --help"),
        (&["a", "--backend", "mysql"], "unknown backend \"mysql\"; it must be sqlite or postgres"),
        (&["a", "--column", "error"], "--column takes ROLE=NAME, not \"error\""),
        (
            &["a", "--with", "done_at"],
            "unknown role \"done_at\"; it must be submitted_at, last_submitted_at, attempted_at, \
             processed_at, error, canceled_at or user",
        ),
        (
            &["a", "--column", "error=Submitted_at"],
            "submitted_at and error are both named \"Submitted_at\"",
        ),
        (
            &[&long, "--backend", "postgres"],
            &format!(
                "the name of the index, \"{long}_work\", is 65 bytes long; PostgreSQL keeps 63"
            ),
        ),
    ];

    for (arguments, message) in cases {
        assert_eq!(answer(arguments), Err(message.to_owned()), "{arguments:?}");
    }
}
