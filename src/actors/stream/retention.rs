//! The log's retention: removes segments that are over age or size, at fixed intervals.
//!
//! In: time. Out: removed segments. What may fail: the disk, which is reported as `Degraded` and tried again.

use std::sync::Arc;
use std::time::Duration;

use actix::AsyncContext;
use actix::fut::wrap_future;

use crate::backends::event_log::EventLog;
use crate::clock;
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Seated, Worker};

/// Actor that keeps the log within its bounds.
pub struct Retention {
    log: Arc<dyn EventLog>,
    every: Duration,
}

impl Retention {
    /// Enforces retention of `log` once in `every`.
    pub fn new(log: Arc<dyn EventLog>, every: Duration) -> Self {
        Self { log, every }
    }
}

impl Worker for Retention {
    fn started(&mut self, probe: &Probe, ctx: &mut Seated<Self>) {
        probe.ready();
        let (log, every, probe) = (self.log.clone(), self.every, probe.clone());
        ctx.spawn(wrap_future(async move {
            loop {
                tokio::time::sleep(every).await;
                match log.enforce_retention(clock::steady_nanos()).await {
                    Ok(removed) => {
                        probe.recovered();
                        if removed > 0 {
                            tracing::info!(segments = removed, "removed by retention");
                        }
                    }
                    Err(error) => probe.degraded(format!("retention: {error}")),
                }
            }
        }));
    }
}
