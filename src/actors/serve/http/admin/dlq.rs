//! The dead letters over HTTP: list, look, replay. A request in → a question to the letter desk, its answer as JSON out.

use std::time::Duration;

use actix_web::web::{Bytes, Data, Path, Query, ReqData};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use super::{AdminDeps, reply, tree};
use crate::config::roles::Role;
use crate::domain::admin::Admin;
use crate::domain::dead_letters::{
    LetterAnswer, LetterAsk, LetterFilter, LettersError, MOST_LETTERS, Replayed, Selection,
};
use crate::domain::offence::Cause;
use crate::domain::query::problem::Problem;
use crate::domain::signal::Signal;
use crate::messages::stream::AskLetters;
use crate::supervisors::kernel::journal::EventKind;
use crate::supervisors::kernel::port::PortError;

/// Time the desk has for an answer.
const DEADLINE: Duration = Duration::from_secs(40);
/// Letters in a list when nothing is said.
const DEFAULT_LIMIT: usize = 100;

/// What a list takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    limit: Option<usize>,
    cursor: Option<u64>,
    tenant: Option<String>,
    signal: Option<Signal>,
    class: Option<Cause>,
    reason: Option<String>,
}

/// What a replay takes: ids or a filter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayOrder {
    ids: Option<Vec<u64>>,
    filter: Option<LetterFilter>,
    cursor: Option<u64>,
    #[serde(default)]
    dry_run: bool,
}

/// Dead letters, newest first: where they come from, why they failed, how often they were replayed.
#[utoipa::path(
    get, path = "/admin/dlq", tag = "admin", security(("admin_token" = [])),
    params(
        ("limit" = Option<usize>, Query, description = "Letters on a page, 1 to 1000; 100 when absent"),
        ("cursor" = Option<u64>, Query, description = "`next_cursor` of the page before"),
        ("tenant" = Option<String>, Query, description = "Of this tenant"),
        ("signal" = Option<String>, Query, description = "traces, logs or metrics"),
        ("class" = Option<String>, Query, description = "unreadable, unfit, refused, panic, killed or hang"),
        ("reason" = Option<String>, Query, description = "Whose reason holds this text")
    ),
    responses((status = 200, description = "A page; it may be short or empty and still have a `next_cursor`", body = serde_json::Value), super::super::openapi::AdminProblems)
)]
pub async fn list(request: HttpRequest, deps: Data<AdminDeps>) -> HttpResponse {
    let params = match Query::<ListParams>::from_query(request.query_string()) {
        Ok(params) => params.into_inner(),
        Err(error) => return bad(&request, error.to_string()),
    };
    let limit = params.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MOST_LETTERS).contains(&limit) {
        return bad(&request, format!("limit must be from 1 to {MOST_LETTERS}"));
    }
    let ListParams { cursor, tenant, signal, class, reason, .. } = params;
    let filter = LetterFilter { tenant, signal, class, reason };
    answer(&request, &deps, LetterAsk::List { filter, limit, before: cursor }).await
}

/// One dead letter: its headers, and its payload as OTLP/JSON.
#[utoipa::path(
    get, path = "/admin/dlq/{id}", tag = "admin", security(("admin_token" = [])),
    params(("id" = u64, Path, description = "`id` of the list")),
    responses((status = 200, description = "The letter", body = serde_json::Value), (status = 404, body = Problem, content_type = "application/problem+json"), super::super::openapi::AdminProblems)
)]
pub async fn show(request: HttpRequest, deps: Data<AdminDeps>, id: Path<String>) -> HttpResponse {
    match id.parse() {
        Ok(id) => answer(&request, &deps, LetterAsk::Show(id)).await,
        Err(_) => bad(&request, String::from("the id of a dead letter is a number")),
    }
}

/// Puts dead letters back into their source topics, where they are processed again. `ids`, or a `filter` (`{}` takes all),
/// which is worked off from the newest down, 1000 letters a call: call again with `next_cursor`.
#[utoipa::path(
    post, path = "/admin/dlq/replay", tag = "admin", security(("admin_token" = [])),
    request_body(content = serde_json::Value, description = "`{\"ids\": [1, 2]}` or `{\"filter\": {\"reason\": \"…\"}, \"cursor\": 7}`, with `\"dry_run\": true` to see only which"),
    responses((status = 200, description = "What was put back", body = serde_json::Value), (status = 400, body = Problem, content_type = "application/problem+json"), super::super::openapi::AdminProblems)
)]
pub async fn replay(
    request: HttpRequest,
    deps: Data<AdminDeps>,
    admin: ReqData<Admin>,
    body: Bytes,
) -> HttpResponse {
    let order: ReplayOrder = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(error) => return bad(&request, format!("the body is no order to replay: {error}")),
    };
    let what = match (order.ids, order.filter) {
        (Some(ids), None) if (1..=MOST_LETTERS).contains(&ids.len()) => Selection::Ids(ids),
        (Some(_), None) => return bad(&request, format!("ids must be 1 to {MOST_LETTERS} numbers")),
        (None, Some(filter)) => Selection::Matching(filter, order.cursor),
        _ => {
            return bad(
                &request,
                String::from("give either ids or a filter; {} as filter takes all letters"),
            );
        }
    };
    if let Some(elsewhere) = elsewhere(&request, &deps) {
        return elsewhere;
    }
    let who = admin.to_string();
    let ask = LetterAsk::Replay { what, dry_run: order.dry_run, who: who.clone() };
    let asked = deps.letters.ask(|reply| AskLetters { ask, reply }, DEADLINE).await;
    if let Ok(Ok(LetterAnswer::Replayed(replayed))) = &asked {
        note(&deps, replayed, who);
    }
    answered(&request, asked)
}

/// A replay is an act of an operator as an order to the tree is, and stands in the same journal.
fn note(deps: &AdminDeps, replayed: &Replayed, who: String) {
    let Some(view) = tree::view(deps).filter(|_| !replayed.dry_run && !replayed.items.is_empty()) else {
        return;
    };
    let what = format!("replayed {} dead letters", replayed.items.len());
    view.journal().record("broker_out.letters", 0, EventKind::Operated { what, who });
}

/// What is answered where the letter desk is in processes of another role.
fn elsewhere(request: &HttpRequest, deps: &AdminDeps) -> Option<HttpResponse> {
    let config = deps.config.now();
    (!config.has_role(Role::QueryGateway)).then(|| reply::other_role(request, &config))
}

async fn answer(request: &HttpRequest, deps: &AdminDeps, ask: LetterAsk) -> HttpResponse {
    if let Some(elsewhere) = elsewhere(request, deps) {
        return elsewhere;
    }
    answered(request, deps.letters.ask(|reply| AskLetters { ask, reply }, DEADLINE).await)
}

fn answered(
    request: &HttpRequest,
    asked: Result<Result<LetterAnswer, LettersError>, PortError>,
) -> HttpResponse {
    match asked {
        Ok(Ok(LetterAnswer::Page(page))) => reply::ok(&page),
        Ok(Ok(LetterAnswer::One(letter))) => reply::ok(&letter),
        Ok(Ok(LetterAnswer::Replayed(replayed))) => reply::ok(&replayed),
        Ok(Err(error @ LettersError::NoSuchLetter(_))) => {
            let detail = error.to_string();
            reply::problem(&Problem::new(404, "not-found", "Not found", detail, request.path()))
        }
        Ok(Err(error)) => unavailable(request, error.to_string()),
        Err(PortError::NoAnswer) => {
            unavailable(request, String::from("the letter desk did not answer in time: ask for less"))
        }
        Err(error) => unavailable(request, format!("the letter desk: {error}")),
    }
}

fn unavailable(request: &HttpRequest, detail: String) -> HttpResponse {
    let mut problem = Problem::new(503, "unavailable", "Unavailable", detail, request.path());
    problem.retry_after_seconds = Some(1);
    reply::problem(&problem)
}

fn bad(request: &HttpRequest, detail: String) -> HttpResponse {
    reply::problem(&Problem::new(400, "bad-request", "Bad request", detail, request.path()))
}
