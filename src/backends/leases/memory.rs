//! The keeper of rates in the memory of the process, for a process that is alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::{LeaseAsk, Leases};
use crate::backends::fault::PortFault;
use crate::clock;
use crate::domain::rate::{Gcra, Grant, step_ns};

/// Rates in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryLeases {
    /// By tenant, whose number is that of the configuration.
    rates: Arc<Mutex<HashMap<Arc<str>, Gcra>>>,
}

impl Leases for MemoryLeases {
    fn lease(&self, ask: LeaseAsk) -> BoxFuture<'static, Result<Grant, PortFault>> {
        let now = clock::unix_nanos();
        let mut rates = self.rates.lock();
        let rate = rates.entry(ask.tenant).or_default();
        let taken = rate.take(step_ns(ask.per_second), ask.per_second, ask.want, now);
        let (permits, retry_after) = taken.map_or_else(|wait| (0, wait), |permits| (permits, Duration::ZERO));
        Box::pin(async move { Ok(Grant { permits, nodes: 1, retry_after }) })
    }
}
