//! Named arbiter pools: which thread an actor runs on, which threads are given up, and how they all end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

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
    state: Mutex<State>,
    condemned: watch::Sender<BTreeSet<ArbiterId>>,
}

#[derive(Default)]
struct State {
    pools: BTreeMap<String, Pool>,
    given_up: Vec<Arbiter>,
    made: ArbiterId,
}

/// Number of an arbiter thread, unique in the process's pools.
pub type ArbiterId = u64;

struct Pool {
    size: usize,
    arbiters: Vec<(ArbiterId, Arbiter)>,
    turn: usize,
}

/// Where an actor is to be started.
#[derive(Debug, Clone)]
pub enum Placement {
    /// On the launching thread.
    Inline,
    /// On this arbiter.
    Arbiter(ArbiterId, ArbiterHandle),
}

impl Placement {
    /// The arbiter, if it is one.
    pub fn arbiter(&self) -> Option<ArbiterId> {
        match self {
            Self::Inline => None,
            Self::Arbiter(id, _) => Some(*id),
        }
    }
}

impl Pools {
    /// Pools of the given sizes; 0 means one thread a core.
    pub fn new(sizes: PoolSizes) -> Self {
        let condemned = watch::Sender::new(BTreeSet::new());
        Self { inner: Arc::new(Inner { sizes, state: Mutex::new(State::default()), condemned }) }
    }

    /// The next arbiter of a pool, in turn. Must be called on a thread with an actix `System`.
    pub fn place(&self, pool: &str) -> Placement {
        if pool == INLINE {
            return Placement::Inline;
        }
        let mut state = self.inner.state.lock();
        let State { pools, made, .. } = &mut *state;
        let pool = pools.entry(pool.to_owned()).or_insert_with(|| Pool {
            size: self.size_of(pool),
            arbiters: Vec::new(),
            turn: 0,
        });
        while pool.arbiters.len() < pool.size {
            *made += 1;
            pool.arbiters.push((*made, Arbiter::new()));
        }
        pool.turn += 1;
        let (id, arbiter) = &pool.arbiters[pool.turn % pool.arbiters.len()];
        Placement::Arbiter(*id, arbiter.handle())
    }

    fn size_of(&self, name: &str) -> usize {
        match self.inner.sizes.get(name).copied() {
            Some(0) => std::thread::available_parallelism().map_or(1, usize::from),
            Some(n) => n,
            None => 1,
        }
    }

    /// Gives up an arbiter whose thread is blocked: nothing is placed on it any more, and every supervisor leaves its
    /// children there behind and starts them elsewhere. Should the thread ever come back, it ends.
    pub fn condemn(&self, arbiter: ArbiterId) {
        {
            let mut state = self.inner.state.lock();
            let State { pools, given_up, .. } = &mut *state;
            for pool in pools.values_mut() {
                let Some(at) = pool.arbiters.iter().position(|(id, _)| *id == arbiter) else { continue };
                let (_, blocked) = pool.arbiters.swap_remove(at);
                blocked.stop();
                given_up.push(blocked);
                tracing::error!(arbiter, "an arbiter thread is blocked, replacing it");
            }
        }
        self.inner.condemned.send_if_modified(|condemned| condemned.insert(arbiter));
    }

    /// Every arbiter given up so far; changes wake whoever watches.
    pub(super) fn condemned(&self) -> watch::Receiver<BTreeSet<ArbiterId>> {
        self.inner.condemned.subscribe()
    }

    /// Stops all arbiters and waits for their threads, together at most for `limit`; the very last act, after the tree
    /// has drained. Returns how many threads did not end: a blocked one cannot be ended, only left to the process's end.
    pub async fn stop(&self, limit: Duration) -> usize {
        let State { pools, given_up, .. } = std::mem::take(&mut *self.inner.state.lock());
        let arbiters = pools.into_values().flat_map(|pool| pool.arbiters).map(|(_, arbiter)| arbiter);
        let ends: Vec<_> = arbiters.chain(given_up).filter_map(end_of).collect();
        let deadline = crate::clock::now() + limit;
        let mut left = 0;
        for end in ends {
            match tokio::time::timeout_at(deadline, end).await {
                Ok(_) => {}
                Err(_) => left += 1,
            }
        }
        if left > 0 {
            tracing::error!(threads = left, "arbiter threads did not end in time, leaving them behind");
        }
        left
    }
}

/// Stops an arbiter; resolves when its thread has ended. The join waits on a thread of its own, because it may be for ever.
fn end_of(arbiter: Arbiter) -> Option<oneshot::Receiver<()>> {
    arbiter.stop();
    let (ended, end) = oneshot::channel();
    let join = move || {
        if arbiter.join().is_err() {
            tracing::warn!("an arbiter thread had panicked");
        }
        // Nobody may be waiting any more.
        let _ = ended.send(());
    };
    let joiner = std::thread::Builder::new().name(String::from("arbiter-join")).spawn(join);
    joiner
        .inspect_err(|error| tracing::warn!(%error, "could not wait for an arbiter thread"))
        .ok()
        .map(|_| end)
}

impl std::fmt::Debug for Pools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pools").field("sizes", &self.inner.sizes).finish_non_exhaustive()
    }
}
