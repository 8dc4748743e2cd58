//! What is asked of the supervisor for each request of a program's.

use std::collections::BTreeSet;

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{Data, Json, Path, Query},
};
use serde::Deserialize;

use super::{
    json,
    types::{
        Cancel, CanceledRow, Done, Find, FoundRows, Hold, Hour, Instant, Model, ModelInFull,
        NewNote, Noted, Ordered, Outage, Overview, Pause, Plain, Restart, RestartMany,
        RestartedRows, Resume, Row, RowInFull, Rows, Service, ServiceInFull, Waiting,
    },
};
use crate::{
    dashboard::{
        Access, Role,
        answer::{Answer, Page, Refusal},
        handlers::{
            hour,
            model::{self, NO_MODEL},
            models_of,
            rows::Filter,
        },
        orders::{self, NO_ROW, NO_SERVICE, NOT_CANCELED},
    },
    store::{
        Moment, bulk,
        page::{House, PAGE},
        service::Order,
    },
    supervisor::page::{GetHouse, GetNames, OrderByName, PageAsk, PageFact, limits_of},
};

/// Rows that one request may name.
const MOST_NAMED: usize = bulk::BATCH;

/// Looked at once it is known who sends it, and that they may.
pub(super) type Body<T> = actix_web::Result<Json<T>>;

fn done(house: &House) -> Vec<Done> {
    house.lately.iter().map(Done::from).collect()
}

fn outages(house: &House) -> Vec<Outage> {
    house.outages.iter().map(Outage::from).collect()
}

pub(super) async fn overview(page: Data<Page>, request: HttpRequest) -> Answer {
    let access = page.access(&request).await?;
    let around = page.around(&request, access, None).await?;
    let (names, house) = (&around.names.models, &around.house);
    let models = page.overviews(names.iter().map(|(model, _)| *model)).await?;
    let services: BTreeSet<&String> = names.iter().flat_map(|(_, services)| services).collect();
    let known = |name: &str| house.services.iter().find(|state| state.name == name);
    let overview = Overview {
        now: house.now,
        access: (&around.access).into(),
        hosts: house.hosts.iter().map(Into::into).collect(),
        services: services.into_iter().map(|name| Service::of(name, known(name))).collect(),
        models: models.iter().map(|model| Model::of(&around, model)).collect(),
        elsewhere: around.elsewhere().cloned().collect(),
        lately: done(house),
        outages: outages(house),
    };
    Ok(json(StatusCode::OK, &overview))
}

pub(super) async fn hour(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    place: actix_web::Result<Query<hour::Place>>,
) -> Answer {
    page.access(&request).await?;
    let place = place?;
    let (names, house) = (page.ask(GetNames).await?, page.ask(GetHouse(None)).await?);
    let past = hour::Past::of(&page, &names, &path, &place).await?;
    let hour = Hour {
        now: house.now,
        from: past.from,
        outages: past.outages(&house).map(Outage::from).collect(),
        models: past.models.iter().map(Into::into).collect(),
    };
    Ok(json(StatusCode::OK, &hour))
}

pub(super) async fn model(page: Data<Page>, request: HttpRequest, path: Path<String>) -> Answer {
    let access = page.access(&request).await?;
    let name = path.into_inner();
    let PageFact::Overview(model) = page.model(&name, PageAsk::Overview).await? else {
        return Err(NO_MODEL.into());
    };
    let around = page.around(&request, access, Some(name)).await?;
    let model = ModelInFull {
        now: around.house.now,
        model: Model::of(&around, &model),
        lately: done(&around.house),
    };
    Ok(json(StatusCode::OK, &model))
}

pub(super) async fn pause(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    body: Body<Pause>,
) -> Answer {
    let (access, body) = (page.program(&request, Role::Admin).await?, body?);
    let done = model::pause(&page, &path, true, orders::by(&access, &body.why)).await?;
    Ok(json(StatusCode::OK, &Ordered { done }))
}

pub(super) async fn resume(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    body: Body<Resume>,
) -> Answer {
    let (access, body) = (page.program(&request, Role::Admin).await?, body?);
    let done = model::pause(&page, &path, false, orders::by(&access, &body.why)).await?;
    Ok(json(StatusCode::OK, &Ordered { done }))
}

pub(super) async fn rows(
    page: Data<Page>,
    request: HttpRequest,
    filter: actix_web::Result<Query<Filter>>,
) -> Answer {
    let access = page.access(&request).await?;
    let filter = filter?;
    let (names, house) = (page.ask(GetNames).await?, page.ask(GetHouse(None)).await?);
    let (model, selection) = (filter.model(&names)?, filter.selection(house.now)?);
    let (state, after) = (selection.state.as_str(), filter.place()?);
    let ask = PageAsk::List { selection, after, most: PAGE };
    let PageFact::List(list) = page.model(&model, ask).await? else {
        return Err(Refusal::Silent.into());
    };
    let rows = Rows {
        now: house.now,
        state,
        rows: list.lines.iter().map(|line| Row::of(&model, line, &access)).collect(),
        next: list.next.as_ref().map(bulk::place),
        model,
    };
    Ok(json(StatusCode::OK, &rows))
}

/// Which of a row's attempts: those that began before then.
#[derive(Deserialize)]
pub(super) struct Attempts {
    before: Option<Instant>,
}

pub(super) async fn row(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
    attempts: actix_web::Result<Query<Attempts>>,
) -> Answer {
    let access = page.row_access(&request).await?;
    let before = attempts?.before.map(Moment::at);
    let (model, id) = path.into_inner();
    let PageFact::Row(row) = page.model(&model, PageAsk::Row { id: id.clone(), before }).await?
    else {
        return Err(NO_ROW.into());
    };
    let house = page.ask(GetHouse(None)).await?;
    let row = RowInFull {
        now: house.now,
        row: Row::of(&model, &row.line, &access),
        link: page.0.link.as_ref().and_then(|link| link(&model, &id)),
        steps: row.past.steps.iter().map(|step| super::types::Step::of(step, &access)).collect(),
        attempts: row
            .past
            .tries
            .iter()
            .map(|attempt| super::types::Attempt::of(attempt, &access))
            .collect(),
        older: row.past.older.map(|at| at.zoned),
        notes: row.past.notes.iter().map(Into::into).collect(),
        actions: row.past.actions.iter().map(Done::from).collect(),
    };
    Ok(json(StatusCode::OK, &row))
}

pub(super) async fn find(page: Data<Page>, request: HttpRequest, body: Body<Find>) -> Answer {
    let (access, body) = (page.program(&request, Role::View).await?, body?);
    let Find { model, what } = body.into_inner();
    let PageFact::List(list) = page.model(&model, orders::find(&what)?).await? else {
        return Err(Refusal::Silent.into());
    };
    let now = page.ask(GetHouse(None)).await?.now;
    let rows = list.lines.iter().map(|line| Row::of(&model, line, &access)).collect();
    Ok(json(StatusCode::OK, &FoundRows { now, rows, model }))
}

pub(super) async fn restart(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
    body: Body<Restart>,
) -> Answer {
    let (access, body) = (page.program(&request, Role::Operate).await?, body?);
    let (model, id) = path.into_inner();
    let ask = orders::restart(&access, vec![id], &body.why);
    match page.model(&model, ask).await? {
        PageFact::Restarted(done) if done.restarted + done.left_alone > 0 => {
            Ok(json(StatusCode::OK, &RestartedRows::of(1, &done)))
        }
        _ => Err(NO_ROW.into()),
    }
}

pub(super) async fn restart_many(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    body: Body<RestartMany>,
) -> Answer {
    let (access, body) = (page.program(&request, Role::Operate).await?, body?);
    let RestartMany { ids, why } = body.into_inner();
    if ids.is_empty() {
        return Err(Refusal::Wrong("No row is named.").into());
    }
    if ids.len() > MOST_NAMED {
        return Err(Refusal::Wrong("These are too many rows for one request: send 500.").into());
    }
    let asked = ids.len();
    match page.model(&path, orders::restart(&access, ids, &why)).await? {
        PageFact::Restarted(done) => Ok(json(StatusCode::OK, &RestartedRows::of(asked, &done))),
        _ => Err(Refusal::Silent.into()),
    }
}

pub(super) async fn cancel(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
    body: Body<Cancel>,
) -> Answer {
    let (access, body) = (page.program(&request, Role::Operate).await?, body?);
    let (model, id) = path.into_inner();
    match page.model(&model, orders::cancel(&access, id, &body.why)?).await? {
        PageFact::Canceled(done) => {
            Ok(json(StatusCode::OK, &CanceledRow { canceled: done.done() }))
        }
        PageFact::NotCanceled => Err(NOT_CANCELED.into()),
        _ => Err(NO_ROW.into()),
    }
}

pub(super) async fn note(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
    body: Body<NewNote>,
) -> Answer {
    let (access, body) = (page.program(&request, Role::Operate).await?, body?);
    let (model, id) = path.into_inner();
    match page.model(&model, orders::note(&access, id, &body.text, body.send)?).await? {
        PageFact::Noted { sent } => Ok(json(StatusCode::OK, &Noted { noted: true, sent })),
        _ => Err(NO_ROW.into()),
    }
}

pub(super) async fn service(page: Data<Page>, request: HttpRequest, path: Path<String>) -> Answer {
    page.access(&request).await?;
    let name = path.into_inner();
    let names = page.ask(GetNames).await?;
    let models = models_of(&names, &name);
    if models.is_empty() {
        return Err(NO_SERVICE.into());
    }
    let house = page.ask(GetHouse(Some(name.clone()))).await?;
    let models = page.waits(models.into_iter()).await?;
    let waiting = models.iter().map(|waits| Waiting {
        model: waits.model,
        due: waits.counts.due,
        failing: waits.counts.failing,
    });
    let service = ServiceInFull {
        now: house.now,
        service: Service::of(&name, house.services.iter().find(|state| state.name == name)),
        limits: limits_of(&name, &models).into(),
        models: waiting.collect(),
        tries: house.probes.iter().map(Into::into).collect(),
        outages: outages(&house),
        lately: done(&house),
    };
    Ok(json(StatusCode::OK, &service))
}

async fn order(page: &Page, service: String, access: &Access, order: Order) -> Answer {
    let by = orders::name(access);
    match page.ask(OrderByName { service, by, order }).await? {
        Some(done) => Ok(json(StatusCode::OK, &Ordered { done })),
        None => Err(NO_SERVICE.into()),
    }
}

pub(super) async fn hold(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    body: Body<Hold>,
) -> Answer {
    let (access, body) = (page.program(&request, Role::Operate).await?, body?);
    let now = page.ask(GetHouse(None)).await?.now;
    let held = orders::hold(&access, &body.why, body.until, now)?;
    order(&page, path.into_inner(), &access, held).await
}

pub(super) async fn release(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    body: Body<Plain>,
) -> Answer {
    let access = page.program(&request, Role::Operate).await?;
    let Plain {} = body?.into_inner();
    order(&page, path.into_inner(), &access, Order::Release).await
}

pub(super) async fn ask(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    body: Body<Plain>,
) -> Answer {
    let access = page.program(&request, Role::Operate).await?;
    let Plain {} = body?.into_inner();
    order(&page, path.into_inner(), &access, Order::AskNow).await
}
