//! A row, and what is done to it.

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{Data, Form, Path, Query},
};

use chrono::DateTime;
use serde::Deserialize;

use super::{After303, Why};
use crate::{
    Canceled,
    dashboard::{
        Role,
        answer::{Answer, Page, base, found, respond},
        orders::{self, NO_ROW, NOT_CANCELED},
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
    let access = page.row_access(&request).await?;
    let (model, id) = path.into_inner();
    let before = tries.before.and_then(DateTime::from_timestamp_micros).map(Moment::at);
    let fact = page.model(&model, PageAsk::Row { id: id.clone(), before }).await?;
    let around = page.around(&request, access, None).await?;
    let row = match fact {
        PageFact::Row(row) => row,
        PageFact::Gone(past) => {
            let shown = pages::gone(&around, &model, &id, &past);
            return Ok(respond(StatusCode::NOT_FOUND, &request, &shown));
        }
        _ => return Err(NO_ROW.into()),
    };
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
    let ask = orders::restart(&access, vec![id.clone()], &form.why);
    let done = match page.model(&model, ask).await? {
        PageFact::Restarted(done) if done.restarted > 0 => "restarted",
        PageFact::Restarted(done) if done.left_alone > 0 => "not-restarted",
        _ => return Err(NO_ROW.into()),
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
    let done = match page.model(&model, orders::cancel(&access, id.clone(), &form.why)?).await? {
        PageFact::Canceled(Canceled::Done) => "canceled",
        PageFact::Canceled(_) => "not-canceled",
        PageFact::NotCanceled => return Err(NOT_CANCELED.into()),
        _ => return Err(NO_ROW.into()),
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
    let ask = orders::note(&access, id.clone(), &form.why, form.send.is_some())?;
    match page.model(&model, ask).await? {
        PageFact::Noted { sent } => {
            let done = if sent { "sent" } else { "noted" };
            Ok(found(&format!("{}?done={done}", pages::row_address(&base(&request), &model, &id))))
        }
        _ => Err(NO_ROW.into()),
    }
}
