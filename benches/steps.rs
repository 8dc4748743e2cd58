//! What durable steps cost: rows a second whose work is 0, 1 and 3 steps that take no time themselves:
//! `cargo bench --bench steps`, `-- --quick` for a smaller run. PostgreSQL as in `drain`.
//!
//! A step waits for the turn that records its start. One turn carries the steps of all running attempts, so
//! what counts is how many run at once.
//!
//! The table of steps has those of a day's work in it when the measuring begins. On PostgreSQL, whose planner
//! goes by a table's statistics, an empty one that grows fast is slower until it is analyzed.

#![allow(missing_docs, clippy::print_stdout, reason = "a program, not a library")]

#[path = "support.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use asyncable::{Attempt, Outcome, Processor, Supervisor};
use diesel::{connection::SimpleConnection, prelude::*};

use support::{Job, Measured};

#[derive(Clone)]
struct Steps {
    a_row: usize,
    done: Arc<AtomicU64>,
}

impl Processor for Steps {
    type Model = Job;

    async fn process(&self, job: &Job, attempt: &Attempt) -> Outcome {
        for number in 0..self.a_row {
            let claim = attempt.step("establish").of(number).run(async |_| Ok(job.id)).await?;
            assert_eq!(claim, job.id);
        }
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Works off `rows` rows; answers how many a second.
fn rows_per_s<C: Measured>(
    conn: &mut C,
    connect: impl Fn() -> C + Clone + Send + Sync + 'static,
    at_once: usize,
    a_row: usize,
    rows: u64,
) -> f64
where
    Job: asyncable::Stored<C::Backend>,
{
    conn.batch_execute("DELETE FROM jobs; DELETE FROM asyncable_steps").expect("emptied");
    let of_other_rows = format!(
        "INSERT INTO asyncable_steps (model, row_id, generation, name, key, attempted_at, tries, \
         find_after, result) SELECT 'others', n, 1767268800000000, 'establish', \
         'others/' || n || '/1767268800000000/establish', CURRENT_TIMESTAMP, 1, CURRENT_TIMESTAMP, '600' \
         FROM {}",
        C::numbers(10 * rows)
    );
    conn.batch_execute(&of_other_rows).expect("steps of other rows");
    conn.add(0, rows, "CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, NULL, NULL, NULL, NULL");
    conn.batch_execute(C::ANALYZE).expect("analyzed");
    let done = Arc::new(AtomicU64::new(0));
    let supervisor = Supervisor::<C>::connecting(move || Ok(connect()))
        .processor(Steps { a_row, done: done.clone() })
        .at_once::<Steps>(at_once);
    let began = Instant::now();
    let handle = supervisor.start().expect("it starts");
    while done.load(Ordering::Relaxed) < rows || conn.open_jobs() > 0 {
        std::thread::sleep(Duration::from_micros(200));
    }
    let rows_per_s = rows as f64 / began.elapsed().as_secs_f64();
    actix_rt::System::new().block_on(handle.shutdown(Duration::ZERO));
    rows_per_s
}

fn measure<C: Measured>(
    backend: &str,
    connect: impl Fn() -> C + Clone + Send + Sync + 'static,
    quick: bool,
) where
    Job: asyncable::Stored<C::Backend>,
{
    let conn = &mut connect();
    conn.make_tables();
    let rows = if quick { 1_000 } else { 10_000 };
    for at_once in [16, 64, 256] {
        let mut no_steps = f64::NAN;
        for steps in [0, 1, 3] {
            let rows_per_s = rows_per_s(conn, connect.clone(), at_once, steps, rows);
            if steps == 0 {
                no_steps = rows_per_s;
            }
            println!(
                "steps backend={backend} at_once={at_once} steps={steps} rows_per_s={rows_per_s:.0} \
                 times_no_steps={:.2}",
                rows_per_s / no_steps
            );
        }
    }
}

#[cfg(feature = "sqlite")]
fn sqlite(synchronous: &'static str, quick: bool) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("bench.db").display().to_string();
    let connect = move || {
        let mut conn = SqliteConnection::establish(&file).expect("a connection");
        let pragmas = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous =";
        conn.batch_execute(&format!("{pragmas} {synchronous}")).expect("pragmas");
        conn
    };
    let backend = format!("sqlite-{}", synchronous.to_lowercase());
    measure::<SqliteConnection>(&backend, connect, quick);
}

#[cfg(feature = "postgres")]
fn postgres(quick: bool) {
    let Some(server) = support::Server::start("steps") else {
        println!("# postgres: skipped; it needs `./scripts/test` in front");
        return;
    };
    let url = server.url.clone();
    let connect = move || PgConnection::establish(&url).expect("a connection");
    measure::<PgConnection>("postgres", connect, quick);
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    #[cfg(feature = "sqlite")]
    for synchronous in ["NORMAL", "FULL"] {
        sqlite(synchronous, quick);
    }
    #[cfg(feature = "postgres")]
    postgres(quick);
}
