//! The `tenant` subtree: what each tenant may do, projected before anything comes in.

use std::sync::Arc;

use crate::actors::tenant::gate::{CachedGate, GateDeps};
use crate::actors::tenant::key_cache::{KeyCache, KeyCacheDeps};
use crate::actors::tenant::projector::{GateProjector, ProjectorDeps};
use crate::messages::tenant::TenantGate;

use super::Parts;
use super::kernel::spec::ChildSpec;
use super::store::Stores;

/// The subtree, and the gate that listeners ask.
pub fn subtree(parts: &Parts, stores: &Stores) -> (ChildSpec, Arc<dyn TenantGate>) {
    let projector = ProjectorDeps {
        plans: parts.plans.clone(),
        meter: parts.meter.clone(),
        versions: parts.versions.clone(),
        source: parts.node.clone(),
        state: stores.state.clone(),
        cache: stores.cache.clone(),
        config: parts.live.clone(),
    };
    let keys = KeyCacheDeps {
        keys: parts.keys.clone(),
        log: parts.key_log.clone(),
        state: stores.state.clone(),
        cache: stores.cache.clone(),
        config: parts.live.clone(),
    };
    let gate = CachedGate::new(GateDeps {
        cache: stores.cache.clone(),
        meter: parts.meter.clone(),
        metrics: parts.metrics.clone(),
        node: parts.node.clone(),
        config: parts.live.clone(),
    });
    let children = vec![
        ChildSpec::worker("gate_projector", parts.policy("tenant.gate_projector"), move |_| {
            GateProjector::new(projector.clone())
        })
        .build(),
        ChildSpec::worker("key_cache", parts.policy("tenant.key_cache"), move |_| {
            KeyCache::new(keys.clone())
        })
        .build(),
    ];
    (ChildSpec::supervisor("tenant", parts.policy("tenant"), children), Arc::new(gate))
}
