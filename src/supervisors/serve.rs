//! The `serve` subtree (`query-gateway`): the query handlers and the reloader, then the API listener in front of them.

use std::sync::Arc;

use crate::actors::serve::http::admin::{AdminDeps, events};
use crate::actors::serve::listener::{ApiListener, Gateway};
use crate::actors::serve::query::QueryHandler;
use crate::actors::serve::reloader::{Reloader, Tuning};
use crate::actors::serve::turnstile::Turnstile;
use crate::messages::store::StateCall;
use crate::messages::stream::AskLetters;
use crate::messages::tenant::TenantGate;

use super::Parts;
use super::kernel::apart::Estate;
use super::kernel::lane::Lane;
use super::kernel::port::Port;
use super::kernel::spec::ChildSpec;
use super::tuning::reload::RunningConfig;

/// The subtree.
pub fn subtree(
    parts: &Parts,
    gate: Arc<dyn TenantGate>,
    letters: Port<AskLetters>,
    state: Port<StateCall>,
) -> ChildSpec {
    let policy = parts.policy("serve.query");
    let lane = Lane::new("serve.query", policy.lane);
    let (queries, all) = (lane.port(), parts.clone());
    let query = ChildSpec::replicated("query", policy, move |name, policy| {
        let parts = all.clone();
        let make = move |_: &_| {
            QueryHandler::new(parts.telemetry.clone(), parts.live.clone(), parts.metrics.clone())
        };
        ChildSpec::worker(name, policy, make).reads(&lane).build()
    });
    let tuning: Arc<dyn Tuning> = Arc::new(RunningConfig::new(parts.clone()));
    let gateway = Gateway {
        queries,
        state,
        gate,
        turnstile: Turnstile::default(),
        key_log: parts.key_log.clone(),
        keys: parts.keys.clone(),
        admin: AdminDeps {
            access: parts.admin.clone(),
            view: parts.view.clone(),
            metrics: parts.metrics.clone(),
            black_boxes: super::black_boxes(&parts.config()),
            letters,
            config: parts.live.clone(),
            streams: events::streams(),
            closing: tokio::sync::watch::Sender::new(false),
            tuning: tuning.clone(),
            reloads: parts.reloads.port(),
        },
        config: parts.live.clone(),
    };
    let reloader =
        ChildSpec::worker("reloader", parts.policy("serve.reloader"), move |_| Reloader::new(tuning.clone()))
            .reads(&parts.reloads)
            .build();
    let estate = Estate::default();
    let http = ChildSpec::worker("http", parts.policy("serve.http"), move |_| {
        ApiListener::new(gateway.clone(), estate.clone())
    })
    .build();
    ChildSpec::supervisor("serve", parts.policy("serve"), vec![query, reloader, http])
}
