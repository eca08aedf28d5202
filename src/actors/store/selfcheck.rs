//! The object by which the blob port checks its store: written, read back and removed; and what is left of such objects.
//!
//! In: a store. Out: whether it keeps what it is given. An adapter has one place for all its checks, so a check that was
//! cut off is made up for by the next one; what an adapter leaves for good when it ends is for the janitor. The body is a
//! UUIDv7, which says when it was written: the port tells no times. What may fail: the store.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::backends::blobs::{BlobKey, BlobStore};
use crate::backends::fault::PortFault;
use crate::clock;
use crate::domain::failure::FailureClass;
use crate::domain::scope::OWN_TENANT;

/// Folder of these objects.
const FOLDER: &str = "probe";
/// Objects that are listed at once.
const PAGE: usize = 256;

/// The checks of one adapter.
#[derive(Debug, Clone)]
pub struct SelfCheck {
    path: String,
}

impl SelfCheck {
    /// Checks at a place that nobody else has.
    pub fn somewhere() -> Self {
        Self { path: format!("{FOLDER}/{}", Uuid::now_v7()) }
    }

    /// Writes the object, reads it back and removes it.
    ///
    /// # Errors
    /// The fault of the store; of class `Dependency` where it gave something else back.
    pub async fn run(&self, store: &dyn BlobStore) -> Result<(), PortFault> {
        let (key, body) = (BlobKey::new(OWN_TENANT, &self.path)?, Bytes::from(Uuid::now_v7().to_string()));
        store.put(&key, body.clone()).await?;
        let back = store.get(&key, None).await;
        // Whatever was read: it does not stay.
        let removed = store.delete(&key).await;
        if back?.as_ref() != Some(&body) {
            let what = "an object just written was not read back whole";
            return Err(PortFault::new("blobs", FailureClass::Dependency, what));
        }
        removed
    }
}

/// Removes the objects whose last check began longer ago than this; returns how many.
///
/// # Errors
/// The fault of the store; what was removed until then stays removed.
pub async fn sweep(store: &dyn BlobStore, older_than: Duration) -> Result<u64, PortFault> {
    let before = Duration::from_nanos(clock::unix_nanos()).saturating_sub(older_than);
    let is_old = |id: &str| time_of(id).is_some_and(|time| time < before);
    let (mut swept, mut after) = (0, None::<String>);
    loop {
        let page = store.list(OWN_TENANT, FOLDER, after.as_deref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(swept) };
        after = Some(last.key.path().to_owned());
        for key in page.iter().map(|meta| &meta.key) {
            if !key.path().rsplit('/').next().is_some_and(is_old) {
                continue;
            }
            // Its adapter may be an old one that still checks.
            let Some(body) = store.get(key, None).await? else { continue };
            let in_use = std::str::from_utf8(&body).is_ok_and(|id| time_of(id).is_some() && !is_old(id));
            if !in_use {
                store.delete(key).await?;
                swept += 1;
            }
        }
    }
}

/// The time in a UUIDv7, since 1970; `None` for what is none.
fn time_of(id: &str) -> Option<Duration> {
    let (seconds, nanos) = Uuid::try_parse(id).ok()?.get_timestamp()?.to_unix();
    Some(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::backends::blobs::folder::FolderBlobs;
    use crate::backends::blobs::{Answer, BlobMeta};

    /// A folder that cannot be read.
    struct Unreadable(FolderBlobs);

    impl BlobStore for Unreadable {
        fn put(&self, key: &BlobKey, body: Bytes) -> Answer<()> {
            self.0.put(key, body)
        }

        fn put_new(&self, key: &BlobKey, body: Bytes) -> Answer<bool> {
            self.0.put_new(key, body)
        }

        fn get(&self, _key: &BlobKey, _range: Option<Range<u64>>) -> Answer<Option<Bytes>> {
            Box::pin(async { Err(PortFault::new("blobs", FailureClass::Dependency, "it cannot be read")) })
        }

        fn list(&self, tenant: &str, under: &str, after: Option<&str>, most: usize) -> Answer<Vec<BlobMeta>> {
            self.0.list(tenant, under, after, most)
        }

        fn delete(&self, key: &BlobKey) -> Answer<()> {
            self.0.delete(key)
        }

        fn sweep(&self, older_than: Duration) -> Answer<u64> {
            self.0.sweep(older_than)
        }
    }

    async fn left(store: &dyn BlobStore) -> Vec<String> {
        let listed = store.list(OWN_TENANT, "", None, 99).await.expect("a list");
        listed.iter().map(|meta| meta.key.path().to_owned()).collect()
    }

    #[tokio::test]
    async fn a_check_leaves_nothing_also_where_nothing_can_be_read() {
        let dir = tempfile::tempdir().expect("tempdir");
        let folder = FolderBlobs::new(dir.path());
        let check = SelfCheck::somewhere();
        check.run(&folder).await.expect("it is well");
        assert_eq!(left(&folder).await, [""; 0]);
        let fault = check.run(&Unreadable(folder.clone())).await.unwrap_err();
        assert_eq!(fault.what, "it cannot be read");
        assert_eq!(left(&folder).await, [""; 0]);
    }

    #[tokio::test]
    async fn a_check_that_was_cut_off_is_made_up_for_by_the_next() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (folder, check) = (FolderBlobs::new(dir.path()), SelfCheck::somewhere());
        let key = BlobKey::new(OWN_TENANT, &check.path).expect("a key");
        folder.put(&key, Bytes::from_static(b"half")).await.expect("put");
        check.run(&folder).await.expect("it is well");
        assert_eq!(left(&folder).await, [""; 0], "one place for all checks");
    }

    #[tokio::test]
    async fn what_old_checks_left_is_swept_and_what_may_be_of_use_is_not() {
        let dir = tempfile::tempdir().expect("tempdir");
        let folder = FolderBlobs::new(dir.path());
        let at = |seconds| Uuid::new_v7(uuid::Timestamp::from_unix_time(seconds, 0, 0, 0)).to_string();
        let (old, empty, in_use, young) = (at(1_000), at(2_000), at(3_000), Uuid::now_v7().to_string());
        let put = async |path: &str, body: &str| {
            let key = BlobKey::new(OWN_TENANT, path).expect("a key");
            folder.put(&key, Bytes::from(body.to_owned())).await.expect("put");
        };
        put(&format!("probe/{old}"), &old).await;
        put(&format!("probe/{empty}"), "").await;
        put(&format!("probe/{in_use}"), &young).await;
        put(&format!("probe/{young}"), &young).await;
        put("probe/of-somebody-else", &old).await;
        put(&format!("other/{old}"), &old).await;
        assert_eq!(sweep(&folder, Duration::from_secs(3600)).await.expect("a sweep"), 2);
        let kept = [
            format!("other/{old}"),
            format!("probe/{in_use}"),
            format!("probe/{young}"),
            "probe/of-somebody-else".to_owned(),
        ];
        assert_eq!(left(&folder).await, kept);
    }
}
