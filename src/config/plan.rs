//! `[tenant.plans.NAME]`: what each plan allows. Five are built in; a table changes one or makes a new one.

use std::collections::BTreeMap;

use super::node::Node;
use super::reader::Reader;
use super::reference::Reference;
use super::schema::{Setting, Validate, config_struct};
use crate::domain::plan::{BUILT_IN, Limits, UNLIMITED, built_in};

config_struct! {
    /// A plan. 0 is no limit.
    pub struct PlanConfig {
        /// Spans a UTC day. The request that crosses a daily limit is taken whole, the next one is told to come back.
        spans_per_day: u64 = 0,
        /// Log records a UTC day.
        log_records_per_day: u64 = 0,
        /// Metric points a UTC day.
        metric_points_per_day: u64 = 0,
        /// Bytes of request bodies a UTC day (HTTP: as sent; gRPC: decompressed).
        bytes_per_day: u64 = 0,
        /// Export requests a second, with a second's worth at once.
        requests_per_second: u32 = 0,
        /// Most days that records are kept, whatever the key or ingest.retention_days say.
        retention_days: u16 = 0,
        /// Queries at once; others wait, then are told to come back (429). 0 = serve.queries_per_tenant.
        queries_in_flight: u32 = 0,
        /// Seconds a query may take; serve.deadline holds as well.
        query_seconds: u32 = 0,
        /// Rows a query may read in the store; serve.query.max_rows_to_read holds as well.
        query_rows_to_read: u64 = 0,
        /// Bytes a query may read in the store, uncompressed.
        query_bytes_to_read: u64 = 0,
        /// Bytes of memory a query may use in the store; serve.query.max_memory holds as well.
        query_memory_bytes: u64 = 0,
        /// Rows that one statement of a query may answer.
        query_result_rows: u64 = 0,
    }
}

impl Validate for PlanConfig {}

impl From<Limits> for PlanConfig {
    fn from(limits: Limits) -> Self {
        Self {
            spans_per_day: limits.spans_per_day,
            log_records_per_day: limits.log_records_per_day,
            metric_points_per_day: limits.metric_points_per_day,
            bytes_per_day: limits.bytes_per_day,
            requests_per_second: limits.requests_per_second,
            retention_days: limits.retention_days,
            queries_in_flight: limits.queries_in_flight,
            query_seconds: limits.query_seconds,
            query_rows_to_read: limits.query_rows_to_read,
            query_bytes_to_read: limits.query_bytes_to_read,
            query_memory_bytes: limits.query_memory_bytes,
            query_result_rows: limits.query_result_rows,
        }
    }
}

impl From<&PlanConfig> for Limits {
    fn from(plan: &PlanConfig) -> Self {
        Self {
            spans_per_day: plan.spans_per_day,
            log_records_per_day: plan.log_records_per_day,
            metric_points_per_day: plan.metric_points_per_day,
            bytes_per_day: plan.bytes_per_day,
            requests_per_second: plan.requests_per_second,
            retention_days: plan.retention_days,
            queries_in_flight: plan.queries_in_flight,
            query_seconds: plan.query_seconds,
            query_rows_to_read: plan.query_rows_to_read,
            query_bytes_to_read: plan.query_bytes_to_read,
            query_memory_bytes: plan.query_memory_bytes,
            query_result_rows: plan.query_result_rows,
        }
    }
}

/// All plans by name.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanTable(BTreeMap<String, PlanConfig>);

impl Default for PlanTable {
    fn default() -> Self {
        let plan = |name: &&str| Some(((*name).to_owned(), built_in(name)?.into()));
        Self(BUILT_IN.iter().filter_map(plan).collect())
    }
}

impl PlanTable {
    /// The limits of a plan.
    pub fn limits(&self, name: &str) -> Option<Limits> {
        self.0.get(name).map(Limits::from)
    }

    /// Names of all plans.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Setting for PlanTable {
    const TABLE: bool = true;

    fn read(node: Option<&Node>, default: Self, at: &mut Reader) -> Self {
        let Some(node) = node else { return default };
        let Some(table) = node.as_table() else {
            at.wrong(&node.source, "tables, [tenant.plans.NAME]", &node.raw.to_string(), "");
            return default;
        };
        let mut plans = default;
        for (name, node) in table {
            if name == UNLIMITED {
                at.fail(&node.source, format!("tenant.plans.{UNLIMITED} has no limits: name another plan"));
                continue;
            }
            let known = plans.0.remove(name).unwrap_or_default();
            let plan = at.within(name, |at| PlanConfig::read(Some(node), known, at));
            plans.0.insert(name.clone(), plan);
        }
        plans
    }

    fn describe(&self, key: &str, docs: &[&str], out: &mut Reference) {
        let first: PlanConfig = built_in(BUILT_IN[0]).unwrap_or_default().into();
        out.table(key, docs, |out| {
            first.describe(BUILT_IN[0], &[" The smallest of the built-in plans; 0 is no limit."], out);
            for name in &BUILT_IN[1..BUILT_IN.len() - 1] {
                let limits = built_in(name).unwrap_or_default();
                out.table(name, &[], |out| {
                    out.key("spans_per_day", &[], &limits.spans_per_day.to_string());
                    out.key("log_records_per_day", &[], &limits.log_records_per_day.to_string());
                    out.key("metric_points_per_day", &[], &limits.metric_points_per_day.to_string());
                    out.key("bytes_per_day", &[], &limits.bytes_per_day.to_string());
                    out.key("requests_per_second", &[], &limits.requests_per_second.to_string());
                    out.key("retention_days", &[], &limits.retention_days.to_string());
                    out.key("queries_in_flight", &[], &limits.queries_in_flight.to_string());
                    out.key("query_seconds", &[], &limits.query_seconds.to_string());
                    out.key("query_rows_to_read", &[], &limits.query_rows_to_read.to_string());
                    out.key("query_bytes_to_read", &[], &limits.query_bytes_to_read.to_string());
                    out.key("query_memory_bytes", &[], &limits.query_memory_bytes.to_string());
                    out.key("query_result_rows", &[], &limits.query_result_rows.to_string());
                });
            }
        });
    }
}
