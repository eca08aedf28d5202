//! Blocks: contiguous runs of records that are stored together, and the intent that makes storing them repeatable.
//!
//! A partition consumer first commits the *intent* (old offset, planned end in the metadata), then stores the block
//! under its id, then commits the end. Whoever takes over after a crash finds the intent and cuts the very same block,
//! whose id the store already knows (ARCHITECTURE.md, invariant 2).

use std::fmt;

use super::offence::Verdict;

const INTENT_PREFIX: &str = "intent=";
const BY_PREFIX: &str = "by=";

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
    /// The id of the records `first..end` of this block, when the block is stored in parts.
    pub fn part(&self, first: u64, end: u64) -> Self {
        Self { first, end, ..self.clone() }
    }

    /// The place of one of its records: `topic-partition-offset`.
    pub fn place(&self, offset: u64) -> String {
        format!("{}-{}-{offset}", self.topic, self.partition)
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{}", self.topic, self.partition, self.first, self.end)
    }
}

/// What is announced of an open block: where it ends, who works on it, and what was found out about it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Plan {
    /// One past the last offset of the block.
    pub end: u64,
    /// The process that has it in hand. Another process that finds the block open must suspect it of having ended this one.
    pub by: Option<u64>,
    /// What was found out about the block.
    pub verdict: Verdict,
}

impl Plan {
    /// A fresh block up to `end` in the hands of process `by`.
    pub fn new(end: u64, by: u64) -> Self {
        Self { end, by: Some(by), verdict: Verdict::default() }
    }

    /// The commit metadata that announces it, at most `most` bytes long.
    pub fn to_metadata(&self, most: usize) -> String {
        let mut text = format!("{INTENT_PREFIX}{}", self.end);
        if let Some(by) = self.by {
            text.push_str(&format!(" {BY_PREFIX}{by:x}"));
        }
        let room = most.saturating_sub(text.len());
        text.push_str(&self.verdict.to_text(room));
        text
    }

    /// The plan in commit metadata, if it holds one that ends past `offset`. A trailing NUL, which some clients add, is
    /// ignored; so is anything that is not an intent.
    pub fn parse(metadata: &str, offset: u64) -> Option<Self> {
        let mut words = metadata.trim_end_matches('\0').split(' ');
        let end = words.next()?.strip_prefix(INTENT_PREFIX)?.parse().ok()?;
        let by = words.clone().find_map(|word| u64::from_str_radix(word.strip_prefix(BY_PREFIX)?, 16).ok());
        (end > offset).then(|| Self { end, by, verdict: Verdict::from_words(words) })
    }
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
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::offence::Item;

    #[test]
    fn a_plan_survives_the_round_trip_and_nothing_else_is_taken_for_one() {
        let plan = Plan::new(17, 0xab);
        assert_eq!(plan.to_metadata(4096), "intent=17 by=ab");
        assert_eq!(Plan::parse(&plan.to_metadata(4096), 3), Some(plan.clone()));
        let verdict = Verdict { apart: true, dead: [Item::at(5, 2)].into() };
        let judged = Plan { verdict, ..plan };
        assert_eq!(Plan::parse(&judged.to_metadata(4096), 3), Some(judged));
        let of_old = Plan { end: 17, by: None, verdict: Verdict::default() };
        assert_eq!(Plan::parse("intent=17\0", 3), Some(of_old));
        assert_eq!(Plan::parse("intent=3", 3), None, "an empty block is none");
        for other in ["", "17", "intent=", "intent=x", "intent=-1"] {
            assert_eq!(Plan::parse(other, 0), None, "{other:?}");
        }
    }

    #[test]
    fn a_plan_keeps_within_its_bytes() {
        let dead = (0..10_000).map(|n| Item::at(n, 3)).collect();
        let plan = Plan { verdict: Verdict { apart: true, dead }, ..Plan::new(10_000, u64::MAX) };
        let text = plan.to_metadata(4096);
        assert!(text.len() <= 4096);
        let kept = Plan::parse(&text, 0).unwrap();
        assert!(kept.verdict.apart && kept.end == 10_000 && kept.verdict.dead.len() > 100);
    }

    #[test]
    fn block_ids_name_their_place() {
        let id = BlockId { topic: "obtrace.traces".into(), partition: 1, first: 5, end: 9 };
        assert_eq!(id.to_string(), "obtrace.traces-1-5-9");
        assert_eq!(id.part(7, 8).to_string(), "obtrace.traces-1-7-8");
        assert_eq!(id.place(7), "obtrace.traces-1-7");
    }

    #[test]
    fn every_partition_is_reached_and_none_beyond() {
        let hit: std::collections::BTreeSet<u32> = (0..100).map(|h| partition_of(h, 3)).collect();
        assert_eq!(hit.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(partition_of(9, 0), 0);
    }
}
