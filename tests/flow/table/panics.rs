//! Rows of panics: once in each place, always, and over a record that is poison.

use std::time::Duration;

use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use serde_json::Value;

use super::hangs::WATCHDOG;
use crate::field::{Field, SOON, row};
use crate::support::Options;
use crate::support::invariants::{Crash, Expect};
use crate::support::load::Plan;

pub(super) fn planted(plan: &str, set: &[&str]) -> Options {
    Options {
        set: set.iter().map(ToString::to_string).collect(),
        env: vec![("OBTRACE_CHAOS".into(), plan.to_owned())],
        ..Options::default()
    }
}

#[test]
fn panic_once() {
    row("table::panics::panic_once", |chance, after| {
        let mut kinds = [
            ("receiver", "ingest.receiver.2"),
            ("producer", "broker_out.producer"),
            ("worker", "process.otlp.1"),
            ("writer", "store.writer.1"),
        ];
        kinds.shuffle(chance);
        // Launches are counted: who is restarted by order must not be among those that crash at their work before.
        let [(one, _), (other, _), (_, third), (_, fourth)] = kinds;
        let mut paths = [third, fourth, "tenant.key_cache"];
        paths.shuffle(chance);
        let [factory, started, stopped] = paths;
        let (first, second) = (chance.random_range(2..12), chance.random_range(2..12));
        let plan = format!(
            "{one}.before=panic@{first}*1,{other}.after=panic@{second}*1,\
             {factory}.factory=panic@2*1,{started}.started=panic@2*1,{stopped}.stopped=panic@1*1",
        );
        let mut field = Field::new(planted(&plan, &["supervision.defaults.intensity=20"]));
        let load = field.load(&Plan::mixed(600, 6));
        field.until(&format!("{after}: both actors crashed ({plan})"), SOON, |seen| {
            let crashed = |event: &Value| event["event"] == "exited" && event["reason"] == "panicked";
            seen.sum(|life| life.events.values().filter(|event| crashed(event)).count() as u64) == 2
        });
        field.sight(&load);
        for path in [factory, started, stopped] {
            // Its second launch fails, or the end of its first; the one after that is good.
            field.becomes(path, "running", after);
            field.obtrace.order(path, "restart");
            field.until(&format!("{after}: {path} fell"), SOON, |seen| fell(seen, path));
            field.becomes(path, "running", after);
        }
        let expect = Expect {
            crash: |crash| crash.detail.contains("planted fault at"),
            crashes: 5..=5,
            ..Expect::default()
        };
        let outcome = field.verify(load, &expect, after);
        let life = outcome.seen.life(1);
        assert_eq!(life.forced, 0, "{after}: nobody had to be aborted");
        for crash in &outcome.crashes {
            let next = life.events.values().find(|event| {
                event["event"] == "launched"
                    && event["path"] == *crash.path
                    && event["generation"].as_u64() > Some(crash.generation)
            });
            let next = next.and_then(|event| event["generation"].as_u64());
            assert_eq!(next, Some(crash.generation + 1), "{after}: the next generation of {}", crash.path);
        }
        let place = |point: &str| outcome.crashes.iter().filter(|crash| crash.detail.contains(point)).count();
        for point in [".before", ".after", ".factory", ".started", ".stopped"] {
            assert_eq!(place(point), 1, "{after}: {:#?}", outcome.crashes);
        }
    });
}

/// Whether a step in the life of the node at `path` has panicked.
fn fell(seen: &crate::support::watch::Seen, path: &str) -> bool {
    let steps = [".factory", ".started", ".stopped"].map(|step| format!("planted fault at {path}{step}"));
    let is = |event: &Value| {
        let detail = event["detail"].as_str().unwrap_or_default();
        event["path"] == path && steps.iter().any(|step| detail.contains(step))
    };
    seen.lives.values().flat_map(|life| life.events.values()).any(is)
}

/// Panics in every stage, again and again; what is asked is that nothing is lost, not where the limit of restarts is.
#[test]
fn panics_everywhere() {
    row("table::panics::panics_everywhere", |chance, after| {
        let mut every = |name: &str, often: std::ops::Range<u32>, most: &str| {
            format!("{name}=panic@{}{most}", chance.random_range(often))
        };
        let edge = ["receiver.before", "receiver.after", "producer.before", "producer.after"];
        let blocks = ["consumer.after_intent", "consumer.before_commit", "worker.before", "worker.after"];
        let writers = ["writer.before", "writer.after"];
        let mut plan: Vec<String> = edge.iter().map(|name| every(name, 40..90, "")).collect();
        plan.extend(blocks.iter().chain(&writers).map(|name| every(name, 7..20, "*4")));
        let set = ["supervision.defaults.intensity=1000", "supervision.defaults.backoff.max=200ms"];
        let mut field = Field::new(planted(&plan.join(","), &set));
        let load = field.load(&Plan::mixed(1500, 8));
        std::thread::sleep(Duration::from_secs(4));
        field.sight(&load);
        let expect = Expect {
            crash: |crash| crash.detail.contains("planted fault at"),
            crashes: 10..=300,
            ..Expect::default()
        };
        let outcome = field.verify(load, &expect, after);
        for stage in
            ["ingest.receiver", "broker_out.producer", "stream_in.consumers", "process.otlp", "store.writer"]
        {
            let below = outcome.crashes.iter().filter(|crash| crash.path.starts_with(stage)).count();
            assert!(below > 0, "{after}: no fault was planted below {stage}: {plan:?}");
        }
    });
}

#[test]
fn panic_always() {
    row("table::panics::panic_always", |chance, after| {
        let point = ["worker.before", "worker.after", "process.otlp.1.factory", "process.otlp.1.started"];
        let point = point[chance.random_range(0..point.len())];
        let holder = tempfile::tempdir().expect("tempdir");
        let active = holder.path().join("active");
        let mut options = planted(
            &format!("{point}=panic@1"),
            &[
                "supervision.on_root_limit=halt",
                "supervision.defaults.intensity=1",
                "supervision.tree.intensity=1",
                "supervision.defaults.backoff.min=100ms",
                "supervision.defaults.backoff.max=400ms",
            ],
        );
        options.env.push(("OBTRACE_CHAOS_WHILE".into(), active.display().to_string()));
        let mut field = Field::new(options);
        let load = field.load(&Plan::mixed(400, 6));
        std::thread::sleep(Duration::from_millis(chance.random_range(800..1500)));
        field.sight(&load);
        std::fs::write(&active, "").expect("the faults begin");
        if point.starts_with("process") {
            field.obtrace.order("process.otlp.1", "restart");
        }
        let over = |seen: &crate::support::watch::Seen| {
            seen.life(1).events.values().any(|event| event["path"] == "" && event["event"] == "exited")
        };
        field.until(&format!("{after}: the root gives up over {point}"), SOON, over);
        let seen = field.watch.seen();
        let life = seen.life(1);
        // Along the exact path, each step after the one below it.
        let at = |path: &str, kind: &str| {
            let found =
                life.events.iter().rev().find(|(_, event)| event["path"] == path && event["event"] == kind);
            *found.unwrap_or_else(|| panic!("{after}: no {kind} of {path}: {:#?}", life.events)).0
        };
        let steps = [
            at("process.otlp", "escalated"),
            at("process", "escalated"),
            at("", "escalated"),
            at("", "exited"),
        ];
        assert!(steps.is_sorted(), "{after}: {steps:?}");
        let first = life
            .events
            .values()
            .find(|event| event["reason"] == "panicked" || event["reason"] == "start_failed");
        assert!(first.is_some_and(|event| event["detail"].to_string().contains(point)), "{after}: {first:?}");
        let waits: Vec<u64> = life.events.values().filter_map(|event| event["after_ms"].as_u64()).collect();
        assert!(
            waits.iter().any(|wait| *wait >= 75) && waits.iter().all(|wait| *wait <= 400),
            "{after}: {waits:?}"
        );
        // The others were asked to finish, and did.
        let asked = |event: &&Value| event["path"] == "store.writer.1" && event["event"] == "draining";
        assert!(life.events.values().any(|event| asked(&event)), "{after}: the rest is drained");
        assert_eq!(life.forced, 0, "{after}: nobody had to be aborted");
        assert_eq!(field.obtrace.stop().code(), Some(70), "{after}");
        // The next process is sound, and finds everything.
        std::fs::remove_file(&active).expect("the faults end");
        field.obtrace.restart();
        let expect = Expect {
            crash: |crash| crash.path.starts_with("process.otlp"),
            crashes: 3..=60,
            ..Expect::default()
        };
        field.verify(load, &expect, after);
    });
}

/// One log record in 500 of the load generator's: its body ends with `request N of batch B`.
fn is_poison(seq: u64) -> bool {
    seq % 500 == 499
}

const NO_LADDER: [&str; 2] = ["process.retry.first=0s", "process.retry.second=0s"];

#[test]
fn poison_panics() {
    row("table::panics::poison_panics", |chance, after| {
        let set = [&NO_LADDER[..], &["supervision.defaults.intensity=50"]].concat();
        let mut options = planted("", &set);
        options.env.push(("OBTRACE_CHAOS_POISON".into(), "499 of batch=panic,999 of batch=panic".into()));
        let mut field = Field::new(options);
        let load = field.load(&Plan::logs(chance.random_range(450..650), 6));
        std::thread::sleep(Duration::from_secs(4));
        field.sight(&load);
        let expect = Expect {
            crash: |crash: &Crash| {
                crash.path.starts_with("process.otlp.") && crash.detail.contains("planted poison")
            },
            crashes: 2..=8,
            dead: Some(is_poison),
            ..Expect::default()
        };
        let outcome = field.verify(load, &expect, after);
        // One restart and two deliveries for each block that held some, and for what its worker had in the other hand.
        let (redelivered, crashes) =
            (outcome.seen.sum(|life| life.redelivered["process.otlp"]), &outcome.crashes);
        let once = crashes.len() as u64;
        assert!((once..=2 * once).contains(&redelivered), "{after}: {redelivered} redelivered, {crashes:#?}");
    });
}

#[test]
fn poison_hangs() {
    row("table::panics::poison_hangs", |chance, after| {
        let set = [
            &NO_LADDER[..],
            &["process.block_rows=50"],
            &["process.trial_patience=1s", "supervision.tree.process.otlp.liveness.stall_after=3s"],
            &WATCHDOG,
        ];
        let mut options = planted("", &set.concat());
        // A thread that never comes back is found by the watchdog, a future that never resolves by its supervisor. The first
        // is met first, and no two lie in one block, where the second would be met in a trial alone.
        options.env.push(("OBTRACE_CHAOS_POISON".into(), "499 of batch=hang,999 of batch=pending".into()));
        let mut field = Field::new(options);
        let load = field.load(&Plan::logs(chance.random_range(350..450), 6));
        std::thread::sleep(Duration::from_secs(2));
        field.sight(&load);
        let expect = Expect {
            crash: |crash: &Crash| crash.path.starts_with("process.otlp.") && crash.reason == "stalled",
            crashes: 2..=8,
            dead: Some(is_poison),
            ..Expect::default()
        };
        let outcome = field.verify(load, &expect, after);
        assert!(outcome.seen.sum(|life| life.condemned) >= 1, "{after}: a thread was given up");
        assert!(!outcome.seen.life(1).events.values().any(|event| event["event"] == "escalated"), "{after}");
    });
}
