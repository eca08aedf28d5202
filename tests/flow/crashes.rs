//! What a crash leads to where nothing is tolerated, and what it leaves behind: code 70 or a halt for inspection, a
//! record of the crash, and code 75 for what had to be aborted.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::invariants::black_boxes;
use crate::support::{Obtrace, Options, block_on};

/// One whose first request makes its root give up.
fn fragile(data: &Path, more: &[&str]) -> Obtrace {
    let mut set = vec!["supervision.defaults.intensity=0".into(), "supervision.tree.intensity=0".into()];
    set.extend(more.iter().map(|set| (*set).to_owned()));
    let env = vec![("OBTRACE_CHAOS".into(), "receiver.before=panic@1*1".into())];
    Obtrace::start(data, Options { set, env, ..Options::default() })
}

fn provoke(obtrace: &Obtrace) {
    let body = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}"#;
    let request = reqwest::Client::new()
        .post(format!("{}/v1/logs", obtrace.http))
        .header("content-type", "application/json")
        .timeout(Duration::from_secs(30))
        .body(body.to_vec());
    // Its lease may go to the receiver beside, which answers it; or the process is gone before.
    block_on(async { request.send().await }).ok();
}

#[test]
fn a_root_that_gives_up_ends_the_process_with_70_and_one_record_of_the_crash() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut obtrace = fragile(dir.path(), &[]);
    provoke(&obtrace);
    assert_eq!(obtrace.ended(Duration::from_secs(60)).code(), Some(70));
    let records = black_boxes(&dir.path().join("blackbox"));
    assert_eq!(records.len(), 1, "the first fault alone has a record: {records:#?}");
    let record = &records[0];
    assert!(record["path"].as_str().is_some_and(|path| path.starts_with("ingest.receiver.")), "{record:#}");
    assert_eq!((&record["reason"], &record["class"]), (&Value::from("panicked"), &Value::from("bug")));
    assert!(record["location"].as_str().is_some_and(|at| at.contains("chaos.rs")), "{record:#}");
    assert!(record["detail"].as_str().is_some_and(|why| why.contains("receiver.before")), "{record:#}");
    assert!(record["held"]["message"].as_str().is_some_and(|held| held.contains("logs")), "{record:#}");
    assert!(record["events"].as_array().is_some_and(|events| !events.is_empty()), "{record:#}");
    let policy = record["policy"].to_string();
    assert!(policy.contains("supervision.defaults.intensity = 0   # flag --set"), "{policy}");
}

#[test]
fn a_halted_process_stays_up_for_inspection_and_ends_with_70() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut obtrace = fragile(dir.path(), &["supervision.on_root_limit=halt"]);
    provoke(&obtrace);
    let until = Instant::now() + Duration::from_secs(60);
    let tree = loop {
        // Between the end of the tree and the start of what is left of it, nobody answers.
        if let Some((200, tree)) = obtrace.try_get("/admin/tree")
            && tree["root"]["state"] == "stopped"
        {
            break tree;
        }
        assert!(Instant::now() < until, "the tree can be looked at");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(tree.to_string().contains("receiver.before"), "{tree:#}");
    assert_eq!(obtrace.get("/livez").0, 200);
    assert_eq!(obtrace.get("/readyz").0, 503);
    let (_, list) = obtrace.get("/admin/black-boxes");
    let name = list["items"][0].as_str().expect("a record").to_owned();
    let (status, record) = obtrace.get(&format!("/admin/black-boxes/{name}"));
    assert_eq!((status, &record["reason"]), (200, &Value::from("panicked")));
    assert_eq!(obtrace.get("/admin/black-boxes/1-none.json").0, 404);
    assert_eq!(obtrace.get("/admin/black-boxes/..%2f..%2fetc.json").0, 404);
    assert_eq!(obtrace.stop().code(), Some(70));
}

#[test]
fn what_has_to_be_aborted_is_named_and_the_process_ends_with_75() {
    let dir = tempfile::tempdir().expect("tempdir");
    let stop = "supervision.tree.serve.query.stop";
    // The watchdog would take the thread away from those who wait for it, and the stop would be in order.
    let watchdog = "supervision.watchdog.condemn_after=120s".to_owned();
    let set = vec![format!("{stop}.drain=1s"), format!("{stop}.kill=1s"), watchdog];
    let env = vec![("OBTRACE_CHAOS".into(), "query.before=stall@1*1".into())];
    let said = dir.path().join("stderr");
    let stderr = Some(said.clone());
    let mut obtrace = Obtrace::start(dir.path(), Options { set, env, stderr, ..Options::default() });
    let url = obtrace.api.clone();
    // Blocks the thread of the query handlers for longer than anybody waits.
    let blocked = std::thread::spawn(move || crate::support::quietly_get(&format!("{url}/api/v1/services")));
    let until = Instant::now() + Duration::from_secs(30);
    while !std::fs::read_to_string(&said).is_ok_and(|text| text.contains("planted stall at query.before")) {
        assert!(Instant::now() < until, "the query does not arrive");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(obtrace.stop().code(), Some(75));
    blocked.join().expect("the client gives up too");
}
