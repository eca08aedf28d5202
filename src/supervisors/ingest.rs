//! The `ingest` subtree (`ingest-edge`): receivers, the sessions of connections, then the listeners.

use std::sync::Arc;

use crate::actors::ingest::door::Door;
use crate::actors::ingest::grpc::GrpcListener;
use crate::actors::ingest::http::{HttpListener, HttpOptions};
use crate::actors::ingest::receiver::{Books, Receiver};
use crate::actors::ingest::session::SessionDesk;
use crate::domain::signal::Signal;
use crate::messages::stream::AppendRecord;
use crate::messages::tenant::TenantGate;

use super::Parts;
use super::kernel::apart::Estate;
use super::kernel::lane::Lane;
use super::kernel::port::Port;
use super::kernel::spec::{ChildSpec, Group};

/// Threads that read HTTP requests; the work on them is done by the receivers.
const HTTP_WORKERS: usize = 1;

/// The group of sessions.
const SESSIONS: &str = "ingest.sessions";

/// The subtree.
pub fn subtree(parts: &Parts, producer: Port<AppendRecord>, gate: Arc<dyn TenantGate>) -> ChildSpec {
    let policy = parts.policy("ingest.receiver");
    let lane = Lane::new("ingest.receiver", policy.lane);
    let partitions = parts.log.partitions(Signal::Traces.topic()).unwrap_or(1);
    let (sessions, group) = (parts.policy(SESSIONS), Group::default());
    let bounds = parts.clone();
    let most = Box::new(move || bounds.policy(SESSIONS).max_children);
    let desk = SessionDesk::new(group.clone(), sessions.clone(), most, lane.port(), parts.live.clone());
    let door = Door {
        keys: parts.keys.clone(),
        key_log: parts.key_log.clone(),
        gate,
        desk: Arc::new(desk),
        metrics: parts.metrics.clone(),
        config: parts.live.clone(),
    };
    let all = parts.clone();
    let receiver = ChildSpec::replicated("receiver", policy, move |name, policy| {
        let (parts, producer) = (all.clone(), producer.clone());
        let books = Books {
            metrics: parts.metrics.clone(),
            meter: parts.meter.clone(),
            versions: parts.versions.clone(),
        };
        let make =
            move |_: &_| Receiver::new(parts.live.clone(), partitions, producer.clone(), books.clone());
        ChildSpec::worker(name, policy, make).reads(&lane).build()
    });
    let children = vec![
        receiver,
        ChildSpec::group("sessions", sessions, group),
        grpc(parts, door.clone()),
        http(parts, door),
    ];
    ChildSpec::supervisor("ingest", parts.policy("ingest"), children)
}

fn grpc(parts: &Parts, door: Door) -> ChildSpec {
    let (policy, parts) = (parts.policy("ingest.grpc"), parts.clone());
    let estate = Estate::default();
    let make = move |_: &_| {
        GrpcListener::new(parts.config().ingest.otlp_grpc, door.clone(), parts.io.clone(), estate.clone())
    };
    ChildSpec::worker("grpc", policy, make).build()
}

fn http(parts: &Parts, door: Door) -> ChildSpec {
    let (policy, parts) = (parts.policy("ingest.http"), parts.clone());
    let estate = Estate::default();
    let make = move |_: &_| {
        let options = HttpOptions { address: parts.config().ingest.otlp_http, workers: HTTP_WORKERS };
        HttpListener::new(options, door.clone(), estate.clone())
    };
    ChildSpec::worker("http", policy, make).build()
}
