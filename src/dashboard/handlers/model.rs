//! A model as a whole.

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{Data, Form, Path, Query},
};

use super::{After303, Why};
use crate::{
    dashboard::{
        Role,
        answer::{Answer, Page, Refusal, base, found, respond},
        orders, pages,
    },
    store::turn::By,
    supervisor::{
        page::{PageAsk, PageFact},
        pausing::PauseByName,
    },
};

pub(crate) const NO_MODEL: Refusal =
    Refusal::Nothing("No processor here works on a model of that name.");

pub(super) async fn model(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    done: Query<After303>,
) -> Answer {
    let access = page.access(&request).await?;
    let name = path.into_inner();
    let PageFact::Overview(model) = page.model(&name, PageAsk::Overview).await? else {
        return Err(NO_MODEL.into());
    };
    let around = page.around(&request, access, Some(name)).await?;
    let shown = pages::model(&around, &model, done.done.as_deref());
    Ok(respond(StatusCode::OK, &request, &shown))
}

pub(super) async fn order(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
    form: Form<Why>,
) -> Answer {
    let access = page.actor(&request, Role::Admin).await?;
    let (model, order) = path.into_inner();
    let (pauses, done) = match order.as_str() {
        "pause" => (true, "paused"),
        "resume" => (false, "resumed"),
        _ => return Err(Refusal::Nothing("There is no such order.").into()),
    };
    let changed = pause(&page, &model, pauses, orders::by(&access, &form.why)).await?;
    let done = if changed { done } else { "nothing" };
    Ok(found(&format!("{}?done={done}", pages::model_address(&base(&request), &model))))
}

/// Pauses or resumes a model in all processes; false where it was so already.
pub(crate) async fn pause(page: &Page, model: &str, pauses: bool, by: By) -> Result<bool, Refusal> {
    if pauses && by.reason.is_empty() {
        return Err(Refusal::Wrong("Say why it is paused: it is shown to everybody."));
    }
    match page.ask(PauseByName { model: model.to_owned(), pauses, by }).await? {
        Some(changed) => Ok(changed),
        None => Err(page.no_model().await?),
    }
}
