//! The blob port: whole objects by key, each key under the prefix of its tenant.
//!
//! In: bytes under a [`BlobKey`]. Out: the same bytes, whole or a range. What may fail: [`PortFault`]. One contract
//! suite (`tests/backends/blobs.rs`) runs against every implementation: a local folder, and a bucket of an S3 server.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::fault::PortFault;
use crate::domain::failure::FailureClass;
use crate::domain::scope::MAX_SCOPE_PART;

pub mod folder;
mod objects;
pub mod s3;

/// Name of the port in faults.
const PORT: &str = "blobs";
/// Longest path below a tenant, in bytes.
const MAX_PATH: usize = 512;

/// Where an object stands: a tenant and a path below it. There is no way to name an object outside of a tenant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobKey {
    tenant: Arc<str>,
    path: Arc<str>,
}

impl BlobKey {
    /// The key of `path` (parts joined by `/`) below `tenant`.
    ///
    /// # Errors
    /// [`PortFault`] of class `Poison` for a part that is empty, `.` or `..`, or has other characters than a-z, A-Z,
    /// 0-9, `-`, `_` and `.`.
    pub fn new(tenant: &str, path: &str) -> Result<Self, PortFault> {
        let fits = is_part(tenant) && tenant.len() <= MAX_SCOPE_PART && path.len() <= MAX_PATH;
        if !fits || !path.split('/').all(is_part) {
            return Err(bad_name(tenant, path));
        }
        Ok(Self { tenant: tenant.into(), path: path.into() })
    }

    /// The tenant it belongs to.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Its path below the tenant.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.path)
    }
}

impl fmt::Debug for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobKey({self})")
    }
}

fn is_part(part: &str) -> bool {
    let plain = part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    plain && !part.is_empty() && part != "." && part != ".."
}

fn bad_name(tenant: &str, path: &str) -> PortFault {
    let what =
        format!("{tenant:?} / {path:?} is no key: parts of a-z, A-Z, 0-9, '-', '_', '.', joined by '/'");
    PortFault::new(PORT, FailureClass::Poison, what)
}

/// An object as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobMeta {
    /// Its key.
    pub key: BlobKey,
    /// Its size in bytes.
    pub size: u64,
}

/// What a call of the port resolves to.
pub type Answer<T> = BoxFuture<'static, Result<T, PortFault>>;

/// A store of whole objects. A write is on disk when it resolves, and nobody ever reads half of it.
pub trait BlobStore: Send + Sync + 'static {
    /// Writes an object, over one of the same key.
    fn put(&self, key: &BlobKey, body: Bytes) -> Answer<()>;

    /// Writes an object if there is none of this key; false when there is one, which stays as it is. Of several at
    /// once, one is told true.
    fn put_new(&self, key: &BlobKey, body: Bytes) -> Answer<bool>;

    /// Reads an object, or `range` of it cut to its size; `None` when there is no such object.
    fn get(&self, key: &BlobKey, range: Option<Range<u64>>) -> Answer<Option<Bytes>>;

    /// Objects of `tenant` below the folder `under` (empty for all) with a path after `after`, by path, at most `most`.
    fn list(&self, tenant: &str, under: &str, after: Option<&str>, most: usize) -> Answer<Vec<BlobMeta>>;

    /// Removes an object; also well when there is none.
    fn delete(&self, key: &BlobKey) -> Answer<()>;

    /// Removes what writes that never ended left behind, where they began longer ago than this; returns how many. No
    /// object is touched, and no write that is younger.
    fn sweep(&self, older_than: Duration) -> Answer<u64>;
}
