//! The `broker_out` and `stream_in` subtrees: the two ends of the event log.

use std::sync::Arc;
use std::time::Duration;

use crate::actors::stream::consumer::{ConsumerDeps, PartitionConsumer, Rung};
use crate::actors::stream::letters::LetterDesk;
use crate::actors::stream::membership::{Membership, MembershipDeps};
use crate::actors::stream::producer::Producer;
use crate::actors::stream::retention::Retention;
use crate::actors::stream::self_telemetry::{SelfTelemetry, SelfTelemetryDeps};
use crate::config::kafka::LogBackend;
use crate::domain::signal::{RETRY_TOPICS, Signal};
use crate::messages::process::ProcessBlock;
use crate::messages::stream::{AppendRecord, AskLetters};

use super::Parts;
use super::kernel::lane::Lane;
use super::kernel::port::Port;
use super::kernel::spec::{ChildSpec, Group};

/// How often the log's retention is enforced.
const RETENTION_EVERY: Duration = Duration::from_secs(30);
/// Consumer group of the OTLP workers.
pub const WORKER_GROUP: &str = "worker-otlp";

/// The ports of the writing end.
#[derive(Debug, Clone)]
pub struct BrokerPorts {
    /// The producer.
    pub producer: Port<AppendRecord>,
    /// The desk of the dead letters.
    pub letters: Port<AskLetters>,
}

/// The writing end with the desk of the dead letters, and their ports.
pub fn broker_out(parts: &Parts) -> (ChildSpec, BrokerPorts) {
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
    let policy = parts.policy("broker_out.letters");
    let desk_lane = Lane::new("broker_out.letters", policy.lane);
    let ports = BrokerPorts { producer: port.clone(), letters: desk_lane.port() };
    let log = parts.log.clone();
    let letters = ChildSpec::worker("letters", policy, move |_| LetterDesk::new(log.clone(), port.clone()))
        .reads(&desk_lane);
    let own = self_telemetry(parts, ports.producer.clone());
    let children = vec![producer, retention.build(), letters.build(), own];
    (ChildSpec::supervisor("broker_out", parts.policy("broker_out"), children), ports)
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

/// Most records of a rung in one block: each is stored by itself.
const RUNG_RECORDS: u64 = 256;

/// The reading end: one consumer per partition of each signal's topic and of each rung of the retry ladder, in a dynamic
/// group. Of a log that processes share, those whose partitions are this process's.
pub fn stream_in(parts: &Parts, process: &Port<ProcessBlock>) -> ChildSpec {
    let group = Group::default();
    let consumers = ChildSpec::group("consumers", parts.policy("stream_in.consumers"), group.clone());
    let make = consumer_of(parts, process);
    let mut children = vec![consumers];
    if parts.config().stream.backend == LogBackend::Kafka {
        let deps = MembershipDeps {
            log: Arc::clone(&parts.log),
            group: WORKER_GROUP,
            consumers: group,
            make: Arc::new(make),
            wanted: Arc::default(),
        };
        let policy = parts.policy("stream_in.members");
        let members = ChildSpec::worker("members", policy, move |_| Membership::new(deps.clone()));
        // Before the consumers, so that it leaves the group after them.
        children.insert(0, members.build());
    } else {
        let topics = Signal::ALL.map(Signal::topic).into_iter().chain(RETRY_TOPICS);
        for topic in topics {
            let partitions = 0..parts.log.partitions(topic).unwrap_or(0);
            partitions.filter_map(|partition| make(topic, partition)).for_each(|spec| group.want(spec));
        }
    }
    ChildSpec::supervisor("stream_in", parts.policy("stream_in"), children)
}

/// Makes the consumer of a partition. A rung that is left out is read all the same: it may hold what was put there before.
fn consumer_of(
    parts: &Parts,
    process: &Port<ProcessBlock>,
) -> impl Fn(&str, u32) -> Option<ChildSpec> + Send + Sync + use<> {
    let (parts, process, process_id) = (parts.clone(), process.clone(), rand::random());
    move |topic, partition| {
        let signal = Signal::ALL.into_iter().find(|signal| signal.topic() == topic);
        let waits = parts.config().process.retry.waits();
        let rung = RETRY_TOPICS.into_iter().zip(waits).find(|(rung, _)| *rung == topic);
        let (name, topic, rung) = match (signal, rung) {
            (Some(signal), _) => (format!("{signal}-{partition}"), signal.topic(), None),
            (None, Some((rung, wait))) => {
                let signal = Signal::ALL.into_iter().find(|signal| signal.number() == partition)?;
                let short = rung.trim_start_matches("obtrace.").replace('.', "-");
                (format!("{short}-{signal}"), rung, Some(Rung { wait, records: RUNG_RECORDS }))
            }
            (None, None) => return None,
        };
        let deps = ConsumerDeps { rung, ..consumer_deps(&parts, &process, topic, partition, process_id) };
        let policy = parts.policy("stream_in.consumers");
        Some(ChildSpec::worker(name, policy, move |_| PartitionConsumer::new(deps.clone())).build())
    }
}

fn consumer_deps(
    parts: &Parts,
    process: &Port<ProcessBlock>,
    topic: &'static str,
    partition: u32,
    process_id: u64,
) -> ConsumerDeps {
    ConsumerDeps {
        log: Arc::clone(&parts.log),
        process: process.clone(),
        group: WORKER_GROUP,
        topic,
        partition,
        config: parts.live.clone(),
        rung: None,
        process_id,
    }
}
