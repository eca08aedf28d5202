//! The telemetry store through its client: schema, rows of every signal there and back, repeated blocks, error classes,
//! all against the real engine.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use obtrace::backends::telemetry::client::{TelemetryClient, TelemetryError, TelemetrySettings};
use obtrace::backends::telemetry::engine::{EngineChild, USER};
use obtrace::backends::telemetry::migrate::{self, MigrateError};
use obtrace::backends::telemetry::read::QueryLimits;
use obtrace::backends::telemetry::schema::Layout;
use obtrace::domain::columns::{LogColumns, MetricColumns, SpanColumns, restore};
use obtrace::domain::envelope::{Header, SCHEMA_VERSION, WireFormat};
use obtrace::domain::failure::{Classified, FailureClass};
use obtrace::domain::scope::Scope;
use obtrace::domain::signal::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
    exponential_histogram_data_point, number_data_point, summary_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use uuid::Uuid;

use crate::own_engine::spec;

const TENANT: &str = "acme";
const PATIENCE: Duration = Duration::from_secs(60);
/// 2026-11-24T00:06:40Z and a bit.
const START: u64 = 1_795_478_800_123_456_789;

struct Store {
    child: EngineChild,
    client: TelemetryClient,
    _folder: tempfile::TempDir,
}

impl Store {
    /// A fresh engine with the schema in place.
    async fn new() -> Self {
        let store = Self::empty().await;
        migrate::run(&store.client, &Layout::Single).await.expect("the schema is made");
        store
    }

    async fn empty() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let child = EngineChild::spawn(spec(folder.path())).await.expect("the engine starts");
        let client = TelemetryClient::new(settings()).expect("settings are good");
        point(&client, &child);
        Self { child, client, _folder: folder }
    }

    /// The first column of what a statement reads, as text; of telemetry, the rows of the tenant of these tests.
    async fn texts(&self, sql: &str) -> Vec<String> {
        let limits = QueryLimits::default();
        let result = match sql.contains("system.") {
            true => self.client.query(sql, &[], &[], limits, PATIENCE).await.expect(sql),
            false => self.client.query_for(TENANT, sql, &[], &[], limits, PATIENCE).await.expect(sql),
        };
        let mut texts = Vec::new();
        for batch in &result.batches {
            texts.extend(
                batch.column(0).as_string::<i32>().iter().map(|text| text.unwrap_or("NULL").to_owned()),
            );
        }
        texts
    }

    async fn text(&self, sql: &str) -> String {
        self.texts(sql).await.join("\n")
    }

    async fn insert(&self, table: &str, batch: &RecordBatch, token: &str) {
        let sent = self.client.insert(table, std::slice::from_ref(batch), token, PATIENCE).await;
        assert_eq!(sent.expect("stored").rows, batch.num_rows() as u64);
    }

    /// The attributes of the only row, restored from a map and a types column.
    async fn attributes(&self, table: &str, map: &str, types: &str) -> Vec<KeyValue> {
        let sql = format!("SELECT {map}, {types} FROM {table}");
        let limits = QueryLimits::default();
        let result = self.client.query_for(TENANT, &sql, &[], &[], limits, PATIENCE).await.expect("rows");
        let batch = result.batches.first().expect("a batch");
        let entries = batch.column(0).as_map().value(0);
        let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
        let pairs: Vec<(&str, &str)> =
            keys.iter().zip(values.iter()).map(|(k, v)| (k.expect("a key"), v.expect("a value"))).collect();
        restore::attributes(pairs.into_iter(), batch.column(1).as_string::<i32>().value(0)).expect("restored")
    }
}

fn settings() -> TelemetrySettings {
    TelemetrySettings {
        url: None,
        user: USER.into(),
        password: String::new(),
        database: "obtrace".into(),
        max_connections: 4,
        connect_timeout: Duration::from_secs(5),
        ..TelemetrySettings::default()
    }
}

fn point(client: &TelemetryClient, child: &EngineChild) {
    let endpoint = child.endpoint().expect("it is ready");
    client.set_endpoint(&endpoint.url, USER, &endpoint.secret);
}

// === what is sent ===

fn header(signal: Signal) -> Header {
    Header {
        schema_version: SCHEMA_VERSION,
        format: WireFormat::Otlp,
        scope: Scope::new("acme", "shop", "web", "prod").expect("a scope"),
        signal,
        retention_days: 15,
        received_at_ns: START + 5_000_000,
        batch_id: Uuid::from_u128(0x0190_a0a0_1234_7000_8000_0000_0000_00ff),
        content_hash: 0,
        record_count: 0,
        byte_count: 0,
        attempts: 0,
        last_error: None,
        trace_context: None,
    }
}

fn kv(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), key_strindex: 0 }
}

fn text(key: &str, value: &str) -> KeyValue {
    kv(key, Value::StringValue(value.into()))
}

/// One of everything, a key twice among it.
fn all_kinds() -> Vec<KeyValue> {
    let nested = Value::KvlistValue(KeyValueList {
        values: vec![kv("n", Value::IntValue(1)), kv("x", Value::DoubleValue(0.5)), text("ü", "\"\\\n\u{1}")],
    });
    let list = Value::ArrayValue(ArrayValue {
        values: vec![AnyValue { value: Some(nested.clone()) }, AnyValue { value: None }],
    });
    vec![
        text("s", "text = with 'quotes'\0and\ttabs"),
        text("s", "again"),
        kv("b", Value::BoolValue(false)),
        kv("i", Value::IntValue(i64::MIN)),
        kv("d", Value::DoubleValue(1e-300)),
        kv("inf", Value::DoubleValue(f64::NEG_INFINITY)),
        kv("y", Value::BytesValue(vec![0, 255, 7])),
        kv("a", list),
        kv("k", nested),
        KeyValue { key: "e".into(), value: Some(AnyValue { value: None }), key_strindex: 0 },
    ]
}

fn resource() -> Option<Resource> {
    let attributes = vec![text("service.name", "checkout"), kv("pid", Value::IntValue(7))];
    Some(Resource { attributes, dropped_attributes_count: 1, entity_refs: vec![] })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "lib".into(),
        version: "1.2".into(),
        attributes: vec![kv("beta", Value::BoolValue(true))],
        dropped_attributes_count: 2,
    })
}

fn span() -> Span {
    Span {
        trace_id: (1..=16).collect(),
        span_id: (1..=8).collect(),
        parent_span_id: vec![],
        trace_state: "a=b".into(),
        flags: 257,
        name: "GET /".into(),
        kind: 2,
        start_time_unix_nano: START,
        end_time_unix_nano: START + 1_000_001,
        attributes: all_kinds(),
        dropped_attributes_count: 3,
        events: vec![
            Event {
                time_unix_nano: START + 1,
                name: "exception".into(),
                attributes: vec![kv("retries", Value::IntValue(2)), text("msg", "no")],
                dropped_attributes_count: 4,
            },
            Event { time_unix_nano: START + 2, name: "done".into(), ..Event::default() },
        ],
        dropped_events_count: 5,
        links: vec![Link {
            trace_id: vec![9; 16],
            span_id: vec![8; 8],
            trace_state: "c=d".into(),
            attributes: vec![text("why", "batch")],
            dropped_attributes_count: 6,
            flags: 1,
        }],
        dropped_links_count: 7,
        status: Some(Status { message: "boom".into(), code: 2 }),
    }
}

fn spans(spans: Vec<Span>) -> RecordBatch {
    let scope_spans = vec![ScopeSpans { scope: scope(), spans, schema_url: "scope-url".into() }];
    let group = ResourceSpans { resource: resource(), scope_spans, schema_url: "url".into() };
    let mut columns = SpanColumns::new();
    let request = ExportTraceServiceRequest { resource_spans: vec![group] };
    let outcome = columns.append(&request, &header(Signal::Traces)).expect("room");
    assert_eq!(outcome.rejected, []);
    columns.finish()
}

fn logs(log_records: Vec<LogRecord>) -> RecordBatch {
    let scope_logs = vec![ScopeLogs { scope: scope(), log_records, schema_url: String::new() }];
    let group = ResourceLogs { resource: resource(), scope_logs, schema_url: String::new() };
    let mut columns = LogColumns::new();
    let request = ExportLogsServiceRequest { resource_logs: vec![group] };
    let outcome = columns.append(&request, &header(Signal::Logs)).expect("room");
    assert_eq!(outcome.rejected, []);
    columns.finish()
}

fn metrics(metrics: Vec<Metric>) -> RecordBatch {
    let scope_metrics = vec![ScopeMetrics { scope: None, metrics, schema_url: String::new() }];
    let group = ResourceMetrics { resource: resource(), scope_metrics, schema_url: String::new() };
    let mut columns = MetricColumns::new();
    let request = ExportMetricsServiceRequest { resource_metrics: vec![group] };
    let outcome = columns.append(&request, &header(Signal::Metrics)).expect("room");
    assert_eq!(outcome.rejected, []);
    columns.finish()
}

fn metric(name: &str, data: Data) -> Metric {
    Metric {
        name: name.into(),
        description: "about".into(),
        unit: "ms".into(),
        metadata: vec![text("from", "test")],
        data: Some(data),
    }
}

fn number(value: Option<number_data_point::Value>) -> NumberDataPoint {
    NumberDataPoint {
        attributes: vec![text("host", "a")],
        start_time_unix_nano: START - 10,
        time_unix_nano: START,
        flags: 0,
        value,
        exemplars: vec![],
    }
}

/// A metric of each kind, with and without what is optional.
fn all_metrics() -> Vec<Metric> {
    let exemplar = |value| Exemplar {
        filtered_attributes: vec![kv("user", Value::IntValue(3))],
        time_unix_nano: START - 1,
        span_id: vec![1; 8],
        trace_id: vec![2; 16],
        value: Some(value),
    };
    let mut sum = number(Some(number_data_point::Value::AsInt(i64::MAX)));
    sum.exemplars = vec![exemplar(exemplar::Value::AsDouble(0.5)), exemplar(exemplar::Value::AsInt(9))];
    let gauge = vec![number(Some(number_data_point::Value::AsDouble(2.5))), number(None)];
    let histogram = HistogramDataPoint {
        time_unix_nano: START,
        count: 6,
        sum: Some(12.5),
        bucket_counts: vec![1, 2, 3],
        explicit_bounds: vec![0.5, 10.0],
        min: None,
        max: Some(11.0),
        ..HistogramDataPoint::default()
    };
    let exponential = ExponentialHistogramDataPoint {
        time_unix_nano: START,
        count: 4,
        scale: -2,
        zero_count: 1,
        zero_threshold: 0.25,
        positive: Some(exponential_histogram_data_point::Buckets { offset: -3, bucket_counts: vec![1, 1] }),
        negative: Some(exponential_histogram_data_point::Buckets { offset: 5, bucket_counts: vec![1] }),
        ..ExponentialHistogramDataPoint::default()
    };
    let quantile = |quantile, value| summary_data_point::ValueAtQuantile { quantile, value };
    let summary = SummaryDataPoint {
        time_unix_nano: START,
        count: 2,
        sum: 3.0,
        quantile_values: vec![quantile(0.5, 1.0), quantile(0.99, 2.0)],
        ..SummaryDataPoint::default()
    };
    vec![
        metric("g", Data::Gauge(Gauge { data_points: gauge })),
        metric(
            "s",
            Data::Sum(Sum { data_points: vec![sum], aggregation_temporality: 2, is_monotonic: true }),
        ),
        metric("h", Data::Histogram(Histogram { data_points: vec![histogram], aggregation_temporality: 1 })),
        metric(
            "e",
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![exponential],
                aggregation_temporality: 2,
            }),
        ),
        metric("q", Data::Summary(Summary { data_points: vec![summary] })),
    ]
}

// === schema ===

#[tokio::test]
async fn the_schema_is_made_once_and_a_newer_one_is_refused() {
    let store = Store::empty().await;
    let first = migrate::run(&store.client, &Layout::Single).await.expect("made");
    assert_eq!(first.applied, (1..=first.version).collect::<Vec<_>>());
    assert_eq!(migrate::run(&store.client, &Layout::Single).await.expect("seen").applied, Vec::<u32>::new());
    // A run that was cut short after its statements: everything is done again, and nothing is there twice.
    store.client.command("TRUNCATE TABLE schema_migrations").await.expect("emptied");
    assert_eq!(migrate::run(&store.client, &Layout::Single).await.expect("repeated").applied, first.applied);

    store
        .client
        .command("INSERT INTO schema_migrations (version, name) VALUES (99, 'later')")
        .await
        .expect("noted");
    let refused = migrate::run(&store.client, &Layout::Single).await.unwrap_err();
    assert_eq!(refused, MigrateError::Newer { found: 99, known: first.version });
    assert_eq!(refused.class(), FailureClass::Config);
}

// === rows ===

#[tokio::test]
async fn a_span_comes_back_as_it_was_sent() {
    let store = Store::new().await;
    store.insert("spans", &spans(vec![span()]), "a").await;

    let got = store
        .text(
            "SELECT toString((tenant, project, app, env, retention_days, toUnixTimestamp(ts_bucket), ts, ts_source, \
             toString(received_at), batch_id, service, resource_schema_url, resource_dropped, scope_name, \
             scope_version, scope_schema_url, scope_dropped, dropped_attributes)) FROM spans",
        )
        .await;
    assert_eq!(
        got,
        "('acme','shop','web','prod',15,1795478700,'2026-11-24 00:06:40.123456789',0,'2026-11-24 00:06:40.128',\
         '0190a0a0-1234-7000-8000-0000000000ff','checkout','url',1,'lib','1.2','scope-url',2,3)"
    );
    let got = store
        .text(
            "SELECT toString((hex(trace_id), hex(span_id), hex(parent_span_id), trace_state, flags, name, kind, end_ts, \
             duration_ns, status_code, status_message, dropped_events, dropped_links)) FROM spans",
        )
        .await;
    assert_eq!(
        got,
        "('0102030405060708090A0B0C0D0E0F10','0102030405060708','0000000000000000','a=b',257,'GET /',2,\
         '2026-11-24 00:06:40.124456790',1000001,2,'boom',5,7)"
    );
    let got = store
        .text(
            "SELECT toString((events_ts, events_name, events_attributes, events_types, events_dropped, \
             arrayMap(id -> hex(id), links_trace_id), arrayMap(id -> hex(id), links_span_id), links_trace_state, \
             links_flags, links_attributes, links_types, links_dropped)) FROM spans",
        )
        .await;
    assert_eq!(
        got,
        "(['2026-11-24 00:06:40.123456790','2026-11-24 00:06:40.123456791'],['exception','done'],\
         [{'retries':'2','msg':'no'},{}],['is',''],[4,0],['09090909090909090909090909090909'],\
         ['0808080808080808'],['c=d'],[1],[{'why':'batch'}],[''],[6])"
    );
    assert_eq!(store.attributes("spans", "attributes", "attribute_types").await, all_kinds());
    let resource = resource().expect("one").attributes;
    assert_eq!(store.attributes("spans", "resource_attributes", "resource_types").await, resource);
    let scope = scope().expect("one").attributes;
    assert_eq!(store.attributes("spans", "scope_attributes", "scope_types").await, scope);
    let found = "SELECT toString(count()) FROM spans WHERE has(attr_kv, 'i=-9223372036854775808') AND has(attr_kv, 'pid=7')";
    assert_eq!(store.text(found).await, "1");
}

#[tokio::test]
async fn log_records_come_back_as_they_were_sent() {
    let store = Store::new().await;
    let full = LogRecord {
        time_unix_nano: START,
        observed_time_unix_nano: START + 1,
        severity_number: 17,
        severity_text: "ERROR".into(),
        body: Some(AnyValue { value: Some(Value::StringValue("Payment FAILED for order-7".into())) }),
        attributes: all_kinds(),
        dropped_attributes_count: 1,
        flags: 1,
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        event_name: "payment".into(),
    };
    store.insert("logs", &logs(vec![full]), "a").await;
    assert_eq!(store.attributes("logs", "attributes", "attribute_types").await, all_kinds());
    let observed = LogRecord {
        observed_time_unix_nano: START + 2,
        body: Some(AnyValue { value: Some(Value::IntValue(5)) }),
        ..LogRecord::default()
    };
    store.insert("logs", &logs(vec![observed, LogRecord::default()]), "b").await;

    let rows = store
        .texts(
            "SELECT toString((ts, ts_source, observed_ts, hex(trace_id), hex(span_id), flags, severity_number, \
             severity_text, body, body_type, event_name)) FROM logs ORDER BY ts",
        )
        .await;
    let none = "'00000000000000000000000000000000','0000000000000000',0,0,''";
    assert_eq!(
        rows,
        [
            "('2026-11-24 00:06:40.123456789',0,'2026-11-24 00:06:40.123456790','01010101010101010101010101010101',\
             '0202020202020202',1,17,'ERROR','Payment FAILED for order-7','s','payment')"
                .to_owned(),
            format!("('2026-11-24 00:06:40.123456791',1,'2026-11-24 00:06:40.123456791',{none},'5','i','')"),
            format!("('2026-11-24 00:06:40.128456789',2,'1970-01-01 00:00:00.000000000',{none},'','e','')"),
        ]
    );
    // With and without the index built, words are found whatever their case.
    let words = "SELECT toString(count()) FROM logs WHERE hasAllTokens(lower(body), 'failed payment')";
    assert_eq!(store.text(words).await, "1");
    store.client.command("OPTIMIZE TABLE logs FINAL").await.expect("merged");
    assert_eq!(store.text(words).await, "1");
}

#[tokio::test]
async fn metrics_of_every_kind_come_back_as_they_were_sent() {
    let store = Store::new().await;
    store.insert("metrics", &metrics(all_metrics()), "a").await;
    let rows = store
        .texts(
            "SELECT toString((metric, unit, description, metadata, kind, temporality, is_monotonic, start_ts, has_value, \
             value, int_value, count, sum, min, max)) FROM metrics ORDER BY metric, has_value DESC",
        )
        .await;
    let (about, zero) = ("'ms','about',{'from':'test'}", "'1970-01-01 00:00:00.000000000'");
    let start = "'2026-11-24 00:06:40.123456779'";
    assert_eq!(
        rows,
        [
            format!("('e',{about},'exponential_histogram',2,false,{zero},false,0,NULL,4,NULL,NULL,NULL)"),
            format!("('g',{about},'gauge',0,false,{start},true,2.5,NULL,0,NULL,NULL,NULL)"),
            format!("('g',{about},'gauge',0,false,{start},false,0,NULL,0,NULL,NULL,NULL)"),
            format!("('h',{about},'histogram',1,false,{zero},false,0,NULL,6,12.5,NULL,11)"),
            format!("('q',{about},'summary',0,false,{zero},false,0,NULL,2,3,NULL,NULL)"),
            format!(
                "('s',{about},'sum',2,true,{start},true,9223372036854776000,9223372036854775807,0,NULL,NULL,NULL)"
            ),
        ]
    );
    let buckets = "SELECT toString((bucket_counts, explicit_bounds, scale, zero_count, zero_threshold, positive_offset, \
         positive_counts, negative_offset, negative_counts, quantiles, quantile_values)) FROM metrics \
         WHERE kind IN ('histogram', 'exponential_histogram', 'summary') ORDER BY kind";
    assert_eq!(
        store.texts(buckets).await,
        [
            "([1,2,3],[0.5,10],0,0,0,0,[],0,[],[],[])",
            "([],[],-2,1,0.25,-3,[1,1],5,[1],[],[])",
            "([],[],0,0,0,0,[],0,[],[0.5,0.99],[1,2])",
        ]
    );
    let exemplars = "SELECT toString((exemplars_ts, exemplars_value, exemplars_int_value, \
         arrayMap(id -> hex(id), exemplars_trace_id), arrayMap(id -> hex(id), exemplars_span_id), \
         exemplars_attributes, exemplars_types)) FROM metrics WHERE metric = 's'";
    let at = "'2026-11-24 00:06:40.123456788'";
    let trace = "'02020202020202020202020202020202'";
    let span = "'0101010101010101'";
    assert_eq!(
        store.text(exemplars).await,
        format!(
            "([{at},{at}],[0.5,9],[NULL,9],[{trace},{trace}],[{span},{span}],[{{'user':'3'}},{{'user':'3'}}],['i','i'])"
        )
    );
}

// === blocks ===

#[tokio::test]
async fn a_repeated_block_is_stored_once_in_the_view_as_well() {
    let mut store = Store::new().await;
    let late = Span { start_time_unix_nano: START - 86_400_000_000_000, ..span() };
    let block = spans(vec![span(), late]);
    for _ in 0..3 {
        store.insert("spans", &block, "traces/0/1-2").await;
    }
    let counts =
        "SELECT toString((SELECT count() FROM spans)) || ' ' || toString((SELECT count() FROM trace_index))";
    assert_eq!(store.text(counts).await, "2 2");

    // The engine is killed and comes back elsewhere: the client follows, and the store still knows the token.
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(store.child.pid().cast_signed()),
        nix::sys::signal::SIGKILL,
    )
    .expect("killed");
    store.child.ended_error().await;
    let gone = store.client.insert("spans", std::slice::from_ref(&block), "x", PATIENCE).await.unwrap_err();
    assert_eq!(gone.class(), FailureClass::Dependency, "{gone}");
    store.child = EngineChild::spawn(spec(store._folder.path())).await.expect("the engine starts again");
    point(&store.client, &store.child);
    store.insert("spans", &block, "traces/0/1-2").await;
    assert_eq!(store.text(counts).await, "2 2");
    store.insert("spans", &block, "traces/0/3-4").await;
    assert_eq!(store.text("SELECT toString(count()) FROM spans").await, "4");
    let range = "SELECT toString((min(min_ts), max(max_ts))) FROM trace_index WHERE tenant = 'acme'";
    let days = "('2026-11-23 00:06:40.123456789','2026-11-24 00:06:40.123456789')";
    assert_eq!(store.text(range).await, days);
}

#[tokio::test]
async fn several_batches_make_one_block() {
    let store = Store::new().await;
    let other = Span { name: "PUT /".into(), attributes: vec![text("new", "key")], ..span() };
    let batches = [spans(vec![span()]), spans(vec![other])];
    for _ in 0..2 {
        let sent = store.client.insert("spans", &batches, "t", PATIENCE).await.expect("stored");
        assert_eq!(sent.rows, 2);
    }
    assert_eq!(store.texts("SELECT name FROM spans ORDER BY name").await, ["GET /", "PUT /"]);
    assert_eq!(store.text("SELECT attributes['new'] FROM spans WHERE name = 'PUT /'").await, "key");
    let parts = "SELECT toString(count()) FROM system.parts WHERE active AND table = 'spans' AND database = 'obtrace'";
    assert_eq!(store.text(parts).await, "1");
}

// === failures ===

#[tokio::test]
async fn failures_have_the_class_of_their_cause() {
    let store = Store::new().await;
    let client = &store.client;
    let code = |error: &TelemetryError| match error {
        TelemetryError::Exception { code, .. } => *code,
        other => panic!("no exception: {other}"),
    };
    let row = |name: &str, value: &str| {
        let column: ArrayRef = Arc::new(StringArray::from(vec![value]));
        [RecordBatch::try_from_iter([(name, column)]).expect("a batch")]
    };
    let unknown = client.insert("nothing", &row("a", "b"), "t", PATIENCE).await.unwrap_err();
    assert_eq!((code(&unknown), unknown.class()), (60, FailureClass::Config));
    let column = client.insert("spans", &row("nothing", "b"), "t", PATIENCE).await.unwrap_err();
    assert_eq!((code(&column), column.class()), (16, FailureClass::Config));
    let text = client.insert("spans", &row("ts", "no time"), "t", PATIENCE).await.unwrap_err();
    assert_eq!(text.class(), FailureClass::Poison, "{text}");
    assert_eq!(store.text("SELECT toString(count()) FROM spans").await, "0");

    let many = "SELECT toString(number) FROM numbers(1000000)";
    let small = QueryLimits { max_result_bytes: 1000, ..QueryLimits::default() };
    let large = client.query(many, &[], &[], small, PATIENCE).await.unwrap_err();
    assert_eq!(large.class(), FailureClass::Overload, "{large}");
    let small = QueryLimits { max_memory_bytes: 10_000_000, ..QueryLimits::default() };
    let heavy = "SELECT toString(sum(length(s))) FROM (SELECT groupArray(toString(number)) AS s FROM numbers(3000000))";
    let memory = client.query(heavy, &[], &[], small, PATIENCE).await.unwrap_err();
    assert_eq!((code(&memory), memory.class()), (241, FailureClass::Overload));
    let syntax = client.query("SELEKT", &[], &[], QueryLimits::default(), PATIENCE).await.unwrap_err();
    assert_eq!((code(&syntax), syntax.class()), (62, FailureClass::Poison));
    let written = client.query("DROP TABLE spans", &[], &[], QueryLimits::default(), PATIENCE).await;
    assert_eq!(written.unwrap_err().class(), FailureClass::Config);

    let endpoint = store.child.endpoint().expect("ready");
    client.set_endpoint(&endpoint.url, USER, "wrong");
    let refused = client.ping(PATIENCE).await.unwrap_err();
    assert_eq!((code(&refused), refused.class()), (516, FailureClass::Config));
}

#[tokio::test]
async fn a_query_takes_parameters_and_says_what_it_cost() {
    let store = Store::new().await;
    store.insert("spans", &spans(vec![span(), span()]), "a").await;
    let params = [("name".to_owned(), "GET /".to_owned())];
    let sql = "SELECT name, kind FROM spans WHERE name = {name:String}";
    let limits = QueryLimits::default();
    let result = store.client.query_for(TENANT, sql, &params, &[], limits, PATIENCE).await.expect("rows");
    assert_eq!(result.batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    assert_eq!(result.rows_read, 2);
    assert!(result.bytes_read > 0 && !result.elapsed.is_zero(), "{result:?}");
    let none = store.client.query("SELECT 1 WHERE 0", &[], &[], QueryLimits::default(), PATIENCE).await;
    assert_eq!(none.expect("an answer").batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}
