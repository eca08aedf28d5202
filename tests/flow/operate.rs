//! What operators do: the doctor on this machine, and beside a process that runs; and what the process tells of itself.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Obtrace, Options, block_on, post};

const WITHIN: Duration = Duration::from_secs(30);

fn doctor(arguments: &[&str]) -> (i32, Vec<Value>) {
    let (status, out) = Obtrace::run(&[&["doctor", "--json"], arguments].concat(), WITHIN);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    (status.code().unwrap(), report["findings"].as_array().unwrap().clone())
}

/// Grade and words of the finding about `what`.
fn finding<'f>(findings: &'f [Value], what: &str) -> (&'f str, &'f str, &'f str) {
    let found = findings.iter().find(|finding| finding["what"] == what);
    let found = found.unwrap_or_else(|| panic!("nothing about {what}: {findings:#?}"));
    let word = |key: &str| found[key].as_str().unwrap_or_default();
    (word("grade"), word("found"), word("advice"))
}

#[test]
fn the_doctor_names_what_keeps_obtrace_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, address) = (held.local_addr().unwrap().port(), held.local_addr().unwrap().to_string());
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let (code, findings) = doctor(&["--data-dir", data, "--http", &address, "--set", "process.linger=1ms"]);
    assert_eq!(code, 1);
    let (grade, found, advice) = finding(&findings, &format!("port {port}"));
    assert_eq!(grade, "fail");
    assert!(found.contains(&format!("process {}", std::process::id())), "{found}");
    assert!(advice.contains("serve.http"), "{advice}");
    assert_eq!(finding(&findings, "data folder").0, "ok");
    assert!(!std::path::Path::new(data).exists(), "looking makes nothing");
    for what in ["clocks", "memory", "open files", "fsync", "disk", "event log"] {
        assert_ne!(finding(&findings, what).0, "fail", "{findings:#?}");
    }
    let (code, findings) = doctor(&["--data-dir", data, "--set", "process.lingr=1ms"]);
    let (grade, found, _) = finding(&findings, "configuration");
    assert_eq!((code, grade), (1, "fail"));
    assert!(found.contains("did you mean linger"), "{found}");
}

#[test]
fn the_doctor_knows_a_running_process_by_its_folder_its_ports_and_its_tree() {
    let dir = tempfile::tempdir().unwrap();
    let token = "a-token-of-some-length";
    let env = vec![("OBTRACE_ADMIN_TOKEN".to_owned(), token.to_owned())];
    let mut obtrace = Obtrace::start(dir.path(), Options { env, ..Options::default() });
    let (data, api) = (dir.path().to_str().unwrap(), obtrace.api.clone());
    let http = api.trim_start_matches("http://");
    let (_, findings) = doctor(&["--data-dir", data, "--http", http, "--api", &api, "--token", token]);
    let pid = format!("process {}", obtrace.pid());
    assert!(finding(&findings, "owner").1.contains(&pid), "{findings:#?}");
    let port = format!("port {}", http.rsplit(':').next().unwrap());
    let (grade, found, _) = finding(&findings, &port);
    assert!(grade == "ok" && found.contains(&pid), "{found}");
    assert_eq!(finding(&findings, "ready").0, "ok");
    assert!(finding(&findings, "tree").1.contains("nodes"));
    assert_eq!(finding(&findings, "event log").0, "ok");
    let (_, findings) = doctor(&["--data-dir", data, "--http", http, "--token", "another-one-entirely"]);
    let (grade, found, _) = finding(&findings, "tree");
    assert!(grade == "warn" && found.contains("401"), "{found}");
    assert!(obtrace.stop().success());
    let (code, findings) = doctor(&["--data-dir", data, "--http", http, "--api", &api]);
    let (grade, found, _) = finding(&findings, "running");
    assert_eq!((code, grade), (1, "fail"), "{found}");
    assert!(finding(&findings, "owner").1.contains("no process"), "{findings:#?}");
}

// === own telemetry ===

/// `GET` as an operator who asks for Obtrace's own telemetry.
fn own(obtrace: &Obtrace, path: &str, tenant: &str) -> (u16, Value) {
    block_on(async {
        let request = reqwest::Client::new().get(format!("{}{path}", obtrace.api)).timeout(WITHIN);
        let answer = request.header("x-obtrace-tenant", tenant).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("json"))
    })
}

fn own_items(obtrace: &Obtrace, path: &str) -> Vec<Value> {
    let (status, answer) = own(obtrace, path, "_obtrace");
    assert_eq!(status, 200, "{answer}");
    answer["items"].as_array().unwrap().clone()
}

fn eventually_own(obtrace: &Obtrace, path: &str, good: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let (status, answer) = own(obtrace, path, "_obtrace");
        let items = answer["items"].as_array().cloned().unwrap_or_default();
        // The store may still be starting.
        if status == 200 && good(&items) {
            return items;
        }
        assert!(Instant::now() < until, "{path}: {status} {answer:#}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Points of one metric in the own telemetry, by second.
fn points(obtrace: &Obtrace) -> Vec<f64> {
    let path = "/api/v1/metrics/query?name=obtrace_child_generation&agg=count&step=1s&start=now-2m";
    let (status, answer) = own(obtrace, path, "_obtrace");
    assert_eq!(status, 200, "{answer}");
    let points = answer["items"][0]["points"].as_array().cloned().unwrap_or_default();
    points.iter().filter_map(|point| point["value"].as_f64()).filter(|n| *n > 0.0).collect()
}

#[test]
fn neither_the_process_nor_its_engine_is_given_huge_pages() {
    let dir = tempfile::tempdir().unwrap();
    let mut obtrace = Obtrace::start(dir.path(), Options::default());
    for pid in [obtrace.pid(), obtrace.engine_pid().expect("the engine runs")] {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        assert!(status.contains("THP_enabled:\t0"), "{status}");
    }
    assert_eq!(obtrace.stop().code(), Some(0));
}

#[test]
fn own_telemetry_is_for_operators_and_does_not_feed_on_itself() {
    let dir = tempfile::tempdir().unwrap();
    let set = vec!["observe.interval=1s".to_owned(), "process.linger=100ms".to_owned()];
    let mut obtrace = Obtrace::start(dir.path(), Options { set, ..Options::default() });
    eventually_own(&obtrace, "/api/v1/logs?q=service:obtrace", |lines| !lines.is_empty());
    eventually_own(&obtrace, "/api/v1/metrics?prefix=obtrace_child_state", |names| names.len() == 1);
    // Idle but for itself: nothing is told of its own blocks, and each round is as large as the one before.
    let until = Instant::now() + Duration::from_secs(60);
    let rounds = loop {
        let rounds = points(&obtrace);
        if rounds.len() >= 12 {
            break rounds;
        }
        assert!(Instant::now() < until, "{rounds:?}");
        std::thread::sleep(Duration::from_millis(500));
    };
    let nodes = rounds[4];
    let late = &rounds[5..rounds.len() - 1];
    // Two rounds may fall into one second, and one in none.
    assert!(late.iter().all(|n| *n <= 2.0 * nodes), "{rounds:?}");
    assert!(late.iter().sum::<f64>() <= nodes * (late.len() + 2) as f64, "{rounds:?}");
    let lines = own_items(&obtrace, "/api/v1/logs?q=service:obtrace&start=now-5s");
    assert!(lines.len() <= 5, "{lines:#?}");
    assert_eq!(own_items(&obtrace, "/api/v1/spans?service=obtrace"), Vec::<Value>::new());
    // Somebody else's data is told of, once for a block, and a question about it.
    let log = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hello"}}]}]}]}"#;
    let url = format!("{}/v1/logs", obtrace.http);
    let (status, ..) = post(&url, &[("content-type", "application/json")], log.as_bytes().to_vec());
    assert_eq!(status, 200);
    let blocks =
        eventually_own(&obtrace, "/api/v1/spans?service=obtrace&operation=block", |spans| !spans.is_empty());
    assert_eq!(blocks.len(), 1, "{blocks:#?}");
    let trace = blocks[0]["trace_id"].as_str().unwrap();
    let (_, trace) = own(&obtrace, &format!("/api/v1/traces/{trace}"), "_obtrace");
    assert_eq!(trace["spans"].as_array().unwrap().len(), 4, "{trace}");
    let (_, found) = obtrace.get("/api/v1/logs?q=service:obtrace");
    assert_eq!(found["items"], serde_json::json!([]), "no tenant sees it: {found}");
    eventually_own(&obtrace, "/api/v1/spans?service=obtrace&operation=query+logs", |spans| spans.len() == 1);
    assert_eq!(own(&obtrace, "/api/v1/logs", "default").0, 401);
    assert!(obtrace.stop().success());
}
