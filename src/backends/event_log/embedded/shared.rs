//! What callers, readers and the writer thread share, and how it is put together when the log is opened.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::appender::Appender;
use super::counters::Counters;
use super::folder;
use super::groups::{Journal, Table};
use super::partition::Partition;
use super::queue::{Op, Queue};
use super::recover::Recovery;
use super::segment::sync_dir;
use super::writer::Writer;
use super::{EmbeddedLogConfig, OpenReport, TopicConfig};
use crate::backends::event_log::{LogError, Offset};

/// How a file is made durable; tests put a failing one in its place.
pub(super) type SyncFile = Box<dyn Fn(&File) -> io::Result<()> + Send + Sync>;

/// The log behind its handles.
pub(super) struct Shared {
    pub config: EmbeddedLogConfig,
    pub salt: u32,
    pub topics: HashMap<String, Topic>,
    pub partitions: Vec<Arc<Partition>>,
    pub queue: Queue,
    pub groups: Table,
    pub counters: Counters,
    sync: SyncFile,
    lock: folder::Lock,
}

/// A topic; its partitions are the slots from `first_slot` on.
pub(super) struct Topic {
    pub first_slot: usize,
    pub config: TopicConfig,
}

/// Opens the folder and starts the writer thread.
pub(super) fn open(config: EmbeddedLogConfig, sync: SyncFile) -> Result<(Arc<Shared>, OpenReport), LogError> {
    if config.queue_bytes < config.max_record_bytes {
        let what = "the write queue is smaller than the largest record; raise queue_bytes".to_owned();
        return Err(folder::refuse(&config.dir, what));
    }
    let lock = folder::lock(&config.dir)?;
    let salt = folder::salt(&config.dir)?;
    let unknown_topics = folder::topics(&config.dir, &config.topics)?;
    let groups = Journal::open(&config.dir.join(folder::GROUPS_DIR), salt)?;
    sync_dir(&config.dir)?;
    let mut report = OpenReport {
        torn_bytes: groups.torn_bytes,
        torn_records: u64::from(groups.torn_bytes > 0),
        corrupt: groups.corrupt,
        unknown_topics,
        ..OpenReport::default()
    };
    let opened = open_partitions(&config, salt, &groups.table, &mut report);
    let (topics, partitions, appenders) = opened.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => folder::refuse(&config.dir, error.to_string()),
        _ => error.into(),
    })?;
    let queue = Queue::new(config.queue_bytes);
    let counters = Counters::default();
    counters.corrupt.store(report.corrupt, Ordering::Relaxed);
    counters.torn.store(report.torn_records, Ordering::Relaxed);
    let groups_table = groups.table;
    let shared =
        Shared { config, salt, topics, partitions, queue, groups: groups_table, counters, sync, lock };
    let shared = Arc::new(shared);
    Writer::new(Arc::clone(&shared), appenders, groups.journal).spawn()?;
    Ok((shared, report))
}

type Opened = (HashMap<String, Topic>, Vec<Arc<Partition>>, Vec<Appender>);

fn open_partitions(
    config: &EmbeddedLogConfig,
    salt: u32,
    groups: &Table,
    report: &mut OpenReport,
) -> io::Result<Opened> {
    let (mut topics, mut partitions, mut appenders) = (HashMap::new(), Vec::new(), Vec::new());
    for topic in &config.topics {
        topics.insert(topic.name.clone(), Topic { first_slot: partitions.len(), config: topic.clone() });
        for number in 0..topic.partitions {
            let committed = highest_committed(groups, &topic.name, number);
            let dir = config.dir.join(&topic.name).join(number.to_string());
            let recovery = Recovery { salt, dedup: config.dedup_window, committed, report: &mut *report };
            let (partition, appender) = recovery.open(&topic.name, number, dir)?;
            partitions.push(partition);
            appenders.push(appender);
        }
    }
    report.partitions = partitions.len();
    Ok((topics, partitions, appenders))
}

fn highest_committed(groups: &Table, topic: &str, partition: u32) -> Offset {
    let groups = groups.read();
    let here = groups.iter().filter(|(key, _)| key.topic == topic && key.partition == partition);
    here.filter_map(|(_, entry)| entry.committed.as_ref().map(|c| c.offset)).max().unwrap_or(0)
}

impl Shared {
    /// The slot of a partition.
    pub(super) fn slot(&self, topic: &str, partition: u32) -> Result<usize, LogError> {
        match self.topics.get(topic) {
            Some(found) if partition < found.config.partitions => Ok(found.first_slot + partition as usize),
            _ => Err(LogError::NoPartition { topic: topic.to_owned(), partition }),
        }
    }

    /// Refuses when the log is closed.
    pub(super) fn open_for_use(&self) -> Result<(), LogError> {
        if self.queue.is_closed() { Err(LogError::Closed) } else { Ok(()) }
    }

    /// Queues an operation and counts a refusal.
    pub(super) fn push(&self, op: Op) -> Result<(), LogError> {
        self.queue.push(op).inspect_err(|error| {
            if matches!(error, LogError::Full) {
                self.counters.full.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// Makes a file's content durable.
    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        self.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
        (self.sync)(file)
    }

    /// The writer has ended: the folder is free, nobody waits any more.
    pub(super) fn end(&self) {
        self.lock.release();
        self.partitions.iter().for_each(|p| p.close());
        self.queue.end();
    }
}
