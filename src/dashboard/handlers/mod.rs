//! Requests: what is asked of the supervisor for each.

mod bulk;
pub(crate) mod hour;
pub(crate) mod mine;
pub(crate) mod model;
mod row;
pub(crate) mod rows;
mod service;

use actix_web::{
    HttpRequest, HttpResponse, Resource,
    http::StatusCode,
    web::{self, Data},
};
use serde::Deserialize;

use super::{
    Role,
    answer::{Answer, Own, Page, Refusal, SCRIPT, STYLE, asset, base, found, respond},
    api, pages,
};
use crate::supervisor::page::Names;

/// A route that knows which part of an address is its own.
fn at(own: &'static str) -> Resource {
    // Also for a method that it does not know.
    web::resource(own).app_data(Own(own)).default_service(web::to(nothing_here))
}

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(at("").route(web::get().to(overview)))
        .service(at("/").route(web::get().to(overview)))
        .service(at("/rows").route(web::get().to(rows::rows)))
        .service(at("/find").route(web::post().to(rows::find)))
        .service(at("/bulk/{model}").route(web::post().to(bulk::preview)))
        .service(at("/bulk/{model}/begin").route(web::post().to(bulk::begin)))
        .service(at("/bulk/{model}/{id}").route(web::get().to(bulk::bulk)))
        .service(at("/bulk/{model}/{id}/stop").route(web::post().to(bulk::stop)))
        .service(at("/rows/{model}/{id}").route(web::get().to(row::row)))
        .service(at("/rows/{model}/{id}/restart").route(web::post().to(row::restart)))
        .service(at("/rows/{model}/{id}/cancel").route(web::post().to(row::cancel)))
        .service(at("/rows/{model}/{id}/note").route(web::post().to(row::note)))
        .service(at("/mine").route(web::get().to(mine::mine)))
        .service(at("/mine/messages/{id}/read").route(web::post().to(mine::read)))
        .service(at("/hours/{from}").route(web::get().to(hour::hour)))
        .service(at("/models/{model}").route(web::get().to(model::model)))
        .service(at("/models/{model}/{order}").route(web::post().to(model::order)))
        .service(at("/services/{name}").route(web::get().to(service::service)))
        .service(at("/services/{name}/{order}").route(web::post().to(service::order)))
        .service(at("/style.css").route(web::get().to(style)))
        .service(at("/script.js").route(web::get().to(script)))
        .configure(api::routes)
        .default_service(web::to(nothing_here));
}

async fn overview(page: Data<Page>, request: HttpRequest) -> Answer {
    let access = page.somebody(&request).await?;
    if !access.may(Role::View) {
        return Ok(found(&format!("{}/mine", base(&request).trim_end_matches('/'))));
    }
    let around = page.around(&request, access, None).await?;
    let models = page.overviews(around.names.models.iter().map(|(model, _)| *model)).await?;
    Ok(respond(StatusCode::OK, &request, &pages::overview(&around, &models)))
}

/// The models whose processors name a service.
pub(crate) fn models_of(names: &Names, service: &str) -> Vec<&'static str> {
    let models = names.models.iter();
    let models = models.filter(|(_, services)| services.iter().any(|name| name == service));
    models.map(|(model, _)| *model).collect()
}

/// What a form has just done, for the page that follows.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct After303 {
    pub(crate) done: Option<String>,
}

/// A form about a row or a service.
#[derive(Clone, Debug, Default, Deserialize)]
struct Why {
    #[serde(default)]
    why: String,
    /// Hours, of a hold.
    #[serde(default)]
    hours: String,
    /// Present, of a note: also to the row's user.
    send: Option<String>,
}

async fn style() -> HttpResponse {
    asset("text/css; charset=utf-8", STYLE)
}

async fn script() -> HttpResponse {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

async fn nothing_here(page: Data<Page>, request: HttpRequest) -> Answer {
    page.somebody(&request).await?;
    Err(Refusal::Nothing("There is no such page.").into())
}
