//! Orders to the tree over HTTP: `POST /admin/tree/{path}/{action}` in → the kernel's order → 202, or a problem document.

use std::time::Duration;

use actix_web::web::{Bytes, Data, Path, ReqData};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AdminDeps, reply, tree};
use crate::domain::admin::Admin;
use crate::domain::query::problem::Problem;
use crate::supervisors::kernel::control::{Action, Order, OrderError};

/// Time until the supervisor concerned has taken an order.
const DEADLINE: Duration = Duration::from_secs(15);
/// Longest name of who orders, in characters.
const MOST_WHO: usize = 128;
/// Longest reason, in characters.
const MOST_WHY: usize = 512;
/// Largest body of an order.
pub const MOST_BODY: usize = 8 << 10;

/// Who orders something, and why. Both stay in the event; neither must be given.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OrderBody {
    /// Who orders it, beside the address it comes from.
    #[schema(example = "ann")]
    who: Option<String>,
    /// Why.
    #[schema(example = "new library")]
    why: Option<String>,
}

/// An order that was taken.
#[derive(Debug, Serialize, ToSchema)]
pub struct OrderTaken {
    /// Path of the node; `root` for the root.
    path: String,
    /// What was ordered.
    action: String,
    /// Who ordered it, as the event says.
    who: String,
}

/// Restarts, drains, pauses, resumes or releases a node of the tree.
#[utoipa::path(
    post, path = "/admin/tree/{path}/{action}", tag = "admin", security(("admin_token" = [])),
    params(
        ("path" = String, Path, description = "Path of the node, such as `store.writer.1`; `root` for the root"),
        ("action" = String, Path, description = "`restart`, `drain`, `pause`, `resume` or `release`")
    ),
    request_body(content = OrderBody, description = "May be left out"),
    responses(
        (status = 202, description = "The supervisor carries it out; see the tree and the events", body = OrderTaken),
        (status = 400, description = "The body cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such node or action; the detail names the nearest", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The node is not in a state for it", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "Nobody took the order in time; it was withdrawn", body = Problem, content_type = "application/problem+json"),
        super::super::openapi::AdminProblems
    )
)]
pub async fn give(
    request: HttpRequest,
    deps: Data<AdminDeps>,
    admin: ReqData<Admin>,
    target: Path<(String, String)>,
    body: Bytes,
) -> HttpResponse {
    match order(&deps, *admin, &target.0, &target.1, &body).await {
        Ok(taken) => HttpResponse::Accepted().json(taken),
        Err(refused) => reply::problem(&refused.problem(request.path())),
    }
}

enum Refused {
    Body(String),
    Action(String),
    Starting,
    Kernel(OrderError),
}

async fn order(
    deps: &AdminDeps,
    admin: Admin,
    path: &str,
    action: &str,
    body: &[u8],
) -> Result<OrderTaken, Refused> {
    let action: Action = action.parse().map_err(Refused::Action)?;
    let body = read(body)?;
    let view = tree::view(deps).ok_or(Refused::Starting)?;
    let who = match clean(body.who.as_deref(), MOST_WHO) {
        who if who.is_empty() => admin.to_string(),
        who => format!("{who} ({admin})"),
    };
    let node = if path == "root" { "" } else { path };
    let order = Order::new(action, who.clone(), clean(body.why.as_deref(), MOST_WHY));
    view.order(node, order, DEADLINE).await.map_err(Refused::Kernel)?;
    Ok(OrderTaken { path: path.to_owned(), action: action.to_string(), who })
}

fn read(body: &[u8]) -> Result<OrderBody, Refused> {
    if body.is_empty() {
        return Ok(OrderBody::default());
    }
    if body.len() > MOST_BODY {
        return Err(Refused::Body(format!("the body is larger than {MOST_BODY} bytes")));
    }
    serde_json::from_slice(body).map_err(|error| Refused::Body(format!("the body cannot be read: {error}")))
}

/// A text of one line, at most so many characters of it.
fn clean(text: Option<&str>, most: usize) -> String {
    let text = text.unwrap_or_default().trim();
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}

impl Refused {
    fn problem(&self, path: &str) -> Problem {
        match self {
            Self::Body(why) => Problem::new(400, "bad-body", "Bad body", why, path),
            Self::Action(why) => Problem::new(404, "not-found", "Not found", why, path),
            Self::Starting => tree::not_ready(path),
            Self::Kernel(error) => {
                let (status, slug, title) = match error {
                    OrderError::Unknown { .. } => (404, "not-found", "Not found"),
                    OrderError::NotApplicable { .. } => (409, "not-applicable", "Not applicable"),
                    OrderError::NoAnswer { .. } => (504, "timeout", "Nobody took the order"),
                };
                Problem::new(status, slug, title, error.to_string(), path)
            }
        }
    }
}
