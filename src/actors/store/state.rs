//! The adapter of the state port.
//!
//! In: [`StateCall`]. Out: calls of the store, each within its deadline. What may fail: the store, which the reply says
//! and the tree shows as `Degraded`; it is looked at now and then even when nobody asks.

use std::sync::Arc;
use std::time::Duration;

use actix::AsyncContext;
use actix::fut::wrap_future;

use super::adapter::{Guard, check_from_now_on};
use crate::backends::state::StateStore;
use crate::messages::store::StateCall;
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::lane::Lease;
use crate::supervisors::kernel::policy::BreakerPolicy;
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Consume, Seated, Worker};

/// Actor over the state store; its lane's credits bound the calls in flight.
pub struct StateAdapter {
    store: Arc<dyn StateStore>,
    guard: Guard,
    check_every: Duration,
}

impl StateAdapter {
    /// An adapter over `store`: each call gets `deadline`, and the store is checked once in `check_every`.
    pub fn new(
        store: Arc<dyn StateStore>,
        deadline: Duration,
        check_every: Duration,
        breaker: BreakerPolicy,
        probe: &Probe,
    ) -> Self {
        Self { store, guard: Guard::new("state", deadline, breaker, probe), check_every }
    }
}

impl Worker for StateAdapter {
    fn started(&mut self, _probe: &Probe, ctx: &mut Seated<Self>) {
        let store = self.store.clone();
        check_from_now_on(&self.guard, self.check_every, ctx, move || store.check());
    }
}

impl Consume<StateCall> for StateAdapter {
    fn consume(&mut self, lease: Lease<StateCall>, ctx: &mut Seated<Self>) {
        chaos::point("state.before");
        let (store, guard) = (self.store.clone(), self.guard.clone());
        ctx.spawn(wrap_future(async move {
            match &*lease {
                StateCall::PutUsage(rows, reply) => {
                    reply.send(guard.call(store.put_usage(rows.clone())).await);
                }
                StateCall::ReadUsage(day, reply) => {
                    reply.send(guard.call(store.usage(*day)).await);
                }
                StateCall::ForgetUsage(day, reply) => {
                    reply.send(guard.call(store.forget_usage_before(*day)).await);
                }
                StateCall::TouchKeys(uses, reply) => {
                    reply.send(guard.call(store.touch_keys(uses.clone())).await);
                }
                StateCall::ReadKeyUses(reply) => {
                    reply.send(guard.call(store.key_uses()).await);
                }
                StateCall::PutDeploy(tenant, deploy, reply) => {
                    reply.send(guard.call(store.put_deploy(tenant, deploy.clone())).await);
                }
                StateCall::ReadDeploys(tenant, query, reply) => {
                    reply.send(guard.call(store.deploys(tenant, query.clone())).await);
                }
                StateCall::ForgetDeploys(at_ms, reply) => {
                    reply.send(guard.call(store.forget_deploys_before(*at_ms)).await);
                }
                StateCall::NoteVersions(seen, reply) => {
                    reply.send(guard.call(store.note_versions(seen.clone())).await);
                }
                StateCall::ForgetVersions(at_ms, reply) => {
                    reply.send(guard.call(store.forget_versions_before(*at_ms)).await);
                }
            }
            lease.ack();
        }));
    }
}
