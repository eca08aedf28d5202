//! The load generator against a small sink in the same process: what was counted is what arrived, once, under every mishap.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;
use serde_json::{Value as Json, json};
use tonic::{Code, Status};

use super::*;
use crate::domain::signal::Signal;
use crate::tools::otlp_client::sink::Sink;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: LoadArgs,
}

fn args(endpoint: &str, more: &str) -> LoadArgs {
    let words =
        ["load", "--endpoint", endpoint, "--run-id", "t1"].into_iter().chain(more.split_ascii_whitespace());
    Cli::try_parse_from(words).unwrap().args
}

/// How often each (signal, sequence) was taken in by the sink, over the exports it answered well.
fn sequences(got: &[(Signal, Bytes)]) -> HashMap<(Signal, i64), u32> {
    let mut seen = HashMap::new();
    for (signal, body) in got {
        let lists: Vec<_> = match signal {
            Signal::Traces => {
                let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
                let scopes = request.resource_spans.into_iter().flat_map(|r| r.scope_spans);
                scopes.flat_map(|s| s.spans).map(|s| s.attributes).collect()
            }
            Signal::Logs => {
                let request = ExportLogsServiceRequest::decode(body.clone()).unwrap();
                let scopes = request.resource_logs.into_iter().flat_map(|r| r.scope_logs);
                scopes.flat_map(|s| s.log_records).map(|s| s.attributes).collect()
            }
            Signal::Metrics => continue,
        };
        for attributes in lists {
            let seq = attributes.iter().find(|a| a.key == SEQ_KEY).and_then(|a| a.value.clone()?.value);
            let Some(Value::IntValue(seq)) = seq else { panic!("a record without its sequence") };
            *seen.entry((*signal, seq)).or_default() += 1;
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_counted_is_what_arrived_once() {
    for (protocol, compression) in
        ["grpc", "http"].into_iter().flat_map(|p| ["none", "gzip", "zstd"].map(|c| (p, c)))
    {
        let sink = Sink::new(|_| Ok(Bytes::new()));
        let url = format!("http://{}", sink.serve().await);
        let flags = format!(
            "--signal mixed --records 2050 --batch 100 --saturate --api-key k1 --protocol {protocol} --compression {compression}"
        );
        let (report, ledger) = generate(&args(&url, &flags), std::future::pending()).await.unwrap();
        assert_eq!((report.sent, report.accepted, report.unknown), (2050, 2050, 0), "{report}");
        assert_eq!(ledger.batches.values().filter(|b| b.fate == Fate::Accepted).count(), 21);
        let seen = sequences(&sink.got.lock());
        // Of 21 batches 11 hold spans, the last of them 50; 5 hold logs.
        assert_eq!(seen.len(), 1050 + 500);
        assert!(seen.values().all(|n| *n == 1));
        assert!(sink.keys.lock().iter().all(|k| k.as_deref() == Some("Bearer k1")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retryable_refusals_are_sent_again_with_the_same_bytes() {
    for (protocol, code) in [("grpc", "Unavailable"), ("http", "503")] {
        let sink =
            Sink::new(|n| if n % 2 == 0 { Err(Status::unavailable("full")) } else { Ok(Bytes::new()) });
        let url = format!("http://{}", sink.serve().await);
        let flags = format!(
            "--records 400 --batch 100 --saturate --connections 1 --in-flight 1 --protocol {protocol}"
        );
        let (report, _) = generate(&args(&url, &flags), std::future::pending()).await.unwrap();
        assert_eq!((report.accepted, report.retried), (400, 4));
        assert_eq!(report.errors.get(code), Some(&4));
        let got = sink.got.lock();
        assert!(got.chunks(2).all(|pair| pair[0] == pair[1]), "a resend differs from what was sent first");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_and_partial_success_are_not_sent_again() {
    // ExportTracePartialSuccess { rejected_spans: 7, error_message: "old" }
    let partial = Bytes::from_static(&[0x0a, 7, 0x08, 7, 0x12, 3, b'o', b'l', b'd']);
    for protocol in ["grpc", "http"] {
        let partial = partial.clone();
        let sink = Sink::new(move |n| match n {
            0 => Err(Status::new(Code::InvalidArgument, "bad")),
            1 => Ok(partial.clone()),
            _ => Ok(Bytes::new()),
        });
        let url = format!("http://{}", sink.serve().await);
        let flags = format!(
            "--records 300 --batch 100 --saturate --connections 1 --in-flight 1 --protocol {protocol}"
        );
        let (report, ledger) = generate(&args(&url, &flags), std::future::pending()).await.unwrap();
        assert_eq!((report.accepted, report.rejected, report.retried), (193, 107, 0), "{report}");
        let fates: Vec<_> = ledger.batches.values().map(|b| b.fate).collect();
        assert_eq!(fates, [Fate::Refused, Fate::Partial(7), Fate::Accepted]);
        assert_eq!(sink.got.lock().len(), 3);
        assert_eq!(report.error_messages.get("partial success").map(String::as_str), Some("old"));
        assert!(report.error_messages.values().any(|m| m.contains("bad")), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_up_late_gets_everything() {
    for protocol in ["grpc", "http"] {
        let sink = Sink::new(|_| Ok(Bytes::new()));
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (later, url) = (sink.clone(), format!("http://{free}"));
        let start = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            later.serve_on(free).await
        });
        let args = args(&url, &format!("--records 400 --batch 100 --saturate --protocol {protocol}"));
        let (report, _) = generate(&args, std::future::pending()).await.unwrap();
        start.await.unwrap();
        assert_eq!((report.accepted, report.unknown), (400, 0), "{report}");
        assert!(report.errors.contains_key("connect"), "{report}");
        assert!(sequences(&sink.got.lock()).values().all(|n| *n == 1));
    }
}

#[tokio::test]
async fn without_a_server_and_without_retry_the_fate_is_unknown_and_the_end_comes() {
    let args = args("http://127.0.0.1:9", "--records 200 --batch 100 --saturate --retry false");
    let (report, ledger) = generate(&args, std::future::pending()).await.unwrap();
    assert_eq!((report.accepted, report.unknown), (0, 200));
    assert!(ledger.batches.values().all(|b| b.fate == Fate::Unknown));
}

#[test]
fn flags_are_checked() {
    for bad in ["--run-id a/b", "--rate 0", "--batch 0", "--attributes 2", "--verify-only", "--duration fast"]
    {
        let words = std::iter::once("load").chain(bad.split_ascii_whitespace());
        assert!(Cli::try_parse_from(words).is_err(), "{bad}");
    }
}

/// A stand-in for the API: spans and logs by page of two, points counted by batch, from rows given beforehand.
async fn serve_api(rows: Vec<Json>, batches: Vec<(u64, u64)>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new((rows, batches));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let state = Arc::clone(&state);
            let service = service_fn(move |request: http::Request<Incoming>| {
                let body = answer(&state.0, &state.1, request.uri()).to_string();
                async move { Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(body)))) }
            });
            tokio::spawn(async move {
                // The client closes its connection when it is done.
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    format!("http://{address}")
}

fn answer(rows: &[Json], batches: &[(u64, u64)], uri: &http::Uri) -> Json {
    let query = uri.query().unwrap_or_default();
    let param = |name: &str| {
        query.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    };
    if uri.path() == "/api/v1/metrics/query" {
        let start: u64 = param("start").unwrap().parse().unwrap();
        assert_eq!(start % 1_000_000_000, 0);
        let series = |(batch, n): &(u64, u64)| json!({"group": {BATCH_KEY: batch.to_string()}, "points": [{"unix_seconds": 1.0, "value": n}]});
        return json!({"items": batches.iter().map(series).collect::<Vec<_>>(), "truncated": false});
    }
    let filter = if uri.path().ends_with("spans") {
        "attr.obtrace.load.run=t1"
    } else {
        "q=attr.obtrace.load.run%3Dt1"
    };
    assert!(query.contains(filter), "{query}");
    let from: usize = param("cursor").map_or(0, |c| c.parse().unwrap());
    let next = (from + 2 < rows.len()).then(|| (from + 2).to_string());
    json!({"items": rows.iter().skip(from).take(2).collect::<Vec<_>>(), "next_cursor": next})
}

fn row(seq: u64) -> Json {
    json!({"trace_id": hex(&Identity::new("t1", 1).trace_id(seq)), "attributes": {SEQ_KEY: seq}})
}

fn ledger(signal: Signal) -> Ledger {
    let info = RunInfo { run: "t1".to_owned(), seed: 1, batch_size: 5 };
    let batch = |fate| Batch { count: 5, base_ns: 1_700_000_000_000_000_000, fate };
    let batches = [((signal, 0), batch(Fate::Accepted)), ((signal, 1), batch(Fate::Unknown))];
    Ledger { info, batches: batches.into() }
}

async fn verdict(signal: Signal, rows: Vec<Json>, batches: Vec<(u64, u64)>) -> Verdict {
    let (api, no_time) = (serve_api(rows, batches).await, Duration::ZERO);
    let plan = VerifyPlan { api, api_key: None, timeout: no_time, settle: no_time };
    verify(&ledger(signal), &plan).await.unwrap().remove(0)
}

#[tokio::test]
async fn verification_pages_through_all_rows_and_finds_what_is_wrong() {
    for signal in [Signal::Traces, Signal::Logs] {
        let good = verdict(signal, (0..7).map(row).collect(), vec![]).await;
        assert!(good.holds(), "{good}");
        assert_eq!((good.returned, good.acknowledged, good.unknown_stored), (7, 5, 2));
        let missing = verdict(signal, (1..5).map(row).collect(), vec![]).await;
        assert_eq!((missing.missing, missing.holds()), (1, false));
        let doubled = verdict(signal, (0..5).chain([6, 6]).map(row).collect(), vec![]).await;
        assert_eq!((doubled.doubled, doubled.holds()), (1, false));
        let mut foreign: Vec<_> = (0..5).map(row).collect();
        foreign[2]["trace_id"] = json!("00");
        assert_eq!(verdict(signal, foreign, vec![]).await.altered, 1);
    }
}

#[test]
fn a_run_without_acknowledgements_proves_nothing() {
    let mut verdict = Verdict::new(Signal::Traces);
    assert!(!proven(&[]) && !proven(std::slice::from_ref(&verdict)));
    verdict.acknowledged = 1;
    assert!(proven(std::slice::from_ref(&verdict)));
    verdict.doubled = 1;
    assert!(!proven(&[verdict]));
}

#[tokio::test]
async fn verification_counts_points_by_batch() {
    assert!(verdict(Signal::Metrics, vec![], vec![(0, 5), (1, 5)]).await.holds());
    assert!(verdict(Signal::Metrics, vec![], vec![(0, 5)]).await.holds());
    assert_eq!(verdict(Signal::Metrics, vec![], vec![(0, 4)]).await.missing, 1);
    assert_eq!(verdict(Signal::Metrics, vec![], vec![(0, 10)]).await.doubled, 5);
    assert_eq!(verdict(Signal::Metrics, vec![], vec![(0, 5), (7, 1)]).await.stray, 1);
}

#[tokio::test]
async fn an_api_that_does_not_answer_is_an_error_and_not_a_verdict() {
    let no_time = Duration::ZERO;
    let plan =
        VerifyPlan { api: "http://127.0.0.1:9".to_owned(), api_key: None, timeout: no_time, settle: no_time };
    assert!(matches!(verify(&ledger(Signal::Traces), &plan).await, Err(ToolError::Api { .. })));
}
