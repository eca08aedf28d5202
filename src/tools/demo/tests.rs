//! The shop's data held to what telemetry of a real one is: whole traces, correlated logs, every kind of metric, visible faults.

use std::collections::{BTreeSet, HashMap, HashSet};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::*;

const BASE: u64 = 1_700_000_000 * SECOND;

#[derive(Default)]
struct Day {
    spans: Vec<Span>,
    logs: Vec<LogRecord>,
    metrics: Vec<Metric>,
    versions: BTreeSet<String>,
    services: BTreeSet<String>,
}

fn exports(fault: Fault, seed: u64, base_ns: u64) -> Vec<Export> {
    let plan = ShopPlan { seed, rate: 12.5, base_ns, fault, fault_from_ns: base_ns + 20 * SECOND };
    let mut shop = Shop::new(plan);
    let mut all: Vec<_> = (0..60).flat_map(|_| shop.second()).collect();
    all.extend(shop.close());
    all
}

fn day(fault: Fault) -> Day {
    let mut day = Day::default();
    for export in exports(fault, 42, BASE) {
        match export.signal {
            Signal::Traces => {
                for resource in ExportTraceServiceRequest::decode(export.body).unwrap().resource_spans {
                    let text = |key: &str| {
                        let attributes = &resource.resource.as_ref().unwrap().attributes;
                        format!("{:?}", attributes.iter().find(|a| a.key == key).unwrap().value)
                    };
                    day.services.insert(text("service.name"));
                    day.versions.insert(text("service.version"));
                    day.spans.extend(resource.scope_spans.into_iter().flat_map(|s| s.spans));
                }
            }
            Signal::Logs => {
                let resources = ExportLogsServiceRequest::decode(export.body).unwrap().resource_logs;
                day.logs.extend(resources.into_iter().flat_map(|r| r.scope_logs).flat_map(|s| s.log_records));
            }
            Signal::Metrics => {
                let resources = ExportMetricsServiceRequest::decode(export.body).unwrap().resource_metrics;
                day.metrics
                    .extend(resources.into_iter().flat_map(|r| r.scope_metrics).flat_map(|s| s.metrics));
            }
        }
    }
    day
}

#[test]
fn the_same_seed_makes_the_same_data_and_another_another() {
    assert_eq!(exports(Fault::PaymentTimeout, 42, BASE), exports(Fault::PaymentTimeout, 42, BASE));
    assert_ne!(exports(Fault::None, 42, BASE), exports(Fault::None, 43, BASE));
    let ids = |base| {
        let first = exports(Fault::None, 42, base).into_iter().next().unwrap();
        let spans = ExportTraceServiceRequest::decode(first.body).unwrap().resource_spans.remove(0);
        let spans = spans.scope_spans.into_iter().flat_map(|s| s.spans);
        spans.map(|s| (s.trace_id, s.span_id, s.start_time_unix_nano - base)).collect::<Vec<_>>()
    };
    assert_eq!(ids(BASE), ids(BASE + 12_345_678_901));
}

#[test]
fn traces_are_whole_and_nest() {
    let day = day(Fault::None);
    assert_eq!(day.services.len(), 8, "{:?}", day.services);
    let by_id: HashMap<_, _> = day.spans.iter().map(|s| (s.span_id.clone(), s)).collect();
    assert_eq!(by_id.len(), day.spans.len());
    for span in &day.spans {
        assert!(span.end_time_unix_nano > span.start_time_unix_nano && !span.name.is_empty());
        if let Some(parent) = by_id.get(&span.parent_span_id) {
            assert_eq!(parent.trace_id, span.trace_id);
            assert!(
                parent.start_time_unix_nano <= span.start_time_unix_nano,
                "{} in {}",
                span.name,
                parent.name
            );
            assert!(parent.end_time_unix_nano >= span.end_time_unix_nano, "{} in {}", span.name, parent.name);
        } else {
            assert!(span.parent_span_id.is_empty(), "a parent is missing");
        }
        for link in &span.links {
            assert_eq!(by_id[&link.span_id].trace_id, link.trace_id);
        }
    }
    let kinds: BTreeSet<_> = day.spans.iter().map(|s| s.kind).collect();
    assert_eq!(kinds, BTreeSet::from([1, 2, 3, 4, 5]));
    assert!(day.spans.iter().any(|s| !s.links.is_empty()));
}

#[test]
fn logs_belong_to_spans_and_every_kind_of_metric_is_there() {
    let day = day(Fault::InventoryErrors);
    let spans: HashSet<_> = day.spans.iter().map(|s| (&s.trace_id, &s.span_id)).collect();
    assert!(day.logs.iter().all(|l| spans.contains(&(&l.trace_id, &l.span_id))));
    let levels: BTreeSet<_> = day.logs.iter().map(|l| l.severity_text.as_str()).collect();
    assert_eq!(levels, BTreeSet::from(["DEBUG", "ERROR", "INFO", "WARN"]));
    let kinds = day.metrics.iter().map(|m| match m.data.as_ref().unwrap() {
        Data::Gauge(_) => "gauge",
        Data::Sum(_) => "sum",
        Data::Histogram(h) => {
            assert!(h.data_points.iter().all(|p| p.bucket_counts.iter().sum::<u64>() == p.count));
            assert!(
                h.data_points
                    .iter()
                    .flat_map(|p| &p.exemplars)
                    .all(|e| spans.contains(&(&e.trace_id, &e.span_id)))
            );
            "histogram"
        }
        Data::ExponentialHistogram(_) => "exponential",
        Data::Summary(_) => "summary",
    });
    assert_eq!(kinds.collect::<BTreeSet<_>>().len(), 5);
}

#[test]
fn every_fault_shows_where_it_is_said_to() {
    let errors = |day: &Day, from: u64, name: &str| {
        let late = |s: &&Span| s.start_time_unix_nano >= from && s.name.contains(name);
        day.spans.iter().filter(late).filter(|s| s.status.as_ref().is_some_and(|s| s.code == 2)).count()
    };
    let quiet = day(Fault::None);
    let faulty_from = BASE + 20 * SECOND;
    for (fault, span) in [
        (Fault::PaymentTimeout, "POST /charges"),
        (Fault::BadDeploy, "rank"),
        (Fault::InventoryErrors, "UPDATE stock"),
    ] {
        let loud = day(fault);
        assert!(errors(&loud, faulty_from, span) > errors(&quiet, faulty_from, span) + 5, "{fault:?}");
        let before = |d: &Day| errors(d, 0, span) - errors(d, faulty_from, span);
        assert!(before(&loud) <= before(&quiet), "{fault:?} shows before its time");
    }
    let slowest = |day: &Day| {
        let selects =
            day.spans.iter().filter(|s| s.name.starts_with("SELECT") && s.start_time_unix_nano > faulty_from);
        let durations: Vec<_> = selects.map(|s| s.end_time_unix_nano - s.start_time_unix_nano).collect();
        durations.iter().sum::<u64>() / durations.len() as u64
    };
    assert!(slowest(&day(Fault::SlowDb)) > 8 * slowest(&quiet));
    assert_eq!(day(Fault::BadDeploy).versions.len(), quiet.versions.len() + 1);
}
