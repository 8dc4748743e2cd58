//! Claims intake: the library's main job, whole. `cargo run --example intake`, then open the address it
//! prints; `-- --help` says more.
//!
//! Two outside services with failures and an outage of hours each, and a host whose claims are sent to
//! them. Time runs fast, so that days of retries pass in a minute. To read: `models.rs` (which rows do
//! work), `host/processors.rs` (the work), `client.rs` (what the services' answers mean), `host/mod.rs`
//! (starting and stopping it all). The rest is a host like any other, and the show around it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its reader")]
#![expect(unreachable_pub, reason = "its modules stand as a host's own would")]
#![cfg_attr(
    feature = "postgres",
    expect(clippy::duplicate_mod, reason = "the host is compiled for each kind of connection")
)]

mod args;
mod claim;
mod client;
mod ledger;
mod models;
mod outage;
mod page;
#[cfg(feature = "postgres")]
mod postgres;
mod report;
mod schema;
mod services;
mod sqlite;

use std::{net::TcpListener, process::ExitCode};

use args::Args;
use report::Report;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[actix_web::main]
async fn main() -> ExitCode {
    // The supervisor's log has a line for each row that is parked or expired; here they are counted.
    let quiet = env_logger::Env::default()
        .default_filter_or("warn,asyncable::supervisor::processor=off,r2d2=off");
    env_logger::Builder::from_env(quiet).init();
    match run().await {
        Ok(code) => code,
        Err(why) => {
            eprintln!("intake: {}", one_line(&why));
            ExitCode::from(2)
        }
    }
}

/// What a database says may be several lines.
fn one_line(error: &BoxError) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn run() -> Result<ExitCode, BoxError> {
    let Some(args) = Args::read(std::env::args().skip(1))? else {
        print!("{}", args::HELP);
        return Ok(ExitCode::SUCCESS);
    };
    // Before anything else is started.
    let page = TcpListener::bind(("127.0.0.1", args.port))
        .map_err(|error| format!("port {}: {error}; try --port 0", args.port))?;
    let report = match args.is_postgres() {
        false => sqlite::run(&args, page, asked_to_stop()).await?,
        #[cfg(feature = "postgres")]
        true => postgres::run(&args, page, asked_to_stop()).await?,
        #[cfg(not(feature = "postgres"))]
        true => return Err("postgres:// needs cargo run --features postgres".into()),
    };
    Ok(tell(&report))
}

fn tell(report: &Report) -> ExitCode {
    println!("\n{}", report.table);
    let Report { off_script, missing, doubled, .. } = report;
    let wrong: Vec<&String> = doubled.iter().chain(missing).chain(off_script).collect();
    wrong.iter().take(20).for_each(|why| println!("{why}"));
    if report.told {
        let untold = wrong.iter().filter(|why| why.ends_with("no event said so")).count();
        let told = report.expired - untold;
        println!("{} rows have expired, and of {told} an event said so", report.expired);
    }
    let (off_script, missing, doubled) = (off_script.len(), missing.len(), doubled.len());
    println!("{off_script} rows not as scripted, {missing} steps missing, {doubled} doubled");
    if report.pending > 0 {
        println!("{} rows are pending: the next run goes on with them", report.pending);
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Comes back at Ctrl-C or SIGTERM; from then on the next one ends the process at once.
async fn asked_to_stop() {
    signal().await;
    actix_rt::spawn(async {
        signal().await;
        std::process::exit(130);
    });
}

async fn signal() {
    #[cfg(unix)]
    {
        use actix_rt::signal::unix::{SignalKind, signal};
        if let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    if actix_rt::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await; // nobody can ask
    }
}
