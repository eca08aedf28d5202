//! What children report to their supervisor: ready, exited, and messages that fail for good. At most two events an
//! incarnation and one a lease, so it is bounded by the number of children and their credits.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::exit::ExitReason;

/// Events that an empty in-tray keeps room for.
const IDLE: usize = 64;

/// One report of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildEvent {
    /// The incarnation can do its work.
    Ready {
        /// Slot of the child.
        child: usize,
        /// Number of the launch, unique within the supervisor.
        launch: u64,
    },
    /// A message in its hands failed for good, and its lane's policy has that escalated.
    Spoiled {
        /// Slot of the child.
        child: usize,
        /// Number of the launch, unique within the supervisor.
        launch: u64,
        /// Which message, and how often.
        why: String,
    },
    /// The incarnation is gone.
    Exited {
        /// Slot of the child.
        child: usize,
        /// Number of the launch, unique within the supervisor.
        launch: u64,
        /// Why.
        reason: ExitReason,
    },
}

/// The supervisor's in-tray. Pushing never waits and never fails, so it can be done from a drop guard.
#[derive(Debug, Clone, Default)]
pub struct Events {
    inner: Arc<(Mutex<VecDeque<ChildEvent>>, Notify)>,
}

impl Events {
    pub(super) fn push(&self, event: ChildEvent) {
        self.inner.0.lock().push_back(event);
        self.inner.1.notify_one();
    }

    fn pop(&self) -> Option<ChildEvent> {
        let mut waiting = self.inner.0.lock();
        let event = waiting.pop_front();
        // What a burst took (thousands of children starting) is not kept for good.
        if waiting.is_empty() && waiting.capacity() > IDLE {
            waiting.shrink_to(IDLE);
        }
        event
    }

    /// The next event, waiting for it. One supervisor task waits at a time.
    pub(super) async fn next(&self) -> ChildEvent {
        loop {
            if let Some(event) = self.pop() {
                return event;
            }
            self.inner.1.notified().await;
        }
    }
}
