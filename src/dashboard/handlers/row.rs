//! A row, and what is done to it.

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{Data, Form, Path, Query},
};

use chrono::DateTime;
use serde::Deserialize;

use super::{After303, LONGEST, NOT_CANCELED, Why};
use crate::{
    Canceled,
    dashboard::{
        Role,
        answer::{Answer, Page, Refusal, base, found, respond},
        pages,
    },
    store::Moment,
    supervisor::page::{PageAsk, PageFact},
};

/// Which of its tries are shown: those that began before so many microseconds since 1970.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Tries {
    before: Option<i64>,
}

pub(super) async fn row(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
    done: Query<After303>,
    tries: Query<Tries>,
) -> Answer {
    let access = page.somebody(&request).await?;
    if !access.may(Role::View) {
        // As if there were none: whose rows there are is nobody's business who may only see their own.
        return Err(Refusal::Nothing("There is no such row, or not any more.").into());
    }
    let (model, id) = path.into_inner();
    let before = tries.before.and_then(DateTime::from_timestamp_micros).map(Moment::at);
    let PageFact::Row(row) = page.model(&model, PageAsk::Row { id: id.clone(), before }).await?
    else {
        return Err(Refusal::Nothing("There is no such row, or not any more.").into());
    };
    let around = page.around(&request, access, None).await?;
    let link = page.0.link.as_ref().and_then(|link| link(&model, &id));
    let shown = pages::row(&around, &model, &row, link.as_deref(), done.done.as_deref());
    Ok(respond(StatusCode::OK, &request, &shown))
}

pub(super) async fn restart(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
    form: Form<Why>,
) -> Answer {
    let access = page.actor(&request, Role::Operate).await?;
    let (model, id) = path.into_inner();
    let ask = PageAsk::Restart { ids: vec![id.clone()], by: form.by(&access) };
    let done = match page.model(&model, ask).await? {
        PageFact::Restarted(done) if done.restarted > 0 => "restarted",
        PageFact::Restarted(done) if done.left_alone > 0 => "not-restarted",
        _ => return Err(Refusal::Nothing("There is no such row, or not any more.").into()),
    };
    Ok(found(&format!("{}?done={done}", pages::row_address(&base(&request), &model, &id))))
}

pub(super) async fn cancel(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
    form: Form<Why>,
) -> Answer {
    let access = page.actor(&request, Role::Operate).await?;
    let (model, id) = path.into_inner();
    if form.why.trim().is_empty() {
        return Err(Refusal::Wrong("Say why it is canceled: it is kept in the history.").into());
    }
    let done =
        match page.model(&model, PageAsk::Cancel { id: id.clone(), by: form.by(&access) }).await? {
            PageFact::Canceled(Canceled::Done) => "canceled",
            PageFact::Canceled(_) => "not-canceled",
            PageFact::NotCanceled => return Err(NOT_CANCELED.into()),
            _ => return Err(Refusal::Nothing("There is no such row, or not any more.").into()),
        };
    Ok(found(&format!("{}?done={done}", pages::row_address(&base(&request), &model, &id))))
}

pub(super) async fn note(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
    form: Form<Why>,
) -> Answer {
    let access = page.actor(&request, Role::Operate).await?;
    let (model, id) = path.into_inner();
    let text = form.why.replace("\r\n", "\n").replace('\r', "\n");
    let text: String = text.trim().chars().take(LONGEST).collect();
    if text.is_empty() {
        return Err(Refusal::Wrong("The note is empty.").into());
    }
    let (who, send) = (form.by(&access).who, form.send.is_some());
    let ask = PageAsk::Note { id: id.clone(), who, text, send };
    match page.model(&model, ask).await? {
        PageFact::Noted { sent } => {
            let done = if sent { "sent" } else { "noted" };
            Ok(found(&format!("{}?done={done}", pages::row_address(&base(&request), &model, &id))))
        }
        _ => Err(Refusal::Nothing("There is no such row, or not any more.").into()),
    }
}
