//! The policy of each node: what the code holds right for it, with what the configuration sets laid over.

use std::time::Duration;

use super::kernel::policy::{IntensityPer, OnLimit, Policy, Strategy};
use crate::config::Config;

/// Every path of the tree that has a policy, in start order.
pub const PATHS: [&str; 18] = [
    "",
    "store",
    "store.engine",
    "store.writer",
    "broker_out",
    "broker_out.producer",
    "broker_out.retention",
    "process",
    "process.otlp",
    "stream_in",
    "stream_in.consumers",
    "serve",
    "serve.query",
    "serve.http",
    "ingest",
    "ingest.receiver",
    "ingest.grpc",
    "ingest.http",
];

/// The policy of the node at `path`.
pub(super) fn resolve(config: &Config, path: &str) -> Policy {
    config.supervision.lay_over(path, built_in(config, path))
}

/// What the code holds right where the configuration says nothing.
fn built_in(config: &Config, path: &str) -> Policy {
    let mut policy = Policy::default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match path {
        "" => {
            policy.strategy = Strategy::RestForOne;
            policy.intensity = 3;
            policy.period = Duration::from_secs(300);
        }
        "store.engine" => {
            policy.pool = "store".into();
            policy.stop.drain = config.telemetry.engine.stop_timeout + Duration::from_secs(2);
        }
        "store.writer" => {
            policy.pool = "store".into();
            policy.replicas = 2;
            policy.lane.capacity = 64;
            policy.lane.bytes = 512 << 20;
            policy.lane.credits = 2;
            policy.stop.drain = Duration::from_secs(20);
        }
        "broker_out.producer" => {
            policy.pool = "store".into();
            policy.lane.capacity = 1024;
            policy.lane.bytes = 256 << 20;
            policy.lane.credits = 1024;
        }
        "broker_out.retention" => policy.pool = "store".into(),
        "process.otlp" => {
            policy.pool = "process".into();
            policy.replicas = match config.process.workers as usize {
                0 => cores,
                workers => workers,
            };
            policy.lane.capacity = 64;
            policy.lane.bytes = 512 << 20;
            // While one block waits for the store, the next is being transformed.
            policy.lane.credits = 2;
            policy.stop.drain = Duration::from_secs(25);
        }
        "stream_in.consumers" => {
            policy.pool = "stream".into();
            policy.intensity_per = IntensityPer::Child;
            policy.on_limit = OnLimit::Quarantine;
            policy.stop.drain = Duration::from_secs(25);
        }
        "serve.query" => {
            policy.pool = "serve".into();
            policy.lane.capacity = 256;
            policy.lane.credits = config.serve.max_in_flight as usize;
        }
        "serve.http" => policy.pool = "serve".into(),
        "ingest.receiver" => {
            policy.pool = "ingest".into();
            policy.replicas = cores;
            policy.lane.capacity = 1024;
            policy.lane.bytes = config.ingest.max_in_flight.as_usize();
            // Most of them wait for the disk together: one fsync then covers many.
            policy.lane.credits = 512;
            policy.lane.max_attempts = 2;
        }
        "ingest.grpc" | "ingest.http" => policy.pool = "edge".into(),
        _ => {}
    }
    policy
}
