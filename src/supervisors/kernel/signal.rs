//! A small state that others wait for: a number in, whoever waits for it woken. It cannot fail.
//!
//! Every actor has several such states (asked to drain, paused, a lane's intake). A channel of tokio's `watch` would do,
//! and takes ten times the memory of this.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// A state of one byte. Setting it never waits; any number may wait for it.
#[derive(Debug)]
pub(super) struct Signal {
    value: AtomicU8,
    changed: Notify,
}

impl Signal {
    pub(super) fn new(value: u8) -> Self {
        Self { value: AtomicU8::new(value), changed: Notify::new() }
    }

    pub(super) fn get(&self) -> u8 {
        self.value.load(Ordering::Acquire)
    }

    pub(super) fn set(&self, value: u8) {
        self.value.store(value, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Resolves once the state is one that is looked for; at once where it is already.
    pub(super) async fn wait_for(&self, sought: impl Fn(u8) -> bool) -> u8 {
        loop {
            // Before the look: what changes after this line wakes it.
            let changed = self.changed.notified();
            let value = self.get();
            if sought(value) {
                return value;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_waiter_is_woken_by_what_it_waits_for_and_no_sooner() {
        let signal = Signal::new(0);
        assert_eq!(signal.wait_for(|value| value == 0).now_or_never(), Some(0));
        let mut both = std::pin::pin!(futures_util::future::join(
            signal.wait_for(|value| value > 1),
            signal.wait_for(|value| value == 3),
        ));
        assert!(futures_util::poll!(&mut both).is_pending());
        signal.set(1);
        signal.set(2);
        assert!(futures_util::poll!(&mut both).is_pending());
        signal.set(3);
        assert_eq!(both.await, (2, 3));
    }
}
