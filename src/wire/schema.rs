//! The tables of all OTLP messages: for each field its name, kind and tag. All codecs come from these.

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyChoice;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::metrics::v1::exemplar::Value as ExemplarChoice;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as NumberChoice;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::avro::{self, Kind};
use super::fault::Fault;
use super::json::reader::Reader;
use super::limits::Budget;
use super::protobuf::cursor::Wire;
use super::table::{self, Order, Walked, table};
use super::value::{
    Any, Blob, Bool, Double, Enum, Fixed32, Fixed64, Id, Int32, Int64, Key, Msg, Pair, Record, SFixed64,
    SInt32, Text, UInt32, UInt64, Value,
};

type TraceId = Id<16>;
type SpanId = Id<8>;

// === common ===

table!(AnyValue {
    => value: AnyChoice {
        StringValue: Text = 1, "stringValue", "string_value";
        BoolValue: Bool = 2, "boolValue", "bool_value";
        IntValue: Int64 = 3, "intValue", "int_value";
        DoubleValue: Double = 4, "doubleValue", "double_value";
        ArrayValue: Msg<ArrayValue> = 5, "arrayValue", "array_value";
        KvlistValue: Msg<KeyValueList> = 6, "kvlistValue", "kvlist_value";
        BytesValue: Blob = 7, "bytesValue", "bytes_value";
        StringValueStrindex: Int32 = 8, "stringValueStrindex", "string_value_strindex";
    }
});

table!(ArrayValue {
    many values: Any = 1, "values";
});

table!(KeyValueList {
    many values: Pair = 1, "values";
});

table!(KeyValue {
    one key: Key = 1, "key";
    opt value: Any = 2, "value";
    one key_strindex: Int32 = 3, "keyStrindex";
});

table!(InstrumentationScope {
    one name: Text = 1, "name";
    one version: Text = 2, "version";
    many attributes: Pair = 3, "attributes";
    one dropped_attributes_count: UInt32 = 4, "droppedAttributesCount";
});

table!(EntityRef {
    one schema_url: Text = 1, "schemaUrl";
    one r#type: Text = 2, "type";
    many id_keys: Text = 3, "idKeys";
    many description_keys: Text = 4, "descriptionKeys";
});

table!(Resource {
    many attributes: Pair = 1, "attributes";
    one dropped_attributes_count: UInt32 = 2, "droppedAttributesCount";
    many entity_refs: Msg<EntityRef> = 3, "entityRefs";
});

// === traces ===

table!(ExportTraceServiceRequest {
    many resource_spans: Msg<ResourceSpans> = 1, "resourceSpans";
});

table!(ResourceSpans {
    opt resource: Msg<Resource> = 1, "resource";
    many scope_spans: Msg<ScopeSpans> = 2, "scopeSpans";
    one schema_url: Text = 3, "schemaUrl";
});

table!(ScopeSpans {
    opt scope: Msg<InstrumentationScope> = 1, "scope";
    many spans: Record<Span> = 2, "spans";
    one schema_url: Text = 3, "schemaUrl";
});

table!(Span {
    one trace_id: TraceId = 1, "traceId";
    one span_id: SpanId = 2, "spanId";
    one trace_state: Text = 3, "traceState";
    one parent_span_id: SpanId = 4, "parentSpanId";
    one name: Text = 5, "name";
    one kind: Enum<SpanKind> = 6, "kind";
    one start_time_unix_nano: Fixed64 = 7, "startTimeUnixNano";
    one end_time_unix_nano: Fixed64 = 8, "endTimeUnixNano";
    many attributes: Pair = 9, "attributes";
    one dropped_attributes_count: UInt32 = 10, "droppedAttributesCount";
    many events: Msg<Event> = 11, "events";
    one dropped_events_count: UInt32 = 12, "droppedEventsCount";
    many links: Msg<Link> = 13, "links";
    one dropped_links_count: UInt32 = 14, "droppedLinksCount";
    opt status: Msg<Status> = 15, "status";
    one flags: Fixed32 = 16, "flags";
});

table!(Event {
    one time_unix_nano: Fixed64 = 1, "timeUnixNano";
    one name: Text = 2, "name";
    many attributes: Pair = 3, "attributes";
    one dropped_attributes_count: UInt32 = 4, "droppedAttributesCount";
});

table!(Link {
    one trace_id: TraceId = 1, "traceId";
    one span_id: SpanId = 2, "spanId";
    one trace_state: Text = 3, "traceState";
    many attributes: Pair = 4, "attributes";
    one dropped_attributes_count: UInt32 = 5, "droppedAttributesCount";
    one flags: Fixed32 = 6, "flags";
});

table!(Status {
    one message: Text = 2, "message";
    one code: Enum<StatusCode> = 3, "code";
});

// === logs ===

table!(ExportLogsServiceRequest {
    many resource_logs: Msg<ResourceLogs> = 1, "resourceLogs";
});

table!(ResourceLogs {
    opt resource: Msg<Resource> = 1, "resource";
    many scope_logs: Msg<ScopeLogs> = 2, "scopeLogs";
    one schema_url: Text = 3, "schemaUrl";
});

table!(ScopeLogs {
    opt scope: Msg<InstrumentationScope> = 1, "scope";
    many log_records: Record<LogRecord> = 2, "logRecords";
    one schema_url: Text = 3, "schemaUrl";
});

table!(LogRecord {
    one time_unix_nano: Fixed64 = 1, "timeUnixNano";
    one severity_number: Enum<SeverityNumber> = 2, "severityNumber";
    one severity_text: Text = 3, "severityText";
    opt body: Any = 5, "body";
    many attributes: Pair = 6, "attributes";
    one dropped_attributes_count: UInt32 = 7, "droppedAttributesCount";
    one flags: Fixed32 = 8, "flags";
    one trace_id: TraceId = 9, "traceId";
    one span_id: SpanId = 10, "spanId";
    one observed_time_unix_nano: Fixed64 = 11, "observedTimeUnixNano";
    one event_name: Text = 12, "eventName";
});

// === metrics ===

table!(ExportMetricsServiceRequest {
    many resource_metrics: Msg<ResourceMetrics> = 1, "resourceMetrics";
});

table!(ResourceMetrics {
    opt resource: Msg<Resource> = 1, "resource";
    many scope_metrics: Msg<ScopeMetrics> = 2, "scopeMetrics";
    one schema_url: Text = 3, "schemaUrl";
});

table!(ScopeMetrics {
    opt scope: Msg<InstrumentationScope> = 1, "scope";
    many metrics: Msg<Metric> = 2, "metrics";
    one schema_url: Text = 3, "schemaUrl";
});

table!(Metric {
    one name: Text = 1, "name";
    one description: Text = 2, "description";
    one unit: Text = 3, "unit";
    => data: Data {
        Gauge: Msg<Gauge> = 5, "gauge", "gauge";
        Sum: Msg<Sum> = 7, "sum", "sum";
        Histogram: Msg<Histogram> = 9, "histogram", "histogram";
        ExponentialHistogram: Msg<ExponentialHistogram> = 10, "exponentialHistogram", "exponential_histogram";
        Summary: Msg<Summary> = 11, "summary", "summary";
    }
    then {
        many metadata: Pair = 12, "metadata";
    }
});

table!(Gauge {
    many data_points: Record<NumberDataPoint> = 1, "dataPoints";
});

table!(Sum {
    many data_points: Record<NumberDataPoint> = 1, "dataPoints";
    one aggregation_temporality: Enum<AggregationTemporality> = 2, "aggregationTemporality";
    one is_monotonic: Bool = 3, "isMonotonic";
});

table!(Histogram {
    many data_points: Record<HistogramDataPoint> = 1, "dataPoints";
    one aggregation_temporality: Enum<AggregationTemporality> = 2, "aggregationTemporality";
});

table!(ExponentialHistogram {
    many data_points: Record<ExponentialHistogramDataPoint> = 1, "dataPoints";
    one aggregation_temporality: Enum<AggregationTemporality> = 2, "aggregationTemporality";
});

table!(Summary {
    many data_points: Record<SummaryDataPoint> = 1, "dataPoints";
});

table!(NumberDataPoint {
    one start_time_unix_nano: Fixed64 = 2, "startTimeUnixNano";
    one time_unix_nano: Fixed64 = 3, "timeUnixNano";
    => value: NumberChoice {
        AsDouble: Double = 4, "asDouble", "as_double";
        AsInt: SFixed64 = 6, "asInt", "as_int";
    }
    then {
        many exemplars: Msg<Exemplar> = 5, "exemplars";
        many attributes: Pair = 7, "attributes";
        one flags: UInt32 = 8, "flags";
    }
});

table!(HistogramDataPoint {
    one start_time_unix_nano: Fixed64 = 2, "startTimeUnixNano";
    one time_unix_nano: Fixed64 = 3, "timeUnixNano";
    one count: Fixed64 = 4, "count";
    opt sum: Double = 5, "sum";
    many bucket_counts: Fixed64 = 6, "bucketCounts";
    many explicit_bounds: Double = 7, "explicitBounds";
    many exemplars: Msg<Exemplar> = 8, "exemplars";
    many attributes: Pair = 9, "attributes";
    one flags: UInt32 = 10, "flags";
    opt min: Double = 11, "min";
    opt max: Double = 12, "max";
});

table!(ExponentialHistogramDataPoint {
    many attributes: Pair = 1, "attributes";
    one start_time_unix_nano: Fixed64 = 2, "startTimeUnixNano";
    one time_unix_nano: Fixed64 = 3, "timeUnixNano";
    one count: Fixed64 = 4, "count";
    opt sum: Double = 5, "sum";
    one scale: SInt32 = 6, "scale";
    one zero_count: Fixed64 = 7, "zeroCount";
    opt positive: Msg<Buckets> = 8, "positive";
    opt negative: Msg<Buckets> = 9, "negative";
    one flags: UInt32 = 10, "flags";
    many exemplars: Msg<Exemplar> = 11, "exemplars";
    opt min: Double = 12, "min";
    opt max: Double = 13, "max";
    one zero_threshold: Double = 14, "zeroThreshold";
});

table!(Buckets {
    one offset: SInt32 = 1, "offset";
    many bucket_counts: UInt64 = 2, "bucketCounts";
});

table!(SummaryDataPoint {
    one start_time_unix_nano: Fixed64 = 2, "startTimeUnixNano";
    one time_unix_nano: Fixed64 = 3, "timeUnixNano";
    one count: Fixed64 = 4, "count";
    one sum: Double = 5, "sum";
    many quantile_values: Msg<ValueAtQuantile> = 6, "quantileValues";
    many attributes: Pair = 7, "attributes";
    one flags: UInt32 = 8, "flags";
});

table!(ValueAtQuantile {
    one quantile: Double = 1, "quantile";
    one value: Double = 2, "value";
});

table!(Exemplar {
    one time_unix_nano: Fixed64 = 2, "timeUnixNano";
    => value: ExemplarChoice {
        AsDouble: Double = 3, "asDouble", "as_double";
        AsInt: SFixed64 = 6, "asInt", "as_int";
    }
    then {
        one span_id: SpanId = 4, "spanId";
        one trace_id: TraceId = 5, "traceId";
        many filtered_attributes: Pair = 7, "filteredAttributes";
    }
});

// === responses ===

table!(ExportTraceServiceResponse {
    opt partial_success: Msg<ExportTracePartialSuccess> = 1, "partialSuccess";
});

table!(ExportTracePartialSuccess {
    one rejected_spans: Int64 = 1, "rejectedSpans";
    one error_message: Text = 2, "errorMessage";
});

table!(ExportLogsServiceResponse {
    opt partial_success: Msg<ExportLogsPartialSuccess> = 1, "partialSuccess";
});

table!(ExportLogsPartialSuccess {
    one rejected_log_records: Int64 = 1, "rejectedLogRecords";
    one error_message: Text = 2, "errorMessage";
});

table!(ExportMetricsServiceResponse {
    opt partial_success: Msg<ExportMetricsPartialSuccess> = 1, "partialSuccess";
});

table!(ExportMetricsPartialSuccess {
    one rejected_data_points: Int64 = 1, "rejectedDataPoints";
    one error_message: Text = 2, "errorMessage";
});
