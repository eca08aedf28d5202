//! Blocks: contiguous runs of records that are stored together, and the intent that makes storing them repeatable.
//!
//! A partition consumer first commits the *intent* (old offset, planned end in the metadata), then stores the block
//! under its id, then commits the end. Whoever takes over after a crash finds the intent and cuts the very same block,
//! whose id the store already knows (ARCHITECTURE.md, invariant 2).

use std::fmt;

const INTENT_PREFIX: &str = "intent=";

/// A block of one partition: offsets `first..end`. Its text form is the store's deduplication token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BlockId {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// First offset in the block.
    pub first: u64,
    /// One past the last offset in the block.
    pub end: u64,
}

impl BlockId {
    /// The id of the block that holds only `offset`, used when a block is taken apart around a bad record.
    pub fn single(&self, offset: u64) -> Self {
        Self { first: offset, end: offset + 1, ..self.clone() }
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{}", self.topic, self.partition, self.first, self.end)
    }
}

/// The commit metadata that announces a block ending at `end`.
pub fn intent(end: u64) -> String {
    format!("{INTENT_PREFIX}{end}")
}

/// The planned end in commit metadata, if it holds an intent past `offset`. A trailing NUL, which some clients add, is
/// ignored; so is anything that is not an intent.
pub fn planned_end(metadata: &str, offset: u64) -> Option<u64> {
    let end = metadata.trim_end_matches('\0').strip_prefix(INTENT_PREFIX)?.parse().ok()?;
    (end > offset).then_some(end)
}

/// When a block is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutRule {
    /// Most rows (spans, log records, data points).
    pub rows: u64,
    /// Most payload bytes.
    pub bytes: u64,
}

impl CutRule {
    /// True when a block that holds this much takes no further record.
    pub fn is_full(&self, rows: u64, bytes: u64) -> bool {
        rows >= self.rows || bytes >= self.bytes
    }
}

/// The partition of a batch: the tenant's sub-partitions are all partitions of the topic, and the content hash picks
/// one, so that a client's resend meets its first copy in the same partition's deduplication window.
pub fn partition_of(content_hash: u128, partitions: u32) -> u32 {
    // Truncation is the point: the low bits are as good as any.
    (content_hash as u64 % u64::from(partitions.max(1))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_survives_the_round_trip_and_nothing_else_is_taken_for_one() {
        assert_eq!(planned_end(&intent(17), 3), Some(17));
        assert_eq!(planned_end("intent=17\0", 3), Some(17));
        assert_eq!(planned_end(&intent(3), 3), None, "an empty block is none");
        for other in ["", "17", "intent=", "intent=x", "intent=-1"] {
            assert_eq!(planned_end(other, 0), None, "{other:?}");
        }
    }

    #[test]
    fn block_ids_name_their_place() {
        let id = BlockId { topic: "obtrace.traces".into(), partition: 1, first: 5, end: 9 };
        assert_eq!(id.to_string(), "obtrace.traces-1-5-9");
        assert_eq!(id.single(7).to_string(), "obtrace.traces-1-7-8");
    }

    #[test]
    fn every_partition_is_reached_and_none_beyond() {
        let hit: std::collections::BTreeSet<u32> = (0..100).map(|h| partition_of(h, 3)).collect();
        assert_eq!(hit.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(partition_of(9, 0), 0);
    }
}
