//! Whole processes over real brokers: what is acknowledged is stored once, whatever joins, leaves, is killed or is away.
//!
//! The processes share an engine as their telemetry store and a prefix at the brokers. One load generator runs all the
//! time, sends each batch again until it is accepted, and asks the API for every record in the end.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::services::{self, Private};
use crate::support::store::Store;
use crate::support::{Obtrace, Options, binary, post, until, wait};

pub(crate) const WITHIN: Duration = Duration::from_secs(60);
/// What takes in and answers; the workers come and go.
pub(crate) const FRONT: &str = "roles=ingest-edge,query-gateway";
pub(crate) const WORKER: &str = "roles=worker-otlp";

/// What the processes of a test share.
pub(crate) struct Site {
    dir: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) brokers: String,
    pub(crate) prefix: String,
}

impl Site {
    pub(crate) fn at(brokers: String) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::start(&dir.path().join("store"));
        let prefix = format!("f{:x}.{number}.", obtrace::clock::unix_nanos() / 1000);
        Self { dir, store, brokers, prefix }
    }

    fn options(&self, more: &[&str]) -> Options {
        let mut options = self.store.options(more);
        let own = [
            "stream.backend=kafka".to_owned(),
            format!("stream.kafka.brokers={}", self.brokers),
            format!("stream.kafka.prefix={}", self.prefix),
            "stream.kafka.session_timeout=3s".to_owned(),
            "stream.partitions=4".to_owned(),
            "process.linger=100ms".to_owned(),
        ];
        // What a test says of its own goes last, and holds.
        options.set.splice(0..0, own);
        options
    }

    pub(crate) fn start(&self, name: &str, more: &[&str]) -> Obtrace {
        Obtrace::start(&self.dir.path().join(name), self.options(more))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn load(obtrace: &Obtrace, journal: &Path, seconds: u64, rate: u64) -> Child {
    Command::new(binary())
        .args(["load", "--endpoint", &obtrace.grpc, "--protocol", "grpc", "--signal", "mixed"])
        .args(["--rate", &rate.to_string(), "--duration", &format!("{seconds}s"), "--batch", "100"])
        .args(["--connections", "2", "--drain-timeout", "60s", "--journal"])
        .arg(journal)
        .args(["--verify", "--api", &obtrace.api, "--verify-timeout", "120s"])
        .stdin(Stdio::null())
        .spawn()
        .expect("spawn load")
}

fn nothing_lost_or_doubled(mut load: Child) {
    let status = wait(&mut load, Duration::from_secs(300)).expect("the load generator ends");
    assert!(status.success(), "the load generator found records missing or doubled: {status}");
}

/// The node at `path` of the tree.
fn node(of: &Obtrace, path: &str) -> Value {
    fn find(node: &Value, path: &str) -> Option<Value> {
        if node["path"] == path {
            return Some(node.clone());
        }
        node["children"].as_array()?.iter().find_map(|child| find(child, path))
    }
    let (_, tree) = of.get("/admin/tree");
    find(&tree["root"], path).unwrap_or_else(|| panic!("no {path} in {tree:#}"))
}

fn consumers(of: &Obtrace) -> usize {
    node(of, "stream_in.consumers")["children"].as_array().map_or(0, Vec::len)
}

fn send_log(to: &Obtrace, body: &str) -> u16 {
    let time = obtrace::clock::unix_nanos().to_string();
    let record = json!({"timeUnixNano": time, "body": {"stringValue": body}});
    let logs = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]});
    let url = format!("{}/v1/logs", to.http);
    post(&url, &[("content-type", "application/json")], serde_json::to_vec(&logs).expect("json")).0
}

#[test]
fn what_comes_in_goes_over_the_brokers_and_is_found() {
    let dir = tempfile::tempdir().expect("tempdir");
    let set = [
        "stream.backend=kafka".to_owned(),
        format!("stream.kafka.brokers={}", services::kafka()),
        format!("stream.kafka.prefix=s{:x}.", obtrace::clock::unix_nanos() / 1000),
    ];
    let options = Options { set: set.into(), ..Options::default() };
    let mut obtrace = Obtrace::start(&dir.path().join("data"), options);
    until(WITHIN, "all partitions are read", || consumers(&obtrace) == 12);
    nothing_lost_or_doubled(load(&obtrace, &dir.path().join("journal"), 5, 2000));
    assert!(!dir.path().join("data/log").exists(), "no log in the data folder");
    let (_, metrics) = obtrace.get("/metrics");
    let metrics = metrics.as_str().expect("text").to_owned();
    for line in [
        "obtrace_child_gauge{path=\"stream_in.consumers.traces-0\",name=\"lag\"}",
        "obtrace_child_gauge{path=\"broker_out.retention\",name=\"queued_bytes\"}",
        "obtrace_child_gauge{path=\"broker_out.retention\",name=\"rebalances\"}",
        "obtrace_child_gauge{path=\"stream_in.members\",name=\"partitions\"} 12",
    ] {
        assert!(metrics.contains(line), "{line} is in\n{metrics}");
    }
    // It starts again where it was.
    assert_eq!(obtrace.stop().code(), Some(0));
    obtrace.restart();
    assert_eq!(send_log(&obtrace, "after the restart"), 200);
    let found = |answer: &Value| answer["items"][0]["body"] == "after the restart";
    obtrace.eventually("/api/v1/logs?q=restart", WITHIN, found);
    assert_eq!(obtrace.stop().code(), Some(0));
}

#[test]
fn migrate_makes_the_topics_that_a_process_does_not_make_itself() {
    let dir = tempfile::tempdir().expect("tempdir");
    let data = dir.path().to_str().expect("utf-8").to_owned();
    let sets = [
        "stream.backend=kafka".to_owned(),
        format!("stream.kafka.brokers={}", services::kafka()),
        format!("stream.kafka.prefix=m{:x}.", obtrace::clock::unix_nanos() / 1000),
        "stream.kafka.create_topics=false".to_owned(),
    ];
    let migrate = |more: &[&str]| {
        let mut args = vec!["migrate", "--data-dir", &data];
        sets.iter().for_each(|set| args.extend(["--set", set]));
        args.extend(more);
        let (status, text) = Obtrace::run(&args, WITHIN);
        (status.code(), text)
    };
    let (code, text) = migrate(&["--plan"]);
    assert_eq!((code, text.matches("make topic").count()), (Some(1), 7), "{text}");
    let (code, text) = migrate(&[]);
    assert_eq!((code, text.matches("make topic").count()), (Some(0), 7), "{text}");
    let (code, text) = migrate(&["--plan"]);
    assert_eq!((code, text.matches("make topic").count()), (Some(0), 0), "{text}");
}

#[test]
fn three_edges_write_three_formats_into_one_topic() {
    let site = Site::at(services::kafka());
    let mut whole = site.start("whole", &["ingest.wire_format=json"]);
    let mut others = ["otlp", "avro"].map(|format| {
        let written_in = format!("ingest.wire_format={format}");
        site.start(format, &["roles=ingest-edge", &written_in])
    });
    let load_of = |edge: &Obtrace, name: &str| {
        Command::new(binary())
            .args(["load", "--endpoint", &edge.grpc, "--protocol", "grpc", "--signal", "mixed"])
            .args(["--rate", "600", "--duration", "4s", "--batch", "50", "--journal"])
            .arg(site.path(name))
            .args(["--verify", "--api", &whole.api, "--verify-timeout", "60s"])
            .stdin(Stdio::null())
            .spawn()
            .expect("spawn load")
    };
    let loads = [
        load_of(&whole, "journal-json"),
        load_of(&others[0], "journal-otlp"),
        load_of(&others[1], "journal-avro"),
    ];
    loads.into_iter().for_each(nothing_lost_or_doubled);
    for process in others.iter_mut().chain([&mut whole]) {
        assert_eq!(process.stop().code(), Some(0));
    }
}

#[test]
fn it_starts_without_brokers_and_works_when_they_come() {
    let mut broker = Private::start("kafka");
    let site = Site::at(broker.line("OBTRACE_TEST_KAFKA"));
    broker.kill9("broker");
    let mut obtrace = site.start("whole", &["ingest.ack_timeout=2s", "stream.kafka.delivery_timeout=2s"]);
    until(WITHIN, "it shows what is missing", || {
        node(&obtrace, "broker_out.retention")["state"] == "degraded"
    });
    assert_eq!(send_log(&obtrace, "too early"), 503);
    assert!(obtrace.is_alive());
    broker.start_again();
    until(WITHIN, "it takes data in", || send_log(&obtrace, "in time") == 200);
    let found = |answer: &Value| answer["items"].as_array().is_some_and(|items| !items.is_empty());
    obtrace.eventually("/api/v1/logs?q=time", WITHIN, found);
    until(WITHIN, "all is well again", || node(&obtrace, "broker_out.retention")["state"] == "running");
    assert_eq!(obtrace.stop().code(), Some(0));
}

#[test]
fn workers_that_come_and_go_lose_and_double_nothing() {
    let site = Site::at(services::kafka());
    let mut front = site.start("front", &[FRONT]);
    let mut stays = site.start("stays", &[WORKER]);
    until(WITHIN, "the one worker has all partitions", || consumers(&stays) == 18);
    let load = load(&front, &site.path("journal"), 40, 1500);
    let mut goes = site.start("goes", &[WORKER]);
    for round in 0..6 {
        until(WITHIN, "the partitions are shared", || {
            let (here, there) = (consumers(&stays), consumers(&goes));
            here > 0 && there > 0 && here + there == 18
        });
        sleep(Duration::from_millis(500 + round * 331 % 900));
        match round % 2 {
            0 => assert_eq!(goes.stop().code(), Some(0)),
            _ => goes.kill9(),
        }
        goes.restart();
    }
    nothing_lost_or_doubled(load);
    for process in [&mut goes, &mut stays, &mut front] {
        assert_eq!(process.stop().code(), Some(0));
    }
}

/// Needs the feature `chaos`, which `make test` builds with.
#[cfg(feature = "chaos")]
#[test]
fn a_worker_killed_between_insert_and_commit_doubles_nothing() {
    let site = Site::at(services::kafka());
    let mut front = site.start("front", &[FRONT]);
    let mut options = site.options(&[WORKER, "supervision.watchdog.condemn_after=1m"]);
    options.env.push(("OBTRACE_CHAOS".into(), "consumer.before_commit=stall@9*1".into()));
    let said = site.path("killed.stderr");
    options.stderr = Some(said.clone());
    let mut killed = Obtrace::start(&site.path("killed"), options);
    until(WITHIN, "it has all partitions", || consumers(&killed) == 18);
    let load = load(&front, &site.path("journal"), 10, 1500);
    // From then on its thread stands still, with a block stored and not committed.
    until(WITHIN, "it stands between insert and commit", || {
        std::fs::read_to_string(&said)
            .is_ok_and(|text| text.contains("planted stall at consumer.before_commit"))
    });
    killed.kill9();
    let mut next = site.start("next", &[WORKER]);
    nothing_lost_or_doubled(load);
    for process in [&mut next, &mut front] {
        assert_eq!(process.stop().code(), Some(0));
    }
}

#[test]
fn a_broker_that_is_killed_and_comes_back_loses_and_doubles_nothing() {
    let mut broker = Private::start("kafka");
    let site = Site::at(broker.line("OBTRACE_TEST_KAFKA"));
    let mut front = site.start("front", &[FRONT]);
    let mut worker = site.start("worker", &[WORKER]);
    until(WITHIN, "it has all partitions", || consumers(&worker) == 18);
    let load = load(&front, &site.path("journal"), 25, 1500);
    for _ in 0..2 {
        sleep(Duration::from_secs(4));
        broker.kill9("broker");
        sleep(Duration::from_secs(2));
        broker.start_again();
    }
    nothing_lost_or_doubled(load);
    for process in [&mut worker, &mut front] {
        assert_eq!(process.stop().code(), Some(0));
    }
}
