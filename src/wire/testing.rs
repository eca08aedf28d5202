//! Random OTLP requests that use every field of every message, and damage to bytes, from a seed that replays.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::Payload;
use crate::domain::signal::Signal;

/// A generator (splitmix64) of numbers and of what can be made of them.
pub(crate) struct Gen(u64);

impl Gen {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Some bytes flipped, cut, doubled or moved.
    pub(crate) fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const BITES: [u8; 16] = *b"\x00\x7f\x80\xff\x0a{}[]\",:\\u9-";
        for _ in 0..1 + self.below(3) {
            let at = self.below(bytes.len() + 1);
            let len = self.below(9).min(bytes.len() - at);
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.pick(&BITES),
                2 => bytes.truncate(at),
                3 => bytes.insert(at, self.pick(&BITES)),
                4 => _ = bytes.drain(at..at + len),
                _ => {
                    let copy = bytes[at..at + len].to_vec();
                    let to = self.below(bytes.len() + 1);
                    bytes.splice(to..to, copy);
                }
            }
        }
    }

    fn half(&mut self) -> bool {
        self.next() & 1 == 0
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.half().then(|| make(self))
    }

    fn list<T>(&mut self, max: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(max + 1)).map(|_| make(self)).collect()
    }

    fn u64(&mut self) -> u64 {
        let special = [0, 1, u64::MAX, 1 << 53, 1_700_000_000_000_000_000];
        if self.half() { self.pick(&special) } else { self.next() >> self.below(64) }
    }

    fn i64(&mut self) -> i64 {
        if self.half() { self.pick(&[0, -1, i64::MIN, i64::MAX]) } else { self.u64() as i64 }
    }

    fn u32(&mut self) -> u32 {
        if self.half() { self.pick(&[0, 1, u32::MAX]) } else { self.next() as u32 }
    }

    fn i32(&mut self) -> i32 {
        if self.half() { self.pick(&[0, -1, i32::MIN, i32::MAX, 5]) } else { self.next() as i32 }
    }

    /// A double without -0: a proto3 field without presence loses its sign, which is prost's matter.
    fn double(&mut self) -> f64 {
        let special =
            [0.0, 1.0, -1.5, 0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN, 5e-324, 1e21];
        if self.half() {
            return self.pick(&special);
        }
        let any = f64::from_bits(self.next());
        if any.is_nan() || any == 0.0 { 2.5 } else { any }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn trace_id(&mut self) -> Vec<u8> {
        let len = self.pick(&[0, 16, 16]);
        self.bytes(len)
    }

    fn span_id(&mut self) -> Vec<u8> {
        let len = self.pick(&[0, 8, 8]);
        self.bytes(len)
    }

    fn text(&mut self) -> String {
        let parts = [
            "",
            "GET /cart",
            "\"",
            "\\",
            "\n\t\r",
            "\u{0}\u{1f}",
            "ä€🦀",
            "\u{2028}",
            "service.name",
            "null",
        ];
        (0..self.below(4)).map(|_| self.pick(&parts)).collect()
    }

    fn pairs(&mut self, depth: usize) -> Vec<KeyValue> {
        self.list(3, |g| KeyValue {
            key: g.text(),
            value: g.maybe(|g| g.any(depth)),
            key_strindex: g.pick(&[0, 0, 0, 7]),
        })
    }

    fn any(&mut self, depth: usize) -> AnyValue {
        let kinds = if depth == 0 { 7 } else { 9 };
        let value = match self.below(kinds) {
            0 => None,
            1 => Some(Value::StringValue(self.text())),
            2 => Some(Value::BoolValue(self.half())),
            3 => Some(Value::IntValue(self.i64())),
            4 => Some(Value::DoubleValue(self.double())),
            5 => {
                let len = self.below(5);
                Some(Value::BytesValue(self.bytes(len)))
            }
            6 => Some(Value::StringValueStrindex(self.i32())),
            7 => Some(Value::ArrayValue(ArrayValue { values: self.list(3, |g| g.any(depth - 1)) })),
            _ => Some(Value::KvlistValue(KeyValueList { values: self.pairs(depth - 1) })),
        };
        AnyValue { value }
    }

    fn resource(&mut self) -> Resource {
        let entity = |g: &mut Self| EntityRef {
            schema_url: g.text(),
            r#type: g.text(),
            id_keys: g.list(2, Self::text),
            description_keys: g.list(2, Self::text),
        };
        Resource {
            attributes: self.pairs(2),
            dropped_attributes_count: self.u32(),
            entity_refs: self.list(1, entity),
        }
    }

    fn scope(&mut self) -> InstrumentationScope {
        InstrumentationScope {
            name: self.text(),
            version: self.text(),
            attributes: self.pairs(1),
            dropped_attributes_count: self.u32(),
        }
    }

    fn span(&mut self) -> Span {
        Span {
            trace_id: self.trace_id(),
            span_id: self.span_id(),
            trace_state: self.text(),
            parent_span_id: self.span_id(),
            flags: self.u32(),
            name: self.text(),
            kind: self.i32(),
            start_time_unix_nano: self.u64(),
            end_time_unix_nano: self.u64(),
            attributes: self.pairs(3),
            dropped_attributes_count: self.u32(),
            events: self.list(2, Self::event),
            dropped_events_count: self.u32(),
            links: self.list(2, Self::link),
            dropped_links_count: self.u32(),
            status: self.maybe(|g| Status { message: g.text(), code: g.i32() }),
        }
    }

    fn event(&mut self) -> Event {
        Event {
            time_unix_nano: self.u64(),
            name: self.text(),
            attributes: self.pairs(1),
            dropped_attributes_count: self.u32(),
        }
    }

    fn link(&mut self) -> Link {
        Link {
            trace_id: self.trace_id(),
            span_id: self.span_id(),
            trace_state: self.text(),
            attributes: self.pairs(1),
            dropped_attributes_count: self.u32(),
            flags: self.u32(),
        }
    }

    fn log(&mut self) -> LogRecord {
        LogRecord {
            time_unix_nano: self.u64(),
            observed_time_unix_nano: self.u64(),
            severity_number: self.i32(),
            severity_text: self.text(),
            body: self.maybe(|g| g.any(4)),
            attributes: self.pairs(2),
            dropped_attributes_count: self.u32(),
            flags: self.u32(),
            trace_id: self.trace_id(),
            span_id: self.span_id(),
            event_name: self.text(),
        }
    }

    fn exemplar(&mut self) -> Exemplar {
        let value = match self.below(3) {
            0 => None,
            1 => Some(exemplar::Value::AsDouble(self.double())),
            _ => Some(exemplar::Value::AsInt(self.i64())),
        };
        Exemplar {
            filtered_attributes: self.pairs(1),
            time_unix_nano: self.u64(),
            span_id: self.span_id(),
            trace_id: self.trace_id(),
            value,
        }
    }

    fn number(&mut self) -> NumberDataPoint {
        let value = match self.below(3) {
            0 => None,
            1 => Some(number_data_point::Value::AsDouble(self.double())),
            _ => Some(number_data_point::Value::AsInt(self.i64())),
        };
        NumberDataPoint {
            attributes: self.pairs(1),
            start_time_unix_nano: self.u64(),
            time_unix_nano: self.u64(),
            exemplars: self.list(2, Self::exemplar),
            flags: self.u32(),
            value,
        }
    }

    fn histogram(&mut self) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes: self.pairs(1),
            start_time_unix_nano: self.u64(),
            time_unix_nano: self.u64(),
            count: self.u64(),
            sum: self.maybe(Self::double),
            bucket_counts: self.list(4, Self::u64),
            explicit_bounds: self.list(4, Self::double),
            exemplars: self.list(2, Self::exemplar),
            flags: self.u32(),
            min: self.maybe(Self::double),
            max: self.maybe(Self::double),
        }
    }

    fn exponential(&mut self) -> ExponentialHistogramDataPoint {
        let buckets = |g: &mut Self| Buckets { offset: g.i32(), bucket_counts: g.list(4, Self::u64) };
        ExponentialHistogramDataPoint {
            attributes: self.pairs(1),
            start_time_unix_nano: self.u64(),
            time_unix_nano: self.u64(),
            count: self.u64(),
            sum: self.maybe(Self::double),
            scale: self.i32(),
            zero_count: self.u64(),
            positive: self.maybe(buckets),
            negative: self.maybe(buckets),
            flags: self.u32(),
            exemplars: self.list(1, Self::exemplar),
            min: self.maybe(Self::double),
            max: self.maybe(Self::double),
            zero_threshold: self.double(),
        }
    }

    fn summary(&mut self) -> SummaryDataPoint {
        let quantile = |g: &mut Self| ValueAtQuantile { quantile: g.double(), value: g.double() };
        SummaryDataPoint {
            attributes: self.pairs(1),
            start_time_unix_nano: self.u64(),
            time_unix_nano: self.u64(),
            count: self.u64(),
            sum: self.double(),
            quantile_values: self.list(3, quantile),
            flags: self.u32(),
        }
    }

    fn metric(&mut self) -> Metric {
        let data = match self.below(6) {
            0 => None,
            1 => Some(Data::Gauge(Gauge { data_points: self.list(3, Self::number) })),
            2 => Some(Data::Sum(Sum {
                data_points: self.list(3, Self::number),
                aggregation_temporality: self.i32(),
                is_monotonic: self.half(),
            })),
            3 => Some(Data::Histogram(Histogram {
                data_points: self.list(3, Self::histogram),
                aggregation_temporality: self.i32(),
            })),
            4 => Some(Data::ExponentialHistogram(ExponentialHistogram {
                data_points: self.list(3, Self::exponential),
                aggregation_temporality: self.i32(),
            })),
            _ => Some(Data::Summary(Summary { data_points: self.list(3, Self::summary) })),
        };
        Metric {
            name: self.text(),
            description: self.text(),
            unit: self.text(),
            metadata: self.pairs(1),
            data,
        }
    }

    /// A request of `signal`.
    pub(crate) fn payload(&mut self, signal: Signal) -> Payload {
        match signal {
            Signal::Traces => Payload::Traces(ExportTraceServiceRequest {
                resource_spans: self.list(2, |g| ResourceSpans {
                    resource: g.maybe(Self::resource),
                    scope_spans: g.list(2, |g| ScopeSpans {
                        scope: g.maybe(Self::scope),
                        spans: g.list(3, Self::span),
                        schema_url: g.text(),
                    }),
                    schema_url: g.text(),
                }),
            }),
            Signal::Logs => Payload::Logs(ExportLogsServiceRequest {
                resource_logs: self.list(2, |g| ResourceLogs {
                    resource: g.maybe(Self::resource),
                    scope_logs: g.list(2, |g| ScopeLogs {
                        scope: g.maybe(Self::scope),
                        log_records: g.list(3, Self::log),
                        schema_url: g.text(),
                    }),
                    schema_url: g.text(),
                }),
            }),
            Signal::Metrics => Payload::Metrics(ExportMetricsServiceRequest {
                resource_metrics: self.list(2, |g| ResourceMetrics {
                    resource: g.maybe(Self::resource),
                    scope_metrics: g.list(2, |g| ScopeMetrics {
                        scope: g.maybe(Self::scope),
                        metrics: g.list(4, Self::metric),
                        schema_url: g.text(),
                    }),
                    schema_url: g.text(),
                }),
            }),
        }
    }
}
