//! Single items of an export request: one span, log record or data point taken out as a request of its own, with its
//! resource and scope, or left out of it. Items are numbered from 0 in the order of the request. Cannot fail.

use std::collections::BTreeSet;
use std::ops::Range;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};

use super::Payload;

impl Payload {
    /// Takes the request apart: `each` gets every item, in order, as a request of its own.
    pub fn for_each_item(self, each: &mut dyn FnMut(Payload)) {
        match self {
            Self::Traces(request) => spans_of(request, each),
            Self::Logs(request) => logs_of(request, each),
            Self::Metrics(request) => points_of(request, each),
        }
    }

    /// The item of this number as a request of its own; `None` past the last.
    pub fn item(&self, index: u32) -> Option<Payload> {
        let one = self.part(index..index.saturating_add(1), &BTreeSet::new());
        (one.count() == 1).then_some(one)
    }

    /// The items in `range` apart from those in `without`, each in its resource and scope. Groups that have nothing left
    /// are not there.
    #[must_use]
    pub fn part(&self, range: Range<u32>, without: &BTreeSet<u32>) -> Payload {
        let mut next = 0_u32;
        let mut keep = || {
            let index = next;
            next += 1;
            range.contains(&index) && !without.contains(&index)
        };
        match self {
            Self::Traces(request) => {
                let mut request = request.clone();
                request.resource_spans.retain_mut(|resource| {
                    resource.scope_spans.retain_mut(|scope| {
                        scope.spans.retain(|_| keep());
                        !scope.spans.is_empty()
                    });
                    !resource.scope_spans.is_empty()
                });
                Self::Traces(request)
            }
            Self::Logs(request) => {
                let mut request = request.clone();
                request.resource_logs.retain_mut(|resource| {
                    resource.scope_logs.retain_mut(|scope| {
                        scope.log_records.retain(|_| keep());
                        !scope.log_records.is_empty()
                    });
                    !resource.scope_logs.is_empty()
                });
                Self::Logs(request)
            }
            Self::Metrics(request) => {
                let mut request = request.clone();
                request.resource_metrics.retain_mut(|resource| {
                    resource.scope_metrics.retain_mut(|scope| {
                        scope.metrics.retain_mut(|metric| retain_points(&mut metric.data, &mut keep));
                        !scope.metrics.is_empty()
                    });
                    !resource.scope_metrics.is_empty()
                });
                Self::Metrics(request)
            }
        }
    }
}

fn spans_of(request: ExportTraceServiceRequest, each: &mut dyn FnMut(Payload)) {
    for mut resource in request.resource_spans {
        let scopes = std::mem::take(&mut resource.scope_spans);
        for mut scope in scopes {
            for span in std::mem::take(&mut scope.spans) {
                let scope = ScopeSpans { spans: vec![span], ..scope.clone() };
                let resource = ResourceSpans { scope_spans: vec![scope], ..resource.clone() };
                each(Payload::Traces(ExportTraceServiceRequest { resource_spans: vec![resource] }));
            }
        }
    }
}

fn logs_of(request: ExportLogsServiceRequest, each: &mut dyn FnMut(Payload)) {
    for mut resource in request.resource_logs {
        let scopes = std::mem::take(&mut resource.scope_logs);
        for mut scope in scopes {
            for record in std::mem::take(&mut scope.log_records) {
                let scope = ScopeLogs { log_records: vec![record], ..scope.clone() };
                let resource = ResourceLogs { scope_logs: vec![scope], ..resource.clone() };
                each(Payload::Logs(ExportLogsServiceRequest { resource_logs: vec![resource] }));
            }
        }
    }
}

fn points_of(request: ExportMetricsServiceRequest, each: &mut dyn FnMut(Payload)) {
    for mut resource in request.resource_metrics {
        let scopes = std::mem::take(&mut resource.scope_metrics);
        for mut scope in scopes {
            for metric in std::mem::take(&mut scope.metrics) {
                single_points(metric, &mut |metric| {
                    let scope = ScopeMetrics { metrics: vec![metric], ..scope.clone() };
                    let resource = ResourceMetrics { scope_metrics: vec![scope], ..resource.clone() };
                    each(Payload::Metrics(ExportMetricsServiceRequest { resource_metrics: vec![resource] }));
                });
            }
        }
    }
}

/// A metric as metrics of one point each.
fn single_points(mut metric: Metric, each: &mut dyn FnMut(Metric)) {
    macro_rules! split {
        ($variant:ident, $data:ident) => {{
            let mut shell = $data;
            for point in std::mem::take(&mut shell.data_points) {
                let mut data = shell.clone();
                data.data_points.push(point);
                each(Metric { data: Some(Data::$variant(data)), ..metric.clone() });
            }
        }};
    }
    match metric.data.take() {
        Some(Data::Gauge(data)) => split!(Gauge, data),
        Some(Data::Sum(data)) => split!(Sum, data),
        Some(Data::Histogram(data)) => split!(Histogram, data),
        Some(Data::ExponentialHistogram(data)) => split!(ExponentialHistogram, data),
        Some(Data::Summary(data)) => split!(Summary, data),
        None => {}
    }
}

/// Keeps the points for which `keep` says so. True when any are left.
fn retain_points(data: &mut Option<Data>, keep: &mut impl FnMut() -> bool) -> bool {
    macro_rules! retain {
        ($data:expr) => {{
            $data.data_points.retain(|_| keep());
            !$data.data_points.is_empty()
        }};
    }
    match data {
        Some(Data::Gauge(data)) => retain!(data),
        Some(Data::Sum(data)) => retain!(data),
        Some(Data::Histogram(data)) => retain!(data),
        Some(Data::ExponentialHistogram(data)) => retain!(data),
        Some(Data::Summary(data)) => retain!(data),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::envelope::WireFormat;
    use crate::domain::signal::Signal;
    use crate::wire::testing;

    fn requests() -> impl Iterator<Item = Payload> {
        (0..40).flat_map(|seed| {
            let mut numbers = testing::Gen::new(seed);
            Signal::ALL.map(|signal| numbers.payload(signal))
        })
    }

    /// By their bytes: NaN does not equal itself.
    fn bytes(payload: &Payload) -> Vec<u8> {
        payload.encode(WireFormat::Otlp)
    }

    #[test]
    fn every_item_is_there_once_and_in_order() {
        for request in requests() {
            let mut items = Vec::new();
            request.clone().for_each_item(&mut |item| items.push(item));
            assert_eq!(items.len(), request.count());
            for (index, item) in (0_u32..).zip(&items) {
                assert_eq!(item.count(), 1);
                assert_eq!(bytes(&request.item(index).unwrap()), bytes(item));
            }
            assert!(request.item(u32::try_from(items.len()).unwrap()).is_none());
        }
    }

    #[test]
    fn a_part_holds_its_range_without_the_rest() {
        for request in requests().filter(|request| request.count() >= 3) {
            let count = u32::try_from(request.count()).unwrap();
            let part = request.part(1..count, &[2].into());
            let mut left = Vec::new();
            part.for_each_item(&mut |item| left.push(bytes(&item)));
            let rest = (1..count).filter(|index| *index != 2);
            let wanted: Vec<Vec<u8>> =
                rest.filter_map(|index| request.item(index)).map(|item| bytes(&item)).collect();
            assert_eq!(left, wanted);
        }
    }
}
