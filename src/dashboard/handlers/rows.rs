//! Lists of rows.

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{Data, Query},
};
use chrono::DateTime;
use serde::Deserialize;

use crate::{
    dashboard::{
        answer::{Answer, Page, Refusal, respond},
        pages,
    },
    store::{
        Moment,
        page::{After, State},
    },
    supervisor::page::{PageAsk, PageFact},
};

/// Which rows to list.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Filter {
    pub(crate) model: Option<String>,
    pub(crate) state: Option<String>,
    pub(crate) code: Option<String>,
    /// `<microseconds since 1970>.<id>` of the last row of the page before.
    pub(crate) after: Option<String>,
}

impl Filter {
    fn after(&self) -> Option<Option<After>> {
        let Some(after) = self.after.as_deref().filter(|after| !after.is_empty()) else {
            return Some(None);
        };
        let (micros, id) = after.split_once('.')?;
        let at = DateTime::from_timestamp_micros(micros.parse().ok()?)?;
        Some(Some((Moment::at(at), id.replace('\0', ""))))
    }
}

pub(super) async fn rows(page: Data<Page>, request: HttpRequest, filter: Query<Filter>) -> Answer {
    let access = page.access(&request).await?;
    let around = page.around(&request, access, None).await?;
    let first = around.names.models.first().map(|(model, _)| *model);
    let Some(model) = filter.model.clone().or_else(|| first.map(ToOwned::to_owned)) else {
        return Err(
            Refusal::Nothing("No model is registered: give the supervisor a processor.").into()
        );
    };
    let state = match filter.state.as_deref() {
        None | Some("") => State::Parked,
        Some(state) => State::parse(state).ok_or(Refusal::Wrong("There is no such state."))?,
    };
    let code =
        filter.code.clone().filter(|code| !code.is_empty()).map(|code| code.replace('\0', ""));
    let after = filter.after().ok_or(Refusal::Wrong("That is no place in a list."))?;
    let ask = PageAsk::List { state, code: code.clone(), after };
    let PageFact::List(list) = page.model(&model, ask).await? else {
        return Err(Refusal::Silent.into());
    };
    let shown = pages::rows(&around, &model, state, code.as_deref(), &list);
    Ok(respond(StatusCode::OK, &request, &shown))
}
