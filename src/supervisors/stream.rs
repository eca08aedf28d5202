//! The `broker_out` and `stream_in` subtrees: the two ends of the event log.

use std::sync::Arc;
use std::time::Duration;

use crate::actors::stream::consumer::{ConsumerDeps, PartitionConsumer};
use crate::actors::stream::producer::Producer;
use crate::actors::stream::retention::Retention;
use crate::actors::stream::self_telemetry::{SelfTelemetry, SelfTelemetryDeps};
use crate::domain::signal::Signal;
use crate::messages::process::ProcessBlock;
use crate::messages::stream::AppendRecord;

use super::Parts;
use super::kernel::lane::Lane;
use super::kernel::port::Port;
use super::kernel::spec::{ChildSpec, Group};

/// How often the log's retention is enforced.
const RETENTION_EVERY: Duration = Duration::from_secs(30);
/// Consumer group of the OTLP workers.
pub const WORKER_GROUP: &str = "worker-otlp";

/// The writing end, and the port of the producer.
pub fn broker_out(parts: &Parts) -> (ChildSpec, Port<AppendRecord>) {
    let policy = parts.policy("broker_out.producer");
    let lane = Lane::new("broker_out.producer", policy.lane);
    let port = lane.port();
    let own = parts.clone();
    let make =
        move |probe: &_| Producer::new(own.log.clone(), own.policy("broker_out.producer").breaker, probe);
    let producer = ChildSpec::worker("producer", policy, make).reads(&lane).build();
    let log = parts.log.clone();
    let retention = ChildSpec::worker("retention", parts.policy("broker_out.retention"), move |_| {
        Retention::new(log.clone(), RETENTION_EVERY)
    });
    let own = self_telemetry(parts, port.clone());
    let children = vec![producer, retention.build(), own];
    (ChildSpec::supervisor("broker_out", parts.policy("broker_out"), children), port)
}

/// What tells of the process itself, to the producer beside it.
fn self_telemetry(parts: &Parts, producer: Port<AppendRecord>) -> ChildSpec {
    let deps = SelfTelemetryDeps {
        config: parts.live.clone(),
        log: parts.log.clone(),
        producer,
        metrics: parts.metrics.clone(),
        view: parts.view.clone(),
    };
    let policy = parts.policy("broker_out.self_telemetry");
    ChildSpec::worker("self_telemetry", policy, move |_| SelfTelemetry::new(deps.clone())).build()
}

/// The reading end: one consumer per partition of each signal's topic, in a dynamic group.
pub fn stream_in(parts: &Parts, process: Port<ProcessBlock>) -> ChildSpec {
    let policy = parts.policy("stream_in.consumers");
    let group = Group::default();
    for signal in Signal::ALL {
        for partition in 0..parts.log.partitions(signal.topic()).unwrap_or(0) {
            let deps = consumer_deps(parts, process.clone(), signal, partition);
            let name = format!("{signal}-{partition}");
            let consumer =
                ChildSpec::worker(name, policy.clone(), move |_| PartitionConsumer::new(deps.clone()));
            group.want(consumer.build());
        }
    }
    let consumers = ChildSpec::group("consumers", policy, group);
    ChildSpec::supervisor("stream_in", parts.policy("stream_in"), vec![consumers])
}

fn consumer_deps(parts: &Parts, process: Port<ProcessBlock>, signal: Signal, partition: u32) -> ConsumerDeps {
    ConsumerDeps {
        log: Arc::clone(&parts.log),
        process,
        group: WORKER_GROUP,
        topic: signal.topic(),
        partition,
        config: parts.live.clone(),
    }
}
