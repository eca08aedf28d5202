//! The answers of the gateway: what a query returns, as it is serialised and described in the OpenAPI document.
//!
//! Times are given twice, as RFC 3339 with nanoseconds and as Unix nanoseconds in a string, since most JSON readers keep only 53 bits of a number.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::attributes::Attributes;
use super::time::format_rfc3339;

/// What a query cost.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, ToSchema)]
pub struct Stats {
    /// Rows the store read.
    pub rows_read: u64,
    /// Bytes the store read, uncompressed.
    pub bytes_read: u64,
    /// Time in the store, milliseconds.
    pub elapsed_ms: f64,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct List<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// Pass it as `cursor` for the next page; null on the last one.
    #[schema(required)]
    pub next_cursor: Option<String>,
    /// What this page cost.
    pub stats: Stats,
}

/// A point in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Time {
    /// RFC 3339 in UTC, nanoseconds.
    #[schema(example = "2026-01-31T12:00:00.000000001Z")]
    pub time: String,
    /// Unix nanoseconds, decimal.
    #[schema(example = "1769860800000000001")]
    pub unix_nano: String,
}

impl Time {
    /// Both forms of a time in Unix nanoseconds.
    pub fn new(unix_ns: i64) -> Self {
        Self { time: format_rfc3339(unix_ns), unix_nano: unix_ns.to_string() }
    }
}

/// The resource that sent a record.
#[derive(Debug, Clone, PartialEq, Default, Serialize, ToSchema)]
pub struct Resource {
    /// Resource attributes.
    #[serde(flatten)]
    pub attributes: Attributes,
    /// Schema URL of the resource, empty if none.
    pub schema_url: String,
}

/// The instrumentation scope of a record.
#[derive(Debug, Clone, PartialEq, Default, Serialize, ToSchema)]
pub struct InstrumentationScope {
    /// Name of the instrumentation.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Scope attributes.
    #[serde(flatten)]
    pub attributes: Attributes,
    /// Schema URL of the scope, empty if none.
    pub schema_url: String,
}

/// Where a record belongs and how it got here; on every span and log record.
#[derive(Debug, Clone, PartialEq, Default, Serialize, ToSchema)]
pub struct Origin {
    /// Project of the key it was sent with.
    pub project: String,
    /// Application of the key, may be empty.
    pub app: String,
    /// Environment of the key, may be empty.
    pub env: String,
    /// When Obtrace took it in, RFC 3339.
    pub received_at: String,
    /// Days it is kept.
    pub retention_days: u16,
    /// The resource.
    pub resource: Resource,
    /// The instrumentation scope.
    pub scope: InstrumentationScope,
}

/// A span event.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SpanEvent {
    /// When it happened.
    #[serde(flatten)]
    pub time: Time,
    /// Name of the event, such as `exception`.
    pub name: String,
    /// Event attributes.
    #[serde(flatten)]
    pub attributes: Attributes,
}

/// A link to another span.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SpanLink {
    /// Trace of the linked span, 32 hex digits.
    pub trace_id: String,
    /// The linked span, 16 hex digits.
    pub span_id: String,
    /// W3C trace state of the link.
    pub trace_state: String,
    /// W3C trace flags and OTLP's own bits.
    pub flags: u32,
    /// Link attributes.
    #[serde(flatten)]
    pub attributes: Attributes,
}

/// Status of a span.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Status {
    /// `unset`, `ok` or `error`.
    #[schema(example = "error")]
    pub code: String,
    /// What the application says about it.
    pub message: String,
}

/// A span, whole.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Span {
    /// 32 hex digits.
    #[schema(example = "5b8aa5a2d2c872e8321cf37308d69df2")]
    pub trace_id: String,
    /// 16 hex digits.
    #[schema(example = "051581bf3cb55c13")]
    pub span_id: String,
    /// 16 hex digits; null for a root span.
    #[schema(required)]
    pub parent_span_id: Option<String>,
    /// Service name of the resource.
    pub service: String,
    /// Span name.
    pub name: String,
    /// `unspecified`, `internal`, `server`, `client`, `producer` or `consumer`.
    pub kind: String,
    /// RFC 3339.
    pub start_time: String,
    /// Unix nanoseconds, decimal.
    pub start_unix_nano: String,
    /// RFC 3339.
    pub end_time: String,
    /// Unix nanoseconds, decimal.
    pub end_unix_nano: String,
    /// End minus start, nanoseconds; 0 where the end lies before the start.
    pub duration_ns: u64,
    /// Status.
    pub status: Status,
    /// W3C trace state.
    pub trace_state: String,
    /// W3C trace flags and OTLP's own bits.
    pub flags: u32,
    /// Span attributes.
    #[serde(flatten)]
    pub attributes: Attributes,
    /// Events, in the order sent.
    pub events: Vec<SpanEvent>,
    /// Events the client dropped.
    pub dropped_events_count: u32,
    /// Links, in the order sent.
    pub links: Vec<SpanLink>,
    /// Links the client dropped.
    pub dropped_links_count: u32,
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
}

/// A trace, whole.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TraceAnswer {
    /// 32 hex digits.
    pub trace_id: String,
    /// Its spans by start time.
    pub spans: Vec<Span>,
    /// True when the trace has more spans than one answer holds; these are the first ones.
    pub truncated: bool,
    /// What it cost.
    pub stats: Stats,
}

/// A trace in a list.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TraceSummary {
    /// 32 hex digits.
    pub trace_id: String,
    /// Service of the root span, or of the earliest span while the root has not come.
    pub root_service: String,
    /// Name of the root span, or of the earliest one.
    pub root_operation: String,
    /// False while no root span has come.
    pub has_root: bool,
    /// Start of the earliest span, RFC 3339.
    pub start_time: String,
    /// The same in Unix nanoseconds, decimal.
    pub start_unix_nano: String,
    /// From the earliest start to the latest end, nanoseconds.
    pub duration_ns: u64,
    /// Number of spans.
    pub span_count: u64,
    /// Number of spans whose status is error.
    pub error_count: u64,
    /// Services that took part, by name.
    pub services: Vec<String>,
}

/// A log record, whole.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LogRecord {
    /// When it happened; where the record does not say, when it was observed or received.
    #[serde(flatten)]
    pub time: Time,
    /// When it was observed; null if the record does not say.
    #[schema(required)]
    pub observed_time: Option<String>,
    /// The same in Unix nanoseconds, decimal.
    #[schema(required)]
    pub observed_unix_nano: Option<String>,
    /// Service name of the resource.
    pub service: String,
    /// `trace`, `debug`, `info`, `warn`, `error` or `fatal`; null where the record has no severity number.
    #[schema(required)]
    pub level: Option<String>,
    /// OTLP severity number, 0 if unset.
    pub severity_number: u8,
    /// Severity as the source names it.
    pub severity_text: String,
    /// The body as plain JSON, most often a string.
    #[schema(value_type = Object)]
    pub body: Value,
    /// Only where the body is not what it looks like; see `attribute_types`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_type: Option<String>,
    /// Name of the event, empty for a plain log record.
    pub event_name: String,
    /// 32 hex digits; null if the record belongs to no trace.
    #[schema(required)]
    pub trace_id: Option<String>,
    /// 16 hex digits; null if the record belongs to no span.
    #[schema(required)]
    pub span_id: Option<String>,
    /// W3C trace flags.
    pub flags: u32,
    /// Log attributes.
    #[serde(flatten)]
    pub attributes: Attributes,
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
}

/// A metric in the list of metrics; one name may occur with several kinds or units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MetricInfo {
    /// Metric name.
    pub name: String,
    /// Unit as UCUM text, may be empty.
    pub unit: String,
    /// `gauge`, `sum`, `histogram`, `exponential_histogram` or `summary`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `cumulative`, `delta` or `unspecified`.
    pub temporality: String,
    /// True for a sum that only grows.
    pub is_monotonic: bool,
    /// What the metric says about itself.
    pub description: String,
    /// Newest point in the time range, RFC 3339.
    pub last_seen: String,
}

/// One value of a series.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Sample {
    /// Start of the step, Unix seconds.
    pub unix_seconds: f64,
    /// The value of the step; null where it is not a finite number.
    #[schema(required)]
    pub value: Option<f64>,
}

/// One series of a metric query.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Series {
    /// Value of each `by` key; empty text where a series has none.
    pub group: BTreeMap<String, String>,
    /// Samples by time. A step without data has none.
    pub points: Vec<Sample>,
}

/// Answer of a metric query.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct MetricRangeAnswer {
    /// Metric name.
    pub name: String,
    /// Kind of the metric; null where it has no points in the time range.
    #[serde(rename = "type")]
    #[schema(required)]
    pub kind: Option<String>,
    /// Unit of the metric (not of the aggregation).
    pub unit: String,
    /// The aggregation used, also where the request named none.
    #[schema(required)]
    pub agg: Option<String>,
    /// Step, such as `15s`.
    pub step: String,
    /// First step, RFC 3339.
    pub start: String,
    /// End of the time range, RFC 3339.
    pub end: String,
    /// The series, by group.
    pub items: Vec<Series>,
    /// True when there are more series than `limit`.
    pub truncated: bool,
    /// Always null: a metric query has one page.
    #[schema(required)]
    pub next_cursor: Option<String>,
    /// What it cost.
    pub stats: Stats,
}

/// Rate, errors and durations of entry spans: server and consumer spans, and root spans of any kind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Red {
    /// Requests in the time range.
    pub requests: u64,
    /// Requests per second over the time range.
    pub rate: f64,
    /// Requests whose status is error.
    pub errors: u64,
    /// Errors by requests, 0 to 1; 0 without requests.
    pub error_ratio: f64,
    /// Median duration, milliseconds; null without requests.
    #[schema(required)]
    pub p50_ms: Option<f64>,
    /// 95th percentile, milliseconds.
    #[schema(required)]
    pub p95_ms: Option<f64>,
    /// 99th percentile, milliseconds.
    #[schema(required)]
    pub p99_ms: Option<f64>,
}

/// A service in the list of services.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ServiceSummary {
    /// Service name.
    pub service: String,
    /// Of its entry spans.
    #[serde(flatten)]
    pub red: Red,
    /// All spans, of any kind.
    pub span_count: u64,
    /// Start of the newest span, RFC 3339.
    pub last_seen: String,
}

/// An operation of a service: span name and kind, of spans of any kind.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct OperationSummary {
    /// Span name.
    pub operation: String,
    /// Span kind.
    pub kind: String,
    /// Of all spans of this name and kind.
    #[serde(flatten)]
    pub red: Red,
    /// Start of the newest span, RFC 3339.
    pub last_seen: String,
}

/// The answer to a [`QueryRequest`](super::QueryRequest), variant by variant.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum QueryAnswer {
    /// Of a trace by id.
    Trace(TraceAnswer),
    /// Of a trace search.
    Traces(List<TraceSummary>),
    /// Of a span search.
    Spans(List<Span>),
    /// Of a log search.
    Logs(List<LogRecord>),
    /// Of the list of metrics.
    Metrics(List<MetricInfo>),
    /// Of a metric query.
    MetricRange(MetricRangeAnswer),
    /// Of the list of services.
    Services(List<ServiceSummary>),
    /// Of the operations of a service.
    Operations(List<OperationSummary>),
}
