//! Named arbiter pools: which thread an actor runs on, which threads are given up, and how they all end.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::policy::Place;
use super::probe::{Probe, WeakProbe};
use super::watchdog::{Beat, ThreadSight, WatchdogPolicy};
use super::window::Window;
use crate::clock;

/// Name of the pool that runs its actors on the thread that launches them (tests under paused time, tiny actors).
pub const INLINE: &str = "inline";

/// Incarnations that have left a thread and are remembered at least, before they are sorted out.
const SPARE: usize = 32;

/// Threads per pool, by name. A pool that is not listed gets one thread.
pub type PoolSizes = BTreeMap<String, usize>;

/// The arbiter threads of the process. Arbiters are made when first asked for. Cheap to clone.
#[derive(Clone)]
pub struct Pools {
    inner: Arc<Inner>,
}

struct Inner {
    sizes: PoolSizes,
    watchdog: Option<WatchdogPolicy>,
    state: Mutex<State>,
    condemned: watch::Sender<BTreeSet<ArbiterId>>,
    born: Instant,
}

struct State {
    pools: BTreeMap<String, Pool>,
    given_up: Vec<Arbiter>,
    /// Runtimes that the threads of some pools share with others; those of all others have one each.
    shared: BTreeMap<String, Arc<Runtime>>,
    made: ArbiterId,
    /// When arbiters were given up, against the watchdog's limit.
    losses: Window,
    too_many: bool,
}

/// Number of an arbiter thread, unique in the process's pools.
pub type ArbiterId = u64;

struct Pool {
    size: usize,
    /// By place, so that a key keeps its place while the threads there come and go.
    threads: Vec<Option<Thread>>,
    turn: usize,
}

struct Thread {
    id: ArbiterId,
    arbiter: Arbiter,
    beat: Arc<Beat>,
    /// Who was placed here, some of whom have left: they are sorted out when they outnumber the others.
    placed: Vec<WeakProbe>,
    residents: Arc<AtomicUsize>,
}

/// One incarnation's place on a thread, which it leaves once.
#[derive(Debug)]
pub(super) struct Resident {
    residents: Arc<AtomicUsize>,
    left: AtomicBool,
}

impl Resident {
    fn of(residents: &Arc<AtomicUsize>) -> Self {
        residents.fetch_add(1, Ordering::AcqRel);
        Self { residents: residents.clone(), left: AtomicBool::new(false) }
    }

    pub(super) fn leave(&self) {
        if !self.left.swap(true, Ordering::AcqRel) {
            self.residents.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// An arbiter thread as it is printed.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ArbiterSnapshot {
    /// Its pool.
    pub pool: String,
    /// Its number.
    pub arbiter: ArbiterId,
    /// Seconds that its last beat came late, or that the next one is late by now.
    pub lag_s: f64,
    /// Incarnations that run on it.
    pub residents: usize,
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
    /// Pools of the given sizes, unwatched; 0 means one thread a core.
    pub fn new(sizes: PoolSizes) -> Self {
        Self::build(sizes, None)
    }

    /// Pools of the given sizes, whose threads are watched once a tree runs on them.
    pub fn watched(sizes: PoolSizes, watchdog: WatchdogPolicy) -> Self {
        Self::build(sizes, Some(watchdog))
    }

    fn build(sizes: PoolSizes, watchdog: Option<WatchdogPolicy>) -> Self {
        let (most, per) = watchdog.map_or((u32::MAX, Duration::ZERO), |w| (w.max_condemned.max(1), w.per));
        let state = State {
            pools: BTreeMap::new(),
            given_up: Vec::new(),
            shared: BTreeMap::new(),
            made: 0,
            // The window tolerates one less than the number that is too many.
            losses: Window::new(most - 1, per),
            too_many: false,
        };
        let condemned = watch::Sender::new(BTreeSet::new());
        let inner = Inner { sizes, watchdog, state: Mutex::new(state), condemned, born: clock::now() };
        Self { inner: Arc::new(inner) }
    }

    /// Has the threads of this pool that start from now on run their actors within `runtime`, a multi-thread one: what
    /// those actors `tokio::spawn`, and their timers and sockets, are then driven by its threads. Each actor still stays on
    /// its arbiter, which is watched and given up as any other. The runtime must outlive the [stop](Pools::stop).
    pub fn share(&self, pool: impl Into<String>, runtime: Arc<Runtime>) {
        self.inner.state.lock().shared.insert(pool.into(), runtime);
    }

    /// How the threads are watched, if they are.
    pub(super) fn watchdog(&self) -> Option<WatchdogPolicy> {
        self.inner.watchdog
    }

    /// A thread of the pool for a child of this name, by `rule`. Must be called on a thread with an actix `System`.
    pub fn place(&self, pool: &str, rule: Place, name: &str) -> Placement {
        if pool == INLINE {
            return Placement::Inline;
        }
        let mut state = self.inner.state.lock();
        let State { pools, made, shared, .. } = &mut *state;
        let runtime = shared.get(pool);
        let pool = pools.entry(pool.to_owned()).or_insert_with(|| Pool {
            size: self.size_of(pool),
            threads: Vec::new(),
            turn: 0,
        });
        pool.threads.resize_with(pool.size, || None);
        for place in &mut pool.threads {
            place.get_or_insert_with(|| {
                *made += 1;
                Thread::start(*made, self.inner.watchdog, runtime)
            });
        }
        let at = pool.pick(rule, name);
        match &pool.threads[at] {
            Some(thread) => Placement::Arbiter(thread.id, thread.arbiter.handle()),
            None => Placement::Inline,
        }
    }

    /// Notes that an incarnation runs on this arbiter, for placing and for the watchdog.
    pub(super) fn settle(&self, arbiter: ArbiterId, probe: &Probe) {
        let mut state = self.inner.state.lock();
        let thread = state.threads_mut().find(|thread| thread.id == arbiter);
        thread.into_iter().for_each(|thread| thread.settle(probe));
    }

    /// What the watchdog looks at: each thread's beats, and whether somebody there holds work.
    pub(super) fn sights(&self) -> Vec<ThreadSight> {
        let state = self.inner.state.lock();
        let sight = |thread: &Thread| ThreadSight {
            arbiter: Some(thread.id),
            beats: thread.beat.count(),
            has_work: thread.live().any(|probe| probe.has_work() || probe.is_in_poll()),
        };
        state.threads().map(|(_, thread)| sight(thread)).collect()
    }

    /// What the watchdog found: how late each thread is.
    pub(super) fn note_overdue(&self, overdue: &BTreeMap<Option<ArbiterId>, Duration>) {
        for (_, thread) in self.inner.state.lock().threads() {
            let late = overdue.get(&Some(thread.id)).copied().unwrap_or_default();
            thread.beat.set_overdue(late);
        }
    }

    /// The threads as they are now.
    pub fn arbiters(&self) -> Vec<ArbiterSnapshot> {
        let state = self.inner.state.lock();
        let shown = |(pool, thread): (&str, &Thread)| ArbiterSnapshot {
            pool: pool.to_owned(),
            arbiter: thread.id,
            lag_s: thread.beat.lag().as_secs_f64(),
            residents: thread.residents(),
        };
        state.threads().map(shown).collect()
    }

    /// How many threads were given up since the process started.
    pub fn condemned_total(&self) -> u64 {
        self.inner.condemned.borrow().len() as u64
    }

    /// Why the threads lost are too many for the process to go on, if they are.
    pub(super) fn too_many_lost(&self) -> Option<String> {
        let policy = self.inner.watchdog.filter(|_| self.inner.state.lock().too_many)?;
        let WatchdogPolicy { max_condemned, per, .. } = policy;
        Some(format!("{max_condemned} blocked threads had to be given up within {per:?}"))
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
            let State { pools, given_up, losses, too_many, .. } = &mut *state;
            let places = pools.values_mut().flat_map(|pool| &mut pool.threads);
            for place in places {
                let Some(blocked) = place.take_if(|thread| thread.id == arbiter) else { continue };
                blocked.arbiter.stop();
                given_up.push(blocked.arbiter);
                tracing::error!(arbiter, "an arbiter thread is blocked, replacing it");
                *too_many |= losses.spend(clock::now().saturating_duration_since(self.inner.born));
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
        let (pools, given_up) = {
            let mut state = self.inner.state.lock();
            state.shared.clear();
            (std::mem::take(&mut state.pools), std::mem::take(&mut state.given_up))
        };
        let threads = pools.into_values().flat_map(|pool| pool.threads).flatten();
        let arbiters = threads.map(|thread| thread.arbiter);
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

impl State {
    fn threads(&self) -> impl Iterator<Item = (&str, &Thread)> {
        self.pools
            .iter()
            .flat_map(|(name, pool)| pool.threads.iter().flatten().map(move |thread| (name.as_str(), thread)))
    }

    fn threads_mut(&mut self) -> impl Iterator<Item = &mut Thread> {
        self.pools.values_mut().flat_map(|pool| pool.threads.iter_mut().flatten())
    }
}

impl Pool {
    /// Which thread a child of this name goes to.
    fn pick(&mut self, rule: Place, name: &str) -> usize {
        let places = self.threads.len().max(1);
        if rule == Place::ByKey {
            let mut hasher = DefaultHasher::new();
            name.hash(&mut hasher);
            return (hasher.finish() % places as u64) as usize;
        }
        // Equals take turns.
        self.turn = (self.turn + 1) % places;
        let fewest = |at: &usize| self.threads[*at].as_ref().map_or(0, Thread::residents);
        (0..places).map(|n| (self.turn + n) % places).min_by_key(fewest).unwrap_or(0)
    }
}

impl Thread {
    fn start(id: ArbiterId, watchdog: Option<WatchdogPolicy>, runtime: Option<&Arc<Runtime>>) -> Self {
        let arbiter = match runtime.cloned() {
            Some(runtime) => Arbiter::with_tokio_rt(move || runtime),
            None => Arbiter::new(),
        };
        let beat = Arc::new(Beat::default());
        if let Some(policy) = watchdog {
            arbiter.spawn(beat.clone().keep(policy.beat_every));
        }
        Self { id, arbiter, beat, placed: Vec::new(), residents: Arc::default() }
    }

    fn settle(&mut self, probe: &Probe) {
        // Twice as many again before the next time: a place costs the same however many there are.
        if self.placed.len() >= 2 * self.residents() + SPARE {
            self.placed.retain(|placed| placed.upgrade().is_some_and(|probe| !probe.is_over()));
        }
        self.placed.push(probe.downgrade());
        probe.reside(Resident::of(&self.residents));
    }

    /// How many incarnations run here.
    fn residents(&self) -> usize {
        self.residents.load(Ordering::Acquire)
    }

    /// The incarnations that still run here.
    fn live(&self) -> impl Iterator<Item = Probe> {
        self.placed.iter().filter_map(WeakProbe::upgrade).filter(|probe| !probe.is_over())
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
