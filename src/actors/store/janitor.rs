//! The janitor of the blob store: removes what writes that never ended left behind.
//!
//! In: the time. Out: one sweep every `store.blobs.sweep_every`, by one process of all: who holds the lock. What may fail:
//! the lock or the store, which the tree shows as `Degraded`; the next round tries again.

use std::sync::Arc;
use std::time::Duration;

use actix::AsyncContext;
use actix::fut::wrap_future;

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
    /// Who may sweep.
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
    match deps.blobs.sweep(blobs.sweep_after).await {
        Ok(0) => Ok(()),
        Ok(swept) => {
            tracing::info!(
                swept,
                token = held.token,
                "removed what unfinished writes had left in the blob store"
            );
            Ok(())
        }
        Err(fault) => {
            // Another one may reach what this one does not.
            deps.locks.release(&held).await?;
            Err(fault)
        }
    }
}
