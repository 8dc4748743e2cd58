//! Whether a claim costs the same however many rows wait: `cargo bench --bench waiting`, `-- --quick` for a
//! smaller run. PostgreSQL as in `drain`.

#![allow(missing_docs, clippy::print_stdout, reason = "a program, not a library")]

#[path = "support.rs"]
mod support;

use std::time::{Duration, Instant};

use asyncable::measure;
use chrono::{TimeDelta, Utc};
use diesel::{connection::SimpleConnection, prelude::*};

use support::{Job, Measured};

/// Makes `rows` rows, a third each due, expired and processed, and answers the median of claims of 64.
fn claim_of_64<C: Measured>(conn: &mut C, rows: u64) -> Duration
where
    Job: asyncable::Stored<C::Backend>,
{
    let now = Utc::now();
    let at = |days: i64| format!("'{}'", (now - TimeDelta::days(days)).format("%F %T%.6f"));
    let (due, expired) = (at(1), at(30));
    conn.batch_execute("DELETE FROM jobs").expect("emptied");
    let third = rows / 3;
    conn.add(0, third, &format!("{due}, {due}, NULL, NULL, NULL, NULL"));
    conn.add(third, third, &format!("{expired}, {expired}, NULL, NULL, NULL, NULL"));
    let processed = format!("{expired}, {expired}, {expired}, {expired}, NULL, NULL");
    conn.add(2 * third, rows - 2 * third, &processed);
    conn.batch_execute(C::ANALYZE).expect("analyzed");
    let mut claims: Vec<Duration> = (0..41)
        .map(|_| {
            let began = Instant::now();
            let claimed = measure::claim_and_undo::<Job, C>(conn, now, 64).expect("a claim");
            assert_eq!(claimed, 64);
            began.elapsed()
        })
        .skip(10) // the first ones read the table's pages into memory
        .collect();
    claims.sort_unstable();
    claims[claims.len() / 2]
}

fn measure_all<C: Measured>(backend: &str, conn: &mut C, quick: bool)
where
    Job: asyncable::Stored<C::Backend>,
{
    conn.make_tables();
    let sizes: &[u64] = if quick { &[1_000, 10_000] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    let medians: Vec<(u64, Duration)> =
        sizes.iter().map(|rows| (*rows, claim_of_64(conn, *rows))).collect();
    let first = medians[0].1.as_secs_f64();
    for (rows, median) in medians {
        let median = median.as_secs_f64();
        println!(
            "waiting backend={backend} rows={rows} claim_of_64_ms={:.3} times_the_first={:.2}",
            median * 1000.0,
            median / first
        );
    }
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    #[cfg(feature = "sqlite")]
    {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("bench.db").display().to_string();
        let mut conn = SqliteConnection::establish(&file).expect("a connection");
        let pragmas = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL";
        conn.batch_execute(pragmas).expect("pragmas");
        measure_all("sqlite", &mut conn, quick);
    }
    #[cfg(feature = "postgres")]
    match support::Server::start("waiting") {
        None => println!("# postgres: skipped; it needs `./scripts/test` in front"),
        Some(server) => {
            let mut conn = PgConnection::establish(&server.url).expect("a connection");
            measure_all("postgres", &mut conn, quick);
        }
    }
}
