//! The event log of a process that is down, as its files say: records, committed offsets, dead letters.

use std::collections::BTreeSet;
use std::path::Path;

use obtrace::backends::event_log::embedded::{EmbeddedLog, EmbeddedLogConfig, TopicConfig};
use obtrace::backends::event_log::{EventLog as _, StoredRecord};
use obtrace::supervisors::stream::WORKER_GROUP;
use serde_json::Value;

use super::block_on;

/// A log that nobody else has open.
pub struct ClosedLog {
    log: EmbeddedLog,
}

impl ClosedLog {
    /// Opens the log in `dir` with the topics and partitions that are there.
    pub fn open(dir: &Path) -> Self {
        let named = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let folders = |path: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(path).expect("the log's folder").flatten();
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).filter_map(|p| named(&p)).collect()
        };
        let topics = folders(dir).into_iter().filter(|name| name.starts_with("obtrace"));
        let topics = topics.map(|name| {
            let partitions = folders(&dir.join(&name)).iter().filter_map(|n| n.parse::<u32>().ok()).max();
            TopicConfig::new(&name, partitions.map_or(1, |most| most + 1))
        });
        let (log, _) =
            EmbeddedLog::open(EmbeddedLogConfig::new(dir, topics.collect())).expect("the log opens");
        Self { log }
    }

    /// Partitions of a topic; 0 where there is none.
    pub fn partitions(&self, topic: &str) -> u32 {
        self.log.partitions(topic).unwrap_or(0)
    }

    /// All records of a partition.
    pub fn records(&self, topic: &str, partition: u32) -> Vec<StoredRecord> {
        let (mut next, end) = self.log.bounds(topic, partition).expect("the partition is there");
        let mut all = Vec::new();
        while next < end {
            let read =
                block_on(self.log.read(topic, partition, next, 1000, 1 << 26)).expect("it can be read");
            next = read.last().map_or(end, |last| last.offset + 1);
            all.extend(read);
        }
        all
    }

    /// All records of a topic.
    pub fn topic(&self, topic: &str) -> Vec<StoredRecord> {
        (0..self.partitions(topic)).flat_map(|partition| self.records(topic, partition)).collect()
    }

    /// Where the workers' group stands in a partition, and where the partition ends.
    pub fn position(&self, topic: &str, partition: u32) -> (u64, u64) {
        let committed = self.log.committed(WORKER_GROUP, topic, partition).expect("the partition is there");
        let (_, end) = self.log.bounds(topic, partition).expect("the partition is there");
        (committed.map_or(0, |committed| committed.offset), end)
    }
}

/// The sequence numbers that a payload of the load generator's run `run` holds.
pub fn sequences(payload: &[u8], run: &str) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    // A payload of somebody else may be in another format.
    if let Ok(json) = serde_json::from_slice::<Value>(payload) {
        walk(&json, run, &mut found);
    }
    found
}

/// A record is an object with a list of attributes, among them the run's name and the sequence number.
fn walk(value: &Value, run: &str, found: &mut BTreeSet<u64>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, run, found)),
        Value::Object(fields) => {
            if let Some(attributes) = fields.get("attributes").and_then(Value::as_array) {
                let of = |key: &str| attributes.iter().find(|one| one["key"] == key).map(|one| &one["value"]);
                let ours = of("obtrace.load.run").is_some_and(|value| value["stringValue"] == run);
                let seq = of("obtrace.load.seq").map(|value| &value["intValue"]);
                let number = |seq: &Value| seq.as_u64().or_else(|| seq.as_str()?.parse().ok());
                found.extend(seq.filter(|_| ours).and_then(number));
            }
            fields.values().for_each(|field| walk(field, run, found));
        }
        _ => {}
    }
}
