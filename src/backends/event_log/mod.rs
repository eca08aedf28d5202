//! The event log port: a partitioned, durable, append-only log with consumer groups.
//!
//! In: records from the edge. Out: the same records, by offset, to partition consumers. What may fail: [`LogError`].
//! One contract suite (`tests/backends/event_log.rs`) runs against every implementation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::domain::failure::{Classified, FailureClass};

pub mod dedup;
pub mod embedded;
pub mod kafka;

/// Most bytes of metadata a commit may carry.
pub const MAX_METADATA_BYTES: usize = 4096;

/// Position of a record within its partition, from 0.
pub type Offset = u64;

/// A record as the log keeps it: key, headers (name, value) and payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Routing key (tenant and sub-shard).
    pub key: Bytes,
    /// Headers in the order they were written.
    pub headers: Vec<(String, Bytes)>,
    /// Payload.
    pub payload: Bytes,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({} headers, {} bytes)", self.headers.len(), self.payload.len())
    }
}

impl Record {
    /// Bytes this record counts for in byte bounds.
    pub fn size(&self) -> usize {
        self.key.len()
            + self.payload.len()
            + self.headers.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>()
    }
}

/// A record with its place, as read.
#[derive(Debug, Clone)]
pub struct StoredRecord {
    /// Where it stands in its partition.
    pub offset: Offset,
    /// The record.
    pub record: Record,
}

/// The answer to an append: the record is durable when this is returned. What that means, the log says: synced to the disk
/// (embedded), or on all replicas in sync (Kafka).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the record (of the first copy, if `duplicate`).
    pub offset: Offset,
    /// True when a record with the same dedup key was already in the window: nothing was written again.
    pub duplicate: bool,
}

/// A consumer group's committed position in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// The next offset to be consumed.
    pub offset: Offset,
    /// Free text of the consumer, at most [`MAX_METADATA_BYTES`]: Obtrace keeps the intent of the open block in it.
    pub metadata: String,
}

/// A consumer's right to commit for a partition. A later claim of the same (group, topic, partition) fences all earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim(pub u64);

/// The partitions that a consumer group has given to this process, each (topic, partition) with the number of the
/// assignment: one that went away and came back has another number, and everything claimed before is void.
pub type Assigned = BTreeMap<(String, u32), u64>;

/// Figures of a log whose server is elsewhere, since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemoteStats {
    /// Bytes on their way to the brokers.
    pub queued_bytes: u64,
    /// Appends that were not acknowledged.
    pub delivery_errors: u64,
    /// Times a group gave this process partitions or took some away.
    pub rebalances: u64,
    /// Commits that came too late: the partition was another's by then.
    pub fenced: u64,
    /// Repeats that were not written, or left out in reading.
    pub duplicates: u64,
}

/// Why the log refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The topic or partition does not exist.
    #[error("no partition {partition} in topic {topic}")]
    NoPartition {
        /// Topic asked for.
        topic: String,
        /// Partition asked for.
        partition: u32,
    },
    /// A record above the configured limit.
    #[error("record of {size} bytes is over the limit of {limit} bytes (stream.max_record_bytes)")]
    TooLarge {
        /// Size of the record.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// Writes wait in the bounded queue and it is full.
    #[error("the log's write queue is full")]
    Full,
    /// The disk refused: out of space, or an I/O error. Nothing of the append is kept; it may be tried again.
    #[error("the log cannot use its files: {0}")]
    Io(Arc<std::io::Error>),
    /// The folder or the settings do not allow this log to be opened.
    #[error("cannot open the event log in {dir}: {what}")]
    Open {
        /// Folder of the log.
        dir: String,
        /// What is in the way and what to do.
        what: String,
    },
    /// Commit metadata above [`MAX_METADATA_BYTES`].
    #[error("commit metadata of {size} bytes is over the limit of {MAX_METADATA_BYTES} bytes")]
    MetadataTooLong {
        /// Size of the metadata in bytes.
        size: usize,
    },
    /// A commit of records that do not exist yet.
    #[error("cannot commit offset {offset}, the log ends at {end}")]
    BeyondEnd {
        /// Offset that was to be committed.
        offset: Offset,
        /// End of the partition.
        end: Offset,
    },
    /// The offset was removed by retention; `start` is the first one still there.
    #[error("offset {offset} is gone, the log starts at {start}")]
    OutOfRange {
        /// Offset asked for.
        offset: Offset,
        /// First offset still there.
        start: Offset,
    },
    /// The claim was superseded by a later one.
    #[error("a later consumer has taken over this partition")]
    Fenced,
    /// Stored bytes that do not check out in the middle of the log (a torn tail is cut at open instead).
    /// Reading on from `next` passes the damage.
    #[error("{file} is corrupt at byte {position}: {what}; readable again from offset {next}")]
    Corrupt {
        /// File name within the log folder.
        file: String,
        /// Byte position.
        position: u64,
        /// What was found.
        what: String,
        /// First offset after the damage that can be read.
        next: Offset,
    },
    /// The brokers cannot be reached, or do not answer in time. It may be tried again.
    #[error("the event log's brokers: {0}")]
    Away(String),
    /// The brokers refuse what an operator has to set right.
    #[error("the event log's brokers refuse: {0}")]
    Settings(String),
    /// Appends failed a moment ago, so this one was not tried. It may be tried again.
    #[error("the event log counts as down since earlier appends failed")]
    Down,
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
}

impl From<std::io::Error> for LogError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl Classified for LogError {
    fn class(&self) -> FailureClass {
        match self {
            Self::NoPartition { .. } | Self::Open { .. } | Self::Settings(_) => FailureClass::Config,
            Self::MetadataTooLong { .. } | Self::BeyondEnd { .. } => FailureClass::Bug,
            Self::TooLarge { .. } | Self::Corrupt { .. } => FailureClass::Poison,
            Self::Full => FailureClass::Overload,
            Self::Io(_) | Self::Away(_) | Self::Down | Self::Closed | Self::OutOfRange { .. } => {
                FailureClass::Dependency
            }
            Self::Fenced => FailureClass::Fenced,
        }
    }
}

/// A partitioned durable log. All methods may be called from any thread; futures run on any runtime.
pub trait EventLog: Send + Sync + 'static {
    /// Number of partitions of `topic`, or `None` when there is no such topic.
    fn partitions(&self, topic: &str) -> Option<u32>;

    /// Appends a record; resolves when it is durable (see [`Appended`]). With a `dedup` key that is within the partition's
    /// dedup window, nothing is written and the offset of the first copy is returned once that copy is durable.
    fn append(
        &self,
        topic: &str,
        partition: u32,
        record: Record,
        dedup: Option<u128>,
    ) -> BoxFuture<'static, Result<Appended, LogError>>;

    /// Reads records from `from` on, in order: at least one if there is one, then up to `max_records` / `max_bytes`.
    /// Only records that are durable are returned. Empty when `from` is the end or beyond.
    /// [`LogError::Corrupt`] comes only when the damage stands at `from` itself; what is readable before it is returned first.
    fn read(
        &self,
        topic: &str,
        partition: u32,
        from: Offset,
        max_records: usize,
        max_bytes: usize,
    ) -> BoxFuture<'static, Result<Vec<StoredRecord>, LogError>>;

    /// Resolves as soon as a record with an offset of at least `at` is durable (at once if there is one).
    fn wait_for(&self, topic: &str, partition: u32, at: Offset) -> BoxFuture<'static, Result<(), LogError>>;

    /// First offset still there and the offset one past the last durable record.
    fn bounds(&self, topic: &str, partition: u32) -> Result<(Offset, Offset), LogError>;

    /// Takes the partition over for a consumer of `group`, fencing every earlier claim, and returns where it stands:
    /// the committed position, or the first offset still there for a group that never committed.
    fn claim(
        &self,
        group: &str,
        topic: &str,
        partition: u32,
    ) -> BoxFuture<'static, Result<(Claim, Committed), LogError>>;

    /// Commits a position (durably, before it resolves).
    ///
    /// # Errors
    /// [`LogError::Fenced`] when `claim` is not the latest one of (group, topic, partition).
    fn commit(
        &self,
        group: &str,
        topic: &str,
        partition: u32,
        claim: Claim,
        position: Committed,
    ) -> BoxFuture<'static, Result<(), LogError>>;

    /// Removes what is over age or size at `now_ns` (Unix nanoseconds); returns how many segments went. A log whose
    /// server does that by itself keeps the default, which does nothing.
    fn enforce_retention(&self, _now_ns: u64) -> BoxFuture<'static, Result<usize, LogError>> {
        Box::pin(async { Ok(0) })
    }

    /// The committed position of a group, without claiming it (for lag and listings). A log that is shared knows it only
    /// of partitions that this process claimed.
    fn committed(&self, group: &str, topic: &str, partition: u32) -> Result<Option<Committed>, LogError>;

    /// Gives a claim back: whoever held it is done. Nothing happens when it was superseded.
    fn release(&self, _group: &str, _topic: &str, _partition: u32, _claim: Claim) {}

    /// The partitions that `group` has given to this process, as they come and go; the first call joins the group.
    /// `None` where all partitions are this process's for good.
    ///
    /// A partition that leaves the set is kept from others until its claim is released, or for a bounded time; after
    /// that its claim is fenced.
    fn assigned(&self, _group: &str) -> Option<watch::Receiver<Assigned>> {
        None
    }

    /// Gives all partitions of `group` back and leaves it, so that others need not wait until they miss us.
    fn leave(&self, _group: &str) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    /// The first offset from `from` on at which there may be a record to read, as far as is known without waiting: what
    /// the log leaves out as a repeat counts for nothing, in lag for one.
    fn skip(&self, _topic: &str, _partition: u32, from: Offset) -> Offset {
        from
    }

    /// What stands in the way of the log at the moment, if something does.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Figures, where the log's server is elsewhere.
    fn remote_stats(&self) -> Option<RemoteStats> {
        None
    }

    /// Makes what is queued durable and closes the log, within `deadline`; blocks.
    ///
    /// # Errors
    /// What was not done by then.
    fn close(&self, _deadline: Duration) -> Result<(), LogError> {
        Ok(())
    }
}
