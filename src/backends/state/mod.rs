//! The state port: small facts that must survive a restart, in transactions.
//!
//! In: usage totals, key uses, deploy markers, versions seen. Out: the same, read back. What may fail: [`PortFault`]. One contract
//! suite (`tests/backends/state.rs`) runs against every implementation: an SQLite file, and Postgres.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::fault::PortFault;
use crate::domain::deploy::{Deploy, DeployQuery};
use crate::domain::usage::{Day, UsageRow};
use crate::domain::versions::VersionSeen;

pub mod migrate;
pub mod postgres;
pub mod sqlite;
pub mod statements;

/// Name of the port in faults.
const PORT: &str = "state";

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

    /// Writes a deploy marker of a tenant; true where it is new. The same (service, version, time) again changes nothing.
    fn put_deploy(&self, tenant: &str, deploy: Deploy) -> Answer<bool>;

    /// Notes versions that were seen in the telemetry, all or none. One that comes when the store knows another version of its
    /// service from an earlier time is a change, and from then on a marker of its earliest time; each is noted once.
    fn note_versions(&self, seen: Vec<VersionSeen>) -> Answer<()>;

    /// The deploy markers of a tenant that `query` asks for, told and seen, newest first; those of one time by their names.
    fn deploys(&self, tenant: &str, query: DeployQuery) -> Answer<Vec<Deploy>>;

    /// Removes the markers of all tenants that were told of before a time; returns how many went.
    fn forget_deploys_before(&self, at_ms: u64) -> Answer<u64>;

    /// Removes the versions of all tenants that were last seen before a time; returns how many went.
    fn forget_versions_before(&self, at_ms: u64) -> Answer<u64>;

    /// Writes, reads and removes a row of its own: whether the store takes writes.
    fn check(&self) -> Answer<()>;
}

/// A number as both engines keep it; past the end it saturates, it never wraps.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Behind which marker a list goes on: its time and its names. Every marker is behind the end of time.
fn after(query: &DeployQuery) -> (u64, [Arc<str>; 3]) {
    let after = query.after.as_ref();
    after.map_or_else(
        || (u64::MAX, std::array::from_fn(|_| Arc::from(""))),
        |last| (last.at_ms, [&last.service, &last.version, &last.who].map(Arc::clone)),
    )
}

/// Versions of a service from the earliest on, so that a later one meets the earlier in the store.
fn in_order(mut seen: Vec<VersionSeen>) -> Vec<VersionSeen> {
    seen.sort_by(|a, b| (&a.service, a.at_ms, &a.version).cmp(&(&b.service, b.at_ms, &b.version)));
    seen
}
