//! The only source of time: wall time for what is stored, monotonic time for what is waited for.

use std::time::{SystemTime, UNIX_EPOCH};

/// Wall time in Unix nanoseconds. Goes into records and headers; never used to measure a wait.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn unix_nanos() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// Monotonic time. Under a paused tokio runtime it stands still with it, so tests of waits need no real waiting.
pub fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
