//! Many rows at once: what would be done is shown first, and done only by the form of that page.

use std::hash::{BuildHasher, Hasher};

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{Data, Form, Path},
};
use chrono::DateTime;

use super::{Why, rows::Filter};
use crate::{
    dashboard::{
        Access, Role,
        answer::{Answer, Page, Refusal, base, found, respond},
        pages,
    },
    store::{
        bulk::{BATCH, Chosen, Deed, NewBulk},
        page::State,
    },
    supervisor::page::{PageAsk, PageFact},
};

/// Rows that only an admin may act on at once: more than this.
pub(crate) const MOST_FOR_OPERATE: u32 = 1000;

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
        let parsed = self.one(name).map(|value| value.trim().parse());
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
        let deed = self.one("do").and_then(|deed| Deed::parse(&deed));
        deed.ok_or(Refusal::Wrong("The form does not say what to do."))
    }
}

fn may(access: &Access, deed: Deed, rows: u32) -> Result<(), Refusal> {
    let needs = match deed {
        Deed::Cancel => Role::Admin,
        Deed::Restart if rows > MOST_FOR_OPERATE => Role::Admin,
        Deed::Restart => Role::Operate,
    };
    if access.may(needs) { Ok(()) } else { Err(Refusal::Needs(needs)) }
}

/// Nobody else's: a form sent twice names the same bulk.
fn token() -> String {
    let part = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", part(), part())
}

pub(super) async fn preview(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    form: Form<Vec<(String, String)>>,
) -> Answer {
    let access = page.actor(&request, Role::Operate).await?;
    let (model, fields) = (path.into_inner(), Fields(form.into_inner()));
    let deed = fields.deed()?;
    may(&access, deed, 0)?;
    let around = page.around(&request, access, None).await?;
    let filter = fields.filter();
    let mut selection = filter.selection(around.house.now)?;
    if fields.one("leave_parked").is_some() {
        selection.state = State::Expired;
    }
    let named = if fields.one("all").is_some() { None } else { Some(fields.all("row")) };
    match named.as_deref() {
        Some([]) => return Err(Refusal::Wrong("No row is ticked.").into()),
        Some(named) if named.len() > BATCH => {
            return Err(Refusal::Wrong("These are too many rows for one form.").into());
        }
        _ => {}
    }
    let ask = PageAsk::Preview { selection, named, deed };
    let PageFact::Preview(preview) = page.model(&model, ask).await? else {
        return Err(Refusal::Silent.into());
    };
    let shown = pages::bulk_preview(&around, &model, &filter, deed, &preview, &token());
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
    let new = new_bulk(&fields, &access)?;
    may(&access, new.deed, new.promised)?;
    let id = new.id.clone();
    page.model(&model, PageAsk::Begin(Box::new(new))).await?;
    Ok(found(&pages::bulk_address(&base(&request), &model, &id)))
}

fn new_bulk(fields: &Fields, access: &Access) -> Result<NewBulk, Refusal> {
    let wrong = Refusal::Wrong;
    let deed = fields.deed()?;
    let why = Why { why: fields.one("why").unwrap_or_default(), ..Why::default() };
    let by = why.by(access);
    if by.reason.is_empty() {
        return Err(wrong("Say why: it is kept in the history."));
    }
    let id = fields.one("id").filter(|id| id.len() == 32 && id.is_ascii());
    let id = id.ok_or(wrong("The form has no number of its own: open the page again."))?;
    let seen = fields.number::<i64>("seen")?.and_then(DateTime::from_timestamp_micros);
    let seen = seen.ok_or(wrong("The form does not say when the rows were seen."))?;
    let selection = fields.filter().selection(seen)?;
    let named = fields.all("row");
    let (promised, rows) = match fields.number::<u32>("promised")? {
        Some(promised) if named.is_empty() => (promised, None),
        _ => (named.len().try_into().unwrap_or(u32::MAX), Some(named)),
    };
    if promised == 0 {
        return Err(wrong("There is no row to act on."));
    }
    if rows.as_ref().is_some_and(|rows| rows.len() > BATCH) {
        return Err(wrong("These are too many rows for one form."));
    }
    let typed = fields.one("typed").map(|typed| typed.replace([',', '+'], ""));
    if deed == Deed::Cancel && typed != Some(promised.min(crate::Counts::MOST).to_string()) {
        return Err(wrong(
            "The number that you typed is not the number of rows. Nothing was canceled.",
        ));
    }
    let chosen = Chosen::of(&selection, rows);
    let pace = fields.number::<u32>("pace")?.unwrap_or(0);
    Ok(NewBulk { id, deed, by, chosen, seen, promised, pace })
}

pub(super) async fn bulk(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
) -> Answer {
    let access = page.access(&request).await?;
    let (model, id) = path.into_inner();
    let PageFact::Bulk(bulk, left) = page.model(&model, PageAsk::Bulk { id }).await? else {
        return Err(Refusal::Nothing("Nothing of that number was begun.").into());
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
    let who = access.name.replace('\0', "");
    page.model(&model, PageAsk::Stop { id: id.clone(), who }).await?;
    Ok(found(&pages::bulk_address(&base(&request), &model, &id)))
}
