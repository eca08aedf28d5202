//! The `process` subtree: the OTLP workers.

use crate::actors::process::otlp::{OtlpWorker, Outlets};
use crate::messages::process::ProcessBlock;
use crate::messages::store::StoreRows;
use crate::messages::stream::AppendRecord;

use super::Parts;
use super::kernel::lane::Lane;
use super::kernel::port::Port;
use super::kernel::spec::ChildSpec;

/// The subtree and the port of the workers.
pub fn subtree(
    parts: &Parts,
    store: Port<StoreRows>,
    producer: Port<AppendRecord>,
) -> (ChildSpec, Port<ProcessBlock>) {
    let policy = parts.policy("process.otlp");
    let lane = Lane::new("process.otlp", policy.lane);
    let port = lane.port();
    let outlets = Outlets { store, producer, metrics: parts.metrics.clone() };
    let otlp = ChildSpec::replicated("otlp", policy, move |name, policy| {
        let outlets = outlets.clone();
        ChildSpec::worker(name, policy, move |_| OtlpWorker::new(outlets.clone())).reads(&lane).build()
    });
    (ChildSpec::supervisor("process", parts.policy("process"), vec![otlp]), port)
}
