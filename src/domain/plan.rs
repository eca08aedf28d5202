//! Plans: what a tenant may use. Five are built in; the configuration may change them and add others.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The plan without limits: what a tenant has where nothing names another.
pub const UNLIMITED: &str = "unlimited";

/// The bounds of a plan; 0 is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Limits {
    /// Spans a UTC day.
    pub spans_per_day: u64,
    /// Log records a UTC day.
    pub log_records_per_day: u64,
    /// Metric points a UTC day.
    pub metric_points_per_day: u64,
    /// Bytes of requests as sent, a UTC day.
    pub bytes_per_day: u64,
    /// Export requests a second.
    pub requests_per_second: u32,
    /// Most days that records are kept.
    pub retention_days: u16,
    /// Queries at once.
    pub queries_in_flight: u32,
    /// Seconds a query may take.
    #[serde(default)]
    pub query_seconds: u32,
    /// Rows a query may read in the store.
    #[serde(default)]
    pub query_rows_to_read: u64,
    /// Bytes a query may read in the store, uncompressed.
    #[serde(default)]
    pub query_bytes_to_read: u64,
    /// Bytes of memory a query may use in the store.
    #[serde(default)]
    pub query_memory_bytes: u64,
    /// Rows that one statement of a query may answer.
    #[serde(default)]
    pub query_result_rows: u64,
}

/// A named plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Name in configuration and answers.
    pub name: Arc<str>,
    /// Its bounds.
    pub limits: Limits,
}

/// Which plan a tenant has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantPlan {
    /// Tenant.
    pub tenant: Arc<str>,
    /// Its plan.
    pub plan: Plan,
}

impl Limits {
    /// `days`, cut to what the plan keeps.
    pub fn retention(&self, days: u16) -> u16 {
        if self.retention_days == 0 { days } else { days.min(self.retention_days) }
    }
}

/// The names of the built-in plans, from the smallest to the largest, and the one without limits.
pub const BUILT_IN: [&str; 6] = ["free", "starter", "team", "business", "enterprise", UNLIMITED];

/// The limits of a built-in plan.
pub fn built_in(name: &str) -> Option<Limits> {
    const MILLION: u64 = 1_000_000;
    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;
    // spans, logs, points in millions; GiB; requests/s; days; queries.
    let (spans, logs, points, gib, requests_per_second, retention_days, queries_in_flight) = match name {
        "free" => (1, 1, 5, 1, 20, 3, 2),
        "starter" => (20, 20, 100, 20, 100, 14, 4),
        "team" => (200, 200, 1_000, 200, 500, 30, 8),
        "business" => (2_000, 2_000, 10_000, 2_000, 2_000, 90, 16),
        "enterprise" => (20_000, 20_000, 100_000, 20_000, 10_000, 400, 32),
        UNLIMITED => (0, 0, 0, 0, 0, 0, 0),
        _ => return None,
    };
    // Of a query: seconds; millions of rows, GiB to read; MiB of memory; thousands of rows to answer.
    let (query_seconds, rows, read, memory, answer) = match name {
        "free" => (10, 100, 10, 256, 100),
        "starter" => (15, 500, 50, 512, 200),
        "team" => (20, 2_000, 200, 1_024, 500),
        "business" => (30, 10_000, 1_000, 2_048, 1_000),
        "enterprise" => (60, 50_000, 5_000, 4_096, 2_000),
        _ => (0, 0, 0, 0, 0),
    };
    Some(Limits {
        spans_per_day: spans * MILLION,
        log_records_per_day: logs * MILLION,
        metric_points_per_day: points * MILLION,
        bytes_per_day: gib * GIB,
        requests_per_second,
        retention_days,
        queries_in_flight,
        query_seconds,
        query_rows_to_read: rows * MILLION,
        query_bytes_to_read: read * GIB,
        query_memory_bytes: memory * MIB,
        query_result_rows: answer * 1_000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plan_gives_at_least_what_the_one_before_gives() {
        let numbers = |l: Limits| {
            [
                l.spans_per_day,
                l.log_records_per_day,
                l.metric_points_per_day,
                l.bytes_per_day,
                u64::from(l.requests_per_second),
                u64::from(l.retention_days),
                u64::from(l.queries_in_flight),
                u64::from(l.query_seconds),
                l.query_rows_to_read,
                l.query_bytes_to_read,
                l.query_memory_bytes,
                l.query_result_rows,
            ]
        };
        let plans: Vec<[u64; 12]> = BUILT_IN.iter().map(|name| numbers(built_in(name).unwrap())).collect();
        for pair in plans[..5].windows(2) {
            assert!(pair[0].iter().zip(pair[1]).all(|(small, large)| *small < large), "{pair:?}");
        }
        assert_eq!(plans[5], [0; 12]);
        assert_eq!(built_in("gold"), None);
    }

    #[test]
    fn retention_is_cut_to_the_plan() {
        assert_eq!(built_in("free").unwrap().retention(30), 3);
        assert_eq!(built_in("free").unwrap().retention(2), 2);
        assert_eq!(Limits::default().retention(30), 30);
    }
}
