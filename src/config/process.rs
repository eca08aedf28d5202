//! `[process]`: how consumers cut the log into blocks for the store.

use std::time::Duration;

use super::effect::Effect::Process;
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
        /// How long one item of a suspect block may take, tried alone, before it counts as hanging.
        trial_patience: Duration = Duration::from_secs(15),
        /// When an item that cannot be stored is tried again, before it goes to the dead letters.
        retry: RetryConfig = RetryConfig::default() => Process,
    }
}

config_struct! {
    /// The retry ladder: what cannot be stored is tried once more on each rung. An outage of the store never leads there.
    pub struct RetryConfig {
        /// Wait before the second try. 0 leaves this rung out.
        first: Duration = Duration::from_secs(60),
        /// Wait before the third try. 0 leaves this rung out.
        second: Duration = Duration::from_secs(600),
    }
}

impl RetryConfig {
    /// The waits by rung, in the order of the retry topics; zero for a rung that is left out.
    pub fn waits(&self) -> [Duration; 2] {
        [self.first, self.second]
    }
}

impl Validate for RetryConfig {
    fn validate(&self, at: &mut Reader) {
        for (key, wait) in [("first", self.first), ("second", self.second)] {
            if wait > Duration::from_secs(86_400) {
                at.refuse(&[key], "must be at most 1d: the log has to keep what waits");
            }
        }
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
        if !(Duration::from_millis(100)..=Duration::from_secs(20)).contains(&self.trial_patience) {
            at.refuse(
                &["trial_patience"],
                "must be from 100ms to 20s: less is short on a busy machine, more than its block is waited for",
            );
        }
    }
}
