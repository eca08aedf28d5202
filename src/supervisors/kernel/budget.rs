//! A bound that senders wait for and that can be moved while it is in use.
//!
//! Growing lets waiting senders in at once. Shrinking takes permits as they come free: what is over the new bound is a
//! debt, and until it is paid nothing new gets in.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// A number of permits, most of which may be in use.
#[derive(Debug)]
pub(super) struct Budget {
    free: Semaphore,
    /// Permits that are in use beyond the bound. Written only under `bound`.
    debt: AtomicUsize,
    bound: Mutex<usize>,
}

/// Permits taken. They go back when this is dropped, unless they are [kept](Taken::keep).
pub(super) struct Taken<'a> {
    budget: &'a Budget,
    permits: u32,
}

impl Budget {
    pub(super) fn new(bound: usize) -> Self {
        let bound = bound.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Semaphore::new(bound), debt: AtomicUsize::new(0), bound: Mutex::new(bound) }
    }

    /// Takes permits if they are free now.
    pub(super) fn try_take(&self, permits: u32) -> Option<Taken<'_>> {
        self.free.try_acquire_many(permits).ok()?.forget();
        // Made only where it counts: dropping one gives its permits back.
        self.pays_no_debt(permits).then(|| Taken { budget: self, permits })
    }

    /// Takes permits, waiting for them.
    pub(super) async fn take(&self, permits: u32) -> Taken<'_> {
        loop {
            match self.free.acquire_many(permits).await {
                Ok(taken) => taken.forget(),
                // Nobody closes the semaphore.
                Err(_) => std::future::pending().await,
            }
            if self.pays_no_debt(permits) {
                return Taken { budget: self, permits };
            }
        }
    }

    /// Permits that got free past [`Budget::give`], as those of an abandoned wait do, pay the debt first. False where
    /// there was one: the permits are gone.
    fn pays_no_debt(&self, permits: u32) -> bool {
        if self.debt.load(Ordering::Acquire) == 0 {
            return true;
        }
        let _bound = self.bound.lock();
        if self.debt.load(Ordering::Acquire) == 0 {
            return true;
        }
        self.pay(permits as usize);
        false
    }

    /// Gives permits back.
    pub(super) fn give(&self, permits: u32) {
        if self.debt.load(Ordering::Acquire) == 0 {
            return self.free.add_permits(permits as usize);
        }
        let _bound = self.bound.lock();
        self.pay(permits as usize);
    }

    /// Pays what is owed and frees the rest; the caller holds `bound`.
    fn pay(&self, permits: usize) {
        let debt = self.debt.load(Ordering::Acquire);
        let paid = debt.min(permits);
        self.debt.store(debt - paid, Ordering::Release);
        self.free.add_permits(permits - paid);
    }

    /// Moves the bound.
    pub(super) fn resize(&self, bound: usize) {
        let bound = bound.clamp(1, Semaphore::MAX_PERMITS);
        let mut now = self.bound.lock();
        if bound >= *now {
            self.pay(bound - *now);
        } else {
            let over = *now - bound;
            let owed = over - self.free.forget_permits(over);
            self.debt.fetch_add(owed, Ordering::AcqRel);
        }
        *now = bound;
    }
}

impl Taken<'_> {
    /// Keeps the permits; whoever keeps them calls [`Budget::give`] in the end.
    pub(super) fn keep(mut self) {
        self.permits = 0;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.permits > 0 {
            self.budget.give(self.permits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use proptest::prelude::*;

    #[test]
    fn what_is_over_a_smaller_bound_is_paid_before_anything_new_gets_in() {
        let budget = Budget::new(4);
        (0..4).for_each(|_| budget.try_take(1).unwrap().keep());
        budget.resize(2);
        budget.give(1);
        budget.give(1);
        assert!(budget.try_take(1).is_none(), "two are still in use");
        budget.give(1);
        assert!(budget.try_take(1).is_some());
        budget.resize(3);
        let both = (budget.try_take(1), budget.try_take(1));
        assert!(both.0.is_some() && both.1.is_some() && budget.try_take(1).is_none());
    }

    #[test]
    fn an_abandoned_wait_does_not_slip_past_the_debt() {
        let budget = Budget::new(4);
        budget.try_take(3).unwrap().keep();
        {
            // Has the one free permit assigned to it already.
            let mut waiting = Box::pin(budget.take(2));
            assert!((&mut waiting).now_or_never().is_none());
            budget.resize(2);
        }
        assert!(budget.try_take(1).is_none(), "three are in use, two are allowed");
        budget.give(1);
        assert!(budget.try_take(1).is_none(), "two are in use, two are allowed");
        budget.give(1);
        assert!(budget.try_take(1).is_some());
    }

    proptest! {
        #[test]
        fn nothing_new_gets_in_above_the_bound(ops in proptest::collection::vec((0_u8..3, 1_u32..6), 1..200)) {
            let budget = Budget::new(5);
            let (mut bound, mut used) = (5_u32, Vec::new());
            for (op, n) in ops {
                let sum: u32 = used.iter().sum();
                match op {
                    0 => match budget.try_take(n) {
                        Some(taken) => {
                            prop_assert!(sum + n <= bound, "{sum} + {n} of {bound}");
                            taken.keep();
                            used.push(n);
                        }
                        None => prop_assert!(sum + n > bound, "{sum} + {n} of {bound}"),
                    },
                    1 => used.pop().into_iter().for_each(|n| budget.give(n)),
                    _ => {
                        bound = n;
                        budget.resize(n as usize);
                    }
                }
            }
        }
    }
}
