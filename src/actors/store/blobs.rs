//! The adapter of the blob port.
//!
//! In: [`BlobCall`]. Out: calls of the store, each within its deadline. What may fail: the store, which the reply says
//! and the tree shows as `Degraded`; an object is written, read back and removed now and then even when nobody asks, so
//! that a folder that cannot be written is known before it is needed.

use std::sync::Arc;
use std::time::Duration;

use actix::AsyncContext;
use actix::fut::wrap_future;

use super::adapter::{Guard, check_from_now_on};
use super::selfcheck::SelfCheck;
use crate::backends::blobs::BlobStore;
use crate::messages::store::BlobCall;
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::lane::Lease;
use crate::supervisors::kernel::policy::BreakerPolicy;
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Consume, Seated, Worker};

/// Actor over the blob store; its lane's credits bound the calls in flight.
pub struct BlobAdapter {
    store: Arc<dyn BlobStore>,
    guard: Guard,
    check_every: Duration,
    check: Arc<SelfCheck>,
}

impl BlobAdapter {
    /// An adapter over `store`: each call gets `deadline`, and the store is checked once in `check_every`.
    pub fn new(
        store: Arc<dyn BlobStore>,
        deadline: Duration,
        check_every: Duration,
        breaker: BreakerPolicy,
        probe: &Probe,
    ) -> Self {
        let guard = Guard::new("blobs", deadline, breaker, probe);
        Self { store, guard, check_every, check: Arc::new(SelfCheck::somewhere()) }
    }
}

impl Worker for BlobAdapter {
    fn started(&mut self, _probe: &Probe, ctx: &mut Seated<Self>) {
        let (store, check) = (self.store.clone(), self.check.clone());
        check_from_now_on(&self.guard, self.check_every, ctx, move || {
            let (store, check) = (store.clone(), check.clone());
            Box::pin(async move { check.run(&*store).await })
        });
    }
}

impl Consume<BlobCall> for BlobAdapter {
    fn consume(&mut self, lease: Lease<BlobCall>, ctx: &mut Seated<Self>) {
        chaos::point("blobs.before");
        let (store, guard) = (self.store.clone(), self.guard.clone());
        ctx.spawn(wrap_future(async move {
            match &*lease {
                BlobCall::Put(key, body, reply) => {
                    reply.send(guard.call(store.put(key, body.clone())).await);
                }
                BlobCall::Get(key, range, reply) => {
                    reply.send(guard.call(store.get(key, range.clone())).await);
                }
                BlobCall::Delete(key, reply) => {
                    reply.send(guard.call(store.delete(key)).await);
                }
            }
            lease.ack();
        }));
    }
}
