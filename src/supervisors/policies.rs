//! The policy of each node: what the code holds right for it, with what the configuration sets laid over.

use std::time::Duration;

use crate::config::node::Source;
use crate::config::policy::{self, IntensityPer, NodePolicy, OnLimit, Place, Strategy};
use crate::config::units::ByteSize;
use crate::config::{Config, ConfigError, Provenance};

use super::kernel::policy as kernel;

/// Every path of the tree that has a policy, in start order.
pub const PATHS: [&str; 30] = [
    "",
    "store",
    "store.engine",
    "store.writer",
    "store.state",
    "store.blobs",
    "store.cache",
    "store.janitor",
    "tenant",
    "tenant.gate_projector",
    "tenant.key_cache",
    "broker_out",
    "broker_out.producer",
    "broker_out.retention",
    "broker_out.letters",
    "broker_out.self_telemetry",
    "process",
    "process.otlp",
    "stream_in",
    "stream_in.members",
    "stream_in.consumers",
    "serve",
    "serve.query",
    "serve.reloader",
    "serve.http",
    "ingest",
    "ingest.receiver",
    "ingest.sessions",
    "ingest.grpc",
    "ingest.http",
];

/// Nodes of which several run side by side, under a supervisor of their name.
pub const REPLICATED: [&str; 4] = ["store.writer", "process.otlp", "serve.query", "ingest.receiver"];

/// The dynamic group of consumers.
pub const GROUP: &str = "stream_in.consumers";

/// Nodes that read a lane; replicas share it.
pub const LANES: [&str; 10] = [
    "store.writer",
    "store.state",
    "store.blobs",
    "store.cache",
    "broker_out.producer",
    "broker_out.letters",
    "process.otlp",
    "serve.query",
    "serve.reloader",
    "ingest.receiver",
];

/// The policy of the node at `path`.
pub fn resolve(config: &Config, path: &str) -> kernel::Policy {
    to_kernel(node(config, path), credits(config, path))
}

/// The policy of the node at `path` in the words of the configuration.
pub fn node(config: &Config, path: &str) -> NodePolicy {
    config.supervision.node_over(path, built_in(config, path))
}

/// Checks the tables of `[supervision.tree]` against the tree's real shape.
pub fn check(config: &Config) -> Vec<ConfigError> {
    let known: Vec<(&str, NodePolicy)> =
        PATHS.iter().filter(|path| !path.is_empty()).map(|path| (*path, built_in(config, path))).collect();
    config.supervision.check_nodes(&known)
}

/// The values of the policy of the node at `path` that somebody set, each as `key = value   # source`.
pub fn provenance(values: &Provenance, path: &str) -> Vec<String> {
    let parts: Vec<&str> = path.split('.').collect();
    let mut tables = vec![format!("{}.", policy::DEFAULTS)];
    tables.extend((1..=parts.len()).map(|n| format!("supervision.tree.{}.", parts[..n].join("."))));
    let of_node = |key: &str| {
        let own = tables.iter().find_map(|table| key.strip_prefix(table.as_str()));
        own.is_some_and(|own| NodePolicy::KEYS.contains(&own.split('.').next().unwrap_or_default()))
    };
    let set = values.iter().filter(|(key, found)| found.source != Source::Default && of_node(key));
    set.map(|(key, found)| format!("{key} = {}   # {}", found.value, found.source)).collect()
}

/// What the code holds right where the configuration says nothing.
fn built_in(config: &Config, path: &str) -> NodePolicy {
    let mut policy = NodePolicy::default();
    let cores = u32::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap_or(1);
    policy.pool = pool(path).map(str::to_owned);
    match path {
        "" => {
            policy.strategy = Strategy::RestForOne;
            policy.intensity = 3;
            policy.period = Duration::from_secs(300);
        }
        "store.engine" => policy.stop.drain = config.telemetry.engine.stop_timeout + Duration::from_secs(2),
        "store.writer" => {
            policy.replicas = 2;
            lane(&mut policy, 64, 512);
            policy.stop.drain = Duration::from_secs(20);
        }
        "store.state" => lane(&mut policy, 256, 16),
        "store.blobs" => lane(&mut policy, 64, 256),
        "store.cache" => lane(&mut policy, 1024, 16),
        "broker_out.producer" => lane(&mut policy, 1024, 256),
        "process.otlp" => {
            policy.replicas = if config.process.workers == 0 { cores } else { config.process.workers };
            lane(&mut policy, 64, 512);
            policy.stop.drain = Duration::from_secs(25);
        }
        "serve.reloader" => {
            lane(&mut policy, 8, 1);
            policy.stop.drain = Duration::from_secs(2);
        }
        // To leave a group is one message to the broker.
        "stream_in.members" => policy.stop.drain = Duration::from_secs(3),
        "stream_in.consumers" => {
            policy.place = Place::ByKey;
            policy.intensity_per = IntensityPer::Child;
            policy.on_limit = OnLimit::Quarantine;
            policy.stop.drain = Duration::from_secs(25);
        }
        "ingest.sessions" => {
            // One a connection; it ends with that, and its lane is what one connection may have in flight. What a session
            // held when it failed is not delivered again: its client is told to send it again.
            policy.restart = policy::Restart::Temporary;
            policy.max_children = 20_000;
            lane(&mut policy, 256, 64);
        }
        "ingest.receiver" => {
            policy.replicas = cores;
            lane(&mut policy, 1024, config.ingest.max_in_flight.as_u64() >> 20);
            policy.lane.max_attempts = 2;
        }
        _ => {}
    }
    policy
}

fn lane(policy: &mut NodePolicy, capacity: u32, mib: u64) {
    policy.lane.capacity = capacity;
    policy.lane.bytes = ByteSize::mib(mib);
}

/// The pool of threads a node runs on by default.
fn pool(path: &str) -> Option<&'static str> {
    let stage = path.split('.').next().unwrap_or_default();
    match stage {
        "store" | "broker_out" | "tenant" => Some("store"),
        "process" => Some("process"),
        "stream_in" => Some("stream"),
        "serve" => Some("serve"),
        "ingest" => {
            Some(if ["ingest.receiver", "ingest.sessions"].contains(&path) { "ingest" } else { "edge" })
        }
        _ => None,
    }
}

/// Messages one actor has in hand at a time; what it needs to keep its dependency busy, so code and not config.
fn credits(config: &Config, path: &str) -> usize {
    match path {
        // While one block waits for the store, the next is being transformed.
        "process.otlp" | "store.writer" => 2,
        // Calls are short or wait for a disk; the lane holds the rest.
        "store.state" | "store.blobs" => 8,
        "store.cache" => 64,
        // Appends and requests wait for the disk together: one sync then covers many.
        "broker_out.producer" => 1024,
        "ingest.receiver" => 512,
        // All that its lane holds may be in flight.
        "ingest.sessions" => 256,
        "serve.query" => config.serve.max_in_flight as usize,
        _ => 1,
    }
}

fn to_kernel(node: NodePolicy, credits: usize) -> kernel::Policy {
    kernel::Policy {
        strategy: match node.strategy {
            Strategy::OneForOne => kernel::Strategy::OneForOne,
            Strategy::OneForAll => kernel::Strategy::OneForAll,
            Strategy::RestForOne => kernel::Strategy::RestForOne,
        },
        restart: match node.restart {
            policy::Restart::Permanent => kernel::Restart::Permanent,
            policy::Restart::Transient => kernel::Restart::Transient,
            policy::Restart::Temporary => kernel::Restart::Temporary,
        },
        intensity: node.intensity,
        period: node.period,
        intensity_per: match node.intensity_per {
            IntensityPer::Supervisor => kernel::IntensityPer::Supervisor,
            IntensityPer::Child => kernel::IntensityPer::Child,
        },
        on_limit: match node.on_limit {
            OnLimit::Escalate => kernel::OnLimit::Escalate,
            OnLimit::Quarantine => kernel::OnLimit::Quarantine,
        },
        backoff: kernel::BackoffPolicy {
            min: node.backoff.min,
            max: node.backoff.max,
            factor: node.backoff.factor,
            jitter: node.backoff.jitter,
            reset_after: node.backoff.reset_after,
        },
        start: kernel::StartPolicy {
            timeout: node.start.timeout,
            ready: match node.start.ready {
                policy::Ready::Reported => kernel::Ready::Reported,
                policy::Ready::Started => kernel::Ready::Started,
            },
            at_once: node.start.at_once as usize,
        },
        stop: kernel::StopPolicy { drain: node.stop.drain, kill: node.stop.kill },
        liveness: kernel::LivenessPolicy {
            stall_after: node.liveness.stall_after,
            wait_after: node.liveness.wait_after,
        },
        control_capacity: node.control.capacity as usize,
        lane: kernel::LanePolicy {
            capacity: node.lane.capacity as usize,
            bytes: node.lane.bytes.as_usize(),
            overflow: match node.lane.overflow {
                policy::Overflow::Wait => kernel::Overflow::Wait,
                policy::Overflow::ShedNewest => kernel::Overflow::ShedNewest,
            },
            max_attempts: node.lane.max_attempts,
            poison: match node.lane.poison {
                policy::Poison::Isolate => kernel::Poison::Isolate,
                policy::Poison::Drop => kernel::Poison::Drop,
                policy::Poison::Escalate => kernel::Poison::Escalate,
            },
            credits,
        },
        pool: node.pool.unwrap_or_else(|| String::from("default")),
        place: match node.place {
            policy::Place::Spread => kernel::Place::Spread,
            policy::Place::ByKey => kernel::Place::ByKey,
        },
        replicas: node.replicas as usize,
        max_children: node.max_children as usize,
        quarantine: kernel::QuarantinePolicy {
            cool_down: node.quarantine.cool_down,
            probes: node.quarantine.probes,
        },
        breaker: kernel::BreakerPolicy {
            open_after: node.breaker.open_after,
            probe_every: node.breaker.probe_every,
        },
    }
}
