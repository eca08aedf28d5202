//! The turnstile before the query handlers: so many queries of one tenant at once, a few more wait in line, the rest is
//! told to come back. A tenant with many questions then fills its own line and not everybody's places.
//!
//! In: a tenant and its bound. Out: a pass, which is given back when it is dropped, however the query ends. What may
//! fail: the line being full, or the deadline.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::query::QueryError;

/// What a tenant is told whose line is full.
const COME_BACK: Duration = Duration::from_secs(1);

/// The places of each tenant. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Turnstile {
    tenants: Arc<Mutex<HashMap<Arc<str>, Arc<Places>>>>,
}

#[derive(Debug)]
struct Places {
    bound: usize,
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A place taken; dropping it frees it.
#[derive(Debug)]
pub struct Pass {
    _place: OwnedSemaphorePermit,
}

/// A place in the line.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Turnstile {
    /// Takes one of the `bound` places of `tenant`, waiting for one in its order at most until `deadline`; as many as
    /// there are places may wait.
    ///
    /// # Errors
    /// [`QueryError::Overloaded`] when the line is full, [`QueryError::Timeout`] at the deadline.
    pub async fn enter(
        &self,
        tenant: &Arc<str>,
        bound: usize,
        deadline: Duration,
    ) -> Result<Pass, QueryError> {
        let places = self.places(tenant, bound.max(1));
        if let Ok(place) = places.free.clone().try_acquire_owned() {
            return Ok(Pass { _place: place });
        }
        let in_line = places.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(&places.waiting);
        if in_line >= places.bound {
            return Err(QueryError::Overloaded { retry_after: COME_BACK });
        }
        match tokio::time::timeout(deadline, places.free.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(Pass { _place: place }),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(QueryError::Timeout),
        }
    }

    /// The places of a tenant. Under another bound it gets new ones; passes of before stay good and run out.
    fn places(&self, tenant: &Arc<str>, bound: usize) -> Arc<Places> {
        let mut tenants = self.tenants.lock();
        if let Some(places) = tenants.get(tenant).filter(|places| places.bound == bound) {
            return places.clone();
        }
        let fresh =
            Arc::new(Places { bound, free: Arc::new(Semaphore::new(bound)), waiting: AtomicUsize::new(0) });
        tenants.insert(tenant.clone(), fresh.clone());
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_noisy_tenant_fills_its_own_line_only() {
        let (turnstile, noisy, quiet): (Turnstile, Arc<str>, Arc<str>) =
            (Turnstile::default(), "noisy".into(), "quiet".into());
        let first = turnstile.enter(&noisy, 2, SOON).await.unwrap();
        let _second = turnstile.enter(&noisy, 2, SOON).await.unwrap();
        let line: Vec<_> = (0..2)
            .map(|_| {
                let (turnstile, noisy) = (turnstile.clone(), noisy.clone());
                tokio::spawn(async move { turnstile.enter(&noisy, 2, SOON).await.map(drop) })
            })
            .collect();
        tokio::task::yield_now().await;
        let refused = turnstile.enter(&noisy, 2, SOON).await.unwrap_err();
        assert!(matches!(refused, QueryError::Overloaded { .. }), "{refused:?}");
        assert!(turnstile.enter(&quiet, 2, SOON).await.is_ok(), "another tenant has places of its own");
        drop(first);
        for waiting in line {
            assert_eq!(waiting.await.unwrap(), Ok(()), "a place that is freed goes to the line");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_or_goes_away_leaves_the_line() {
        let (turnstile, tenant): (Turnstile, Arc<str>) = (Turnstile::default(), "t".into());
        let _held = turnstile.enter(&tenant, 1, SOON).await.unwrap();
        for _ in 0..3 {
            assert_eq!(turnstile.enter(&tenant, 1, SOON).await.unwrap_err(), QueryError::Timeout);
        }
        let gone = tokio::time::timeout(Duration::from_millis(1), turnstile.enter(&tenant, 1, SOON)).await;
        assert!(gone.is_err(), "the client went away while waiting");
        assert_eq!(
            turnstile.enter(&tenant, 1, SOON).await.unwrap_err(),
            QueryError::Timeout,
            "its place in line is free"
        );
    }
}
