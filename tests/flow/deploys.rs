//! Deploy markers in a whole process: told over the API and by the command line, seen in the telemetry, read by their tenant
//! alone, there again after a kill, and the same in all processes that share a database.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::pg::Database;
use crate::support::{Obtrace, Options, block_on, post, services, until};

const WITHIN: Duration = Duration::from_secs(30);

/// Config of two tenants with one key each: `a-key` and `b-key`.
fn config(dir: &std::path::Path) -> Vec<String> {
    let key = |name: &str| {
        let hash = obtrace::config::tenant::KeyHash::of(&format!("{name}-key"));
        format!("[[tenant.keys]]\nname = \"{name}\"\nhash = \"{hash}\"\ntenant = \"{name}\"\n")
    };
    let file = dir.join("keys.toml");
    std::fs::write(&file, key("a") + &key("b")).expect("config");
    vec![file.to_string_lossy().into_owned()]
}

fn start(dir: &std::path::Path) -> Obtrace {
    let set = vec!["tenant.gate.flush_every=100ms".into()];
    Obtrace::start(&dir.join("data"), Options { set, config: config(dir), ..Options::default() })
}

fn tell(obtrace: &Obtrace, key: &str, body: &Value) -> (u16, Value) {
    let headers = [("content-type", "application/json"), ("x-api-key", key)];
    let (status, _, answer) =
        post(&format!("{}/api/v1/deploys", obtrace.api), &headers, body.to_string().into_bytes());
    (status, serde_json::from_slice(&answer).expect("json"))
}

/// Service, version and source of each marker, newest first.
fn list(obtrace: &Obtrace, key: &str, query: &str) -> Vec<[String; 3]> {
    let answer = obtrace.try_get_as(&format!("/api/v1/deploys?{query}"), Some(key));
    let (status, page) = answer.expect("an answer");
    assert_eq!(status, 200, "{page}");
    let text = |item: &Value, key: &str| item[key].as_str().expect(key).to_owned();
    let items = page["items"].as_array().expect("items");
    items.iter().map(|item| ["service", "version", "source"].map(|key| text(item, key))).collect()
}

fn marks(of: &[[&str; 3]]) -> Vec<[String; 3]> {
    of.iter().map(|mark| mark.map(str::to_owned)).collect()
}

/// Sends a log record of a version of service `cart`.
fn send(obtrace: &Obtrace, key: &str, version: &str) {
    let attribute = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let time = obtrace::clock::unix_nanos().to_string();
    let body = json!({"resourceLogs": [{
        "resource": {"attributes": [attribute("service.name", "cart"), attribute("service.version", version)]},
        "scopeLogs": [{"logRecords": [{"timeUnixNano": time, "body": {"stringValue": "hello"}}]}],
    }]});
    let headers = [("content-type", "application/json"), ("x-api-key", key)];
    let (status, ..) = post(&format!("{}/v1/logs", obtrace.http), &headers, body.to_string().into_bytes());
    assert_eq!(status, 200);
}

#[test]
fn a_deploy_that_was_told_is_there_once_for_its_tenant_and_after_a_kill() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut obtrace = start(dir.path());
    let now_ms = obtrace::clock::unix_nanos() / 1_000_000;
    let first = json!({"service": "cart", "version": "1.4.2", "at": now_ms - 60_000, "by": "ann"});
    let (status, marker) = tell(&obtrace, "a-key", &first);
    assert_eq!((status, &marker["by"]), (201, &json!("ann (key a)")), "{marker}");
    assert_eq!(tell(&obtrace, "a-key", &first).0, 200, "the same again");
    assert_eq!(tell(&obtrace, "b-key", &json!({"service": "pay", "version": "9"})).0, 201);
    assert_eq!(tell(&obtrace, "no-key", &first).0, 401);
    let (status, problem) =
        tell(&obtrace, "a-key", &json!({"service": "cart", "version": "1", "at": "soon"}));
    assert_eq!((status, &problem["parameter"]), (400, &json!("at")), "{problem}");

    let cli = |words: &[&str]| Obtrace::run(&[&["deploy"], words, &["--api", &obtrace.api]].concat(), WITHIN);
    let (status, said) = cli(&["cart", "1.4.3", "--at", "now-30s", "--by", "ci #7", "--key", "a-key"]);
    assert!(status.success() && said.contains("told by ci #7 (key a)"), "{said}");
    assert!(!cli(&["cart", "1.4.4", "--key", "wrong"]).0.success());
    let (status, said) = cli(&["shell", "1", "--json"]);
    let marker: Value = serde_json::from_str(&said).expect("json");
    assert!(status.success() && marker["by"] == "this machine", "{said}");

    obtrace.kill9();
    obtrace.restart();
    let told = |version| ["cart", version, "told"];
    assert_eq!(list(&obtrace, "a-key", ""), marks(&[told("1.4.3"), told("1.4.2")]));
    assert_eq!(list(&obtrace, "b-key", ""), marks(&[["pay", "9", "told"]]));
    assert_eq!(list(&obtrace, "a-key", "service=pay"), marks(&[]));
    assert_eq!(list(&obtrace, "a-key", "start=now-2m&end=now-45s"), marks(&[told("1.4.2")]));
    let (_, page) = obtrace.try_get_as("/api/v1/deploys?limit=1", Some("a-key")).expect("an answer");
    let cursor = page["next_cursor"].as_str().expect("another page");
    assert_eq!(list(&obtrace, "a-key", &format!("limit=1&cursor={cursor}")), marks(&[told("1.4.2")]));
    assert_eq!(obtrace.stop().code(), Some(0));
}

#[test]
fn a_change_of_the_version_in_the_telemetry_is_one_marker() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut obtrace = start(dir.path());
    send(&obtrace, "a-key", "1.0");
    send(&obtrace, "b-key", "7.0");
    std::thread::sleep(Duration::from_millis(20));
    send(&obtrace, "a-key", "1.1");
    let change = marks(&[["cart", "1.1", "seen"]]);
    until(WITHIN, "the change is a marker", || list(&obtrace, "a-key", "") == change);
    assert_eq!(list(&obtrace, "b-key", ""), marks(&[]), "the first version of a service is no change");
    let (_, page) = obtrace.try_get_as("/api/v1/deploys", Some("a-key")).expect("an answer");
    let at = page["items"][0]["time"].clone();
    // A process that remembers nothing sees both again, and then a third one.
    assert_eq!(obtrace.stop().code(), Some(0));
    obtrace.restart();
    for version in ["1.1", "1.0", "1.2"] {
        send(&obtrace, "a-key", version);
    }
    until(WITHIN, "the third is there", || list(&obtrace, "a-key", "").len() > 1);
    assert_eq!(list(&obtrace, "a-key", ""), marks(&[["cart", "1.2", "seen"], ["cart", "1.1", "seen"]]));
    let (_, page) = obtrace.try_get_as("/api/v1/deploys?service=cart", Some("a-key")).expect("an answer");
    assert_eq!((&page["items"][1]["time"], &page["items"][1]["by"]), (&at, &Value::Null), "{page}");
    assert_eq!(obtrace.stop().code(), Some(0));
}

#[test]
fn processes_that_share_a_database_make_one_marker_of_a_change() {
    let dir = tempfile::tempdir().expect("tempdir");
    let database = block_on(Database::fresh(&services::postgres()));
    let set = ["store.state.backend=postgres", "store.state.tls=off", "tenant.gate.flush_every=100ms"];
    let url = database.url("obtrace_app");
    let options = Options {
        set: set.map(str::to_owned).to_vec(),
        config: config(dir.path()),
        env: vec![("OBTRACE__STORE__STATE__URL".to_owned(), url)],
        ..Options::default()
    };
    let [mut one, mut two] =
        ["one", "two"].map(|name| Obtrace::start(&dir.path().join(name), options.clone()));
    send(&one, "a-key", "1.0");
    std::thread::sleep(Duration::from_millis(500));
    for version in ["1.1", "1.0"] {
        send(&one, "a-key", version);
        send(&two, "a-key", version);
    }
    let told =
        json!({"service": "pay", "version": "2", "at": obtrace::clock::unix_nanos() / 1_000_000 - 9_000});
    assert_eq!((tell(&one, "a-key", &told).0, tell(&two, "a-key", &told).0), (201, 200));
    let both = marks(&[["cart", "1.1", "seen"], ["pay", "2", "told"]]);
    until(WITHIN, "the change is a marker", || list(&one, "a-key", "") == both);
    // What the other one saw is written down by then.
    assert_eq!(two.stop().code(), Some(0));
    assert_eq!(list(&one, "a-key", ""), both);
    assert_eq!(list(&one, "b-key", ""), marks(&[]));
    two.restart();
    assert_eq!(list(&two, "a-key", ""), both);
    for process in [&mut one, &mut two] {
        assert_eq!(process.stop().code(), Some(0));
    }
}
