//! Tests of the builders without a store: names as in the migration, what is refused, what is bounded, what repeats.

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampNanosecondType, UInt8Type, UInt32Type, UInt64Type};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, EntityRef, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use uuid::Uuid;

use super::*;
use crate::domain::envelope::{Header, SCHEMA_VERSION, WireFormat};
use crate::domain::scope::Scope;
use crate::domain::signal::Signal;

const MIGRATION: &str = include_str!("../../../migrations/clickhouse/V1__telemetry.sql");
const START: u64 = 1_795_478_800_123_456_789;

fn header(env: &str) -> Header {
    Header {
        schema_version: SCHEMA_VERSION,
        format: WireFormat::Otlp,
        scope: Scope::new("t", "p", "a", env).unwrap(),
        signal: Signal::Traces,
        retention_days: 15,
        received_at_ns: START,
        batch_id: Uuid::nil(),
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

fn traces(attributes: Vec<KeyValue>, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let resource = Some(Resource { attributes, ..Resource::default() });
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource, scope_spans, schema_url: String::new() }],
    }
}

fn span(name: &str) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: name.into(),
        start_time_unix_nano: START,
        end_time_unix_nano: START + 5,
        ..Span::default()
    }
}

/// The words of a dictionary column, row by row.
fn words(batch: &RecordBatch, column: &str) -> Vec<String> {
    let array = batch.column_by_name(column).unwrap().as_dictionary::<Int32Type>();
    let values = array.values().as_string::<i32>();
    array.keys().values().iter().map(|key| values.value(*key as usize).to_owned()).collect()
}

/// Column names of a table in the migration, in order, without what is computed.
fn table_columns(table: &str) -> Vec<&'static str> {
    let begin =
        MIGRATION.find(&format!("EXISTS ${{table:{table}}}\n(\n")).expect("the table is in the migration");
    let body = MIGRATION[begin..].split_once("(\n").unwrap().1;
    let body = body.split_once("\n)\n").unwrap().0;
    let columns = body.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     "));
    let columns = columns.filter(|line| !line.contains(" ALIAS ") && !line.contains("INDEX "));
    columns.map(|line| line.trim().split(' ').next().unwrap()).collect()
}

#[test]
fn columns_are_those_of_the_tables() {
    let names = |batch: &RecordBatch| -> Vec<String> {
        batch.schema_ref().fields().iter().map(|field| field.name().clone()).collect()
    };
    assert_eq!(names(&SpanColumns::new().finish()), table_columns("spans"));
    assert_eq!(names(&LogColumns::new().finish()), table_columns("logs"));
    assert_eq!(names(&MetricColumns::new().finish()), table_columns("metrics"));
}

#[test]
fn batches_of_one_table_share_a_schema() {
    let mut columns = SpanColumns::new();
    let empty = columns.finish();
    columns.append(&traces(vec![text("k", "v")], vec![span("a")]), &header("")).unwrap();
    let one = columns.finish();
    assert_eq!(empty.schema(), one.schema());
    assert_eq!((empty.num_rows(), one.num_rows(), columns.rows()), (0, 1, 0));
}

#[test]
fn spans_that_do_not_fit_are_left_out_and_named() {
    let bad = [
        Span { trace_id: vec![1; 15], ..span("trace") },
        Span { span_id: vec![1; 9], ..span("span") },
        Span { parent_span_id: vec![1], ..span("parent") },
        Span { links: vec![Link { trace_id: vec![1], ..Link::default() }], ..span("link") },
        Span { start_time_unix_nano: 4_294_967_296_000_000_000, ..span("start") },
        Span { end_time_unix_nano: u64::MAX, ..span("end") },
        Span { events: vec![Event { time_unix_nano: 1 << 63, ..Event::default() }], ..span("event") },
        Span { kind: 256, ..span("kind") },
        Span { status: Some(Status { code: -1, message: String::new() }), ..span("status") },
    ];
    let mut all = vec![span("first")];
    all.extend(bad);
    all.push(Span { trace_id: vec![], span_id: vec![], ..span("no ids") });
    let mut columns = SpanColumns::new();
    let outcome = columns.append(&traces(vec![], all), &header("")).unwrap();
    assert_eq!(outcome.stored, 2);
    assert_eq!(outcome.rejected.iter().map(|r| r.index).collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
    let reasons: Vec<&str> = outcome.rejected.iter().map(|r| r.reason.as_str()).collect();
    let (id, time, number) = ("id_length", "time_range", "enum_range");
    assert_eq!(reasons, [id, id, id, id, time, time, time, number, number]);
    assert_eq!(outcome.rejected[0].reason.to_string(), "trace_id has 15 bytes, it must have 16 or none");
    let batch = columns.finish();
    assert_eq!(words(&batch, "name"), ["first", "no ids"]);
    assert_eq!(batch.column_by_name("trace_id").unwrap().as_fixed_size_binary().value(1), [0; 16]);
}

#[test]
fn times_fall_back_and_durations_do_not_underflow() {
    let mut columns = SpanColumns::new();
    let back = Span { end_time_unix_nano: START - 1, ..span("back") };
    let none = Span { start_time_unix_nano: 0, ..span("none") };
    columns.append(&traces(vec![], vec![span("plain"), back, none]), &header("")).unwrap();
    let batch = columns.finish();
    let numbers =
        |name: &str| batch.column_by_name(name).unwrap().as_primitive::<UInt64Type>().values().to_vec();
    assert_eq!(numbers("duration_ns"), [5, 0, 0]);
    let sources = batch.column_by_name("ts_source").unwrap().as_primitive::<UInt8Type>();
    assert_eq!(sources.values().to_vec(), [0, 0, 2]);
    let ts = batch.column_by_name("ts").unwrap().as_primitive::<TimestampNanosecondType>();
    assert_eq!(ts.values().to_vec(), [START.cast_signed(); 3]);
    let buckets = batch.column_by_name("ts_bucket").unwrap().as_primitive::<UInt32Type>();
    assert_eq!(buckets.values().to_vec(), [1_795_478_700; 3]);
}

#[test]
fn service_and_entities_come_from_the_resource() {
    let mut columns = SpanColumns::new();
    let mut request = traces(vec![text("service.name", "cart")], vec![span("a")]);
    request.resource_spans[0].resource.as_mut().unwrap().entity_refs = vec![EntityRef {
        r#type: "service".into(),
        id_keys: vec!["service.name".into()],
        ..EntityRef::default()
    }];
    columns.append(&request, &header("")).unwrap();
    columns.append(&traces(vec![], vec![span("b")]), &header("")).unwrap();
    columns
        .append(&traces(vec![kv("service.name", Value::IntValue(7))], vec![span("c")]), &header(""))
        .unwrap();
    let batch = columns.finish();
    assert_eq!(words(&batch, "service"), ["cart", "unknown_service", "7"]);
    let entities = words(&batch, "resource_entities");
    let read: serde_json::Value = serde_json::from_str(&entities[0]).unwrap();
    assert_eq!(read[0]["idKeys"][0], "service.name");
    assert_eq!(entities[1..], ["", ""]);
}

#[test]
fn a_block_with_rows_refuses_what_it_has_no_room_for() {
    let mut columns = SpanColumns::new();
    let request = traces(vec![], vec![span("a")]);
    columns.append(&request, &header("")).unwrap();
    let large = Header { byte_count: u32::MAX, ..header("") };
    let full = columns.append(&request, &large).unwrap_err();
    assert_eq!((full.needed, columns.rows()), (u32::MAX as usize, 1));
    columns.finish();
    assert_eq!(columns.append(&request, &large).unwrap().stored, 1);
}

#[test]
fn a_resource_repeated_in_every_row_cannot_blow_up_a_block() {
    let size = MAX_COLUMN_BYTES / 4;
    let request = traces(vec![text("big", &"x".repeat(size))], vec![span("a"); 1000]);
    let mut columns = SpanColumns::new();
    let outcome = columns.append(&request, &header("")).unwrap();
    assert_eq!(outcome.stored, 3);
    assert_eq!(outcome.rejected.len(), 997);
    assert_eq!(outcome.rejected[0].reason, Unfit::TooLarge { limit: MAX_COLUMN_BYTES });
    assert!(columns.bytes() <= MAX_COLUMN_BYTES);
}

#[test]
fn logs_that_do_not_fit_are_left_out() {
    let record = |time, severity| LogRecord {
        time_unix_nano: time,
        severity_number: severity,
        ..LogRecord::default()
    };
    let late = LogRecord { observed_time_unix_nano: u64::MAX, ..LogRecord::default() };
    let log_records = vec![record(START, 9), record(u64::MAX, 9), record(START, 256), late, record(0, 0)];
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }],
    };
    let mut columns = LogColumns::new();
    let outcome = columns.append(&request, &header("")).unwrap();
    assert_eq!(outcome.stored, 2);
    assert_eq!(outcome.rejected.iter().map(|r| r.index).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(words(&columns.finish(), "body_type"), ["e", "e"]);
}

// === series ===

fn point(attributes: Vec<KeyValue>) -> NumberDataPoint {
    let value = Some(number_data_point::Value::AsInt(1));
    NumberDataPoint { attributes, time_unix_nano: START, value, ..NumberDataPoint::default() }
}

fn gauge(name: &str, points: Vec<NumberDataPoint>) -> Metric {
    let data = Some(Data::Gauge(Gauge { data_points: points }));
    Metric { name: name.into(), data, ..Metric::default() }
}

fn hashes(resource: Vec<KeyValue>, env: &str, metrics: Vec<Metric>) -> Vec<u64> {
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource = Some(Resource { attributes: resource, ..Resource::default() });
    let group = ResourceMetrics { resource, scope_metrics, schema_url: String::new() };
    let mut columns = MetricColumns::new();
    let request = ExportMetricsServiceRequest { resource_metrics: vec![group] };
    let outcome = columns.append(&request, &header(env)).unwrap();
    assert_eq!(outcome.rejected, []);
    let batch = columns.finish();
    batch.column_by_name("series_hash").unwrap().as_primitive::<UInt64Type>().values().to_vec()
}

#[test]
fn a_series_is_what_its_attributes_say_in_any_order() {
    let (a, b) = (text("a", "1"), text("b", "2"));
    let one =
        |resource: &[KeyValue], env: &str, metric: Metric| hashes(resource.to_vec(), env, vec![metric])[0];
    let same = one(&[a.clone(), b.clone()], "x", gauge("m", vec![point(vec![a.clone(), b.clone()])]));
    let turned = one(&[b.clone(), a.clone()], "x", gauge("m", vec![point(vec![b.clone(), a.clone()])]));
    assert_eq!(same, turned);

    let sum = Sum { data_points: vec![point(vec![])], aggregation_temporality: 2, is_monotonic: true };
    let plain = gauge("m", vec![point(vec![])]);
    let others = [
        one(&[], "x", plain.clone()),
        one(&[], "y", plain.clone()),
        one(std::slice::from_ref(&a), "x", plain.clone()),
        one(&[], "x", gauge("n", vec![point(vec![])])),
        one(&[], "x", Metric { unit: "s".into(), ..plain.clone() }),
        one(&[], "x", Metric { data: Some(Data::Sum(sum)), ..plain }),
        one(&[], "x", gauge("m", vec![point(vec![a.clone()])])),
        one(&[], "x", gauge("m", vec![point(vec![text("a", "2")])])),
        one(&[], "x", gauge("m", vec![point(vec![kv("a", Value::IntValue(1))])])),
        one(&[], "x", gauge("m", vec![point(vec![a, b])])),
        same,
    ];
    let distinct: std::collections::HashSet<u64> = others.into_iter().collect();
    assert_eq!(distinct.len(), others.len());
}

#[test]
fn a_metric_without_points_has_no_rows_and_odd_temporality_is_refused() {
    let sum = Sum { data_points: vec![point(vec![])], aggregation_temporality: 1000, is_monotonic: false };
    let metrics = vec![
        Metric::default(),
        gauge("none", vec![]),
        Metric { data: Some(Data::Sum(sum)), ..Metric::default() },
        gauge("one", vec![point(vec![])]),
    ];
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let group = ResourceMetrics { scope_metrics, ..ResourceMetrics::default() };
    let mut columns = MetricColumns::new();
    let request = ExportMetricsServiceRequest { resource_metrics: vec![group] };
    let outcome = columns.append(&request, &header("")).unwrap();
    assert_eq!((outcome.stored, outcome.rejected.len()), (1, 1));
    let reason = &outcome.rejected[0].reason;
    assert_eq!(reason, &Unfit::Enum { field: "aggregation_temporality", value: 1000 });
    assert_eq!(words(&columns.finish(), "metric"), ["one"]);
}
