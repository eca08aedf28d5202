//! The data lane of a child: a bounded queue that its supervisor owns, read by the actor as a stream of leases.
//!
//! In: messages from [`Port`]s. Out: [`Lease`]s to the incarnation that runs now. Because queue and permits do not belong
//! to the actor, both survive its crash: a lease that is dropped without an acknowledgement goes back to its old place in
//! the queue with one attempt more, and after `max_attempts` takes the message's poison path.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::Stream;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::budget::Budget;
use super::generation::Generation;
use super::journal::EventKind;
use super::policy::LanePolicy;
use super::port::Port;
use super::probe::{InHand, Probe, Waiting};
use crate::clock;

/// Byte bounds are kept in units of this size, so that large bounds fit the semaphore's counter.
const UNIT: usize = 1024;

/// What may travel in a lane. Messages are immutable: the lane keeps its own reference for redelivery.
pub trait Cargo: Send + Sync + 'static {
    /// Bytes this message counts for in the lane's byte bound.
    fn weight(&self) -> usize;

    /// Called when the message was delivered `attempts` times and no incarnation acknowledged it: tell whoever waits
    /// for it. Must not block; runs wherever the last lease was dropped, perhaps while a panic unwinds.
    fn poisoned(&self, attempts: u32);

    /// What it is, for the record of a crash: where it came from, how much it is. Never a part of its content.
    fn describe(&self) -> String {
        let name = std::any::type_name::<Self>();
        format!("{}, {} bytes", name.rsplit("::").next().unwrap_or(name), self.weight())
    }
}

/// Whether the lane takes messages in and hands them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intake {
    /// Normal.
    Open,
    /// Nothing more comes in; what is queued is still handed out.
    Draining,
}

/// A bounded lane. Clones are handles of the same lane.
///
/// ```
/// use std::time::Duration;
/// use futures_util::StreamExt;
/// use obtrace::supervisors::kernel::lane::{Cargo, Lane};
/// use obtrace::supervisors::kernel::policy::Policy;
/// use obtrace::supervisors::kernel::probe::Probe;
///
/// struct Batch(&'static str);
///
/// impl Cargo for Batch {
///     fn weight(&self) -> usize {
///         self.0.len()
///     }
///     fn poisoned(&self, attempts: u32) {
///         eprintln!("{} failed {attempts} times", self.0);
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let lane = Lane::new("process.otlp", Policy::default().lane);
/// lane.port().send(Batch("spans"), Duration::from_secs(1)).await.unwrap();
///
/// // In a tree the supervisor gives the inbox to each incarnation; this one crashes with the batch in hand …
/// let mut inbox = lane.inbox(Probe::detached());
/// let lease = inbox.next().await.unwrap();
/// drop((lease, inbox));
///
/// // … so the next one gets it again.
/// let mut inbox = lane.inbox(Probe::detached());
/// let lease = inbox.next().await.unwrap();
/// assert_eq!((lease.0, lease.attempts()), ("spans", 1));
/// assert!(lease.ack());
/// # });
/// ```
pub struct Lane<M: Cargo> {
    pub(super) shared: Arc<Shared<M>>,
}

pub(super) struct Shared<M: Cargo> {
    pub(super) name: String,
    pub(super) policy: watch::Sender<LanePolicy>,
    pub(super) slots: Budget,
    pub(super) units: Budget,
    pub(super) intake: watch::Sender<Intake>,
    state: Mutex<State<M>>,
    counters: Counters,
}

struct State<M> {
    queue: VecDeque<Parcel<M>>,
    leased: BTreeMap<u64, Leased<M>>,
    wakers: BTreeMap<u64, Waker>,
    next_id: u64,
    next_place: u64,
    /// Units resident, waiting or leased.
    units: u64,
    /// Most of them so far, counted as messages come in, under the present bounds.
    peak: u64,
}

/// A parcel in the hands of an incarnation.
struct Leased<M> {
    parcel: Parcel<M>,
    holder: Probe,
    /// Its holder is past the message itself: what happens to the holder now is not the message's doing.
    passed: bool,
}

struct Parcel<M> {
    /// Place in the order of arrival, which redelivery keeps.
    place: u64,
    message: Arc<M>,
    units: u32,
    attempts: u32,
    /// When it was sent; taken at its first delivery.
    sent_at: Option<Instant>,
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    acked: AtomicU64,
    redelivered: AtomicU64,
    poisoned: AtomicU64,
    shed: AtomicU64,
    fenced: AtomicU64,
    waited: AtomicU64,
    waited_ns: AtomicU64,
}

/// Fill and counters of a lane, for the tree snapshot and metrics.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LaneStats {
    /// Name of the lane, which is the path of the child that reads it.
    pub name: String,
    /// Messages waiting.
    pub queued: usize,
    /// Messages in an actor's hands.
    pub leased: usize,
    /// Most messages resident.
    pub capacity: usize,
    /// Bytes resident, rounded up to KiB a message.
    pub bytes: usize,
    /// Most bytes resident.
    pub capacity_bytes: usize,
    /// Most bytes that were resident so far as a message came in, since the bounds were last changed.
    pub peak_bytes: usize,
    /// Messages ever accepted.
    pub sent: u64,
    /// Messages acknowledged by their actor.
    pub acked: u64,
    /// Deliveries that ended without an acknowledgement.
    pub redelivered: u64,
    /// Messages that took the poison path.
    pub poisoned: u64,
    /// Messages refused because the lane was full.
    pub shed: u64,
    /// Times that an incarnation that had been replaced tried to acknowledge or to act.
    pub fenced: u64,
    /// Messages that were delivered at least once.
    pub waited: u64,
    /// Seconds that these waited from being sent to their first delivery, summed up.
    pub waited_s: f64,
}

/// What the kernel can ask of a lane without knowing what travels in it.
pub trait LaneView: Send + Sync {
    /// Fill and counters.
    fn stats(&self) -> LaneStats;
    /// Lets nothing more in; what is queued is still handed out.
    fn close(&self);
    /// Takes every lease of an incarnation that is no longer the current one of its child back into the queue; its later
    /// acknowledgements count for nothing. With `blame` each message that had not [passed](Lease::passed) has one attempt
    /// more on its count. Returns how many.
    fn revoke(&self, blame: bool) -> usize;
    /// Moves the bounds and rules, while messages are in it: what is over a smaller bound drains down, nothing is dropped.
    fn resize(&self, policy: LanePolicy);
    /// Has every inbox look again whether it may hand out.
    fn wake(&self);
    /// What the incarnation of `holder` has in hand here.
    fn held_by(&self, holder: &Probe) -> Option<Held>;
}

/// What an incarnation has in hand.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Held {
    /// The lane it came from.
    pub lane: String,
    /// The message, in its own words ([`Cargo::describe`]): one that failed before, or else the newest.
    pub message: String,
    /// Deliveries of it that failed before this one.
    pub attempts: u32,
    /// How many messages are in hand.
    pub leases: usize,
}

impl Held {
    /// True when its holder's crash is not the first one over this message.
    pub fn is_suspect(&self) -> bool {
        self.attempts > 0
    }
}

impl<M: Cargo> Clone for Lane<M> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<M: Cargo> std::fmt::Debug for Lane<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lane({:?})", self.stats())
    }
}

// === impl Lane ===

impl<M: Cargo> Lane<M> {
    /// An empty open lane. Bounds below one message or one KiB are raised to that.
    pub fn new(name: impl Into<String>, policy: LanePolicy) -> Self {
        Self {
            shared: Arc::new(Shared {
                name: name.into(),
                slots: Budget::new(policy.capacity),
                units: Budget::new(policy.bytes / UNIT),
                intake: watch::Sender::new(Intake::Open),
                state: Mutex::new(State {
                    queue: VecDeque::new(),
                    leased: BTreeMap::new(),
                    wakers: BTreeMap::new(),
                    next_id: 0,
                    next_place: 0,
                    units: 0,
                    peak: 0,
                }),
                counters: Counters::default(),
                policy: watch::Sender::new(policy),
            }),
        }
    }

    /// A sender into this lane.
    pub fn port(&self) -> Port<M> {
        Port::new(self.shared.clone())
    }

    /// The receiving end for one incarnation. It hands out at most `credits` leases at a time.
    pub fn inbox(&self, probe: Probe) -> Inbox<M> {
        let id = self.shared.state.lock().next_id();
        Inbox { shared: self.shared.clone(), id, probe, held: Arc::default() }
    }
}

impl<M: Cargo> LaneView for Lane<M> {
    fn stats(&self) -> LaneStats {
        let (queued, leased, units, peak) = {
            let state = self.shared.state.lock();
            (state.queue.len(), state.leased.len(), state.units, state.peak)
        };
        let counters = &self.shared.counters;
        let policy = self.shared.policy();
        LaneStats {
            name: self.shared.name.clone(),
            queued,
            leased,
            capacity: policy.capacity,
            bytes: units as usize * UNIT,
            capacity_bytes: policy.bytes,
            peak_bytes: peak as usize * UNIT,
            sent: counters.sent.load(Ordering::Relaxed),
            acked: counters.acked.load(Ordering::Relaxed),
            redelivered: counters.redelivered.load(Ordering::Relaxed),
            poisoned: counters.poisoned.load(Ordering::Relaxed),
            shed: counters.shed.load(Ordering::Relaxed),
            fenced: counters.fenced.load(Ordering::Relaxed),
            waited: counters.waited.load(Ordering::Relaxed),
            waited_s: Duration::from_nanos(counters.waited_ns.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }

    fn close(&self) {
        self.shared.intake.send_replace(Intake::Draining);
        self.shared.wake_all();
    }

    fn revoke(&self, blame: bool) -> usize {
        let stale: Vec<u64> = {
            let state = self.shared.state.lock();
            let stale = |leased: &Leased<M>| !leased.holder.generation().is_current();
            state.leased.iter().filter(|(_, leased)| stale(leased)).map(|(id, _)| *id).collect()
        };
        stale.into_iter().filter(|id| self.shared.give_back(*id, blame)).count()
    }

    fn resize(&self, policy: LanePolicy) {
        self.shared.slots.resize(policy.capacity);
        self.shared.units.resize(policy.bytes / UNIT);
        self.shared.state.lock().peak = 0;
        // Last: senders that wait look at it anew when it changes, and must then find the new bounds.
        self.shared.policy.send_replace(policy);
        // More credits may let an inbox go on.
        self.shared.wake_all();
    }

    fn wake(&self) {
        self.shared.wake_all();
    }

    fn held_by(&self, holder: &Probe) -> Option<Held> {
        let (message, attempts, leases) = {
            let state = self.shared.state.lock();
            let mine = || state.leased.values().filter(|leased| leased.holder.is_same(holder));
            // Ids grow, so the last one is the newest; one that failed before is the likelier culprit.
            let suspect = mine().filter(|leased| !leased.passed).max_by_key(|leased| leased.parcel.attempts);
            let shown = suspect.filter(|leased| leased.parcel.attempts > 0).or_else(|| mine().next_back())?;
            let attempts = if shown.passed { 0 } else { shown.parcel.attempts };
            (shown.parcel.message.clone(), attempts, mine().count())
        };
        Some(Held { lane: self.shared.name.clone(), message: described(&*message), attempts, leases })
    }
}

/// A message's own words. They are foreign code, and asked for while a panic unwinds.
fn described<M: Cargo>(message: &M) -> String {
    catch_unwind(AssertUnwindSafe(|| message.describe()))
        .unwrap_or_else(|_| String::from("(its description panicked)"))
}

// === impl Shared ===

impl<M: Cargo> Shared<M> {
    /// The policy as of now.
    pub(super) fn policy(&self) -> LanePolicy {
        *self.policy.borrow()
    }

    /// Permits a message of `weight` bytes takes; a message larger than the whole bound takes all of it.
    pub(super) fn units_of(&self, weight: usize) -> u32 {
        let bound = (self.policy().bytes / UNIT).clamp(1, u32::MAX as usize);
        u32::try_from(weight.div_ceil(UNIT).clamp(1, bound)).unwrap_or(u32::MAX)
    }

    /// Queues a message whose permits were already taken (and forgotten) by the port. Says no, and returns the permits,
    /// if the lane was closed meanwhile: an inbox that saw it closed and empty must be able to rely on that.
    pub(super) fn push(&self, message: M, units: u32) -> bool {
        {
            let mut state = self.state.lock();
            if *self.intake.borrow() == Intake::Draining {
                drop(state);
                self.release(units);
                return false;
            }
            let place = state.next_place;
            state.next_place += 1;
            state.units += u64::from(units);
            state.peak = state.peak.max(state.units);
            let sent_at = Some(clock::now());
            state.queue.push_back(Parcel { place, message: Arc::new(message), units, attempts: 0, sent_at });
        }
        self.counters.sent.fetch_add(1, Ordering::Relaxed);
        self.wake_all();
        true
    }

    pub(super) fn count_shed(&self) {
        self.counters.shed.fetch_add(1, Ordering::Relaxed);
    }

    fn count_fenced(&self) {
        self.counters.fenced.fetch_add(1, Ordering::Relaxed);
    }

    fn count_wait(&self, sent_at: Instant) {
        let waited = clock::now().saturating_duration_since(sent_at).as_nanos();
        self.counters.waited.fetch_add(1, Ordering::Relaxed);
        self.counters.waited_ns.fetch_add(u64::try_from(waited).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn release(&self, units: u32) {
        self.slots.give(1);
        self.units.give(units);
    }

    /// Ends a lease for good. False when its holder is a zombie: the lease was revoked, or is about to be.
    fn settle(&self, id: u64, by: &Generation) -> bool {
        if !by.is_current() {
            self.count_fenced();
            self.give_back(id, true);
            return false;
        }
        let taken = {
            let mut state = self.state.lock();
            let taken = state.leased.remove(&id);
            state.units -= taken.as_ref().map_or(0, |leased| u64::from(leased.parcel.units));
            taken
        };
        let Some(leased) = taken else {
            self.count_fenced();
            return false;
        };
        self.counters.acked.fetch_add(1, Ordering::Relaxed);
        self.release(leased.parcel.units);
        true
    }

    /// Ends a lease without success: back to its place in the queue, or onto the poison path. False if it had ended.
    fn give_back(&self, id: u64, blame: bool) -> bool {
        let max_attempts = self.policy().max_attempts.max(1);
        let poisoned = {
            let mut state = self.state.lock();
            let Some(Leased { mut parcel, holder, passed }) = state.leased.remove(&id) else { return false };
            if blame && !passed {
                parcel.attempts += 1;
            }
            let spent = parcel.attempts >= max_attempts;
            if spent {
                state.units -= u64::from(parcel.units);
                Some((parcel, holder))
            } else {
                state.put_back(parcel);
                None
            }
        };
        self.counters.redelivered.fetch_add(1, Ordering::Relaxed);
        match poisoned {
            Some((parcel, holder)) => self.poison(&parcel, &holder),
            None => self.wake_all(),
        }
        true
    }

    fn poison(&self, parcel: &Parcel<M>, holder: &Probe) {
        self.counters.poisoned.fetch_add(1, Ordering::Relaxed);
        self.release(parcel.units);
        tracing::error!(
            child = holder.path(),
            lane = self.name,
            attempts = parcel.attempts,
            "a message is given up"
        );
        holder.note(EventKind::Poisoned { attempts: parcel.attempts });
        // Often the lease falls while its holder's panic unwinds: a second panic that got out would abort the process.
        let told = catch_unwind(AssertUnwindSafe(|| parcel.message.poisoned(parcel.attempts)));
        if told.is_err() {
            tracing::error!(lane = self.name, "the poison path of a message panicked");
        }
    }

    /// Wakes every inbox, outside the lock: a waker is foreign code.
    fn wake_all(&self) {
        let wakers = std::mem::take(&mut self.state.lock().wakers);
        wakers.into_values().for_each(Waker::wake);
    }
}

impl<M> State<M> {
    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Back into the order of arrival. What comes back is older than nearly all that waits, so the search is short.
    fn put_back(&mut self, parcel: Parcel<M>) {
        let at = self.queue.iter().position(|other| other.place > parcel.place).unwrap_or(self.queue.len());
        self.queue.insert(at, parcel);
    }
}

/// The receiving end of a lane for one incarnation of an actor: a stream of leases.
///
/// It ends once the incarnation was told to drain and has nothing in hand (and, at shutdown, the queue is empty).
pub struct Inbox<M: Cargo> {
    shared: Arc<Shared<M>>,
    id: u64,
    probe: Probe,
    held: Arc<AtomicU64>,
}

impl<M: Cargo> Inbox<M> {
    fn finished(&self, state: &State<M>) -> bool {
        let idle = self.held.load(Ordering::Acquire) == 0;
        let draining = *self.shared.intake.borrow() == Intake::Draining;
        // A closed lane is worked off to its end; an open one is left to the successor.
        idle && if draining { state.queue.is_empty() } else { self.probe.drain_requested() }
    }
}

impl<M: Cargo> Stream for Inbox<M> {
    type Item = Lease<M>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Lease<M>>> {
        let this = self.get_mut();
        let mut state = this.shared.state.lock();
        if this.finished(&state) || !this.probe.generation().is_current() {
            return Poll::Ready(None);
        }
        let credits = this.shared.policy().credits.max(1) as u64;
        // What a closed lane still holds is worked off, whoever paused it: the process ends.
        let rests = *this.shared.intake.borrow() == Intake::Open
            && (this.probe.drain_requested() || this.probe.paused());
        let may_take = !rests && this.held.load(Ordering::Acquire) < credits;
        if let Some(mut parcel) = may_take.then(|| state.queue.pop_front()).flatten() {
            let id = state.next_id();
            parcel.sent_at.take().into_iter().for_each(|at| this.shared.count_wait(at));
            let lease = Lease {
                message: parcel.message.clone(),
                attempts: parcel.attempts,
                id,
                probe: this.probe.clone(),
                _in_hand: this.probe.take_in_hand(),
                shared: this.shared.clone(),
                held: this.held.clone(),
                open: true,
            };
            state.leased.insert(id, Leased { parcel, holder: this.probe.clone(), passed: false });
            this.held.fetch_add(1, Ordering::AcqRel);
            this.probe.progress();
            return Poll::Ready(Some(lease));
        }
        state.wakers.insert(this.id, cx.waker().clone());
        Poll::Pending
    }
}

impl<M: Cargo> Drop for Inbox<M> {
    fn drop(&mut self) {
        self.shared.state.lock().wakers.remove(&self.id);
        // Another incarnation may be waiting for what this one would have taken.
        self.shared.wake_all();
    }
}

impl<M: Cargo> std::fmt::Debug for Inbox<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inbox({})", self.shared.name)
    }
}

/// A message in an actor's hands. [`ack`](Lease::ack) it when its work is done; dropping it brings it back.
pub struct Lease<M: Cargo> {
    message: Arc<M>,
    attempts: u32,
    id: u64,
    probe: Probe,
    _in_hand: InHand,
    shared: Arc<Shared<M>>,
    held: Arc<AtomicU64>,
    open: bool,
}

impl<M: Cargo> Lease<M> {
    /// The message itself was handled without a fault; the lease now only waits, for a disk or an answer. A later crash of
    /// its holder is then not this message's doing: it comes back without another attempt on its count.
    pub fn passed(&self) {
        if let Some(leased) = self.shared.state.lock().leased.get_mut(&self.id) {
            leased.passed = true;
        }
    }

    /// Deliveries of this message that failed before this one.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The message, shared with the lane.
    pub fn message(&self) -> &Arc<M> {
        &self.message
    }

    /// The incarnation this lease was given to.
    pub fn generation(&self) -> &Generation {
        self.probe.generation()
    }

    /// Declares that the work on this message waits for something outside, see [`Probe::wait`].
    pub fn wait(&self) -> Waiting {
        self.probe.wait()
    }

    /// True as long as no later incarnation has taken over. Ask before writing anything outside, and again before
    /// acknowledging it: a zombie must not write.
    pub fn is_current(&self) -> bool {
        self.probe.generation().is_current()
    }

    /// Its holder found out that it was replaced and acts no further: counts that, and lets go.
    pub fn fenced(mut self) {
        self.open = false;
        self.shared.count_fenced();
        self.shared.give_back(self.id, true);
        self.let_go();
    }

    /// The work is done. False when the lease had been revoked, so that the work of a zombie must not count.
    pub fn ack(mut self) -> bool {
        self.open = false;
        let counted = self.shared.settle(self.id, self.probe.generation());
        if counted {
            self.probe.handled();
        }
        self.let_go();
        counted
    }

    fn let_go(&self) {
        self.held.fetch_sub(1, Ordering::AcqRel);
        self.shared.wake_all();
    }
}

impl<M: Cargo> Deref for Lease<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.message
    }
}

impl<M: Cargo> Drop for Lease<M> {
    fn drop(&mut self) {
        if self.open {
            // Falls with its holder: what the supervisor is to know of it is noted while it is still in the books.
            if self.probe.is_over() || std::thread::panicking() {
                self.probe.fell_with(|| Lane { shared: self.shared.clone() }.held_by(&self.probe));
            }
            self.shared.give_back(self.id, true);
            self.let_go();
        }
    }
}

impl<M: Cargo> std::fmt::Debug for Lease<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({}#{}, attempt {})", self.shared.name, self.id, self.attempts + 1)
    }
}
