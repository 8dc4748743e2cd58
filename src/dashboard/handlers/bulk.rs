//! Many rows at once: what would be done is shown first, and done only by the form of that page.

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{Data, Form, Path},
};
use chrono::DateTime;

use super::rows::Filter;
use crate::{
    dashboard::{
        Role,
        answer::{Answer, Page, Refusal, base, found, respond},
        bulk::{self, NOTHING_BEGUN, Shown, ToBegin, ToShow},
        orders, pages,
    },
    store::bulk::Deed,
    supervisor::page::{PageAsk, PageFact},
};

/// A form's fields: one of them may be there many times.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn all(&self, name: &str) -> Vec<String> {
        let named = self.0.iter().filter(|(field, _)| field == name);
        named.map(|(_, value)| value.replace('\0', "")).collect()
    }

    fn one(&self, name: &str) -> Option<String> {
        self.all(name).into_iter().find(|value| !value.is_empty())
    }

    fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, Refusal> {
        // As people write thousands.
        let parsed = self.one(name).map(|value| value.trim().replace(',', "").parse());
        parsed.transpose().map_err(|_| Refusal::Wrong("A number of the form is none."))
    }

    fn filter(&self) -> Filter {
        Filter {
            model: None,
            state: self.one("state"),
            code: self.one("code"),
            user: self.one("user"),
            age: self.one("age"),
            after: None,
        }
    }

    fn deed(&self) -> Result<Deed, Refusal> {
        bulk::deed(&self.one("do").unwrap_or_default())
    }

    fn to_show(&self) -> Result<ToShow, Refusal> {
        let named = if self.one("all").is_some() { None } else { Some(self.all("row")) };
        if named.as_ref().is_some_and(Vec::is_empty) {
            return Err(Refusal::Wrong("No row is ticked."));
        }
        Ok(ToShow {
            deed: self.deed()?,
            filter: self.filter(),
            named,
            leave_parked: self.one("leave_parked").is_some(),
        })
    }

    fn to_begin(&self) -> Result<ToBegin, Refusal> {
        let seen = self.number("seen")?.and_then(DateTime::from_timestamp_micros);
        let named = self.all("row");
        Ok(ToBegin {
            id: self.one("id").unwrap_or_default(),
            deed: self.deed()?,
            filter: self.filter(),
            seen: seen.ok_or(Refusal::Wrong("The form does not say when the rows were seen."))?,
            shown: match self.number("promised")? {
                Some(promised) if named.is_empty() => Shown::Counted(promised),
                _ => Shown::Named(named),
            },
            why: self.one("why").unwrap_or_default(),
            pace: self.number("pace")?.unwrap_or(0),
            typed: self.number("typed")?,
        })
    }
}

pub(super) async fn preview(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    form: Form<Vec<(String, String)>>,
) -> Answer {
    let access = page.actor(&request, Role::Operate).await?;
    let (model, fields) = (path.into_inner(), Fields(form.into_inner()));
    let to_show = fields.to_show()?;
    bulk::may(&access, to_show.deed, 0)?;
    let around = page.around(&request, access, None).await?;
    let (deed, filter) = (to_show.deed, to_show.filter.clone());
    let ask = to_show.ask(&around.access, around.house.now)?;
    let PageFact::Preview(preview) = page.model(&model, ask).await? else {
        return Err(Refusal::Silent.into());
    };
    let shown = pages::bulk_preview(&around, &model, &filter, deed, &preview, &bulk::token());
    Ok(respond(StatusCode::OK, &request, &shown))
}

pub(super) async fn begin(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    form: Form<Vec<(String, String)>>,
) -> Answer {
    let access = page.actor(&request, Role::Operate).await?;
    let (model, fields) = (path.into_inner(), Fields(form.into_inner()));
    let new = fields.to_begin()?.checked(&access)?;
    let id = new.id.clone();
    page.model(&model, PageAsk::Begin(Box::new(new))).await?;
    Ok(found(&pages::bulk_address(&base(&request), &model, &id)))
}

pub(super) async fn bulk(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
) -> Answer {
    let access = page.access(&request).await?;
    let (model, id) = path.into_inner();
    let PageFact::Bulk(bulk, left) = page.model(&model, PageAsk::Bulk { id }).await? else {
        return Err(NOTHING_BEGUN.into());
    };
    let around = page.around(&request, access, None).await?;
    Ok(respond(StatusCode::OK, &request, &pages::bulk(&around, &model, &bulk, &left)))
}

pub(super) async fn stop(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
) -> Answer {
    let access = page.actor(&request, Role::Operate).await?;
    let (model, id) = path.into_inner();
    let who = orders::name(&access);
    page.model(&model, PageAsk::Stop { id: id.clone(), who }).await?;
    Ok(found(&pages::bulk_address(&base(&request), &model, &id)))
}
