//! Rows of what operators and other consumers do while a batch is in flight: reloads, and partitions that change hands.

use std::thread::sleep;
use std::time::Duration;

use rand::RngExt as _;
use serde_json::Value;

use super::hangs::WATCHDOG;
use super::panics::planted;
use crate::field::{Field, SOON, row};
use crate::support::invariants::{Crash, Expect};
use crate::support::load::Plan;
use crate::support::{Options, post};

#[test]
fn reload_while_busy() {
    row("table::operators::reload_while_busy", |chance, after| {
        let holder = tempfile::tempdir().expect("tempdir");
        let file = holder.path().join("obtrace.toml");
        let write = |text: &str| std::fs::write(&file, text).expect("write");
        let of = |receiver: u64, writer: u64| {
            format!(
                "[supervision.tree.ingest.receiver]\nlane = {{ capacity = {receiver}, bytes = \"{receiver}MiB\" }}\n\
                 [supervision.tree.store.writer]\nlane = {{ capacity = {writer}, bytes = \"{writer}MiB\" }}\n"
            )
        };
        write(&of(64, 64));
        let env = vec![("OBTRACE_CONFIG".to_owned(), file.display().to_string())];
        let mut field = Field::new(Options { env, ..Options::default() });
        let load = field.load(&Plan::mixed(1500, 7));
        let reload = |api: &str| {
            let (status, _, body) = post(&format!("{api}/admin/config/reload"), &[], Vec::new());
            (status, String::from_utf8_lossy(&body).into_owned())
        };
        let api = field.obtrace.api.clone();
        let (mut receiver, mut writer) = (64, 64);
        for round in 0..5 {
            sleep(Duration::from_millis(chance.random_range(300..900)));
            (receiver, writer) = (receiver / 2, writer / 2);
            write(&of(receiver, writer));
            let (status, answer) = reload(&api);
            assert_eq!(status, 200, "{after}: {answer}");
            let told: Value = serde_json::from_str(&answer).expect("json");
            let changes = told["changes"].as_array().cloned().unwrap_or_default();
            let key = "supervision.tree.ingest.receiver.lane.capacity";
            let change = changes.iter().find(|change| change["key"] == key);
            let change = change.unwrap_or_else(|| panic!("{after}: {answer}"));
            assert_eq!(change["new"], receiver.to_string(), "{after}: {answer}");
            let live = |change: &Value| change["effect"] == "live" && change["done"] == "applied";
            assert!(changes.iter().all(live), "{after}: lanes are changed live: {answer}");
            assert!(
                change["source"].as_str().is_some_and(|at| at.ends_with("obtrace.toml:2")),
                "{after}: {answer}"
            );
            let bad = ["capacity = 0", "capcity = 3", "bytes = \"much\""][chance.random_range(0..3)];
            write(&format!("[supervision.tree.store.writer]\nlane = {{ {bad} }}\n"));
            let (status, answer) = reload(&api);
            assert_eq!(status, 422, "{after}: {bad} is refused: {answer}");
            assert!(answer.contains("obtrace.toml"), "{after}: with file and line: {answer}");
            field.watch.look();
            let fills = field.watch.seen().fills;
            assert_eq!(
                (fills["ingest.receiver"].1, fills["store.writer"].1),
                (receiver, writer),
                "{after}: {bad}"
            );
            if round == 2 {
                field.sight(&load);
            }
        }
        let outcome = field.verify(load, &Expect::default(), after);
        let launched = |event: &&Value| event["event"] == "launched" && event["generation"] != 1;
        let again = outcome.seen.life(1).events.values().filter(launched).count();
        assert_eq!(again, 0, "{after}: nobody is restarted for it");
    });
}

#[test]
fn rebalance_mid_batch() {
    row("table::operators::rebalance_mid_batch", |chance, after| {
        // Every block is in flight for a while; one consumer sleeps between the store's answer and its commit until its
        // partition is somebody else's.
        let commits = chance.random_range(4..10);
        let plan = format!("worker.await=wait300ms@1,consumer.before_commit=stall12s@{commits}*1");

        let mut field = Field::new(planted(&plan, &WATCHDOG));
        let load = field.load(&Plan::mixed(600, 8));
        field.until(&format!("{after}: a consumer is replaced in the midst of its block"), SOON, |seen| {
            seen.sum(|life| life.condemned) >= 1
        });
        field.until(&format!("{after}: and is kept from committing"), SOON, |seen| {
            seen.sum(|life| life.fenced) >= 1
        });
        field.sight(&load);
        // Taken away in order: what is in flight is finished and committed first.
        for _ in 0..4 {
            let signal = ["logs", "traces", "metrics"][chance.random_range(0..3)];
            let path = format!("stream_in.consumers.{signal}-{}", chance.random_range(0..2));
            field.becomes(&path, "running", after);
            field.obtrace.order(&path, "restart");
            sleep(Duration::from_millis(chance.random_range(50..400)));
        }
        field.sight(&load);
        let expect = Expect {
            crash: |crash: &Crash| {
                crash.path.starts_with("stream_in.consumers.") && crash.reason == "stalled"
            },
            crashes: 1..=1,
            fenced: 1..=4,
            ..Expect::default()
        };
        let outcome = field.verify(load, &expect, after);
        assert_eq!(outcome.seen.life(1).forced, 0, "{after}: nobody had to be aborted");
    });
}
