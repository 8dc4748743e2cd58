//! An hour of the past.

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{Data, Path, Query},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

use super::rows::said;
use crate::{
    dashboard::{
        answer::{Answer, Page, Refusal, respond},
        pages,
    },
    store::{
        Moment, bulk,
        page::{House, OutageLine},
        tries::Hour,
    },
    supervisor::page::{Names, PageAsk, PageFact},
};

/// Of one model, from a place in its list on.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Place {
    model: Option<String>,
    after: Option<String>,
}

/// What was done in an hour.
pub(crate) struct Past {
    pub(crate) from: DateTime<Utc>,
    pub(crate) models: Vec<Hour>,
}

impl Past {
    /// The hour that begins then, of all models or of the one that is named.
    pub(crate) async fn of(
        page: &Page,
        names: &Names,
        from: &str,
        place: &Place,
    ) -> Result<Past, Refusal> {
        let from = DateTime::parse_from_rfc3339(from).ok().map(|at| at.with_timezone(&Utc));
        let from = from.filter(|at| (1970..10_000).contains(&chrono::Datelike::year(at)));
        let from = from.ok_or(Refusal::Nothing("There is no such hour."))?;
        let after = match said(place.after.as_ref()) {
            None => None,
            Some(place) => {
                let place = bulk::cursor(&place).and_then(|mut places| places.pop());
                Some(place.flatten().ok_or(Refusal::Wrong("There is no such place in the list."))?)
            }
        };
        let ask = PageAsk::Hour { from: Moment::at(from), after };
        let facts = match said(place.model.as_ref()) {
            Some(model) => vec![page.model(&model, ask).await?],
            None => page.facts(names.models.iter().map(|(model, _)| *model), &ask).await?,
        };
        let hours = facts.into_iter().filter_map(|fact| match fact {
            PageFact::Hour(hour) => Some(hour),
            _ => None,
        });
        Ok(Past { from, models: hours.collect() })
    }

    /// Outages that were then, as far as those are known.
    pub(crate) fn outages<'a>(&self, house: &'a House) -> impl Iterator<Item = &'a OutageLine> {
        let (from, until) = (self.from, self.from + TimeDelta::hours(1));
        let outages = house.outages.iter();
        outages.filter(move |one| one.since < until && one.until.is_none_or(|at| at > from))
    }
}

/// `after` of the next attempts of an hour, if there are any.
pub(crate) fn next_of(hour: &Hour) -> Option<String> {
    hour.next.as_ref().map(|next| bulk::place(&vec![Some(next.clone())]))
}

pub(super) async fn hour(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    place: Query<Place>,
) -> Answer {
    let access = page.access(&request).await?;
    let around = page.around(&request, access, None).await?;
    let past = Past::of(&page, &around.names, &path, &place).await?;
    Ok(respond(StatusCode::OK, &request, &pages::hour(&around, &past)))
}
