//! What the process stage tells of itself: a settled block in, one trace of it in the pocket of own telemetry out.
//!
//! Loop-safe: of a block that holds a batch of Obtrace's own tenant nothing is told.

use crate::clock;
use crate::domain::scope::OWN_TENANT;
use crate::messages::process::{BlockOutcome, ProcessBlock};
use crate::telemetry::own::spans::{self, BlockTimes, TRACES};
use crate::wire::envelope::from_record_headers;

/// Tells of a block that was taken up and transformed at `times`, and is settled, or not, now.
pub fn block(process: &ProcessBlock, times: [u64; 2], outcome: &BlockOutcome) {
    if !TRACES.is_open() || is_own(process) {
        return;
    }
    let [taken, transformed] = times;
    TRACES.put(|| {
        // The records stand in the order of their arrival in the log, so the first is the oldest.
        let header =
            process.records.first().and_then(|first| from_record_headers(&first.record.headers).ok());
        spans::block(&BlockTimes {
            block: process.block.to_string(),
            size: (process.records.len() as u64, process.bytes as u64),
            received: header.map_or(taken, |header| header.received_at_ns),
            taken,
            transformed,
            settled: clock::unix_nanos(),
            outcome: match outcome {
                BlockOutcome::Settled { rows, aside } => Ok((*rows, *aside)),
                BlockOutcome::Found { .. } => {
                    Err(String::from("offenders were found, the block is cut without them"))
                }
                BlockOutcome::NotNow(why) | BlockOutcome::Crashed(why) | BlockOutcome::Dropped(why) => {
                    Err(why.clone())
                }
            },
        })
    });
}

/// True when a batch of the own tenant is in it. A record's key is its tenant.
fn is_own(process: &ProcessBlock) -> bool {
    process.records.iter().any(|stored| stored.record.key == OWN_TENANT.as_bytes())
}
