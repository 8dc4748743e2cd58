//! Many rows at once for programs: as on the pages, shown first, and done only as it was shown.

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{Data, Path},
};
use serde::{Deserialize, Serialize};

use super::{
    handlers::Body,
    json,
    types::{Cause, Instant, Plain, Row},
};
use crate::{
    Counts,
    dashboard::{
        Access, Role,
        answer::{Answer, Page, Refusal},
        bulk::{self, NOTHING_BEGUN, Shown, ToBegin, ToShow},
        handlers::rows::Filter,
        orders,
    },
    store::{
        Moment,
        bulk::{Bulk, Preview},
        explain::Line,
    },
    supervisor::page::{GetHouse, GetNames, Names, PageAsk, PageFact},
};

/// What would be done, to be looked at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Show {
    r#do: String,
    state: Option<String>,
    code: Option<String>,
    user: Option<String>,
    age: Option<u32>,
    /// All rows of the filter; or those that are named.
    #[serde(default)]
    all: bool,
    rows: Option<Vec<String>>,
    #[serde(default)]
    leave_parked: bool,
}

impl Show {
    fn into_show(self) -> Result<ToShow, Refusal> {
        let Show { r#do, state, code, user, age, all, rows, leave_parked } = self;
        // Nobody means all of them by leaving something out.
        if all == rows.is_some() {
            return Err(Refusal::Wrong("Name `rows`, or say `all`."));
        }
        let filter = filter(state, code, user, age);
        Ok(ToShow { deed: bulk::deed(&r#do)?, filter, named: rows, leave_parked })
    }
}

fn filter(
    state: Option<String>,
    code: Option<String>,
    user: Option<String>,
    age: Option<u32>,
) -> Filter {
    let age = age.map(|hours| hours.to_string());
    Filter { model: None, state, code, user, age, after: None }
}

/// What is begun, as it was shown.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Begin {
    id: String,
    r#do: String,
    seen_at: Instant,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    promised: Option<u32>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pace: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    typed: Option<u32>,
}

impl Begin {
    /// What is to be sent to have done what was shown, but for why.
    fn of(asked: &Asked, preview: &Preview) -> Self {
        let named = preview.named.clone();
        Begin {
            id: bulk::token(),
            r#do: asked.r#do.clone(),
            seen_at: Moment::at(preview.now).zoned,
            state: preview.selection.state.as_str().to_owned(),
            code: preview.selection.code.clone(),
            user: preview.selection.user.clone(),
            age: asked.age,
            promised: named.is_none().then_some(preview.rows),
            rows: named,
            why: String::new(),
            pace: None,
            typed: None,
        }
    }

    fn into_begin(self) -> Result<ToBegin, Refusal> {
        let shown = match (self.rows, self.promised) {
            (Some(rows), None) => Shown::Named(rows),
            (None, Some(promised)) => Shown::Counted(promised),
            _ => return Err(Refusal::Wrong("Send `rows` or `promised`, as they were shown.")),
        };
        Ok(ToBegin {
            id: self.id,
            deed: bulk::deed(&self.r#do)?,
            filter: filter(Some(self.state), self.code, self.user, self.age),
            seen: self.seen_at,
            shown,
            why: self.why,
            pace: self.pace.unwrap_or(0),
            typed: self.typed,
        })
    }
}

/// Of what was asked, what the preview does not say.
struct Asked {
    r#do: String,
    age: Option<u32>,
}

#[derive(Serialize)]
struct ShownBulk {
    now: Instant,
    model: String,
    r#do: String,
    state: &'static str,
    rows: u32,
    causes: Vec<Cause>,
    /// The role lets them begin it.
    may_begin: bool,
    /// Not there where there is nothing to do.
    begin: Option<Begin>,
}

impl ShownBulk {
    fn of(model: String, asked: &Asked, preview: &Preview, names: &Names, may_begin: bool) -> Self {
        let cause = |group| Cause::of(group, names.services_named(&model, group));
        ShownBulk {
            now: preview.now,
            r#do: asked.r#do.clone(),
            state: preview.selection.state.as_str(),
            rows: preview.rows,
            causes: preview.groups.iter().map(cause).collect(),
            may_begin,
            begin: (preview.rows > 0).then(|| Begin::of(asked, preview)),
            model,
        }
    }
}

/// How far one has come.
#[derive(Serialize)]
struct BulkSoFar {
    now: Instant,
    model: String,
    id: String,
    r#do: &'static str,
    by: String,
    why: String,
    state: String,
    code: Option<String>,
    user: Option<String>,
    before: Option<Instant>,
    /// How many were named, if they were.
    named: Option<usize>,
    promised: u32,
    pace: u32,
    done: u32,
    left_alone: u32,
    left: Vec<Row>,
    began_at: Instant,
    ended_at: Option<Instant>,
    stopped_by: Option<String>,
}

impl BulkSoFar {
    fn of(model: String, bulk: &Bulk, left: &[Line], access: &Access, now: Instant) -> Self {
        let chosen = bulk.chosen.clone();
        BulkSoFar {
            now,
            id: bulk.id.clone(),
            r#do: bulk.deed.as_str(),
            by: bulk.who.clone(),
            why: bulk.reason.clone(),
            state: chosen.state,
            code: chosen.code,
            user: chosen.user,
            before: chosen.before.and_then(Instant::from_timestamp_micros),
            named: chosen.rows.map(|rows| rows.len()),
            promised: bulk.promised.min(Counts::MOST),
            pace: bulk.pace,
            done: bulk.done,
            left_alone: bulk.left(),
            left: left.iter().map(|line| Row::of(&model, line, access)).collect(),
            began_at: bulk.began_at,
            ended_at: bulk.ended_at,
            stopped_by: bulk.stopped_by.clone(),
            model,
        }
    }
}

pub(super) async fn preview(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    body: Body<Show>,
) -> Answer {
    let (access, body) = (page.program(&request, Role::Operate).await?, body?.into_inner());
    let asked = Asked { r#do: body.r#do.clone(), age: body.age };
    let to_show = body.into_show()?;
    let (model, deed) = (path.into_inner(), to_show.deed);
    let (names, now) = (page.ask(GetNames).await?, page.ask(GetHouse(None)).await?.now);
    let PageFact::Preview(preview) = page.model(&model, to_show.ask(&access, now)?).await? else {
        return Err(Refusal::Silent.into());
    };
    let may_begin = bulk::may(&access, deed, preview.rows).is_ok();
    let shown = ShownBulk::of(model, &asked, &preview, &names, may_begin);
    Ok(json(StatusCode::OK, &shown))
}

pub(super) async fn begin(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    body: Body<Begin>,
) -> Answer {
    let (access, body) = (page.program(&request, Role::Operate).await?, body?.into_inner());
    let (model, new) = (path.into_inner(), body.into_begin()?.checked(&access)?);
    page.model(&model, PageAsk::Begin(Box::new(new.clone()))).await?;
    let begun = so_far(&page, &model, &new.id).await?;
    // What was sent before is answered as it was then; what is another's is not.
    let same =
        |bulk: &Bulk| (bulk.deed, &bulk.who, &bulk.chosen) == (new.deed, &new.by.who, &new.chosen);
    match begun {
        Some((bulk, left)) if same(&bulk) => answer(&page, model, &bulk, &left, &access).await,
        _ => Err(Refusal::Wrong("Something else was begun with this number.").into()),
    }
}

pub(super) async fn bulk(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
) -> Answer {
    let access = page.access(&request).await?;
    let (model, id) = path.into_inner();
    let (bulk, left) = so_far(&page, &model, &id).await?.ok_or(NOTHING_BEGUN)?;
    answer(&page, model, &bulk, &left, &access).await
}

pub(super) async fn stop(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
    body: Body<Plain>,
) -> Answer {
    let access = page.program(&request, Role::Operate).await?;
    let Plain {} = body?.into_inner();
    let (model, id) = path.into_inner();
    let stop = PageAsk::Stop { id: id.clone(), who: orders::name(&access) };
    page.model(&model, stop).await?;
    let (bulk, left) = so_far(&page, &model, &id).await?.ok_or(NOTHING_BEGUN)?;
    answer(&page, model, &bulk, &left, &access).await
}

async fn so_far(page: &Page, model: &str, id: &str) -> Result<Option<(Bulk, Vec<Line>)>, Refusal> {
    Ok(match page.model(model, PageAsk::Bulk { id: id.to_owned() }).await? {
        PageFact::Bulk(bulk, left) => Some((*bulk, left)),
        _ => None,
    })
}

async fn answer(page: &Page, model: String, bulk: &Bulk, left: &[Line], access: &Access) -> Answer {
    let now = page.ask(GetHouse(None)).await?.now;
    Ok(json(StatusCode::OK, &BulkSoFar::of(model, bulk, left, access, now)))
}
