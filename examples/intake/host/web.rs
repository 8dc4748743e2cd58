//! The host's page and its JSON API.

use std::net::TcpListener;

use actix_web::{
    App, HttpMessage, HttpRequest, HttpResponse, HttpServer, Result,
    dev::Server,
    http::header,
    web::{self, Bytes, Data},
};
use asyncable::Dashboard;
use serde_json::json;

use super::{Host, login, rows, rows::Which};
use crate::{
    BoxError,
    claim::{Claim, Form},
    one_line,
    page::{self, Seen},
    report::Row,
};

pub fn serve(host: Host, listener: TcpListener) -> std::io::Result<Server> {
    let dashboard = Dashboard::new(host.asyncable.clone(), login::who)
        .label("higher_level_reviews", "Higher level review", "Higher level reviews")
        .label("supplemental_claims", "Supplemental claim", "Supplemental claims")
        .label("request_issues", "Issue", "Issues")
        .label("task_timers", "Timer", "Timers");
    let host = Data::new(host);
    let app = move || {
        App::new()
            .app_data(host.clone())
            .route("/", web::get().to(home))
            .route("/style.css", web::get().to(style))
            .route("/claims", web::get().to(list))
            .route("/claims", web::post().to(file))
            .route("/claims/{name}", web::get().to(status))
            .route("/login", web::get().to(login::choose))
            .route("/login/{role}", web::post().to(login::log_in))
            .service(web::scope("/asyncable").service(dashboard.clone()))
    };
    let server = HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(5);
    Ok(server.listen(listener)?.run())
}

async fn home() -> HttpResponse {
    HttpResponse::Ok().content_type(page::HTML).body(page::home(&Form::default(), None))
}

async fn style() -> HttpResponse {
    HttpResponse::Ok().content_type("text/css; charset=utf-8").body(include_str!("../style.css"))
}

async fn list(host: Data<Host>) -> HttpResponse {
    let asked = host
        .ask(|conn, now| {
            let claims = rows::claims(conn, now, Which::Latest)?;
            let names = claims.iter().map(|row| row.claim.as_str()).collect();
            let issues = rows::issues(conn, now, Some(names))?;
            Ok((claims, issues, rows::counts(conn, now)?))
        })
        .await;
    match asked {
        Ok((claims, issues, counts)) => {
            let seen = Seen { ledger: &host.ledger, counts, claims, issues };
            HttpResponse::Ok().content_type(page::HTML).body(page::list(&seen))
        }
        // Looks again by itself.
        Err(error) => HttpResponse::ServiceUnavailable()
            .content_type(page::HTML)
            .body(page::notice(away(&error))),
    }
}

/// What is told to those who need not know where the database is.
fn away(error: &BoxError) -> &'static str {
    log::debug!("the database cannot be asked: {}", one_line(error));
    "the database cannot be asked now"
}

fn json_away(error: &BoxError) -> HttpResponse {
    HttpResponse::ServiceUnavailable().json(json!({ "error": away(error) }))
}

/// `POST /claims`, as JSON or from the page's form. The answer is given once the claim is durable.
async fn file(request: HttpRequest, body: Bytes, host: Data<Host>) -> Result<HttpResponse> {
    if request.content_type() == "application/x-www-form-urlencoded" {
        return file_form(&body, &host).await;
    }
    let claim = match Claim::from_json(&body) {
        Ok(claim) => claim,
        Err(why) => return Ok(HttpResponse::BadRequest().json(json!({ "error": why }))),
    };
    Ok(match host.file(claim).await {
        Ok(name) => {
            let place = format!("/claims/{name}");
            let answer = json!({ "id": name, "status": place });
            HttpResponse::Created().insert_header((header::LOCATION, place)).json(answer)
        }
        Err(error) => json_away(&error),
    })
}

async fn file_form(body: &[u8], host: &Host) -> Result<HttpResponse> {
    let form = web::Query::<Form>::from_query(&String::from_utf8_lossy(body))?.into_inner();
    let claim = match Claim::from_form(&form) {
        Ok(claim) => claim,
        Err(why) => {
            let page = page::home(&form, Some(&why));
            return Ok(HttpResponse::BadRequest().content_type(page::HTML).body(page));
        }
    };
    Ok(match host.file(claim).await {
        Ok(_) => HttpResponse::SeeOther().insert_header((header::LOCATION, "/")).finish(),
        Err(error) => HttpResponse::ServiceUnavailable()
            .content_type(page::HTML)
            .body(page::home(&form, Some(away(&error)))),
    })
}

/// `GET /claims/hlr-1`.
async fn status(name: web::Path<String>, host: Data<Host>) -> HttpResponse {
    let asked = host
        .ask(move |conn, now| {
            let claim = rows::claims(conn, now, Which::Named(&name))?.pop();
            Ok((claim, rows::issues(conn, now, Some(vec![&name]))?))
        })
        .await;
    let state = |row: &Row| json!({ "state": row.state, "error": row.code });
    match asked {
        Ok((Some(claim), issues)) => HttpResponse::Ok().json(json!({
            "id": claim.claim,
            "state": claim.state,
            "error": claim.code,
            "issues": issues.iter().map(state).collect::<Vec<_>>(),
        })),
        Ok((None, _)) => HttpResponse::NotFound().json(json!({ "error": "no such claim" })),
        Err(error) => json_away(&error),
    }
}
