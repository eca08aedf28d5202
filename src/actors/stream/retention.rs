//! The log's keeper: removes segments that are over age or size, at fixed intervals, and shows when the log is in trouble.
//!
//! In: time. Out: removed segments, and the state of a log whose server is elsewhere. What may fail: the disk or the server,
//! which is reported as `Degraded` and tried again.

use std::sync::Arc;
use std::time::Duration;

use actix::AsyncContext;
use actix::fut::wrap_future;

use crate::backends::event_log::{EventLog, RemoteStats};
use crate::clock;
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Seated, Worker};

/// How often is looked how the log is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
        let keeping = Keeping { log: self.log.clone(), probe: probe.clone(), failed: None };
        ctx.spawn(wrap_future(keeping.run(self.every)));
    }
}

struct Keeping {
    log: Arc<dyn EventLog>,
    probe: Probe,
    /// Why retention could not be enforced the last time.
    failed: Option<String>,
}

impl Keeping {
    async fn run(mut self, every: Duration) {
        let mut due = clock::now() + every;
        loop {
            tokio::time::sleep(LOOK_EVERY.min(every)).await;
            if clock::now() >= due {
                self.enforce().await;
                due = clock::now() + every;
            }
            match self.log.trouble().or_else(|| self.failed.clone()) {
                Some(why) => self.probe.degraded(why),
                None => self.probe.recovered(),
            }
            if let Some(stats) = self.log.remote_stats() {
                self.show(&stats);
            }
        }
    }

    async fn enforce(&mut self) {
        self.failed = match self.log.enforce_retention(clock::steady_nanos()).await {
            Ok(removed) => {
                if removed > 0 {
                    tracing::info!(segments = removed, "removed by retention");
                }
                None
            }
            Err(error) => Some(format!("retention: {error}")),
        };
    }

    fn show(&self, stats: &RemoteStats) {
        let figures = [
            ("queued_bytes", stats.queued_bytes),
            ("delivery_errors", stats.delivery_errors),
            ("rebalances", stats.rebalances),
            ("fenced", stats.fenced),
            ("duplicates", stats.duplicates),
        ];
        figures.into_iter().for_each(|(name, value)| self.probe.gauge(name, value as f64));
    }
}
