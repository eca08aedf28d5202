//! The adapter of the cache port, and of the rates that are kept beside it.
//!
//! In: [`CacheCall`]. Out: calls of the cache, each within its deadline. What may fail: the cache, which the reply says
//! and the tree shows as `Degraded`. Whoever asks must be able to go on without it.

use std::sync::Arc;
use std::time::Duration;

use actix::AsyncContext;
use actix::fut::wrap_future;

use super::adapter::Guard;
use crate::backends::cache::Cache;
use crate::backends::leases::Leases;
use crate::messages::store::CacheCall;
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::lane::Lease;
use crate::supervisors::kernel::policy::BreakerPolicy;
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Consume, Seated, Worker};

/// Actor over the cache; its lane's credits bound the calls in flight.
pub struct CacheAdapter {
    cache: Arc<dyn Cache>,
    leases: Arc<dyn Leases>,
    guard: Guard,
}

impl CacheAdapter {
    /// An adapter over `cache` and `leases`, which are one server: each call gets `deadline`.
    pub fn new(
        cache: Arc<dyn Cache>,
        leases: Arc<dyn Leases>,
        deadline: Duration,
        breaker: BreakerPolicy,
        probe: &Probe,
    ) -> Self {
        Self { cache, leases, guard: Guard::new("cache", deadline, breaker, probe) }
    }
}

impl Worker for CacheAdapter {}

impl Consume<CacheCall> for CacheAdapter {
    fn consume(&mut self, lease: Lease<CacheCall>, ctx: &mut Seated<Self>) {
        chaos::point("cache.before");
        let (cache, leases, guard) = (self.cache.clone(), self.leases.clone(), self.guard.clone());
        ctx.spawn(wrap_future(async move {
            match &*lease {
                CacheCall::Get(key, reply) => {
                    reply.send(guard.call(cache.get(key)).await);
                }
                CacheCall::Put(key, value, ttl, reply) => {
                    reply.send(guard.call(cache.put(key, value.clone(), *ttl)).await);
                }
                CacheCall::Lease(ask, reply) => {
                    reply.send(guard.call(leases.lease(ask.clone())).await);
                }
            }
            lease.ack();
        }));
    }
}
