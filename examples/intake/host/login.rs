//! The host's login, for its operator's page: it believes everybody, so that you can try each role.

use actix_web::{HttpRequest, HttpResponse, Result, error::InternalError, http::header, web};
use asyncable::Access;

use crate::page;

/// Whose the claims are that are filed by hand: what their rows' `created_by` says.
pub const CLERK: &str = "clerk";

/// Whoever the cookie says it is; everybody else must log in.
pub async fn who(request: HttpRequest) -> Result<Access> {
    let cookies = request.headers().get(header::COOKIE).and_then(|value| value.to_str().ok());
    let login = cookies
        .and_then(|cookies| cookies.split("; ").find_map(|cookie| cookie.strip_prefix("login=")));
    match login {
        Some("clerk") => Ok(Access::own("Cleo Park").user(CLERK)),
        Some("viewer") => Ok(Access::view("Vic Viewer")),
        Some("operator") => Ok(Access::operate("Ann Lee")),
        Some("admin") => Ok(Access::admin("Bo Kim")),
        _ => {
            let login =
                HttpResponse::SeeOther().insert_header((header::LOCATION, "/login")).finish();
            Err(InternalError::from_response("log in first", login).into())
        }
    }
}

pub async fn choose() -> HttpResponse {
    HttpResponse::Ok().content_type(page::HTML).body(page::login())
}

/// `POST /login/operator`.
pub async fn log_in(role: web::Path<String>) -> HttpResponse {
    if !["clerk", "viewer", "operator", "admin"].contains(&role.as_str()) {
        return HttpResponse::NotFound().finish();
    }
    HttpResponse::SeeOther()
        .insert_header((
            header::SET_COOKIE,
            format!("login={role}; Path=/; HttpOnly; SameSite=Lax"),
        ))
        .insert_header((header::LOCATION, "/asyncable/"))
        .finish()
}
