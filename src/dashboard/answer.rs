//! What a request is answered with: who sends it, whether they may, and the answer's headers.

use std::{fmt, sync::Arc, time::Duration};

use actix_web::{
    HttpMessage, HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError,
    body::BoxBody,
    dev::ServiceResponse,
    http::{Method, StatusCode, header},
};
use chrono::Utc;
use maud::Markup;

use super::{Access, Dashboard, Labels, Role, api, orders, pages};
use crate::{
    store::{
        page::{House, ModelOverview},
        pause::Paused,
    },
    supervisor::page::{AskModel, GetHouse, GetNames, Names, PageAsk, PageFact, Waits},
};

/// How long the database may take before the page says that it is silent.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) const STYLE: &str = include_str!("style.css");
pub(crate) const SCRIPT: &str = include_str!("script.js");

pub(crate) struct Page(pub(crate) Dashboard);

/// Why a request is not answered by its page.
#[derive(Debug)]
pub(crate) enum Refusal {
    Needs(Role),
    /// A form that another site has sent.
    Foreign,
    /// No such page, row, model or service.
    Nothing(&'static str),
    /// No such model: these there are.
    NoModel(Vec<&'static str>),
    /// A form that cannot be right.
    Wrong(&'static str),
    /// A body or query that cannot be read, and why.
    Unread(StatusCode, String),
    /// The database does not answer, or the supervisor has stopped.
    Silent,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Needs(role) => write!(f, "This needs the role `{}`.", role.as_str()),
            Refusal::Foreign => f.write_str(
                "The form was not sent from this page. Open the page again and send it from there.",
            ),
            Refusal::Nothing(text) | Refusal::Wrong(text) => f.write_str(text),
            Refusal::NoModel(models) if models.is_empty() => {
                f.write_str("No processor here works on any model.")
            }
            Refusal::NoModel(models) => write!(
                f,
                "No processor here works on a model of that name. Those that there are: {}.",
                models.join(", ")
            ),
            Refusal::Unread(_, why) => f.write_str(why),
            Refusal::Silent => write!(
                f,
                "The database has not answered at {} UTC. This page tries again by itself.",
                Utc::now().format("%H:%M:%S")
            ),
        }
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        match self {
            Refusal::Needs(_) | Refusal::Foreign => StatusCode::FORBIDDEN,
            Refusal::Nothing(_) | Refusal::NoModel(_) => StatusCode::NOT_FOUND,
            Refusal::Wrong(_) => StatusCode::BAD_REQUEST,
            Refusal::Unread(status, _) => *status,
            Refusal::Silent => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Refusal {
    fn title(&self) -> &'static str {
        match self {
            Refusal::Needs(_) | Refusal::Foreign => "Not allowed",
            Refusal::Nothing(_) | Refusal::NoModel(_) => "Nothing here",
            Refusal::Wrong(_) | Refusal::Unread(..) => "Not done",
            Refusal::Silent => "The database does not answer",
        }
    }
}

pub(crate) type Answer = actix_web::Result<HttpResponse>;

/// What each page shows around its own.
pub(crate) struct Around {
    /// The address that the page is mounted at, without a slash at its end.
    pub(crate) base: String,
    pub(crate) access: Access,
    pub(crate) names: Names,
    pub(crate) house: House,
    pub(crate) labels: Arc<Labels>,
}

impl Around {
    /// A model as the host's people call it.
    pub(crate) fn label<'a>(&'a self, model: &'a str) -> &'a str {
        self.labels.get(model).map_or(model, |(_, many)| many)
    }

    /// Who has paused a model, if it is paused in all processes.
    pub(crate) fn paused(&self, model: &str) -> Option<&Paused> {
        let mut pauses = self.house.pauses.iter();
        pauses.find(|(name, _)| name == model).map(|(_, paused)| paused)
    }

    /// Models that only other processes work on: perhaps those of another version.
    pub(crate) fn elsewhere(&self) -> impl Iterator<Item = &String> {
        let is_here = |model: &&String| self.names.models.iter().any(|(name, _)| name == model);
        self.house.models.iter().filter(move |model| !is_here(model))
    }

    /// The services that a model's processor names.
    pub(crate) fn services_of(&self, model: &str) -> &[String] {
        self.names.services_of(model)
    }

    /// A row as they call it.
    pub(crate) fn row_name(&self, model: &str, id: &str) -> String {
        format!("{} {id}", self.labels.get(model).map_or(model, |(one, _)| one))
    }
}

impl Page {
    /// Somebody who may look at all rows, or why they may not.
    pub(crate) async fn access(&self, request: &HttpRequest) -> actix_web::Result<Access> {
        let access = self.somebody(request).await?;
        if access.may(Role::View) { Ok(access) } else { Err(Refusal::Needs(Role::View).into()) }
    }

    /// Somebody, or the host's own refusal. They may see what is theirs.
    pub(crate) async fn somebody(&self, request: &HttpRequest) -> actix_web::Result<Access> {
        let access = (self.0.authorize)(request.clone()).await?;
        request.extensions_mut().insert(access.clone());
        Ok(access)
    }

    /// Somebody who may look at a row. For others there is none: whose rows there are is nobody's business who
    /// may only see their own.
    pub(crate) async fn row_access(&self, request: &HttpRequest) -> actix_web::Result<Access> {
        let access = self.somebody(request).await?;
        if access.may(Role::View) { Ok(access) } else { Err(orders::NO_ROW.into()) }
    }

    /// For a form: somebody who may, and from this page's own origin.
    pub(crate) async fn actor(
        &self,
        request: &HttpRequest,
        role: Role,
    ) -> actix_web::Result<Access> {
        let access = self.somebody(request).await?;
        if !is_own_origin(request) {
            return Err(Refusal::Foreign.into());
        }
        if access.may(role) { Ok(access) } else { Err(Refusal::Needs(role).into()) }
    }

    /// For a form that changes nothing: somebody who may look, from this page's own origin.
    pub(crate) async fn own_form(&self, request: &HttpRequest) -> actix_web::Result<Access> {
        self.actor(request, Role::View).await
    }

    /// For a program's request: as `actor`, but it need not say where it comes from, if no form of another
    /// site's could have sent it.
    pub(crate) async fn program(
        &self,
        request: &HttpRequest,
        role: Role,
    ) -> actix_web::Result<Access> {
        let access = self.somebody(request).await?;
        let says = |name: &str| request.headers().contains_key(name);
        let by_no_form = request.content_type() == "application/json"
            && !says("sec-fetch-site")
            && !says("origin");
        if !by_no_form && !is_own_origin(request) {
            return Err(Refusal::Foreign.into());
        }
        if access.may(role) { Ok(access) } else { Err(Refusal::Needs(role).into()) }
    }

    pub(crate) async fn ask<M, T>(&self, message: M) -> Result<T, Refusal>
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

    pub(crate) async fn model(&self, model: &str, ask: PageAsk) -> Result<PageFact, Refusal> {
        let asked = self.ask(AskModel { model: model.to_owned(), ask }).await?;
        match asked {
            Some(fact) => Ok(fact),
            None => Err(self.no_model().await?),
        }
    }

    /// For those who name another model than there is.
    pub(crate) async fn no_model(&self) -> Result<Refusal, Refusal> {
        let names = self.ask(GetNames).await?.models;
        Ok(Refusal::NoModel(names.into_iter().map(|(model, _)| model).collect()))
    }

    /// What there is to say of models, asked at the same time.
    pub(crate) async fn overviews(
        &self,
        models: impl Iterator<Item = &'static str>,
    ) -> Result<Vec<ModelOverview>, Refusal> {
        let facts = self.facts(models, &PageAsk::Overview).await?;
        let overview = |fact| match fact {
            PageFact::Overview(model) => Some(model),
            _ => None,
        };
        Ok(facts.into_iter().filter_map(overview).collect())
    }

    /// How many rows of models wait for a service.
    pub(crate) async fn waits(
        &self,
        models: impl Iterator<Item = &'static str>,
    ) -> Result<Vec<Waits>, Refusal> {
        let facts = self.facts(models, &PageAsk::Waits).await?;
        let waits = |fact| match fact {
            PageFact::Waits(waits) => Some(waits),
            _ => None,
        };
        Ok(facts.into_iter().filter_map(waits).collect())
    }

    pub(crate) async fn facts(
        &self,
        models: impl Iterator<Item = &'static str>,
        ask: &PageAsk,
    ) -> Result<Vec<PageFact>, Refusal> {
        let asked = models.map(|model| self.model(model, ask.clone()));
        futures_util::future::try_join_all(asked).await
    }

    pub(crate) async fn around(
        &self,
        request: &HttpRequest,
        access: Access,
        service: Option<String>,
    ) -> actix_web::Result<Around> {
        let (names, house) = (self.ask(GetNames).await?, self.ask(GetHouse(service)).await?);
        let labels = self.0.labels.clone();
        Ok(Around { base: base(request), access, names, house, labels })
    }
}

/// The part of a route's pattern that is the page's own, kept with the route.
pub(crate) struct Own(pub(crate) &'static str);

/// The address that the page is mounted at: the request's, without what this route matched.
pub(crate) fn base(request: &HttpRequest) -> String {
    let path = request.path();
    let end = match request.app_data::<Own>() {
        Some(Own("")) => path.len(),
        Some(Own(own)) => {
            let parts = own.matches('/').count();
            path.rmatch_indices('/').nth(parts - 1).map_or(path.len(), |(at, _)| at)
        }
        // No route's: what the scope has left over.
        None => path.len() - request.match_info().unprocessed().len(),
    };
    path[..end].to_owned()
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

/// Makes a page of a refusal, or JSON for a program; the host's own answers pass as they are.
pub(crate) fn told(answer: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let refused = answer.response().error().and_then(|error| error.as_error::<Refusal>());
    let Some(refused) = refused else { return answer };
    let (request, status) = (answer.request(), refused.status_code());
    if api::is_asked(request) {
        let response = api::refused(status, refused.to_string());
        return answer.into_response(response);
    }
    let access = request.extensions().get::<Access>().cloned();
    let page =
        pages::refusal(&base(request), access.as_ref(), refused.title(), &refused.to_string());
    let mut response = respond(status, request, &page);
    // It says that it tries again; with no script, as the first page has none that could.
    if matches!(refused, Refusal::Silent) && request.method() == Method::GET {
        response.headers_mut().insert(header::REFRESH, header::HeaderValue::from_static("10"));
    }
    answer.into_response(response)
}

pub(crate) fn respond(status: StatusCode, request: &HttpRequest, markup: &Markup) -> HttpResponse {
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

pub(crate) fn secured(response: &mut HttpResponseBuilder) -> &mut HttpResponseBuilder {
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

pub(crate) fn found(to: &str) -> HttpResponse {
    let mut response = HttpResponse::build(StatusCode::SEE_OTHER);
    secured(&mut response).insert_header((header::LOCATION, to)).finish()
}

/// An asset's address carries its version, so that it may be kept for ever.
pub(crate) fn asset(kind: &str, body: &'static str) -> HttpResponse {
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
