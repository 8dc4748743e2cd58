//! What programs ask: the pages' content as JSON, the reports, and health.
//!
//! `openapi.json` describes all of it; [`OPERATIONS`] is what the routes are made of, and tests hold the two
//! together (`tests/api.rs`). Who somebody is and what they may is asked exactly as for the pages.

mod bulk;
mod handlers;
mod health;
mod mine;
mod reports;
mod types;

use actix_web::{
    HttpRequest, HttpResponse, Resource, Route,
    error::{JsonPayloadError, PathError, QueryPayloadError},
    guard,
    http::{StatusCode, header},
    web,
};
use serde::Serialize;

use super::answer::{Answer, Own, Refusal, base, secured};

/// What is described in `openapi.json`.
const DESCRIPTION: &str = include_str!("../openapi.json");

/// Largest body that is read, in bytes: room for 500 long ids.
const BODY: usize = 256 * 1024;

/// A route, as the description names it.
pub(crate) struct Operation {
    /// `get` or `post`.
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    route: fn() -> Route,
}

const fn get(path: &'static str, route: fn() -> Route) -> Operation {
    Operation { method: "get", path, route }
}

const fn post(path: &'static str, route: fn() -> Route) -> Operation {
    Operation { method: "post", path, route }
}

/// All that programs may ask.
pub(crate) const OPERATIONS: [Operation; 30] = [
    get("/api/openapi.json", || web::to(description)),
    get("/api/overview", || web::to(handlers::overview)),
    get("/api/rows", || web::to(handlers::rows)),
    post("/api/find", || web::to(handlers::find)),
    post("/api/rows/{model}/restart", || web::to(handlers::restart_many)),
    get("/api/rows/{model}/{id}", || web::to(handlers::row)),
    post("/api/rows/{model}/{id}/restart", || web::to(handlers::restart)),
    post("/api/rows/{model}/{id}/cancel", || web::to(handlers::cancel)),
    post("/api/rows/{model}/{id}/notes", || web::to(handlers::note)),
    post("/api/bulk/{model}", || web::to(bulk::preview)),
    post("/api/bulk/{model}/begin", || web::to(bulk::begin)),
    get("/api/bulk/{model}/{id}", || web::to(bulk::bulk)),
    post("/api/bulk/{model}/{id}/stop", || web::to(bulk::stop)),
    get("/api/mine", || web::to(mine::mine)),
    post("/api/mine/messages/{id}/read", || web::to(mine::read)),
    get("/api/hours/{from}", || web::to(handlers::hour)),
    get("/api/models/{model}", || web::to(handlers::model)),
    post("/api/models/{model}/pause", || web::to(handlers::pause)),
    post("/api/models/{model}/resume", || web::to(handlers::resume)),
    get("/api/services/{name}", || web::to(handlers::service)),
    post("/api/services/{name}/hold", || web::to(handlers::hold)),
    post("/api/services/{name}/release", || web::to(handlers::release)),
    post("/api/services/{name}/ask", || web::to(handlers::ask)),
    get("/report.txt", || web::to(reports::text)),
    get("/report.csv", || web::to(reports::table)),
    get("/rows.csv", || web::to(reports::rows)),
    get("/health.json", || web::to(health::health)),
    get("/health/live", || web::to(health::live)),
    get("/health/ready", || web::to(health::ready)),
    get("/health/progressing", || web::to(health::progressing)),
];

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    for operation in &OPERATIONS {
        config.service(resource(operation));
    }
}

fn resource(operation: &Operation) -> Resource {
    // The method is the resource's, not the route's: what has another one is looked for further on. A
    // row's id may be `restart`.
    let resource = web::resource(operation.path).app_data(Own(operation.path));
    let resource = match operation.method {
        "post" => resource.guard(guard::Post()),
        _ => resource.guard(guard::Any(guard::Get()).or(guard::Head())),
    };
    resource
        .app_data(web::JsonConfig::default().limit(BODY).error_handler(|error, _| unread(&error)))
        .app_data(web::QueryConfig::default().error_handler(|error: QueryPayloadError, _| {
            Refusal::Unread(StatusCode::BAD_REQUEST, error.to_string()).into()
        }))
        .app_data(web::PathConfig::default().error_handler(|_: PathError, _| {
            Refusal::Nothing("There is nothing at this address.").into()
        }))
        .route((operation.route)())
}

/// Says what is wrong with a body.
fn unread(error: &JsonPayloadError) -> actix_web::Error {
    let status = match error {
        JsonPayloadError::Overflow { .. } | JsonPayloadError::OverflowKnownLength { .. } => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        JsonPayloadError::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        _ => StatusCode::BAD_REQUEST,
    };
    Refusal::Unread(status, error.to_string()).into()
}

/// Whether a program asks, and is to be answered in JSON.
pub(crate) fn is_asked(request: &HttpRequest) -> bool {
    let path = request.path();
    let own = path.get(base(request).len()..).unwrap_or_default();
    own == "/api" || own.starts_with("/api/")
}

/// A refusal as JSON.
pub(crate) fn refused(status: StatusCode, text: String) -> HttpResponse {
    json(status, &types::Error { error: text })
}

pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> HttpResponse {
    sent(status, "application/json", serde_json::to_vec(body).unwrap_or_default())
}

/// An answer that nobody keeps.
fn sent(status: StatusCode, kind: &str, body: impl Into<actix_web::web::Bytes>) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    secured(&mut response)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .content_type(kind)
        .body(body.into())
}

/// The description itself: the same for all, and of no row or person.
async fn description() -> Answer {
    Ok(sent(StatusCode::OK, "application/json", DESCRIPTION))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    #[test]
    fn the_description_names_exactly_the_routes() {
        let description: Value = serde_json::from_str(DESCRIPTION).expect("JSON");
        let paths = description["paths"].as_object().expect("paths");
        let described: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().expect("methods").keys();
                let methods = methods.filter(|method| *method != "parameters");
                methods.map(|method| (path.clone(), method.clone()))
            })
            .collect();
        let routes = OPERATIONS.iter();
        let routes = routes.map(|known| (known.path.to_owned(), known.method.to_owned()));
        assert_eq!(described, routes.collect());
    }
}
