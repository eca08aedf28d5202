//! Spans, traces and services: pages, filters, scopes, and values without loss.

use std::collections::BTreeSet;

use obtrace::domain::query::QueryError;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use serde_json::json;

use super::{NOW, SECOND, Store, field, kv, scope, text};

fn id<const N: usize>(number: u64) -> Vec<u8> {
    let mut id = vec![0; N];
    id[N - 8..].copy_from_slice(&number.to_be_bytes());
    id
}

/// Span `number` of trace `trace`, `age` before [`NOW`], of 10 ms.
fn span(trace: u64, number: u64, age: u64) -> Span {
    let start = NOW - age;
    Span {
        trace_id: id::<16>(trace),
        span_id: id::<8>(number),
        name: format!("op-{}", number % 3),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + 10_000_000,
        attributes: vec![kv("number", Any::IntValue(number as i64))],
        ..Default::default()
    }
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> BTreeSet<String> {
    range.map(|number| format!("{number:016x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_spans_neither_skip_nor_double_nor_leave_the_scope() {
    let store = Store::new().await;
    let (mine, other_project, other_tenant) =
        (scope("acme", "shop"), scope("acme", "blog"), scope("evil", "shop"));
    // Forty spans at one instant, then some at intervals over an hour, in two blocks.
    let same = (1..=40).map(|n| span(n, n, 30 * SECOND)).collect();
    let spread = (41..=120).map(|n| span(n, n, n * 40 * SECOND)).collect();
    store.spans(&mine, "cart", same).await;
    store.spans(&mine, "cart", spread).await;
    store.spans(&other_project, "cart", vec![span(500, 500, 30 * SECOND)]).await;
    store.spans(&other_tenant, "cart", vec![span(600, 600, 30 * SECOND)]).await;
    for limit in ["1", "7", "40", "119", "120", "1000"] {
        let items = store.all(&mine, "spans", &[("start", "now-3h"), ("limit", limit)]).await;
        let ids = field(&items, "span_id");
        assert_eq!(ids.len(), 120, "limit {limit}");
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), numbers(1..=120), "limit {limit}");
        let times: Vec<u64> = field(&items, "start_unix_nano").iter().map(|t| t.parse().unwrap()).collect();
        assert!(times.is_sorted_by(|a, b| a >= b), "limit {limit}");
    }
    // The newest hour only, by default.
    assert_eq!(store.all(&mine, "spans", &[("limit", "9")]).await.len(), 90);
    // A span sent twice in one block is two spans, on whatever pages they fall.
    store.spans(&other_tenant, "cart", vec![span(700, 700, SECOND); 25]).await;
    for limit in ["1", "4", "25"] {
        assert_eq!(store.all(&other_tenant, "spans", &[("limit", limit)]).await.len(), 26, "limit {limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_find_what_they_say_and_hostile_values_are_only_values() {
    let store = Store::new().await;
    let mine = scope("acme", "shop");
    let hostile = "x'); DROP TABLE spans; -- \\ \t\n{tenant:String} \"ü\0";
    let mut slow = span(1, 1, SECOND);
    slow.end_time_unix_nano += 2 * SECOND;
    slow.status = Some(Status { code: 2, message: "boom".into() });
    let mut tagged = span(2, 2, 2 * SECOND);
    tagged.attributes.extend([
        kv("a", text("b=c")),
        kv("code", Any::IntValue(500)),
        kv(hostile, text(hostile)),
    ]);
    let mut crossed = span(3, 3, 3 * SECOND);
    crossed.attributes.push(kv("a=b", text("c")));
    crossed.kind = 3;
    store.spans(&mine, "cart", vec![slow, tagged, crossed]).await;
    store.spans(&mine, hostile, vec![span(4, 4, 4 * SECOND)]).await;
    let key = format!("attr.{hostile}");
    for (pairs, want) in [
        (vec![("service", "cart")], vec!["1", "2", "3"]),
        (vec![("service", hostile)], vec!["4"]),
        (vec![("operation", "op-1")], vec!["1", "4"]),
        (vec![("min_duration", "1s")], vec!["1"]),
        (vec![("max_duration", "10ms"), ("kind", "client")], vec!["3"]),
        (vec![("status", "error")], vec!["1"]),
        (vec![("attr.code", "500")], vec!["2"]),
        (vec![("attr.code!", "500")], vec!["1", "3", "4"]),
        (vec![("attr.host.name", "h1"), ("attr.number", "3")], vec!["3"]),
        (vec![("attr.a", "b=c")], vec!["2"]),
        (vec![("attr.a=b", "c")], vec!["3"]),
        (vec![(key.as_str(), hostile)], vec!["2"]),
        (vec![("attr.code", "50")], vec![]),
        (vec![("service", "cart' OR '1'='1")], vec![]),
    ] {
        let mut found = field(&store.all(&mine, "spans", &pairs).await, "span_id");
        found.sort();
        let found: Vec<&str> = found.iter().map(|id| id.trim_start_matches('0')).collect();
        assert_eq!(found, want, "{pairs:?}");
    }
    // The same filters by trace.
    let traces = store.all(&mine, "traces", &[("attr.code!", "500"), ("limit", "1")]).await;
    assert_eq!(traces.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_comes_back_whole_and_without_loss() {
    let store = Store::new().await;
    let mine = scope("acme", "shop");
    let array =
        ArrayValue { values: vec![AnyValue { value: Some(Any::IntValue(1)) }, AnyValue { value: None }] };
    let mut child = span(9, 2, 3600 * SECOND);
    child.parent_span_id = id::<8>(1);
    child.trace_state = "k=v".into();
    child.flags = 0x101;
    child.dropped_attributes_count = 7;
    child.attributes = vec![
        kv("s", text("ü")),
        kv("b", Any::BoolValue(true)),
        kv("i", Any::IntValue(i64::MIN)),
        kv("d", Any::DoubleValue(1.0)),
        kv("nan", Any::DoubleValue(f64::NAN)),
        kv("y", Any::BytesValue(vec![1, 2])),
        kv("a", Any::ArrayValue(array)),
    ];
    let event = |name: &str| Event {
        time_unix_nano: NOW - 3600 * SECOND + 5,
        name: name.into(),
        attributes: vec![kv("n", Any::IntValue(3))],
        dropped_attributes_count: 1,
    };
    child.events = vec![event("first"), event("second")];
    child.links = vec![Link { trace_id: id::<16>(77), span_id: id::<8>(78), flags: 1, ..Default::default() }];
    store.spans(&mine, "cart", vec![child]).await;
    store.spans(&mine, "web", vec![span(9, 1, 3600 * SECOND + 5)]).await;

    let trace_id = format!("{:032x}", 9);
    let trace = store.ask(&mine, &format!("traces/{trace_id}"), &[]).await.expect("the trace");
    assert_eq!((&trace["trace_id"], &trace["truncated"]), (&json!(trace_id), &json!(false)));
    let spans = trace["spans"].as_array().expect("spans");
    assert_eq!(field(spans, "service"), ["web", "cart"]);
    assert_eq!(
        (&spans[0]["parent_span_id"], &spans[1]["parent_span_id"]),
        (&json!(null), &json!("0000000000000001"))
    );
    let child = &spans[1];
    assert_eq!(
        child["attributes"],
        json!({"s": "ü", "b": true, "i": i64::MIN.to_string(), "d": 1.0, "nan": "NaN", "y": "AQI=", "a": [1, null]})
    );
    assert_eq!(child["attribute_types"], json!({"i": "int", "nan": "double", "y": "bytes"}));
    assert_eq!((&child["dropped_attributes_count"], &child["flags"]), (&json!(7), &json!(0x101)));
    assert_eq!(
        (&child["start_time"], &child["duration_ns"]),
        (&json!("2026-11-23T23:06:40.000000000Z"), &json!(10_000_000))
    );
    assert_eq!((&child["kind"], &child["status"]["code"]), (&json!("server"), &json!("unset")));
    assert_eq!(field(child["events"].as_array().expect("events"), "name"), ["first", "second"]);
    let event = &child["events"][1];
    assert_eq!((&event["attributes"], &event["dropped_attributes_count"]), (&json!({"n": 3}), &json!(1)));
    assert_eq!(event["unix_nano"], json!((NOW - 3600 * SECOND + 5).to_string()));
    assert_eq!(child["links"][0]["span_id"], json!(format!("{:016x}", 78)));
    assert_eq!(
        (&child["resource"]["attributes"]["host.name"], &child["project"]),
        (&json!("h1"), &json!("shop"))
    );

    for stranger in [scope("evil", "shop"), scope("acme", "blog")] {
        let asked = store.ask(&stranger, &format!("traces/{trace_id}"), &[]).await;
        assert!(matches!(asked, Err(QueryError::NotFound(_))), "{asked:?}");
    }
    assert!(store.ask(&mine, &format!("traces/{:032x}", 10), &[]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_stands_in_the_list_once_with_its_sums() {
    let store = Store::new().await;
    let mine = scope("acme", "shop");
    // Thirty traces whose spans are spread over an hour, so that each matches in several slices and on several pages.
    for service in ["cart", "web"] {
        let offset = if service == "cart" { 0 } else { 1000 };
        let spans = (0..90u64).map(|n| {
            let mut span = span(n % 30 + 1, n + 1 + offset, n * 35 * SECOND + offset);
            if offset == 0 || n < 60 {
                span.parent_span_id = id::<8>(9999);
            }
            if n == 5 {
                span.status = Some(Status { code: 2, message: String::new() });
            }
            span
        });
        store.spans(&mine, service, spans.collect()).await;
    }
    let whole = store.all(&mine, "traces", &[]).await;
    assert_eq!(whole.len(), 30);
    for limit in ["1", "4", "29", "30"] {
        let pages = store.all(&mine, "traces", &[("limit", limit)]).await;
        assert_eq!(field(&pages, "trace_id"), field(&whole, "trace_id"), "limit {limit}");
    }
    // Newest matching span first: trace 1 has the span of age 0.
    let first = &whole[0];
    assert_eq!(first["trace_id"], json!(format!("{:032x}", 1)));
    assert_eq!((&first["span_count"], &first["services"]), (&json!(6), &json!(["cart", "web"])));
    assert_eq!((&first["has_root"], &first["root_service"]), (&json!(true), &json!("web")));
    assert_eq!(first["duration_ns"], json!(60 * 35 * SECOND + 1000 + 10_000_000));
    assert_eq!(field(&whole, "error_count").iter().filter(|count| *count == "2").count(), 1);
    let failed = store.all(&mine, "traces", &[("status", "error"), ("service", "web")]).await;
    assert_eq!(field(&failed, "trace_id"), [format!("{:032x}", 6)]);
    assert_eq!(store.all(&scope("evil", "shop"), "traces", &[]).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_and_operations_have_rate_errors_and_durations() {
    let store = Store::new().await;
    let mine = scope("acme", "shop");
    let mut spans: Vec<Span> = (1..=90).map(|n| span(n, n, n * SECOND)).collect();
    for span in &mut spans[..9] {
        span.status = Some(Status { code: 2, message: String::new() });
    }
    // A client span with a parent is no request of the service.
    let mut inner = span(1, 1000, SECOND);
    (inner.kind, inner.parent_span_id) = (3, id::<8>(1));
    spans.push(inner);
    store.spans(&mine, "cart", spans).await;
    for service in ["a", "b", "web"] {
        store.spans(&mine, service, vec![span(1, 1, SECOND)]).await;
    }
    let services = store.all(&mine, "services", &[("start", "now-90s"), ("limit", "1")]).await;
    assert_eq!(field(&services, "service"), ["a", "b", "cart", "web"]);
    let cart = &services[2];
    assert_eq!(
        (&cart["requests"], &cart["errors"], &cart["span_count"]),
        (&json!(90), &json!(9), &json!(91))
    );
    assert_eq!(
        (&cart["rate"], &cart["error_ratio"], &cart["p95_ms"]),
        (&json!(1.0), &json!(0.1), &json!(10.0))
    );
    let operations = store.all(&mine, "services/cart/operations", &[("limit", "1")]).await;
    let named: Vec<(String, String)> =
        field(&operations, "operation").into_iter().zip(field(&operations, "kind")).collect();
    let want = [("op-0", "server"), ("op-1", "server"), ("op-1", "client"), ("op-2", "server")];
    assert_eq!(named, want.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
    assert_eq!(operations[0]["requests"], json!(30));
}
