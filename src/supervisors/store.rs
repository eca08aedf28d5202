//! The `store` subtree: the engine (or server) behind the telemetry port, and the writers into it.

use crate::actors::store::engine::StoreKeeper;
use crate::actors::store::writer::TelemetryWriter;
use crate::backends::telemetry::engine::child::EngineSpec;
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
    let (client, deadline) = (parts.telemetry.clone(), parts.config.telemetry.insert_timeout);
    let writer = ChildSpec::replicated("writer", writer_policy, move |name, policy| {
        let client = client.clone();
        ChildSpec::worker(name, policy, move |probe| TelemetryWriter::new(client.clone(), deadline, probe))
            .reads(&lane)
            .build()
    });
    let children = vec![keeper(parts), writer];
    (ChildSpec::supervisor("store", parts.policy("store"), children), port)
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
