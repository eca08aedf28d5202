//! The cache port: values that may be lost at any time, each for a time of its own.
//!
//! In: bytes under a key. Out: the same bytes, until their time is over or room is needed. What may fail:
//! [`PortFault`]. One contract suite (`tests/backends/cache.rs`) runs against every implementation: the memory of the
//! process, and Redis.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::fault::PortFault;

pub mod memory;
pub mod redis;

/// Name of the port in faults.
const PORT: &str = "cache";

/// What a call of the port resolves to.
pub type Answer<T> = BoxFuture<'static, Result<T, PortFault>>;

/// A store of passing values. What was put may be gone at the next look; what is there is whole and not older than its
/// time.
pub trait Cache: Send + Sync + 'static {
    /// The value of `key`, if it is still there.
    fn get(&self, key: &str) -> Answer<Option<Bytes>>;

    /// Keeps `value` under `key` for at most `ttl`, in place of an earlier one.
    fn put(&self, key: &str, value: Bytes, ttl: Duration) -> Answer<()>;

    /// Forgets `key`.
    fn remove(&self, key: &str) -> Answer<()>;
}
