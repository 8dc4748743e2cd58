//! The two outside services, VBMS and BGS: real HTTP servers that are slow, fail and are down for hours,
//! by a script. What they did stands in the [ledger](crate::ledger).

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io,
    net::TcpListener,
    ops::Range,
    sync::Arc,
    time::Duration,
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, web};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::ledger::Ledger;

/// A service does a call's work within this of the clock, or never. With `client::GIVE_UP`, the most that
/// a call can take, it stays below the services' `settles_within`; were it above, a call could land after
/// the host has asked for it and made it again, and only the service could keep that from doubling.
const LATEST: TimeDelta = TimeDelta::hours(2);

/// When late work is done: after the caller has given up.
const LATE: Duration = Duration::from_secs(90 * 60);

/// What distinguishes one outside service from the other.
pub struct Script {
    pub name: &'static str,
    /// Minutes of each 24 hours in which it serves nobody.
    down: Range<i64>,
    /// Whether a second call under the same key does nothing more, and answers what the first one did.
    knows_keys: bool,
}

pub const VBMS: Script = Script { name: "vbms", down: 30..420, knows_keys: true };
pub const BGS: Script = Script { name: "bgs", down: 60..300, knows_keys: false };

/// What a claim under this file number comes to in the end, whatever happens on the way.
pub fn ends_as(file_number: &str) -> &'static str {
    match file_number.get(..3) {
        Some("000") => "expired",
        Some("666") => "parked",
        _ => "processed",
    }
}

/// When a call's work is done.
#[derive(Clone, Copy, PartialEq)]
enum Work {
    Now,
    Late,
    Never,
}
use Work::{Late, Never, Now};

/// When the work is done, and what is answered. Nothing: there is no answer.
type Course = (Work, Option<u16>);

/// What can be wrong with a call; each of these is as likely as the others.
const FAULTS: [Course; 12] = [
    (Never, Some(500)),
    (Never, Some(500)),
    (Never, Some(500)),
    (Never, Some(503)),
    (Never, Some(429)),
    (Never, None),
    (Now, Some(500)),
    (Now, Some(500)),
    (Now, Some(500)),
    (Now, Some(500)),
    (Now, None),
    (Late, None),
];

pub struct Service {
    pub script: Script,
    pub ledger: Arc<Ledger>,
    pub seed: u64,
    /// How many calls of a hundred meet a fault.
    pub faults: u64,
}

/// A running service.
pub struct Running {
    pub url: String,
    pub server: ServerHandle,
}

impl Service {
    /// Starts it on a free port.
    pub fn start(self) -> io::Result<Running> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let url = format!("http://{}", listener.local_addr()?);
        let service = web::Data::new(self);
        let app = move || {
            let app = App::new().app_data(service.clone());
            app.route("/{what}", web::post().to(call)).route("/{what}", web::get().to(find))
        };
        let server = HttpServer::new(app).workers(1).disable_signals().listen(listener)?.run();
        let running = Running { url, server: server.handle() };
        actix_rt::spawn(server);
        Ok(running)
    }

    /// When the outage ends, if there is one.
    pub fn down_until(script: &Script, ledger: &Ledger) -> Option<DateTime<Utc>> {
        let minutes = (ledger.clock.now() - ledger.began).num_minutes();
        let minute = minutes.rem_euclid(24 * 60);
        let end = TimeDelta::minutes(minutes - minute + script.down.end);
        script.down.contains(&minute).then(|| ledger.began + end)
    }

    /// What is wrong with the `nth` call under this key, if anything, and how long it takes: the same under
    /// the same seed, whenever the row was submitted. Each fourth call meets no fault, so that no row runs out
    /// of its days by bad luck alone.
    fn chance(&self, key: &str, nth: u64) -> (Option<Course>, Duration) {
        const GENERATION: usize = 2;
        let mut hasher = DefaultHasher::new();
        (self.seed, self.script.name, nth).hash(&mut hasher);
        let parts = key.split('/').enumerate().filter(|(at, _)| *at != GENERATION);
        parts.for_each(|(_, part)| part.hash(&mut hasher));
        let dice = hasher.finish();
        let is_faulty = nth % 4 != 3 && dice % 100 < self.faults;
        let fault = FAULTS[(dice / 100) as usize % FAULTS.len()];
        let latency = if dice % 1000 == 999 { 150 } else { 2 + dice % 8 };
        (is_faulty.then_some(fault), Duration::from_millis(latency))
    }

    fn course(&self, what: &str, body: &Value, fault: Option<Course>) -> Course {
        if Self::down_until(&self.script, &self.ledger).is_some() {
            return (Never, Some(503));
        }
        // A claim's file number is looked at when the claim is established.
        let file_number = body["file_number"].as_str().filter(|_| what == "claims");
        match file_number.map(ends_as) {
            // The file is in use, for ever: that is the row's trouble, not the service's.
            Some("expired") => (Never, Some(423)),
            Some("parked") => (Never, Some(422)),
            _ => fault.unwrap_or((Now, Some(200))),
        }
    }

    /// Does the work of a call, or not, and notes it. Answers the number of what is done under the key.
    fn work(&self, key: &str, arrived: DateTime<Utc>, (work, answer): Course) -> Option<u64> {
        let works = work != Never && self.ledger.clock.now() - arrived < LATEST;
        let entry = (works, self.script.knows_keys, answer);
        let noted = self.ledger.call(self.script.name, key, entry);
        noted.unwrap_or_else(|error| {
            log::error!("{}'s ledger cannot be written: {error}", self.script.name);
            None
        })
    }

    async fn wait(&self, duration: Duration) {
        actix_rt::time::sleep(self.ledger.clock.real(duration)).await;
    }
}

async fn call(
    request: HttpRequest,
    body: web::Json<Value>,
    of: web::Data<Service>,
) -> HttpResponse {
    let Some(key) = key(&request) else { return HttpResponse::BadRequest().finish() };
    let arrived = of.ledger.clock.now();
    let (fault, latency) = of.chance(key, of.ledger.calls(of.script.name, key).calls);
    let course = of.course(request.match_info().query("what"), &body, fault);
    actix_rt::time::sleep(latency).await;
    if course.0 == Late {
        // Apart from the caller, who may be gone by then.
        let (late, key) = (of.clone(), key.to_owned());
        actix_rt::spawn(async move {
            late.wait(LATE).await;
            late.work(&key, arrived, course);
        });
        return no_answer(&of).await;
    }
    match (course.1, of.work(key, arrived, course)) {
        (Some(200), Some(id)) => HttpResponse::Ok().json(json!({ "id": id })),
        (Some(422), _) => HttpResponse::UnprocessableEntity().finish(),
        (Some(423), _) => HttpResponse::Locked().insert_header(("retry-after", 3 * 3600)).finish(),
        (Some(429), _) => {
            HttpResponse::TooManyRequests().insert_header(("retry-after", 1800)).finish()
        }
        (Some(503), _) => HttpResponse::ServiceUnavailable().finish(),
        (Some(_), _) => HttpResponse::InternalServerError().finish(),
        (None, _) => no_answer(&of).await,
    }
}

/// What was done under this key. Answers also while calls are not served.
async fn find(request: HttpRequest, of: web::Data<Service>) -> HttpResponse {
    let Some(key) = key(&request) else { return HttpResponse::BadRequest().finish() };
    let (fault, _) = of.chance(key, of.ledger.calls(of.script.name, key).asked);
    match of.ledger.ask(of.script.name, key) {
        _ if fault.is_some() => HttpResponse::InternalServerError().finish(),
        Ok(None) => HttpResponse::NotFound().finish(),
        Ok(Some(id)) => HttpResponse::Ok().json(json!({ "id": id })),
        Err(error) => {
            log::error!("{}'s ledger cannot be written: {error}", of.script.name);
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// Longer than any caller waits.
async fn no_answer(of: &Service) -> HttpResponse {
    of.wait(LATE).await;
    HttpResponse::GatewayTimeout().finish()
}

/// The ledger's lines are words: a key with a space in it would be two.
fn key(request: &HttpRequest) -> Option<&str> {
    let key = request.headers().get("idempotency-key")?.to_str().ok()?;
    Some(key).filter(|key| !key.is_empty() && !key.contains(char::is_whitespace))
}
