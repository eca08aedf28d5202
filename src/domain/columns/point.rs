//! A metric data point of any kind under one face, borrowed from the request: what a row of `metrics` is made of.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint, SummaryDataPoint,
};

/// A data point; what its kind does not have is at its default.
#[derive(Default)]
pub(super) struct Point<'a> {
    pub time: u64,
    pub start: u64,
    pub flags: u32,
    pub attributes: &'a [KeyValue],
    pub exemplars: &'a [Exemplar],
    /// The number of a gauge or sum as a double; none where the point has none.
    pub value: Option<f64>,
    /// The same number where it was sent as an integer, exact beyond 2^53.
    pub int_value: Option<i64>,
    pub count: u64,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub bucket_counts: &'a [u64],
    pub explicit_bounds: &'a [f64],
    pub scale: i32,
    pub zero_count: u64,
    pub zero_threshold: f64,
    pub positive: Option<&'a Buckets>,
    pub negative: Option<&'a Buckets>,
    pub quantiles: &'a [ValueAtQuantile],
}

impl<'a> From<&'a NumberDataPoint> for Point<'a> {
    fn from(point: &'a NumberDataPoint) -> Self {
        let (value, int_value) = match point.value {
            Some(Value::AsDouble(value)) => (Some(value), None),
            Some(Value::AsInt(value)) => (Some(value as f64), Some(value)),
            None => (None, None),
        };
        Self {
            time: point.time_unix_nano,
            start: point.start_time_unix_nano,
            flags: point.flags,
            attributes: &point.attributes,
            exemplars: &point.exemplars,
            value,
            int_value,
            ..Self::default()
        }
    }
}

impl<'a> From<&'a HistogramDataPoint> for Point<'a> {
    fn from(point: &'a HistogramDataPoint) -> Self {
        Self {
            time: point.time_unix_nano,
            start: point.start_time_unix_nano,
            flags: point.flags,
            attributes: &point.attributes,
            exemplars: &point.exemplars,
            count: point.count,
            sum: point.sum,
            min: point.min,
            max: point.max,
            bucket_counts: &point.bucket_counts,
            explicit_bounds: &point.explicit_bounds,
            ..Self::default()
        }
    }
}

impl<'a> From<&'a ExponentialHistogramDataPoint> for Point<'a> {
    fn from(point: &'a ExponentialHistogramDataPoint) -> Self {
        Self {
            time: point.time_unix_nano,
            start: point.start_time_unix_nano,
            flags: point.flags,
            attributes: &point.attributes,
            exemplars: &point.exemplars,
            count: point.count,
            sum: point.sum,
            min: point.min,
            max: point.max,
            scale: point.scale,
            zero_count: point.zero_count,
            zero_threshold: point.zero_threshold,
            positive: point.positive.as_ref(),
            negative: point.negative.as_ref(),
            ..Self::default()
        }
    }
}

impl<'a> From<&'a SummaryDataPoint> for Point<'a> {
    fn from(point: &'a SummaryDataPoint) -> Self {
        Self {
            time: point.time_unix_nano,
            start: point.start_time_unix_nano,
            flags: point.flags,
            attributes: &point.attributes,
            count: point.count,
            sum: Some(point.sum),
            quantiles: &point.quantile_values,
            ..Self::default()
        }
    }
}
