//! Health, for machines: whether the process answers, whether it could work, and whether work goes on.
//!
//! Without a login, and without a name of a row or a person; models and services are counted, not named.

use std::time::Duration;

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde::Serialize;

use super::json;
use crate::{
    dashboard::answer::{Page, Refusal},
    supervisor::page::{GetHouse, GetNames, PageAsk, PageFact},
};

/// An answer about health. What it does not say is left out.
#[derive(Default, Serialize)]
struct Health {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hosts: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    services_down: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    models_waiting: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_wait_s: Option<u64>,
}

fn told(health: &Health) -> HttpResponse {
    let status = if health.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, health)
}

fn unwell(why: &'static str) -> Health {
    Health { why: Some(why), ..Health::default() }
}

const SILENT: &str = "the database does not answer";

/// 200 while some host is alive and the database answers, 503 otherwise.
pub(super) async fn health(page: Data<Page>) -> HttpResponse {
    told(&match page.ask(GetHouse(None)).await {
        Ok(house) if house.hosts.is_empty() => unwell("no host is alive"),
        Ok(house) => Health {
            ok: true,
            hosts: Some(house.hosts.len()),
            services_down: Some(house.services.iter().filter(|service| service.open).count()),
            ..Health::default()
        },
        Err(_) => unwell(SILENT),
    })
}

/// 200: this process answers. One that does not should be started anew.
pub(super) async fn live() -> HttpResponse {
    told(&Health { ok: true, ..Health::default() })
}

/// 200 while the supervisor of this process runs and the database answers it, 503 otherwise.
pub(super) async fn ready(page: Data<Page>) -> HttpResponse {
    told(&match page.ask(GetHouse(None)).await {
        Ok(_) => Health { ok: true, ..Health::default() },
        Err(_) => unwell(SILENT),
    })
}

/// 503 where due rows of some model have waited for too long and nobody works on it, though they could run;
/// 200 otherwise.
pub(super) async fn progressing(page: Data<Page>) -> HttpResponse {
    let within = page.0.progress_within;
    told(&match stuck(&page, within).await {
        Ok(waits) if waits.is_empty() => Health { ok: true, ..Health::default() },
        Ok(waits) => Health {
            models_waiting: Some(waits.len()),
            longest_wait_s: waits.iter().max().map(Duration::as_secs),
            ..unwell("due rows wait, and no host works on them")
        },
        Err(_) => unwell(SILENT),
    })
}

/// How long the models have waited on which nobody works.
async fn stuck(page: &Page, within: Duration) -> Result<Vec<Duration>, Refusal> {
    let mut stuck = Vec::new();
    for (model, _) in page.ask(GetNames).await?.models {
        let asked = page.model(model, PageAsk::Progress { lately: within }).await?;
        let PageFact::Progress(progress) = asked else { continue };
        stuck.extend(progress.waits.filter(|waits| *waits > within && !progress.moves));
    }
    Ok(stuck)
}
