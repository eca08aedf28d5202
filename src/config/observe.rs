//! `[observe]`: what Obtrace tells of itself, into tenant `_obtrace` of its own store.

use std::time::Duration;

use super::reader::Reader;
use super::schema::{Validate, config_struct};

config_struct! {
    /// Own telemetry. Read it as an operator: with the admin token and `x-obtrace-tenant: _obtrace`.
    pub struct ObserveConfig {
        /// Whether own log lines, metrics and traces are stored at all.
        enabled: bool = true,
        /// Time between two rounds of metrics.
        interval: Duration = Duration::from_secs(15),
        /// Most log lines a second, from "info" up; more are dropped and counted. 0 = none.
        logs_per_second: u32 = 20,
        /// Most traces a second, of blocks and of queries; more are not sampled. 0 = none.
        traces_per_second: u32 = 2,
        /// Days they are kept.
        retention_days: u16 = 7,
    }
}

impl Validate for ObserveConfig {
    fn validate(&self, at: &mut Reader) {
        if self.interval < Duration::from_millis(100) {
            at.refuse(&["interval"], "must be at least 100ms");
        }
        if self.retention_days == 0 {
            at.refuse(&["retention_days"], "must be at least 1");
        }
    }
}
