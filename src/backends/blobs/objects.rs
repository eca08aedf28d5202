//! What a folder and a bucket share: where a key stands, and how a range is read.

use std::ops::Range;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use super::BlobKey;
use crate::backends::fault::PortFault;

/// The place of a key; its parts have been checked, so nothing of it is escaped or resolved.
pub(super) fn place(key: &BlobKey) -> Path {
    Path::from_iter(std::iter::once(key.tenant()).chain(key.path().split('/')))
}

/// The key of a place; `None` for one that is not of our form.
pub(super) fn key_of(place: &Path) -> Option<BlobKey> {
    let (tenant, path) = place.as_ref().split_once('/')?;
    BlobKey::new(tenant, path).ok()
}

/// Reads an object or a range of it, cut to its size; `None` where there is no object.
pub(super) async fn read(
    store: &impl ObjectStore,
    place: &Path,
    range: Option<Range<u64>>,
    fault_of: impl Fn(&Error) -> PortFault,
) -> Result<Option<Bytes>, PortFault> {
    let range = match range {
        None => None,
        Some(range) => {
            // Stores differ in what they make of a range past the end.
            let size = match store.head(place).await {
                Ok(meta) => meta.size,
                Err(Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(fault_of(&error)),
            };
            let range = range.start.min(size)..range.end.min(size);
            if range.start >= range.end {
                return Ok(Some(Bytes::new()));
            }
            Some(GetRange::Bounded(range))
        }
    };
    let options = GetOptions { range, ..GetOptions::default() };
    let body = async { store.get_opts(place, options).await?.bytes().await };
    match body.await {
        Ok(body) => Ok(Some(body)),
        // Not there, or removed between the two.
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(fault_of(&error)),
    }
}
