//! The `store` subtree: the engine (or server) behind the telemetry port with the writers into it, and the adapters of
//! state, blobs and cache.

use crate::actors::store::blobs::BlobAdapter;
use crate::actors::store::cache::CacheAdapter;
use crate::actors::store::engine::StoreKeeper;
use crate::actors::store::state::StateAdapter;
use crate::actors::store::writer::TelemetryWriter;
use crate::backends::telemetry::engine::child::EngineSpec;
use crate::messages::store::{BlobCall, CacheCall, StateCall, StoreRows};

use super::Parts;
use super::kernel::lane::Lane;
use super::kernel::port::Port;
use super::kernel::spec::ChildSpec;

/// The ports of the stage.
#[derive(Clone)]
pub struct Stores {
    /// The telemetry writers.
    pub rows: Port<StoreRows>,
    /// The state adapter.
    pub state: Port<StateCall>,
    /// The blob adapter.
    pub blobs: Port<BlobCall>,
    /// The cache adapter.
    pub cache: Port<CacheCall>,
}

/// The subtree and its ports.
pub fn subtree(parts: &Parts) -> (ChildSpec, Stores) {
    let writer_policy = parts.policy("store.writer");
    let lane = Lane::new("store.writer", writer_policy.lane);
    let rows = lane.port();
    let writer = ChildSpec::replicated("writer", writer_policy, |name, policy| {
        let (client, deadline) = (parts.telemetry.clone(), parts.config.telemetry.insert_timeout);
        ChildSpec::worker(name, policy, move |probe| TelemetryWriter::new(client.clone(), deadline, probe))
            .reads(&lane)
            .build()
    });
    let (state_spec, state) = state(parts);
    let (blobs_spec, blobs) = blobs(parts);
    let (cache_spec, cache) = cache(parts);
    let children = vec![keeper(parts), writer, state_spec, blobs_spec, cache_spec];
    let ports = Stores { rows, state, blobs, cache };
    (ChildSpec::supervisor("store", parts.policy("store"), children), ports)
}

fn state(parts: &Parts) -> (ChildSpec, Port<StateCall>) {
    let policy = parts.policy("store.state");
    let lane = Lane::new("store.state", policy.lane);
    let (store, rules) = (parts.state.clone(), parts.config.store.state.clone());
    let make = move |probe: &_| StateAdapter::new(store.clone(), rules.timeout, rules.check_every, probe);
    (ChildSpec::worker("state", policy, make).reads(&lane).build(), lane.port())
}

fn blobs(parts: &Parts) -> (ChildSpec, Port<BlobCall>) {
    let policy = parts.policy("store.blobs");
    let lane = Lane::new("store.blobs", policy.lane);
    let (store, rules) = (parts.blobs.clone(), parts.config.store.blobs.clone());
    let make = move |probe: &_| BlobAdapter::new(store.clone(), rules.timeout, rules.check_every, probe);
    (ChildSpec::worker("blobs", policy, make).reads(&lane).build(), lane.port())
}

fn cache(parts: &Parts) -> (ChildSpec, Port<CacheCall>) {
    let policy = parts.policy("store.cache");
    let lane = Lane::new("store.cache", policy.lane);
    let (cache, timeout) = (parts.cache.clone(), parts.config.store.cache.timeout);
    let make = move |probe: &_| CacheAdapter::new(cache.clone(), timeout, probe);
    (ChildSpec::worker("cache", policy, make).reads(&lane).build(), lane.port())
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stores")
    }
}

fn keeper(parts: &Parts) -> ChildSpec {
    let (client, engine) = (parts.telemetry.clone(), engine_spec(parts));
    let settings = parts.telemetry_settings.clone();
    let stop_within = parts.config.telemetry.engine.stop_timeout;
    let policy = parts.policy("store.engine");
    ChildSpec::worker("engine", policy, move |_| {
        StoreKeeper::new(client.clone(), settings.clone(), engine.clone(), stop_within)
    })
    .build()
}

/// The engine to run, or `None` where `telemetry.url` names a server.
fn engine_spec(parts: &Parts) -> Option<EngineSpec> {
    let telemetry = &parts.config.telemetry;
    telemetry.url.is_none().then(|| EngineSpec {
        library: telemetry.engine.library.clone(),
        memory_limit: telemetry.engine.memory_limit.as_u64(),
        connections: telemetry.engine.connections as usize,
        ready_within: telemetry.engine.start_timeout,
        ..EngineSpec::new(&parts.config.data_dir)
    })
}
