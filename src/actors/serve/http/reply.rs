//! From results to HTTP responses: an answer → 200 with JSON; an error → its status with a problem document and the headers that go with it.

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::{admin, routes};
use crate::config::Config;
use crate::config::roles::Role;
use crate::domain::query::QueryError;
use crate::domain::query::problem::{PROBLEM_JSON, Problem};

/// 200 with a JSON body that is not to be cached.
pub fn ok(body: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(body)
}

/// 201 with the JSON of what was stored.
pub fn created(body: &impl Serialize) -> HttpResponse {
    HttpResponse::Created().insert_header((CACHE_CONTROL, "no-store")).json(body)
}

/// The response of a query error.
pub fn error(error: &QueryError, request: &HttpRequest) -> HttpResponse {
    problem(&Problem::of(error, request.path()))
}

/// The response of a problem document.
pub fn problem(problem: &Problem) -> HttpResponse {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    response.insert_header((CACHE_CONTROL, "no-store"));
    if let Some(seconds) = problem.retry_after_seconds {
        response.insert_header((RETRY_AFTER, seconds.to_string()));
    }
    if status == StatusCode::UNAUTHORIZED {
        response.insert_header((WWW_AUTHENTICATE, "Bearer"));
    }
    response.insert_header((CONTENT_TYPE, PROBLEM_JSON));
    // A problem is texts and numbers: it always serialises.
    response.body(serde_json::to_string(problem).unwrap_or_default())
}

/// 404 for a path that is not served, with the nearest one that is.
pub async fn no_such_path(request: HttpRequest) -> HttpResponse {
    let path: String = request.path().chars().take(256).collect();
    let below = admin::ENDPOINTS.iter().map(|endpoint| format!("{}{}", admin::SCOPE, endpoint.path));
    let known = routes::ENDPOINTS.iter().map(|endpoint| endpoint.path.to_owned()).chain(below);
    let near = known
        .map(|known| (strsim::osa_distance(&known, &path), known))
        .min()
        .filter(|(distance, _)| *distance <= 4);
    let detail = match near {
        Some((_, near)) => format!("nothing is served at {path}, did you mean {near}?"),
        None => format!("nothing is served at {path}: see /api/docs for what is"),
    };
    problem(&Problem::new(404, "not-found", "Not found", detail, request.path()))
}

/// 421 for what processes of the role `query-gateway` serve, where this one has other roles.
pub fn other_role(request: &HttpRequest, config: &Config) -> HttpResponse {
    let (path, wanted, roles) = (request.path(), Role::QueryGateway, config.roles_text());
    let detail = format!("{path} is served by processes with the role {wanted}, this one runs {roles}");
    problem(&Problem::new(421, "other-role", "Served by another role", detail, path))
}

/// 405 where only GET and HEAD are served.
pub async fn only_get(request: HttpRequest) -> HttpResponse {
    method_not_allowed(&request, "GET, HEAD")
}

/// 405 where GET, HEAD and POST are served.
pub async fn look_or_post(request: HttpRequest) -> HttpResponse {
    method_not_allowed(&request, "GET, HEAD, POST")
}

/// 405 where only POST is served.
pub async fn only_post(request: HttpRequest) -> HttpResponse {
    method_not_allowed(&request, "POST")
}

fn method_not_allowed(request: &HttpRequest, allowed: &'static str) -> HttpResponse {
    let words = allowed.replace(", ", " and ");
    let are = if words == allowed { "is" } else { "are" };
    let detail = format!("{} is not possible here, only {words} {are}", request.method());
    let mut response =
        problem(&Problem::new(405, "method-not-allowed", "Method not allowed", detail, request.path()));
    response.headers_mut().insert(ALLOW, actix_web::http::header::HeaderValue::from_static(allowed));
    response
}
