//! A process killed with SIGKILL at each boundary around a step: a service that honours keys, or that can be
//! asked, has one effect in its ledger all the same. One that offers neither has two, if the process is
//! killed while it is called: the window that stays, see `docs/steps.md`.

mod support;
#[path = "support/steps.rs"]
mod with_steps;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use asyncable::{Attempt, Failure, Handle, Outcome, Processor, Service, Supervisor};
use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use tokio::sync::mpsc;

use support::on_each_backend;
use with_steps::*;

/// Where the process is when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Boundary {
    BeforeTheStep,
    /// It is recorded that the step is started; its call has not begun.
    Started,
    /// The service has done the work and not answered.
    DuringTheCall,
    /// The answer is there; the step has not returned.
    AfterTheCall,
    /// The step has returned. Its result is on its way to the database, or there.
    AfterTheResult,
    /// The next step is started, and so this one's result recorded.
    InTheNextStep,
}

use Boundary::*;

const ALL: [Boundary; 6] =
    [BeforeTheStep, Started, DuringTheCall, AfterTheCall, AfterTheResult, InTheNextStep];

/// The header that a call's key is sent in.
const KEY: &str = "idempotency-key";

/// What a service does to spare its callers doubles.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Offers {
    /// Calls under one key are one.
    Keys,
    /// It can be asked what it has of a row.
    Looking,
    Neither,
}

/// What a service has done, and what it was asked.
#[derive(Default)]
struct Ledger {
    /// The key of each call that had an effect.
    effects: Vec<String>,
    calls: usize,
    looks: usize,
    /// Does its work and does not answer; whom to tell.
    silent: Option<mpsc::UnboundedSender<()>>,
}

/// A service over HTTP, in the process that is not killed.
#[derive(Clone)]
struct Outside {
    ledger: Arc<Mutex<Ledger>>,
    offers: Offers,
}

impl Outside {
    /// Answers where it listens.
    fn start(&self) -> String {
        let outside = web::Data::new(self.clone());
        let app = move || {
            App::new()
                .app_data(outside.clone())
                .route("/claims", web::post().to(called))
                .route("/claims", web::get().to(looked))
        };
        let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0");
        let server = server.expect("a port");
        let address = server.addrs()[0];
        actix_rt::spawn(server.run());
        format!("http://{address}/claims")
    }
}

/// An effect's number, as the service's answer.
fn number(effect: usize) -> HttpResponse {
    HttpResponse::Ok().body((600 + effect).to_string())
}

async fn called(outside: web::Data<Outside>, call: HttpRequest) -> HttpResponse {
    let key = call.headers().get(KEY).and_then(|key| key.to_str().ok());
    let key = key.expect("a key").to_owned();
    let (effect, silent) = {
        let mut ledger = outside.ledger.lock().expect("a ledger");
        ledger.calls += 1;
        let known = ledger.effects.iter().position(|effect| *effect == key);
        let effect = match known.filter(|_| outside.offers == Offers::Keys) {
            Some(effect) => effect,
            None => {
                ledger.effects.push(key);
                ledger.effects.len() - 1
            }
        };
        (effect, ledger.silent.clone())
    };
    if let Some(received) = silent {
        let _ = received.send(()); // the test may have ended
        std::future::pending::<()>().await;
    }
    number(effect)
}

async fn looked(outside: web::Data<Outside>) -> HttpResponse {
    let mut ledger = outside.ledger.lock().expect("a ledger");
    ledger.looks += 1;
    match ledger.effects.len() {
        0 => HttpResponse::NotFound().finish(),
        _ => number(0),
    }
}

/// Establishes a claim at the service, and stops for good at a boundary.
struct Establish {
    client: awc::Client,
    url: String,
    looks: bool,
    stops: Option<Boundary>,
}

impl Establish {
    async fn reach(&self, boundary: Boundary) {
        if self.stops == Some(boundary) {
            std::io::stdout().write_all(REACHED.as_bytes()).expect("said");
            std::future::pending::<()>().await;
        }
    }

    async fn call(&self, key: &str) -> Outcome<u64> {
        self.reach(Started).await;
        let call = self.client.post(&self.url).insert_header((KEY, key));
        let claim = std::str::from_utf8(&call.send().await?.body().await?)?.parse()?;
        self.reach(AfterTheCall).await;
        Ok(claim)
    }

    async fn look(&self) -> Outcome<Option<u64>> {
        let mut answer = self.client.get(&self.url).send().await?;
        match answer.status().as_u16() {
            200 => Ok(Some(std::str::from_utf8(&answer.body().await?)?.parse()?)),
            404 => Ok(None),
            status => Err(Failure::transient(status)),
        }
    }
}

/// Marks what the child says among what the test harness prints there.
const REACHED: &str = "\nthe boundary is reached\n";

impl Processor for Establish {
    type Model = Claim;
    const SERVICES: &'static [Service] = &[BGS];

    async fn process(&self, _: &Claim, attempt: &Attempt) -> Outcome {
        self.reach(BeforeTheStep).await;
        let step = attempt.step("establish");
        let call = async |key: asyncable::IdempotencyKey| self.call(&key).await;
        let claim = match self.looks {
            true => step.find(async |_| self.look().await).run(call).await?,
            false => step.run(call).await?,
        };
        self.reach(AfterTheResult).await;
        let notify = attempt.step("notify").run(async |_| {
            self.reach(InTheNextStep).await;
            Ok(claim)
        });
        notify.await.map(drop)
    }
}

/// Set in the child process, a line each: its database, its service, whether that can be asked, where it stops.
const CHILD: &str = "ASYNCABLE_TEST_CHILD";

/// Killed when dropped.
struct Killed(Child);

impl Killed {
    fn start(test: &str, database: &str, service: &str, looks: bool, stops: Boundary) -> Self {
        let child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, format!("{database}\n{service}\n{looks}\n{stops:?}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        Killed(child.expect("a child"))
    }

    /// Waits until it says that it is at its boundary.
    async fn is_there(&mut self) {
        let output = BufReader::new(self.0.stdout.take().expect("its output"));
        let (told, there) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut lines = output.lines().map_while(Result::ok);
            let _ = told.send(lines.any(|line| line == REACHED.trim())); // the test may have ended
        });
        let there = tokio::time::timeout(std::time::Duration::from_secs(60), there).await;
        assert!(there.expect("within a minute").expect("a reader"), "it ended before its boundary");
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _gone_already = self.0.wait();
    }
}

/// What came of a row whose process was killed.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    effects: usize,
    calls: usize,
    looks: usize,
    /// Whether the row goes by an effect that is in the service's ledger.
    right: bool,
}

on_each_backend! {
    reads_of_the_librarys_tables!();

    fn establishing(
        database: &str,
        url: String,
        looks: bool,
        stops: Option<Boundary>,
        from: Option<DateTime<Utc>>,
    ) -> Handle {
        let supervisor = match from {
            Some(from) => supervisor::<Conn>(database, from),
            None => Supervisor::<Conn>::new(database),
        };
        let make = move || Establish { client: awc::Client::default(), url: url.clone(), looks, stops };
        supervisor.processor_with(make).start().expect("it starts")
    }

    /// Not a test of its own: what the child process runs.
    #[actix_rt::test]
    async fn child() {
        let Ok(set) = std::env::var(CHILD) else { return };
        let set: Vec<&str> = set.lines().collect();
        let [database, service, looks, stops] = set[..] else { panic!("four lines") };
        let stops = ALL.into_iter().find(|boundary| format!("{boundary:?}") == stops);
        let _handle = establishing(database, service.to_owned(), looks == "true", stops, None);
        std::future::pending::<()>().await;
    }

    /// A row is worked on by a process that is killed at a boundary, and by another one when its lease has
    /// lapsed and its call has settled.
    async fn killed(offers: Offers, boundary: Boundary) -> Came {
        let db = Db::migrated(DDL);
        // Clocks of the test and of the database need not agree to the microsecond.
        let submitted = (Utc::now() - TimeDelta::minutes(1)).naive_utc();
        let row = diesel::update(claims::table.find(1));
        row.set((claims::submitted_at.eq(submitted), claims::last_submitted_at.eq(submitted)))
            .execute(&mut db.conn())
            .expect("submitted");
        let outside = Outside { ledger: Arc::default(), offers };
        let url = outside.start();
        let (silent, mut received) = mpsc::unbounded_channel();
        if boundary == DuringTheCall {
            outside.ledger.lock().expect("a ledger").silent = Some(silent);
        }
        let looks = offers == Offers::Looking;
        let module = module_path!().split_once("::").map_or("", |(_, module)| module);
        let mut child = Killed::start(&format!("{module}::child"), &db.url(), &url, looks, boundary);
        match boundary {
            DuringTheCall => next(&mut received).await,
            _ => child.is_there().await,
        }
        drop(child);
        outside.ledger.lock().expect("a ledger").silent = None;

        let later = Utc::now() + minutes(40);
        let handle = establishing(&db.url(), url, looks, None, Some(later));
        processed(&db, 1).await;
        handle.shutdown(SOON).await;
        let ledger = outside.ledger.lock().expect("a ledger");
        let last = format!("{}", 599 + ledger.effects.len());
        let right = steps(&db, "claims", 1).iter().all(|step| step.result.as_ref() == Some(&last));
        Came { effects: ledger.effects.len(), calls: ledger.calls, looks: ledger.looks, right }
    }

    #[actix_rt::test]
    async fn a_service_that_honours_keys_has_one_effect_wherever_its_caller_is_killed() {
        for (boundary, calls) in [
            (BeforeTheStep, 1),
            (Started, 1),
            (DuringTheCall, 2),
            (AfterTheCall, 2),
            (InTheNextStep, 1),
        ] {
            let came = killed(Offers::Keys, boundary).await;
            assert_eq!(came, Came { effects: 1, calls, looks: 0, right: true }, "{boundary:?}");
        }
        // Whether the result was there in time is not known.
        let came = killed(Offers::Keys, AfterTheResult).await;
        assert_eq!((came.effects, came.right), (1, true), "{came:?}");
    }

    #[actix_rt::test]
    async fn a_service_that_can_be_asked_has_one_effect_wherever_its_caller_is_killed() {
        for (boundary, looks) in [
            (BeforeTheStep, 0),
            (Started, 1),
            (DuringTheCall, 1),
            (AfterTheCall, 1),
            (InTheNextStep, 0),
        ] {
            let came = killed(Offers::Looking, boundary).await;
            assert_eq!(came, Came { effects: 1, calls: 1, looks, right: true }, "{boundary:?}");
        }
        let came = killed(Offers::Looking, AfterTheResult).await;
        assert_eq!((came.effects, came.calls, came.right), (1, 1, true), "{came:?}");
    }

    #[actix_rt::test]
    async fn one_that_offers_neither_has_two_if_its_caller_is_killed_before_the_result_is_recorded() {
        for (boundary, effects) in [
            (BeforeTheStep, 1),
            (Started, 1),
            (DuringTheCall, 2),
            (AfterTheCall, 2),
            (InTheNextStep, 1),
        ] {
            let came = killed(Offers::Neither, boundary).await;
            assert_eq!((came.effects, came.looks, came.right), (effects, 0, true), "{boundary:?}");
        }
    }
}
