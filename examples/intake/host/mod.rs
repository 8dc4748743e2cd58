//! The host: what it takes to start the supervisor beside a web server, and to stop both well.
//!
//! It is compiled once for each kind of connection; `super` says which.

mod login;
mod outages;
mod processors;
mod rows;
mod web;

use std::{
    net::TcpListener,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use asyncable::{Event, Handle, Supervisor};
use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    connection::SimpleConnection,
    prelude::*,
    r2d2::{ConnectionManager, CustomizeConnection, Pool},
};
use diesel_migrations::MigrationHarness;

use super::{Conn, MIGRATIONS, SETUP};
use crate::{
    BoxError,
    args::{Args, Import},
    claim::Claim,
    client::{BGS, Outside, VBMS},
    ledger::{Ledger, counted},
    models::{HigherLevelReview, RequestIssue, SupplementalClaim},
    one_line,
    report::{self, Counts, Report, Told},
    services::{self, Service},
};
use processors::{EstablishClaim, EstablishReview, FireTimer, SyncDecision};

const HOUR: Duration = Duration::from_secs(3600);

/// How long a stop waits for attempts that are under way.
const GRACE: Duration = Duration::from_secs(10);

/// How much longer a row can be tried that has expired by its columns: more than the outages of its days.
const LONGEST: TimeDelta = TimeDelta::days(3);

/// What the web server's handlers share.
#[derive(Clone)]
pub struct Host {
    pool: Pool<ConnectionManager<Conn>>,
    asyncable: Handle,
    ledger: Arc<Ledger>,
}

/// Runs until it is stopped, or idle if that is asked for.
pub async fn run(
    args: &Args,
    page: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<Report, BoxError> {
    let at_database = |why: BoxError| format!("{}: {why}", args.database());
    let (pool, is_empty) = open(&args.url).map_err(at_database)?;
    let file = args.ledger();
    let ledger = Ledger::open(&file, is_empty, args.speed)
        .map_err(|error| format!("{}: {error}", file.display()))?;
    let ledger = Arc::new(ledger);
    let (seed, faults) = (args.seed, args.faults);
    let service = |script| Service { script, ledger: ledger.clone(), seed, faults }.start();
    let (vbms, bgs) = (service(services::VBMS)?, service(services::BGS)?);
    let asyncable = supervise(&args.url, &ledger, vbms.url.clone(), bgs.url.clone())?;

    let host = Host { pool, asyncable, ledger };
    let place = page.local_addr()?;
    let server = web::serve(host.clone(), page)?;
    let web = server.handle();
    let time = actix_rt::spawn(host.clone().keep_time());
    actix_rt::spawn(server);
    println!("intake: http://{place} (an hour passes in {:.1?})", host.ledger.clock.real(HOUR));

    tokio::select! {
        () = host.work(args) => {}
        () = stop => println!("intake: stopping; a second Ctrl-C ends at once"),
    }

    // First nothing new comes in, then the attempts end, and only then what they call.
    web.stop(true).await;
    host.asyncable.shutdown(GRACE).await;
    vbms.server.stop(false).await;
    bgs.server.stop(false).await;
    time.abort();
    let rows = host.ask(rows::all).await?;
    let outages = host.ask(|conn, _| outages::all(conn)).await?;
    let told = told_expired();
    Ok(Report::of(&rows, &host.ledger, &outages, host.ledger.is_new.then_some(&told)))
}

/// A pool of connections to a database that has all tables, and whether it holds no claims yet.
fn open(url: &str) -> Result<(Pool<ConnectionManager<Conn>>, bool), BoxError> {
    let mut conn = Conn::establish(url)?;
    conn.batch_execute(SETUP)?;
    asyncable::migrate(&mut conn)?; // beside the host's own
    conn.run_pending_migrations(MIGRATIONS)?;
    let is_empty = rows::is_empty(&mut conn)?;
    let pool = Pool::builder()
        .max_size(4)
        .connection_timeout(Duration::from_secs(5))
        .connection_customizer(Box::new(Setup))
        .build_unchecked(ConnectionManager::new(url));
    Ok((pool, is_empty))
}

#[derive(Debug)]
struct Setup;

impl CustomizeConnection<Conn, diesel::r2d2::Error> for Setup {
    fn on_acquire(&self, conn: &mut Conn) -> Result<(), diesel::r2d2::Error> {
        conn.batch_execute(SETUP).map_err(diesel::r2d2::Error::QueryError)
    }
}

fn supervise(
    url: &str,
    ledger: &Arc<Ledger>,
    vbms: String,
    bgs: String,
) -> Result<Handle, asyncable::StartError> {
    let outside = |service, url: String| {
        let clock = ledger.clock.clone();
        move || Outside::new(service, &url, &clock)
    };
    let (vbms, bgs) = (outside(VBMS, vbms), outside(BGS, bgs));
    let also_vbms = vbms.clone();
    let review = move || EstablishReview { vbms: vbms() };
    let claim = move || EstablishClaim { vbms: also_vbms() };
    let issue = move || SyncDecision { bgs: bgs() };
    Supervisor::<Conn>::new(url)
        .processor_with(counted(ledger, review))
        .processor_with(counted(ledger, claim))
        .processor_with(counted(ledger, issue))
        .processor_with(counted(ledger, || FireTimer))
        .on_event(tell)
        // For the show: time runs fast, so the sweep and the leases, which go by the wall, are short.
        .clock(ledger.clock.clone())
        .sweep_every(Duration::from_millis(100))
        .lease_for(Duration::from_secs(5))
        .start()
}

/// Rows whose lease has lapsed: a killed run was working on them, or the database was away.
static LAPSED: AtomicU64 = AtomicU64::new(0);

/// Rows of which an event said that they have expired.
static EXPIRED: Mutex<Told> = Mutex::new(Told::new());

fn told_expired() -> Told {
    EXPIRED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What a person at the terminal should know at once. What comes of single rows is counted, not told.
fn tell(event: &Event) {
    match event {
        Event::Lost { .. } => drop(LAPSED.fetch_add(1, Ordering::Relaxed)),
        Event::Expired { model, id } => {
            let mut expired = EXPIRED.lock().unwrap_or_else(PoisonError::into_inner);
            expired.insert((*model, id.clone()));
        }
        Event::DatabaseAway { model } => {
            println!("intake: the database does not take the work of {model}; waiting");
        }
        Event::DatabaseBack { model } => {
            println!("intake: the database takes the work of {model} again");
        }
        _ => {}
    }
}

impl Host {
    /// Files what is to be filed; then comes back when nothing is pending, if that is asked for. A database
    /// that is away for a while is not the end: the supervisor waits for it too.
    async fn work(&self, args: &Args) {
        if let Some(import) = &args.import {
            self.import(import).await;
        }
        let mut told = String::new();
        let mut idle_since = None;
        loop {
            actix_rt::time::sleep(Duration::from_secs(1)).await;
            let lapsed = LAPSED.swap(0, Ordering::Relaxed);
            if lapsed > 0 {
                println!("intake: the leases of {lapsed} rows have lapsed; they are due again");
            }
            let Ok(counts) = self.ask(rows::counts).await else { continue };
            let progress = report::progress(&counts);
            if progress != told {
                println!("{}  {progress}", self.ledger.clock.now().format("%a %d %b %H:%M"));
                told = progress;
            }
            if !args.until_idle || report::pending(&counts) > 0 {
                continue;
            }
            let since = *idle_since.get_or_insert(self.ledger.clock.now());
            if self.is_told_of(&counts) || self.ledger.clock.now() - since > LONGEST {
                return;
            }
        }
    }

    /// Whether events have said of all expired rows that they are. By its columns a row is expired after four
    /// days; the library tries it for as much longer as its service was down, and says so after that.
    fn is_told_of(&self, counts: &Counts) -> bool {
        let expired = usize::try_from(report::in_state(counts, "expired")).unwrap_or_default();
        !self.ledger.is_new || told_expired().len() >= expired
    }

    async fn import(&self, import: &Import) {
        let mut told = false;
        loop {
            let next = import.clone();
            match self.ask(move |conn, now| rows::import(conn, now, &next)).await {
                Ok(0) => return self.wake(),
                Ok(_) => self.wake(),
                // Tried again: what is filed is noted in the transaction that files it.
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        println!("intake: the claims cannot be filed yet: {}", one_line(&error));
                    }
                    actix_rt::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Writes a claim of the clerk's and submits its work; it begins as soon as that is committed.
    async fn file(&self, claim: Claim) -> Result<String, BoxError> {
        let name = self.ask(move |conn, now| rows::file(conn, now, &claim, login::CLERK)).await?;
        self.wake();
        Ok(name)
    }

    fn wake(&self) {
        self.asyncable.wake::<HigherLevelReview>();
        self.asyncable.wake::<SupplementalClaim>();
        self.asyncable.wake::<RequestIssue>();
    }

    async fn keep_time(self) {
        loop {
            if let Err(error) = self.ledger.keep_time() {
                log::error!("the ledger cannot be written: {error}");
            }
            actix_rt::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Asks the database, on a thread where that may take its time.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Conn, DateTime<Utc>) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, BoxError> {
        let (pool, now) = (self.pool.clone(), self.ledger.clock.now());
        let asked = move || -> Result<T, BoxError> { Ok(ask(&mut *pool.get()?, now)?) };
        actix_web::web::block(asked).await?
    }
}
