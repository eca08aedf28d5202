//! The embedded blob store: files in a local folder, through `object_store`, so that a bucket is one constructor away.
//!
//! In: objects. Out: files `TENANT/PATH`, each written beside its place, synced and then renamed. The folder is made at
//! the first call. What may fail: the disk, which is a dependency that is down.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::StreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};

use super::{Answer, BlobKey, BlobMeta, BlobStore, PORT, bad_name, is_part, objects};
use crate::backends::fault::PortFault;
use crate::clock;
use crate::domain::failure::FailureClass;

/// Blobs in a folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FolderBlobs {
    dir: Arc<PathBuf>,
    open: Arc<ArcSwapOption<LocalFileSystem>>,
}

impl FolderBlobs {
    /// Blobs below `dir`.
    pub fn new(dir: &FilePath) -> Self {
        Self { dir: Arc::new(dir.to_owned()), open: Arc::default() }
    }

    fn store(&self) -> Result<Arc<LocalFileSystem>, PortFault> {
        if let Some(open) = self.open.load_full() {
            return Ok(open);
        }
        std::fs::create_dir_all(&*self.dir).map_err(|error| {
            let what = format!("cannot make the folder {}: {error}", self.dir.display());
            PortFault::new(PORT, FailureClass::Dependency, what)
        })?;
        let fresh = LocalFileSystem::new_with_prefix(&*self.dir).map_err(|error| fault_of(&error))?;
        let fresh = Arc::new(fresh.with_fsync(true));
        self.open.store(Some(fresh.clone()));
        Ok(fresh)
    }

    /// Runs one call against the open folder.
    fn run<T, F>(&self, call: impl FnOnce(Arc<LocalFileSystem>) -> F + Send + 'static) -> Answer<T>
    where
        F: Future<Output = Result<T, PortFault>> + Send + 'static,
        T: Send + 'static,
    {
        let this = self.clone();
        Box::pin(async move { call(this.store()?).await })
    }
}

fn fault_of(error: &object_store::Error) -> PortFault {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            let what = format!("{io} (check the disk and the rights of the data folder)");
            return PortFault::new(PORT, FailureClass::Dependency, what);
        }
        source = inner.source();
    }
    let class = match error {
        object_store::Error::InvalidPath { .. } => FailureClass::Poison,
        object_store::Error::JoinError { .. } | object_store::Error::NotSupported { .. } => FailureClass::Bug,
        _ => FailureClass::Dependency,
    };
    PortFault::new(PORT, class, error.to_string())
}

impl BlobStore for FolderBlobs {
    fn put(&self, key: &BlobKey, body: Bytes) -> Answer<()> {
        let place = objects::place(key);
        self.run(|store| async move {
            store.put(&place, body.into()).await.map(drop).map_err(|error| fault_of(&error))
        })
    }

    fn put_new(&self, key: &BlobKey, body: Bytes) -> Answer<bool> {
        let place = objects::place(key);
        self.run(|store| async move {
            match store.put_opts(&place, body.into(), PutMode::Create.into()).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                Err(error) => Err(fault_of(&error)),
            }
        })
    }

    fn get(&self, key: &BlobKey, range: Option<Range<u64>>) -> Answer<Option<Bytes>> {
        let place = objects::place(key);
        self.run(|store| async move { objects::read(&*store, &place, range, fault_of).await })
    }

    fn list(&self, tenant: &str, under: &str, after: Option<&str>, most: usize) -> Answer<Vec<BlobMeta>> {
        let parts: Vec<&str> =
            std::iter::once(tenant).chain(under.split('/').filter(|p| !p.is_empty())).collect();
        if !parts.iter().all(|part| is_part(part)) {
            let fault = bad_name(tenant, under);
            return Box::pin(async { Err(fault) });
        }
        let (below, after) = (Path::from_iter(parts), after.map(str::to_owned));
        self.run(move |store| async move {
            // Files come in no order: the smallest `most` are kept while the folder is walked.
            let mut found: BTreeSet<(BlobKey, u64)> = BTreeSet::new();
            let mut all = store.list(Some(&below));
            while let Some(meta) = all.next().await {
                let meta = match meta {
                    Ok(meta) => meta,
                    Err(object_store::Error::NotFound { .. }) => continue,
                    Err(error) => return Err(fault_of(&error)),
                };
                let Some(key) = objects::key_of(&meta.location) else { continue };
                if after.as_deref().is_none_or(|after| key.path() > after) {
                    found.insert((key, meta.size));
                    if found.len() > most {
                        found.pop_last();
                    }
                }
            }
            Ok(found.into_iter().map(|(key, size)| BlobMeta { key, size }).collect())
        })
    }

    fn delete(&self, key: &BlobKey) -> Answer<()> {
        let place = objects::place(key);
        self.run(|store| async move {
            match store.delete(&place).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(fault_of(&error)),
            }
        })
    }

    fn sweep(&self, older_than: Duration) -> Answer<u64> {
        let dir = self.dir.clone();
        self.run(move |_| async move {
            let swept = tokio::task::spawn_blocking(move || sweep(&dir, older_than)).await;
            let fault = |what: String| PortFault::new(PORT, FailureClass::Dependency, what);
            swept.map_err(|error| fault(error.to_string()))?.map_err(|error| fault(error.to_string()))
        })
    }
}

/// Removes the files that writes had beside their places when they were cut off: `NAME#NUMBER`, which no key has.
fn sweep(dir: &FilePath, older_than: Duration) -> std::io::Result<u64> {
    let (mut swept, mut open) = (0, vec![dir.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder)? {
            let (entry, now) = (entry?, clock::unix_nanos());
            let Ok(about) = entry.metadata() else { continue };
            if about.is_dir() {
                open.push(entry.path());
                continue;
            }
            let is_staged = entry.file_name().to_str().and_then(|name| name.rsplit_once('#')).is_some_and(
                |(_, number)| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()),
            );
            let written = about.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let age = u128::from(now).saturating_sub(written.as_nanos());
            if is_staged && age > older_than.as_nanos() && std::fs::remove_file(entry.path()).is_ok() {
                swept += 1;
            }
        }
    }
    Ok(swept)
}
