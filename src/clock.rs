//! The only source of time: wall time for what is stored, monotonic time for what is waited for, and wall time that
//! does not jump for what is kept by age.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall time in Unix nanoseconds. Goes into records and headers; never used to measure a wait.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn unix_nanos() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    shifted(wall.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
}

/// Unix nanoseconds that only move forward, at the pace of the monotonic clock: wall time at the first call, and what
/// has passed since. What is kept or forgotten by age (dedup keys, segments of the log) goes by it, so that a clock that
/// jumps by an hour makes nothing an hour older. Sleep of the machine does not count.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn steady_nanos() -> u64 {
    static BEGUN: OnceLock<(u64, Instant)> = OnceLock::new();
    let (wall, at) = BEGUN.get_or_init(|| (unix_nanos(), Instant::now()));
    wall.saturating_add(u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// Monotonic time. Under a paused tokio runtime it stands still with it, so tests of waits need no real waiting.
pub fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// The wall clock as it is.
#[cfg(not(feature = "chaos"))]
#[inline(always)]
fn shifted(wall: u64) -> u64 {
    wall
}

/// The wall clock moved by the seconds that stand in the file named by `OBTRACE_CHAOS_CLOCK`, looked at every 50 ms: how
/// the chaos tests let the clock of one process jump.
#[cfg(feature = "chaos")]
fn shifted(wall: u64) -> u64 {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    static SHIFT_NS: AtomicI64 = AtomicI64::new(0);
    static LOOKED: AtomicU64 = AtomicU64::new(0);
    let Some(file) = FILE.get_or_init(|| std::env::var_os("OBTRACE_CHAOS_CLOCK").map(PathBuf::from)) else {
        return wall;
    };
    if wall.abs_diff(LOOKED.load(Ordering::Relaxed)) > 50_000_000 {
        LOOKED.store(wall, Ordering::Relaxed);
        let seconds = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<i64>().ok());
        SHIFT_NS.store(seconds.unwrap_or(0).saturating_mul(1_000_000_000), Ordering::Relaxed);
    }
    wall.saturating_add_signed(SHIFT_NS.load(Ordering::Relaxed))
}
