//! Messages to the process stage: blocks of records to turn into rows.

use crate::backends::event_log::StoredRecord;
use crate::domain::block::BlockId;
use crate::supervisors::kernel::lane::Cargo;
use crate::supervisors::kernel::port::Reply;

/// What became of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockOutcome {
    /// Every record is stored or in the dead letters.
    Settled {
        /// Rows in the store.
        rows: u64,
        /// Records in the dead letters.
        dead: u64,
    },
    /// Not settled: the same block must be sent again. Nothing was lost.
    NotNow(String),
}

/// stream → process · at least once · ≤ the block bounds · idempotent by block id.
///
/// Turn the records of one block into rows, store those, and put what cannot be stored into the dead letters.
pub struct ProcessBlock {
    /// Which block it is.
    pub block: BlockId,
    /// Its records, in order and without gaps.
    pub records: Vec<StoredRecord>,
    /// Payload bytes of the records.
    pub bytes: usize,
    /// Answered when the block is settled.
    pub reply: Reply<BlockOutcome>,
}

impl Cargo for ProcessBlock {
    fn weight(&self) -> usize {
        self.bytes
    }

    fn poisoned(&self, attempts: u32) {
        self.reply.send(BlockOutcome::NotNow(format!(
            "the worker failed {attempts} times on block {}",
            self.block
        )));
    }
}

impl std::fmt::Debug for ProcessBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProcessBlock({}, {} bytes)", self.block, self.bytes)
    }
}
