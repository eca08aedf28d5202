//! The configuration as it runs, and its reload: a request in → every value with its source, or what a reload did.

use std::time::Duration;

use actix_web::web::{Data, ReqData};
use actix_web::{HttpRequest, HttpResponse};

use super::{AdminDeps, reply};
use crate::actors::serve::reloader::RELOAD_DEADLINE;
use crate::domain::admin::Admin;
use crate::domain::query::problem::Problem;
use crate::domain::reload::Reloaded;
use crate::messages::serve::ReloadConfig;

/// Reloads wait for each other; whoever waits behind one is answered too.
const PATIENCE: Duration = RELOAD_DEADLINE.saturating_mul(2);

/// Every value that holds with the place that set it and what a change of it needs; secrets are masked. `pending` lists
/// what was reloaded and waits for a restart of the process.
#[utoipa::path(
    get, path = "/admin/config", tag = "admin", security(("admin_token" = [])),
    responses((status = 200, description = "Values by key, and what is pending", body = serde_json::Value), super::super::openapi::AdminProblems)
)]
pub async fn show(deps: Data<AdminDeps>) -> HttpResponse {
    reply::ok(&deps.tuning.show())
}

/// Reads files, environment and flags anew, checks all of it, then applies it. A configuration with any fault is refused
/// as a whole (422, every fault in `detail`), and the one before runs on.
#[utoipa::path(
    post, path = "/admin/config/reload", tag = "admin", security(("admin_token" = [])),
    responses(
        (status = 200, description = "Each changed key with its effect and what was done", body = Reloaded),
        (status = 422, description = "Refused; nothing has changed", body = Problem, content_type = "application/problem+json"),
        super::super::openapi::AdminProblems
    )
)]
pub async fn reload(request: HttpRequest, deps: Data<AdminDeps>, admin: ReqData<Admin>) -> HttpResponse {
    let who = admin.to_string();
    match deps.reloads.ask(|reply| ReloadConfig { who, reply }, PATIENCE).await {
        Ok(Ok(reloaded)) => reply::ok(&reloaded),
        Ok(Err(refused)) => {
            let text = refused.errors.join("\n");
            reply::problem(&Problem::new(
                422,
                "config-refused",
                "Configuration refused",
                text,
                request.path(),
            ))
        }
        Err(error) => {
            let text = format!("the reloader does not answer ({error}): look at /admin/tree, serve.reloader");
            reply::problem(&Problem::new(503, "not-ready", "Not ready", text, request.path()))
        }
    }
}
