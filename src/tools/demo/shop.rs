//! The shop as a whole: one simulated second in, the exports that are due out, grouped by the service that reports them.

use std::collections::BTreeMap;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::fault::Fault;
use super::flows::visit;
use super::metrics::Metrics;
use super::otlp::scope;
use super::services::Service;
use super::trace::Trace;
use crate::domain::signal::Signal;

const SECOND_NS: u64 = 1_000_000_000;
/// Seconds between two reports of metrics.
const REPORT_EVERY: u64 = 10;
/// Most visits of one second; a rate beyond is what the load generator is for.
const MOST_VISITS: f64 = 2_000.0;

/// How the shop is run.
#[derive(Debug, Clone)]
pub struct ShopPlan {
    /// Seed of everything random.
    pub seed: u64,
    /// Visits a second.
    pub rate: f64,
    /// When the shop opens, Unix nanoseconds.
    pub base_ns: u64,
    /// What goes wrong.
    pub fault: Fault,
    /// From when on, Unix nanoseconds.
    pub fault_from_ns: u64,
}

/// One encoded export request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Which service of OTLP it is for.
    pub signal: Signal,
    /// Spans, log records or data points in it.
    pub records: u64,
    /// Protobuf.
    pub body: Bytes,
}

/// The simulated shop.
#[derive(Debug)]
pub struct Shop {
    plan: ShopPlan,
    rng: StdRng,
    metrics: Metrics,
    /// Seconds played.
    second: u64,
    /// Visits owed by a rate that is no whole number.
    owed: f64,
    /// Traces that have begun, by the time they end.
    pending: BTreeMap<(u64, u64), Trace>,
    begun: u64,
}

/// Who reports: the service, and whether it is the new version of a bad deploy.
type Reporter = (Service, bool);

impl Shop {
    /// Opens the shop.
    pub fn new(plan: ShopPlan) -> Self {
        let (rng, metrics) = (StdRng::seed_from_u64(plan.seed), Metrics::new(plan.base_ns));
        Self { plan, rng, metrics, second: 0, owed: 0.0, pending: BTreeMap::new(), begun: 0 }
    }

    /// Plays one second and returns what has ended by its end.
    pub fn second(&mut self) -> Vec<Export> {
        let start_ns = self.plan.base_ns + self.second * SECOND_NS;
        self.owed += self.plan.rate.min(MOST_VISITS);
        while self.owed >= 1.0 {
            self.owed -= 1.0;
            let at = start_ns + self.rng.random_range(0..SECOND_NS);
            let fault = if at >= self.plan.fault_from_ns { self.plan.fault } else { Fault::None };
            for trace in visit(&mut self.rng, at, fault) {
                let end_ns = trace.spans.iter().map(|(_, span)| span.end_time_unix_nano).max().unwrap_or(at);
                self.begun += 1;
                self.pending.insert((end_ns, self.begun), trace);
            }
        }
        self.second += 1;
        let now_ns = start_ns + SECOND_NS;
        let later = self.pending.split_off(&(now_ns, 0));
        let ended = std::mem::replace(&mut self.pending, later);
        self.export(ended.into_values(), now_ns, self.second.is_multiple_of(REPORT_EVERY))
    }

    /// Closes the shop: whatever has begun is ended and the metrics are reported once more.
    pub fn close(&mut self) -> Vec<Export> {
        let ended = std::mem::take(&mut self.pending);
        let now_ns = self.plan.base_ns + self.second * SECOND_NS;
        let last_ns = ended.last_key_value().map_or(now_ns, |((end_ns, _), _)| now_ns.max(*end_ns));
        self.export(ended.into_values(), last_ns, true)
    }

    fn export(&mut self, ended: impl Iterator<Item = Trace>, now_ns: u64, report: bool) -> Vec<Export> {
        let mut spans: BTreeMap<Reporter, Vec<Span>> = BTreeMap::new();
        let mut logs: BTreeMap<Reporter, Vec<LogRecord>> = BTreeMap::new();
        for trace in ended {
            trace.measured.iter().for_each(|measured| self.metrics.record(measured));
            for (service, span) in trace.spans {
                spans.entry(self.reporter(service, span.start_time_unix_nano)).or_default().push(span);
            }
            for (service, record) in trace.logs {
                logs.entry(self.reporter(service, record.time_unix_nano)).or_default().push(record);
            }
        }
        let mut exports = Vec::new();
        exports.extend((!spans.is_empty()).then(|| traces_export(spans)));
        exports.extend((!logs.is_empty()).then(|| logs_export(logs)));
        if report {
            let reported = self.metrics.report(&mut self.rng, now_ns).into_iter();
            exports.push(metrics_export(reported.map(|(s, m)| (self.reporter(s, now_ns), m)).collect()));
        }
        exports
    }

    fn reporter(&self, service: Service, at_ns: u64) -> Reporter {
        let deployed = self.plan.fault == Fault::BadDeploy && at_ns >= self.plan.fault_from_ns;
        (service, deployed && service == Service::Recommendation)
    }
}

fn traces_export(spans: BTreeMap<Reporter, Vec<Span>>) -> Export {
    let records = spans.values().map(Vec::len).sum::<usize>() as u64;
    let resource_spans = spans.into_iter().map(|((service, deployed), spans)| ResourceSpans {
        resource: Some(service.resource(deployed)),
        scope_spans: vec![ScopeSpans { scope: scope("shop.http"), spans, ..Default::default() }],
        ..Default::default()
    });
    let request = ExportTraceServiceRequest { resource_spans: resource_spans.collect() };
    Export { signal: Signal::Traces, records, body: request.encode_to_vec().into() }
}

fn logs_export(logs: BTreeMap<Reporter, Vec<LogRecord>>) -> Export {
    let records = logs.values().map(Vec::len).sum::<usize>() as u64;
    let resource_logs = logs.into_iter().map(|((service, deployed), log_records)| ResourceLogs {
        resource: Some(service.resource(deployed)),
        scope_logs: vec![ScopeLogs { scope: scope("shop.log"), log_records, ..Default::default() }],
        ..Default::default()
    });
    let request = ExportLogsServiceRequest { resource_logs: resource_logs.collect() };
    Export { signal: Signal::Logs, records, body: request.encode_to_vec().into() }
}

fn metrics_export(metrics: Vec<(Reporter, Vec<Metric>)>) -> Export {
    let records = metrics.iter().flat_map(|(_, m)| m).map(points).sum::<usize>() as u64;
    let resource_metrics = metrics.into_iter().map(|((service, deployed), metrics)| ResourceMetrics {
        resource: Some(service.resource(deployed)),
        scope_metrics: vec![ScopeMetrics { scope: scope("shop.metrics"), metrics, ..Default::default() }],
        ..Default::default()
    });
    let request = ExportMetricsServiceRequest { resource_metrics: resource_metrics.collect() };
    Export { signal: Signal::Metrics, records, body: request.encode_to_vec().into() }
}

fn points(metric: &Metric) -> usize {
    match &metric.data {
        Some(Data::Gauge(d)) => d.data_points.len(),
        Some(Data::Sum(d)) => d.data_points.len(),
        Some(Data::Histogram(d)) => d.data_points.len(),
        Some(Data::ExponentialHistogram(d)) => d.data_points.len(),
        Some(Data::Summary(d)) => d.data_points.len(),
        None => 0,
    }
}
