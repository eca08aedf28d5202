//! A record that panics the worker every time goes to the dead letters with its reason; all others are stored.
//!
//! Needs the feature `chaos`, which `make test` builds with.

use std::time::Duration;

use obtrace::backends::event_log::EventLog as _;
use obtrace::backends::event_log::embedded::{EmbeddedLog, EmbeddedLogConfig, TopicConfig};
use obtrace::domain::signal::{DLQ_TOPIC, Signal};
use serde_json::{Value, json};

use crate::support::{Obtrace, Options, block_on, post};

const MARK: &str = "planted-poison-17";

fn log(body: &str) -> Vec<u8> {
    let time = obtrace::clock::unix_nanos().to_string();
    let record = json!({"timeUnixNano": time, "body": {"stringValue": body}});
    let body = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]});
    serde_json::to_vec(&body).expect("json")
}

#[test]
fn poison_goes_to_the_dead_letters_and_the_rest_is_stored() {
    let dir = tempfile::tempdir().expect("tempdir");
    let data = dir.path().join("data");
    let options = Options {
        env: vec![("OBTRACE_CHAOS_POISON".into(), MARK.into())],
        set: vec!["process.linger=1s".into(), "stream.partitions=1".into()],
        ..Options::default()
    };
    let mut obtrace = Obtrace::start(&data, options);
    let url = format!("{}/v1/logs", obtrace.http);
    for n in 0..20 {
        let body = if n == 7 { MARK.to_owned() } else { format!("harmless number {n}") };
        let (status, _, answer) = post(&url, &[("content-type", "application/json")], log(&body));
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    }
    let count = |answer: &Value| answer["items"].as_array().map_or(0, Vec::len);
    let found =
        obtrace.eventually("/api/v1/logs?q=harmless", Duration::from_secs(30), |answer| count(answer) == 19);
    assert_eq!(count(&found), 19);
    assert_eq!(count(&obtrace.get(&format!("/api/v1/logs?q={MARK}")).1), 0);
    let (_, tree) = obtrace.get("/admin/tree");
    let text = tree.to_string();
    assert!(text.contains("planted poison"), "the tree names the last failure: {tree:#}");
    assert_eq!(obtrace.stop().code(), Some(0));

    let letters = dead_letters(&data.join("log"));
    assert_eq!(letters.len(), 1, "exactly the poison is a dead letter: {letters:?}");
    let header = |name: &str| {
        let value = letters[0].headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        String::from_utf8_lossy(&value.unwrap_or_default()).into_owned()
    };
    assert!(header("obtrace-last-error").contains("planted poison"), "{}", header("obtrace-last-error"));
    assert_eq!(header("obtrace-attempts"), "1");
    assert!(header("obtrace-source").starts_with("obtrace.logs-0-"), "{}", header("obtrace-source"));
    assert!(String::from_utf8_lossy(&letters[0].payload).contains(MARK), "the payload is kept whole");
}

/// All records of the dead letter topic of the log in `dir`.
fn dead_letters(dir: &std::path::Path) -> Vec<obtrace::backends::event_log::Record> {
    let mut topics: Vec<TopicConfig> = Signal::ALL.iter().map(|s| TopicConfig::new(s.topic(), 1)).collect();
    topics.push(TopicConfig::new(DLQ_TOPIC, 1));
    let (log, _) = EmbeddedLog::open(EmbeddedLogConfig::new(dir, topics)).expect("the log opens");
    let records = block_on(log.read(DLQ_TOPIC, 0, 0, 100, 1 << 20)).expect("the dead letters can be read");
    records.into_iter().map(|stored| stored.record).collect()
}
