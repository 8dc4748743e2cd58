//! Requests: who sends them, whether they may, what is asked of the supervisor, and the answer's headers.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::{self, Data, Form, Path, Query},
};
use chrono::{DateTime, Utc};
use maud::Markup;
use serde::Deserialize;

use super::{Access, Dashboard, Role, pages};
use crate::{
    Canceled,
    store::{
        Moment,
        page::{After, House, State},
        service::Order,
        turn::By,
    },
    supervisor::page::{AskModel, GetHouse, GetNames, Names, OrderByName, PageAsk, PageFact},
};

/// How long the database may take before the page says that it is silent.
const PATIENCE: Duration = Duration::from_secs(5);
/// Rows that one form may act on.
const MOST_TICKED: usize = 500;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

pub(crate) struct Page(pub(crate) Dashboard);

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("", web::get().to(overview))
        .route("/", web::get().to(overview))
        .route("/rows", web::get().to(rows))
        .route("/rows/{model}/restart", web::post().to(restart_ticked))
        .route("/rows/{model}/{id}", web::get().to(row))
        .route("/rows/{model}/{id}/restart", web::post().to(restart))
        .route("/rows/{model}/{id}/cancel", web::post().to(cancel))
        .route("/rows/{model}/{id}/note", web::post().to(note))
        .route("/services/{name}", web::get().to(service))
        .route("/services/{name}/{order}", web::post().to(order))
        .route("/health.json", web::get().to(health))
        .route("/style.css", web::get().to(style))
        .route("/script.js", web::get().to(script))
        .default_service(web::to(nothing_here));
}

/// Why a request is not answered by its page.
enum Refusal {
    /// The host's own word.
    Host(actix_web::Error),
    Needs(Role),
    /// A form that another site has sent.
    Foreign,
    /// No such page, row, model or service.
    Nothing(&'static str),
    /// A form that cannot be right.
    Wrong(&'static str),
    /// The database does not answer, or the supervisor has stopped.
    Silent,
}

type Answer = Result<HttpResponse, Refusal>;

/// What each page shows around its own.
pub(crate) struct Around {
    /// The address that the page is mounted at, without a slash at its end.
    pub(crate) base: String,
    pub(crate) access: Access,
    pub(crate) names: Names,
    pub(crate) house: House,
}

impl Page {
    async fn access(&self, request: &HttpRequest) -> Result<Access, Refusal> {
        (self.0.authorize)(request.clone()).await.map_err(Refusal::Host)
    }

    /// For a form: somebody who may, and from this page's own origin.
    async fn actor(&self, request: &HttpRequest, role: Role) -> Result<Access, Refusal> {
        let access = self.access(request).await?;
        if !access.may(role) {
            return Err(Refusal::Needs(role));
        }
        if is_own_origin(request) { Ok(access) } else { Err(Refusal::Foreign) }
    }

    async fn ask<M, T>(&self, message: M) -> Result<T, Refusal>
    where
        M: actix::Message<Result = Result<T, crate::RequestError>> + Send + 'static,
        T: Send + 'static,
        crate::SupervisorActor: actix::Handler<M>,
    {
        let asked = actix_rt::time::timeout(PATIENCE, self.0.handle.send(message)).await;
        match asked {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                log::debug!(error:% = error; "the page was not answered: {error}");
                Err(Refusal::Silent)
            }
            Err(_) => Err(Refusal::Silent),
        }
    }

    async fn model(&self, model: &str, ask: PageAsk) -> Result<PageFact, Refusal> {
        let asked = self.ask(AskModel { model: model.to_owned(), ask }).await?;
        asked.ok_or(Refusal::Nothing("No processor here works on a model of that name."))
    }

    async fn around(
        &self,
        request: &HttpRequest,
        access: Access,
        service: Option<String>,
    ) -> Result<Around, Refusal> {
        let (names, house) = (self.ask(GetNames).await?, self.ask(GetHouse(service)).await?);
        Ok(Around { base: base(request), access, names, house })
    }
}

/// The address that the page is mounted at: the request's, without what this route matched.
fn base(request: &HttpRequest) -> String {
    let path = request.path();
    let pattern = request.match_pattern().unwrap_or_default();
    const OWN: [&str; 12] = [
        "/rows/{model}/{id}/restart",
        "/rows/{model}/{id}/cancel",
        "/rows/{model}/{id}/note",
        "/rows/{model}/restart",
        "/rows/{model}/{id}",
        "/services/{name}/{order}",
        "/services/{name}",
        "/rows",
        "/health.json",
        "/style.css",
        "/script.js",
        "/",
    ];
    let own = OWN.iter().find(|own| pattern.ends_with(*own)).copied().unwrap_or("");
    let parts = own.matches('/').count();
    let end = path.rmatch_indices('/').nth(parts.wrapping_sub(1)).map(|(at, _)| at);
    path[..end.unwrap_or(path.len())].to_owned()
}

/// Whether a form comes from a page of this origin: by what browsers say of themselves.
fn is_own_origin(request: &HttpRequest) -> bool {
    let value = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = value("sec-fetch-site") {
        return site == "same-origin";
    }
    match (value("origin"), value("host")) {
        (Some(origin), Some(host)) => {
            origin.split_once("://").is_some_and(|(_, authority)| authority == host)
        }
        _ => false,
    }
}

/// Answers `answer`, or the page that says why not.
async fn shown(
    page: &Page,
    request: &HttpRequest,
    answer: Answer,
) -> actix_web::Result<HttpResponse> {
    let (status, title, text) = match answer {
        Ok(response) => return Ok(response),
        Err(Refusal::Host(error)) => return Err(error),
        Err(Refusal::Needs(role)) => {
            let text = format!("This needs the role `{}`.", role.as_str());
            (StatusCode::FORBIDDEN, "Not allowed", text)
        }
        Err(Refusal::Foreign) => (
            StatusCode::FORBIDDEN,
            "Not allowed",
            "The form was not sent from this page. Open the page again and send it from there."
                .to_owned(),
        ),
        Err(Refusal::Nothing(text)) => (StatusCode::NOT_FOUND, "Nothing here", text.to_owned()),
        Err(Refusal::Wrong(text)) => (StatusCode::BAD_REQUEST, "Not done", text.to_owned()),
        Err(Refusal::Silent) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The database does not answer",
            format!(
                "No answer at {} UTC. This page tries again by itself.",
                Utc::now().format("%H:%M:%S")
            ),
        ),
    };
    let name = page.access(request).await.map(|access| access.name).unwrap_or_default();
    Ok(respond(status, request, &pages::refusal(&base(request), &name, title, &text)))
}

fn respond(status: StatusCode, request: &HttpRequest, markup: &Markup) -> HttpResponse {
    let body = markup.0.clone();
    let etag = format!("\"{:016x}\"", fnv(pages::without_clock(&body).as_bytes()));
    let known = request.headers().get(header::IF_NONE_MATCH);
    let mut response = if status == StatusCode::OK
        && known.and_then(|known| known.to_str().ok()) == Some(etag.as_str())
    {
        HttpResponse::build(StatusCode::NOT_MODIFIED)
    } else {
        HttpResponse::build(status)
    };
    secured(&mut response)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::ETAG, etag))
        .content_type("text/html; charset=utf-8")
        .body(body)
}

fn secured(response: &mut actix_web::HttpResponseBuilder) -> &mut actix_web::HttpResponseBuilder {
    response
        .insert_header((
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "same-origin"))
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn found(to: &str) -> HttpResponse {
    let mut response = HttpResponse::build(StatusCode::SEE_OTHER);
    secured(&mut response).insert_header((header::LOCATION, to)).finish()
}

async fn overview(page: Data<Page>, request: HttpRequest) -> actix_web::Result<HttpResponse> {
    let answer = async {
        let access = page.access(&request).await?;
        let around = page.around(&request, access, None).await?;
        let mut models = Vec::new();
        for (model, _) in &around.names.models {
            if let PageFact::Overview(model) = page.model(model, PageAsk::Overview).await? {
                models.push(model);
            }
        }
        Ok(respond(StatusCode::OK, &request, &pages::overview(&around, &models)))
    };
    let answer = answer.await;
    shown(&page, &request, answer).await
}

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

async fn rows(
    page: Data<Page>,
    request: HttpRequest,
    filter: Query<Filter>,
) -> actix_web::Result<HttpResponse> {
    let answer = async {
        let access = page.access(&request).await?;
        let around = page.around(&request, access, None).await?;
        let first = around.names.models.first().map(|(model, _)| *model);
        let Some(model) = filter.model.clone().or_else(|| first.map(ToOwned::to_owned)) else {
            return Err(Refusal::Nothing(
                "No model is registered: give the supervisor a processor.",
            ));
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
            return Err(Refusal::Silent);
        };
        let shown = pages::rows(&around, &model, state, code.as_deref(), &list);
        Ok(respond(StatusCode::OK, &request, &shown))
    };
    let answer = answer.await;
    shown(&page, &request, answer).await
}

/// What a form has just done, for the page that follows.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct After303 {
    pub(crate) done: Option<String>,
}

async fn row(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
    done: Query<After303>,
) -> actix_web::Result<HttpResponse> {
    let answer = async {
        let access = page.access(&request).await?;
        let (model, id) = path.into_inner();
        let PageFact::Row(row) = page.model(&model, PageAsk::Row { id: id.clone() }).await? else {
            return Err(Refusal::Nothing("There is no such row, or not any more."));
        };
        let around = page.around(&request, access, None).await?;
        let link = page.0.link.as_ref().and_then(|link| link(&model, &id));
        let shown = pages::row(&around, &model, &row, link.as_deref(), done.done.as_deref());
        Ok(respond(StatusCode::OK, &request, &shown))
    };
    let answer = answer.await;
    shown(&page, &request, answer).await
}

/// A form about a row or a service.
#[derive(Clone, Debug, Default, Deserialize)]
struct Why {
    #[serde(default)]
    why: String,
    /// Hours, of a hold.
    #[serde(default)]
    hours: String,
}

impl Why {
    fn by(&self, access: &Access) -> By {
        By { who: access.name.replace('\0', ""), reason: self.why.trim().replace('\0', "") }
    }
}

/// The longest note or reason, in characters.
const LONGEST: usize = 4000;

async fn restart(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
    form: Form<Why>,
) -> actix_web::Result<HttpResponse> {
    let answer = async {
        let access = page.actor(&request, Role::Operate).await?;
        let (model, id) = path.into_inner();
        let ask = PageAsk::Restart { ids: vec![id.clone()], by: form.by(&access) };
        let done = match page.model(&model, ask).await? {
            PageFact::Restarted(done) if done.restarted > 0 => "restarted",
            PageFact::Restarted(done) if done.left_alone > 0 => "not-restarted",
            _ => return Err(Refusal::Nothing("There is no such row, or not any more.")),
        };
        Ok(found(&format!("{}?done={done}", pages::row_address(&base(&request), &model, &id))))
    };
    let answer = answer.await;
    shown(&page, &request, answer).await
}

async fn cancel(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
    form: Form<Why>,
) -> actix_web::Result<HttpResponse> {
    let answer = async {
        let access = page.actor(&request, Role::Operate).await?;
        let (model, id) = path.into_inner();
        if form.why.trim().is_empty() {
            return Err(Refusal::Wrong("Say why it is canceled: it is kept in the history."));
        }
        let done = match page
            .model(&model, PageAsk::Cancel { id: id.clone(), by: form.by(&access) })
            .await?
        {
            PageFact::Canceled(Canceled::Done) => "canceled",
            PageFact::Canceled(_) => "not-canceled",
            _ => return Err(Refusal::Nothing("There is no such row, or not any more.")),
        };
        Ok(found(&format!("{}?done={done}", pages::row_address(&base(&request), &model, &id))))
    };
    let answer = answer.await;
    shown(&page, &request, answer).await
}

async fn note(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
    form: Form<Why>,
) -> actix_web::Result<HttpResponse> {
    let answer = async {
        let access = page.actor(&request, Role::Operate).await?;
        let (model, id) = path.into_inner();
        let text: String = form.why.trim().chars().take(LONGEST).collect();
        if text.is_empty() {
            return Err(Refusal::Wrong("The note is empty."));
        }
        let ask = PageAsk::Note { id: id.clone(), who: form.by(&access).who, text };
        match page.model(&model, ask).await? {
            PageFact::Noted => Ok(found(&format!(
                "{}?done=noted",
                pages::row_address(&base(&request), &model, &id)
            ))),
            _ => Err(Refusal::Nothing("There is no such row, or not any more.")),
        }
    };
    let answer = answer.await;
    shown(&page, &request, answer).await
}

/// The ticked rows of a list: shown first, and restarted only by the form of that page.
async fn restart_ticked(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    form: Form<Vec<(String, String)>>,
) -> actix_web::Result<HttpResponse> {
    let answer = async {
        let access = page.actor(&request, Role::Operate).await?;
        let model = path.into_inner();
        let values = |name: &str| {
            let named = form.iter().filter(|(field, _)| field == name);
            named.map(|(_, value)| value.clone()).collect::<Vec<String>>()
        };
        let ids = values("row");
        if ids.is_empty() {
            return Err(Refusal::Wrong("No row is ticked."));
        }
        if ids.len() > MOST_TICKED {
            return Err(Refusal::Wrong("These are too many rows for one form."));
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
            _ => Err(Refusal::Silent),
        }
    };
    let answer = answer.await;
    shown(&page, &request, answer).await
}

async fn service(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<String>,
    done: Query<After303>,
) -> actix_web::Result<HttpResponse> {
    let answer = async {
        let access = page.access(&request).await?;
        let name = path.into_inner();
        let around = page.around(&request, access, Some(name.replace('\0', ""))).await?;
        let models = around.names.models.iter().filter(|(_, services)| services.contains(&name));
        let models: Vec<&'static str> = models.map(|(model, _)| *model).collect();
        if models.is_empty() {
            return Err(Refusal::Nothing("No processor here names a service of that name."));
        }
        let mut waiting = Vec::new();
        for model in models {
            if let PageFact::Overview(model) = page.model(model, PageAsk::Overview).await? {
                waiting.push(model);
            }
        }
        let shown = pages::service(&around, &name, &waiting, done.done.as_deref());
        Ok(respond(StatusCode::OK, &request, &shown))
    };
    let answer = answer.await;
    shown(&page, &request, answer).await
}

async fn order(
    page: Data<Page>,
    request: HttpRequest,
    path: Path<(String, String)>,
    form: Form<Why>,
) -> actix_web::Result<HttpResponse> {
    let answer = async {
        let access = page.actor(&request, Role::Operate).await?;
        let (name, order) = path.into_inner();
        let By { who: by, reason } = form.by(&access);
        let (order, done) = match order.as_str() {
            "hold" => {
                if reason.is_empty() {
                    return Err(Refusal::Wrong(
                        "Say why it is held down: it is shown to everybody.",
                    ));
                }
                let hours: Option<u32> = match form.hours.trim() {
                    "" => None,
                    hours => Some(
                        hours.parse().map_err(|_| Refusal::Wrong("Hours are a whole number."))?,
                    ),
                };
                let house = page.ask(GetHouse(None)).await?;
                let until = hours.map(|hours| {
                    Moment::at(house.now).plus(Duration::from_secs(3600) * hours.min(24 * 365))
                });
                (Order::Hold { reason, until }, "held")
            }
            "release" => (Order::Release, "released"),
            "ask" => (Order::AskNow, "asked"),
            _ => return Err(Refusal::Nothing("There is no such order.")),
        };
        match page.ask(OrderByName { service: name.clone(), by, order }).await? {
            None => Err(Refusal::Nothing("No processor here names a service of that name.")),
            Some(true) => Ok(found(&format!(
                "{}?done={done}",
                pages::service_address(&base(&request), &name)
            ))),
            Some(false) => Ok(found(&format!(
                "{}?done=nothing",
                pages::service_address(&base(&request), &name)
            ))),
        }
    };
    let answer = answer.await;
    shown(&page, &request, answer).await
}

/// For machines: 200 while some host is alive and the database answers, 503 otherwise. No login, no names.
async fn health(page: Data<Page>) -> HttpResponse {
    let house = page.ask(GetHouse(None)).await;
    let (status, body) = match house {
        Ok(house) if house.hosts.is_empty() => {
            (StatusCode::SERVICE_UNAVAILABLE, r#"{"ok":false,"why":"no host is alive"}"#.to_owned())
        }
        Ok(house) => {
            let down = house.services.iter().filter(|service| service.open).count();
            (
                StatusCode::OK,
                format!(r#"{{"ok":true,"hosts":{},"services_down":{down}}}"#, house.hosts.len()),
            )
        }
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            r#"{"ok":false,"why":"the database does not answer"}"#.to_owned(),
        ),
    };
    let mut response = HttpResponse::build(status);
    secured(&mut response)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .content_type("application/json")
        .body(body)
}

async fn style() -> HttpResponse {
    asset("text/css; charset=utf-8", STYLE)
}

async fn script() -> HttpResponse {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

/// An asset's address carries its version, so that it may be kept for ever.
fn asset(kind: &str, body: &'static str) -> HttpResponse {
    let mut response = HttpResponse::build(StatusCode::OK);
    secured(&mut response)
        .insert_header((header::CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .content_type(kind)
        .body(body)
}

/// What the assets' addresses carry.
pub(crate) fn asset_version() -> String {
    format!("{:08x}", fnv(STYLE.as_bytes()) ^ fnv(SCRIPT.as_bytes()))
}

async fn nothing_here(page: Data<Page>, request: HttpRequest) -> actix_web::Result<HttpResponse> {
    let answer = async {
        page.access(&request).await?;
        Err(Refusal::Nothing("There is no such page."))
    };
    let answer = answer.await;
    shown(&page, &request, answer).await
}
