//! The records of crashes: a look in, their names or one of them out; 404 for what is not there.

use std::io;

use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::{AdminDeps, reply};
use crate::domain::query::problem::Problem;
use crate::supervisors::kernel::black_box;

/// Names of the crash records, newest first.
#[utoipa::path(
    get, path = "/admin/black-boxes", tag = "admin", security(("admin_token" = [])),
    responses((status = 200, description = "`items`: the names, newest first", body = serde_json::Value), super::super::openapi::AdminProblems)
)]
pub async fn list(request: HttpRequest, deps: Data<AdminDeps>) -> HttpResponse {
    let dir = deps.black_boxes.clone();
    match web::block(move || black_box::list(&dir)).await {
        Ok(Ok(mut names)) => {
            names.reverse();
            reply::ok(&json!({"items": names}))
        }
        // Nothing has crashed yet, or records are off.
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => reply::ok(&json!({"items": []})),
        Ok(Err(error)) => reply::problem(&unreadable(&error.to_string(), request.path())),
        Err(error) => reply::problem(&unreadable(&error.to_string(), request.path())),
    }
}

/// One crash record: which child, why, what it had in hand, what happened before.
#[utoipa::path(
    get, path = "/admin/black-boxes/{name}", tag = "admin", security(("admin_token" = [])),
    params(("name" = String, Path, description = "A name of the list")),
    responses((status = 200, description = "The record", body = serde_json::Value), super::super::openapi::AdminProblems)
)]
pub async fn show(request: HttpRequest, deps: Data<AdminDeps>, name: Path<String>) -> HttpResponse {
    if !black_box::is_name(&name) {
        return reply::problem(&missing(&name, request.path()));
    }
    let path = deps.black_boxes.join(&*name);
    match web::block(move || std::fs::read(path)).await {
        Ok(Ok(record)) => HttpResponse::Ok().content_type("application/json").body(record),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            reply::problem(&missing(&name, request.path()))
        }
        Ok(Err(error)) => reply::problem(&unreadable(&error.to_string(), request.path())),
        Err(error) => reply::problem(&unreadable(&error.to_string(), request.path())),
    }
}

fn missing(name: &str, path: &str) -> Problem {
    let detail = format!("there is no crash record {name:?}; GET /admin/black-boxes lists them");
    Problem::new(404, "no-such-record", "No such crash record", &detail, path)
}

fn unreadable(error: &str, path: &str) -> Problem {
    let detail = format!("the folder of crash records cannot be read: {error}");
    Problem::new(500, "unreadable", "Crash records cannot be read", &detail, path)
}
