//! Messages to the store stage: rows to insert, and the calls of the state, blob and cache ports.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use bytes::Bytes;

use crate::backends::blobs::BlobKey;
use crate::backends::fault::PortFault;
use crate::backends::leases::LeaseAsk;
use crate::backends::state::KeyUse;
use crate::backends::telemetry::client::TelemetryError;
use crate::domain::deploy::{Deploy, DeployQuery};
use crate::domain::rate::Grant;
use crate::domain::usage::{Day, UsageRow};
use crate::domain::versions::VersionSeen;
use crate::supervisors::kernel::lane::Cargo;
use crate::supervisors::kernel::port::{PortError, Reply};

/// process → telemetry writer · at least once · ≤ the block bounds · idempotent by `token`.
///
/// Insert rows into one table and answer when they are on disk.
pub struct StoreRows {
    /// Table.
    pub table: &'static str,
    /// The rows.
    pub batch: RecordBatch,
    /// Deduplication token: the block id.
    pub token: String,
    /// Answered when the rows are stored, or when the store says that these rows can never be.
    pub reply: Reply<Result<(), TelemetryError>>,
}

impl Cargo for StoreRows {
    fn weight(&self) -> usize {
        self.batch.get_array_memory_size()
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn poisoned(&self, _attempts: u32) {
        // Dropping the reply tells the sender that the writer is gone; it asks again under the same token.
    }

    fn dropped(&self, _attempts: u32) {
        // The operator wants these rows gone (`lane.poison`): for the sender they are dealt with.
        self.reply.send(Ok(()));
    }
}

impl std::fmt::Debug for StoreRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoreRows({} {} rows, {})", self.table, self.batch.num_rows(), self.token)
    }
}

/// tenant, serve → state adapter · at least once · ≤ some thousand rows · idempotent: every write is a total, a time or a marker by its
/// own key.
///
/// One call of the state port.
pub enum StateCall {
    /// [`StateStore::put_usage`](crate::backends::state::StateStore::put_usage).
    PutUsage(Vec<UsageRow>, StateReply<()>),
    /// [`StateStore::usage`](crate::backends::state::StateStore::usage).
    ReadUsage(Day, StateReply<Vec<UsageRow>>),
    /// [`StateStore::forget_usage_before`](crate::backends::state::StateStore::forget_usage_before).
    ForgetUsage(Day, StateReply<u64>),
    /// [`StateStore::touch_keys`](crate::backends::state::StateStore::touch_keys).
    TouchKeys(Vec<KeyUse>, StateReply<()>),
    /// [`StateStore::key_uses`](crate::backends::state::StateStore::key_uses).
    ReadKeyUses(StateReply<Vec<KeyUse>>),
    /// [`StateStore::put_deploy`](crate::backends::state::StateStore::put_deploy), of a tenant.
    PutDeploy(Arc<str>, Deploy, StateReply<bool>),
    /// [`StateStore::deploys`](crate::backends::state::StateStore::deploys), of a tenant.
    ReadDeploys(Arc<str>, DeployQuery, StateReply<Vec<Deploy>>),
    /// [`StateStore::forget_deploys_before`](crate::backends::state::StateStore::forget_deploys_before).
    ForgetDeploys(u64, StateReply<u64>),
    /// [`StateStore::note_versions`](crate::backends::state::StateStore::note_versions).
    NoteVersions(Vec<VersionSeen>, StateReply<()>),
    /// [`StateStore::forget_versions_before`](crate::backends::state::StateStore::forget_versions_before).
    ForgetVersions(u64, StateReply<u64>),
}

/// The answer to a [`StateCall`].
pub type StateReply<T> = Reply<Result<T, PortFault>>;

impl Cargo for StateCall {
    fn weight(&self) -> usize {
        match self {
            Self::PutUsage(rows, _) => rows.len() * 128,
            Self::TouchKeys(uses, _) => uses.len() * 64,
            Self::NoteVersions(seen, _) => seen.len() * 128,
            Self::PutDeploy(..) | Self::ReadDeploys(..) => 1024,
            Self::ReadUsage(..)
            | Self::ForgetUsage(..)
            | Self::ReadKeyUses(_)
            | Self::ForgetDeploys(..)
            | Self::ForgetVersions(..) => 64,
        }
    }

    fn poisoned(&self, _attempts: u32) {
        // Dropping the reply tells the sender that the adapter is gone; the next round writes the same.
    }
}

/// any → blob adapter · at least once · ≤ the lane's bytes · idempotent: whole objects by key.
///
/// One call of the blob port.
pub enum BlobCall {
    /// [`BlobStore::put`](crate::backends::blobs::BlobStore::put).
    Put(BlobKey, Bytes, Reply<Result<(), PortFault>>),
    /// [`BlobStore::get`](crate::backends::blobs::BlobStore::get).
    Get(BlobKey, Option<Range<u64>>, Reply<Result<Option<Bytes>, PortFault>>),
    /// [`BlobStore::delete`](crate::backends::blobs::BlobStore::delete).
    Delete(BlobKey, Reply<Result<(), PortFault>>),
}

impl Cargo for BlobCall {
    fn weight(&self) -> usize {
        match self {
            Self::Put(_, body, _) => body.len(),
            Self::Get(..) | Self::Delete(..) => 64,
        }
    }

    fn poisoned(&self, _attempts: u32) {
        // Dropping the reply tells the sender that the adapter is gone.
    }
}

/// tenant, ingest, serve → cache adapter · at most once matters · ≤ some KiB · idempotent: whole values by key.
///
/// One call of the cache port.
pub enum CacheCall {
    /// [`Cache::get`](crate::backends::cache::Cache::get).
    Get(String, Reply<Result<Option<Bytes>, PortFault>>),
    /// [`Cache::put`](crate::backends::cache::Cache::put).
    Put(String, Bytes, Duration, Reply<Result<(), PortFault>>),
    /// [`Leases::lease`](crate::backends::leases::Leases::lease). Not idempotent: a grant that is lost is spent.
    Lease(LeaseAsk, Reply<Result<Grant, PortFault>>),
}

impl Cargo for CacheCall {
    fn weight(&self) -> usize {
        match self {
            Self::Get(key, _) => key.len(),
            Self::Put(key, value, ..) => key.len() + value.len(),
            Self::Lease(ask, _) => ask.tenant.len() + ask.node.len(),
        }
    }

    fn poisoned(&self, _attempts: u32) {
        // Dropping the reply tells the sender that the adapter is gone; a cache may lose anything.
    }
}

/// One outcome out of the two that asking an adapter has: the port's and the lane's.
///
/// # Errors
/// What went wrong, in words.
pub fn settled<T>(asked: Result<Result<T, PortFault>, PortError>) -> Result<T, String> {
    match asked {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(fault)) => Err(fault.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
