//! What other stages ask of the tenant stage. The answers come from memory, so this is a trait and no lane.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::domain::gate::GateAnswer;
use crate::domain::plan::Plan;
use crate::domain::refusal::Refusal;
use crate::domain::signal::Signal;

/// ingest, serve → tenant · answers within the gate's deadline · never fails closed.
///
/// What a tenant may do. Where nothing is known of it (no projection yet, a stale one, a cache that does not answer), it
/// may do everything, and that is counted.
pub trait TenantGate: Send + Sync + 'static {
    /// Whether a request of `tenant` may come in.
    fn admit<'a>(&'a self, tenant: &'a Arc<str>, signal: Signal) -> BoxFuture<'a, Result<(), Refusal>>;

    /// The tenant's plan; `None` where nothing is known.
    fn plan<'a>(&'a self, tenant: &'a Arc<str>) -> BoxFuture<'a, Option<Plan>>;

    /// How the tenant stands.
    fn answer<'a>(&'a self, tenant: &'a Arc<str>) -> BoxFuture<'a, GateAnswer>;
}
