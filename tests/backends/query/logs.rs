//! Logs: the search language against real rows, pages over equal records, and bodies without loss.

use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use serde_json::json;

use super::{NOW, SECOND, Store, field, kv, scope, text};

fn log(number: u64, severity: i32, body: &str) -> LogRecord {
    LogRecord {
        time_unix_nano: NOW - number * SECOND,
        severity_number: severity,
        body: Some(AnyValue { value: Some(text(body)) }),
        attributes: vec![kv("number", Any::IntValue(number as i64))],
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_search_language_finds_what_it_says() {
    let store = Store::new().await;
    let mine = scope("acme", "shop");
    let mut traced = log(6, 9, "checkout done");
    (traced.trace_id, traced.span_id) = (vec![7; 16], vec![8; 8]);
    let mut text_only = log(7, 0, "only a severity text");
    text_only.severity_text = "Error".into();
    let cart = vec![
        log(1, 17, "Payment FAILED: timeout for user_42"),
        log(2, 13, "retry after timeout"),
        log(3, 9, "payment accepted, nothing failed"),
        log(4, 21, "über-Speicher voll"),
        log(5, 0, "timeouts seen"),
        traced,
        text_only,
    ];
    store.logs(&mine, "cart", cart).await;
    store.logs(&mine, "web", vec![log(8, 9, "GET /cart 50% 'quoted' \\ back")]).await;
    store.logs(&scope("evil", "shop"), "cart", vec![log(9, 17, "timeout of another tenant")]).await;
    for (q, want) in [
        ("", "1 2 3 4 5 6 7 8"),
        ("timeout", "1 2"),
        ("TIMEOUT -retry", "1"),
        ("\"payment failed\"", "1"),
        ("payment failed", "1 3"),
        ("user_42", "1"),
        ("user_43", ""),
        ("über-speicher", "4"),
        ("50%", "8"),
        ("\"'quoted' \\\\ back\"", "8"),
        ("service:web", "8"),
        ("-service:cart", "8"),
        ("level>=error", "1 4 7"),
        ("level:warn", "2"),
        ("level<warn", "3 6 8"),
        ("-level>=trace", "5"),
        ("attr.number=3", "3"),
        ("attr.number!=3 payment", "1"),
        ("attr.host.name=h1 service:web", "8"),
        ("trace_id:07070707070707070707070707070707", "6"),
        ("'; DROP TABLE logs; --", ""),
    ] {
        let items = store.all(&mine, "logs", &[("q", q), ("limit", "2")]).await;
        let found: Vec<String> = items.iter().map(|item| item["attributes"]["number"].to_string()).collect();
        assert_eq!(found.join(" "), want, "{q}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_records_are_all_given_whatever_the_page() {
    let store = Store::new().await;
    let mine = scope("acme", "shop");
    store.logs(&mine, "cart", vec![log(1, 9, "tick"); 30]).await;
    store.logs(&mine, "cart", vec![log(1, 9, "tick"); 5]).await;
    store.logs(&mine, "cart", (0..20).map(|n| log(1, 9, &format!("tock {n}"))).collect()).await;
    store.logs(&mine, "cart", vec![log(4000, 9, "an hour ago")]).await;
    for limit in ["1", "3", "10", "34", "35", "55", "100"] {
        let items = store.all(&mine, "logs", &[("limit", limit), ("start", "now-2h")]).await;
        let bodies = field(&items, "body");
        assert_eq!(bodies.iter().filter(|body| *body == "tick").count(), 35, "limit {limit}");
        let tocks: std::collections::BTreeSet<_> =
            bodies.iter().filter(|body| body.starts_with("tock")).collect();
        assert_eq!((tocks.len(), items.len()), (20, 56), "limit {limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_comes_back_without_loss() {
    let store = Store::new().await;
    let mine = scope("acme", "shop");
    let mut record = log(1, 18, "");
    record.body = Some(AnyValue { value: Some(Any::IntValue(i64::MAX)) });
    record.severity_text = "ERROR2".into();
    record.observed_time_unix_nano = NOW - 7;
    record.event_name = "order.placed".into();
    record.flags = 1;
    store.logs(&mine, "cart", vec![record, log(2, 9, "plain")]).await;
    let items = store.all(&mine, "logs", &[]).await;
    let first = &items[0];
    assert_eq!((&first["body"], &first["body_type"]), (&json!(i64::MAX.to_string()), &json!("int")));
    assert_eq!(
        (&first["level"], &first["severity_number"], &first["severity_text"]),
        (&json!("error"), &json!(18), &json!("ERROR2"))
    );
    assert_eq!(
        (&first["time"], &first["unix_nano"]),
        (&json!("2026-11-24T00:06:39.000000000Z"), &json!((NOW - SECOND).to_string()))
    );
    assert_eq!(first["observed_unix_nano"], json!((NOW - 7).to_string()));
    assert_eq!(
        (&first["event_name"], &first["flags"], &first["trace_id"]),
        (&json!("order.placed"), &json!(1), &json!(null))
    );
    assert_eq!((&items[1]["body"], items[1].get("body_type")), (&json!("plain"), None));
}
