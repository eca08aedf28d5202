//! A whole process over Postgres, Redis and S3, each of which goes away: data comes in all the same, limits hold, and what
//! was counted meanwhile is there afterwards.

use std::path::Path;
use std::time::{Duration, Instant};

use object_store::multipart::MultipartStore;
use serde_json::json;

use crate::support::pg::{self, Database};
use crate::support::services::Private;
use crate::support::{Obtrace, Options, block_on, bucket, post};

const WITHIN: Duration = Duration::from_secs(60);

/// A configuration with one tenant, `paced-key`, of so many requests a second.
fn config(dir: &Path, per_second: u32) -> Vec<String> {
    let hash = obtrace::config::tenant::KeyHash::of("paced-key");
    let text = format!(
        "[tenant.plans.paced]\nrequests_per_second = {per_second}\n\
         [[tenant.keys]]\nname = \"k\"\nhash = \"{hash}\"\ntenant = \"paced\"\nplan = \"paced\"\n"
    );
    let file = dir.join("plans.toml");
    std::fs::write(&file, text).expect("config");
    vec![file.to_string_lossy().into_owned()]
}

fn log_record() -> Vec<u8> {
    let time = obtrace::clock::unix_nanos().to_string();
    let record = json!({"timeUnixNano": time, "body": {"stringValue": "x"}});
    serde_json::to_vec(&json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})).expect("json")
}

fn send(obtrace: &Obtrace, key: &str) -> u16 {
    let headers = [("content-type", "application/json"), ("x-api-key", key)];
    post(&format!("{}/v1/logs", obtrace.http), &headers, log_record()).0
}

fn until(what: &str, good: impl Fn() -> bool) {
    let ends = Instant::now() + WITHIN;
    while !good() {
        assert!(Instant::now() < ends, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The state of a child of `store` in the tree.
fn state_of(obtrace: &Obtrace, path: &str) -> String {
    let (_, tree) = obtrace.get("/admin/tree");
    let children = |node: &serde_json::Value| node["children"].as_array().cloned().unwrap_or_default();
    let store = children(&tree["root"]).into_iter().find(|node| node["path"] == "store").expect("store");
    let node = children(&store).into_iter().find(|node| node["path"] == path).expect("the child");
    node["state"].as_str().expect("a state").to_owned()
}

fn options(set: &[&str], env: &[(&str, &str)], config: Vec<String>) -> Options {
    let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Options { set: set.iter().map(|set| (*set).to_owned()).collect(), config, env, ..Options::default() }
}

#[test]
fn with_postgres_away_known_keys_go_on_and_what_they_sent_is_counted_when_it_is_back() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut postgres = Private::start("postgres");
    let database = block_on(Database::fresh(&postgres.line("OBTRACE_TEST_POSTGRES")));
    let set = [
        "store.state.backend=postgres",
        "store.state.tls=off",
        "store.state.timeout=1s",
        "store.state.connect_timeout=1s",
        "store.state.check_every=300ms",
        "tenant.gate.flush_every=200ms",
        "tenant.gate.every=1s",
    ];
    let url = database.url("obtrace_app");
    let options = options(&set, &[("OBTRACE__STORE__STATE__URL", &url)], config(dir.path(), 0));
    let mut obtrace = Obtrace::start(&dir.path().join("data"), options);
    let counted = || {
        block_on(async {
            let admin = pg::connect(&database.admin_url()).await;
            let sum = "SELECT coalesce(sum(logs), 0)::bigint FROM obtrace.usage WHERE tenant = 'paced'";
            admin.query_one(sum, &[]).await.expect("a sum").get::<_, i64>(0)
        })
    };
    assert_eq!(send(&obtrace, "paced-key"), 200);
    until("it is counted in Postgres", || counted() == 1);

    postgres.kill9("postgres");
    until("the tree says so", || state_of(&obtrace, "store.state") == "degraded");
    for _ in 0..20 {
        assert_eq!(send(&obtrace, "paced-key"), 200, "a known key goes on");
    }
    assert_eq!(send(&obtrace, "some-other-key"), 401, "and nobody else");
    postgres.start_again();
    until("the tree says that it is back", || state_of(&obtrace, "store.state") != "degraded");
    until("all is counted", || counted() == 21);

    postgres.kill9("postgres");
    assert_eq!(obtrace.stop().code(), Some(0));
    obtrace.restart();
    assert_eq!(send(&obtrace, "paced-key"), 200, "it starts without Postgres too");
    postgres.start_again();
    until("what came then is counted too", || counted() == 22);
    assert_eq!(obtrace.stop().code(), Some(0));
}

#[test]
fn with_the_bucket_away_data_comes_in_and_parts_that_were_left_are_swept() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut server = Private::start("s3");
    let s3 = server.s3();
    let settings = block_on(bucket::fresh(&s3));
    let left = object_store::path::Path::from("paced/left");
    block_on(async {
        let raw = bucket::raw(&settings);
        let id = raw.create_multipart(&left).await.expect("begun");
        raw.put_part(&left, &id, 0, bytes::Bytes::from_static(b"half").into()).await.expect("a part");
    });
    let set = [
        "store.blobs.backend=s3".to_owned(),
        format!("store.blobs.endpoint={}", s3.endpoint),
        format!("store.blobs.bucket={}", settings.bucket),
        format!("store.blobs.access_key={}", s3.key),
        "store.blobs.sse=s3".to_owned(),
        "store.blobs.timeout=2s".to_owned(),
        "store.blobs.check_every=300ms".to_owned(),
        "store.blobs.sweep_every=500ms".to_owned(),
        "store.blobs.sweep_after=2s".to_owned(),
    ];
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let env = [("OBTRACE__STORE__BLOBS__SECRET_KEY", s3.secret.as_str())];
    let mut obtrace = Obtrace::start(&dir.path().join("data"), options(&set, &env, config(dir.path(), 0)));
    until("objects can be written", || state_of(&obtrace, "store.blobs") == "running");
    until("the janitor was there", || block_on(bucket::open_uploads(&settings)) == 0);

    server.kill9("weed");
    until("the tree says so", || state_of(&obtrace, "store.blobs") == "degraded");
    assert_eq!(send(&obtrace, "paced-key"), 200);
    server.start_again();
    until("it is back", || state_of(&obtrace, "store.blobs") == "running");
    assert_eq!(obtrace.stop().code(), Some(0));
}
