//! Own metrics: the families that `/metrics` shows in, an export request of OTLP out.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};

use super::{resource, scope, text};
use crate::telemetry::exposition::{Family, Kind, Labels, histograms};

/// The families as of `now`, counted since `start`, both Unix nanoseconds.
pub fn request(families: &[Family], start: u64, now: u64) -> ExportMetricsServiceRequest {
    let metrics = families.iter().map(|family| metric(family, start, now)).collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }];
    let resource = Some(resource());
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }],
    }
}

/// Points in the families.
pub fn points(request: &ExportMetricsServiceRequest) -> usize {
    let metrics = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics).flat_map(|s| &s.metrics);
    metrics
        .map(|metric| match &metric.data {
            Some(Data::Gauge(gauge)) => gauge.data_points.len(),
            Some(Data::Sum(sum)) => sum.data_points.len(),
            Some(Data::Histogram(histogram)) => histogram.data_points.len(),
            _ => 0,
        })
        .sum()
}

fn metric(family: &Family, start: u64, now: u64) -> Metric {
    let temporality = AggregationTemporality::Cumulative.into();
    let numbers = || {
        let points = family.samples.iter().map(|sample| NumberDataPoint {
            attributes: attributes(&sample.labels),
            start_time_unix_nano: if family.kind == Kind::Counter { start } else { 0 },
            time_unix_nano: now,
            value: Some(Value::AsDouble(sample.value)),
            ..NumberDataPoint::default()
        });
        points.collect()
    };
    let data = match family.kind {
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers() }),
        Kind::Counter => Data::Sum(Sum {
            data_points: numbers(),
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
        Kind::Histogram => {
            // What is no histogram was refused when the families were read.
            let points =
                histograms(family).unwrap_or_default().into_iter().map(|histogram| HistogramDataPoint {
                    attributes: attributes(&histogram.labels),
                    start_time_unix_nano: start,
                    time_unix_nano: now,
                    count: histogram.counts.iter().sum(),
                    sum: Some(histogram.sum),
                    bucket_counts: histogram.counts,
                    explicit_bounds: histogram.bounds,
                    ..HistogramDataPoint::default()
                });
            Data::Histogram(Histogram { data_points: points.collect(), aggregation_temporality: temporality })
        }
    };
    Metric {
        name: family.name.clone(),
        description: family.help.clone(),
        data: Some(data),
        ..Metric::default()
    }
}

fn attributes(labels: &Labels) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| text(name, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_becomes_its_kind_of_otlp() {
        let mut counter = Family::new("a", Kind::Counter, "A");
        counter.add(&[("path", "x")], 3.0);
        let mut histogram = Family::new("b", Kind::Histogram, "B");
        histogram.observe(&[("path", "x")], &[0.5], &[2, 1], 7.5);
        let mut gauge = Family::new("c", Kind::Gauge, "C");
        gauge.add(&[("path", "x")], 1.0);
        gauge.add(&[("path", "y")], 2.0);
        let request = request(&[counter, histogram, gauge], 5, 9);
        assert_eq!(points(&request), 4);
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{:?}", metrics[0]) };
        assert!(sum.is_monotonic && sum.data_points[0].start_time_unix_nano == 5);
        let Some(Data::Histogram(histogram)) = &metrics[1].data else { panic!("{:?}", metrics[1]) };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.bucket_counts.as_slice(), point.sum), (3, &[2, 1][..], Some(7.5)));
        assert_eq!(point.attributes, [text("path", "x")]);
    }
}
