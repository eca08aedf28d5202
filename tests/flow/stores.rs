//! A whole process over Postgres, Redis and S3, each of which goes away: data comes in all the same, limits hold, and what
//! was counted meanwhile is there afterwards.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use object_store::multipart::MultipartStore;
use serde_json::json;

use crate::support::pg::{self, Database};
use crate::support::proxy::{Mode, Proxy};
use crate::support::services::Private;
use crate::support::{Obtrace, Options, block_on, bucket, post, until};

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
    until(WITHIN, "it is counted in Postgres", || counted() == 1);

    postgres.kill9("postgres");
    until(WITHIN, "the tree says so", || state_of(&obtrace, "store.state") == "degraded");
    for _ in 0..20 {
        assert_eq!(send(&obtrace, "paced-key"), 200, "a known key goes on");
    }
    assert_eq!(send(&obtrace, "some-other-key"), 401, "and nobody else");
    postgres.start_again();
    until(WITHIN, "the tree says that it is back", || state_of(&obtrace, "store.state") != "degraded");
    until(WITHIN, "all is counted", || counted() == 21);

    postgres.kill9("postgres");
    assert_eq!(obtrace.stop().code(), Some(0));
    obtrace.restart();
    assert_eq!(send(&obtrace, "paced-key"), 200, "it starts without Postgres too");
    postgres.start_again();
    until(WITHIN, "what came then is counted too", || counted() == 22);
    assert_eq!(obtrace.stop().code(), Some(0));
}

/// What came of requests that were sent as fast as the pace of a sender allows.
#[derive(Default)]
struct Sent {
    admitted: AtomicUsize,
    refused: AtomicUsize,
    slow: parking_lot::Mutex<Vec<Duration>>,
}

/// Sends to one edge until told to stop, some hundred requests a second.
fn sender(url: String, sent: Arc<Sent>, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        block_on(async {
            let client = reqwest::Client::new();
            while !stop.load(Ordering::SeqCst) {
                let request = client.post(&url).header("content-type", "application/json");
                let begun = Instant::now();
                let answer = request.header("x-api-key", "paced-key").body(log_record()).send().await;
                match answer.expect("an answer").status().as_u16() {
                    200 => {
                        sent.admitted.fetch_add(1, Ordering::SeqCst);
                        sent.slow.lock().push(begun.elapsed());
                    }
                    429 => drop(sent.refused.fetch_add(1, Ordering::SeqCst)),
                    other => panic!("status {other}"),
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        });
    })
}

impl Sent {
    /// Admitted so far, and the 95th percentile of the times of those since the last call.
    fn cut(&self) -> (usize, Duration) {
        let mut times = std::mem::take(&mut *self.slow.lock());
        times.sort();
        let p95 = times.get(times.len() * 95 / 100).copied().unwrap_or_default();
        (self.admitted.load(Ordering::SeqCst), p95)
    }
}

/// The plan of the tenant, as an edge knows it.
fn plan_at(obtrace: &Obtrace) -> String {
    let url = format!("{}/api/v1/gate", obtrace.api);
    block_on(async {
        let answer = reqwest::Client::new().get(url).header("x-api-key", "paced-key").send().await;
        let answer: serde_json::Value = answer.expect("an answer").json().await.expect("json");
        answer["plan"].as_str().unwrap_or_default().to_owned()
    })
}

fn fail_open(obtrace: &Obtrace) -> f64 {
    let (_, page) = obtrace.get("/metrics");
    let lines = page.as_str().unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    let counts = lines.iter().filter(|line| line.starts_with("obtrace_gate_fail_open"));
    counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[test]
fn a_plan_is_known_and_held_where_redis_is_slower_than_a_request_may_wait() {
    const RATE: u32 = 1;
    let dir = tempfile::tempdir().expect("tempdir");
    let redis = Private::start("redis");
    let url = redis.line("OBTRACE_TEST_REDIS");
    let proxy = Proxy::start(url.trim_start_matches("redis://"));
    // Ten times what a request waits, before anything is known.
    proxy.set(Mode::Latency(Duration::from_millis(25)));
    let through = proxy.in_front_of(&url);
    let set = ["store.cache.backend=redis", "telemetry.engine.memory_limit=512MiB"];
    let env = [("OBTRACE__STORE__CACHE__URL", through.as_str())];
    let edge = Obtrace::start(&dir.path().join("data"), options(&set, &env, config(dir.path(), RATE)));
    until(WITHIN, "the plan is known to requests", || send(&edge, "paced-key") == 429);
    assert_eq!(plan_at(&edge), "paced");
}

#[test]
fn with_redis_frozen_or_slow_two_edges_hold_the_rate_but_for_a_lease_each_and_nobody_waits() {
    const RATE: usize = 40;
    let dir = tempfile::tempdir().expect("tempdir");
    let redis = Private::start("redis");
    let url = redis.line("OBTRACE_TEST_REDIS");
    let proxy = Proxy::start(url.trim_start_matches("redis://"));
    let set = [
        "store.cache.backend=redis",
        "tenant.gate.every=500ms",
        "tenant.gate.stale_after=1500ms",
        "tenant.gate.lease=250ms",
        "telemetry.engine.memory_limit=512MiB",
    ];
    let through = proxy.in_front_of(&url);
    let edges = ["a", "b"].map(|name| {
        let options =
            options(&set, &[("OBTRACE__STORE__CACHE__URL", &through)], config(dir.path(), RATE as u32));
        Obtrace::start(&dir.path().join(name), options)
    });
    // Who has never reached the cache knows no plan and lets everything in.
    for edge in &edges {
        until(WITHIN, "the plan is known", || plan_at(edge) == "paced");
    }
    let (sent, stop) = (Arc::new(Sent::default()), Arc::new(AtomicBool::new(false)));
    let begun = Instant::now();
    let senders =
        edges.each_ref().map(|edge| sender(format!("{}/v1/logs", edge.http), sent.clone(), stop.clone()));
    let phase = |seconds: u64| {
        std::thread::sleep(Duration::from_secs(seconds));
        sent.cut()
    };
    phase(1);
    let (there, p95_there) = phase(4);
    redis.freeze("redis");
    let (frozen, p95_frozen) = phase(5);
    let counted = edges.iter().map(fail_open).sum::<f64>();
    redis.thaw("redis");
    let (back, _) = phase(3);
    proxy.set(Mode::Latency(Duration::from_secs(1)));
    let (slow, p95_slow) = phase(5);
    proxy.set(Mode::Pass);
    let (last, _) = phase(3);
    stop.store(true, Ordering::SeqCst);
    senders.into_iter().for_each(|sender| sender.join().expect("a sender"));
    let by_rate = (begun.elapsed().as_secs_f64() * RATE as f64) as usize;
    let lease = RATE / 4;
    println!(
        "admitted {last} of {by_rate} by the rate; refused {}; while frozen {}, while slow {}; p95 there {p95_there:?}, \
         frozen {p95_frozen:?}, slow {p95_slow:?}; let in for want of knowledge {counted}; by phases \
         {there} {frozen} {back} {slow} {last}",
        sent.refused.load(Ordering::SeqCst),
        frozen - there,
        slow - back,
    );
    // A second's burst, and for each of the two outages a lease on each edge.
    assert!(last <= by_rate + RATE + 4 * lease, "{last} of {by_rate}");
    for (name, admitted) in [("frozen", frozen - there), ("slow", slow - back)] {
        assert!(admitted >= 5 * RATE * 7 / 10, "{name}: the rate goes on: {admitted}");
    }
    assert!(counted > 0.0, "that nothing fresh is known is counted");
    for p95 in [p95_frozen, p95_slow] {
        assert!(p95 < p95_there + Duration::from_millis(20), "{p95:?} after {p95_there:?}");
    }
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
    until(WITHIN, "objects can be written", || state_of(&obtrace, "store.blobs") == "running");
    until(WITHIN, "the janitor was there", || block_on(bucket::open_uploads(&settings)) == 0);

    server.kill9("weed");
    until(WITHIN, "the tree says so", || state_of(&obtrace, "store.blobs") == "degraded");
    assert_eq!(send(&obtrace, "paced-key"), 200);
    server.start_again();
    until(WITHIN, "it is back", || state_of(&obtrace, "store.blobs") == "running");
    assert_eq!(obtrace.stop().code(), Some(0));
}

#[test]
fn processes_that_share_redis_sweep_each_its_own_folder() {
    let dir = tempfile::tempdir().expect("tempdir");
    let redis = Private::start("redis");
    let env = [("OBTRACE__STORE__CACHE__URL", redis.line("OBTRACE_TEST_REDIS"))];
    let env = env.each_ref().map(|(key, url)| (*key, url.as_str()));
    let set = ["store.cache.backend=redis", "telemetry.engine.memory_limit=512MiB"];
    let mut edges = ["a", "b"].map(|name| {
        let data = dir.path().join(name);
        let left = data.join("blobs/paced/x#1");
        std::fs::create_dir_all(left.parent().expect("a folder")).expect("folder");
        let file = std::fs::File::create(&left).expect("a file");
        file.set_modified(std::time::UNIX_EPOCH).expect("its time");
        (Obtrace::start(&data, options(&set, &env, config(dir.path(), 0))), left)
    });
    for (_, left) in &edges {
        until(WITHIN, "what a write had left is removed", || !left.exists());
    }
    for (edge, _) in &mut edges {
        assert_eq!(edge.stop().code(), Some(0));
    }
}
