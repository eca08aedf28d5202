//! A configuration that changes under a running process: live, refused as a whole, by signal and by the API. Under load: `table/operators.rs`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use obtrace::config::tenant::KeyHash;
use serde_json::{Value, json};

use crate::support::{Obtrace, Options, post};

const SOON: Duration = Duration::from_secs(30);

struct Tuned {
    obtrace: Obtrace,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Tuned {
    fn start(text: &str) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("obtrace.toml");
        std::fs::write(&file, text).expect("write");
        let env = vec![("OBTRACE_CONFIG".into(), file.display().to_string())];
        let obtrace = Obtrace::start(&dir.path().join("data"), Options { env, ..Options::default() });
        Self { obtrace, file, _dir: dir }
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.file, text).expect("write");
    }

    /// Writes the file and reloads by the API.
    fn reload(&self, text: &str) -> (u16, Value) {
        self.write(text);
        let (status, _, body) = post(&format!("{}/admin/config/reload", self.obtrace.api), &[], Vec::new());
        (status, serde_json::from_slice(&body).expect("json"))
    }

    fn value(&self, key: &str) -> Value {
        self.obtrace.get("/admin/config").1["values"][key]["value"].clone()
    }

    fn line(&self, line: usize) -> String {
        format!("{}:{line}", self.file.display())
    }
}

fn find<'a>(node: &'a Value, path: &str) -> &'a Value {
    fn walk<'a>(node: &'a Value, path: &str) -> Option<&'a Value> {
        if node["path"] == path {
            return Some(node);
        }
        node["children"].as_array()?.iter().find_map(|child| walk(child, path))
    }
    walk(node, path).unwrap_or(&Value::Null)
}

fn log_with(body: &str) -> Vec<u8> {
    let time = obtrace::clock::unix_nanos().to_string();
    let record = json!({"timeUnixNano": time, "body": {"stringValue": body}});
    serde_json::to_vec(&json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})).expect("json")
}

fn send(url: &str, key: Option<&str>, body: Vec<u8>) -> u16 {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(key.map(|key| ("x-api-key", key)));
    post(&format!("{url}/v1/logs"), &headers, body).0
}

fn changed<'a>(answer: &'a Value, key: &str) -> &'a Value {
    let changes = answer["changes"].as_array().unwrap_or_else(|| panic!("{answer:#}"));
    changes.iter().find(|change| change["key"] == key).unwrap_or_else(|| panic!("{key} in {answer:#}"))
}

#[test]
fn a_bad_configuration_is_refused_as_a_whole_with_file_and_line() {
    let tuned = Tuned::start("[process]\nlinger = \"200ms\"\n");
    let (status, answer) = tuned.reload(
        "[process]\nlinger = \"400ms\"\n[supervision.tree.store.writer]\nlane = { capacity = 0, byts = 1 }\n",
    );
    assert_eq!(status, 422, "{answer:#}");
    let detail = answer["detail"].as_str().unwrap_or_default();
    for part in ["byts, did you mean bytes?", "lane.capacity must be at least 1", &tuned.line(4)] {
        assert!(detail.contains(part), "{part}\n{detail}");
    }
    assert_eq!(tuned.value("process.linger"), "\"200ms\"", "nothing of it holds");
    let (_, metrics) = crate::support::get(&format!("{}/metrics", tuned.obtrace.api));
    assert!(metrics.contains("obtrace_config_reloads_total{result=\"refused\"} 1"), "{metrics}");
}

#[test]
fn what_a_reload_cannot_do_is_pending_and_seen() {
    let tuned = Tuned::start("");
    let (status, answer) =
        tuned.reload("[supervision.pools.store]\nthreads = 3\n[telemetry]\ninsert_timeout = \"50s\"\n");
    assert_eq!(status, 200, "{answer:#}");
    assert_eq!(changed(&answer, "supervision.pools.store.threads")["done"], "pending");
    assert_eq!(changed(&answer, "telemetry.insert_timeout")["done"], "applied");
    assert_eq!(tuned.value("supervision.pools.store.threads"), "1", "the value that runs");
    let pending = tuned.obtrace.get("/admin/config").1["pending"].clone();
    assert_eq!(
        (&pending[0]["key"], &pending[0]["new"]),
        (&json!("supervision.pools.store.threads"), &json!("3"))
    );
    let metrics = || crate::support::get(&format!("{}/metrics", tuned.obtrace.api)).1;
    assert!(metrics().contains("obtrace_config_restart_pending 1"), "{}", metrics());
    let (_, answer) = tuned.reload("");
    assert_eq!(changed(&answer, "supervision.pools.store.threads")["done"], "as it runs");
    assert_eq!(answer["pending"], json!([]), "taken back, it no longer waits: {answer:#}");
    assert!(metrics().contains("obtrace_config_restart_pending 0"));
}

#[test]
fn a_restart_of_a_node_brings_its_new_value_and_replicas_come_and_go() {
    let tuned = Tuned::start("");
    let before = find(&tuned.obtrace.get("/admin/tree").1["root"], "store.engine")["generation"].as_u64();
    let text = "[telemetry.engine]\nconnections = 3\n[supervision.tree.store.writer]\nreplicas = 3\n";
    let (status, answer) = tuned.reload(text);
    assert_eq!(status, 200, "{answer:#}");
    assert_eq!(changed(&answer, "telemetry.engine.connections")["done"], "restarting store.engine");
    let up = |answer: &Value| {
        let engine = find(&answer["root"], "store.engine");
        let third = find(&answer["root"], "store.writer.3");
        engine["generation"].as_u64() > before && engine["state"] == "running" && third["state"] == "running"
    };
    tuned.obtrace.eventually("/admin/tree", Duration::from_secs(60), up);
    assert_eq!(send(&tuned.obtrace.http, None, log_with("afterwards")), 200);
    let found = |answer: &Value| answer["items"].as_array().is_some_and(|items| items.len() == 1);
    tuned.obtrace.eventually("/api/v1/logs?q=afterwards", SOON, found);
}

#[test]
fn a_key_taken_out_is_refused_within_a_second_of_sighup() {
    let key = "a-key-of-some-length";
    let keys =
        format!("[[tenant.keys]]\nname = \"shop\"\nhash = \"{}\"\ntenant = \"acme\"\n", KeyHash::of(key));
    let mut tuned = Tuned::start(&keys);
    assert_eq!(send(&tuned.obtrace.http, Some(key), log_with("with a key")), 200);
    tuned.write("log = \"info,obtrace=debug\"\n");
    let asked = Instant::now();
    let pid = i32::try_from(tuned.obtrace.pid()).expect("pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGHUP)
        .expect("SIGHUP");
    while send(&tuned.obtrace.http, Some(key), log_with("with a key")) != 401 {
        assert!(asked.elapsed() < SOON, "the key still opens");
        std::thread::sleep(Duration::from_millis(50));
    }
    // A second where the machine has time; the bound here is for one that has not.
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert_eq!(tuned.value("log"), "\"info,obtrace=debug\"");
    assert!(tuned.obtrace.is_alive(), "SIGHUP ends nothing");
    assert_eq!(tuned.obtrace.stop().code(), Some(0));
}

#[test]
fn reloads_at_the_same_time_wait_for_each_other() {
    let tuned = Tuned::start("");
    tuned.write("[process]\nlinger = \"250ms\"\n");
    let url = format!("{}/admin/config/reload", tuned.obtrace.api);
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let (status, _, body) = post(&url, &[], Vec::new());
                    assert_eq!(status, 200);
                    serde_json::from_slice::<Value>(&body).expect("json")
                })
            })
            .collect();
        asked.into_iter().map(|thread| thread.join().expect("thread")).collect()
    });
    let did =
        answers.iter().filter(|answer| answer["changes"].as_array().is_some_and(|c| c.len() == 1)).count();
    assert_eq!(did, 1, "one of them changed it, the others found it done: {answers:#?}");
}

#[test]
fn the_bound_of_connections_is_read_for_each() {
    let bound = |n: u32| format!("[supervision.tree.ingest.sessions]\nmax_children = {n}\n");
    let tuned = Tuned::start(&bound(1));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("runtime");
    let client =
        || reqwest::Client::builder().timeout(SOON).pool_max_idle_per_host(1).build().expect("client");
    let (first, second) = (client(), client());
    let sent = |client: &reqwest::Client| {
        let request = client.post(format!("{}/v1/logs", tuned.obtrace.http));
        let request = request.header("content-type", "application/json").body(log_with("from afar"));
        runtime.block_on(async {
            let answer = request.send().await.expect("an answer");
            (answer.status().as_u16(), answer.text().await.expect("text"))
        })
    };
    assert_eq!(sent(&first).0, 200);
    let (status, text) = sent(&second);
    assert!(status == 503 && text.contains("1 connections, which is its limit"), "{status} {text}");
    let (status, answer) = tuned.reload(&bound(2));
    assert_eq!(status, 200, "{answer:#}");
    assert_eq!(changed(&answer, "supervision.tree.ingest.sessions.max_children")["done"], "applied");
    assert_eq!(sent(&second).0, 200, "there is room for it now");
    assert_eq!(sent(&first).0, 200, "who is in stays in");
    assert_eq!(tuned.reload(&bound(1)).0, 200);
    let (status, text) = sent(&client());
    assert!(status == 503 && text.contains("1 connections, which is its limit"), "{status} {text}");
}

#[test]
fn bounds_of_a_query_are_read_for_each() {
    let tuned = Tuned::start("[serve.query]\ndefault_limit = 2\nmax_limit = 5\n");
    for n in 0..4 {
        assert_eq!(send(&tuned.obtrace.http, None, log_with(&format!("bounded {n}"))), 200);
    }
    let count = |answer: &Value| answer["items"].as_array().map_or(0, Vec::len);
    tuned.obtrace.eventually("/api/v1/logs?q=bounded&limit=5", SOON, |answer| count(answer) == 4);
    assert_eq!(count(&tuned.obtrace.get("/api/v1/logs?q=bounded").1), 2);
    let (status, answer) = tuned.obtrace.get("/api/v1/logs?q=bounded&limit=6");
    assert!(
        status == 400 && answer["detail"].as_str().is_some_and(|d| d.contains("from 1 to 5")),
        "{answer}"
    );
    assert_eq!(tuned.reload("[serve.query]\nmax_rows_to_read = 1\n").0, 200);
    let (status, answer) = tuned.obtrace.get("/api/v1/logs?q=bounded");
    assert_eq!(status, 422, "the store stops at the bound: {answer:#}");
}

/// The paths that policies and the lint know are those of the tree that runs.
#[test]
fn the_known_paths_are_those_of_the_running_tree() {
    use obtrace::supervisors::policies::{GROUP, LANES, PATHS, REPLICATED};
    let tuned = Tuned::start("");
    let tree = tuned.obtrace.get("/admin/tree").1;
    let mut found: Vec<(String, bool)> = Vec::new();
    fn walk(node: &Value, found: &mut Vec<(String, bool)>) {
        let lanes = node["lanes"].as_array().is_some_and(|lanes| !lanes.is_empty());
        found.push((node["path"].as_str().unwrap_or_default().to_owned(), lanes));
        node["children"].as_array().into_iter().flatten().for_each(|child| walk(child, found));
    }
    walk(&tree["root"], &mut found);
    for (path, has_lane) in &found {
        let (parent, last) = path.rsplit_once('.').unwrap_or(("", path));
        let member = REPLICATED.contains(&parent) || parent == GROUP;
        let known = if member { parent } else { path };
        assert!(PATHS.contains(&known), "{path} is not in PATHS");
        assert_eq!(
            *has_lane,
            LANES.contains(&known) && (member || !REPLICATED.contains(&known)),
            "{path} {last}"
        );
    }
    // Members of a group are there only where a log is shared (`tests/flow/kafka.rs`).
    for path in PATHS.into_iter().filter(|path| *path != "stream_in.members") {
        assert!(found.iter().any(|(there, _)| there == path), "{path} is not in the tree");
    }
}

#[test]
fn a_file_that_is_gone_is_a_refusal() {
    let mut tuned = Tuned::start("[process]\nlinger = \"200ms\"\n");
    std::fs::remove_file(&tuned.file).expect("remove");
    let (status, _, body) = post(&format!("{}/admin/config/reload", tuned.obtrace.api), &[], Vec::new());
    let text = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, 422);
    assert!(text.contains("cannot be read") && text.contains(&tuned.file.display().to_string()), "{text}");
    assert!(tuned.obtrace.is_alive());
}
