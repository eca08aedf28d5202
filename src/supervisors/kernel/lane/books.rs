//! The books of a lane: what waits in it, what is in whose hands, who waits for what. One lock, held for a few steps and
//! never while foreign code (a waker, a message's own methods) runs.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::inbox::Reader;
use super::stats::{Count, Counters, LaneStats};
use super::{Cargo, described};
use crate::clock;
use crate::supervisors::kernel::budget::Budget;
use crate::supervisors::kernel::journal::EventKind;
use crate::supervisors::kernel::policy::{LanePolicy, Overflow, Poison};
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::signal::Signal;

/// Byte bounds are kept in units of this size, so that large bounds fit the semaphore's counter.
pub(super) const UNIT: usize = 1024;

/// States of a lane's intake.
const OPEN: u8 = 0;
const CLOSED: u8 = 1;

/// What the handles of a lane share.
pub(in crate::supervisors::kernel) struct Shared<M: Cargo> {
    pub(in crate::supervisors::kernel) name: Arc<str>,
    pub(in crate::supervisors::kernel) slots: Budget,
    pub(in crate::supervisors::kernel) units: Budget,
    /// Closed: nothing more comes in, what is queued is still handed out.
    intake: Signal,
    /// The rules as senders look at them, without the lock: the bound in units, and its top bit for a lane that sheds.
    rules: AtomicU64,
    /// Rings for senders that wait, when the rules or the intake change.
    moved: Notify,
    state: Mutex<State<M>>,
    counters: Counters,
}

/// What is under the lock.
pub(super) struct State<M> {
    pub(super) policy: LanePolicy,
    pub(super) queue: VecDeque<Parcel<M>>,
    leased: BTreeMap<u64, Leased<M>>,
    wakers: Vec<(u64, Waker)>,
    next_id: u64,
    next_place: u64,
    /// Units resident, waiting or leased.
    units: u64,
    /// Most of them so far, counted as messages come in, under the present bounds.
    peak: u64,
    /// Inboxes up to this number get nothing more: a message failed for good, and their supervisor is to fail for it.
    spoiled: u64,
}

/// A parcel in the hands of an incarnation.
struct Leased<M> {
    parcel: Parcel<M>,
    holder: Probe,
    /// Its holder is past the message itself: what happens to the holder now is not the message's doing.
    passed: bool,
}

pub(super) struct Parcel<M> {
    /// Place in the order of arrival, which redelivery keeps.
    place: u64,
    message: Arc<M>,
    units: u32,
    attempts: u32,
    /// When it was sent; taken at its first delivery.
    sent_at: Option<Instant>,
}

/// A message on its way into an actor's hands.
pub(super) struct Delivery<M> {
    pub(super) message: Arc<M>,
    pub(super) attempts: u32,
    sent_at: Option<Instant>,
}

/// What a sender has to know.
#[derive(Debug, Clone, Copy)]
pub(in crate::supervisors::kernel) struct Rules {
    /// Most units resident.
    bound: u64,
    /// A full lane refuses at once.
    pub(in crate::supervisors::kernel) sheds: bool,
}

impl Rules {
    const SHEDS: u64 = 1 << 63;

    fn of(policy: &LanePolicy) -> u64 {
        let sheds = if policy.overflow == Overflow::ShedNewest { Self::SHEDS } else { 0 };
        ((policy.bytes / UNIT) as u64).clamp(1, u64::from(u32::MAX)) | sheds
    }

    /// Permits a message of `weight` bytes takes; a message larger than the whole bound takes all of it.
    pub(in crate::supervisors::kernel) fn units_of(self, weight: usize) -> u32 {
        let units = weight.div_ceil(UNIT) as u64;
        u32::try_from(units.clamp(1, self.bound)).unwrap_or(u32::MAX)
    }
}

impl<M: Cargo> Shared<M> {
    pub(super) fn new(name: Arc<str>, policy: LanePolicy) -> Self {
        Self {
            name,
            slots: Budget::new(policy.capacity),
            units: Budget::new(policy.bytes / UNIT),
            intake: Signal::new(OPEN),
            rules: AtomicU64::new(Rules::of(&policy)),
            moved: Notify::new(),
            state: Mutex::new(State {
                policy,
                queue: VecDeque::new(),
                leased: BTreeMap::new(),
                wakers: Vec::new(),
                next_id: 0,
                next_place: 0,
                units: 0,
                peak: 0,
                spoiled: 0,
            }),
            counters: Counters::default(),
        }
    }

    // --- for senders ---

    /// The rules as of now.
    pub(in crate::supervisors::kernel) fn rules(&self) -> Rules {
        let rules = self.rules.load(Ordering::Acquire);
        Rules { bound: rules & !Rules::SHEDS, sheds: rules & Rules::SHEDS != 0 }
    }

    /// True once nothing more comes in.
    pub(in crate::supervisors::kernel) fn is_closed(&self) -> bool {
        self.intake.get() == CLOSED
    }

    /// Resolves when the rules or the intake have changed since this was called.
    pub(in crate::supervisors::kernel) fn moved(&self) -> Notified<'_> {
        self.moved.notified()
    }

    /// Queues a message whose permits were already taken (and forgotten) by the port. Says no, and returns the permits,
    /// if the lane was closed meanwhile: an inbox that saw it closed and empty must be able to rely on that.
    pub(in crate::supervisors::kernel) fn push(&self, message: M, units: u32) -> bool {
        let (message, sent_at) = (Arc::new(message), Some(clock::now()));
        let wakers = {
            let mut state = self.lock();
            if self.is_closed() {
                drop(state);
                self.release(units);
                return false;
            }
            let place = state.next_place;
            state.next_place += 1;
            state.units += u64::from(units);
            state.peak = state.peak.max(state.units);
            state.queue.push_back(Parcel { place, message, units, attempts: 0, sent_at });
            std::mem::take(&mut state.wakers)
        };
        self.counters.count(Count::Sent);
        wake(wakers);
        true
    }

    pub(in crate::supervisors::kernel) fn count_shed(&self) {
        self.counters.count(Count::Shed);
    }

    // --- for the supervisor ---

    pub(super) fn close(&self) {
        self.intake.set(CLOSED);
        self.moved.notify_waiters();
        self.wake_all();
    }

    pub(super) fn resize(&self, policy: LanePolicy) {
        self.slots.resize(policy.capacity);
        self.units.resize(policy.bytes / UNIT);
        {
            let mut state = self.lock();
            (state.policy, state.peak) = (policy, 0);
        }
        self.rules.store(Rules::of(&policy), Ordering::Release);
        // Last: senders that wait look at it anew, and must then find the new bounds.
        self.moved.notify_waiters();
        // More credits may let an inbox go on.
        self.wake_all();
    }

    pub(super) fn revoke(&self, blame: bool) -> usize {
        let stale: Vec<u64> = {
            let state = self.lock();
            let stale = |leased: &Leased<M>| !leased.holder.generation().is_current();
            state.leased.iter().filter(|(_, leased)| stale(leased)).map(|(id, _)| *id).collect()
        };
        stale.into_iter().filter(|id| self.give_back(*id, blame)).count()
    }

    /// The message that `holder` has in hand: one that failed before, or else the newest; its attempts; how many there are.
    pub(super) fn held_by(&self, holder: &Probe) -> Option<(Arc<M>, u32, usize)> {
        let state = self.lock();
        let mine = || state.leased.values().filter(|leased| leased.holder.is_same(holder));
        // Ids grow, so the last one is the newest; one that failed before is the likelier culprit.
        let suspect = mine().filter(|leased| !leased.passed).max_by_key(|leased| leased.parcel.attempts);
        let shown = suspect.filter(|leased| leased.parcel.attempts > 0).or_else(|| mine().next_back())?;
        let attempts = if shown.passed { 0 } else { shown.parcel.attempts };
        Some((shown.parcel.message.clone(), attempts, mine().count()))
    }

    pub(super) fn stats(&self) -> LaneStats {
        let (policy, sizes, units) = {
            let state = self.lock();
            (state.policy, [state.queue.len(), state.leased.len()], [state.units, state.peak])
        };
        self.counters.stats(&self.name, &policy, sizes, units)
    }

    // --- for inboxes and leases ---

    pub(super) fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock()
    }

    pub(super) fn next_id(&self) -> u64 {
        self.lock().next_id()
    }

    pub(super) fn delivered(&self, delivery: &Delivery<M>) {
        if let Some(sent_at) = delivery.sent_at {
            self.counters.count_wait(clock::now().saturating_duration_since(sent_at));
        }
    }

    /// An inbox is gone.
    pub(super) fn leave(&self, reader: u64) {
        self.lock().wakers.retain(|(id, _)| *id != reader);
        self.wake_all();
    }

    pub(super) fn passed(&self, id: u64) {
        if let Some(leased) = self.lock().leased.get_mut(&id) {
            leased.passed = true;
        }
    }

    /// Ends a lease for good. False when its holder is a zombie: the lease was revoked, or is about to be.
    pub(super) fn settle(&self, id: u64, by: &Reader<M>) -> bool {
        if !by.probe.generation().is_current() {
            self.fenced(id, by);
            return false;
        }
        let (settled, waker) = {
            let mut state = self.lock();
            let settled = state.leased.remove(&id);
            state.units -= settled.as_ref().map_or(0, |leased| u64::from(leased.parcel.units));
            by.held.fetch_sub(1, Ordering::AcqRel);
            (settled, state.waker_of(by.id))
        };
        match &settled {
            Some(leased) => {
                self.counters.count(Count::Acked);
                by.probe.handled();
                self.release(leased.parcel.units);
            }
            None => self.counters.count(Count::Fenced),
        }
        // It may wait for the credit, or for having nothing in hand.
        waker.into_iter().for_each(Waker::wake);
        settled.is_some()
    }

    /// A holder that was replaced lets go.
    pub(super) fn fenced(&self, id: u64, by: &Reader<M>) {
        self.counters.count(Count::Fenced);
        self.let_go(id, by);
    }

    /// A holder lets go without having done the work.
    pub(super) fn let_go(&self, id: u64, by: &Reader<M>) {
        self.give_back(id, true);
        {
            let _state = self.lock();
            by.held.fetch_sub(1, Ordering::AcqRel);
        }
        self.wake_all();
    }

    /// Ends a lease without success: back to its place in the queue, or onto the poison path. False if it had ended.
    fn give_back(&self, id: u64, blame: bool) -> bool {
        let (rule, poison, holder) = {
            let mut state = self.lock();
            let Some(Leased { mut parcel, holder, passed }) = state.leased.remove(&id) else { return false };
            let blamed = blame && !passed;
            parcel.attempts += u32::from(blamed);
            let rule = state.policy.poison;
            let spent =
                parcel.attempts >= state.policy.max_attempts.max(1) && (blamed || rule != Poison::Escalate);
            let poison = spent.then(|| (parcel.message.clone(), parcel.attempts, parcel.units));
            if spent && rule != Poison::Escalate {
                state.units -= u64::from(parcel.units);
            }
            // What is escalated stays: nothing goes on until somebody has looked at it.
            if !spent || rule == Poison::Escalate {
                state.put_back(parcel);
            }
            if spent && rule == Poison::Escalate {
                state.spoiled = state.next_id;
            }
            (rule, poison, holder)
        };
        self.counters.count(Count::Redelivered);
        if let Some((message, attempts, units)) = poison {
            self.counters.count(Count::Poisoned);
            if rule != Poison::Escalate {
                self.release(units);
            }
            self.poison(rule, &message, attempts, &holder);
        }
        self.wake_all();
        true
    }

    /// What becomes of a message that was delivered too often.
    fn poison(&self, rule: Poison, message: &Arc<M>, attempts: u32, holder: &Probe) {
        let (child, lane) = (holder.path(), &*self.name);
        match rule {
            Poison::Isolate => {
                tracing::error!(child, lane, attempts, "a message is given up");
                holder.note(EventKind::Poisoned { attempts });
                self.tell(|| message.poisoned(attempts));
            }
            Poison::Drop => {
                let what = described(&**message);
                tracing::error!(child, lane, attempts, message = what, "a message is dropped");
                self.counters.count(Count::Dropped);
                holder.note(EventKind::Dropped { attempts, message: what });
                self.tell(|| message.dropped(attempts));
            }
            Poison::Escalate => {
                let what = described(&**message);
                tracing::error!(
                    child,
                    lane,
                    attempts,
                    message = what,
                    "a message fails for good, escalating"
                );
                holder.note(EventKind::Poisoned { attempts });
                holder.escalate(format!("{what} failed {attempts} times"));
            }
        }
    }

    /// Often the lease falls while its holder's panic unwinds: a second panic that got out would abort the process.
    fn tell(&self, told: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(told)).is_err() {
            tracing::error!(lane = &*self.name, "the poison path of a message panicked");
        }
    }

    fn release(&self, units: u32) {
        self.slots.give(1);
        self.units.give(units);
    }

    /// Wakes every inbox.
    pub(super) fn wake_all(&self) {
        let wakers = std::mem::take(&mut self.lock().wakers);
        wake(wakers);
    }
}

/// Outside the lock: a waker is foreign code.
fn wake(wakers: Vec<(u64, Waker)>) {
    wakers.into_iter().for_each(|(_, waker)| waker.wake());
}

impl<M> State<M> {
    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// True for an inbox that gets nothing more, since the next incarnations are to begin with what failed.
    pub(super) fn is_spoiled_for(&self, reader: u64) -> bool {
        reader <= self.spoiled
    }

    /// Puts the first message into the hands of `holder`.
    pub(super) fn hand_out(&mut self, holder: &Probe) -> Option<(u64, Delivery<M>)> {
        let mut parcel = self.queue.pop_front()?;
        let (message, sent_at) = (parcel.message.clone(), parcel.sent_at.take());
        let delivery = Delivery { message, attempts: parcel.attempts, sent_at };
        let id = self.next_id();
        self.leased.insert(id, Leased { parcel, holder: holder.clone(), passed: false });
        Some((id, delivery))
    }

    /// Back into the order of arrival. What comes back is older than nearly all that waits, so the search is short.
    fn put_back(&mut self, parcel: Parcel<M>) {
        let at = self.queue.iter().position(|other| other.place > parcel.place).unwrap_or(self.queue.len());
        self.queue.insert(at, parcel);
    }

    /// An inbox waits until something changes.
    pub(super) fn wait(&mut self, reader: u64, waker: &Waker) {
        match self.wakers.iter_mut().find(|(id, _)| *id == reader) {
            Some((_, known)) => known.clone_from(waker),
            None => self.wakers.push((reader, waker.clone())),
        }
    }

    fn waker_of(&mut self, reader: u64) -> Option<Waker> {
        let at = self.wakers.iter().position(|(id, _)| *id == reader)?;
        Some(self.wakers.swap_remove(at).1)
    }
}
