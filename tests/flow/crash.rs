//! What was acknowledged is stored, once: under kill -9 of the process, of its engine, of both, and under panics.
//!
//! One load generator runs all the time; it sends each batch again, byte for byte, until it is accepted, and in the end
//! asks the API for every record. `OBTRACE_CHAOS_ROUNDS` sets the number of kills (20 here, 100 by `make chaos`).

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::support::{Obtrace, Options, binary, wait};

/// Load on `obtrace` in the background: `seconds` at `rate` records a second.
fn load(obtrace: &Obtrace, journal: &Path, signal: &str, seconds: u64, rate: u64) -> Child {
    Command::new(binary())
        .args(["load", "--endpoint", &obtrace.grpc, "--protocol", "grpc", "--signal", signal])
        .args(["--rate", &rate.to_string(), "--duration", &format!("{seconds}s"), "--batch", "100"])
        .args(["--connections", "2", "--journal"])
        .arg(journal)
        .args(["--verify", "--api", &obtrace.api, "--verify-timeout", "90s"])
        .stdin(Stdio::null())
        .spawn()
        .expect("spawn load")
}

fn rounds() -> u64 {
    std::env::var("OBTRACE_CHAOS_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20)
}

#[test]
fn acknowledged_is_stored_once_under_kill_9() {
    let dir = tempfile::tempdir().expect("tempdir");
    let rounds = rounds();
    let mut obtrace = Obtrace::start(&dir.path().join("data"), Options::default());
    let mut load = load(&obtrace, &dir.path().join("journal"), "mixed", rounds * 3 + 5, 3000);
    for round in 0..rounds {
        // A different moment of the block cycle each time, the same in every run.
        sleep(Duration::from_millis(700 + round * 137 % 900));
        match round % 3 {
            0 => obtrace.kill9(),
            1 => {
                obtrace.kill9_engine();
                continue;
            }
            _ => {
                obtrace.kill9_engine();
                obtrace.kill9();
            }
        }
        obtrace.restart();
    }
    let status = wait(&mut load, Duration::from_secs(rounds * 3 + 240)).expect("the load generator ends");
    assert!(status.success(), "the load generator found records missing or doubled: {status}");
    assert_eq!(obtrace.stop().code(), Some(0));
}

/// Needs the feature `chaos`, which `make test` builds with.
#[cfg(feature = "chaos")]
#[test]
fn acknowledged_is_stored_once_under_panics() {
    let dir = tempfile::tempdir().expect("tempdir");
    let plan = "receiver.before=panic@61,receiver.after=panic@97,producer.before=panic@71,producer.after=panic@103,\
                consumer.after_intent=panic@11*6,consumer.before_commit=panic@13*6,worker.before=panic@17*6,\
                worker.after=panic@19*6,writer.before=panic@23*6,writer.after=panic@29*6,query.before=panic@7*2";
    // What is asked here is that nothing is lost, not where the limit of restarts is.
    let set = ["supervision.defaults.intensity=1000", "supervision.defaults.backoff.max=200ms"];
    let options = Options {
        set: set.map(String::from).to_vec(),
        env: vec![("OBTRACE_CHAOS".into(), plan.into())],
        ..Options::default()
    };
    let mut obtrace = Obtrace::start(&dir.path().join("data"), options);
    let mut load = load(&obtrace, &dir.path().join("journal"), "mixed", 20, 3000);
    let status = wait(&mut load, Duration::from_secs(300)).expect("the load generator ends");
    assert!(status.success(), "the load generator found records missing or doubled: {status}");
    let (_, tree) = obtrace.get("/admin/tree");
    for path in
        ["ingest.receiver", "broker_out.producer", "stream_in.consumers", "process.otlp", "store.writer"]
    {
        assert!(restarts(&tree["root"], path) > 0, "no fault was planted below {path}: {tree:#}");
    }
    assert_eq!(obtrace.stop().code(), Some(0));
}

/// Restarts of the node at `path` and of all below it.
#[cfg(feature = "chaos")]
fn restarts(node: &serde_json::Value, path: &str) -> u64 {
    let own = node["path"].as_str().unwrap_or_default();
    let inside = own == path || own.starts_with(&format!("{path}."));
    let below: u64 =
        node["children"].as_array().into_iter().flatten().map(|child| restarts(child, path)).sum();
    below + if inside { node["restarts"].as_u64().unwrap_or(0) } else { 0 }
}
