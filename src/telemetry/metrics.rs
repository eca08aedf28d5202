//! The metrics of the process, in Prometheus text at `/metrics`. Labels come from closed sets, never from telemetry.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::domain::refusal::{Accepted, Refusal};
use crate::domain::signal::Signal;
use crate::messages::ingest::ReceiveExport;
use crate::supervisors::kernel::snapshot::{ChildState, TreeSnapshot};

/// All metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Mutex<Registry>,
    requests: Family<Outcome, Counter>,
    records: Family<Outcome, Counter>,
    bytes: Family<SignalOnly, Counter>,
    stored: Family<SignalOnly, Counter>,
    dead: Family<SignalOnly, Counter>,
    queries: Family<QueryLabels, Counter>,
    gate_fail_open: Family<Reason, Counter>,
    reloads: Family<ReloadLabels, Counter>,
    restart_pending: Gauge,
    child_state: Family<ChildLabels, Gauge>,
    restarts: Family<ChildLabels, Gauge>,
    generation: Family<ChildLabels, Gauge>,
    lane_messages: Family<ChildLabels, Gauge>,
    lane_bytes: Family<ChildLabels, Gauge>,
    poison: Family<ChildLabels, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    signal: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SignalOnly {
    signal: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct QueryLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReloadLabels {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ChildLabels {
    path: String,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Fresh metrics, all at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("obtrace");
        let inner = Inner {
            requests: counted(&mut registry, "ingest_requests", "Export requests by outcome"),
            records: counted(&mut registry, "ingest_records", "Records received by outcome"),
            bytes: counted(&mut registry, "ingest_bytes", "Request bytes received, as sent"),
            stored: counted(&mut registry, "process_rows", "Rows stored"),
            dead: counted(&mut registry, "process_dead_letters", "Records put into the dead letters"),
            queries: counted(&mut registry, "serve_queries", "Queries by outcome"),
            gate_fail_open: counted(
                &mut registry,
                "gate_fail_open",
                "Requests let in although nothing was known of their tenant's plan, by reason",
            ),
            reloads: counted(&mut registry, "config_reloads", "Reloads of the configuration by result"),
            restart_pending: counted(
                &mut registry,
                "config_restart_pending",
                "Keys whose reloaded value waits for a restart of the process",
            ),
            child_state: counted(
                &mut registry,
                "child_state",
                "0 stopped, 1 running, 2 degraded, 3 starting, 4 backing off, 5 quarantined, 6 draining, 7 paused, 8 drained",
            ),
            restarts: counted(&mut registry, "child_restarts", "Restarts since the process started"),
            generation: counted(&mut registry, "child_generation", "Number of the incarnation"),
            lane_messages: counted(&mut registry, "lane_messages", "Messages resident in the lane"),
            lane_bytes: counted(&mut registry, "lane_bytes", "Bytes resident in the lane"),
            poison: counted(&mut registry, "lane_poisoned", "Messages that took the poison path"),
            registry: Mutex::new(Registry::default()),
        };
        *inner.registry.lock() = registry;
        Self { inner: Arc::new(inner) }
    }

    /// An export request was answered.
    pub fn received(&self, request: &ReceiveExport, outcome: &Result<Accepted, Refusal>) {
        let signal = request.signal.as_str();
        let label = |outcome| Outcome { signal, outcome };
        let inner = &self.inner;
        inner.bytes.get_or_create(&SignalOnly { signal }).inc_by(request.body.len() as u64);
        match outcome {
            Ok(accepted) => {
                inner.requests.get_or_create(&label("accepted")).inc();
                inner.records.get_or_create(&label("accepted")).inc_by(accepted.accepted);
                if accepted.rejected > 0 {
                    inner.records.get_or_create(&label("rejected")).inc_by(accepted.rejected);
                }
            }
            Err(refusal) => {
                inner.requests.get_or_create(&label(refusal_name(refusal))).inc();
            }
        }
    }

    /// A block was settled: rows stored, records dead-lettered.
    pub fn settled(&self, signal: Signal, rows: u64, dead: u64) {
        let label = SignalOnly { signal: signal.as_str() };
        self.inner.stored.get_or_create(&label).inc_by(rows);
        self.inner.dead.get_or_create(&label).inc_by(dead);
    }

    /// A query ended.
    pub fn queried(&self, outcome: &'static str) {
        self.inner.queries.get_or_create(&QueryLabels { outcome }).inc();
    }

    /// A request was refused before it reached a receiver.
    pub fn turned_away(&self, signal: Signal, refusal: &Refusal) {
        let label = Outcome { signal: signal.as_str(), outcome: refusal_name(refusal) };
        self.inner.requests.get_or_create(&label).inc();
    }

    /// A request was let in because nothing was known of its tenant.
    pub fn gate_failed_open(&self, reason: &'static str) {
        self.inner.gate_fail_open.get_or_create(&Reason { reason }).inc();
    }

    /// The configuration was read anew; so many keys now wait for a restart of the process.
    pub fn reloaded(&self, result: &'static str, pending: usize) {
        self.inner.reloads.get_or_create(&ReloadLabels { result }).inc();
        self.inner.restart_pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
    }

    /// Everything as Prometheus text, with the tree as it is in `snapshot`.
    pub fn render(&self, snapshot: &TreeSnapshot) -> String {
        self.observe(snapshot);
        let mut text = String::new();
        // Writing into a String cannot fail.
        encode(&mut text, &self.inner.registry.lock()).ok();
        text
    }

    fn observe(&self, snapshot: &TreeSnapshot) {
        let inner = &self.inner;
        // Sessions come and go with connections: their names would pile up as labels.
        for node in snapshot.root.walk().into_iter().filter(|node| !node.path.starts_with("ingest.sessions."))
        {
            let label = ChildLabels { path: node.path.clone() };
            inner.child_state.get_or_create(&label).set(state_number(node.state));
            inner.restarts.get_or_create(&label).set(signed(node.restarts));
            inner.generation.get_or_create(&label).set(signed(node.generation));
            for lane in &node.lanes {
                inner.lane_messages.get_or_create(&label).set((lane.queued + lane.leased) as i64);
                inner.lane_bytes.get_or_create(&label).set(lane.bytes as i64);
                inner.poison.get_or_create(&label).set(signed(lane.poisoned));
            }
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

fn counted<M: Clone + Default + prometheus_client::registry::Metric>(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn refusal_name(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::BadData(_) => "bad_data",
        Refusal::TooLarge(_) => "too_large",
        Refusal::Unauthenticated(_) => "unauthenticated",
        Refusal::Unsupported(_) => "unsupported",
        Refusal::Unavailable { .. } => "unavailable",
        Refusal::OverQuota { .. } => "over_quota",
        Refusal::Internal(_) => "internal",
    }
}

fn state_number(state: ChildState) -> i64 {
    match state {
        ChildState::Stopped => 0,
        ChildState::Running => 1,
        ChildState::Degraded => 2,
        ChildState::Starting => 3,
        ChildState::BackingOff => 4,
        ChildState::Quarantined => 5,
        ChildState::Draining => 6,
        ChildState::Paused => 7,
        ChildState::Drained => 8,
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
