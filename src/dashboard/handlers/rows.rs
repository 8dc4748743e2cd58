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
    supervisor::page::{Names, PageAsk, PageFact},
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

/// What a filter asks for.
pub(crate) struct Asked {
    pub(crate) model: String,
    pub(crate) state: State,
    pub(crate) code: Option<String>,
    pub(crate) after: Option<After>,
}

impl Asked {
    pub(crate) fn list(&self) -> PageAsk {
        let (code, after) = (self.code.clone(), self.after.clone());
        PageAsk::List { state: self.state, code, after }
    }
}

impl Filter {
    pub(crate) fn asked(&self, names: &Names) -> Result<Asked, Refusal> {
        let first = names.models.first().map(|(model, _)| (*model).to_owned());
        let model =
            self.model.clone().or(first).ok_or(Refusal::Nothing(
                "No model is registered: give the supervisor a processor.",
            ))?;
        let state = match self.state.as_deref() {
            None | Some("") => State::Parked,
            Some(state) => State::parse(state).ok_or(Refusal::Wrong("There is no such state."))?,
        };
        let code = self.code.clone().filter(|code| !code.is_empty());
        let code = code.map(|code| code.replace('\0', ""));
        let after = self.after().ok_or(Refusal::Wrong("That is no place in a list."))?;
        Ok(Asked { model, state, code, after })
    }

    fn after(&self) -> Option<Option<After>> {
        let Some(after) = self.after.as_deref().filter(|after| !after.is_empty()) else {
            return Some(None);
        };
        let (micros, id) = after.split_once('.')?;
        let at = DateTime::from_timestamp_micros(micros.parse().ok()?)?;
        Some(Some((Moment::at(at), id.replace('\0', ""))))
    }

    /// A place in a list, as `after` spells it.
    pub(crate) fn place((at, id): &After) -> String {
        format!("{}.{id}", at.epoch_micros())
    }
}

pub(super) async fn rows(page: Data<Page>, request: HttpRequest, filter: Query<Filter>) -> Answer {
    let access = page.access(&request).await?;
    let around = page.around(&request, access, None).await?;
    let asked = filter.asked(&around.names)?;
    let PageFact::List(list) = page.model(&asked.model, asked.list()).await? else {
        return Err(Refusal::Silent.into());
    };
    let shown = pages::rows(&around, &asked.model, asked.state, asked.code.as_deref(), &list);
    Ok(respond(StatusCode::OK, &request, &shown))
}
