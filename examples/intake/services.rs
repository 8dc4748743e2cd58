//! The two outside services, as real HTTP servers with faults by a script, and a ledger of effects.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use asyncable::Clock;
use chrono::{DateTime, TimeDelta, Utc};

/// What a service has done: effects by service and key, kept in a file beside the database, so that a
/// killed run's effects are not forgotten.
pub struct Ledger {
    pub effects: HashMap<(String, String), u32>,
    pub calls: HashMap<String, u32>,
    tries: HashMap<String, u32>,
    file: std::fs::File,
}

impl Ledger {
    pub fn open(path: PathBuf) -> std::io::Result<Self> {
        let mut effects = HashMap::new();
        for line in std::fs::read_to_string(&path).unwrap_or_default().lines() {
            if let Some((service, key)) = line.split_once(' ') {
                *effects.entry((service.to_owned(), key.to_owned())).or_default() += 1;
            }
        }
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Ledger { effects, calls: HashMap::new(), tries: HashMap::new(), file })
    }

    fn record(&mut self, service: &str, key: &str) {
        *self.effects.entry((service.to_owned(), key.to_owned())).or_default() += 1;
        if let Err(error) = writeln!(self.file, "{service} {key}") {
            log::error!("the ledger cannot be written: {error}");
        }
    }
}

pub struct World {
    pub ledger: Mutex<Ledger>,
    pub clock: Clock,
    pub began: DateTime<Utc>,
    pub seed: u64,
}

/// Starts both services on a free port; answers their address.
pub fn start(world: Arc<World>) -> std::io::Result<String> {
    let world = web::Data::from(world);
    let app = move || {
        App::new().app_data(world.clone()).service(
            web::resource("/{service}/{file_number}")
                .route(web::post().to(call))
                .route(web::get().to(find)),
        )
    };
    let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0")?;
    let address = server.addrs().first().map(ToString::to_string).unwrap_or_default();
    actix_rt::spawn(server.run());
    Ok(format!("http://{address}"))
}

fn key_of(request: &HttpRequest) -> String {
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
    key.unwrap_or_default().to_owned()
}

async fn call(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    world: web::Data<World>,
) -> HttpResponse {
    let (service, file_number) = path.into_inner();
    let key = key_of(&request);
    let hours = (world.clock.now() - world.began) / 3600;
    let chance = {
        let Ok(mut ledger) = world.ledger.lock() else {
            return HttpResponse::InternalServerError().finish();
        };
        *ledger.calls.entry(service.clone()).or_default() += 1;
        let tries = ledger.tries.entry(format!("{service} {key}")).or_default();
        *tries += 1;
        let mut hasher = DefaultHasher::new();
        (world.seed, &service, &key, *tries).hash(&mut hasher);
        hasher.finish() % 100
    };
    actix_rt::time::sleep(Duration::from_millis(1 + chance % 4)).await;
    // The outage: VBMS is down from the second to the ninth hour.
    let down = service == "vbms" && (TimeDelta::seconds(2)..TimeDelta::seconds(9)).contains(&hours);
    if down || file_number.starts_with("000") {
        return HttpResponse::ServiceUnavailable().finish();
    }
    if service == "vbms" && file_number.starts_with("666") {
        return HttpResponse::UnprocessableEntity().finish();
    }
    match chance {
        0..=14 => return HttpResponse::InternalServerError().finish(),
        15..=17 => {
            return HttpResponse::TooManyRequests().insert_header(("retry-after", "1800")).finish();
        }
        _ => {}
    }
    if let Ok(mut ledger) = world.ledger.lock() {
        // VBMS honours keys; BGS does the work as often as it is asked.
        let known = ledger.effects.contains_key(&(service.clone(), key.clone()));
        if service != "vbms" || !known {
            ledger.record(&service, &key);
        }
    }
    match chance {
        18..=22 => HttpResponse::InternalServerError().finish(), // done, and answered with an error
        _ => HttpResponse::Ok().finish(),
    }
}

async fn find(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    world: web::Data<World>,
) -> HttpResponse {
    let entry = (path.into_inner().0, key_of(&request));
    let found = world.ledger.lock().is_ok_and(|ledger| ledger.effects.contains_key(&entry));
    if found { HttpResponse::Ok().finish() } else { HttpResponse::NotFound().finish() }
}
