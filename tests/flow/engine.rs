//! The engine under a whole process: what it does when its data are damaged, and when a client no longer waits.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::store::Store;
use crate::support::{Obtrace, Options, block_on, post};

const SOON: Duration = Duration::from_secs(60);

/// Sends log records with one attribute and waits until they are stored, without reading them.
fn send(obtrace: &Obtrace, mark: &str, count: usize) {
    let time = obtrace::clock::unix_nanos().to_string();
    let slow = json!([{"key": "slow", "value": {"stringValue": "yes"}}]);
    let record = |n: usize| json!({"timeUnixNano": time, "body": {"stringValue": format!("{mark} {n}")}, "attributes": slow});
    let records: Vec<Value> = (0..count).map(record).collect();
    let body = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]});
    let before = rows(obtrace);
    let json = [("content-type", "application/json")];
    let (status, ..) =
        post(&format!("{}/v1/logs", obtrace.http), &json, serde_json::to_vec(&body).expect("json"));
    assert_eq!(status, 200);
    let until = Instant::now() + SOON;
    while rows(obtrace) < before + count as u64 {
        assert!(Instant::now() < until, "{mark} is not stored");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn rows(obtrace: &Obtrace) -> u64 {
    let page = obtrace.get("/metrics").1;
    let lines = page.as_str().unwrap_or_default().lines();
    let of = lines.filter(|line| line.starts_with("obtrace_process_rows_total") && line.contains("logs"));
    of.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

/// Files of marks below a folder.
fn marks(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let below = |path: PathBuf| match path.is_dir() {
        true => marks(&path),
        false => vec![path],
    };
    entries.flat_map(below).filter(|path| path.to_string_lossy().contains("mrk")).collect()
}

#[test]
fn an_engine_that_finds_its_data_damaged_is_started_anew_and_the_rest_is_found() {
    let dir = tempfile::tempdir().expect("tempdir");
    // Nothing of Obtrace's own among the parts.
    let set = vec!["observe.enabled=false".to_owned()];
    let mut obtrace = Obtrace::start(dir.path(), Options { set, ..Options::default() });
    let parts = dir.path().join("engine/store/store");
    let before = marks(&parts);
    send(&obtrace, "broken", 5);
    for file in marks(&parts).into_iter().filter(|file| !before.contains(file)) {
        File::options().write(true).truncate(true).open(file).expect("the marks open");
    }
    send(&obtrace, "sound", 7);
    let first = obtrace.engine_pid();
    let count = |answer: &Value| answer["items"].as_array().map_or(0, Vec::len);
    obtrace.eventually_asked("/api/v1/logs?limit=100", SOON, |answer| count(answer) == 7);
    assert_ne!(obtrace.engine_pid(), first, "another engine");
    let events = obtrace.get("/admin/events?follow=false").1;
    let told =
        |event: &&Value| event["path"] == "store.engine" && event["cause"].to_string().contains("code 246");
    let told = events["events"].as_array().into_iter().flatten().filter(told).count();
    assert_eq!(told, 1, "{events:#}");
    assert_eq!(obtrace.stop().code(), Some(0));
}

#[test]
fn a_client_that_hangs_up_takes_its_statement_out_of_the_engine() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = Store::start(&dir.path().join("store"));
    let mut obtrace = Obtrace::start(&dir.path().join("data"), store.options(&["observe.enabled=false"]));
    for n in 0..12 {
        send(&obtrace, &format!("part {n}"), 20);
    }
    // From here on, looking at an attribute takes 12 ms a row; the engine sleeps for at most 3 s a block.
    store.sql(
        "ALTER TABLE obtrace.logs MODIFY COLUMN attr_kv Array(String) ALIAS if(sleepEachRow(0.012) = 0, ['slow=yes'], [])",
    );
    let running = || -> u64 {
        let sql = "SELECT count() FROM system.processes WHERE query LIKE '%attr_kv%' AND query NOT LIKE '%system.processes%'";
        store.sql(sql).trim().parse().expect("a number")
    };
    let url = format!("{}/api/v1/logs?q=attr.slow%3Dyes&limit=1000", obtrace.api);
    let hangs_up = std::thread::spawn(move || {
        // Before it could have its answer: that takes three seconds.
        let asked = block_on(async {
            reqwest::Client::new().get(&url).timeout(Duration::from_millis(1200)).send().await
        });
        assert!(asked.as_ref().is_err_and(|error| error.is_timeout()), "it was not slow: {asked:?}");
    });
    let until = Instant::now() + Duration::from_millis(1200);
    while running() == 0 {
        assert!(Instant::now() < until, "the statement does not run");
        std::thread::sleep(Duration::from_millis(20));
    }
    hangs_up.join().expect("the client");
    let begun = Instant::now();
    while running() > 0 {
        assert!(begun.elapsed() < Duration::from_millis(1200), "the statement runs on");
        std::thread::sleep(Duration::from_millis(50));
    }
    let page = obtrace.get("/metrics").1;
    let mut lines = page.as_str().unwrap_or_default().lines();
    let line =
        lines.find(|line| line.starts_with("obtrace_serve_queries_total") && line.contains("abandoned"));
    assert!(line.is_some_and(|line| !line.ends_with(" 0")), "the query handler let go of it: {line:?}");
    assert_eq!(obtrace.stop().code(), Some(0));
}
