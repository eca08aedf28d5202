//! Makes export requests cheaply: batch number in, encoded protobuf out, every record unique and marked.
//!
//! What never changes (resource, scope, attribute sets) is encoded by prost once; a batch is then mostly copying, with ids,
//! times and sequence written in between. A test decodes the result with prost and holds it to the schema.

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::identity::Identity;
use super::wire::{bytes_field, fixed64_field, varint_field};
use crate::domain::signal::Signal;

/// Attribute that names the run on every record.
pub const RUN_KEY: &str = "obtrace.load.run";
/// Attribute with the sequence number of a span or log record; a data point has it as its value instead,
/// or every point would be a series of its own.
pub const SEQ_KEY: &str = "obtrace.load.seq";
/// Attribute with the batch number.
pub const BATCH_KEY: &str = "obtrace.load.batch";
/// Name of the metric the data points belong to.
pub const METRIC: &str = "obtrace.load.points";

/// Different attribute sets in a run.
const VARIANTS: u64 = 64;
/// Different services in a run, one a batch.
const SERVICES: u64 = 8;
/// Nanoseconds between neighbouring records of a batch.
pub const RECORD_SPACING_NS: u64 = 1_000;
/// Times lie between whole microseconds, so that no window of whole seconds has a record on its edge.
const OFFSET_NS: u64 = 500;

const KEYS: [&str; 11] = [
    "http.request.method",
    "http.route",
    "url.path",
    "http.response.status_code",
    "server.address",
    "client.address",
    "user_agent.original",
    "enduser.id",
    "network.protocol.version",
    "cloud.availability_zone",
    "k8s.pod.name",
];
const OPERATIONS: [&str; 8] = [
    "GET /products/{id}",
    "GET /cart",
    "POST /cart/items",
    "POST /checkout",
    "SELECT products",
    "GET cart",
    "POST /payments",
    "publish orders",
];
const SEVERITIES: [(u64, &str); 4] = [(9, "INFO"), (9, "INFO"), (13, "WARN"), (17, "ERROR")];

/// Field numbers in which the attribute lists of the three record types differ.
fn attribute_field(signal: Signal) -> u32 {
    match signal {
        Signal::Traces => 9,
        Signal::Logs => 6,
        Signal::Metrics => 7,
    }
}

/// What every record looks like.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Attributes of a record, the marks (two or three) included.
    pub attributes: usize,
    /// Bytes of each string value.
    pub attribute_bytes: usize,
}

/// Makes the batches of one run.
#[derive(Debug)]
pub struct PayloadMaker {
    identity: Identity,
    batch_size: u64,
    resources: Vec<Vec<u8>>,
    scope: Vec<u8>,
    /// Per signal, per variant: the encoded attribute fields that are the same in many records.
    attributes: [Vec<Vec<u8>>; 3],
}

impl PayloadMaker {
    /// Prepares what does not change within a run.
    pub fn new(run: &str, seed: u64, batch_size: u64, shape: Shape) -> Self {
        let resource = |n| resource(run, n).encode_to_vec();
        let scope = InstrumentationScope {
            name: "obtrace.load".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        };
        Self {
            identity: Identity::new(run, seed),
            batch_size,
            resources: (0..SERVICES).map(resource).collect(),
            scope: scope.encode_to_vec(),
            attributes: Signal::ALL.map(|s| (0..VARIANTS).map(|v| variant(run, s, v, shape)).collect()),
        }
    }

    /// Encodes batch `number` of a signal with `count` records around `base_ns` (Unix nanoseconds).
    pub fn batch(&self, signal: Signal, number: u64, count: u64, base_ns: u64) -> Bytes {
        let base_ns = base_ns - base_ns % RECORD_SPACING_NS + OFFSET_NS;
        let mut records = Vec::with_capacity(usize::try_from(count).unwrap_or(0) * 768);
        match signal {
            Signal::Traces => self.each(&mut records, number, count, |out, seq, i| {
                self.span(out, number, seq, base_ns + i * RECORD_SPACING_NS);
            }),
            Signal::Logs => self.each(&mut records, number, count, |out, seq, i| {
                self.log(out, number, seq, base_ns + i * RECORD_SPACING_NS);
            }),
            Signal::Metrics => self.metric(&mut records, number, count, base_ns),
        }
        self.wrap(number, &records)
    }

    /// Writes `count` records as field 2 of their scope list.
    fn each(
        &self,
        records: &mut Vec<u8>,
        number: u64,
        count: u64,
        mut one: impl FnMut(&mut Vec<u8>, u64, u64),
    ) {
        let mut record = Vec::with_capacity(1024);
        for i in 0..count {
            record.clear();
            one(&mut record, number * self.batch_size + i, i);
            bytes_field(records, 2, &record);
        }
    }

    /// `Export…Request { 1: Resource… { 1: resource, 2: Scope… { 1: scope, 2: records } } }`, the same for all signals.
    fn wrap(&self, number: u64, records: &[u8]) -> Bytes {
        let mut scoped = Vec::with_capacity(records.len() + 128);
        bytes_field(&mut scoped, 1, &self.scope);
        scoped.extend_from_slice(records);
        let mut resourced = Vec::with_capacity(scoped.len() + 512);
        bytes_field(&mut resourced, 1, pick::<Vec<u8>>(&self.resources, number));
        bytes_field(&mut resourced, 2, &scoped);
        let mut request = Vec::with_capacity(resourced.len() + 16);
        bytes_field(&mut request, 1, &resourced);
        request.into()
    }

    fn span(&self, out: &mut Vec<u8>, number: u64, seq: u64, time_ns: u64) {
        let hash = self.identity.hash(seq);
        // Between 0.1 ms and about 100 ms, short ones more often, as real operations are.
        let duration = 100_000_u64 << (hash >> 8 & 0x3ff).leading_zeros().saturating_sub(54).min(10);
        bytes_field(out, 1, &self.identity.trace_id(seq));
        bytes_field(out, 2, &self.identity.span_id(seq));
        if let Some(parent) = self.identity.parent_span_id(seq) {
            bytes_field(out, 4, &parent);
        }
        bytes_field(out, 5, pick::<&str>(&OPERATIONS, hash).as_bytes());
        varint_field(out, 6, 1 + hash % 3);
        fixed64_field(out, 7, time_ns);
        fixed64_field(out, 8, time_ns + duration);
        self.marks(out, Signal::Traces, hash >> 16, number, Some(seq));
        if hash.is_multiple_of(50) {
            // Status { code: ERROR }
            bytes_field(out, 15, &[0x18, 2]);
        }
    }

    fn log(&self, out: &mut Vec<u8>, number: u64, seq: u64, time_ns: u64) {
        let hash = self.identity.hash(seq);
        let (severity, text) = *pick(&SEVERITIES, hash);
        let message = format!("{} handled for request {seq} of batch {number}", pick(&OPERATIONS, hash >> 4));
        let mut body = Vec::with_capacity(message.len() + 4);
        bytes_field(&mut body, 1, message.as_bytes());
        fixed64_field(out, 1, time_ns);
        fixed64_field(out, 11, time_ns);
        varint_field(out, 2, severity);
        bytes_field(out, 3, text.as_bytes());
        bytes_field(out, 5, &body);
        self.marks(out, Signal::Logs, hash >> 16, number, Some(seq));
        bytes_field(out, 9, &self.identity.trace_id(seq));
        bytes_field(out, 10, &self.identity.span_id(seq));
    }

    /// One gauge whose points carry the sequence as value: a batch is one series, so a run does not explode the series count.
    fn metric(&self, records: &mut Vec<u8>, number: u64, count: u64, base_ns: u64) {
        let mut marks = Vec::with_capacity(1024);
        self.marks(&mut marks, Signal::Metrics, number, number, None);
        let (mut gauge, mut point) = (Vec::new(), Vec::with_capacity(1024));
        for i in 0..count {
            point.clear();
            fixed64_field(&mut point, 3, base_ns + i * RECORD_SPACING_NS);
            fixed64_field(&mut point, 6, number * self.batch_size + i);
            point.extend_from_slice(&marks);
            bytes_field(&mut gauge, 1, &point);
        }
        let mut metric = Vec::with_capacity(gauge.len() + 128);
        bytes_field(&mut metric, 1, METRIC.as_bytes());
        bytes_field(&mut metric, 2, b"Sequence numbers sent by the load generator.");
        bytes_field(&mut metric, 3, b"1");
        bytes_field(&mut metric, 5, &gauge);
        bytes_field(records, 2, &metric);
    }

    /// The attribute fields: the prepared set, then batch and sequence.
    fn marks(&self, out: &mut Vec<u8>, signal: Signal, variant: u64, number: u64, seq: Option<u64>) {
        let field = attribute_field(signal);
        if let Some(sets) = self.attributes.get(signal as usize) {
            out.extend_from_slice(pick::<Vec<u8>>(sets, variant));
        }
        int_attribute(out, field, BATCH_KEY, number);
        if let Some(seq) = seq {
            int_attribute(out, field, SEQ_KEY, seq);
        }
    }
}

/// `KeyValue { 1: key, 2: AnyValue { 3: int } }` without building the structs.
fn int_attribute(out: &mut Vec<u8>, field: u32, key: &str, value: u64) {
    let mut any = [0_u8; 16];
    let mut writer = super::wire::Small::new(&mut any);
    writer.varint_field(3, value);
    let mut pair = [0_u8; 64];
    let mut writer_pair = super::wire::Small::new(&mut pair);
    writer_pair.bytes_field(1, key.as_bytes());
    writer_pair.bytes_field(2, writer.written());
    bytes_field(out, field, writer_pair.written());
}

/// Picks by remainder; the lists here are never empty.
fn pick<T>(list: &[T], number: u64) -> &T {
    &list[usize::try_from(number % list.len() as u64).unwrap_or(0)]
}

fn resource(run: &str, number: u64) -> Resource {
    let attributes = vec![
        text("service.name", format!("load-{number}")),
        text("service.namespace", "obtrace.load".to_owned()),
        text("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        text("service.instance.id", format!("{run}-{number}")),
        text("deployment.environment.name", "load".to_owned()),
        text("host.name", format!("load-host-{}", number % 3)),
    ];
    Resource { attributes, ..Default::default() }
}

/// The encoded attribute fields of one variant, without the marks that change per record.
fn variant(run: &str, signal: Signal, number: u64, shape: Shape) -> Vec<u8> {
    let own_marks = if signal == Signal::Metrics { 2 } else { 3 };
    let mut out = Vec::new();
    for index in 0..shape.attributes.saturating_sub(own_marks) {
        let key = KEYS.get(index).map_or_else(|| format!("app.attribute.{index}"), |k| (*k).to_owned());
        let value = if key == "http.response.status_code" {
            Value::IntValue([200, 200, 201, 404, 500][usize::try_from(number % 5).unwrap_or(0)])
        } else {
            Value::StringValue(filler(number, index, shape.attribute_bytes))
        };
        bytes_field(&mut out, attribute_field(signal), &pair(key, value).encode_to_vec());
    }
    let run = pair(RUN_KEY.to_owned(), Value::StringValue(run.to_owned()));
    bytes_field(&mut out, attribute_field(signal), &run.encode_to_vec());
    out
}

/// A value of exactly `bytes` bytes, different per variant and key and not trivially compressible.
fn filler(number: u64, index: usize, bytes: usize) -> String {
    let ids = Identity::new("filler", number);
    let mut value: String = (0..bytes.div_ceil(16) as u64)
        .map(|n| format!("{:016x}", ids.hash(n + index as u64 * 1_000)))
        .collect();
    value.truncate(bytes);
    value
}

fn pair(key: String, value: Value) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn text(key: &str, value: String) -> KeyValue {
    pair(key.to_owned(), Value::StringValue(value))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};

    use super::*;

    const BASE: u64 = 1_700_000_000_000_000_000;

    fn maker(attributes: usize) -> PayloadMaker {
        PayloadMaker::new("r1", 7, 100, Shape { attributes, attribute_bytes: 20 })
    }

    fn int(attributes: &[KeyValue], key: &str) -> Option<i64> {
        let found = attributes.iter().find(|a| a.key == key)?;
        match found.value.as_ref()?.value.as_ref()? {
            Value::IntValue(number) => Some(*number),
            _ => None,
        }
    }

    #[test]
    fn spans_decode_are_marked_unique_and_form_traces() {
        let body = maker(12).batch(Signal::Traces, 3, 100, BASE);
        let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
        assert_eq!(
            request.encode_to_vec().len(),
            body.len(),
            "nothing unknown to the schema, nothing non-canonical"
        );
        let spans = &request.resource_spans[0].scope_spans[0].spans;
        let ids: HashSet<_> = spans.iter().map(|s| s.span_id.clone()).collect();
        assert_eq!((spans.len(), ids.len()), (100, 100));
        for (i, span) in spans.iter().enumerate() {
            assert_eq!(span.attributes.len(), 12);
            assert_eq!(int(&span.attributes, SEQ_KEY), Some(300 + i as i64));
            assert_eq!(int(&span.attributes, BATCH_KEY), Some(3));
            assert_eq!(span.trace_id, Identity::new("r1", 7).trace_id(300 + i as u64));
            let parent = Identity::new("r1", 7).parent_span_id(300 + i as u64);
            assert_eq!(span.parent_span_id, parent.map(|p| p.to_vec()).unwrap_or_default());
            assert!(span.start_time_unix_nano >= BASE && span.end_time_unix_nano > span.start_time_unix_nano);
            assert!(!span.name.is_empty() && (1..=3).contains(&span.kind));
        }
    }

    #[test]
    fn logs_decode_and_are_marked() {
        let body = maker(5).batch(Signal::Logs, 0, 100, BASE);
        let request = ExportLogsServiceRequest::decode(body.clone()).unwrap();
        assert_eq!(request.encode_to_vec().len(), body.len());
        let logs = &request.resource_logs[0].scope_logs[0].log_records;
        for (i, log) in logs.iter().enumerate() {
            assert_eq!(int(&log.attributes, SEQ_KEY), Some(i as i64));
            assert_eq!((log.attributes.len(), log.trace_id.len(), log.span_id.len()), (5, 16, 8));
            assert!(log.body.is_some() && log.severity_number >= 9);
        }
        assert_eq!(logs.len(), 100);
    }

    #[test]
    fn points_decode_with_the_sequence_as_value() {
        let body = maker(12).batch(Signal::Metrics, 2, 40, BASE);
        let request = ExportMetricsServiceRequest::decode(body.clone()).unwrap();
        assert_eq!(request.encode_to_vec().len(), body.len());
        let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
        let Some(metric::Data::Gauge(gauge)) = &metric.data else { panic!("no gauge") };
        assert_eq!((metric.name.as_str(), gauge.data_points.len()), (METRIC, 40));
        for (i, point) in gauge.data_points.iter().enumerate() {
            assert_eq!(point.value, Some(number_data_point::Value::AsInt(200 + i as i64)));
            assert_eq!((int(&point.attributes, BATCH_KEY), point.attributes.len()), (Some(2), 12));
        }
    }

    #[test]
    fn the_same_batch_is_the_same_bytes_and_another_run_differs() {
        let again = maker(12).batch(Signal::Traces, 3, 100, BASE);
        assert_eq!(maker(12).batch(Signal::Traces, 3, 100, BASE), again);
        let other = PayloadMaker::new("r2", 7, 100, Shape { attributes: 12, attribute_bytes: 20 });
        assert_ne!(other.batch(Signal::Traces, 3, 100, BASE), again);
    }
}
