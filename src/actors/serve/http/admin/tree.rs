//! The tree and the metrics as they are now: a look in, JSON or metrics text out; 503 while the tree is starting.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::{AdminDeps, reply};
use crate::domain::query::problem::Problem;
use crate::supervisors::kernel::tree::TreeView;

/// Media type of the metrics text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The supervision tree: state, generation, restarts, lanes and last failure of every node.
#[utoipa::path(
    get, path = "/admin/tree", tag = "admin", security(("admin_token" = [])),
    responses((status = 200, description = "The tree; `version` grows when its form changes. A group of more than 64 temporary children (sessions) lists the first 20 under `children` and has the figures of all in `crowd`: members, shown, left_out, states, restarts, handled, busy_ratio, gauges, lane", body = serde_json::Value), super::super::openapi::AdminProblems)
)]
pub async fn show(request: HttpRequest, deps: Data<AdminDeps>) -> HttpResponse {
    match view(&deps) {
        Some(view) => reply::ok(&view.snapshot()),
        None => reply::problem(&not_ready(request.path())),
    }
}

/// The metrics of the process, as OpenMetrics text for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "admin", security(("admin_token" = [])),
    responses((status = 200, description = "OpenMetrics text", content_type = "application/openmetrics-text", body = String), super::super::openapi::AdminProblems)
)]
pub async fn metrics(request: HttpRequest, deps: Data<AdminDeps>) -> HttpResponse {
    match view(&deps) {
        Some(view) => HttpResponse::Ok().content_type(OPENMETRICS).body(deps.metrics.render(&view)),
        None => reply::problem(&not_ready(request.path())),
    }
}

/// The tree, if it has been started.
pub fn view(deps: &AdminDeps) -> Option<TreeView> {
    (**deps.view.load()).clone()
}

/// The answer while there is no tree yet.
pub fn not_ready(path: &str) -> Problem {
    let mut problem = Problem::new(503, "not-ready", "Not ready", "the tree is starting", path);
    problem.retry_after_seconds = Some(1);
    problem
}
