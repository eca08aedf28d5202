//! The seven invariants that hold after every row of the fault table: what was seen in, a failed assertion out.
//!
//! 1. every acknowledged record is stored, dead-lettered or provably rejected
//! 2. no duplicate
//! 3. resident lane bytes never above the configured bound
//! 4. the tree is running within a time
//! 5. writes of zombies are counted, none landed
//! 6. the committed offset is not beyond the contiguous prefix of what is stored or put aside
//! 7. one chain of events a crash, the root cause first, and one crash record
//!
//! (4) is `Field::recovers`, the others are asked for by `Field::verify`; (1) and (2) of all signals by the load
//! generator's own verifier, of spans and log records by their sequence numbers as well.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, Instant};

use obtrace::domain::signal::{DLQ_TOPIC, Signal};
use obtrace::wire::envelope::names;
use serde_json::Value;

use super::log::{ClosedLog, sequences};
use super::watch::{Life, Seen};

/// Reasons for which a worker ends by a fault of its own.
const CRASHES: [&str; 4] = ["panicked", "stalled", "start_failed", "start_timeout"];

/// What a row leads to, beside the invariants.
pub struct Expect {
    /// Which crashes may be, and how many of them must be.
    pub crash: fn(&Crash) -> bool,
    /// How many.
    pub crashes: RangeInclusive<usize>,
    /// How often something that had been replaced tried to act.
    pub fenced: RangeInclusive<u64>,
    /// Sequence numbers of log records that end in the dead letters; the load is of log records alone then.
    pub dead: Option<fn(u64) -> bool>,
}

impl Default for Expect {
    /// Nothing crashes, nothing is put aside, nobody acts that was replaced.
    fn default() -> Self {
        Self { crash: |_| false, crashes: 0..=0, fenced: 0..=0, dead: None }
    }
}

/// A worker that crashed, as the journal tells it.
#[derive(Debug, Clone)]
pub struct Crash {
    /// Its path.
    pub path: String,
    /// Its incarnation.
    pub generation: u64,
    /// Why it ended.
    pub reason: String,
    /// In full.
    pub detail: String,
    at_unix_ns: u64,
}

/// What was found in the store after offsets had been found committed (6).
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// Committed offset by consumer, read before the store was.
    pub committed: BTreeMap<String, u64>,
    /// Spans and log records that were stored a moment later.
    pub stored: BTreeMap<Signal, BTreeSet<u64>>,
}

fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event[key].as_str().unwrap_or_default()
}

/// (3), (5) and the monotony of (6): what the onlooker noted.
pub fn looks(seen: &Seen, expect: &Expect, after: &str) {
    assert!(seen.looks > 3, "{after}: nobody looked");
    assert!(seen.over_full.is_empty(), "{after}: lanes above their bound: {:#?}", seen.over_full);
    assert!(
        !seen.peaks.is_empty() && seen.peaks.values().any(|(peak, _)| *peak > 0),
        "{after}: no lane was used"
    );
    assert!(seen.went_back.is_empty(), "{after}: committed offsets went back: {:?}", seen.went_back);
    let fenced = seen.sum(|life| life.fenced);
    let range = &expect.fenced;
    assert!(range.contains(&fenced), "{after}: {fenced} attempts of zombies, expected {range:?}");
}

/// (7): each crash has one chain of events and one record, and the root cause is the first of them.
pub fn chains(seen: &Seen, expect: &Expect, boxes: &Path, after: &str) -> Vec<Crash> {
    let mut crashes = Vec::new();
    let newest = seen.lives.keys().next_back().copied();
    for (number, life) in &seen.lives {
        // Of one that was killed the last events may not have been seen any more.
        let whole = Some(*number) == newest;
        crashes.extend(chain_of(life, whole, &format!("{after}, process {number}")));
    }
    for crash in &crashes {
        assert!((expect.crash)(crash), "{after}: not a crash of this row: {crash:?}");
    }
    let range = &expect.crashes;
    assert!(range.contains(&crashes.len()), "{after}: expected {range:?} crashes: {crashes:#?}");
    records(&crashes, seen.lives.len() == 1, boxes, after);
    crashes
}

/// The crashes of one process, each with what followed from it.
fn chain_of(life: &Life, whole: bool, after: &str) -> Vec<Crash> {
    let events: Vec<&Value> = life.events.values().collect();
    let mut crashes: Vec<Crash> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let (path, kind, generation) = (text(event, "path"), text(event, "event"), &event["generation"]);
        let same = |other: &&&Value| text(other, "path") == path && other["generation"] == *generation;
        if kind == "exited" && CRASHES.contains(&text(event, "reason")) {
            let exits = events.iter().filter(same).filter(|other| text(other, "event") == "exited").count();
            assert_eq!(exits, 1, "{after}: {path} ended more than once as generation {generation}");
            if life.missed == 0 {
                let born = |other: &&Value| text(other, "path") == path && text(other, "event") == "launched";
                assert!(events[..at].iter().any(born), "{after}: {path} ended and had never begun");
            }
            let rest = &events[at + 1..];
            assert!(follows(rest, path) || !whole, "{after}: nothing followed on {event}: {rest:#?}");
            crashes.push(Crash {
                path: path.to_owned(),
                generation: generation.as_u64().unwrap_or(0),
                reason: text(event, "reason").to_owned(),
                detail: text(event, "detail").to_owned(),
                at_unix_ns: event["at_unix_ns"].as_u64().unwrap_or(0),
            });
        }
        if kind == "escalated" {
            // Handed up by a child, which failed before and is named first.
            let why = text(event, "why");
            let child = why.split(": ").next().unwrap_or_default();
            let fell = |other: &&Value| text(other, "path") == child && text(other, "event") == "exited";
            assert!(events[..at].iter().any(fell), "{after}: {path} escalated before {child} fell: {why}");
        }
    }
    crashes
}

/// Whether something follows from the end of the worker at `path`: its restart, its quarantine, an escalation, or the
/// stop that was under way.
fn follows(rest: &[&Value], path: &str) -> bool {
    let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
    rest.iter().any(|event| {
        let (of, kind) = (text(event, "path"), text(event, "event"));
        let own = of == path && ["restart_planned", "quarantined", "launched", "stopped"].contains(&kind);
        own || (of == parent && (kind == "escalated" || kind == "exited"))
    })
}

/// Each crash has one record that says the same, and (of processes that were watched to their end) no record is of
/// anything else.
fn records(crashes: &[Crash], whole: bool, boxes: &Path, after: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    let written = loop {
        let written = black_boxes(boxes);
        // They are written by a thread of their own.
        if written.len() >= crashes.len() || Instant::now() > until {
            break written;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    for crash in crashes {
        let same = |record: &&Value| {
            let apart = record["at_unix_ns"].as_u64().unwrap_or(0).abs_diff(crash.at_unix_ns);
            text(record, "path") == crash.path
                && record["generation"].as_u64().is_some_and(|generation| generation >= crash.generation)
                && text(record, "detail") == crash.detail
                && apart < 5_000_000_000
        };
        let count = written.iter().filter(same).count();
        assert!(count >= 1, "{after}: no record of {crash:?}");
        let record = written.iter().find(same).expect("counted");
        // The last event of the fallen child in its own record is its fall: nothing is blamed that came later.
        let mut own = record["events"].as_array().into_iter().flatten();
        let last = own.rfind(|event| text(event, "path") == crash.path);
        assert!(
            last.is_some_and(
                |event| text(event, "event") == "exited" && text(event, "detail") == crash.detail
            ),
            "{after}: the record of {crash:?} ends with {last:?}"
        );
    }
    if whole {
        assert_eq!(written.len(), crashes.len(), "{after}: one record a crash: {crashes:#?} {written:#?}");
    }
}

/// The crash records in a folder, oldest first.
pub fn black_boxes(folder: &Path) -> Vec<Value> {
    let entries = std::fs::read_dir(folder).expect("the folder of crash records").flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        // The oldest may go meanwhile; what is there is whole.
        let bytes = std::fs::read(path).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    };
    paths.iter().filter_map(read).collect()
}

/// The sequence numbers of a run in the dead letters, by signal; fails where one is there twice.
pub fn letters(log: &ClosedLog, run: &str, after: &str) -> BTreeMap<Signal, BTreeSet<u64>> {
    let mut dead: BTreeMap<Signal, BTreeSet<u64>> = BTreeMap::new();
    for stored in log.topic(DLQ_TOPIC) {
        let header = |name: &str| stored.record.headers.iter().find(|(key, _)| key == name);
        let signal = header(names::SIGNAL).map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        let signal = signal.and_then(|name| Signal::parse(&name)).expect("a letter names its signal");
        for seq in sequences(&stored.record.payload, run) {
            assert!(dead.entry(signal).or_default().insert(seq), "{after}: {signal} {seq} has two letters");
        }
    }
    dead
}

/// (6): at every sight, everything below a committed offset was stored or put aside; and no offset is beyond its log.
pub fn prefixes(
    log: &ClosedLog,
    sights: &[Sight],
    run: &str,
    dead: &BTreeMap<Signal, BTreeSet<u64>>,
    after: &str,
) {
    assert!(!sights.is_empty(), "{after}: the store was never compared with the committed offsets");
    let mut compared = 0;
    for signal in Signal::ALL {
        for partition in 0..log.partitions(signal.topic()) {
            let (committed, end) = log.position(signal.topic(), partition);
            assert!(committed <= end, "{after}: {signal}-{partition} is committed to {committed} of {end}");
            if signal == Signal::Metrics {
                continue;
            }
            let consumer = format!("stream_in.consumers.{signal}-{partition}");
            let of_record = |stored: obtrace::backends::event_log::StoredRecord| {
                (stored.offset, sequences(&stored.record.payload, run))
            };
            let records: Vec<_> = log.records(signal.topic(), partition).into_iter().map(of_record).collect();
            let aside = dead.get(&signal).cloned().unwrap_or_default();
            for sight in sights {
                let reached = sight.committed.get(&consumer).copied().unwrap_or(0);
                assert!(reached <= committed, "{after}: {consumer} went back from {reached} to {committed}");
                let Some(stored) = sight.stored.get(&signal) else { continue };
                for (offset, seqs) in records.iter().take_while(|(offset, _)| *offset < reached) {
                    let lacks = seqs.iter().find(|seq| !stored.contains(seq) && !aside.contains(seq));
                    assert_eq!(
                        lacks, None,
                        "{after}: {consumer} had committed {reached} with {offset} not stored"
                    );
                    compared += seqs.len();
                }
            }
        }
    }
    assert!(compared > 0, "{after}: no record below a committed offset was ever compared");
}
