//! Deploy markers over HTTP: a body or a query string in → a checked marker or question → the deploy port → JSON out.
//!
//! What may fail: the body, the parameters, the credentials and the store; each is answered as a problem document.

use std::time::Duration;

use actix_web::error::PayloadError;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{ApiDeps, Sender, openapi, reply, routes};
use crate::domain::deploy::{Deploy, DeployList, DeployMarker, DeployPage};
use crate::domain::query::problem::Problem;
use crate::domain::query::time::parse_instant;
use crate::domain::query::{BadParameter, QueryError};

/// Where they are.
pub const PATH: &str = "/api/v1/deploys";
/// Largest body of a marker.
pub const MOST_BODY: usize = 8 << 10;
/// What a body looks like, for whoever sent another one.
const EXAMPLE: &str = r#"send {"service": "cart", "version": "1.4.2"}, and if you like "at" and "by""#;

/// A deploy to be told.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployBody {
    /// Service, as its telemetry names it.
    #[schema(example = "cart")]
    service: String,
    /// The version that begins to run: a tag, a commit.
    #[schema(example = "1.4.2")]
    version: String,
    /// When: RFC 3339, Unix seconds or milliseconds as text or number, `now-5m`; kept to the millisecond. Now when absent. The same
    /// service, version and time again is the same marker: send it, and a repeat does no harm.
    #[schema(value_type = Option<String>, example = "2026-01-31T12:00:00Z")]
    at: Option<Value>,
    /// Who deploys, beside the name of the key.
    #[schema(example = "ann")]
    by: Option<String>,
}

/// Deploy markers, newest first. Without `start`, those of the last 7 days.
///
/// Those that were told, and changes of `service.version` that were seen in the telemetry.
#[utoipa::path(
    get, path = "/api/v1/deploys", tag = "deploys",
    params(openapi::DeployParams, openapi::PageParams),
    responses((status = 200, body = DeployPage), openapi::QueryProblems)
)]
pub async fn list(request: HttpRequest, deps: Data<ApiDeps>) -> HttpResponse {
    match listed(&request, &deps).await {
        Ok(page) => reply::ok(&page),
        Err(error) => reply::error(&error, &request),
    }
}

async fn listed(request: &HttpRequest, deps: &ApiDeps) -> Result<DeployPage, QueryError> {
    let scope = deps
        .scopes
        .resolve(request.headers(), request.peer_addr())
        .map_err(|denied| QueryError::Unauthorized(denied.reason))?;
    let list = DeployList::parse(routes::pairs(request)?, routes::asked(deps))?;
    let deadline = deps.config.now().serve.deadline;
    Ok(list.answer(within(deadline, deps.deploys.list(scope, list.query(), deadline)).await?))
}

/// Tells a deploy: a version of a service begins to run.
///
/// Any key that may send telemetry may tell; the tenant follows from it.
#[utoipa::path(
    post, path = "/api/v1/deploys", tag = "deploys",
    request_body = DeployBody,
    responses(
        (status = 201, description = "The marker is stored", body = DeployMarker),
        (status = 200, description = "It was there already, and stays as it was first told", body = DeployMarker),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not `application/json`", body = Problem, content_type = "application/problem+json"),
        openapi::QueryProblems
    )
)]
pub async fn tell(
    request: HttpRequest,
    deps: Data<ApiDeps>,
    body: Result<Bytes, actix_web::Error>,
) -> HttpResponse {
    match told(&request, &deps, body).await {
        Ok((true, marker)) => reply::created(&marker),
        Ok((false, marker)) => reply::ok(&marker),
        Err(Refused::Query(error)) => reply::error(&error, &request),
        Err(Refused::Body(status, slug, title, why)) => {
            reply::problem(&Problem::new(status, slug, title, why, request.path()))
        }
    }
}

/// Why a marker is not taken.
enum Refused {
    Query(QueryError),
    /// Status, slug, title and detail of what is wrong with the body as a whole.
    Body(u16, &'static str, &'static str, String),
}

impl<E: Into<QueryError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Query(error.into())
    }
}

async fn told(
    request: &HttpRequest,
    deps: &ApiDeps,
    body: Result<Bytes, actix_web::Error>,
) -> Result<(bool, DeployMarker), Refused> {
    let sender = deps.scopes.sender(request.headers(), request.peer_addr());
    let sender = sender.map_err(|denied| QueryError::Unauthorized(denied.reason))?;
    let now_ns = routes::now_ns();
    let deploy = marker(read(request, body)?, &sender, now_ns)?;
    let deadline = deps.config.now().serve.deadline;
    let asked = deps.deploys.tell(sender.scope, deploy.clone(), deadline);
    Ok((within(deadline, asked).await?, DeployMarker::of(&deploy)))
}

/// The port has the same deadline; this one holds even if the port does not.
async fn within<T>(
    deadline: Duration,
    asked: impl Future<Output = Result<T, QueryError>>,
) -> Result<T, QueryError> {
    tokio::time::timeout(deadline, asked).await.unwrap_or(Err(QueryError::Timeout))
}

/// A page of another origin can have a browser send a text, but no JSON, without asking first: so it must be said to be JSON.
fn read(request: &HttpRequest, body: Result<Bytes, actix_web::Error>) -> Result<DeployBody, Refused> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let why = format!("content-type {kind:?} is not taken here: send application/json");
        return Err(Refused::Body(415, "unsupported-media-type", "Unsupported media type", why));
    }
    let body = body.map_err(|error| match error.as_error::<PayloadError>() {
        Some(PayloadError::Overflow) => {
            let why = format!("the body is larger than {MOST_BODY} bytes: {EXAMPLE}");
            Refused::Body(413, "too-large", "Body too large", why)
        }
        _ => bad_body(format!("the body did not come whole: {error}")),
    })?;
    serde_json::from_slice(&body)
        .map_err(|error| bad_body(format!("the body is no deploy: {error}; {EXAMPLE}")))
}

fn bad_body(why: String) -> Refused {
    Refused::Body(400, "bad-body", "Bad body", why)
}

/// The marker of a body, checked.
fn marker(body: DeployBody, sender: &Sender, now_ns: i64) -> Result<Deploy, BadParameter> {
    let at_ns = match &body.at {
        None | Some(Value::Null) => now_ns,
        Some(Value::String(text)) => parse_instant("at", text, now_ns)?,
        Some(Value::Number(number)) => parse_instant("at", &number.to_string(), now_ns)?,
        Some(_) => return Err(BadParameter::new("at", "must be a text or a number")),
    };
    let at_ms = u64::try_from(at_ns / 1_000_000).unwrap_or(0);
    let told_by = sender.key.as_ref().map_or_else(|| "this machine".to_owned(), |key| format!("key {key}"));
    let who = match body.by.as_deref().map(str::trim).filter(|by| !by.is_empty()) {
        Some(by) => format!("{by} ({told_by})"),
        None => told_by,
    };
    let (service, version) = (body.service.into(), body.version.into());
    let deploy = Deploy { service, version, at_ms, who: who.into() };
    deploy.check(now_ns)?;
    Ok(deploy)
}

/// Mounts both on their path.
pub fn mount(resource: actix_web::Resource) -> actix_web::Resource {
    resource
        .app_data(web::PayloadConfig::new(MOST_BODY))
        .route(routes::look().to(list))
        .route(web::post().to(tell))
        .default_service(web::to(reply::look_or_post))
}
