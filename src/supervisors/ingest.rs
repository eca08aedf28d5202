//! The `ingest` subtree (`ingest-edge`): receivers, then the listeners that feed them.

use crate::actors::ingest::door::Door;
use crate::actors::ingest::grpc::GrpcListener;
use crate::actors::ingest::http::{HttpListener, HttpOptions};
use crate::actors::ingest::receiver::Receiver;
use crate::domain::signal::Signal;
use crate::messages::stream::AppendRecord;

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
    let partitions = parts.log.partitions(Signal::Traces.topic()).unwrap_or(1);
    let (receivers, all) = (lane.port(), parts.clone());
    let receiver = ChildSpec::replicated("receiver", policy, move |name, policy| {
        let (parts, producer) = (all.clone(), producer.clone());
        let make = move |_: &_| {
            Receiver::new(parts.live.clone(), partitions, producer.clone(), parts.metrics.clone())
        };
        ChildSpec::worker(name, policy, make).reads(&lane).build()
    });
    let door = Door { keys: parts.keys.clone(), receivers, config: parts.live.clone() };
    let children = vec![receiver, grpc(parts, door.clone()), http(parts, door)];
    ChildSpec::supervisor("ingest", parts.policy("ingest"), children)
}

fn grpc(parts: &Parts, door: Door) -> ChildSpec {
    let (policy, parts) = (parts.policy("ingest.grpc"), parts.clone());
    let make =
        move |_: &_| GrpcListener::new(parts.config().ingest.otlp_grpc, door.clone(), parts.io.clone());
    ChildSpec::worker("grpc", policy, make).build()
}

fn http(parts: &Parts, door: Door) -> ChildSpec {
    let (policy, parts) = (parts.policy("ingest.http"), parts.clone());
    let make = move |_: &_| {
        let options = HttpOptions { address: parts.config().ingest.otlp_http, workers: HTTP_WORKERS };
        HttpListener::new(options, door.clone())
    };
    ChildSpec::worker("http", policy, make).build()
}
