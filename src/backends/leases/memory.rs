//! The keeper of rates in the memory of the process, for a process that is alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{LeaseAsk, Leases};
use crate::backends::fault::PortFault;
use crate::clock;
use crate::domain::rate::{Gcra, Grant, step_ns};

/// Rates in memory. Clones share them.
#[derive(Debug, Clone)]
pub struct MemoryLeases {
    /// Times count from here, by a clock that nobody sets.
    begun: Instant,
    /// By tenant, whose number is that of the configuration.
    rates: Arc<Mutex<HashMap<Arc<str>, Gcra>>>,
}

impl Default for MemoryLeases {
    fn default() -> Self {
        Self { begun: clock::now(), rates: Arc::default() }
    }
}

impl Leases for MemoryLeases {
    fn lease(&self, ask: LeaseAsk) -> BoxFuture<'static, Result<Grant, PortFault>> {
        let now = u64::try_from((clock::now() - self.begun).as_nanos()).unwrap_or(u64::MAX);
        let mut rates = self.rates.lock();
        let rate = rates.entry(ask.tenant).or_default();
        let step = step_ns(ask.per_second);
        rate.spend(step, ask.wanted.spent);
        let taken = rate.take(step, ask.per_second, ask.wanted.permits, now);
        let (permits, retry_after) = taken.map_or_else(|wait| (0, wait), |permits| (permits, Duration::ZERO));
        Box::pin(async move { Ok(Grant { permits, nodes: 1, retry_after }) })
    }
}
