//! Metric data points as columns: one row a point, all five kinds in one table.

use std::mem;
use std::sync::Arc;

use arrow_array::builder::{Float64Builder, Int64Builder};
use arrow_array::types::{Float64Type, Int8Type, Int32Type, UInt8Type, UInt32Type, UInt64Type};
use arrow_array::{BooleanArray, RecordBatch};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, Metric, exemplar};
use xxhash_rust::xxh3::Xxh3;

use super::common::{
    Batch, Common, RowTime, check_enum, check_id, check_time, nanos, note, primitive, repeated, room,
};
use super::parts::{Dict, Entries, Fixed, Lists, Map, Text, list};
use super::point::Point;
use super::{AppendOutcome, BlockFull, MAX_COLUMN_BYTES, Unfit};
use crate::domain::envelope::Header;

/// The kinds of metric, as numbered in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MetricKind {
    Gauge = 1,
    Sum = 2,
    Histogram = 3,
    ExponentialHistogram = 4,
    Summary = 5,
}

/// Builds blocks of the `metrics` table.
pub struct MetricColumns {
    common: Common,
    metric: Dict,
    unit: Dict,
    description: Dict,
    metadata: Map,
    metadata_types: Dict,
    kind: Vec<i8>,
    temporality: Vec<u8>,
    is_monotonic: Vec<bool>,
    start_ts: Vec<i64>,
    flags: Vec<u32>,
    series_hash: Vec<u64>,
    has_value: Vec<bool>,
    value: Vec<f64>,
    int_value: Int64Builder,
    count: Vec<u64>,
    sum: Float64Builder,
    min: Float64Builder,
    max: Float64Builder,
    buckets: Buckets,
    exemplars: Exemplars,
    current: Current,
}

/// The metric whose points are being added.
#[derive(Default)]
struct Current {
    metric: i32,
    unit: i32,
    description: i32,
    metadata: Entries,
    metadata_types: i32,
    kind: i8,
    temporality: i32,
    is_monotonic: bool,
    identity: u64,
}

struct Buckets {
    explicit_counts: Lists,
    bucket_counts: Vec<u64>,
    bounds: Lists,
    explicit_bounds: Vec<f64>,
    scale: Vec<i32>,
    zero_count: Vec<u64>,
    zero_threshold: Vec<f64>,
    positive_offset: Vec<i32>,
    positive: Lists,
    positive_counts: Vec<u64>,
    negative_offset: Vec<i32>,
    negative: Lists,
    negative_counts: Vec<u64>,
    quantile_lists: Lists,
    quantiles: Vec<f64>,
    quantile_values: Vec<f64>,
}

struct Exemplars {
    lists: Lists,
    ts: Vec<i64>,
    value: Vec<f64>,
    int_value: Int64Builder,
    trace_id: Fixed<16>,
    span_id: Fixed<8>,
    attributes: Map,
    types: Text,
    scratch: String,
}

impl Default for MetricColumns {
    fn default() -> Self {
        Self::new()
    }
}

impl MetricColumns {
    /// An empty block.
    pub fn new() -> Self {
        Self {
            common: Common::new(),
            metric: Dict::new(),
            unit: Dict::new(),
            description: Dict::new(),
            metadata: Map::new(),
            metadata_types: Dict::new(),
            kind: Vec::new(),
            temporality: Vec::new(),
            is_monotonic: Vec::new(),
            start_ts: Vec::new(),
            flags: Vec::new(),
            series_hash: Vec::new(),
            has_value: Vec::new(),
            value: Vec::new(),
            int_value: Int64Builder::new(),
            count: Vec::new(),
            sum: Float64Builder::new(),
            min: Float64Builder::new(),
            max: Float64Builder::new(),
            buckets: Buckets::new(),
            exemplars: Exemplars::new(),
            current: Current::default(),
        }
    }

    /// Rows in the block.
    pub fn rows(&self) -> usize {
        self.common.rows()
    }

    /// Bytes of text and buckets in the block, roughly what it takes in memory.
    pub fn bytes(&self) -> usize {
        self.common.bytes() + self.metadata.bytes() + self.exemplars.attributes.bytes() + self.buckets.bytes()
    }

    /// Adds the data points of a request; those the table cannot hold are returned with the reason.
    ///
    /// # Errors
    /// [`BlockFull`], with nothing added, where the block has rows and no room for these.
    pub fn append(
        &mut self,
        request: &ExportMetricsServiceRequest,
        header: &Header,
    ) -> Result<AppendOutcome, BlockFull> {
        room(self.rows(), self.bytes(), repeated_bytes(request).saturating_add(header.byte_count as usize))?;
        let mut outcome = AppendOutcome::default();
        self.common.request(header);
        for group in &request.resource_metrics {
            self.common.resource(group.resource.as_ref(), &group.schema_url);
            for scope in &group.scope_metrics {
                self.common.scope(scope.scope.as_ref(), &scope.schema_url);
                let identity = self.common.identity(header);
                for metric in &scope.metrics {
                    self.metric(metric, identity, &mut outcome);
                }
            }
        }
        Ok(outcome)
    }

    /// Hands the block over and begins a new one.
    pub fn finish(&mut self) -> RecordBatch {
        let mut done = mem::take(self);
        let mut batch = done.common.finish();
        batch.put("metric", done.metric.finish());
        batch.put("unit", done.unit.finish());
        batch.put("description", done.description.finish());
        batch.put("metadata", done.metadata.finish());
        batch.put("metadata_types", done.metadata_types.finish());
        batch.put("kind", primitive::<Int8Type>(&mut done.kind));
        batch.put("temporality", primitive::<UInt8Type>(&mut done.temporality));
        batch.put("is_monotonic", Arc::new(BooleanArray::from(done.is_monotonic)));
        batch.put("start_ts", nanos(&mut done.start_ts));
        batch.put("flags", primitive::<UInt32Type>(&mut done.flags));
        batch.put("series_hash", primitive::<UInt64Type>(&mut done.series_hash));
        batch.put("has_value", Arc::new(BooleanArray::from(done.has_value)));
        batch.put("value", primitive::<Float64Type>(&mut done.value));
        batch.put_nullable("int_value", Arc::new(done.int_value.finish()));
        batch.put("count", primitive::<UInt64Type>(&mut done.count));
        batch.put_nullable("sum", Arc::new(done.sum.finish()));
        batch.put_nullable("min", Arc::new(done.min.finish()));
        batch.put_nullable("max", Arc::new(done.max.finish()));
        done.buckets.finish(&mut batch);
        done.exemplars.finish(&mut batch);
        batch.build()
    }

    fn metric(&mut self, metric: &Metric, identity: u64, outcome: &mut AppendOutcome) {
        let Some(data) = &metric.data else { return };
        let (kind, temporality, is_monotonic) = match data {
            Data::Gauge(_) => (MetricKind::Gauge, 0, false),
            Data::Sum(sum) => (MetricKind::Sum, sum.aggregation_temporality, sum.is_monotonic),
            Data::Histogram(h) => (MetricKind::Histogram, h.aggregation_temporality, false),
            Data::ExponentialHistogram(h) => {
                (MetricKind::ExponentialHistogram, h.aggregation_temporality, false)
            }
            Data::Summary(_) => (MetricKind::Summary, 0, false),
        };
        self.begin(metric, identity, kind, temporality, is_monotonic);
        match data {
            Data::Gauge(gauge) => self.points(gauge.data_points.iter().map(Point::from), outcome),
            Data::Sum(sum) => self.points(sum.data_points.iter().map(Point::from), outcome),
            Data::Histogram(h) => self.points(h.data_points.iter().map(Point::from), outcome),
            Data::ExponentialHistogram(h) => self.points(h.data_points.iter().map(Point::from), outcome),
            Data::Summary(summary) => self.points(summary.data_points.iter().map(Point::from), outcome),
        }
    }

    fn begin(&mut self, metric: &Metric, identity: u64, kind: MetricKind, temporality: i32, monotonic: bool) {
        let current = &mut self.current;
        current.metric = self.metric.intern(&metric.name);
        current.unit = self.unit.intern(&metric.unit);
        current.description = self.description.intern(&metric.description);
        self.metadata.encode(&metric.metadata, &mut current.metadata);
        current.metadata_types = self.metadata_types.intern(current.metadata.types());
        current.kind = kind as i8;
        current.temporality = temporality;
        current.is_monotonic = monotonic;
        let mut hasher = Xxh3::new();
        hasher.update(&identity.to_le_bytes());
        hasher.update(metric.name.as_bytes());
        hasher.update(&[0]);
        hasher.update(metric.unit.as_bytes());
        hasher.update(&[0, kind as u8, u8::from(monotonic)]);
        hasher.update(&temporality.to_le_bytes());
        current.identity = hasher.digest();
    }

    fn points<'a>(&mut self, points: impl Iterator<Item = Point<'a>>, outcome: &mut AppendOutcome) {
        for point in points {
            note(outcome, self.point(&point));
        }
    }

    fn point(&mut self, point: &Point<'_>) -> Result<(), Unfit> {
        let time = self.check(point)?;
        let start = check_time("start_time_unix_nano", point.start)?;
        let temporality = check_enum("aggregation_temporality", self.current.temporality)?;
        // Nothing below can fail: a row is added whole or not at all.
        let set = self.common.push(time, point.attributes, 0);
        let current = &self.current;
        self.metric.push_id(current.metric);
        self.unit.push_id(current.unit);
        self.description.push_id(current.description);
        self.metadata.push_entries(&current.metadata);
        self.metadata_types.push_id(current.metadata_types);
        self.kind.push(current.kind);
        self.temporality.push(temporality);
        self.is_monotonic.push(current.is_monotonic);
        self.start_ts.push(start);
        self.flags.push(point.flags);
        self.series_hash.push(xxhash_rust::xxh3::xxh3_64_with_seed(&set.to_le_bytes(), current.identity));
        self.has_value.push(point.value.is_some());
        self.value.push(point.value.unwrap_or(0.0));
        self.int_value.append_option(point.int_value);
        self.count.push(point.count);
        self.sum.append_option(point.sum);
        self.min.append_option(point.min);
        self.max.append_option(point.max);
        self.buckets.push(point);
        self.exemplars.push(point.exemplars);
        Ok(())
    }

    /// Checks what could not be kept as it is; returns the time of the row.
    fn check(&self, point: &Point<'_>) -> Result<RowTime, Unfit> {
        let repeated = self.common.repeated_bytes() + self.current.metadata.row_bytes();
        if self.bytes() + repeated > MAX_COLUMN_BYTES {
            return Err(Unfit::TooLarge { limit: MAX_COLUMN_BYTES });
        }
        for exemplar in point.exemplars {
            check_id::<16>("exemplar.trace_id", &exemplar.trace_id)?;
            check_id::<8>("exemplar.span_id", &exemplar.span_id)?;
            check_time("exemplar.time_unix_nano", exemplar.time_unix_nano)?;
        }
        self.common.row_time("time_unix_nano", point.time, 0)
    }
}

fn repeated_bytes(request: &ExportMetricsServiceRequest) -> usize {
    let mut bytes = 0usize;
    for group in &request.resource_metrics {
        let resource = group.resource.as_ref();
        for scope in &group.scope_metrics {
            for metric in &scope.metrics {
                let rows = metric.data.as_ref().map_or(0, points_in);
                bytes = bytes.saturating_add(repeated(&metric.metadata, rows));
                bytes = bytes.saturating_add(resource.map_or(0, |r| repeated(&r.attributes, rows)));
                bytes =
                    bytes.saturating_add(scope.scope.as_ref().map_or(0, |s| repeated(&s.attributes, rows)));
            }
        }
    }
    bytes
}

fn points_in(data: &Data) -> usize {
    match data {
        Data::Gauge(data) => data.data_points.len(),
        Data::Sum(data) => data.data_points.len(),
        Data::Histogram(data) => data.data_points.len(),
        Data::ExponentialHistogram(data) => data.data_points.len(),
        Data::Summary(data) => data.data_points.len(),
    }
}

// === impl Buckets ===

impl Buckets {
    fn new() -> Self {
        Self {
            explicit_counts: Lists::new(),
            bucket_counts: Vec::new(),
            bounds: Lists::new(),
            explicit_bounds: Vec::new(),
            scale: Vec::new(),
            zero_count: Vec::new(),
            zero_threshold: Vec::new(),
            positive_offset: Vec::new(),
            positive: Lists::new(),
            positive_counts: Vec::new(),
            negative_offset: Vec::new(),
            negative: Lists::new(),
            negative_counts: Vec::new(),
            quantile_lists: Lists::new(),
            quantiles: Vec::new(),
            quantile_values: Vec::new(),
        }
    }

    fn bytes(&self) -> usize {
        8 * (self.bucket_counts.len()
            + self.explicit_bounds.len()
            + self.positive_counts.len()
            + self.negative_counts.len()
            + self.quantiles.len() * 2)
    }

    fn push(&mut self, point: &Point<'_>) {
        self.bucket_counts.extend_from_slice(point.bucket_counts);
        self.explicit_counts.push(point.bucket_counts.len());
        self.explicit_bounds.extend_from_slice(point.explicit_bounds);
        self.bounds.push(point.explicit_bounds.len());
        self.scale.push(point.scale);
        self.zero_count.push(point.zero_count);
        self.zero_threshold.push(point.zero_threshold);
        let (offset, counts) = point.positive.map_or((0, &[][..]), |b| (b.offset, &b.bucket_counts));
        self.positive_offset.push(offset);
        self.positive_counts.extend_from_slice(counts);
        self.positive.push(counts.len());
        let (offset, counts) = point.negative.map_or((0, &[][..]), |b| (b.offset, &b.bucket_counts));
        self.negative_offset.push(offset);
        self.negative_counts.extend_from_slice(counts);
        self.negative.push(counts.len());
        self.quantiles.extend(point.quantiles.iter().map(|at| at.quantile));
        self.quantile_values.extend(point.quantiles.iter().map(|at| at.value));
        self.quantile_lists.push(point.quantiles.len());
    }

    fn finish(&mut self, batch: &mut Batch) {
        let at = self.explicit_counts.finish();
        batch.put("bucket_counts", list(&at, primitive::<UInt64Type>(&mut self.bucket_counts), false));
        let at = self.bounds.finish();
        batch.put("explicit_bounds", list(&at, primitive::<Float64Type>(&mut self.explicit_bounds), false));
        batch.put("scale", primitive::<Int32Type>(&mut self.scale));
        batch.put("zero_count", primitive::<UInt64Type>(&mut self.zero_count));
        batch.put("zero_threshold", primitive::<Float64Type>(&mut self.zero_threshold));
        batch.put("positive_offset", primitive::<Int32Type>(&mut self.positive_offset));
        let at = self.positive.finish();
        batch.put("positive_counts", list(&at, primitive::<UInt64Type>(&mut self.positive_counts), false));
        batch.put("negative_offset", primitive::<Int32Type>(&mut self.negative_offset));
        let at = self.negative.finish();
        batch.put("negative_counts", list(&at, primitive::<UInt64Type>(&mut self.negative_counts), false));
        let at = self.quantile_lists.finish();
        batch.put("quantiles", list(&at, primitive::<Float64Type>(&mut self.quantiles), false));
        batch.put("quantile_values", list(&at, primitive::<Float64Type>(&mut self.quantile_values), false));
    }
}

// === impl Exemplars ===

impl Exemplars {
    fn new() -> Self {
        Self {
            lists: Lists::new(),
            ts: Vec::new(),
            value: Vec::new(),
            int_value: Int64Builder::new(),
            trace_id: Fixed::new(),
            span_id: Fixed::new(),
            attributes: Map::new(),
            types: Text::new(),
            scratch: String::new(),
        }
    }

    fn push(&mut self, exemplars: &[Exemplar]) {
        for exemplar in exemplars {
            let (value, int_value) = match exemplar.value {
                Some(exemplar::Value::AsDouble(value)) => (value, None),
                Some(exemplar::Value::AsInt(value)) => (value as f64, Some(value)),
                // An exemplar must have a value; one without is kept for its ids.
                None => (f64::NAN, None),
            };
            self.ts.push(exemplar.time_unix_nano.cast_signed());
            self.value.push(value);
            self.int_value.append_option(int_value);
            self.trace_id.push(&exemplar.trace_id);
            self.span_id.push(&exemplar.span_id);
            self.attributes.push(&exemplar.filtered_attributes, &mut self.scratch);
            self.types.push(&self.scratch);
        }
        self.lists.push(exemplars.len());
    }

    fn finish(&mut self, batch: &mut Batch) {
        let at = self.lists.finish();
        batch.put("exemplars_ts", list(&at, nanos(&mut self.ts), false));
        batch.put("exemplars_value", list(&at, primitive::<Float64Type>(&mut self.value), false));
        batch.put("exemplars_int_value", list(&at, Arc::new(self.int_value.finish()), true));
        batch.put("exemplars_trace_id", list(&at, self.trace_id.finish(), false));
        batch.put("exemplars_span_id", list(&at, self.span_id.finish(), false));
        batch.put("exemplars_attributes", list(&at, self.attributes.finish(), false));
        batch.put("exemplars_types", list(&at, Arc::new(self.types.finish()), false));
    }
}
