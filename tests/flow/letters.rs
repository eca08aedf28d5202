//! The dead letters of a running process: listed, shown and replayed, by the API and by `obtrace dlq`.

use obtrace::domain::signal::Signal;
use serde_json::{Value, json};

use crate::poison::{LONG, NO_LADDER, counter, options, request, send, stored, wait_counter, wait_stored};
use crate::support::{Obtrace, post};

pub(crate) fn letters(obtrace: &Obtrace, query: &str) -> Vec<Value> {
    let (status, page) = obtrace.get(&format!("/admin/dlq{query}"));
    assert_eq!(status, 200, "{page:#}");
    page["items"].as_array().expect("items").clone()
}

pub(crate) fn dlq(obtrace: &Obtrace, args: &[&str]) -> (bool, String) {
    let args: Vec<&str> = ["dlq", "--api", &obtrace.api].into_iter().chain(args.iter().copied()).collect();
    let (status, text) = Obtrace::run(&args, LONG);
    (status.success(), text)
}

#[test]
fn dead_letters_are_listed_shown_and_stored_once_when_their_cause_is_gone() {
    let dir = tempfile::tempdir().expect("tempdir");
    let ill = dir.path().join("ill");
    std::fs::write(&ill, "").expect("write");
    let mut options = options("planted", &NO_LADDER);
    options.env.push(("OBTRACE_CHAOS_POISON_WHILE".into(), ill.display().to_string()));
    let mut obtrace = Obtrace::start(&dir.path().join("data"), options);
    assert_eq!(letters(&obtrace, ""), [] as [Value; 0]);
    for (n, signal) in (1..).zip([Signal::Logs, Signal::Traces]) {
        send(&obtrace, signal, &request(signal, 20, 4, &format!("planted-{n}")));
        wait_stored(&obtrace, signal, 19);
        wait_counter(&obtrace, "obtrace_dead_total", "", n);
    }

    // Listed: newest first, by filter, page by page.
    let all = letters(&obtrace, "");
    let sources: Vec<&str> = all.iter().map(|letter| letter["source"].as_str().unwrap_or_default()).collect();
    assert_eq!(sources, ["obtrace.traces-0-0.4", "obtrace.logs-0-0.4"]);
    assert_eq!(letters(&obtrace, "?signal=logs&reason=Planted&class=panic&tenant=default"), all[1..]);
    assert_eq!(letters(&obtrace, "?tenant=other"), [] as [Value; 0]);
    assert_eq!(letters(&obtrace, "?limit=1"), all[..1]);
    let (_, page) = obtrace.get("/admin/dlq?limit=1");
    assert_eq!(letters(&obtrace, &format!("?cursor={}", page["next_cursor"])), all[1..]);
    assert_eq!(obtrace.get("/admin/dlq?limit=0").0, 400);
    assert_eq!(obtrace.get("/admin/dlq?colour=red").0, 400);
    let (good, table) = dlq(&obtrace, &["list"]);
    assert!(good && table.lines().count() == 3 && table.contains("planted poison"), "{table}");

    // Shown: with its payload, decoded, and nothing of its siblings.
    let id = all[1]["id"].to_string();
    let (_, letter) = obtrace.get(&format!("/admin/dlq/{id}"));
    let record = &letter["payload"]["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
    assert_eq!(record.as_array().map(Vec::len), Some(1), "{letter:#}");
    assert_eq!(record[0]["body"]["stringValue"], "planted-1");
    let (good, text) = dlq(&obtrace, &["show", &id]);
    assert!(good && text.contains("planted-1") && text.contains("obtrace.logs-0-0.4"), "{text}");
    assert_eq!(obtrace.get("/admin/dlq/4711").0, 404);
    assert!(!dlq(&obtrace, &["show", "4711"]).0);

    // Replayed while the cause is there: a dry run does nothing, a real one ends in a new letter of the same item.
    let (good, text) = dlq(&obtrace, &["replay", &id, "--dry-run"]);
    assert!(good && text.contains("1 letter would be put back"), "{text}");
    let (good, text) = dlq(&obtrace, &["replay", &id]);
    assert!(good && text.contains("1 letter put back"), "{text}");
    wait_counter(&obtrace, "obtrace_dead_total", "", 3);
    let again = &letters(&obtrace, "")[0];
    assert_eq!((&again["source"], &again["attempts"]), (&json!("obtrace.logs-0-0.4"), &json!(2)));

    // Replayed when the cause is gone, both letters of the item and more than once: stored once. The count outlives a crash.
    std::fs::remove_file(&ill).expect("remove");
    let (good, text) = dlq(&obtrace, &["replay", "--all"]);
    assert!(good && text.contains("3 letters put back"), "{text}");
    wait_stored(&obtrace, Signal::Logs, 20);
    wait_stored(&obtrace, Signal::Traces, 20);
    obtrace.kill9();
    obtrace.restart();
    let replayed = |letters: &[Value]| -> Vec<u64> {
        letters.iter().map(|letter| letter["replayed"].as_u64().unwrap_or(0)).collect()
    };
    assert_eq!(replayed(&letters(&obtrace, "")), [1, 1, 2]);
    let rows = || counter(&obtrace, "obtrace_process_rows_total", "signal=\"logs\"");
    let before = rows();
    let body = json!({"filter": {"signal": "logs"}});
    let url = format!("{}/admin/dlq/replay", obtrace.api);
    let (status, _, answer) = post(&url, &[], body.to_string().into_bytes());
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    wait_counter(&obtrace, "obtrace_process_rows_total", "signal=\"logs\"", before + 2);
    assert_eq!(stored(&obtrace, Signal::Logs), 20, "a letter is stored once, however often it is replayed");
    assert_eq!(replayed(&letters(&obtrace, "")), [2, 1, 3]);
    let (_, journal) = obtrace.get("/admin/events?follow=false");
    let operated = journal["events"].as_array().expect("events").iter().find(|e| e["event"] == "operated");
    assert_eq!(operated.map(|e| &e["what"]), Some(&json!("replayed 2 dead letters")), "{journal:#}");
    for bad in ["", "{}", r#"{"ids":[]}"#, r#"{"ids":[1],"filter":{}}"#, r#"{"filter":{"tenent":"x"}}"#] {
        assert_eq!(post(&url, &[], bad.into()).0, 400, "{bad}");
    }
    assert_eq!(obtrace.stop().code(), Some(0));
}
