//! What the log counts about itself, and the figures it gives out. Cannot fail.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::backends::event_log::Offset;

/// Counters since the log was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub appends: AtomicU64,
    pub bytes: AtomicU64,
    pub commits: AtomicU64,
    pub fsyncs: AtomicU64,
    pub duplicates: AtomicU64,
    pub full: AtomicU64,
    pub failed: AtomicU64,
    pub corrupt: AtomicU64,
    pub torn: AtomicU64,
}

/// The log's figures at one moment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LogStats {
    /// One entry a partition.
    pub partitions: Vec<PartitionStats>,
    /// Bytes waiting in the write queue or being written.
    pub queued_bytes: usize,
    /// Records made durable since the log was opened.
    pub appends: u64,
    /// Bytes written for them (frames, after compression).
    pub bytes: u64,
    /// Group commits (rounds of the writer thread).
    pub commits: u64,
    /// Files synced.
    pub fsyncs: u64,
    /// Appends answered with an earlier copy.
    pub duplicates: u64,
    /// Appends refused because the queue was full.
    pub full: u64,
    /// Appends and commits that failed at the disk.
    pub failed: u64,
    /// Damaged places met, at open and by reads.
    pub corrupt: u64,
    /// Torn tails cut at open.
    pub torn: u64,
}

/// Figures of one partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartitionStats {
    /// Topic.
    pub topic: String,
    /// Partition number.
    pub partition: u32,
    /// First offset still there.
    pub first: Offset,
    /// One past the last durable offset.
    pub end: Offset,
    /// Bytes on disk.
    pub bytes: u64,
    /// Segment files.
    pub segments: usize,
}

impl Counters {
    /// The counters with the figures that are not counters.
    pub(super) fn stats(&self, partitions: Vec<PartitionStats>, queued_bytes: usize) -> LogStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            partitions,
            queued_bytes,
            appends: get(&self.appends),
            bytes: get(&self.bytes),
            commits: get(&self.commits),
            fsyncs: get(&self.fsyncs),
            duplicates: get(&self.duplicates),
            full: get(&self.full),
            failed: get(&self.failed),
            corrupt: get(&self.corrupt),
            torn: get(&self.torn),
        }
    }
}
