//! Plans at work in a whole process: a tenant over its plan is told to come back, the others are not, and what was used
//! outlives a restart.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Obtrace, Options, block_on, post, until};

const WITHIN: Duration = Duration::from_secs(30);

/// Config of two tenants with one key each: `small-key` (10 log records a day) and `large-key` (no limits).
fn config(dir: &std::path::Path) -> Vec<String> {
    let hash = |key: &str| obtrace::config::tenant::KeyHash::of(key).to_string();
    let text = format!(
        "[tenant.plans.tiny]\nlog_records_per_day = 10\nqueries_in_flight = 1\n\
         [[tenant.keys]]\nname = \"s\"\nhash = \"{}\"\ntenant = \"small\"\nplan = \"tiny\"\n\
         [[tenant.keys]]\nname = \"l\"\nhash = \"{}\"\ntenant = \"large\"\n",
        hash("small-key"),
        hash("large-key")
    );
    let file = dir.join("plans.toml");
    std::fs::write(&file, text).expect("config");
    vec![file.to_string_lossy().into_owned()]
}

fn logs(count: usize, mark: &str) -> Vec<u8> {
    let time = obtrace::clock::unix_nanos().to_string();
    let record = |n: usize| json!({"timeUnixNano": time, "body": {"stringValue": format!("{mark} {n}")}});
    let records: Vec<Value> = (0..count).map(record).collect();
    serde_json::to_vec(&json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]})).expect("json")
}

fn send(obtrace: &Obtrace, key: &str, body: Vec<u8>) -> (u16, Vec<(String, String)>, Value) {
    let headers = [("content-type", "application/json"), ("x-api-key", key)];
    let (status, headers, answer) = post(&format!("{}/v1/logs", obtrace.http), &headers, body);
    (status, headers, serde_json::from_slice(&answer).expect("json"))
}

fn gate(obtrace: &Obtrace, key: &str) -> Value {
    block_on(async {
        let request =
            reqwest::Client::new().get(format!("{}/api/v1/gate", obtrace.api)).header("x-api-key", key);
        request.timeout(WITHIN).send().await.expect("an answer").json().await.expect("json")
    })
}

#[test]
fn a_tenant_over_its_plan_is_told_to_come_back_and_a_restart_forgets_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let set = vec!["tenant.gate.flush_every=100ms".into()];
    let options = Options { set, config: config(dir.path()), ..Options::default() };
    let mut obtrace = Obtrace::start(&dir.path().join("data"), options);

    until(WITHIN, "the gate is projected", || gate(&obtrace, "small-key")["plan"] == "tiny");
    assert_eq!(
        send(&obtrace, "small-key", logs(12, "first")).0,
        200,
        "the request that crosses is taken whole"
    );
    let (status, headers, answer) = send(&obtrace, "small-key", logs(1, "second"));
    assert_eq!(status, 429, "{answer}");
    assert!(headers.iter().any(|(name, value)| name == "retry-after" && value == "60"), "{headers:?}");
    assert_eq!(answer["code"], 8);
    assert!(answer["message"].as_str().unwrap().contains("12 of the 10 log records"), "{answer}");
    assert_eq!(send(&obtrace, "large-key", logs(50, "other")).0, 200, "another tenant is not touched");

    let known = gate(&obtrace, "small-key");
    assert_eq!((&known["state"], &known["usage"]["log_records"]), (&json!("limited"), &json!(12)), "{known}");
    assert_eq!(gate(&obtrace, "large-key")["state"], "allowed");

    assert_eq!(obtrace.stop().code(), Some(0));
    obtrace.restart();
    until(WITHIN, "usage is read again", || gate(&obtrace, "small-key")["usage"]["log_records"] == json!(12));
    assert_eq!(send(&obtrace, "small-key", logs(1, "third")).0, 429, "the count outlived the restart");
    until(WITHIN, "the last use of its key is shown", || {
        gate(&obtrace, "small-key")["keys"][0]["name"] == "s"
    });
    let keys = gate(&obtrace, "small-key")["keys"].clone();
    assert!(keys[0]["last_used_at"].as_u64().is_some_and(|at| at > 1_700_000_000), "{keys}");
    let tree = obtrace.get("/admin/tree").1.to_string();
    for path in ["store.state", "store.blobs", "store.cache", "tenant.gate_projector", "tenant.key_cache"] {
        assert!(tree.contains(&format!("\"path\":\"{path}\"")), "{path} is in the tree");
    }
    assert_eq!(obtrace.stop().code(), Some(0));
}

#[test]
fn with_state_and_blobs_out_of_reach_everything_comes_in_and_the_tree_says_so() {
    let dir = tempfile::tempdir().expect("tempdir");
    let data = dir.path().join("data");
    std::fs::create_dir_all(&data).expect("folder");
    // Files where folders should be.
    std::fs::write(data.join("state"), b"").expect("file");
    std::fs::write(data.join("blobs"), b"").expect("file");
    let set = vec!["store.blobs.check_every=100ms".into(), "store.state.check_every=100ms".into()];
    let mut obtrace =
        Obtrace::start(&data, Options { set, config: config(dir.path()), ..Options::default() });
    assert_eq!(send(&obtrace, "large-key", logs(3, "still")).0, 200);
    let degraded = |obtrace: &Obtrace, path: &str| {
        let (_, tree) = obtrace.get("/admin/tree");
        let store = tree["root"]["children"]
            .as_array()
            .unwrap()
            .iter()
            .find(|n| n["path"] == "store")
            .unwrap()
            .clone();
        let node = store["children"].as_array().unwrap().iter().find(|n| n["path"] == path).unwrap().clone();
        node["state"] == "degraded"
    };
    let deploys = || obtrace.try_get_as("/api/v1/deploys", Some("large-key")).expect("an answer");
    let (status, problem) = deploys();
    assert_eq!((status, &problem["title"]), (503, &json!("State store unavailable")), "{problem}");
    until(WITHIN, "both are degraded", || {
        degraded(&obtrace, "store.state") && degraded(&obtrace, "store.blobs")
    });
    std::fs::remove_file(data.join("state")).expect("remove");
    std::fs::remove_file(data.join("blobs")).expect("remove");
    until(WITHIN, "both are back", || {
        !degraded(&obtrace, "store.state") && !degraded(&obtrace, "store.blobs")
    });
    assert_eq!(deploys().0, 200);
    assert_eq!(obtrace.stop().code(), Some(0));
}
