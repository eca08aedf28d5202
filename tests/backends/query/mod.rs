//! The gateway's questions against the real engine: records go in as OTLP and come out as answers, page by page.

mod logs;
mod metrics;
mod spans;

use std::time::Duration;

use arrow_array::RecordBatch;
use obtrace::backends::telemetry::client::TelemetryClient;
use obtrace::backends::telemetry::read::{QueryLimits, execute};
use obtrace::domain::columns::{LogColumns, MetricColumns, SpanColumns};
use obtrace::domain::envelope::{Header, SCHEMA_VERSION, WireFormat};
use obtrace::domain::query::{BadParameter, QueryAnswer, QueryError, QueryRequest};
use obtrace::domain::scope::Scope;
use obtrace::domain::signal::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use serde_json::Value;
use uuid::Uuid;

use crate::own_engine::Engine;

const PATIENCE: Duration = Duration::from_secs(60);
/// 2026-11-24T00:06:40Z: what the questions take for now. The records lie before it.
const NOW: u64 = 1_795_478_800_000_000_000;
const SECOND: u64 = 1_000_000_000;

struct Store {
    _engine: Engine,
    client: TelemetryClient,
}

impl Store {
    async fn new() -> Self {
        let engine = Engine::with_schema().await;
        let client = engine.client();
        Self { _engine: engine, client }
    }

    async fn insert(&self, table: &str, batch: &RecordBatch) {
        let token = Uuid::now_v7().to_string();
        let sent = self.client.insert(table, std::slice::from_ref(batch), &token, PATIENCE).await;
        assert_eq!(sent.expect("stored").rows, batch.num_rows() as u64);
    }

    /// Stores spans of one service as one block.
    async fn spans(&self, scope: &Scope, service: &str, spans: Vec<Span>) {
        let mut columns = SpanColumns::new();
        let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
        let resource_spans = ResourceSpans { resource: resource(service), scope_spans, ..Default::default() };
        let request = ExportTraceServiceRequest { resource_spans: vec![resource_spans] };
        assert!(columns.append(&request, &header(scope, Signal::Traces)).expect("room").rejected.is_empty());
        self.insert("spans", &columns.finish()).await;
    }

    /// Stores log records of one service as one block.
    async fn logs(&self, scope: &Scope, service: &str, log_records: Vec<LogRecord>) {
        let mut columns = LogColumns::new();
        let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
        let resource_logs = ResourceLogs { resource: resource(service), scope_logs, ..Default::default() };
        let request = ExportLogsServiceRequest { resource_logs: vec![resource_logs] };
        assert!(columns.append(&request, &header(scope, Signal::Logs)).expect("room").rejected.is_empty());
        self.insert("logs", &columns.finish()).await;
    }

    /// Stores metrics of one service as one block.
    async fn metrics(&self, scope: &Scope, service: &str, metrics: Vec<Metric>) {
        let mut columns = MetricColumns::new();
        let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
        let resource_metrics =
            ResourceMetrics { resource: resource(service), scope_metrics, ..Default::default() };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] };
        assert!(columns.append(&request, &header(scope, Signal::Metrics)).expect("room").rejected.is_empty());
        self.insert("metrics", &columns.finish()).await;
    }

    /// Asks a question given as path and query pairs and returns the answer as JSON.
    async fn ask(&self, scope: &Scope, path: &str, pairs: &[(&str, &str)]) -> Result<Value, QueryError> {
        let request = request(path, pairs)?;
        let answer: QueryAnswer =
            execute(&self.client, scope, request, NOW, PATIENCE, QueryLimits::default()).await?;
        Ok(serde_json::to_value(answer).expect("answers serialise"))
    }

    /// The items of all pages of a list.
    async fn all(&self, scope: &Scope, path: &str, pairs: &[(&str, &str)]) -> Vec<Value> {
        let (mut items, mut cursor) = (Vec::new(), None::<String>);
        for _ in 0..1000 {
            let mut pairs = pairs.to_vec();
            pairs.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let mut page = self.ask(scope, path, &pairs).await.expect("a page");
            items.append(page["items"].as_array_mut().expect("items"));
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                return items;
            }
        }
        panic!("the list of {path} {pairs:?} does not end");
    }
}

fn request(path: &str, pairs: &[(&str, &str)]) -> Result<QueryRequest, BadParameter> {
    let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let now = i64::try_from(NOW).expect("a time");
    match path.split('/').collect::<Vec<_>>()[..] {
        ["traces"] => QueryRequest::traces(pairs, now),
        ["traces", id] => QueryRequest::trace(id, pairs),
        ["spans"] => QueryRequest::spans(pairs, now),
        ["logs"] => QueryRequest::logs(pairs, now),
        ["metrics"] => QueryRequest::metrics(pairs, now),
        ["metrics", "query"] => QueryRequest::metric_range(pairs, now),
        ["services"] => QueryRequest::services(pairs, now),
        ["services", service, "operations"] => QueryRequest::operations(service.to_owned(), pairs, now),
        _ => panic!("no such path: {path}"),
    }
}

fn scope(tenant: &str, project: &str) -> Scope {
    Scope::new(tenant, project, "", "").expect("a scope")
}

fn header(scope: &Scope, signal: Signal) -> Header {
    Header {
        schema_version: SCHEMA_VERSION,
        format: WireFormat::Otlp,
        scope: scope.clone(),
        signal,
        // Longer than the test's times may lie in the past of the machine's clock.
        retention_days: 36500,
        received_at_ns: NOW,
        batch_id: Uuid::now_v7(),
        content_hash: 0,
        record_count: 0,
        byte_count: 0,
        attempts: 0,
        last_error: None,
        trace_context: None,
    }
}

fn resource(service: &str) -> Option<Resource> {
    let attributes = vec![kv("service.name", text(service)), kv("host.name", text("h1"))];
    Some(Resource { attributes, ..Default::default() })
}

fn kv(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn text(value: &str) -> Any {
    Any::StringValue(value.to_owned())
}

/// The values of one field of some items, as text.
fn field(items: &[Value], name: &str) -> Vec<String> {
    items
        .iter()
        .map(|item| item[name].as_str().map_or_else(|| item[name].to_string(), str::to_owned))
        .collect()
}
