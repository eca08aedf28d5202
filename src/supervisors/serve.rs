//! The `serve` subtree (`query-gateway`): the query handlers, then the API listener in front of them.

use crate::actors::serve::listener::{ApiListener, Gateway};
use crate::actors::serve::query::QueryHandler;

use super::Parts;
use super::kernel::lane::Lane;
use super::kernel::spec::ChildSpec;

/// The subtree.
pub fn subtree(parts: &Parts) -> ChildSpec {
    let policy = parts.policy("serve.query");
    let lane = Lane::new("serve.query", policy.lane);
    let queries = lane.port();
    let (telemetry, metrics) = (parts.telemetry.clone(), parts.metrics.clone());
    let query = ChildSpec::replicated("query", policy, move |name, policy| {
        let (telemetry, metrics) = (telemetry.clone(), metrics.clone());
        let make = move |_: &_| QueryHandler::new(telemetry.clone(), metrics.clone());
        ChildSpec::worker(name, policy, make).reads(&lane).build()
    });
    let gateway = Gateway {
        address: parts.config.serve.http,
        queries,
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
