//! The retry ladder over real brokers, a process that takes in and one that stores: what the store refuses waits on each rung
//! until it is due, keeps nobody else waiting, and is stored when its cause is gone, or by hand out of the dead letters.

use std::time::{Duration, Instant};

use bytes::Bytes;
use obtrace::domain::signal::{DLQ_TOPIC, RETRY_TOPICS, Signal};
use obtrace::wire::letter::Letter;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

use crate::kafka::{FRONT, Site, WITHIN, WORKER};
use crate::letters::{dlq, letters};
use crate::poison::{LONG, counter, request, send, stored, wait_counter, wait_stored};
use crate::support::services;
use crate::support::until;

/// Waits of the rungs; seconds in place of a minute and ten. Long enough that what is sent meanwhile is stored meanwhile.
const WAITS: [&str; 2] = ["process.retry.first=10s", "process.retry.second=8s"];
const WAITS_NS: [u64; 2] = [10_000_000_000, 8_000_000_000];

/// The letters in a topic at the brokers, as soon as there are so many.
fn letters_at(site: &Site, topic: &str, count: usize) -> Vec<Letter> {
    let reader: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &site.brokers)
        .set("group.id", format!("{}reader", site.prefix))
        .set("enable.auto.commit", "false")
        .create()
        .expect("a reader");
    let topic = format!("{}{topic}", site.prefix);
    let metadata = reader.fetch_metadata(Some(&topic), LONG).expect("the topic");
    let mut all = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        all.add_partition_offset(&topic, partition.id(), Offset::Beginning).expect("an offset");
    }
    reader.assign(&all).expect("assigned");
    let (mut found, until) = (Vec::new(), Instant::now() + LONG);
    while found.len() < count {
        assert!(Instant::now() < until, "{} of {count} letters are in {topic}", found.len());
        let Some(message) = reader.poll(Duration::from_millis(500)) else { continue };
        let message = message.expect("a message");
        let headers = message.headers().expect("headers").iter();
        let headers: Vec<(String, Bytes)> = headers
            .map(|header| (header.key.to_owned(), Bytes::copy_from_slice(header.value.unwrap_or_default())))
            .collect();
        found.push(Letter::of(&headers).expect("a letter"));
    }
    found
}

#[test]
fn what_the_store_refuses_waits_on_the_brokers_rungs_and_holds_nobody_up() {
    let site = Site::at(services::kafka());
    let set = |role| [&[role, "stream.partitions=1", "observe.enabled=false"][..], &WAITS].concat();
    let mut worker = site.start("worker", &set(WORKER));
    let mut front = site.start("front", &set(FRONT));
    for text in ["heals", "stays"] {
        let rule = format!("CHECK NOT startsWith(body, 'refused {text}')");
        site.store.sql(&format!("ALTER TABLE obtrace.logs ADD CONSTRAINT {text} {rule}"));
    }
    let gone = |text: &str| site.store.sql(&format!("ALTER TABLE obtrace.logs DROP CONSTRAINT {text}"));
    let rung = |rung: &str| counter(&worker, "obtrace_retried_total", &format!("rung=\"{rung}\""));

    // Two of forty are refused; their siblings are stored at once, and so is what comes later.
    for text in ["refused heals", "refused stays"] {
        send(&front, Signal::Logs, &request(Signal::Logs, 20, 4, text));
    }
    wait_stored(&front, Signal::Logs, 38);
    let waiting = letters_at(&site, RETRY_TOPICS[0], 2);
    send(&front, Signal::Logs, &request(Signal::Logs, 20, 99, "none"));
    wait_stored(&front, Signal::Logs, 58);
    let now = obtrace::clock::unix_nanos();
    for letter in &waiting {
        assert_eq!((letter.attempts, letter.due_ns - letter.last_failed_ns), (1, WAITS_NS[0]), "{letter:?}");
        assert!(now < letter.due_ns, "the others were stored while it waits: {now}, {letter:?}");
    }
    assert_eq!((rung("1m"), rung("10m")), (2, 0));

    // Tried again when they are due, and not before.
    until(WITHIN, "the first of them is on the second rung", || rung("10m") > 0);
    gone("heals");
    for letter in letters_at(&site, RETRY_TOPICS[1], 2) {
        let first = waiting.iter().find(|first| first.id == letter.id).expect("the same letter");
        assert_eq!((letter.attempts, letter.due_ns - letter.last_failed_ns), (2, WAITS_NS[1]), "{letter:?}");
        assert_eq!(letter.first_failed_ns, first.first_failed_ns);
        assert!(letter.last_failed_ns >= first.due_ns, "tried before it was due: {letter:?}, {first:?}");
    }

    // One has healed by its third try. The other one is a dead letter, and is stored when it is replayed without its cause.
    wait_stored(&front, Signal::Logs, 59);
    let dead = letters_at(&site, DLQ_TOPIC, 1).remove(0);
    assert_eq!((dead.attempts, dead.due_ns), (3, 0), "{dead:?}");
    assert!(dead.last_failed_ns - dead.first_failed_ns >= WAITS_NS.iter().sum(), "{dead:?}");
    until(WITHIN, "the dead letter is listed", || !letters(&front, "?signal=logs").is_empty());
    let listed = letters(&front, "?signal=logs");
    assert_eq!(listed.len(), 1, "what healed is no dead letter: {listed:#?}");
    let reason = listed[0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("stays"), "it names the rule: {:#}", listed[0]);
    let (good, table) = dlq(&front, &["list"]);
    assert!(good && table.lines().count() == 2, "{table}");
    let id = listed[0]["id"].to_string();
    let (good, text) = dlq(&front, &["show", &id]);
    assert!(good && text.contains("refused stays"), "{text}");
    gone("stays");
    let (good, text) = dlq(&front, &["replay", &id]);
    assert!(good && text.contains("1 letter put back"), "{text}");
    wait_stored(&front, Signal::Logs, 60);
    // A second replay brings nothing a second time.
    let rows = || counter(&worker, "obtrace_process_rows_total", "signal=\"logs\"");
    let before = rows();
    assert!(dlq(&front, &["replay", &id]).0);
    wait_counter(&worker, "obtrace_process_rows_total", "signal=\"logs\"", before + 1);
    assert_eq!(stored(&front, Signal::Logs), 60);
    let replayed: Vec<Value> = letters(&front, "").iter().map(|letter| letter["replayed"].clone()).collect();
    assert_eq!(replayed, [2]);
    assert_eq!(front.stop().code(), Some(0));
    assert_eq!(worker.stop().code(), Some(0));
}
