//! Telemetry that cannot be processed: exactly the offending item is put aside with its reason, its siblings are stored, and
//! it costs one worker or one process at the most, whatever it does to them.
//!
//! Needs the feature `chaos`, which `make test` builds with: an item is poison by a text that it holds.

use std::path::Path;
use std::time::Duration;

use obtrace::backends::event_log::embedded::{EmbeddedLog, EmbeddedLogConfig, TopicConfig};
use obtrace::backends::event_log::{EventLog as _, Record};
use obtrace::domain::offence::Cause;
use obtrace::domain::signal::{DLQ_TOPIC, RETRY_TOPICS, Signal};
use obtrace::wire::letter::Letter;
use serde_json::{Value, json};

use crate::support::{Obtrace, Options, block_on, post};

pub(crate) const LONG: Duration = Duration::from_secs(120);
const ITEMS: usize = 500;
/// No rungs: what fails is in the dead letters at once.
pub(crate) const NO_LADDER: [&str; 2] = ["process.retry.first=0s", "process.retry.second=0s"];

pub(crate) fn options(poison: &str, set: &[&str]) -> Options {
    Options {
        env: vec![("OBTRACE_CHAOS_POISON".into(), poison.into())],
        // One partition without Obtrace's own telemetry in it: the offsets are those of what the test sends.
        set: set
            .iter()
            .chain(&["stream.partitions=1", "observe.enabled=false"])
            .map(ToString::to_string)
            .collect(),
        ..Options::default()
    }
}

/// A request of `count` items of a signal, all "harmless" but number `at`, which holds `text`.
pub(crate) fn request(signal: Signal, count: usize, at: usize, text: &str) -> Value {
    let time = obtrace::clock::unix_nanos().to_string();
    let texts = (0..count).map(|n| if n == at { text.to_owned() } else { format!("harmless{n}") });
    let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": "till"}}]});
    match signal {
        Signal::Traces => {
            let spans = texts.enumerate().map(|(n, text)| {
                json!({
                "traceId": format!("{:032x}", n + 1), "spanId": format!("{:016x}", n + 1), "name": text,
                "startTimeUnixNano": time, "endTimeUnixNano": time})
            });
            let spans: Vec<Value> = spans.collect();
            json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "lib"}, "spans": spans}]}]})
        }
        Signal::Logs => {
            let records = texts.map(|text| json!({"timeUnixNano": time, "body": {"stringValue": text}}));
            let records: Vec<Value> = records.collect();
            json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": {"name": "lib"}, "logRecords": records}]}]})
        }
        Signal::Metrics => {
            let points = texts.map(|text| {
                json!({"timeUnixNano": time, "asDouble": 1.0,
                "attributes": [{"key": "text", "value": {"stringValue": text}}]})
            });
            let gauge = json!({"dataPoints": points.collect::<Vec<_>>()});
            json!({"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"scope": {"name": "lib"}, "metrics": [
                {"name": "till.size", "gauge": gauge}]}]}]})
        }
    }
}

pub(crate) fn send(obtrace: &Obtrace, signal: Signal, body: &Value) {
    let url = format!("{}/v1/{signal}", obtrace.http);
    let json = [("content-type", "application/json")];
    let (status, _, answer) = post(&url, &json, serde_json::to_vec(body).expect("json"));
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
}

/// How many items of a signal the store holds.
pub(crate) fn stored(obtrace: &Obtrace, signal: Signal) -> u64 {
    let path = match signal {
        Signal::Traces => "/api/v1/spans?limit=10000&start=now-1h",
        Signal::Logs => "/api/v1/logs?limit=10000&start=now-1h",
        Signal::Metrics => "/api/v1/metrics/query?name=till.size&agg=count&step=1h&start=now-1h",
    };
    let (status, answer) = obtrace.get(path);
    if status != 200 {
        return 0;
    }
    match signal {
        Signal::Metrics => {
            let series = answer["items"].as_array().cloned().unwrap_or_default();
            let points = series.iter().flat_map(|one| one["points"].as_array().cloned().unwrap_or_default());
            points.filter_map(|point| point["value"].as_f64()).sum::<f64>() as u64
        }
        _ => answer["items"].as_array().map_or(0, Vec::len) as u64,
    }
}

pub(crate) fn wait_stored(obtrace: &Obtrace, signal: Signal, count: usize) {
    let until = std::time::Instant::now() + LONG;
    loop {
        let found = stored(obtrace, signal);
        assert!(found <= count as u64, "{found} {signal} are stored, {count} were sent for that");
        if found == count as u64 {
            return;
        }
        assert!(std::time::Instant::now() < until, "{found} of {count} {signal} are stored");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A counter of `/metrics`, summed over its labels that hold `label`.
pub(crate) fn counter(obtrace: &Obtrace, name: &str, label: &str) -> u64 {
    let (_, text) = obtrace.get("/metrics");
    let lines = text.as_str().unwrap_or_default().lines().filter(|line| line.starts_with(name));
    let values = lines
        .filter(|line| line.contains(label))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}

pub(crate) fn wait_counter(obtrace: &Obtrace, name: &str, label: &str, value: u64) {
    let until = std::time::Instant::now() + LONG;
    while counter(obtrace, name, label) != value {
        let is = counter(obtrace, name, label);
        assert!(std::time::Instant::now() < until, "{name} of {label} is {is}, not {value}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Restarts of all workers together.
fn worker_restarts(obtrace: &Obtrace) -> u64 {
    fn sum(node: &Value) -> u64 {
        let own = node["path"].as_str().is_some_and(|path| path.starts_with("process.otlp."));
        let below: u64 = node["children"].as_array().into_iter().flatten().map(sum).sum();
        below + if own { node["restarts"].as_u64().unwrap_or(0) } else { 0 }
    }
    sum(&obtrace.get("/admin/tree").1["root"])
}

/// All records of a topic of the log in `dir`, which no process has open.
fn records_of(dir: &Path, topic: &str) -> Vec<Record> {
    let mut topics: Vec<TopicConfig> = Signal::ALL.iter().map(|s| TopicConfig::new(s.topic(), 1)).collect();
    topics.push(TopicConfig::new(DLQ_TOPIC, 1));
    topics.extend(RETRY_TOPICS.map(|rung| TopicConfig::new(rung, 3)));
    let config = EmbeddedLogConfig::new(dir, topics.clone());
    let (log, _) = EmbeddedLog::open(config).expect("the log opens");
    let partitions = log.partitions(topic).expect("the topic is there");
    let read =
        |partition| block_on(log.read(topic, partition, 0, 1000, 1 << 26)).expect("the topic can be read");
    (0..partitions).flat_map(read).map(|stored| stored.record).collect()
}

fn letter(record: &Record) -> Letter {
    Letter::of(&record.headers).expect("it is a letter")
}

#[test]
fn one_item_of_a_batch_costs_one_restart_and_only_itself() {
    let dir = tempfile::tempdir().expect("tempdir");
    let data = dir.path().join("data");
    let mut obtrace = Obtrace::start(&data, options("planted-17", &NO_LADDER));
    for (n, signal) in (1..).zip(Signal::ALL) {
        send(&obtrace, signal, &request(signal, ITEMS, 17, "planted-17"));
        wait_stored(&obtrace, signal, ITEMS - 1);
        assert_eq!(worker_restarts(&obtrace), n, "one restart for each poisonous batch");
        assert_eq!(counter(&obtrace, "obtrace_poison_items_total", "class=\"panic\""), n);
        assert_eq!(counter(&obtrace, "obtrace_dead_total", "class=\"panic\""), n);
        let of_signal = format!("signal=\"{signal}\"");
        assert_eq!(counter(&obtrace, "obtrace_process_dead_letters_total", &of_signal), 1);
    }
    let (_, tree) = obtrace.get("/admin/tree");
    assert!(tree.to_string().contains("planted poison"), "the tree names the last failure: {tree:#}");
    assert_eq!(obtrace.stop().code(), Some(0));

    let letters = records_of(&data.join("log"), DLQ_TOPIC);
    assert_eq!(letters.len(), 3, "one letter a batch: {letters:?}");
    for (record, signal) in letters.iter().zip(Signal::ALL) {
        let letter = letter(record);
        assert_eq!(letter.id, format!("{}-0-0.17", signal.topic()));
        assert_eq!((letter.source, letter.attempts), (format!("{}-0-0", signal.topic()), 1));
        assert_eq!(letter.cause, Some(Cause::Panic));
        assert!(
            letter.reason.contains("chaos.rs") && letter.reason.contains("planted poison"),
            "{}",
            letter.reason
        );
        let payload = String::from_utf8_lossy(&record.payload);
        for part in ["planted-17", "till", "lib"] {
            assert!(payload.contains(part), "{part} is in the letter: {payload}");
        }
        assert!(!payload.contains("harmless"), "only the item itself is in its letter: {payload}");
    }
}

#[test]
fn items_that_end_the_process_cost_one_process() {
    for kind in ["abort", "overflow"] {
        let dir = tempfile::tempdir().expect("tempdir");
        let data = dir.path().join("data");
        let poison = format!("planted-one={kind},planted-two={kind}");
        let mut obtrace = Obtrace::start(&data, options(&poison, &NO_LADDER));
        let body = request(Signal::Logs, ITEMS, 3, "planted-one");
        send(&obtrace, Signal::Logs, &body);
        let deaths = die_and_restart(&mut obtrace);
        wait_stored(&obtrace, Signal::Logs, ITEMS - 1);
        assert_eq!(deaths, 1, "one process for one item that ends the process ({kind})");
        send(&obtrace, Signal::Logs, &request(Signal::Logs, ITEMS, 499, "planted-two"));
        assert_eq!(die_and_restart(&mut obtrace), 1);
        wait_stored(&obtrace, Signal::Logs, 2 * (ITEMS - 1));
        assert!(obtrace.is_alive(), "one item ends one process");
        assert_eq!(worker_restarts(&obtrace), 0, "the next process knows at once");
        assert_eq!(obtrace.stop().code(), Some(0));
        let letters = records_of(&data.join("log"), DLQ_TOPIC);
        let ids: Vec<String> = letters.iter().map(|record| letter(record).id).collect();
        assert_eq!(ids, ["obtrace.logs-0-0.3", "obtrace.logs-0-1.499"]);
        for record in &letters {
            let letter = letter(record);
            assert_eq!(letter.cause, Some(Cause::Killed));
            assert!(letter.reason.contains("SIGABRT"), "{}", letter.reason);
        }
    }
}

#[test]
fn items_that_never_come_back_cost_one_process_too() {
    let dir = tempfile::tempdir().expect("tempdir");
    let data = dir.path().join("data");
    let set = [&NO_LADDER[..], &["process.trial_patience=1s"]].concat();
    let mut obtrace = Obtrace::start(&data, options("planted-one=hang,planted-two=pending", &set));
    for (n, text) in (1..).zip(["planted-one", "planted-two"]) {
        send(&obtrace, Signal::Logs, &request(Signal::Logs, ITEMS, 3, text));
        obtrace.eventually("/admin/tree", LONG, |tree| leased(&tree["root"], "process.otlp") > 0);
        // Somebody loses patience with it.
        obtrace.kill9();
        obtrace.restart();
        wait_stored(&obtrace, Signal::Logs, n * (ITEMS - 1));
        wait_counter(&obtrace, "obtrace_dead_total", "class=\"hang\"", 1);
        assert_eq!(worker_restarts(&obtrace), 0, "the next process knows at once");
    }
    assert_eq!(obtrace.stop().code(), Some(0));
    let letters = records_of(&data.join("log"), DLQ_TOPIC);
    let ids: Vec<String> = letters.iter().map(|record| letter(record).id).collect();
    assert_eq!(ids, ["obtrace.logs-0-0.3", "obtrace.logs-0-1.3"]);
}

/// Messages in the hands of the workers below `path`.
fn leased(node: &Value, path: &str) -> u64 {
    let own = node["path"].as_str().is_some_and(|own| own.starts_with(path));
    let lanes = node["lanes"].as_array().into_iter().flatten();
    let here: u64 = lanes.filter_map(|lane| lane["leased"].as_u64()).sum();
    let below: u64 = node["children"].as_array().into_iter().flatten().map(|child| leased(child, path)).sum();
    below + if own { here } else { 0 }
}

/// Waits until the process has ended, starts it again, and so on until one stays; says how many ended.
fn die_and_restart(obtrace: &mut Obtrace) -> u32 {
    let until = std::time::Instant::now() + LONG;
    while obtrace.is_alive() {
        assert!(std::time::Instant::now() < until, "the poison does not end the process");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut deaths = 1;
    while !obtrace.try_restart() {
        deaths += 1;
        assert!(deaths < 5, "every process ends by it");
    }
    deaths
}

#[test]
fn a_letter_climbs_the_ladder_and_ends_in_the_dead_letters() {
    let dir = tempfile::tempdir().expect("tempdir");
    let data = dir.path().join("data");
    let ladder = ["process.retry.first=1s", "process.retry.second=2s"];
    let mut obtrace = Obtrace::start(&data, options("planted", &ladder));
    send(&obtrace, Signal::Traces, &request(Signal::Traces, 20, 4, "planted"));
    wait_stored(&obtrace, Signal::Traces, 19);
    wait_counter(&obtrace, "obtrace_dead_total", "class=\"panic\"", 1);
    assert_eq!(counter(&obtrace, "obtrace_retried_total", "rung=\"1m\""), 1);
    assert_eq!(counter(&obtrace, "obtrace_retried_total", "rung=\"10m\""), 1);
    assert_eq!(worker_restarts(&obtrace), 1, "what failed once is tried where it can do no harm");
    assert_eq!(obtrace.stop().code(), Some(0));
    let letters = records_of(&data.join("log"), DLQ_TOPIC);
    assert_eq!(letters.len(), 1, "{letters:?}");
    let last = letter(&letters[0]);
    assert_eq!((last.id.as_str(), last.attempts), ("obtrace.traces-0-0.4", 3));
    assert!(last.reason.contains("planted poison"), "{}", last.reason);
    assert!(last.last_failed_ns - last.first_failed_ns >= 3_000_000_000, "it waited on both rungs: {last:?}");
    for (rung, attempts) in RETRY_TOPICS.into_iter().zip(1..) {
        let on_rung = records_of(&data.join("log"), rung);
        assert_eq!(on_rung.len(), 1, "{rung}");
        assert_eq!(letter(&on_rung[0]).attempts, attempts);
        assert_eq!(letter(&on_rung[0]).first_failed_ns, last.first_failed_ns);
    }
}

#[test]
fn what_heals_on_the_ladder_is_stored_once() {
    let dir = tempfile::tempdir().expect("tempdir");
    let data = dir.path().join("data");
    let ill = dir.path().join("ill");
    std::fs::write(&ill, "").expect("write");
    let mut options = options("planted", &["process.retry.first=1s", "process.retry.second=3s"]);
    options.env.push(("OBTRACE_CHAOS_POISON_WHILE".into(), ill.display().to_string()));
    let mut obtrace = Obtrace::start(&data, options);
    send(&obtrace, Signal::Metrics, &request(Signal::Metrics, 20, 4, "planted"));
    wait_counter(&obtrace, "obtrace_retried_total", "rung=\"10m\"", 1);
    std::fs::remove_file(&ill).expect("remove");
    wait_stored(&obtrace, Signal::Metrics, 20);
    // A process that takes over finds nothing left to do.
    obtrace.kill9();
    obtrace.restart();
    wait_stored(&obtrace, Signal::Metrics, 20);
    assert_eq!(obtrace.stop().code(), Some(0));
    assert_eq!(records_of(&data.join("log"), DLQ_TOPIC), [], "what healed is no dead letter");
}

#[test]
fn an_outage_of_the_store_leads_nowhere_near_the_dead_letters() {
    let dir = tempfile::tempdir().expect("tempdir");
    let data = dir.path().join("data");
    let ladder = ["process.retry.first=200ms", "process.retry.second=200ms"];
    let mut away = options("planted", &ladder);
    // A store that never answers: its address is taken by nobody.
    away.set.push("telemetry.url=http://127.0.0.1:9".into());
    let mut obtrace = Obtrace::start(&data, away);
    for n in 0..5 {
        send(&obtrace, Signal::Logs, &request(Signal::Logs, 20, 99, &format!("none{n}")));
    }
    // Long enough for every rung, several times over.
    std::thread::sleep(Duration::from_secs(3));
    for name in ["obtrace_retried_total", "obtrace_dead_total", "obtrace_poison_items_total"] {
        assert_eq!(counter(&obtrace, name, ""), 0, "{name}");
    }
    assert_eq!(obtrace.stop().code(), Some(0));
    for topic in [DLQ_TOPIC, RETRY_TOPICS[0], RETRY_TOPICS[1]] {
        assert_eq!(records_of(&data.join("log"), topic), [], "{topic}");
    }
    let mut back = Obtrace::start(&data, options("planted", &ladder));
    wait_stored(&back, Signal::Logs, 100);
    assert_eq!(back.stop().code(), Some(0));
}
