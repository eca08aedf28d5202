//! The state port: small facts that must survive a restart, in transactions.
//!
//! In: usage totals and key uses. Out: the same, read back. What may fail: [`PortFault`]. One contract suite
//! (`tests/backends/state.rs`) runs against every implementation; the embedded one is SQLite.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::fault::PortFault;
use crate::domain::usage::{Day, UsageRow};

pub mod migrate;
pub mod sqlite;

/// When a key was last used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// Name of the key in the configuration.
    pub name: Arc<str>,
    /// Unix seconds.
    pub last_used_s: u64,
}

/// What a call of the port resolves to.
pub type Answer<T> = BoxFuture<'static, Result<T, PortFault>>;

/// A transactional store of small facts. Every write is on disk when it resolves, and can be repeated: writes carry
/// totals and times, never differences. Methods may be called from any thread; nothing blocks the caller.
pub trait StateStore: Send + Sync + 'static {
    /// Writes totals, all or none. A counter never goes back: of two writes for the same (tenant, day, source) the
    /// larger value of each counter holds, so a late repeat does no harm.
    fn put_usage(&self, rows: Vec<UsageRow>) -> Answer<()>;

    /// All totals of a day, one row a tenant and source.
    fn usage(&self, day: Day) -> Answer<Vec<UsageRow>>;

    /// Removes the totals of all days before `day`; returns how many rows went.
    fn forget_usage_before(&self, day: Day) -> Answer<u64>;

    /// Notes uses of keys. A time never goes back.
    fn touch_keys(&self, uses: Vec<KeyUse>) -> Answer<()>;

    /// The last use of every key that was used, by name.
    fn key_uses(&self) -> Answer<Vec<KeyUse>>;

    /// Writes, reads and removes a row of its own: whether the store takes writes.
    fn check(&self) -> Answer<()>;
}
