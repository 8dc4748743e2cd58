//! Many rows at once.

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{Data, Form, Path},
};

use super::Why;
use crate::{
    dashboard::{
        Role,
        answer::{Answer, Page, Refusal, respond},
        pages,
    },
    supervisor::page::{PageAsk, PageFact},
};

/// Rows that one form may act on.
pub(crate) const MOST_TICKED: usize = 500;

/// The ticked rows of a list: shown first, and restarted only by the form of that page.
pub(super) async fn restart_ticked(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    form: Form<Vec<(String, String)>>,
) -> Answer {
    let access = page.actor(&request, Role::Operate).await?;
    let model = path.into_inner();
    let values = |name: &str| {
        let named = form.iter().filter(|(field, _)| field == name);
        named.map(|(_, value)| value.clone()).collect::<Vec<String>>()
    };
    let ids = values("row");
    if ids.is_empty() {
        return Err(Refusal::Wrong("No row is ticked.").into());
    }
    if ids.len() > MOST_TICKED {
        return Err(Refusal::Wrong("These are too many rows for one form.").into());
    }
    let around = page.around(&request, access, None).await?;
    if values("confirmed").is_empty() {
        let shown = pages::restart_preview(&around, &model, &ids);
        return Ok(respond(StatusCode::OK, &request, &shown));
    }
    let why = values("why").into_iter().next().unwrap_or_default();
    let by = Why { why, ..Why::default() }.by(&around.access);
    match page.model(&model, PageAsk::Restart { ids: ids.clone(), by }).await? {
        PageFact::Restarted(done) => {
            let shown = pages::restarted(&around, &model, ids.len(), &done);
            Ok(respond(StatusCode::OK, &request, &shown))
        }
        _ => Err(Refusal::Silent.into()),
    }
}
