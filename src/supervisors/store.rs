//! The `store` subtree: the engine (or server) behind the telemetry port, and the writers into it.

use crate::actors::store::engine::StoreKeeper;
use crate::actors::store::writer::TelemetryWriter;
use crate::backends::telemetry::client::TelemetrySettings;
use crate::backends::telemetry::engine::child::EngineSpec;
use crate::config::Config;
use crate::messages::store::StoreRows;

use super::Parts;
use super::kernel::lane::Lane;
use super::kernel::port::Port;
use super::kernel::spec::ChildSpec;

/// The subtree and the port of the writers.
pub fn subtree(parts: &Parts) -> (ChildSpec, Port<StoreRows>) {
    let writer_policy = parts.policy("store.writer");
    let lane = Lane::new("store.writer", writer_policy.lane);
    let port = lane.port();
    let all = parts.clone();
    let writer = ChildSpec::replicated("writer", writer_policy, move |name, policy| {
        let parts = all.clone();
        let make = move |probe: &_| TelemetryWriter::new(parts.telemetry.clone(), parts.live.clone(), probe);
        ChildSpec::worker(name, policy, make).reads(&lane).build()
    });
    let children = vec![keeper(parts), writer];
    (ChildSpec::supervisor("store", parts.policy("store"), children), port)
}

fn keeper(parts: &Parts) -> ChildSpec {
    let (policy, parts) = (parts.policy("store.engine"), parts.clone());
    ChildSpec::worker("engine", policy, move |_| {
        let config = parts.config();
        let (settings, engine) = (telemetry_settings(&config), engine_spec(&config));
        StoreKeeper::new(parts.telemetry.clone(), settings, engine, parts.live.clone())
    })
    .build()
}

/// How to reach the store where `telemetry.url` names one, and what to call its database.
pub fn telemetry_settings(config: &Config) -> TelemetrySettings {
    let telemetry = &config.telemetry;
    TelemetrySettings {
        url: telemetry.url.as_ref().map(|url| url.as_str().to_owned()),
        user: telemetry.user.clone(),
        password: telemetry.password.expose().to_owned(),
        database: telemetry.database.clone(),
        max_connections: telemetry.max_connections as usize,
        connect_timeout: telemetry.connect_timeout,
    }
}

/// The engine to run, or `None` where `telemetry.url` names a server.
fn engine_spec(config: &Config) -> Option<EngineSpec> {
    let telemetry = &config.telemetry;
    telemetry.url.is_none().then(|| EngineSpec {
        library: telemetry.engine.library.clone(),
        memory_limit: telemetry.engine.memory_limit.as_u64(),
        connections: telemetry.engine.connections as usize,
        ready_within: telemetry.engine.start_timeout,
        ..EngineSpec::new(&config.data_dir)
    })
}
