//! Messages to the stream stage: appends to the event log.

use crate::backends::event_log::{Appended, LogError, Record};
use crate::supervisors::kernel::lane::Cargo;
use crate::supervisors::kernel::port::Reply;

/// ingest, process → producer · at least once · ≤ the log's record limit · idempotent by `dedup`.
///
/// Append one record and answer when it is on disk.
#[derive(Debug)]
pub struct AppendRecord {
    /// Topic.
    pub topic: &'static str,
    /// Partition.
    pub partition: u32,
    /// The record.
    pub record: Record,
    /// Key by which a repeat is recognised.
    pub dedup: Option<u128>,
    /// Answered once the record is on disk.
    pub reply: Reply<Result<Appended, LogError>>,
}

impl Cargo for AppendRecord {
    fn weight(&self) -> usize {
        self.record.size()
    }

    fn poisoned(&self, _attempts: u32) {
        // The producer failed again and again on it: for the sender the log is not there.
        self.reply.send(Err(LogError::Closed));
    }
}
