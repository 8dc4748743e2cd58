//! The operator's page: what is stuck, why, since when, and what can be done about it (feature
//! `dashboard`).
//!
//! Server-rendered; every page works without the script, which only keeps it up to date. It denies by
//! default: `authorize` is asked on every request, each POST checks the role and the origin, and what one
//! may not do is not there to be pressed either. Nothing is fetched from elsewhere.

mod access;
mod answer;
mod api;
mod bulk;
mod chart;
mod handlers;
mod orders;
mod pages;
mod words;

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest,
    dev::{AppService, HttpServiceFactory, Service as _},
    web,
};

pub use access::{Access, Role};

use crate::Handle;

type Authorized = Pin<Box<dyn Future<Output = Result<Access, actix_web::Error>>>>;
type Authorize = Arc<dyn Fn(HttpRequest) -> Authorized + Send + Sync>;

/// Links a row to the host's own page of it.
type Link = Arc<dyn Fn(&str, &str) -> Option<String> + Send + Sync>;

/// What the host's people call a row of a model, and many.
type Labels = BTreeMap<String, (String, String)>;

/// The page, to mount in the host's own app behind its own login.
///
/// ```no_run
/// use actix_web::{App, HttpServer, web};
/// use asyncable::{Access, Dashboard, Handle};
///
/// # async fn serve(handle: Handle) -> std::io::Result<()> {
/// let page = Dashboard::new(handle, |request| async move {
///     // whoever the host's own session says it is
///     match request.headers().get("x-user").and_then(|name| name.to_str().ok()) {
///         Some(name) => Ok(Access::operate(name)),
///         None => Err(actix_web::error::ErrorUnauthorized("log in first")),
///     }
/// });
/// HttpServer::new(move || App::new().service(web::scope("/ops/background").service(page.clone())))
///     .bind("127.0.0.1:8080")?
///     .run()
///     .await
/// # }
/// ```
#[derive(Clone)]
pub struct Dashboard {
    handle: Handle,
    authorize: Authorize,
    link: Option<Link>,
    progress_within: Duration,
    labels: Arc<Labels>,
}

impl Dashboard {
    /// The page of the supervisor behind `handle`. `authorize` says who sends a request; what it refuses is
    /// answered by its own error.
    pub fn new<F, Fut>(handle: Handle, authorize: F) -> Self
    where
        F: Fn(HttpRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Access, actix_web::Error>> + 'static,
    {
        let authorize = Arc::new(move |request| Box::pin(authorize(request)) as Authorized);
        let progress_within = Duration::from_secs(600);
        Dashboard { handle, authorize, link: None, progress_within, labels: Arc::default() }
    }

    /// The address of the host's own page of a row, from the model's name and the row's id.
    pub fn link(
        mut self,
        link: impl Fn(&str, &str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.link = Some(Arc::new(link));
        self
    }

    /// How long a due row may wait while no host works on its model, until `health/progressing` answers
    /// 503. Default 10 minutes, by the supervisor's clock.
    pub fn progress_within(mut self, within: Duration) -> Self {
        self.progress_within = within;
        self
    }

    /// What the host's people call one row of a model, and many: `.label("reviews", "Review", "Reviews")` shows
    /// its row 12 as "Review 12". By default both are the model's name.
    pub fn label(
        mut self,
        model: impl Into<String>,
        one: impl Into<String>,
        many: impl Into<String>,
    ) -> Self {
        Arc::make_mut(&mut self.labels).insert(model.into(), (one.into(), many.into()));
        self
    }
}

impl HttpServiceFactory for Dashboard {
    fn register(self, config: &mut AppService) {
        web::scope("")
            .app_data(web::Data::new(answer::Page(self)))
            .configure(handlers::routes)
            .wrap_fn(|request, routes| {
                let answer = routes.call(request);
                async move { Ok(answer::told(answer.await?)) }
            })
            .register(config);
    }
}
