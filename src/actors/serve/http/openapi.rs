//! The OpenAPI document, generated from the handlers and the answer types. The structs here only describe parameters; nothing reads them.

use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::{IntoParams, IntoResponses, Modify, OpenApi};

use super::{admin, deploys, docs, health, routes};
use crate::domain::query::problem::Problem;

/// What a query can answer when it cannot answer.
#[derive(Debug, IntoResponses)]
pub enum QueryProblems {
    /// A parameter cannot be used; `parameter` names it.
    #[response(status = 400, content_type = "application/problem+json")]
    BadParameter(#[to_schema] Problem),
    /// No key, an unknown key or an expired one.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(#[to_schema] Problem),
    /// The answer would be beyond the bounds of one query.
    #[response(status = 422, content_type = "application/problem+json")]
    TooLarge(#[to_schema] Problem),
    /// Too many queries at once; `Retry-After` says when to ask again.
    #[response(status = 429, content_type = "application/problem+json")]
    Overloaded(#[to_schema] Problem),
    /// The query failed inside Obtrace.
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(#[to_schema] Problem),
    /// The store, or the state store, is not reachable; `Retry-After` says when to ask again.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(#[to_schema] Problem),
    /// No answer within the deadline.
    #[response(status = 504, content_type = "application/problem+json")]
    Timeout(#[to_schema] Problem),
}

/// Why the admin side does not answer.
#[derive(Debug, IntoResponses)]
pub enum AdminProblems {
    /// No admin token, or another one.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(#[to_schema] Problem),
    /// No admin token is set, and the caller is not on the machine of an `obtrace dev`.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(#[to_schema] Problem),
    /// The tree is starting.
    #[response(status = 503, content_type = "application/problem+json")]
    NotReady(#[to_schema] Problem),
}

/// Which part of a list. Times are RFC 3339, Unix seconds, milliseconds, microseconds or nanoseconds (told apart by magnitude), `now`, or
/// `now-15m`.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// Start of the time range, included. When absent one hour before `end`, or what `serve.query.default_range` says.
    #[param(example = "now-15m")]
    pub start: Option<String>,
    /// End of the time range, not included. Now when absent.
    #[param(example = "now")]
    pub end: Option<String>,
    /// Most items on the page: 100 when absent and 10,000 at most, where `serve.query` says nothing else.
    #[param(minimum = 1)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before. It carries the time range of the first page, so `start` and `end` have no effect beside it; all
    /// other parameters but `limit` must be as they were.
    pub cursor: Option<String>,
}

/// What must hold for a span.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SpanParams {
    /// Service name, exact.
    pub service: Option<String>,
    /// Span name, exact.
    pub operation: Option<String>,
    /// Shortest duration, such as `250ms` or `1.5s`.
    #[param(example = "250ms")]
    pub min_duration: Option<String>,
    /// Longest duration.
    pub max_duration: Option<String>,
    /// `unset`, `ok` or `error`.
    #[param(example = "error")]
    pub status: Option<String>,
    /// `internal`, `server`, `client`, `producer`, `consumer` or `unspecified`.
    pub kind: Option<String>,
    /// `attr.KEY=VALUE`: a span or resource attribute has this value, compared as text; `attr.KEY!=VALUE` for all but these. Up to 16.
    #[param(rename = "attr.KEY", example = "GET")]
    pub attribute: Option<String>,
}

/// Search in logs.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LogParams {
    /// Terms that must all hold: `word`, `"a phrase"` (whole words of the body, letter case ignored), `service:cart`, `level>=error`,
    /// `level:warn`, `attr.KEY=VALUE`, `attr.KEY!=VALUE`, `trace_id:HEX`; `-term` for records without it.
    #[param(example = "timeout service:cart level>=error -healthcheck")]
    pub q: Option<String>,
}

/// Which metrics.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MetricListParams {
    /// Only names that start with this.
    pub prefix: Option<String>,
    /// Only metrics of this service.
    pub service: Option<String>,
}

/// Which deploys.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeployParams {
    /// Service name, exact.
    pub service: Option<String>,
}

/// A metric over time.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MetricRangeParams {
    /// Metric name, exact.
    pub name: String,
    /// `avg`, `min`, `max`, `sum`, `count`, `last`, `rate`, `increase`, `p50`, `p90`, `p95` or `p99`. When absent: `rate` for counters, `avg`
    /// for gauges and other sums, `p95` for distributions. `rate` and `increase` follow each series over its resets; of a histogram they
    /// and `count` are about observations. Percentiles of histograms come from their buckets.
    pub agg: Option<String>,
    /// Width of a step, such as `15s`, bare seconds, or `auto` (also when absent): at most 240 steps.
    #[param(example = "auto")]
    pub step: Option<String>,
    /// Keys to tell series apart by: a comma list of `service` and attribute keys.
    #[param(example = "service,http.route")]
    pub by: Option<String>,
    /// Only points of this service.
    pub service: Option<String>,
    /// `attr.KEY=VALUE` and `attr.KEY!=VALUE`, as for spans.
    #[param(rename = "attr.KEY")]
    pub attribute: Option<String>,
    /// Start of the time range, moved back to a whole step. One hour before `end` when absent.
    pub start: Option<String>,
    /// End of the time range. Now when absent.
    pub end: Option<String>,
    /// Most series.
    #[param(minimum = 1, maximum = 10000, default = 100)]
    pub limit: Option<u32>,
}

/// The API of Obtrace.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Obtrace",
        description = "Traces, logs, metrics and deploys of one scope. The scope follows from the API key alone; there is no parameter for it.\n\n\
            Unknown parameters are refused. Every error is an RFC 9457 problem document."
    ),
    paths(
        routes::trace, routes::traces, routes::spans, routes::logs, routes::metrics, routes::metric_range, routes::services,
        routes::operations, deploys::list, deploys::tell, routes::gate, docs::openapi_json, health::livez, health::readyz,
        admin::tree::show, admin::tree::metrics, admin::orders::give, admin::events::show, admin::black_boxes::list, admin::black_boxes::show, admin::config::show,
        admin::config::reload, admin::dlq::list, admin::dlq::show, admin::dlq::replay
    ),
    tags(
        (name = "traces", description = "Traces and spans"),
        (name = "logs", description = "Log records"),
        (name = "metrics", description = "Metrics"),
        (name = "services", description = "Rate, errors and durations"),
        (name = "deploys", description = "Which version of a service began to run when"),
        (name = "tenant", description = "What a tenant may do and has used"),
        (name = "health", description = "For load balancers"),
        (name = "admin", description = "For operators, with the admin token; in `obtrace dev` a loopback client needs none while no token is set")
    ),
    security(("bearer" = []), ("api_key" = [])),
    modifiers(&Keys)
)]
pub struct ApiDocument;

/// The two ways to send a key. In dev mode a loopback client needs none.
struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        let header = ApiKey::Header(ApiKeyValue::new("x-api-key"));
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(header));
        components
            .add_security_scheme("admin_token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}
