//! Services.

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{Data, Form, Path, Query},
};
use chrono::TimeDelta;

use super::{After303, Why, models_of};
use crate::{
    dashboard::{
        Role,
        answer::{Answer, Page, Refusal, base, found, respond},
        orders::{self, NO_SERVICE},
        pages,
    },
    store::service::Order,
    supervisor::page::{GetHouse, OrderByName},
};

pub(super) async fn service(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    done: Query<After303>,
) -> Answer {
    let access = page.access(&request).await?;
    let name = path.into_inner();
    let around = page.around(&request, access, Some(name.replace('\0', ""))).await?;
    let models = models_of(&around.names, &name);
    if models.is_empty() {
        return Err(NO_SERVICE.into());
    }
    let waiting = page.waits(models.into_iter()).await?;
    let shown = pages::service(&around, &name, &waiting, done.done.as_deref());
    Ok(respond(StatusCode::OK, &request, &shown))
}

pub(super) async fn order(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
    form: Form<Why>,
) -> Answer {
    let access = page.actor(&request, Role::Operate).await?;
    let (name, order) = path.into_inner();
    let (order, done) = match order.as_str() {
        "hold" => {
            let hours = match form.hours.trim() {
                "" => None,
                hours => {
                    Some(hours.parse().map_err(|_| Refusal::Wrong("Hours are a whole number."))?)
                }
            };
            let now = page.ask(GetHouse(None)).await?.now;
            let until = hours.map(|hours: u32| now + TimeDelta::hours(hours.min(24 * 365).into()));
            (orders::hold(&access, &form.why, until, now)?, "held")
        }
        "release" => (Order::Release, "released"),
        "ask" => (Order::AskNow, "asked"),
        _ => return Err(Refusal::Nothing("There is no such order.").into()),
    };
    match page.ask(OrderByName { service: name.clone(), by: orders::name(&access), order }).await? {
        None => Err(NO_SERVICE.into()),
        Some(true) => {
            Ok(found(&format!("{}?done={done}", pages::service_address(&base(&request), &name))))
        }
        Some(false) => {
            Ok(found(&format!("{}?done=nothing", pages::service_address(&base(&request), &name))))
        }
    }
}
