//! An hour of the past.

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{Data, Path, Query},
};
use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::rows::said;
use crate::{
    dashboard::{
        answer::{Answer, Page, Refusal, respond},
        pages,
    },
    store::{Moment, bulk},
    supervisor::page::{PageAsk, PageFact},
};

/// Of one model, from a place in its list on.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Place {
    model: Option<String>,
    after: Option<String>,
}

pub(super) async fn hour(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    place: Query<Place>,
) -> Answer {
    let access = page.access(&request).await?;
    let from = DateTime::parse_from_rfc3339(&path).ok().map(|at| at.with_timezone(&Utc));
    let from = from.filter(|at| (1970..10_000).contains(&chrono::Datelike::year(at)));
    let from = from.ok_or(Refusal::Nothing("There is no such hour."))?;
    let after = match said(place.after.as_ref()) {
        None => None,
        Some(place) => {
            let place = bulk::cursor(&place).and_then(|mut places| places.pop());
            Some(place.flatten().ok_or(Refusal::Wrong("There is no such place in the list."))?)
        }
    };
    let around = page.around(&request, access, None).await?;
    let ask = PageAsk::Hour { from: Moment::at(from), after };
    let facts = match said(place.model.as_ref()) {
        Some(model) => vec![page.model(&model, ask).await?],
        None => page.facts(around.names.models.iter().map(|(model, _)| *model), &ask).await?,
    };
    let hours = facts.into_iter().filter_map(|fact| match fact {
        PageFact::Hour(hour) => Some(hour),
        _ => None,
    });
    let shown = pages::hour(&around, from, &hours.collect::<Vec<_>>());
    Ok(respond(StatusCode::OK, &request, &shown))
}
