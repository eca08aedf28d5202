//! The `ingest` subtree (`ingest-edge`): receivers, then the listeners that feed them.

use std::sync::Arc;

use crate::actors::ingest::accept::AcceptRules;
use crate::actors::ingest::door::Door;
use crate::actors::ingest::grpc::GrpcListener;
use crate::actors::ingest::http::{HttpListener, HttpOptions};
use crate::actors::ingest::receiver::Receiver;
use crate::domain::signal::Signal;
use crate::messages::stream::AppendRecord;
use crate::wire::limits::OtlpLimits;

use super::Parts;
use super::kernel::lane::Lane;
use super::kernel::port::Port;
use super::kernel::spec::ChildSpec;

/// Threads that read HTTP requests; the work on them is done by the receivers.
const HTTP_WORKERS: usize = 1;

/// The subtree.
pub fn subtree(parts: &Parts, producer: Port<AppendRecord>) -> ChildSpec {
    let policy = parts.policy("ingest.receiver");
    let lane = Lane::new("ingest.receiver", policy.lane);
    let receivers = lane.port();
    let rules = Arc::new(accept_rules(parts));
    let (metrics, deadline) = (parts.metrics.clone(), parts.config.ingest.ack_timeout);
    let receiver = ChildSpec::replicated("receiver", policy, move |name, policy| {
        let (rules, producer, metrics) = (rules.clone(), producer.clone(), metrics.clone());
        ChildSpec::worker(name, policy, move |_| {
            Receiver::new(rules.clone(), producer.clone(), deadline, metrics.clone())
        })
        .reads(&lane)
        .build()
    });
    let ingest = &parts.config.ingest;
    let door = Door {
        keys: parts.keys.clone(),
        receivers,
        max_body: ingest.max_body.as_usize(),
        max_message: ingest.grpc_max_message.as_usize(),
        // The receiver gives up first and says why; this only bounds a receiver that is gone.
        deadline: ingest.ack_timeout * 2,
    };
    let children = vec![receiver, grpc(parts, door.clone()), http(parts, door)];
    ChildSpec::supervisor("ingest", parts.policy("ingest"), children)
}

fn grpc(parts: &Parts, door: Door) -> ChildSpec {
    let (address, io) = (parts.config.ingest.otlp_grpc, parts.io.clone());
    let make = move |_: &_| GrpcListener::new(address, door.clone(), io.clone());
    ChildSpec::worker("grpc", parts.policy("ingest.grpc"), make).build()
}

fn http(parts: &Parts, door: Door) -> ChildSpec {
    let ingest = &parts.config.ingest;
    let options =
        HttpOptions { address: ingest.otlp_http, workers: HTTP_WORKERS, rules: Arc::new(ingest.clone()) };
    let make = move |_: &_| HttpListener::new(options.clone(), door.clone());
    ChildSpec::worker("http", parts.policy("ingest.http"), make).build()
}

fn accept_rules(parts: &Parts) -> AcceptRules {
    let ingest = &parts.config.ingest;
    AcceptRules {
        format: ingest.wire_format,
        max_decompressed: ingest.max_decompressed.as_usize(),
        limits: OtlpLimits::default(),
        accept_past: ingest.accept_past,
        accept_future: ingest.accept_future,
        partitions: parts.log.partitions(Signal::Traces.topic()).unwrap_or(1),
    }
}
