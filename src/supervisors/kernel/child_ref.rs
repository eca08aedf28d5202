//! A reference to a worker that survives its restarts, for control messages. It takes the place of actix's registries.

use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, Message};
use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, Semaphore};

use super::port::PortError;
use super::probe::Probe;
use super::seat::{Handle, Seat, Worker};
use crate::clock;

/// Resolves to the incarnation that runs now. Cheap to clone.
pub struct ChildRef<W: Worker> {
    inner: Arc<Inner<W>>,
}

struct Inner<W: Worker> {
    current: ArcSwapOption<Live<W>>,
    changed: Notify,
    /// actix lets every clone of an address past the mailbox's bound; these permits are the real one.
    asks: ArcSwap<(usize, Semaphore)>,
}

/// The incarnation that was published last.
struct Live<W: Worker> {
    generation: u64,
    addr: Addr<Seat<W>>,
    probe: Probe,
}

impl<W: Worker> Clone for ChildRef<W> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<W: Worker> Default for ChildRef<W> {
    fn default() -> Self {
        let inner = Inner {
            current: ArcSwapOption::empty(),
            changed: Notify::new(),
            asks: ArcSwap::from_pointee((0, Semaphore::new(0))),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl<W: Worker> std::fmt::Debug for ChildRef<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChildRef<{}>", std::any::type_name::<W>())
    }
}

impl<W: Worker> ChildRef<W> {
    /// Sets how many asks may be under way at a time. Asks that are under way when the bound moves are not counted any
    /// more: the incarnation they went to is being replaced.
    pub(super) fn bound(&self, asks: usize) {
        let asks = asks.clamp(1, Semaphore::MAX_PERMITS);
        if self.inner.asks.load().0 != asks {
            self.inner.asks.store(Arc::new((asks, Semaphore::new(asks))));
        }
    }

    /// Makes an address the one to ask, unless a later generation is already known.
    pub(super) fn publish(&self, probe: &Probe, addr: Addr<Seat<W>>) {
        let generation = probe.generation().number();
        let next = Arc::new(Live { generation, addr, probe: probe.clone() });
        self.inner.current.rcu(|now| match now {
            Some(now) if now.generation > generation => Some(now.clone()),
            _ => Some(next.clone()),
        });
        self.inner.changed.notify_waiters();
    }

    /// Forgets the address of `generation`, unless a later one has been published.
    pub(super) fn clear(&self, generation: u64) {
        let current = self.inner.current.load();
        if current.as_ref().is_some_and(|now| now.generation == generation) {
            // Swapped only against what was looked at: a successor may be publishing itself right now.
            self.inner.current.compare_and_swap(&*current, None);
        }
    }

    /// Sends a control message to whichever incarnation runs, waiting through a restart, and returns its answer.
    ///
    /// # Errors
    /// [`PortError::Restarting`] when no incarnation came up before the deadline, [`PortError::Full`] when as many asks
    /// as the control capacity were under way all the time, [`PortError::NoAnswer`] when an incarnation took the message
    /// but did not answer in time, [`PortError::Gone`] when it ended before it answered.
    pub async fn ask<M>(&self, message: M, deadline: Duration) -> Result<M::Result, PortError>
    where
        W: Handle<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let _wait = Probe::current().map(|asks| asks.wait());
        let ends = clock::now() + deadline;
        let asks = self.inner.asks.load_full();
        let turn = tokio::time::timeout_at(ends, asks.1.acquire()).await;
        let _turn = match turn {
            Ok(permit) => permit.map_err(|_| PortError::Gone)?,
            Err(_) if self.inner.current.load().is_some() => return Err(PortError::Full),
            Err(_) => return Err(PortError::Restarting),
        };
        let live = tokio::time::timeout_at(ends, self.live()).await.map_err(|_| PortError::Restarting)?;
        let _unanswered = live.probe.take_in_hand();
        match tokio::time::timeout_at(ends, live.addr.send(message)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(PortError::Gone),
            Err(_) => Err(PortError::NoAnswer),
        }
    }

    async fn live(&self) -> Arc<Live<W>> {
        loop {
            let changed = self.inner.changed.notified();
            if let Some(current) = self.inner.current.load_full().filter(|now| now.addr.connected()) {
                return current;
            }
            changed.await;
        }
    }
}
