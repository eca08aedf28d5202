//! Sessions in a whole process: one a connection, in the tree while it lasts, bounded in number, and alone in its faults.

use std::time::Duration;

use obtrace::domain::signal::Signal;
use obtrace::tools::otlp_client::{Compression, Encoding, OtlpClient, OtlpTarget, Outcome, Protocol};
use serde_json::{Value, json};

use crate::support::{Obtrace, Options, until};

const WITHIN: Duration = Duration::from_secs(30);

fn log(body: &str) -> Vec<u8> {
    let time = obtrace::clock::unix_nanos().to_string();
    let record = json!({"timeUnixNano": time, "body": {"stringValue": body}});
    serde_json::to_vec(&json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})).expect("json")
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(WITHIN).pool_max_idle_per_host(1).build().expect("client")
}

/// Sends over the client's one kept connection: status, `Retry-After`, answer.
async fn send(client: &reqwest::Client, obtrace: &Obtrace, body: Vec<u8>) -> (u16, Option<String>, Value) {
    let url = format!("{}/v1/logs", obtrace.http);
    let request = client.post(url).header("content-type", "application/json").body(body);
    let answer = request.send().await.expect("an answer");
    let after = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()).map(str::to_owned);
    (answer.status().as_u16(), after, answer.json().await.expect("json"))
}

fn sessions(obtrace: &Obtrace) -> Vec<String> {
    let (_, tree) = obtrace.get("/admin/tree");
    let children = |node: &Value| node["children"].as_array().cloned().unwrap_or_default();
    let ingest = children(&tree["root"]).into_iter().find(|n| n["path"] == "ingest").expect("ingest");
    let group = children(&ingest).into_iter().find(|n| n["path"] == "ingest.sessions").expect("sessions");
    children(&group).iter().map(|n| n["name"].as_str().expect("a name").to_owned()).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime")
}

#[test]
fn a_connection_has_a_session_while_it_lasts_and_too_many_are_told_to_come_back() {
    let dir = tempfile::tempdir().expect("tempdir");
    let set = vec!["supervision.tree.ingest.sessions.max_children=2".into()];
    let mut obtrace = Obtrace::start(&dir.path().join("data"), Options { set, ..Options::default() });
    let runtime = runtime();
    let (first, second) = (client(), client());
    for client in [&first, &second, &first] {
        assert_eq!(runtime.block_on(send(client, &obtrace, log("hello"))).0, 200);
    }
    let names = sessions(&obtrace);
    assert_eq!(names.len(), 2, "one a connection, however many requests: {names:?}");
    assert!(names.iter().all(|name| name.starts_with("http-")), "{names:?}");

    let (status, after, answer) = runtime.block_on(send(&client(), &obtrace, log("too many")));
    assert_eq!((status, after.as_deref()), (503, Some("5")), "{answer}");
    assert_eq!(answer["code"], 14);
    let refused = runtime.block_on(grpc(&obtrace.grpc));
    assert!(
        matches!(&refused, Outcome::Retryable { after: Some(after), .. } if *after == Duration::from_secs(5)),
        "RetryInfo says when to come back: {refused:?}"
    );
    assert_eq!(runtime.block_on(send(&first, &obtrace, log("still good"))).0, 200, "who is in stays in");

    drop((first, second));
    until(WITHIN, "sessions end with their connections", || sessions(&obtrace).is_empty());
    assert_eq!(runtime.block_on(grpc(&obtrace.grpc)), Outcome::Accepted, "there is room again");
    assert_eq!(obtrace.stop().code(), Some(0));
}

/// One empty export over a connection of its own.
async fn grpc(address: &str) -> Outcome {
    let client = OtlpClient::new(&OtlpTarget {
        endpoint: address.to_owned(),
        protocol: Protocol::Grpc,
        encoding: Encoding::Protobuf,
        compression: Compression::None,
        api_key: None,
        timeout: WITHIN,
    });
    client.expect("client").export(Signal::Logs, bytes::Bytes::new()).await
}

#[cfg(feature = "chaos")]
#[test]
fn a_session_that_fails_costs_its_own_request_one_retry_and_nobody_else_anything() {
    let dir = tempfile::tempdir().expect("tempdir");
    let env = vec![("OBTRACE_CHAOS".into(), "session.before=panic@5*2,session.after=panic@7*1".into())];
    let mut obtrace = Obtrace::start(&dir.path().join("data"), Options { env, ..Options::default() });
    let runtime = runtime();
    let clients = [client(), client()];
    let mut retries = 0;
    for n in 0..30 {
        let body = log(&format!("session number {n}"));
        loop {
            let (status, after, answer) = runtime.block_on(send(&clients[n % 2], &obtrace, body.clone()));
            if status == 200 {
                break;
            }
            assert_eq!((status, after.as_deref()), (503, Some("1")), "{answer}");
            assert!(answer["message"].as_str().is_some_and(|m| m.contains("session")), "{answer}");
            retries += 1;
        }
    }
    assert_eq!(retries, 3, "each planted fault cost one answer");
    let count = |answer: &Value| answer["items"].as_array().map_or(0, Vec::len);
    obtrace.eventually("/api/v1/logs?q=session&limit=100", WITHIN, |answer| count(answer) == 30);
    let (_, tree) = obtrace.get("/admin/tree");
    assert_eq!(tree["root"]["restarts"], 0, "no supervisor noticed: {tree:#}");
    assert_eq!(obtrace.stop().code(), Some(0));
}
