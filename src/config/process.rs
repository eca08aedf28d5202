//! `[process]`: how consumers cut the log into blocks for the store.

use std::time::Duration;

use super::reader::Reader;
use super::schema::{Validate, config_struct};
use super::units::ByteSize;

config_struct! {
    /// The partition consumers of the telemetry worker.
    pub struct ProcessConfig {
        /// A block is inserted when it holds this many rows. Larger blocks cost the store less for each row.
        block_rows: u32 = 50_000,
        /// A block is inserted when its payloads reach this size. With partitions × signals it bounds the memory.
        block_bytes: ByteSize = ByteSize::mib(32),
        /// A block is inserted at the latest this long after its first record came: how soon rows can be found.
        linger: Duration = Duration::from_millis(300),
        /// Threads that decode payloads and build columns. 0 = one for each core.
        workers: u32 = 0,
        /// Tries of a block that the store refuses as bad before its records are tried one by one.
        max_attempts: u16 = 3,
    }
}

impl Validate for ProcessConfig {
    fn validate(&self, at: &mut Reader) {
        if self.block_rows == 0 {
            at.refuse(&["block_rows"], "must be at least 1");
        }
        if self.block_bytes < ByteSize::kib(64) {
            at.refuse(&["block_bytes"], "must be at least 64KiB");
        }
        if self.linger > Duration::from_secs(60) {
            at.refuse(&["linger"], "must be at most 1m: rows cannot be found before");
        }
        if self.workers > 1024 {
            at.refuse(&["workers"], "must be at most 1024");
        }
        if self.max_attempts == 0 {
            at.refuse(&["max_attempts"], "must be at least 1");
        }
    }
}
