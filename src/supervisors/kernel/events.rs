//! What children report to their supervisor: ready and exited. At most two events an incarnation, so it is bounded by
//! the number of children.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::exit::ExitReason;

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

    /// The next event, waiting for it. One supervisor task waits at a time.
    pub(super) async fn next(&self) -> ChildEvent {
        loop {
            if let Some(event) = self.inner.0.lock().pop_front() {
                return event;
            }
            self.inner.1.notified().await;
        }
    }
}
