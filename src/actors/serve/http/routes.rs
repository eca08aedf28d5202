//! The routes of the API, one small handler each: query string in → typed request → the query port → response out.

use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse, Resource, Route, guard};

use super::{ApiDeps, deploys, docs, health, openapi, reply};
use crate::clock;
use crate::config::serve::QueryConfig;
use crate::domain::gate::GateAnswer;
use crate::domain::query::answer::{
    List, LogRecord, MetricInfo, MetricRangeAnswer, OperationSummary, ServiceSummary, Span, TraceAnswer,
    TraceSummary,
};
use crate::domain::query::problem::Problem;
use crate::domain::query::{Asked, BadParameter, Bounds, QueryAnswer, QueryError, QueryRequest};
use crate::domain::scope::Scope;

/// A path and how its handler is mounted on it.
pub struct Endpoint {
    /// Path, as the router and the OpenAPI document spell it.
    pub path: &'static str,
    /// Puts the handler onto a resource of that path.
    pub mount: fn(Resource) -> Resource,
}

/// A GET endpoint: HEAD is answered alike, without the body; any other method is a problem document.
macro_rules! get {
    ($path:literal, $handler:path) => {
        Endpoint {
            path: $path,
            mount: |resource| {
                let served = resource.route(look().to($handler));
                served.default_service(web::to(reply::only_get))
            },
        }
    };
}

/// A route of GET and HEAD.
pub(super) fn look() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// Everything the API serves, apart from the viewer's files.
pub const ENDPOINTS: &[Endpoint] = &[
    get!("/api/v1/traces/{trace_id}", trace),
    get!("/api/v1/traces", traces),
    get!("/api/v1/spans", spans),
    get!("/api/v1/logs", logs),
    get!("/api/v1/metrics", metrics),
    get!("/api/v1/metrics/query", metric_range),
    get!("/api/v1/services", services),
    get!("/api/v1/services/{service}/operations", operations),
    Endpoint { path: deploys::PATH, mount: deploys::mount },
    get!("/api/v1/gate", gate),
    get!("/api/v1/openapi.json", docs::openapi_json),
    get!("/livez", health::livez),
    get!("/readyz", health::readyz),
];

type Pairs = Vec<(String, String)>;
type Typed = Result<QueryRequest, BadParameter>;

/// The whole trace, spans by start time.
#[utoipa::path(
    get, path = "/api/v1/traces/{trace_id}", tag = "traces",
    params(("trace_id" = String, Path, description = "32 hex digits")),
    responses((status = 200, body = TraceAnswer), (status = 404, body = Problem, content_type = "application/problem+json"), openapi::QueryProblems)
)]
pub async fn trace(request: HttpRequest, deps: Data<ApiDeps>, trace_id: Path<String>) -> HttpResponse {
    serve(&request, &deps, |pairs, _| QueryRequest::trace(&trace_id, pairs)).await
}

/// Traces that have a matching span, newest matching span first.
#[utoipa::path(
    get, path = "/api/v1/traces", tag = "traces",
    params(openapi::SpanParams, openapi::PageParams),
    responses((status = 200, body = List<TraceSummary>), openapi::QueryProblems)
)]
pub async fn traces(request: HttpRequest, deps: Data<ApiDeps>) -> HttpResponse {
    serve(&request, &deps, QueryRequest::traces).await
}

/// Matching spans, whole, newest first.
#[utoipa::path(
    get, path = "/api/v1/spans", tag = "traces",
    params(openapi::SpanParams, openapi::PageParams),
    responses((status = 200, body = List<Span>), openapi::QueryProblems)
)]
pub async fn spans(request: HttpRequest, deps: Data<ApiDeps>) -> HttpResponse {
    serve(&request, &deps, QueryRequest::spans).await
}

/// Matching log records, newest first.
#[utoipa::path(
    get, path = "/api/v1/logs", tag = "logs",
    params(openapi::LogParams, openapi::PageParams),
    responses((status = 200, body = List<LogRecord>), openapi::QueryProblems)
)]
pub async fn logs(request: HttpRequest, deps: Data<ApiDeps>) -> HttpResponse {
    serve(&request, &deps, QueryRequest::logs).await
}

/// Metrics by name, with type and unit. Without `start`, those of the last 24 hours.
#[utoipa::path(
    get, path = "/api/v1/metrics", tag = "metrics",
    params(openapi::MetricListParams, openapi::PageParams),
    responses((status = 200, body = List<MetricInfo>), openapi::QueryProblems)
)]
pub async fn metrics(request: HttpRequest, deps: Data<ApiDeps>) -> HttpResponse {
    serve(&request, &deps, QueryRequest::metrics).await
}

/// One metric over time, one value per step and group.
#[utoipa::path(
    get, path = "/api/v1/metrics/query", tag = "metrics",
    params(openapi::MetricRangeParams),
    responses((status = 200, body = MetricRangeAnswer), openapi::QueryProblems)
)]
pub async fn metric_range(request: HttpRequest, deps: Data<ApiDeps>) -> HttpResponse {
    serve(&request, &deps, QueryRequest::metric_range).await
}

/// Services by name, with rate, errors and durations of their entry spans.
#[utoipa::path(
    get, path = "/api/v1/services", tag = "services",
    params(openapi::PageParams),
    responses((status = 200, body = List<ServiceSummary>), openapi::QueryProblems)
)]
pub async fn services(request: HttpRequest, deps: Data<ApiDeps>) -> HttpResponse {
    serve(&request, &deps, QueryRequest::services).await
}

/// Operations of a service by name, with rate, errors and durations.
#[utoipa::path(
    get, path = "/api/v1/services/{service}/operations", tag = "services",
    params(("service" = String, Path, description = "Service name"), openapi::PageParams),
    responses((status = 200, body = List<OperationSummary>), openapi::QueryProblems)
)]
pub async fn operations(request: HttpRequest, deps: Data<ApiDeps>, service: Path<String>) -> HttpResponse {
    serve(&request, &deps, |pairs, now| QueryRequest::operations(service.into_inner(), pairs, now)).await
}

/// How the tenant of the key stands: plan, limits, usage of the day, keys.
#[utoipa::path(
    get, path = "/api/v1/gate", tag = "tenant",
    responses((status = 200, body = GateAnswer), openapi::QueryProblems)
)]
pub async fn gate(request: HttpRequest, deps: Data<ApiDeps>) -> HttpResponse {
    let scope = deps.scopes.resolve(request.headers(), request.peer_addr());
    match scope {
        Ok(scope) => reply::ok(&deps.tenants.gate(scope).await),
        Err(denied) => reply::error(&QueryError::Unauthorized(denied.reason), &request),
    }
}

/// Who asks, then what, then the answer: the order of the checks is the order of the statuses 401, 400 and the rest.
async fn serve(
    request: &HttpRequest,
    deps: &ApiDeps,
    typed: impl FnOnce(Pairs, Asked) -> Typed,
) -> HttpResponse {
    match answer(request, deps, typed).await {
        Ok(answer) => reply::ok(&answer),
        Err(error) => reply::error(&error, request),
    }
}

async fn answer(
    request: &HttpRequest,
    deps: &ApiDeps,
    typed: impl FnOnce(Pairs, Asked) -> Typed,
) -> Result<QueryAnswer, QueryError> {
    let scope: Scope = deps
        .scopes
        .resolve(request.headers(), request.peer_addr())
        .map_err(|denied| QueryError::Unauthorized(denied.reason))?;
    let question = typed(pairs(request)?, asked(deps))?;
    // The port has the same deadline; this one holds even if the port does not.
    let deadline = deps.config.now().serve.deadline;
    let asked = deps.queries.ask(scope, question, deadline);
    tokio::time::timeout(deadline, asked).await.unwrap_or(Err(QueryError::Timeout))
}

/// The pairs of the query string.
pub(super) fn pairs(request: &HttpRequest) -> Result<Pairs, BadParameter> {
    let pairs = web::Query::<Pairs>::from_query(request.query_string());
    pairs.map(web::Query::into_inner).map_err(|error| BadParameter::new("query string", error.to_string()))
}

/// When a request is made, and within which bounds.
pub(super) fn asked(deps: &ApiDeps) -> Asked {
    Asked { now_ns: now_ns(), bounds: bounds(&deps.config.now().serve.query) }
}

/// Unix nanoseconds, as questions count them.
pub(super) fn now_ns() -> i64 {
    i64::try_from(clock::unix_nanos()).unwrap_or(i64::MAX)
}

fn bounds(query: &QueryConfig) -> Bounds {
    Bounds {
        default_limit: query.default_limit,
        max_limit: query.max_limit,
        default_range_ns: i64::try_from(query.default_range.as_nanos()).unwrap_or(i64::MAX),
    }
}
