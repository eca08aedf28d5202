//! OTLP over HTTP as curl sends it, and every kind of bad input: a clear error each, and the process unharmed.

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Obtrace, Options, get, post};

const JSON: (&str, &str) = ("content-type", "application/json");
const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

fn now_ns() -> u64 {
    obtrace::clock::unix_nanos()
}

fn service(name: &str) -> Value {
    json!({"attributes": [{"key": "service.name", "value": {"stringValue": name}}]})
}

fn trace(service_name: &str, trace_id: &str, span_id: &str, start: u64) -> Value {
    json!({"resourceSpans": [{"resource": service(service_name), "scopeSpans": [{"scope": {"name": "curl"}, "spans": [{
        "traceId": trace_id, "spanId": span_id, "name": "GET /cart", "kind": 2,
        "startTimeUnixNano": start.to_string(), "endTimeUnixNano": (start + 5_000_000).to_string(),
        "attributes": [
            {"key": "http.response.status_code", "value": {"intValue": "200"}},
            {"key": "big", "value": {"intValue": "9007199254740993"}},
            {"key": "list", "value": {"arrayValue": {"values": [{"boolValue": true}, {"doubleValue": 0.5}]}}}
        ],
        "events": [{"timeUnixNano": start.to_string(), "name": "hit", "attributes": []}],
        "status": {"code": 1}
    }]}]}]})
}

fn logs(service_name: &str, body: &str, time: u64) -> Value {
    json!({"resourceLogs": [{"resource": service(service_name), "scopeLogs": [{"logRecords": [{
        "timeUnixNano": time.to_string(), "severityNumber": 17, "severityText": "ERROR",
        "body": {"stringValue": body}, "attributes": [{"key": "user", "value": {"stringValue": "u-1"}}]
    }]}]}]})
}

fn metrics(service_name: &str, time: u64) -> Value {
    json!({"resourceMetrics": [{"resource": service(service_name), "scopeMetrics": [{"metrics": [{
        "name": "cart.size", "unit": "{item}", "description": "Items in the cart",
        "gauge": {"dataPoints": [{"timeUnixNano": time.to_string(), "asDouble": 3.5}]}
    }]}]}]})
}

fn send(obtrace: &Obtrace, path: &str, body: &Value) -> (u16, Value) {
    let url = format!("{}{path}", obtrace.http);
    let (status, _, answer) = post(&url, &[JSON], serde_json::to_vec(body).expect("json"));
    (status, serde_json::from_slice(&answer).expect("a JSON answer"))
}

fn start() -> (tempfile::TempDir, Obtrace) {
    let dir = tempfile::tempdir().expect("tempdir");
    let obtrace = Obtrace::start(&dir.path().join("data"), Options::default());
    (dir, obtrace)
}

#[test]
fn what_curl_sends_is_found_again_in_each_signal() {
    let (_dir, mut obtrace) = start();
    let now = now_ns();
    let id = "0af7651916cd43dd8448eb211c80319c";
    assert_eq!(send(&obtrace, "/v1/traces", &trace("shop", id, "b7ad6b7169203331", now)), (200, json!({})));
    assert_eq!(
        send(&obtrace, "/v1/logs", &logs("shop", "payment timeout for order 17", now)),
        (200, json!({}))
    );
    assert_eq!(send(&obtrace, "/v1/metrics", &metrics("shop", now)), (200, json!({})));

    let within = Duration::from_secs(20);
    let has_spans = |answer: &Value| answer["spans"].as_array().is_some_and(|spans| spans.len() == 1);
    let found = obtrace.eventually(&format!("/api/v1/traces/{id}"), within, has_spans);
    let span = &found["spans"][0];
    assert_eq!(span["name"], "GET /cart");
    assert_eq!(span["service"], "shop");
    assert_eq!(span["events"][0]["name"], "hit");
    let text = found.to_string();
    assert!(text.contains("9007199254740993"), "a 64-bit integer keeps all its digits: {text}");

    let has_items = |answer: &Value| answer["items"].as_array().is_some_and(|items| !items.is_empty());
    let list = obtrace.eventually("/api/v1/traces?service=shop", within, has_items);
    assert_eq!(list["items"][0]["trace_id"], id);
    let log =
        obtrace.eventually("/api/v1/logs?q=timeout%20service:shop%20level%3E%3Derror", within, has_items);
    assert_eq!(log["items"][0]["body"], "payment timeout for order 17");
    let names = obtrace.eventually("/api/v1/metrics", within, has_items);
    assert_eq!(names["items"][0]["name"], "cart.size");
    assert_eq!(names["items"][0]["unit"], "{item}");
    obtrace.eventually("/api/v1/metrics/query?name=cart.size&agg=max", within, has_items);
    let services = obtrace.eventually("/api/v1/services", within, has_items);
    assert_eq!(services["items"][0]["service"], "shop");
    assert_eq!(obtrace.stop().code(), Some(0));
}

#[test]
fn a_request_sent_twice_is_stored_once() {
    let (_dir, obtrace) = start();
    let id = "11111111111111111111111111111111";
    let body = trace("twice", id, "2222222222222222", now_ns());
    for _ in 0..3 {
        assert_eq!(send(&obtrace, "/v1/traces", &body).0, 200);
    }
    // A later record of the same partition order does not exist, so wait until the rows are in, then a little more.
    let path = format!("/api/v1/traces/{id}");
    obtrace
        .eventually(&path, Duration::from_secs(20), |a| a["spans"].as_array().is_some_and(|s| !s.is_empty()));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(obtrace.get(&path).1["spans"].as_array().map(Vec::len), Some(1));
}

#[test]
fn bad_records_are_refused_one_by_one_with_count_and_reason() {
    let (_dir, obtrace) = start();
    let now = now_ns();
    let good = "33333333333333333333333333333333";
    let mut body = trace("partial", good, "4444444444444444", now);
    let spans = &mut body["resourceSpans"][0]["scopeSpans"][0]["spans"];
    let mut bad = spans[0].clone();
    bad["spanId"] = json!("0000000000000000");
    bad["name"] = json!("without id");
    spans.as_array_mut().expect("spans").push(bad);
    let (status, answer) = send(&obtrace, "/v1/traces", &body);
    assert_eq!(status, 200);
    assert_eq!(answer["partialSuccess"]["rejectedSpans"], "1", "{answer}");
    let why = answer["partialSuccess"]["errorMessage"].as_str().unwrap_or_default();
    assert!(why.contains("span_id of \"without id\" is all zeros"), "{why}");
    let old = now - 400 * 86_400 * 1_000_000_000;
    let (status, answer) = send(&obtrace, "/v1/logs", &logs("partial", "ancient", old));
    assert_eq!((status, &answer["partialSuccess"]["rejectedLogRecords"]), (200, &json!("1")), "{answer}");
    let path = format!("/api/v1/traces/{good}");
    obtrace
        .eventually(&path, Duration::from_secs(20), |a| a["spans"].as_array().is_some_and(|s| s.len() == 1));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("gzip");
    encoder.finish().expect("gzip")
}

/// Status and text of the google.rpc.Status that answers.
fn refusal(obtrace: &Obtrace, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, String) {
    let (status, _, answer) = post(&format!("{}{path}", obtrace.http), headers, body);
    (status, String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn every_kind_of_bad_payload_gets_a_clear_error_and_does_no_harm() {
    let (_dir, mut obtrace) = start();
    let set = |encoding: &'static str| [JSON, ("content-encoding", encoding)];
    let (br, gz, zs) = (set("br"), set("gzip"), set("zstd"));
    let deep = format!("{}{}", "{\"resourceSpans\":[".repeat(5_000), "x");
    // Path, headers, body, status of the answer, a part of its text.
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Vec<u8>, u16, &'a str);
    let cases: Vec<Case<'_>> = vec![
        ("/v1/traces", &[JSON], b"{\"resourceSpans\":".to_vec(), 400, "resourceSpans"),
        ("/v1/traces", &[JSON], b"not json".to_vec(), 400, ""),
        ("/v1/traces", &[JSON], deep.into_bytes(), 413, "nested deeper"),
        (
            "/v1/traces",
            &[JSON],
            br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}"#.to_vec(),
            400,
            "resourceSpans[0].scopeSpans[0].spans[0].traceId",
        ),
        ("/v1/traces", &[PROTOBUF], b"\x0a\xff\xff\xff\xff\x0f".to_vec(), 400, ""),
        ("/v1/logs", &[PROTOBUF], vec![0xff; 64], 400, ""),
        ("/v1/metrics", &[("content-type", "text/plain")], b"hello".to_vec(), 415, "text/plain"),
        ("/v1/traces", &br, b"x".to_vec(), 415, "br"),
        ("/v1/traces", &gz, b"not gzip at all".to_vec(), 400, "gzip"),
        ("/v1/traces", &gz, gzip(&b"{}".repeat(4))[..12].to_vec(), 400, "gzip"),
        ("/v1/traces", &gz, gzip(&vec![b' '; 200 << 20]), 413, "decompress"),
        ("/v1/traces", &zs, zstd::encode_all(&vec![b' '; 200 << 20][..], 1).expect("zstd"), 413, ""),
        ("/v1/traces", &[JSON], vec![b' '; 21 << 20], 413, "max_body"),
        ("/v1/nothing", &[JSON], b"{}".to_vec(), 404, "/v1/traces"),
    ];
    for (path, headers, body, status, text) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let (got, answer) = refusal(&obtrace, path, headers, body);
        assert_eq!(got, status, "{path} {headers:?} {shown}: {answer}");
        assert!(answer.contains(text), "{path} {shown}: {text:?} is not in {answer:?}");
    }
    // An empty request is a success, and so is one without any record.
    assert_eq!(send(&obtrace, "/v1/traces", &json!({})), (200, json!({})));
    assert_eq!(refusal(&obtrace, "/v1/traces", &[PROTOBUF], Vec::new()), (200, String::new()));
    assert_eq!(get(&format!("{}/v1/traces", obtrace.http)).0, 405);
    assert!(obtrace.is_alive());
    assert_eq!(obtrace.get("/readyz").0, 200);
    let (_, tree) = obtrace.get("/admin/tree");
    assert!(!tree.to_string().contains("panicked"), "{tree:#}");
    assert_eq!(obtrace.stop().code(), Some(0));
}

#[test]
fn keys_lead_to_their_tenants_and_tenants_do_not_meet() {
    let dir = tempfile::tempdir().expect("tempdir");
    let hash = |key: &str| {
        let hex: String = obtrace::domain::auth::hash_key(key).iter().map(|b| format!("{b:02x}")).collect();
        format!("sha256:{hex}")
    };
    let file = dir.path().join("obtrace.toml");
    let table = |name: &str, key: &str| {
        format!("[[tenant.keys]]\nname = \"{name}\"\ntenant = \"{name}\"\nhash = \"{}\"\n", hash(key))
    };
    std::fs::write(&file, format!("{}{}", table("red", "key-red"), table("blue", "key-blue")))
        .expect("write");
    let options =
        Options { env: vec![("OBTRACE_CONFIG".into(), file.display().to_string())], ..Options::default() };
    let obtrace = Obtrace::start(&dir.path().join("data"), options);
    let url = format!("{}/v1/logs", obtrace.http);
    for tenant in ["red", "blue"] {
        let body = serde_json::to_vec(&logs("svc", &format!("secret of {tenant}"), now_ns())).expect("json");
        let key = format!("Bearer key-{tenant}");
        assert_eq!(post(&url, &[JSON, ("authorization", &key)], body).0, 200);
    }
    let (status, _, body) = post(&url, &[JSON, ("x-api-key", "key-green")], b"{}".to_vec());
    assert_eq!(status, 401, "{}", String::from_utf8_lossy(&body));
    for (tenant, other) in [("red", "blue"), ("blue", "red")] {
        let until = std::time::Instant::now() + Duration::from_secs(20);
        let own = loop {
            let answer = get_as(&format!("{}/api/v1/logs?q=secret", obtrace.api), &format!("key-{tenant}"));
            if answer.contains("secret of") || std::time::Instant::now() > until {
                break answer;
            }
        };
        assert!(own.contains(&format!("secret of {tenant}")), "{own}");
        assert!(!own.contains(&format!("secret of {other}")), "{own}");
    }
    let open = obtrace.get("/api/v1/logs?q=secret").1.to_string();
    assert!(!open.contains("secret of"), "the dev tenant sees no other: {open}");
}

fn get_as(url: &str, key: &str) -> String {
    crate::support::block_on(async {
        let client = reqwest::Client::new();
        let answer = client.get(url).header("x-api-key", key).send().await.expect("an answer");
        answer.text().await.expect("a body")
    })
}

#[test]
fn browsers_may_send_from_the_origins_that_are_allowed() {
    let (_dir, obtrace) = start();
    let url = format!("{}/v1/traces", obtrace.http);
    let preflight = |origin: &'static str| {
        let url = url.clone();
        crate::support::block_on(async move {
            let request = reqwest::Client::new()
                .request(reqwest::Method::OPTIONS, url)
                .header("origin", origin)
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "content-type");
            let answer = request.send().await.expect("an answer");
            answer.headers().get("access-control-allow-origin").map(|v| v.to_str().unwrap_or("").to_owned())
        })
    };
    // The profile of `obtrace dev` lets the development servers of this machine in.
    assert_eq!(preflight("http://localhost:5173").as_deref(), Some("http://localhost:5173"));
    assert_eq!(preflight("https://elsewhere.example"), None);
    let origin = ("origin", "http://localhost:5173");
    let (status, headers, _) = post(&url, &[JSON, origin], b"{}".to_vec());
    let allowed = headers.iter().find(|(name, _)| name == "access-control-allow-origin");
    assert_eq!((status, allowed.map(|(_, value)| value.as_str())), (200, Some("http://localhost:5173")));
}

#[test]
fn with_its_store_away_it_takes_data_in_and_still_stops_in_order() {
    let dir = tempfile::tempdir().expect("tempdir");
    let [nobody] = crate::support::free_ports();
    let options =
        Options { set: vec![format!("telemetry.url=http://127.0.0.1:{nobody}")], ..Options::default() };
    let mut obtrace = Obtrace::start(&dir.path().join("data"), options);
    assert_eq!(send(&obtrace, "/v1/logs", &logs("away", "kept for later", now_ns())).0, 200);
    obtrace.eventually("/admin/tree", Duration::from_secs(20), |tree| tree.to_string().contains("degraded"));
    assert_eq!(obtrace.get("/api/v1/logs?q=kept").0, 503);
    assert_eq!(obtrace.stop().code(), Some(0), "a store that is away is no reason for an unclean stop");
    // With its own engine the same folder has what was acknowledged.
    let obtrace = Obtrace::start(&dir.path().join("data"), Options::default());
    let found = |answer: &Value| answer["items"].as_array().is_some_and(|items| items.len() == 1);
    obtrace.eventually("/api/v1/logs?q=kept", Duration::from_secs(20), found);
}
