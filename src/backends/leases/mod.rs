//! The lease port: one keeper of each tenant's rate, which gives its permits out to all nodes.
//!
//! In: how many permits a node would like. Out: how many it gets, never more in all than the rate and a second's burst.
//! What may fail: [`PortFault`]; a node then goes on alone ([`crate::domain::rate::LeasedRate`]). One contract suite
//! (`tests/backends/leases.rs`) runs against every implementation: the memory of the process, and Redis.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::fault::PortFault;
use crate::domain::rate::{Grant, Wanted};

pub mod memory;
pub mod redis;

/// Name of the port in faults.
const PORT: &str = "leases";

/// A node asks for permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseAsk {
    /// Whose rate.
    pub tenant: Arc<str>,
    /// The rate.
    pub per_second: u32,
    /// Permits that it would like, and what it let in by itself.
    pub wanted: Wanted,
    /// The node, by an id of its own.
    pub node: Arc<str>,
}

/// Keeps rates for all nodes.
pub trait Leases: Send + Sync + 'static {
    /// Counts what the node let in by itself, then gives permits of a rate; none, with the time to come back, where it is used up. A grant whose answer is lost is
    /// spent: the rate is then used less, never more.
    fn lease(&self, ask: LeaseAsk) -> BoxFuture<'static, Result<Grant, PortFault>>;
}
