//! Asking the operator's page as somebody, in tests of it.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::time::Duration;

use actix_web::{
    HttpRequest,
    body::MessageBody,
    dev::{Service, ServiceResponse},
    http::StatusCode,
    test,
};
use asyncable::Access;

/// Says who somebody is by a header, as a host does by its session.
pub(crate) async fn who(request: HttpRequest) -> Result<Access, actix_web::Error> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    match header("x-role") {
        Some("view") => Ok(Access::view("Vi View")),
        Some("operate") => Ok(Access::operate("Ann <em>Lee</em>")),
        Some("admin") => Ok(Access::admin("Ad Min")),
        _ => Err(actix_web::error::ErrorUnauthorized("log in first")),
    }
}

pub(crate) struct Shown {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
    pub(crate) location: Option<String>,
    /// The content security policy.
    pub(crate) policy: String,
}

impl Shown {
    /// The value of a form's field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.body.split_once(&format!("name=\"{name}\" value=\""))?;
        rest.split('"').next()
    }
}

/// Sends a request as somebody; a form, if there is a body.
pub(crate) async fn send<S, B>(app: &S, role: &str, address: &str, form: Option<&str>) -> Shown
where
    S: Service<actix_http::Request, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    let request = match form {
        None => test::TestRequest::get(),
        Some(form) => test::TestRequest::post()
            .insert_header(("sec-fetch-site", "same-origin"))
            .insert_header(("content-type", "application/x-www-form-urlencoded"))
            .set_payload(form.to_owned()),
    };
    send_request(app, request.insert_header(("x-role", role)).uri(address)).await
}

/// Sends a request as it is.
pub(crate) async fn send_request<S, B>(app: &S, request: test::TestRequest) -> Shown
where
    S: Service<actix_http::Request, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    let response = match app.call(request.to_request()).await {
        Ok(response) => response,
        Err(error) => {
            let status = error.as_response_error().status_code();
            let (body, policy) = (String::new(), String::new());
            return Shown { status, body, location: None, policy };
        }
    };
    let header = |name: &str| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned)
    };
    let location = header("location");
    let policy = header("content-security-policy").unwrap_or_default();
    let status = response.status();
    let body = test::read_body(response).await;
    Shown { status, body: String::from_utf8_lossy(&body).into_owned(), location, policy }
}

/// Asks for a page until it shows what is waited for.
pub(crate) async fn until<S, B>(
    app: &S,
    role: &str,
    address: &str,
    shows: impl Fn(&Shown) -> bool,
) -> Shown
where
    S: Service<actix_http::Request, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    let asked = async {
        loop {
            let shown = send(app, role, address, None).await;
            if shows(&shown) {
                return shown;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.expect("it is shown within a minute")
}
