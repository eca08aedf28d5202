//! Roles as processes: each runs its part of the tree and says so, and parts meet over what they share.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::store::Store;
use crate::support::{Obtrace, post};

const WITHIN: Duration = Duration::from_secs(60);

fn process(dir: &Path, store: &Store, roles: Option<&str>) -> Obtrace {
    let mut options = store.options(&["process.linger=50ms", "observe.interval=1s"]);
    options.set.extend(roles.map(|roles| format!("roles={roles}")));
    Obtrace::start(dir, options)
}

/// Paths of all nodes.
fn paths(node: &Value) -> Vec<String> {
    let below = node["children"].as_array().into_iter().flatten().flat_map(paths);
    std::iter::once(node["path"].as_str().expect("a path").to_owned()).chain(below).collect()
}

fn send_log(to: &Obtrace, body: &str) {
    let time = obtrace::clock::unix_nanos().to_string();
    let record = json!({"timeUnixNano": time, "body": {"stringValue": body}});
    let logs = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]});
    let url = format!("{}/v1/logs", to.http);
    let (status, ..) =
        post(&url, &[("content-type", "application/json")], serde_json::to_vec(&logs).expect("json"));
    assert_eq!(status, 200);
}

#[test]
fn what_one_process_takes_in_another_one_finds() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = Store::start(&dir.path().join("store"));
    let mut storing = process(&dir.path().join("storing"), &store, Some("ingest-edge,worker-otlp"));
    let mut whole = process(&dir.path().join("whole"), &store, None);

    let (_, tree) = storing.get("/admin/tree");
    let here = paths(&tree["root"]);
    for there in ["store.writer", "tenant", "stream_in.consumers", "ingest.grpc", "serve.http"] {
        assert!(here.iter().any(|path| path == there), "{there} of {here:?}");
    }
    for not in ["serve.query", "broker_out.letters", "store.blobs"] {
        assert!(!here.iter().any(|path| path == not), "{not} of {here:?}");
    }
    let (status, ready) = storing.get("/readyz");
    assert_eq!(status, 200, "{ready}");
    let parts = ready["parts"].as_array().expect("parts").clone();
    assert!(parts.contains(&json!("ingest")) && parts.contains(&json!("process")), "{ready}");

    send_log(&storing, "over two processes");
    let found = whole.eventually("/api/v1/logs", WITHIN, |answer| answer["items"][0]["body"].is_string());
    assert_eq!(found["items"][0]["body"], "over two processes");
    assert!(storing.stop().success());
    assert!(whole.stop().success());
}

#[test]
fn a_process_says_what_its_roles_do_not_serve() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = Store::start(&dir.path().join("store"));
    let mut storing = process(&dir.path().join("storing"), &store, Some("ingest-edge,worker-otlp"));
    for path in ["/api/v1/logs", "/api/v1/gate", "/api/docs/", "/admin/dlq"] {
        let (status, problem) = storing.get(path);
        assert_eq!(status, 421, "{path}: {problem}");
        assert_eq!(problem["type"], "urn:obtrace:problem:other-role", "{problem}");
        let detail = problem["detail"].as_str().expect("detail");
        assert!(
            detail.ends_with(
                "served by processes with the role query-gateway, this one runs ingest-edge, worker-otlp"
            ),
            "{detail}"
        );
    }
    let (status, config) = storing.get("/admin/config");
    assert_eq!(status, 200);
    assert_eq!(config["values"]["roles"]["value"], "[\"ingest-edge\", \"worker-otlp\"]");

    // What operators look with works on a process of any roles.
    let api = ["--api", &storing.api];
    let (status, shown) = Obtrace::run(&[&["tree"], &api[..]].concat(), WITHIN);
    assert!(status.success() && shown.contains("consumers") && !shown.contains("query"), "{shown}");
    let (status, shown) = Obtrace::run(&[&["top", "--once", "--every", "0.2"], &api[..]].concat(), WITHIN);
    assert!(status.success() && shown.contains("ingest"), "{shown}");
    let data = dir.path().join("storing");
    let doctor = ["doctor", "--json", "--data-dir", data.to_str().expect("utf-8")];
    let (_, report) = Obtrace::run(&[&doctor, &api[..]].concat(), WITHIN);
    let report: Value = serde_json::from_str(&report).expect("json");
    let findings = report["findings"].as_array().expect("findings");
    let ready = findings.iter().find(|finding| finding["what"] == "ready").expect("ready");
    assert_eq!(ready["grade"], "ok", "{report:#}");
    // A reload steers the nodes that are here and no others.
    let url = format!("{}/admin/config/reload", storing.api);
    let (status, _, body) = post(&url, &[], Vec::new());
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    assert!(storing.stop().success());
}

#[test]
fn roles_that_cannot_be_alone_do_not_start() {
    let begun = Instant::now();
    let dir = tempfile::tempdir().expect("tempdir");
    let data = dir.path().to_str().expect("utf-8");
    let (status, _) = Obtrace::run(&["serve", "--data-dir", data, "--roles", "ingest-edge"], WITHIN);
    assert_eq!(status.code(), Some(78), "after {:?}", begun.elapsed());
    assert_eq!(std::fs::read_dir(data).expect("a folder").count(), 0, "nothing was made");
}
