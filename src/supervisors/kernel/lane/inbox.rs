//! The receiving end of a lane for one incarnation of an actor: its polls in, leases out, as many as it has credits.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::Stream;

use super::books::{Shared, State};
use super::{Cargo, Lease};
use crate::supervisors::kernel::probe::Probe;

/// The receiving end of a lane for one incarnation of an actor: a stream of leases.
///
/// It ends once the incarnation was told to drain and has nothing in hand (and, at shutdown, the queue is empty).
pub struct Inbox<M: Cargo> {
    reader: Arc<Reader<M>>,
}

/// What an inbox and its leases share.
pub(super) struct Reader<M: Cargo> {
    pub(super) shared: Arc<Shared<M>>,
    pub(super) id: u64,
    pub(super) probe: Probe,
    /// Leases in hand. Written under the lane's lock.
    pub(super) held: AtomicU64,
}

impl<M: Cargo> Inbox<M> {
    pub(super) fn new(shared: Arc<Shared<M>>, probe: Probe) -> Self {
        let id = shared.next_id();
        Self { reader: Arc::new(Reader { shared, id, probe, held: AtomicU64::new(0) }) }
    }
}

impl<M: Cargo> Reader<M> {
    fn finished(&self, state: &State<M>) -> bool {
        // A closed lane is worked off to its end; an open one is left to the successor.
        let worked_off = || state.queue.is_empty() || state.is_spoiled_for(self.id);
        let over = if self.shared.is_closed() { worked_off() } else { self.probe.drain_requested() };
        over && self.held.load(Ordering::Acquire) == 0
    }

    /// Whether it may take one more message now.
    fn may_take(&self, state: &State<M>) -> bool {
        // What a closed lane still holds is worked off, whoever paused it: the process ends.
        let rests = !self.shared.is_closed() && (self.probe.drain_requested() || self.probe.paused());
        !rests
            && !state.is_spoiled_for(self.id)
            && self.held.load(Ordering::Acquire) < state.policy.credits.max(1) as u64
    }
}

impl<M: Cargo> Stream for Inbox<M> {
    type Item = Lease<M>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Lease<M>>> {
        let reader = &self.reader;
        let mut state = reader.shared.lock();
        if reader.finished(&state) || !reader.probe.generation().is_current() {
            return Poll::Ready(None);
        }
        let taken = if reader.may_take(&state) { state.hand_out(&reader.probe) } else { None };
        let Some((id, delivery)) = taken else {
            state.wait(reader.id, cx.waker());
            return Poll::Pending;
        };
        reader.held.fetch_add(1, Ordering::AcqRel);
        drop(state);
        reader.shared.delivered(&delivery);
        reader.probe.progress();
        Poll::Ready(Some(Lease::new(delivery.message, delivery.attempts, id, reader.clone())))
    }
}

impl<M: Cargo> Drop for Inbox<M> {
    fn drop(&mut self) {
        // Another incarnation may be waiting for what this one would have taken.
        self.reader.shared.leave(self.reader.id);
    }
}

impl<M: Cargo> std::fmt::Debug for Inbox<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inbox({})", self.reader.shared.name)
    }
}
