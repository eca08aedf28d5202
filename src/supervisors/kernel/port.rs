//! Senders into lanes, and the replies that come back. A port stays valid while the actor behind it restarts.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::lane::{Cargo, Lane, LaneStats, LaneView, Shared};
use super::probe::Probe;
use crate::clock;

/// Why a message was not taken, or not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The lane stayed full until the deadline, or sheds at once.
    #[error("the lane is full")]
    Full,
    /// The process is shutting down.
    #[error("the lane is draining")]
    Draining,
    /// The message was taken but no answer came before the deadline: whether it took effect is unknown.
    #[error("no answer within the deadline")]
    NoAnswer,
    /// The child is between two incarnations; try again.
    #[error("the child is restarting")]
    Restarting,
    /// The child ended for good, or dropped the message.
    #[error("the child is gone")]
    Gone,
}

/// A sender into a lane. Cloning is one reference count; it can be held by any thread.
///
/// ```
/// use std::time::Duration;
/// use obtrace::supervisors::kernel::lane::{Cargo, Lane};
/// use obtrace::supervisors::kernel::policy::{LanePolicy, Policy};
/// use obtrace::supervisors::kernel::port::PortError;
///
/// struct Order;
///
/// impl Cargo for Order {
///     fn weight(&self) -> usize {
///         1
///     }
///     fn poisoned(&self, _attempts: u32) {}
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let lane = Lane::new("kitchen", LanePolicy { capacity: 1, ..Policy::default().lane });
/// let port = lane.port();
/// assert_eq!(port.try_send(Order), Ok(()));
/// // Nobody reads the lane, so it stays full; the sender is told at its own deadline.
/// assert_eq!(port.send(Order, Duration::from_millis(1)).await, Err(PortError::Full));
/// # });
/// ```
pub struct Port<M: Cargo> {
    shared: Arc<Shared<M>>,
}

impl<M: Cargo> Clone for Port<M> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<M: Cargo> std::fmt::Debug for Port<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Port({})", self.shared.name)
    }
}

impl<M: Cargo> Port<M> {
    pub(super) fn new(shared: Arc<Shared<M>>) -> Self {
        Self { shared }
    }

    /// Sends a message, waiting for room until `deadline` (or not at all where the lane sheds).
    ///
    /// # Errors
    /// [`PortError::Full`] or [`PortError::Draining`]; the message was then not taken.
    pub async fn send(&self, message: M, deadline: Duration) -> Result<(), PortError> {
        // A sender that always finds room still lets others run on its thread.
        tokio::task::coop::consume_budget().await;
        if let Some(units) = self.room(&message) {
            return self.push(message, units);
        }
        self.send_later(message, clock::now() + deadline).await
    }

    /// Waits for room. How much of the bound a message takes depends on the bound, and whether it waits on the rule: both
    /// may be changed while it waits.
    async fn send_later(&self, message: M, ends: Instant) -> Result<(), PortError> {
        let weight = message.weight();
        loop {
            // Before the look at the rules: what changes after this line wakes it.
            let moved = self.shared.moved();
            let rules = self.shared.rules();
            if rules.sheds || self.shared.is_closed() {
                return self.try_send(message);
            }
            let units = rules.units_of(weight);
            let room = async { (self.shared.slots.take(1).await, self.shared.units.take(units).await) };
            let (slot, bytes) = tokio::select! {
                biased;
                room = room => room,
                () = moved => continue,
                () = tokio::time::sleep_until(ends) => return Err(self.full()),
            };
            slot.keep();
            bytes.keep();
            return self.push(message, units);
        }
    }

    /// Sends a message if there is room now.
    ///
    /// # Errors
    /// [`PortError::Full`] or [`PortError::Draining`]; the message was then not taken.
    pub fn try_send(&self, message: M) -> Result<(), PortError> {
        if self.shared.is_closed() {
            return Err(PortError::Draining);
        }
        match self.room(&message) {
            Some(units) => self.push(message, units),
            None => Err(self.full()),
        }
    }

    /// Takes the room for a message if there is some now. It has to be [pushed](Port::push) then.
    fn room(&self, message: &M) -> Option<u32> {
        let units = self.shared.rules().units_of(message.weight());
        let slot = self.shared.slots.try_take(1)?;
        self.shared.units.try_take(units)?.keep();
        slot.keep();
        Some(units)
    }

    fn push(&self, message: M, units: u32) -> Result<(), PortError> {
        if self.shared.push(message, units) { Ok(()) } else { Err(PortError::Draining) }
    }

    /// Sends the message that `make` builds around a reply slot, and waits for the answer; both within `deadline`. For an
    /// actor this is a declared wait.
    ///
    /// # Errors
    /// As [`Port::send`], and [`PortError::NoAnswer`] / [`PortError::Gone`] after the message was taken.
    pub async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> M, deadline: Duration) -> Result<T, PortError> {
        // Whoever is asked is watched himself; an actor that asks is in a wait with a deadline of its own.
        let _wait = Probe::current().map(|asks| asks.wait());
        let (reply, answer) = Reply::new();
        let ends = clock::now() + deadline;
        self.send(make(reply), deadline).await?;
        match tokio::time::timeout_at(ends, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(PortError::Gone),
            Err(_) => Err(PortError::NoAnswer),
        }
    }

    /// Fill and counters of the lane behind this port.
    pub fn stats(&self) -> LaneStats {
        Lane { shared: self.shared.clone() }.stats()
    }

    fn full(&self) -> PortError {
        self.shared.count_shed();
        PortError::Full
    }
}

/// The slot for one answer, carried inside a message. The first answer wins; a redelivered message may answer again.
#[derive(Debug)]
pub struct Reply<T>(Mutex<Option<oneshot::Sender<T>>>);

impl<T> Reply<T> {
    /// A slot and the future of its answer.
    pub fn new() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Mutex::new(Some(sender))), receiver)
    }

    /// Answers. False when it was answered before or nobody waits any more.
    pub fn send(&self, answer: T) -> bool {
        self.0.lock().take().is_some_and(|sender| sender.send(answer).is_ok())
    }

    /// Resolves when nobody waits for the answer any more, or it was given.
    pub fn abandoned(&self) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(|cx| match &mut *self.0.lock() {
            Some(sender) => sender.poll_closed(cx),
            None => std::task::Poll::Ready(()),
        })
    }

    /// True when nobody waits for the answer any more: the work may be skipped.
    pub fn is_abandoned(&self) -> bool {
        self.0.lock().as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}
