//! Health checks: `/livez` says whether the process can still help itself, `/readyz` whether every part that requests need does its work.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use utoipa::ToSchema;

use super::{ApiDeps, reply};
use crate::domain::query::problem::Problem;

/// Answer of a health check that passed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Health {
    /// `live` or `ready`.
    #[schema(example = "ready")]
    pub status: String,
    /// The parts that were asked.
    pub parts: Vec<String>,
}

/// The watchdog ticks and the root thread turns, so that everything else is restarted where it fails; otherwise 503, and
/// only a restart of the process helps.
#[utoipa::path(
    get, path = "/livez", tag = "health", security(()),
    responses((status = 200, body = Health), (status = 503, body = Problem, content_type = "application/problem+json"))
)]
pub async fn livez(request: HttpRequest, deps: Data<ApiDeps>) -> HttpResponse {
    if deps.readiness.is_alive() {
        return reply::ok(&Health { status: "live".to_owned(), parts: vec![] });
    }
    let detail = "the root thread is blocked, nothing is supervised: restart the process";
    reply::problem(&Problem::new(503, "not-alive", "Not alive", detail.to_owned(), request.path()))
}

/// Every part that requests need is ready; otherwise 503, naming those that are not.
#[utoipa::path(
    get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, body = Health), (status = 503, body = Problem, content_type = "application/problem+json"))
)]
pub async fn readyz(request: HttpRequest, deps: Data<ApiDeps>) -> HttpResponse {
    let parts = deps.readiness.parts();
    let missing: Vec<String> = parts
        .iter()
        .filter(|part| !part.ready)
        .map(|part| format!("{}: {}", part.name, part.detail))
        .collect();
    if missing.is_empty() {
        let parts = parts.into_iter().map(|part| part.name).collect();
        return reply::ok(&Health { status: "ready".to_owned(), parts });
    }
    let mut problem = Problem::new(503, "not-ready", "Not ready", missing.join("; "), request.path());
    problem.retry_after_seconds = Some(1);
    reply::problem(&problem)
}
