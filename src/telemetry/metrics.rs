//! The metrics of the process, as OpenMetrics text at `/metrics`. Labels come from closed sets, never from telemetry.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::restarts::Restarts;
use super::tree_metrics;
use crate::clock;
use crate::domain::offence::Cause;
use crate::domain::refusal::{Accepted, Refusal};
use crate::domain::signal::Signal;
use crate::messages::ingest::ReceiveExport;
use crate::supervisors::kernel::tree::TreeView;

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
    poisonous: Family<ClassOnly, Counter>,
    retried: Family<RungOnly, Counter>,
    dead_by_class: Family<ClassOnly, Counter>,
    queries: Family<QueryLabels, Counter>,
    acks: Family<SignalOnly, Histogram, fn() -> Histogram>,
    own_dropped: Family<SignalOnly, Gauge>,
    restarts: Mutex<Restarts>,
    gate_fail_open: Family<Reason, Counter>,
    gate_paced_alone: Counter,
    reloads: Family<ReloadLabels, Counter>,
    restart_pending: Gauge,
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
struct ClassOnly {
    class: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RungOnly {
    rung: &'static str,
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

/// Bounds of the time from a request's arrival to its acknowledgement, in seconds.
const ACK_BOUNDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

fn ack_times() -> Histogram {
    Histogram::new(ACK_BOUNDS)
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
            poisonous: counted(&mut registry, "poison_items", "Failures of single items, by class"),
            retried: counted(&mut registry, "retried", "Items put onto the retry ladder, by rung"),
            dead_by_class: counted(&mut registry, "dead", "Items put into the dead letters, by class"),
            queries: counted(&mut registry, "serve_queries", "Queries by outcome"),
            gate_fail_open: counted(
                &mut registry,
                "gate_fail_open",
                "Requests let in although nothing was known of their tenant's plan, by reason",
            ),
            gate_paced_alone: counted(
                &mut registry,
                "gate_paced_alone",
                "Requests that were held to this edge's share of a rate, because the cache did not answer in time",
            ),
            reloads: counted(&mut registry, "config_reloads", "Reloads of the configuration by result"),
            restart_pending: counted(
                &mut registry,
                "config_restart_pending",
                "Keys whose reloaded value waits for a restart of the process",
            ),
            acks: {
                let acks = Family::new_with_constructor(ack_times as fn() -> Histogram);
                let help = "Time from a request's arrival to its acknowledgement, in seconds";
                registry.register("ingest_ack_seconds", help, acks.clone());
                acks
            },
            own_dropped: counted(
                &mut registry,
                "own_telemetry_dropped",
                "Own log lines and traces dropped since the start, over their rate or for want of room",
            ),
            restarts: Mutex::default(),
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
                let took = clock::unix_nanos().saturating_sub(request.received_at_ns);
                inner.acks.get_or_create(&SignalOnly { signal }).observe(took as f64 / 1e9);
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

    /// A block was settled: rows stored.
    pub fn settled(&self, signal: Signal, rows: u64) {
        self.inner.stored.get_or_create(&SignalOnly { signal: signal.as_str() }).inc_by(rows);
    }

    /// An item was put aside into `topic`: a rung of the retry ladder or the dead letters.
    pub fn put_aside(&self, cause: Cause, topic: &'static str, signal: Option<Signal>) {
        let label = ClassOnly { class: cause.as_str() };
        self.inner.poisonous.get_or_create(&label).inc();
        if let Some(rung) = topic.strip_prefix("obtrace.retry.") {
            self.inner.retried.get_or_create(&RungOnly { rung }).inc();
            return;
        }
        self.inner.dead_by_class.get_or_create(&label).inc();
        if let Some(signal) = signal {
            self.inner.dead.get_or_create(&SignalOnly { signal: signal.as_str() }).inc();
        }
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

    /// A request was let in or not by this edge's share of its tenant's rate.
    pub fn gate_paced_alone(&self) {
        self.inner.gate_paced_alone.inc();
    }

    /// The configuration was read anew; so many keys now wait for a restart of the process.
    pub fn reloaded(&self, result: &'static str, pending: usize) {
        self.inner.reloads.get_or_create(&ReloadLabels { result }).inc();
        self.inner.restart_pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
    }

    /// So many own log lines and traces were dropped since the start.
    pub fn own_dropped(&self, lines: u64, traces: u64) {
        for (signal, n) in [("logs", lines), ("traces", traces)] {
            self.inner.own_dropped.get_or_create(&SignalOnly { signal }).set(signed(n));
        }
    }

    /// Everything as OpenMetrics text, with the tree as it is now.
    pub fn render(&self, view: &TreeView) -> String {
        let snapshot = view.snapshot();
        let mut text = String::new();
        // Writing into a String cannot fail.
        encode_registry(&mut text, &self.inner.registry.lock()).ok();
        for family in tree_metrics::families(&snapshot) {
            family.write(&mut text);
        }
        let mut restarts = self.inner.restarts.lock();
        restarts.follow(&view.journal());
        restarts.family(&snapshot).write(&mut text);
        encode_eof(&mut text).ok();
        text
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

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
