//! Sifts an export request: takes out the records that cannot be kept and says why, so that the rest can be accepted.
//!
//! What is taken out here is answered as `partial_success`: the client must not send it again.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};
use opentelemetry_proto::tonic::trace::v1::Span;

/// Which record times are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindow {
    /// When the request came in, Unix nanoseconds.
    pub received_at_ns: u64,
    /// Oldest accepted age.
    pub past: Duration,
    /// Furthest accepted lead of the client's clock.
    pub future: Duration,
}

/// What was taken out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sifted {
    /// Records that stay.
    pub kept: u64,
    /// Records taken out.
    pub rejected: u64,
    /// Why the first of them was, with its name; set exactly when `rejected` is not 0.
    pub reason: Option<String>,
}

impl Sifted {
    fn judge(&mut self, verdict: Result<(), String>) -> bool {
        match verdict {
            Ok(()) => {
                self.kept += 1;
                true
            }
            Err(reason) => {
                self.rejected += 1;
                self.reason.get_or_insert(reason);
                false
            }
        }
    }
}

/// Takes out spans without valid ids or with a start outside the window.
pub fn sift_traces(request: &mut ExportTraceServiceRequest, window: &TimeWindow) -> Sifted {
    let mut sifted = Sifted::default();
    for scope in request.resource_spans.iter_mut().flat_map(|r| r.scope_spans.iter_mut()) {
        scope.spans.retain(|span| sifted.judge(check_span(span, window)));
    }
    sifted
}

/// Takes out log records with malformed ids or a time outside the window.
pub fn sift_logs(request: &mut ExportLogsServiceRequest, window: &TimeWindow) -> Sifted {
    let mut sifted = Sifted::default();
    for scope in request.resource_logs.iter_mut().flat_map(|r| r.scope_logs.iter_mut()) {
        scope.log_records.retain(|record| sifted.judge(check_log(record, window)));
    }
    sifted
}

/// Takes out data points with a time outside the window, and points of metrics without a name.
pub fn sift_metrics(request: &mut ExportMetricsServiceRequest, window: &TimeWindow) -> Sifted {
    let mut sifted = Sifted::default();
    for scope in request.resource_metrics.iter_mut().flat_map(|r| r.scope_metrics.iter_mut()) {
        for metric in &mut scope.metrics {
            sift_metric(metric, window, &mut sifted);
        }
    }
    sifted
}

fn sift_metric(metric: &mut Metric, window: &TimeWindow, sifted: &mut Sifted) {
    let name = std::mem::take(&mut metric.name);
    let mut keep = |time| {
        let named = if name.is_empty() { Err("a metric has no name".to_owned()) } else { Ok(()) };
        sifted.judge(named.and_then(|()| check_time(time, window, "data point of metric", &name)))
    };
    match &mut metric.data {
        Some(Data::Gauge(data)) => data.data_points.retain(|p| keep(p.time_unix_nano)),
        Some(Data::Sum(data)) => data.data_points.retain(|p| keep(p.time_unix_nano)),
        Some(Data::Histogram(data)) => data.data_points.retain(|p| keep(p.time_unix_nano)),
        Some(Data::ExponentialHistogram(data)) => data.data_points.retain(|p| keep(p.time_unix_nano)),
        Some(Data::Summary(data)) => data.data_points.retain(|p| keep(p.time_unix_nano)),
        None => {}
    }
    metric.name = name;
}

fn check_span(span: &Span, window: &TimeWindow) -> Result<(), String> {
    check_id("trace_id", &span.trace_id, 16, true, &span.name)?;
    check_id("span_id", &span.span_id, 8, true, &span.name)?;
    check_id("parent_span_id", &span.parent_span_id, 8, false, &span.name)?;
    for link in &span.links {
        check_id("link trace_id", &link.trace_id, 16, false, &span.name)?;
        check_id("link span_id", &link.span_id, 8, false, &span.name)?;
    }
    check_time(span.start_time_unix_nano, window, "span", &span.name)
}

fn check_log(record: &LogRecord, window: &TimeWindow) -> Result<(), String> {
    check_id("trace_id", &record.trace_id, 16, false, "log record")?;
    check_id("span_id", &record.span_id, 8, false, "log record")?;
    match (record.time_unix_nano, record.observed_time_unix_nano) {
        // Without any time the record counts as of when it came in.
        (0, 0) => Ok(()),
        (0, observed) => check_time(observed, window, "log record", ""),
        (time, _) => check_time(time, window, "log record", ""),
    }
}

fn check_id(what: &str, id: &[u8], length: usize, required: bool, name: &str) -> Result<(), String> {
    if id.is_empty() && !required {
        return Ok(());
    }
    if id.len() != length {
        return Err(format!("{what} of {name:?} has {} bytes, it must have {length}", id.len()));
    }
    if required && id.iter().all(|byte| *byte == 0) {
        return Err(format!("{what} of {name:?} is all zeros"));
    }
    Ok(())
}

fn check_time(time: u64, window: &TimeWindow, what: &str, name: &str) -> Result<(), String> {
    let at = |ns: u64| ns / 1_000_000_000;
    let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    if time == 0 {
        return Err(format!("{what} {name:?} has no time"));
    }
    if time < window.received_at_ns.saturating_sub(nanos(window.past)) {
        let age = at(window.received_at_ns.saturating_sub(time));
        return Err(format!(
            "{what} {name:?} is {age} s old, older than its retention or ingest.accept_past: it would expire at once"
        ));
    }
    if time > window.received_at_ns.saturating_add(nanos(window.future)) {
        let lead = at(time - window.received_at_ns);
        return Err(format!(
            "{what} {name:?} is {lead} s in the future, over ingest.accept_future: check the sender's clock"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::metrics::v1::{Gauge, NumberDataPoint, ResourceMetrics, ScopeMetrics};
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};

    const NOW: u64 = 1_700_000_000_000_000_000;

    fn window() -> TimeWindow {
        TimeWindow { received_at_ns: NOW, past: Duration::from_secs(3600), future: Duration::from_secs(60) }
    }

    fn span(name: &str) -> Span {
        Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            name: name.into(),
            start_time_unix_nano: NOW,
            ..Default::default()
        }
    }

    fn traces(spans: Vec<Span>) -> ExportTraceServiceRequest {
        let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }],
        }
    }

    #[test]
    fn bad_spans_go_and_good_ones_stay() {
        let bad = [
            Span { trace_id: vec![1; 8], ..span("short") },
            Span { trace_id: vec![0; 16], ..span("zeros") },
            Span { span_id: vec![], ..span("none") },
            Span { parent_span_id: vec![1; 3], ..span("parent") },
            Span { start_time_unix_nano: 0, ..span("no time") },
            Span { start_time_unix_nano: NOW - 3601 * 1_000_000_000, ..span("old") },
            Span { start_time_unix_nano: NOW + 61 * 1_000_000_000, ..span("early") },
        ];
        let count = bad.len() as u64;
        let mut request = traces(bad.into_iter().chain([span("good")]).collect());
        let sifted = sift_traces(&mut request, &window());
        assert_eq!((sifted.kept, sifted.rejected), (1, count));
        assert!(sifted.reason.unwrap().contains("trace_id of \"short\" has 8 bytes"));
        assert_eq!(request.resource_spans[0].scope_spans[0].spans, vec![span("good")]);
    }

    #[test]
    fn logs_need_no_time_and_no_ids_but_no_broken_ones() {
        let record = |time, trace: usize| LogRecord {
            time_unix_nano: time,
            trace_id: vec![1; trace],
            ..Default::default()
        };
        let log_records = vec![record(0, 0), record(NOW, 16), record(NOW, 5), record(1, 0)];
        let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
        let mut request = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs { scope_logs, ..Default::default() }],
        };
        let sifted = sift_logs(&mut request, &window());
        assert_eq!((sifted.kept, sifted.rejected), (2, 2));
    }

    #[test]
    fn points_are_judged_one_by_one_and_the_metric_keeps_its_name() {
        let point = |time| NumberDataPoint { time_unix_nano: time, ..Default::default() };
        let metric = Metric {
            name: "m".into(),
            data: Some(Data::Gauge(Gauge { data_points: vec![point(NOW), point(1)] })),
            ..Default::default()
        };
        let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..Default::default() }];
        let mut request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics { scope_metrics, ..Default::default() }],
        };
        let sifted = sift_metrics(&mut request, &window());
        assert_eq!((sifted.kept, sifted.rejected), (1, 1));
        assert_eq!(request.resource_metrics[0].scope_metrics[0].metrics[0].name, "m");
    }
}
