//! The two outside services, VBMS and BGS: real HTTP servers that are slow, fail and are down for hours,
//! by a script. What they did stands in the [ledger](crate::ledger).

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::TcpListener,
    ops::Range,
    sync::Arc,
    time::Duration,
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, web};
use chrono::{DateTime, TimeDelta, Utc};

use crate::ledger::Ledger;

/// What distinguishes one outside service from the other.
pub struct Script {
    pub name: &'static str,
    /// Minutes of each 24 hours in which it serves nobody.
    down: Range<i64>,
    /// Whether a second call under the same key does nothing more.
    knows_keys: bool,
    /// Whether it looks at file numbers at all.
    particular: bool,
}

pub const VBMS: Script = Script { name: "vbms", down: 30..420, knows_keys: true, particular: true };
pub const BGS: Script = Script { name: "bgs", down: 60..300, knows_keys: false, particular: false };

/// What a call under this file number comes to in the end, whatever happens on the way.
pub fn ends_as(file_number: &str) -> &'static str {
    match file_number.get(..3) {
        Some("000") => "expired",
        Some("666") => "parked",
        _ => "processed",
    }
}

pub struct Service {
    pub script: Script,
    pub ledger: Arc<Ledger>,
    pub seed: u64,
}

/// A running service.
pub struct Running {
    pub url: String,
    pub server: ServerHandle,
}

impl Service {
    /// Starts it on a free port.
    pub fn start(self) -> std::io::Result<Running> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let url = format!("http://{}", listener.local_addr()?);
        let service = web::Data::new(self);
        let app = move || {
            let app = App::new().app_data(service.clone());
            app.route("/calls", web::post().to(call)).route("/calls", web::get().to(find))
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

    /// 0 to 99: the same for the same call of the same row under the same seed.
    fn chance(&self, key: &str) -> u64 {
        let row = key.rsplit_once('/').map_or(key, |(row, _generation)| row);
        let mut hasher = DefaultHasher::new();
        let calls = self.ledger.calls(self.script.name, key).calls;
        (self.seed, self.script.name, row, calls).hash(&mut hasher);
        hasher.finish() % 100
    }

    /// Whether the work is done, and what is answered. Nothing: there is no answer.
    fn outcome(&self, file_number: &str, chance: u64) -> (bool, Option<u16>) {
        if Self::down_until(&self.script, &self.ledger).is_some() {
            return (false, Some(503));
        }
        match ends_as(file_number) {
            "expired" if self.script.particular => return (false, Some(500)),
            "parked" if self.script.particular => return (false, Some(422)),
            _ => {}
        }
        match chance {
            0..8 => (false, Some(500)),
            8..11 => (false, Some(429)),
            11..16 => (true, Some(500)),
            16 => (true, None),
            _ => (true, Some(200)),
        }
    }
}

#[derive(serde::Deserialize)]
struct Call {
    file_number: String,
}

async fn call(request: HttpRequest, call: web::Json<Call>, of: web::Data<Service>) -> HttpResponse {
    let Some(key) = key(&request) else { return HttpResponse::BadRequest().finish() };
    let chance = of.chance(key);
    let latency = if chance == 99 { 150 } else { 2 + chance % 8 };
    actix_rt::time::sleep(Duration::from_millis(latency)).await;
    let (works, answer) = of.outcome(&call.file_number, chance);
    let entry = (works, of.script.knows_keys, answer.unwrap_or(0));
    if let Err(error) = of.ledger.call(of.script.name, key, entry) {
        log::error!("{}'s ledger cannot be written: {error}", of.script.name);
        return HttpResponse::InternalServerError().finish();
    }
    match answer {
        Some(200) => HttpResponse::Ok().finish(),
        Some(422) => HttpResponse::UnprocessableEntity().finish(),
        Some(429) => HttpResponse::TooManyRequests().insert_header(("retry-after", 1800)).finish(),
        Some(503) => HttpResponse::ServiceUnavailable().finish(),
        Some(_) => HttpResponse::InternalServerError().finish(),
        None => {
            actix_rt::time::sleep(Duration::from_secs(60)).await; // longer than any client waits
            HttpResponse::GatewayTimeout().finish()
        }
    }
}

/// Whether the work was done under this key. Answers also while calls are not served.
async fn find(request: HttpRequest, of: web::Data<Service>) -> HttpResponse {
    match key(&request).map(|key| of.ledger.calls(of.script.name, key).effects) {
        None => HttpResponse::BadRequest().finish(),
        Some(0) => HttpResponse::NotFound().finish(),
        Some(_) => HttpResponse::Ok().finish(),
    }
}

/// The ledger's lines are words: a key with a space in it would be two.
fn key(request: &HttpRequest) -> Option<&str> {
    let key = request.headers().get("idempotency-key")?.to_str().ok()?;
    Some(key).filter(|key| !key.is_empty() && !key.contains(char::is_whitespace))
}
