//! How fast rows are worked off that take no time themselves, and how soon a submitted row is started:
//! `cargo bench --bench drain`, `-- --quick` for a smaller run.
//!
//! `bare` are the claim and settle statements alone in turns as large as the supervisor's largest, on the
//! same rows, in the same run. PostgreSQL needs `--features postgres` and `./scripts/test` in front, which
//! says where its programs are; it is measured with its default durability.

#![allow(missing_docs, clippy::print_stdout, reason = "a program, not a library")]

#[path = "support.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use asyncable::{Attempt, Outcome, Processor, Submit, Supervisor, measure};
use diesel::{connection::SimpleConnection, prelude::*};

use support::{Job, Measured};

#[derive(Clone)]
struct Nothing {
    done: Arc<AtomicUsize>,
    started: Option<mpsc::Sender<Instant>>,
}

impl Processor for Nothing {
    type Model = Job;
    const AT_ONCE: usize = 16;

    async fn process(&self, _: &Job, _: &Attempt) -> Outcome {
        self.done.fetch_add(1, Ordering::Relaxed);
        if let Some(started) = &self.started {
            let _ = started.send(Instant::now()); // the measuring may be over
        }
        Ok(())
    }
}

struct Figures {
    rows_per_s: f64,
    bare_rows_per_s: f64,
    p50: Duration,
    p99: Duration,
}

/// The rows that a supervisor's largest turn claims.
const BATCH: usize = 256;

fn measure<C: Measured>(
    connect: impl Fn() -> C + Clone + Send + Sync + 'static,
    rows: u64,
    submits: usize,
) -> Figures
where
    Job: asyncable::Stored<C::Backend>,
{
    let conn = &mut connect();
    conn.make_tables();
    let due = "'2026-01-01', CURRENT_TIMESTAMP, NULL, NULL, NULL, NULL";
    conn.add(0, rows, due);
    conn.batch_execute(C::ANALYZE).expect("analyzed");
    let began = Instant::now();
    let drained = measure::drain::<Job, C>(conn, BATCH).expect("drained");
    let bare_rows_per_s = drained as f64 / began.elapsed().as_secs_f64();
    assert_eq!(drained as u64, rows);

    conn.batch_execute("DELETE FROM jobs").expect("emptied");
    conn.add(rows, rows, due);
    conn.batch_execute(C::ANALYZE).expect("analyzed");
    let done = Arc::new(AtomicUsize::new(0));
    let (sender, started) = mpsc::channel();
    let supervisor = |started| {
        let connect = connect.clone();
        Supervisor::<C>::connecting(move || Ok(connect()))
            .processor(Nothing { done: done.clone(), started })
            .start()
            .expect("it starts")
    };
    let began = Instant::now();
    let handle = supervisor(None);
    while (done.load(Ordering::Relaxed) as u64) < rows {
        std::thread::sleep(Duration::from_micros(200));
    }
    while conn.open_jobs() > 0 {
        std::thread::sleep(Duration::from_micros(200));
    }
    let rows_per_s = rows as f64 / began.elapsed().as_secs_f64();
    let system = actix_rt::System::new();
    system.block_on(handle.shutdown(Duration::ZERO));

    conn.add(2 * rows, submits as u64, "NULL, NULL, NULL, NULL, NULL, NULL");
    conn.batch_execute(C::ANALYZE).expect("analyzed");
    let handle = supervisor(Some(sender));
    let mut waits: Vec<Duration> = system.block_on(async {
        let mut waits = Vec::new();
        for id in 2 * rows + 1..=2 * rows + submits as u64 {
            actix_rt::time::sleep(Duration::from_millis(10)).await;
            let asked = Instant::now();
            let id = i64::try_from(id).expect("a small number");
            handle.send(Submit::<Job>::new(id)).await.expect("submitted");
            let started = started.recv_timeout(Duration::from_secs(10)).expect("started");
            waits.push(started.saturating_duration_since(asked));
        }
        handle.shutdown(Duration::ZERO).await;
        waits
    });
    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() * percent / 100).min(waits.len() - 1)];
    Figures { rows_per_s, bare_rows_per_s, p50: at(50), p99: at(99) }
}

/// The most memory that this process has had, in MiB.
fn rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|kib| kib.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

#[cfg(feature = "sqlite")]
fn sqlite(synchronous: &'static str, rows: u64, submits: usize) -> Option<Figures> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("bench.db").display().to_string();
    let connect = move || {
        let mut conn = SqliteConnection::establish(&file).expect("a connection");
        let pragmas = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous =";
        conn.batch_execute(&format!("{pragmas} {synchronous}")).expect("pragmas");
        conn
    };
    Some(measure::<SqliteConnection>(connect, rows, submits))
}

#[cfg(feature = "postgres")]
fn postgres(rows: u64, submits: usize) -> Option<Figures> {
    let server = support::Server::start("drain")?;
    let url = server.url.clone();
    let connect = move || PgConnection::establish(&url).expect("a connection");
    Some(measure::<PgConnection>(connect, rows, submits))
}

fn run(backend: &str, quick: bool) -> Option<Figures> {
    let (rows, submits) = if quick { (2_000, 50) } else { (20_000, 300) };
    match backend {
        #[cfg(feature = "sqlite")]
        "sqlite-normal" => sqlite("NORMAL", rows, submits),
        #[cfg(feature = "sqlite")]
        "sqlite-full" => sqlite("FULL", rows, submits),
        #[cfg(feature = "postgres")]
        "postgres" => postgres(rows, submits),
        _ => None,
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    if let Some(backend) = arguments.iter().find_map(|argument| argument.strip_prefix("--only=")) {
        // A process of its own, so that memory is this backend's.
        let Some(figures) = run(backend, quick) else {
            println!("# {backend}: skipped; it needs its feature, and PostgreSQL `./scripts/test`");
            return;
        };
        let Figures { rows_per_s, bare_rows_per_s, p50, p99 } = figures;
        let ms = |wait: Duration| wait.as_secs_f64() * 1000.0;
        println!(
            "drain backend={backend} rows_per_s={rows_per_s:.0} bare_rows_per_s={bare_rows_per_s:.0} \
             ratio={:.2} p50_ms={:.2} p99_ms={:.2} rss_mib={:.0}",
            rows_per_s / bare_rows_per_s,
            ms(p50),
            ms(p99),
            rss_mib()
        );
        return;
    }
    let me = std::env::current_exe().expect("this program");
    let mut lines = Vec::new();
    for backend in ["sqlite-normal", "sqlite-full", "postgres"] {
        let mut child = std::process::Command::new(&me);
        child.arg(format!("--only={backend}")).args(quick.then_some("--quick"));
        let output = child.stderr(std::process::Stdio::inherit()).output().expect("it runs");
        assert!(output.status.success(), "{backend}");
        lines.push(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let columns = ["rows/s", "bare rows/s", "ratio", "p50 ms", "p99 ms", "rss MiB"];
    println!("{:<14}{}", "backend", columns.map(|column| format!("{column:>12}")).concat());
    for line in lines.iter().filter(|line| line.starts_with("drain")) {
        let values = line.split(' ').skip(1).filter_map(|pair| pair.split_once('='));
        let mut values = values.map(|(_, value)| value);
        let backend = values.next().unwrap_or_default();
        println!("{backend:<14}{}", values.map(|value| format!("{value:>12}")).collect::<String>());
    }
    lines.iter().for_each(|line| println!("{line}"));
}
