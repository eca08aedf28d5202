//! The `serve` subtree (`query-gateway`): the query handlers, then the API listener in front of them.

use std::sync::Arc;

use crate::actors::serve::listener::{ApiListener, Gateway};
use crate::actors::serve::query::QueryHandler;
use crate::actors::serve::turnstile::Turnstile;
use crate::messages::tenant::TenantGate;

use super::Parts;
use super::kernel::lane::Lane;
use super::kernel::spec::ChildSpec;

/// The subtree.
pub fn subtree(parts: &Parts, gate: Arc<dyn TenantGate>) -> ChildSpec {
    let policy = parts.policy("serve.query");
    let lane = Lane::new("serve.query", policy.lane);
    let query = ChildSpec::replicated("query", policy, |name, policy| {
        let (telemetry, metrics) = (parts.telemetry.clone(), parts.metrics.clone());
        let make = move |_: &_| QueryHandler::new(telemetry.clone(), metrics.clone());
        ChildSpec::worker(name, policy, make).reads(&lane).build()
    });
    let gateway = Gateway {
        address: parts.config.serve.http,
        queries: lane.port(),
        gate,
        turnstile: Turnstile::default(),
        per_tenant: parts.config.serve.queries_per_tenant as usize,
        key_log: parts.key_log.clone(),
        keys: parts.keys.clone(),
        view: parts.view.clone(),
        metrics: parts.metrics.clone(),
        deadline: parts.config.serve.deadline,
    };
    let http =
        ChildSpec::worker("http", parts.policy("serve.http"), move |_| ApiListener::new(gateway.clone()))
            .build();
    ChildSpec::supervisor("serve", parts.policy("serve"), vec![query, http])
}
