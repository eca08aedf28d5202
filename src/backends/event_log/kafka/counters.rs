//! What the log counts about itself. Cannot fail.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::backends::event_log::RemoteStats;

/// Counters since the log was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    queued_bytes: AtomicU64,
    delivery_errors: AtomicU64,
    rebalances: AtomicU64,
    fenced: AtomicU64,
    duplicates: AtomicU64,
}

impl Counters {
    /// Makes room for `size` bytes in a queue of `limit`; one larger record passes when nothing else waits.
    pub(super) fn queue(&self, size: u64, limit: u64) -> bool {
        let fits = |queued: u64| (queued == 0 || queued + size <= limit).then_some(queued + size);
        self.queued_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok()
    }

    /// They are on their way no longer.
    pub(super) fn unqueue(&self, size: u64) {
        self.queued_bytes.fetch_sub(size, Ordering::AcqRel);
    }

    pub(super) fn delivery_error(&self) {
        self.delivery_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn rebalance(&self) {
        self.rebalances.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fence(&self) {
        self.fenced.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn duplicate(&self) {
        self.duplicates.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> RemoteStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RemoteStats {
            queued_bytes: of(&self.queued_bytes),
            delivery_errors: of(&self.delivery_errors),
            rebalances: of(&self.rebalances),
            fenced: of(&self.fenced),
            duplicates: of(&self.duplicates),
        }
    }
}
