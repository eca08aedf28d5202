//! What a request may ask for where it says nothing, and at most: the operator's bounds, beside the time of the request.

use super::params::{DEFAULT_LIMIT, MAX_LIMIT};
use super::time::HOUR;

/// Defaults and bounds of one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Items of a page when `limit` is absent.
    pub default_limit: u32,
    /// Most items of a page.
    pub max_limit: u32,
    /// Width of the time range when `start` is absent, in nanoseconds.
    pub default_range_ns: i64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { default_limit: DEFAULT_LIMIT, max_limit: MAX_LIMIT, default_range_ns: HOUR }
    }
}

/// When a request was made and within which bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Unix nanoseconds.
    pub now_ns: i64,
    /// The bounds.
    pub bounds: Bounds,
}

impl From<i64> for Asked {
    /// At `now_ns`, within the default bounds.
    fn from(now_ns: i64) -> Self {
        Self { now_ns, bounds: Bounds::default() }
    }
}
