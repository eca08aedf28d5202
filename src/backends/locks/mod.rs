//! The lock port: one holder of a name at a time, for a time, with a number that tells a later holder from an earlier.
//!
//! In: a name and a time. Out: a [`Held`] lock, or nobody gets it. A holder that slept past its time may still believe
//! that it holds: whoever it acts upon compares its *token*, which is larger for every later holder. What may fail:
//! [`PortFault`]. One contract suite (`tests/backends/locks.rs`) runs against every implementation: the memory of the
//! process, and Redis.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::fault::PortFault;

pub mod memory;
pub mod redis;

/// Name of the port in faults.
const PORT: &str = "locks";

/// What a call of the port resolves to.
pub type Answer<T> = BoxFuture<'static, Result<T, PortFault>>;

/// A lock that was got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub name: Arc<str>,
    /// Larger than that of every earlier holder of the name.
    pub token: u64,
}

/// Locks by name.
pub trait Locks: Send + Sync + 'static {
    /// Gets the lock for `ttl`, if nobody holds it.
    fn acquire(&self, name: &str, ttl: Duration) -> Answer<Option<Held>>;

    /// Holds it for `ttl` from now on; false where it is not held any more by this token.
    fn renew(&self, held: &Held, ttl: Duration) -> Answer<bool>;

    /// Lets it go; false where it was not held any more by this token, which leaves the later holder alone.
    fn release(&self, held: &Held) -> Answer<bool>;
}
