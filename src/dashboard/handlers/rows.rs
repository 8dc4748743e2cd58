//! Lists of rows, and finding one.

use std::time::Duration;

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{Data, Form, Query},
};
use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::{
    dashboard::{
        answer::{Answer, Page, Refusal, respond},
        orders, pages,
    },
    store::{
        Moment, bulk,
        page::{Cursor, PAGE, Selection, State},
    },
    supervisor::page::{Names, PageAsk, PageFact},
};

/// Which rows to list, as an address or a form says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Filter {
    pub(crate) model: Option<String>,
    pub(crate) state: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) user: Option<String>,
    /// Hours since the last submission, at least.
    pub(crate) age: Option<String>,
    /// A place in the list; see [`bulk::place`].
    pub(crate) after: Option<String>,
}

/// What a field says, if it says something. NUL is in no text of PostgreSQL's.
pub(super) fn said(field: Option<&String>) -> Option<String> {
    field.map(|text| text.replace('\0', "")).filter(|text| !text.is_empty())
}

impl Filter {
    pub(crate) fn selection(&self, now: DateTime<Utc>) -> Result<Selection, Refusal> {
        let state = match said(self.state.as_ref()) {
            None => State::NeedsYou,
            Some(state) => State::parse(&state).ok_or(Refusal::Wrong("There is no such state."))?,
        };
        let before = self.hours()?.map(|hours| Moment::at(now).minus(hours));
        let (code, user) = (said(self.code.as_ref()), said(self.user.as_ref()));
        Ok(Selection { state, code, user, before, seen: None })
    }

    fn hours(&self) -> Result<Option<Duration>, Refusal> {
        let Some(age) = said(self.age.as_ref()) else { return Ok(None) };
        let hours: u32 =
            age.parse().map_err(|_| Refusal::Wrong("The age is a whole number of hours."))?;
        Ok(Some(Duration::from_secs(3600) * hours.min(24 * 36_500)))
    }

    pub(crate) fn place(&self) -> Result<Option<Cursor>, Refusal> {
        said(self.after.as_ref())
            .map(|after| bulk::cursor(&after).ok_or(Refusal::Wrong("That is no place in a list.")))
            .transpose()
    }

    /// The model asked for, or the first.
    pub(crate) fn model(&self, names: &Names) -> Result<String, Refusal> {
        let first = names.models.first().map(|(model, _)| (*model).to_owned());
        said(self.model.as_ref()).or(first).ok_or(Refusal::Nothing(
            "No model is registered: give the supervisor a processor, `.processor(..)`.",
        ))
    }
}

pub(super) async fn rows(page: Data<Page>, request: HttpRequest, filter: Query<Filter>) -> Answer {
    let access = page.access(&request).await?;
    let around = page.around(&request, access, None).await?;
    let model = filter.model(&around.names)?;
    let (selection, after) = (filter.selection(around.house.now)?, filter.place()?);
    let ask = PageAsk::List { selection, after, most: PAGE };
    let PageFact::List(list) = page.model(&model, ask).await? else {
        return Err(Refusal::Silent.into());
    };
    let shown = pages::rows(&around, &model, &filter, &list);
    Ok(respond(StatusCode::OK, &request, &shown))
}

/// A form that names a row: what it says is personal data, and stays out of addresses and logs.
#[derive(Deserialize)]
pub(super) struct Find {
    #[serde(default)]
    model: String,
    #[serde(default)]
    what: String,
}

pub(super) async fn find(page: Data<Page>, request: HttpRequest, form: Form<Find>) -> Answer {
    let access = page.own_form(&request).await?;
    let around = page.around(&request, access, None).await?;
    let model = form.model.replace('\0', "");
    let PageFact::List(list) = page.model(&model, orders::find(&form.what)?).await? else {
        return Err(Refusal::Silent.into());
    };
    Ok(respond(StatusCode::OK, &request, &pages::found(&around, &model, &list)))
}
