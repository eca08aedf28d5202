//! The janitor of the blob store: removes what writes that never ended left behind.
//!
//! In: the time. Out: one sweep every `store.blobs.sweep_every`, by one of all processes that share the store: who holds
//! the lock. What may fail: the lock or the store, which the tree shows as `Degraded`; the next round tries again.

use std::sync::Arc;
use std::time::Duration;

use actix::AsyncContext;
use actix::fut::wrap_future;

use super::selfcheck;
use crate::backends::blobs::BlobStore;
use crate::backends::fault::PortFault;
use crate::backends::locks::Locks;
use crate::config::live::LiveConfig;
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Seated, Worker};

/// Name of the lock.
const LOCK: &str = "blob-janitor";
/// Longest wait after a round that failed.
const RETRY: Duration = Duration::from_secs(60);

/// What the janitor works with.
#[derive(Clone)]
pub struct JanitorDeps {
    /// What is swept.
    pub blobs: Arc<dyn BlobStore>,
    /// Who may sweep: locks that all have who share the store, and nobody else.
    pub locks: Arc<dyn Locks>,
    /// How often, and what is old enough (`store.blobs`).
    pub config: LiveConfig,
}

/// Actor that sweeps.
pub struct Janitor {
    deps: JanitorDeps,
}

impl Janitor {
    /// A janitor.
    pub fn new(deps: JanitorDeps) -> Self {
        Self { deps }
    }
}

impl Worker for Janitor {
    /// Ready at once: nobody waits for it.
    fn started(&mut self, probe: &Probe, ctx: &mut Seated<Self>) {
        probe.ready();
        let (deps, probe) = (self.deps.clone(), probe.clone());
        ctx.spawn(wrap_future(async move {
            loop {
                let every = deps.config.now().store.blobs.sweep_every;
                chaos::point("janitor.before");
                let pause = match round(&deps).await {
                    Ok(()) => {
                        probe.recovered();
                        every
                    }
                    Err(fault) => {
                        probe.degraded(fault.to_string());
                        every.min(RETRY)
                    }
                };
                probe.progress();
                tokio::time::sleep(pause).await;
            }
        }));
    }
}

/// One sweep, where nobody else does it. The lock is not let go but ends by its time, half a round later, so that of many
/// processes one sweeps in a round and not one after the other.
async fn round(deps: &JanitorDeps) -> Result<(), PortFault> {
    let blobs = &deps.config.now().store.blobs;
    let held_for = blobs.timeout.max(blobs.sweep_every / 2);
    let Some(held) = deps.locks.acquire(LOCK, held_for).await? else { return Ok(()) };
    match sweep(deps, blobs.sweep_after).await {
        Ok(0) => Ok(()),
        Ok(swept) => {
            tracing::info!(
                swept,
                token = held.token,
                "removed what unfinished writes and checks had left in the blob store"
            );
            Ok(())
        }
        Err(fault) => {
            // Another one may reach what this one does not. A lock that is not let go ends by its time.
            if let Err(unreleased) = deps.locks.release(&held).await {
                tracing::warn!(error = %unreleased, "the lock of the sweep was not let go");
            }
            Err(fault)
        }
    }
}

async fn sweep(deps: &JanitorDeps, older_than: Duration) -> Result<u64, PortFault> {
    Ok(deps.blobs.sweep(older_than).await? + selfcheck::sweep(&*deps.blobs, older_than).await?)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::backends::blobs::BlobKey;
    use crate::backends::blobs::folder::FolderBlobs;
    use crate::backends::locks::memory::MemoryLocks;
    use crate::backends::locks::{Answer, Held};
    use crate::config::Config;
    use crate::domain::failure::FailureClass;
    use crate::domain::scope::OWN_TENANT;

    /// Locks that are got and then out of reach.
    struct Lost;

    impl Locks for Lost {
        fn acquire(&self, name: &str, _ttl: Duration) -> Answer<Option<Held>> {
            let held = Held { name: name.into(), token: 1 };
            Box::pin(async { Ok(Some(held)) })
        }

        fn renew(&self, _held: &Held, _ttl: Duration) -> Answer<bool> {
            Box::pin(async { Ok(false) })
        }

        fn release(&self, _held: &Held) -> Answer<bool> {
            Box::pin(async { Err(PortFault::new("locks", FailureClass::Dependency, "away")) })
        }
    }

    fn deps(blobs: FolderBlobs, locks: impl Locks) -> JanitorDeps {
        JanitorDeps { blobs: Arc::new(blobs), locks: Arc::new(locks), config: Config::default().into() }
    }

    #[tokio::test]
    async fn the_fault_of_the_store_is_told_also_where_the_lock_has_one_of_its_own() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("blobs");
        std::fs::write(&file, b"").expect("a file in the folder's place");
        let fault = round(&deps(FolderBlobs::new(&file), Lost)).await.unwrap_err();
        assert_eq!(fault.port, "blobs", "{fault}");
    }

    #[tokio::test]
    async fn a_round_removes_what_old_checks_left() {
        let dir = tempfile::tempdir().expect("tempdir");
        let blobs = FolderBlobs::new(dir.path());
        let key = BlobKey::new(OWN_TENANT, "probe/00000000-0000-7000-8000-000000000000").expect("a key");
        blobs.put(&key, Bytes::from_static(b"x")).await.expect("put");
        round(&deps(blobs.clone(), MemoryLocks::default())).await.expect("a round");
        assert_eq!(blobs.get(&key, None).await, Ok(None));
    }
}
