//! The `serve` subtree (`query-gateway`): the query handlers, then the API listener in front of them.

use crate::actors::serve::http::admin::{AdminDeps, events};
use crate::actors::serve::listener::{ApiListener, Gateway};
use crate::actors::serve::query::QueryHandler;

use super::Parts;
use super::kernel::lane::Lane;
use super::kernel::spec::ChildSpec;

/// The subtree.
pub fn subtree(parts: &Parts) -> ChildSpec {
    let policy = parts.policy("serve.query");
    let lane = Lane::new("serve.query", policy.lane);
    let query = ChildSpec::replicated("query", policy, |name, policy| {
        let parts = parts.clone();
        let make = move |_: &_| {
            QueryHandler::new(parts.telemetry.clone(), parts.live.clone(), parts.metrics.clone())
        };
        ChildSpec::worker(name, policy, make).reads(&lane).build()
    });
    let gateway = Gateway {
        queries: lane.port(),
        keys: parts.keys.clone(),
        admin: AdminDeps {
            access: parts.admin.clone(),
            view: parts.view.clone(),
            metrics: parts.metrics.clone(),
            streams: events::streams(),
            closing: tokio::sync::watch::Sender::new(false),
        },
        config: parts.live.clone(),
    };
    let http =
        ChildSpec::worker("http", parts.policy("serve.http"), move |_| ApiListener::new(gateway.clone()))
            .build();
    ChildSpec::supervisor("serve", parts.policy("serve"), vec![query, http])
}
