//! The row of one bad tenant: its records end in the dead letters, a partition that always fails is put aside, and nobody
//! else waits longer for it.

use std::thread::sleep;
use std::time::Duration;

use obtrace::config::tenant::KeyHash;
use rand::RngExt as _;

use super::panics::planted;
use crate::field::{Field, SOON, row};
use crate::support::invariants::{Crash, Expect};
use crate::support::load::{Load, Plan};

/// Consumers that are put aside after two restarts, and tried again after two seconds.
const SET: [&str; 7] = [
    "process.retry.first=0s",
    "process.retry.second=0s",
    "supervision.defaults.intensity=100",
    "supervision.tree.stream_in.consumers.intensity=2",
    "supervision.tree.stream_in.consumers.backoff.max=200ms",
    "supervision.tree.stream_in.consumers.quarantine.cool_down=2s",
    "supervision.tree.stream_in.consumers.quarantine.probes=1",
];

#[test]
fn one_bad_tenant() {
    row("table::tenants::one_bad_tenant", |chance, after| {
        let holder = tempfile::tempdir().expect("tempdir");
        let (keys, active) = (holder.path().join("keys.toml"), holder.path().join("active"));
        let entry = |name: &str| {
            let hash = KeyHash::of(&format!("{name}-tenants-key"));
            format!("[[tenant.keys]]\nname = \"{name}\"\nhash = \"{hash}\"\ntenant = \"{name}\"\n")
        };
        std::fs::write(&keys, entry("good") + &entry("bad")).expect("write");
        let partition = format!("stream_in.consumers.metrics-{}", chance.random_range(0..2));
        let mut options = planted(&format!("{partition}.started=panic@1"), &SET);
        options.config.push(keys.display().to_string());
        options.env.push(("OBTRACE_CHAOS_WHILE".into(), active.display().to_string()));
        // Whatever holds the bad tenant's run is poison.
        options.env.push(("OBTRACE_CHAOS_POISON".into(), "run-of-the-bad=panic".into()));
        let mut field = Field::new(options);
        let good = Plan { key: Some("good-tenants-key"), ..Plan::mixed(500, 6) };
        let mut calm = Load::start(&field.obtrace, &field.dir, "calm", &Plan { seconds: 4, ..good.clone() });
        let before = p99(&calm.end(after));
        let load = field.load(&good);
        let bad =
            Plan { key: Some("bad-tenants-key"), run: Some("run-of-the-bad"), batch: 2, ..Plan::logs(10, 4) };
        let mut bad = Load::start(&field.obtrace, &field.dir, "bad", &bad);
        std::fs::write(&active, "").expect("the partition's fault begins");
        field.obtrace.order(&partition, "restart");
        field.becomes(&partition, "quarantined", after);
        field.sight(&load);
        let sent = bad.end(after)["accepted"].as_u64().expect("a count");
        sleep(Duration::from_secs(1));
        std::fs::remove_file(&active).expect("the partition's fault ends");
        field.becomes(&partition, "running", after);
        let dead = |field: &Field| {
            field.obtrace.get("/metrics").1.as_str().map_or(0, |page| {
                let lines = page.lines().filter(|line| line.starts_with("obtrace_dead_total"));
                lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
            })
        };
        let until = std::time::Instant::now() + SOON;
        while dead(&field) < sent {
            assert!(
                std::time::Instant::now() < until,
                "{after}: {} of {sent} bad records put aside",
                dead(&field)
            );
            sleep(Duration::from_millis(100));
        }
        assert_eq!(dead(&field), sent, "{after}: the bad tenant's records, and nobody else's");
        let expect = Expect {
            crash: |crash: &Crash| {
                crash.detail.contains("planted poison")
                    || crash.path.starts_with("stream_in.consumers.metrics-")
            },
            crashes: 4..=60,
            ..Expect::default()
        };
        let outcome = field.verify(load, &expect, after);
        let p99 = p99(&outcome.report);
        println!("{after}: p99 of the good tenant {before:.1} ms alone, {p99:.1} ms beside the bad one");
        assert!(p99 <= before * 3.0 + 250.0, "{after}: p99 went from {before} ms to {p99} ms");
        let events: Vec<_> = outcome.seen.life(1).events.values().collect();
        let told = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
        assert!(told("escalated").is_empty(), "{after}: nothing is handed up");
        assert!(
            told("quarantined").iter().all(|event| event["path"] == *partition),
            "{after}: that key alone"
        );
    });
}

/// Time to the acknowledgement in ms.
fn p99(report: &serde_json::Value) -> f64 {
    report["ack_ms"]["p99"].as_f64().expect("a figure")
}
