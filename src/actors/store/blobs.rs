//! The adapter of the blob port.
//!
//! In: [`BlobCall`]. Out: calls of the store, each within its deadline. What may fail: the store, which the reply says
//! and the tree shows as `Degraded`; an object is written, read back and removed now and then even when nobody asks, so
//! that a folder that cannot be written is known before it is needed.

use std::sync::Arc;
use std::time::Duration;

use actix::AsyncContext;
use actix::fut::wrap_future;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::adapter::{Guard, check_from_now_on};
use crate::backends::blobs::{BlobKey, BlobStore};
use crate::backends::fault::PortFault;
use crate::domain::failure::FailureClass;
use crate::messages::store::BlobCall;
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::lane::Lease;
use crate::supervisors::kernel::policy::BreakerPolicy;
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Consume, Seated, Worker};

/// Whose objects the self-check writes.
const OWN_TENANT: &str = "_obtrace";

/// Actor over the blob store; its lane's credits bound the calls in flight.
pub struct BlobAdapter {
    store: Arc<dyn BlobStore>,
    guard: Guard,
    check_every: Duration,
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
        Self { store, guard: Guard::new("blobs", deadline, breaker, probe), check_every }
    }
}

impl Worker for BlobAdapter {
    fn started(&mut self, _probe: &Probe, ctx: &mut Seated<Self>) {
        let store = self.store.clone();
        check_from_now_on(&self.guard, self.check_every, ctx, move || check(store.clone()));
    }
}

/// Writes, reads and removes an object of Obtrace's own.
fn check(store: Arc<dyn BlobStore>) -> BoxFuture<'static, Result<(), PortFault>> {
    Box::pin(async move {
        let id = uuid::Uuid::now_v7().to_string();
        let (key, body) = (BlobKey::new(OWN_TENANT, &format!("probe/{id}"))?, Bytes::from(id));
        store.put(&key, body.clone()).await?;
        let back = store.get(&key, None).await?;
        store.delete(&key).await?;
        if back.as_ref() == Some(&body) {
            return Ok(());
        }
        Err(PortFault::new(
            "blobs",
            FailureClass::Dependency,
            "an object just written was not read back whole",
        ))
    })
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
