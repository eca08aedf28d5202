//! The `store` subtree: the engine (or server) behind the telemetry port with the writers into it, and the adapters of
//! state, blobs and cache.

use std::sync::Arc;

use crate::actors::store::blobs::BlobAdapter;
use crate::actors::store::cache::CacheAdapter;
use crate::actors::store::engine::{Former, Schema, StoreKeeper};
use crate::actors::store::janitor::{Janitor, JanitorDeps};
use crate::actors::store::state::StateAdapter;
use crate::actors::store::writer::TelemetryWriter;
use crate::backends::locks::memory::MemoryLocks;
use crate::backends::telemetry::access::Access;
use crate::backends::telemetry::client::TelemetrySettings;
use crate::backends::telemetry::engine::child::EngineSpec;
use crate::backends::telemetry::schema::{Cluster, Layout};
use crate::config::Config;
use crate::config::store::BlobBackend;
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
    let (rows, all) = (lane.port(), parts.clone());
    let writer = ChildSpec::replicated("writer", writer_policy, move |name, policy| {
        let parts = all.clone();
        let make = move |probe: &_| {
            let breaker = parts.policy("store.writer").breaker;
            TelemetryWriter::new(parts.telemetry.clone(), parts.live.clone(), breaker, probe)
        };
        ChildSpec::worker(name, policy, make).reads(&lane).build()
    });
    let (state_spec, state) = state(parts);
    let (blobs_spec, blobs) = blobs(parts);
    let (cache_spec, cache) = cache(parts);
    let children = vec![keeper(parts), writer, state_spec, blobs_spec, cache_spec, janitor(parts)];
    let ports = Stores { rows, state, blobs, cache };
    (ChildSpec::supervisor("store", parts.policy("store"), children), ports)
}

fn state(parts: &Parts) -> (ChildSpec, Port<StateCall>) {
    let policy = parts.policy("store.state");
    let lane = Lane::new("store.state", policy.lane);
    let (store, state) = (parts.state.clone(), parts.config().store.state.clone());
    let breaker = policy.breaker;
    let make =
        move |probe: &_| StateAdapter::new(store.clone(), state.timeout, state.check_every, breaker, probe);
    (ChildSpec::worker("state", policy, make).reads(&lane).build(), lane.port())
}

fn blobs(parts: &Parts) -> (ChildSpec, Port<BlobCall>) {
    let policy = parts.policy("store.blobs");
    let lane = Lane::new("store.blobs", policy.lane);
    let (store, blobs) = (parts.blobs.clone(), parts.config().store.blobs.clone());
    let breaker = policy.breaker;
    let make =
        move |probe: &_| BlobAdapter::new(store.clone(), blobs.timeout, blobs.check_every, breaker, probe);
    (ChildSpec::worker("blobs", policy, make).reads(&lane).build(), lane.port())
}

fn cache(parts: &Parts) -> (ChildSpec, Port<CacheCall>) {
    let policy = parts.policy("store.cache");
    let lane = Lane::new("store.cache", policy.lane);
    let (shared, timeout) = (parts.shared.clone(), parts.config().store.cache.timeout);
    let breaker = policy.breaker;
    let make = move |probe: &_| {
        CacheAdapter::new(shared.cache.clone(), shared.leases.clone(), timeout, breaker, probe)
    };
    (ChildSpec::worker("cache", policy, make).reads(&lane).build(), lane.port())
}

fn janitor(parts: &Parts) -> ChildSpec {
    // A folder is swept by its own process: what others do with theirs does not count.
    let locks = match parts.config().store.blobs.backend {
        BlobBackend::Folder => Arc::new(MemoryLocks::default()),
        BlobBackend::S3 => parts.shared.locks.clone(),
    };
    let deps = JanitorDeps { blobs: parts.blobs.clone(), locks, config: parts.live.clone() };
    ChildSpec::worker("janitor", parts.policy("store.janitor"), move |_| Janitor::new(deps.clone())).build()
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stores")
    }
}

fn keeper(parts: &Parts) -> ChildSpec {
    let (policy, parts, former) = (parts.policy("store.engine"), parts.clone(), Former::default());
    ChildSpec::worker("engine", policy, move |_| {
        let config = parts.config();
        let (settings, engine) = (telemetry_settings(&config), engine_spec(&config));
        let breaker = parts.policy("store.engine").breaker;
        let migrates = config.migrate_on_start.unwrap_or(engine.is_some());
        let schema = Schema { layout: layout(&config), access: server_access(&config), migrates };
        let (client, live) = (parts.telemetry.clone(), parts.live.clone());
        StoreKeeper::new(client, settings, engine, schema, live, breaker, former.clone())
    })
    .build()
}

/// How to reach the store where `telemetry.url` names one, and what to call its database.
pub fn telemetry_settings(config: &Config) -> TelemetrySettings {
    let (telemetry, cluster) = (&config.telemetry, &config.telemetry.cluster);
    TelemetrySettings {
        url: telemetry.url.as_ref().map(|url| url.as_str().to_owned()),
        more_urls: telemetry.more_urls.iter().map(|url| url.as_str().to_owned()).collect(),
        ca_file: telemetry.ca_file.clone(),
        user: telemetry.user.clone(),
        password: telemetry.password.expose().to_owned(),
        reader: reader(config),
        database: telemetry.database.clone(),
        max_connections: telemetry.max_connections as usize,
        connect_timeout: telemetry.connect_timeout,
        cluster: cluster.name.as_ref().map(|_| cluster.insert_quorum),
    }
}

/// Name and password of the user who asks, where it is another one.
fn reader(config: &Config) -> Option<(String, String)> {
    let reader = &config.telemetry.reader;
    reader.user.clone().map(|user| (user, reader.password.expose().to_owned()))
}

/// What a ClickHouse server is to have beside the schema; the engine needs none of it.
pub fn server_access(config: &Config) -> Option<Access> {
    let log_days = config.telemetry.system_log_days;
    config.telemetry.url.as_ref().map(|_| Access { reader: reader(config), log_days })
}

/// What the telemetry schema is written out for.
pub fn layout(config: &Config) -> Layout {
    let cluster = &config.telemetry.cluster;
    cluster.name.as_ref().map_or(Layout::Single, |name| {
        Layout::Cluster(Cluster {
            name: name.clone(),
            keeper_path: cluster.keeper_path.clone(),
            replica: cluster.replica.clone(),
            window_seconds: cluster.remember.as_secs(),
        })
    })
}

/// The engine to run, or `None` where `telemetry.url` names a server.
pub fn engine_spec(config: &Config) -> Option<EngineSpec> {
    let telemetry = &config.telemetry;
    telemetry.url.is_none().then(|| EngineSpec {
        library: telemetry.engine.library.clone(),
        memory_limit: telemetry.engine.memory_limit.as_u64(),
        connections: telemetry.engine.connections as usize,
        ready_within: telemetry.engine.start_timeout,
        ..EngineSpec::new(&config.data_dir)
    })
}
