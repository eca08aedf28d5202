//! Messages to the process stage: blocks of records to turn into rows.

use crate::backends::event_log::StoredRecord;
use crate::domain::block::BlockId;
use crate::domain::offence::Verdict;
use crate::supervisors::kernel::lane::Cargo;
use crate::supervisors::kernel::port::Reply;

/// What became of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockOutcome {
    /// Every item is stored, waits on the retry ladder, or is in the dead letters.
    Settled {
        /// Rows in the store.
        rows: u64,
        /// Items that were put aside.
        aside: u64,
    },
    /// Not settled: something was found out about the block, and has its letters. Commit the verdict, then send the block
    /// again with it.
    Found {
        /// All that is known now.
        verdict: Verdict,
        /// True when there may be more: the block stays a suspect.
        suspect: bool,
    },
    /// Not settled: the same block must be sent again. Nothing was lost.
    NotNow(String),
    /// Worker after worker ended on it, and the operator has such blocks dropped (`lane.poison`): what it held is lost.
    Dropped(String),
    /// Not settled: worker after worker ended on it. The block must be sent again, as a suspect.
    Crashed(String),
}

/// stream → process · at least once · ≤ the block bounds · idempotent by block id.
///
/// Turn the records of one block into rows, store those, and put aside what cannot be stored.
pub struct ProcessBlock {
    /// Which block it is.
    pub block: BlockId,
    /// Its records, in order; offsets may have gaps.
    pub records: Vec<StoredRecord>,
    /// Payload bytes of the records.
    pub bytes: usize,
    /// What is known about the block, and committed.
    pub verdict: Verdict,
    /// True when someone who worked on it ended over it: it is tried in a process of its own first.
    pub suspect: bool,
    /// Answered when the block is settled.
    pub reply: Reply<BlockOutcome>,
}

impl Cargo for ProcessBlock {
    fn weight(&self) -> usize {
        self.bytes
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn poisoned(&self, attempts: u32) {
        let why = format!("the worker failed {attempts} times on block {}", self.block);
        self.reply.send(BlockOutcome::Crashed(why));
    }

    fn dropped(&self, attempts: u32) {
        let why = format!("the worker failed {attempts} times on block {}", self.block);
        self.reply.send(BlockOutcome::Dropped(why));
    }
}

impl std::fmt::Debug for ProcessBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProcessBlock({}, {} bytes)", self.block, self.bytes)
    }
}
