//! What an incarnation tells its supervisor about itself, and how it hears that it should drain.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use super::breaker::BreakerState;
use super::events::{ChildEvent, Events};
use super::generation::Generation;
use super::journal::{EventKind, Scribe};
use super::lane::Held;
use super::meter::Meter;
use super::node::Node;
use super::pools::Resident;
use super::signal::Signal;
use crate::domain::failure::FailureClass;
use parking_lot::Mutex;

thread_local! {
    static CURRENT: RefCell<Option<Probe>> = const { RefCell::new(None) };
}

/// Why an incarnation is asked to finish up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// A sibling's restart takes it along: finish what is in hand, the lane stays open for the successor.
    Restart,
    /// The process ends: the lane is closed, finish all that is queued.
    Shutdown,
}

/// Handle between one incarnation and its supervisor. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Probe {
    inner: Arc<Inner>,
}

struct Inner {
    child: usize,
    launch: u64,
    generation: Generation,
    events: Events,
    scribe: Option<Scribe>,
    paused: Arc<Signal>,
    ready: AtomicBool,
    over: AtomicBool,
    progress: AtomicU64,
    /// Its own, since whoever waits for it must not keep the incarnation.
    drain: Arc<Signal>,
    /// What few incarnations ever say; made when the first thing is said.
    said: Mutex<Option<Box<Said>>>,
    /// Its place on an arbiter thread, which is free again when it is over.
    resident: OnceLock<Resident>,
    /// Leases in hand and control messages not yet answered.
    work: AtomicU64,
    /// Declared waits under way.
    waits: AtomicU64,
    /// When the poll under way began, in nanoseconds from 1 by the meter's clock; 0 between polls.
    polling: AtomicU64,
    meter: Arc<Meter>,
}

/// What an incarnation said about itself.
#[derive(Default)]
struct Said {
    degraded: Option<String>,
    failure: Option<(FailureClass, String)>,
    /// What fell with it, and how much progress it had made by then.
    fell_with: Option<(Held, u64)>,
    gauges: BTreeMap<&'static str, f64>,
    breaker: Option<BreakerState>,
}

/// States of the drain signal.
const WORKS: u8 = 0;
const DRAINS_TO_RESTART: u8 = 1;
const DRAINS_FOR_GOOD: u8 = 2;

/// A declared wait: until it is dropped, the incarnation may be without progress for longer.
#[derive(Debug)]
#[must_use = "the wait ends when this is dropped"]
pub struct Waiting {
    probe: Probe,
}

/// A piece of work in an incarnation's hands, until it is dropped.
#[derive(Debug)]
#[must_use = "the work ends when this is dropped"]
pub struct InHand {
    probe: Probe,
}

/// Watches an incarnation without keeping its probe.
#[derive(Debug)]
pub(super) struct WeakProbe(Weak<Inner>);

impl Probe {
    /// A probe for the next incarnation of `node`, in slot `child` of its supervisor.
    pub(super) fn new(child: usize, launch: u64, node: &Node, events: Events, meter: Arc<Meter>) -> Self {
        let generation = node.generations.advance();
        Self::build(child, launch, generation, events, Some(node.scribe.clone()), node.pause_signal(), meter)
    }

    fn build(
        child: usize,
        launch: u64,
        generation: Generation,
        events: Events,
        scribe: Option<Scribe>,
        paused: Arc<Signal>,
        meter: Arc<Meter>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                child,
                launch,
                generation,
                events,
                scribe,
                paused,
                ready: AtomicBool::new(false),
                over: AtomicBool::new(false),
                progress: AtomicU64::new(0),
                drain: Arc::new(Signal::new(WORKS)),
                said: Mutex::new(None),
                resident: OnceLock::new(),
                work: AtomicU64::new(0),
                waits: AtomicU64::new(0),
                polling: AtomicU64::new(0),
                meter,
            }),
        }
    }

    /// A probe that reports to nobody, for calling an actor's parts outside a tree.
    pub fn detached() -> Self {
        Self::for_generation(super::generation::Generations::default().advance())
    }

    /// A probe that reports to nobody, for an incarnation that the caller fences himself.
    pub fn for_generation(generation: Generation) -> Self {
        let paused = Arc::new(Signal::new(u8::from(false)));
        Self::build(0, 0, generation, Events::default(), None, paused, Arc::default())
    }

    /// The incarnation this probe belongs to.
    pub fn generation(&self) -> &Generation {
        &self.inner.generation
    }

    /// Reports that the child can do its work: the next sibling may start. Later calls do nothing.
    pub fn ready(&self) {
        if !self.inner.ready.swap(true, Ordering::AcqRel) {
            self.inner.events.push(ChildEvent::Ready { child: self.inner.child, launch: self.inner.launch });
        }
    }

    /// True once [`Probe::ready`] was called.
    pub fn is_ready(&self) -> bool {
        self.inner.ready.load(Ordering::Acquire)
    }

    /// Reports that a message in its hands fails for good: its supervisor is to fail for it.
    pub(super) fn escalate(&self, why: String) {
        let (child, launch) = (self.inner.child, self.inner.launch);
        self.inner.events.push(ChildEvent::Spoiled { child, launch, why });
    }

    /// Counts a step of work.
    pub fn progress(&self) {
        self.inner.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// Steps of work counted so far.
    pub fn progressed(&self) -> u64 {
        self.inner.progress.load(Ordering::Relaxed)
    }

    /// Counts a message as handled: a lease acknowledged, a control message taken.
    pub(super) fn handled(&self) {
        self.inner.meter.count_handled();
        self.progress();
    }

    /// Counts that this incarnation, replaced meanwhile, tried to write outside and was kept from it. Lanes count what
    /// concerns their leases by themselves; this is for actors that write by other rights, such as a claim of a log.
    pub fn fenced(&self) {
        self.inner.meter.count_fenced();
    }

    /// Notes a piece of work until the returned guard is dropped. Leases and control messages are noted by the kernel;
    /// this is for actors that fetch their work themselves.
    pub fn take_in_hand(&self) -> InHand {
        self.work_begun();
        InHand { probe: self.clone() }
    }

    /// True while a lease is held or a control message is not answered.
    pub fn has_work(&self) -> bool {
        self.inner.work.load(Ordering::Acquire) > 0
    }

    /// Declares a wait for something outside, such as a store that is down or a disk: until the guard is dropped, the
    /// incarnation counts as stalled only after `liveness.wait_after`. The end of a wait is progress.
    pub fn wait(&self) -> Waiting {
        self.inner.waits.fetch_add(1, Ordering::AcqRel);
        Waiting { probe: self.clone() }
    }

    /// True inside a declared wait.
    pub fn is_waiting(&self) -> bool {
        self.inner.waits.load(Ordering::Acquire) > 0
    }

    /// Sets a figure that the tree shows, such as `lag`.
    pub fn gauge(&self, name: &'static str, value: f64) {
        self.say(|said| said.gauges.insert(name, value));
    }

    /// The figures set so far.
    pub fn gauges(&self) -> BTreeMap<&'static str, f64> {
        self.said(|said| said.gauges.clone()).unwrap_or_default()
    }

    /// Reports how the dependency behind this adapter stands; a [`Gate`](super::breaker::Gate) does so by itself.
    pub fn breaker(&self, state: BreakerState) {
        let before = self.say(|said| said.breaker.replace(state));
        if before.is_some_and(|before| before != state) {
            self.note(EventKind::Breaker { state: state.as_str().to_owned() });
        }
    }

    /// How the dependency stands, if the incarnation said so.
    pub fn breaker_state(&self) -> Option<BreakerState> {
        self.said(|said| said.breaker).flatten()
    }

    /// Runs one poll of the incarnation and measures it. Meanwhile [`Probe::current`] is this one.
    pub(super) fn measured<T>(&self, poll: impl FnOnce() -> T) -> T {
        let before = CURRENT.replace(Some(self.clone()));
        let from = self.inner.meter.now();
        self.inner.polling.store(nanos(from) + 1, Ordering::Release);
        let out = poll();
        CURRENT.set(before);
        self.inner.polling.store(0, Ordering::Release);
        self.inner.meter.polled(from, self.inner.meter.now());
        out
    }

    /// Share of the last seconds that the node's worker spent in polls.
    pub(super) fn busy_ratio(&self) -> f64 {
        self.inner.meter.busy_ratio(self.in_poll_since())
    }

    /// The incarnation whose poll is running on this thread, for what its code calls.
    pub(super) fn current() -> Option<Probe> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// True while the incarnation's code is running on its thread.
    pub(super) fn is_in_poll(&self) -> bool {
        self.in_poll_since().is_some()
    }

    pub(super) fn downgrade(&self) -> WeakProbe {
        WeakProbe(Arc::downgrade(&self.inner))
    }

    fn in_poll_since(&self) -> Option<Duration> {
        let since = self.inner.polling.load(Ordering::Acquire);
        since.checked_sub(1).map(Duration::from_nanos)
    }

    fn say<T>(&self, word: impl FnOnce(&mut Said) -> T) -> T {
        word(self.inner.said.lock().get_or_insert_default())
    }

    fn said<T>(&self, look: impl FnOnce(&Said) -> T) -> Option<T> {
        self.inner.said.lock().as_deref().map(look)
    }

    /// Takes a place on an arbiter thread, until it is over.
    pub(super) fn reside(&self, resident: Resident) {
        if self.inner.resident.set(resident).is_ok() && self.is_over() {
            self.inner.vacate();
        }
    }

    /// Counts a piece of work in hand, without a guard: [`Probe::work_done`] ends it.
    pub(super) fn work_begun(&self) {
        self.inner.work.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn work_done(&self) {
        self.inner.work.fetch_sub(1, Ordering::AcqRel);
    }

    /// Reports that something outside is down: a state that the tree shows, not a crash.
    pub fn degraded(&self, cause: impl Into<String>) {
        let cause = cause.into();
        let before = self.say(|said| said.degraded.replace(cause.clone()));
        if before.as_ref() != Some(&cause) {
            tracing::warn!(child = self.path(), cause, "degraded");
            self.note(EventKind::Degraded { cause });
        }
    }

    /// Reports that what was down is back.
    pub fn recovered(&self) {
        let cause = self.inner.said.lock().as_mut().and_then(|said| said.degraded.take());
        if cause.is_some() {
            tracing::info!(child = self.path(), "recovered");
            self.note(EventKind::Recovered);
        }
    }

    /// Path of the child in the tree.
    pub fn path(&self) -> &str {
        self.inner.scribe.as_ref().map_or("(no tree)", Scribe::path)
    }

    /// Writes into the journal what happened to this incarnation.
    pub(super) fn note(&self, kind: EventKind) {
        if let Some(scribe) = &self.inner.scribe {
            scribe.note(self.inner.generation.number(), kind);
        }
    }

    /// True while an operator wants no more work to be taken in. Lanes heed it by themselves; a loop that takes its work
    /// from elsewhere looks here before each turn.
    pub fn paused(&self) -> bool {
        self.inner.paused.get() != u8::from(false)
    }

    /// Resolves once [`Probe::paused`] is `paused`; at once where it is already.
    pub fn paused_changed(&self, paused: bool) -> impl Future<Output = ()> + Send + 'static {
        let signal = self.inner.paused.clone();
        async move {
            signal.wait_for(|now| now == u8::from(paused)).await;
        }
    }

    /// Why the child is degraded, if it is.
    pub fn degradation(&self) -> Option<String> {
        self.said(|said| said.degraded.clone()).flatten()
    }

    /// Notes why the actor is about to stop itself. The first note wins; stop the context afterwards.
    pub fn fail(&self, class: FailureClass, why: impl Into<String>) {
        self.say(|said| {
            said.failure.get_or_insert_with(|| (class, why.into()));
        });
    }

    pub(super) fn failure(&self) -> Option<(FailureClass, String)> {
        self.said(|said| said.failure.clone()).flatten()
    }

    /// Which launch of its supervisor this is; two members of a group may share a slot, never a launch.
    pub(super) fn launch(&self) -> u64 {
        self.inner.launch
    }

    /// Says that the incarnation has ended and is only being taken down.
    pub(super) fn set_over(&self) {
        if !self.inner.over.swap(true, Ordering::AcqRel) {
            self.inner.vacate();
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.inner.over.load(Ordering::Acquire)
    }

    /// True for a clone of this very probe.
    pub(super) fn is_same(&self, other: &Probe) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Notes what the incarnation has in hand as it comes down. The first note counts, unless the incarnation went on to
    /// work after it: then the fall was that of something else on its thread.
    pub(super) fn fell_with(&self, held: impl FnOnce() -> Option<Held>) {
        let progress = self.progressed();
        if self.fallen().is_some() {
            return;
        }
        if let Some(held) = held() {
            self.say(|said| said.fell_with = Some((held, progress)));
        }
    }

    /// What fell with the incarnation.
    pub(super) fn fallen(&self) -> Option<Held> {
        let progress = self.progressed();
        let noted = self.said(|said| said.fell_with.clone()).flatten();
        noted.filter(|(_, at)| *at == progress).map(|(held, _)| held)
    }

    pub(super) fn request_drain(&self, drain: Drain) {
        self.inner.drain.set(match drain {
            Drain::Restart => DRAINS_TO_RESTART,
            Drain::Shutdown => DRAINS_FOR_GOOD,
        });
    }

    /// True once the supervisor asked this incarnation to finish up.
    pub fn drain_requested(&self) -> bool {
        self.inner.drain.get() != WORKS
    }

    /// Resolves when the supervisor asks this incarnation to finish up.
    pub fn drained(&self) -> impl Future<Output = Drain> + Send + 'static {
        let signal = self.inner.drain.clone();
        async move {
            match signal.wait_for(|state| state != WORKS).await {
                DRAINS_TO_RESTART => Drain::Restart,
                _ => Drain::Shutdown,
            }
        }
    }
}

impl Inner {
    /// Its place on a thread is free again.
    fn vacate(&self) {
        if let Some(resident) = self.resident.get() {
            resident.leave();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !*self.over.get_mut() {
            self.vacate();
        }
        // The incarnation is gone: whoever still waits to be told so by detached work ends with it.
        if self.drain.get() == WORKS {
            self.drain.set(DRAINS_FOR_GOOD);
        }
    }
}

impl WeakProbe {
    pub(super) fn upgrade(&self) -> Option<Probe> {
        self.0.upgrade().map(|inner| Probe { inner })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.probe.progress();
        self.probe.inner.waits.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.probe.work_done();
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX - 1)
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Probe({}, generation {})", self.path(), self.inner.generation.number())
    }
}
