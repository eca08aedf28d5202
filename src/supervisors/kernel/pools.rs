//! Named arbiter pools: which thread an actor runs on, and the one multi-thread runtime for I/O clients.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_rt::{Arbiter, ArbiterHandle};
use parking_lot::Mutex;

/// Name of the pool that runs its actors on the thread that launches them (tests under paused time, tiny actors).
pub const INLINE: &str = "inline";

/// Threads per pool, by name. A pool that is not listed gets one thread.
pub type PoolSizes = BTreeMap<String, usize>;

/// The arbiter threads of the process. Arbiters are made when first asked for. Cheap to clone.
#[derive(Clone)]
pub struct Pools {
    inner: Arc<Inner>,
}

struct Inner {
    sizes: PoolSizes,
    pools: Mutex<BTreeMap<String, Pool>>,
}

struct Pool {
    arbiters: Vec<Arbiter>,
    next: Arc<AtomicUsize>,
}

/// Where an actor is to be started.
#[derive(Debug, Clone)]
pub enum Placement {
    /// On the launching thread.
    Inline,
    /// On this arbiter.
    Arbiter(ArbiterHandle),
}

impl Pools {
    /// Pools of the given sizes; 0 means one thread a core.
    pub fn new(sizes: PoolSizes) -> Self {
        Self { inner: Arc::new(Inner { sizes, pools: Mutex::new(BTreeMap::new()) }) }
    }

    /// The next arbiter of a pool, in turn. Must be called on a thread with an actix `System`.
    pub fn place(&self, pool: &str) -> Placement {
        if pool == INLINE {
            return Placement::Inline;
        }
        let mut pools = self.inner.pools.lock();
        let pool = pools.entry(pool.to_owned()).or_insert_with(|| self.start(pool));
        let turn = pool.next.fetch_add(1, Ordering::Relaxed) % pool.arbiters.len();
        Placement::Arbiter(pool.arbiters[turn].handle())
    }

    fn start(&self, name: &str) -> Pool {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = match self.inner.sizes.get(name).copied() {
            Some(0) => cores,
            Some(n) => n,
            None => 1,
        };
        let arbiters = (0..threads).map(|_| Arbiter::new()).collect();
        Pool { arbiters, next: Arc::new(AtomicUsize::new(0)) }
    }

    /// Stops all arbiters and joins their threads; the very last act, after the tree has drained.
    pub fn stop(&self) {
        for (_, pool) in std::mem::take(&mut *self.inner.pools.lock()) {
            for arbiter in pool.arbiters {
                arbiter.stop();
                if arbiter.join().is_err() {
                    tracing::warn!("an arbiter thread had panicked");
                }
            }
        }
    }
}

impl std::fmt::Debug for Pools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pools").field("sizes", &self.inner.sizes).finish_non_exhaustive()
    }
}
