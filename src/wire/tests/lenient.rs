//! The spellings of OTLP/JSON that clients use, and what is said of those that are none.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, Metric};
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::domain::signal::Signal;
use crate::wire::limits::OtlpLimits;
use crate::wire::{Payload, WireError, json};

fn decode(signal: Signal, text: &str) -> Result<Payload, WireError> {
    json::decode(signal, text.as_bytes(), &OtlpLimits::default())
}

fn span(members: &str) -> Result<Span, WireError> {
    let text = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{members}}}]}}]}}]}}"#);
    match decode(Signal::Traces, &text)? {
        Payload::Traces(mut request) => {
            Ok(request.resource_spans.remove(0).scope_spans.remove(0).spans.remove(0))
        }
        other => panic!("{other:?}"),
    }
}

fn metric(members: &str) -> Metric {
    let text = format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{{members}}}]}}]}}]}}"#);
    match decode(Signal::Metrics, &text).unwrap() {
        Payload::Metrics(mut request) => {
            request.resource_metrics.remove(0).scope_metrics.remove(0).metrics.remove(0)
        }
        other => panic!("{other:?}"),
    }
}

fn value(json: &str) -> Option<Value> {
    let mut span = span(&format!(r#""attributes":[{{"key":"k","value":{json}}}]"#)).unwrap();
    span.attributes.remove(0).value.and_then(|v| v.value)
}

fn refusal(signal: Signal, text: &str) -> String {
    decode(signal, text).unwrap_err().to_string()
}

#[test]
fn empty_requests_are_requests() {
    let empty =
        ["{}", " {\n}\t", r#"{"resourceSpans":[]}"#, r#"{"resourceSpans":null}"#, r#"{"new":[{"a":1}]}"#];
    for text in empty {
        assert_eq!(decode(Signal::Traces, text).unwrap().count(), 0, "{text}");
    }
    assert_eq!(decode(Signal::Logs, r#"{"resourceLogs":[{}]}"#).unwrap().count(), 0);
    assert_eq!(decode(Signal::Metrics, r#"{"resourceMetrics":[{"scopeMetrics":[{}]}]}"#).unwrap().count(), 0);
}

#[test]
fn null_is_the_default_of_any_member() {
    let members =
        ["traceId", "name", "kind", "startTimeUnixNano", "attributes", "events", "status", "flags", "new"];
    let nulls: Vec<String> = members.iter().map(|m| format!("\"{m}\":null")).collect();
    assert_eq!(span(&nulls.join(",")).unwrap(), Span::default());
    assert_eq!(value("null"), None);
    assert_eq!(value(r#"{"stringValue":null}"#), None);
}

#[test]
fn ids_are_hex_in_either_case() {
    let id = r#""traceId":"5B8EFFF798038103d269b633813fc60c","spanId":"EEE19B7EC3C1B174","parentSpanId":"""#;
    let span = span(id).unwrap();
    assert_eq!(span.trace_id[..3], [0x5b, 0x8e, 0xff]);
    assert_eq!(span.span_id, [0xee, 0xe1, 0x9b, 0x7e, 0xc3, 0xc1, 0xb1, 0x74]);
    assert!(span.parent_span_id.is_empty());
}

#[test]
fn integers_come_as_numbers_and_texts() {
    for spelling in ["1544712660000000000", "\"1544712660000000000\"", "1.54471266e18"] {
        let span = span(&format!(r#""startTimeUnixNano":{spelling}"#)).unwrap();
        assert_eq!(span.start_time_unix_nano, 1_544_712_660_000_000_000, "{spelling}");
    }
    assert_eq!(value(r#"{"intValue":"-42"}"#), Some(Value::IntValue(-42)));
    assert_eq!(value(r#"{"intValue":-42}"#), Some(Value::IntValue(-42)));
    assert_eq!(span(r#""droppedAttributesCount":"7""#).unwrap().dropped_attributes_count, 7);
}

#[test]
fn enums_come_as_numbers_and_names() {
    for spelling in ["2", "\"2\"", "\"SPAN_KIND_SERVER\""] {
        assert_eq!(span(&format!(r#""kind":{spelling}"#)).unwrap().kind, 2, "{spelling}");
    }
    assert_eq!(span(r#""kind":77"#).unwrap().kind, 77);
    assert_eq!(span(r#""status":{"code":"STATUS_CODE_ERROR"}"#).unwrap().status.unwrap().code, 2);
}

#[test]
fn names_come_in_both_cases_and_the_last_of_several_stands() {
    let camel =
        r#""traceState":"a","droppedEventsCount":3,"attributes":[{"key":"x","value":{"stringValue":"v"}}]"#;
    let snake = r#""trace_state":"a","dropped_events_count":3,"attributes":[{"key":"x","value":{"string_value":"v"}}]"#;
    assert_eq!(span(camel).unwrap(), span(snake).unwrap());
    let twice = r#""name":"a","links":[{},{}],"name":"b","links":[{}]"#;
    let span = span(twice).unwrap();
    assert_eq!((span.name.as_str(), span.links.len()), ("b", 1));
    assert_eq!(value(r#"{"intValue":1,"boolValue":true}"#), Some(Value::BoolValue(true)));
}

#[test]
fn keys_may_be_escaped() {
    assert_eq!(span(r#""na\u006de":"x""#).unwrap().name, "x");
}

#[test]
fn values_of_every_kind() {
    assert_eq!(value("{}"), None);
    assert_eq!(value(r#"{"stringValue":""}"#), Some(Value::StringValue(String::new())));
    for (spelling, expected) in
        [("1", 1.0), ("1.5e2", 150.0), ("\"2.5\"", 2.5), ("\"-Infinity\"", f64::NEG_INFINITY)]
    {
        assert_eq!(value(&format!(r#"{{"doubleValue":{spelling}}}"#)), Some(Value::DoubleValue(expected)));
    }
    for spelling in ["+/+/AQ==", "-_-_AQ", "+/+/AQ", "-_-_AR=="] {
        let expected = Some(Value::BytesValue(vec![0xfb, 0xff, 0xbf, 1]));
        assert_eq!(value(&format!(r#"{{"bytesValue":"{spelling}"}}"#)), expected, "{spelling}");
    }
    let Some(Value::ArrayValue(array)) = value(r#"{"arrayValue":{"values":[{"intValue":"1"},{},null]}}"#)
    else {
        panic!("not a list");
    };
    assert_eq!(array.values.len(), 3);
    let Some(Value::KvlistValue(list)) = value(r#"{"kvlistValue":{"values":[{"key":"a"}]}}"#) else {
        panic!("not a list");
    };
    assert_eq!(list.values[0].key, "a");
}

#[test]
fn metrics_of_every_kind() {
    let gauge =
        metric(r#""gauge":{"dataPoints":[{"asDouble":"NaN"},{"asInt":"5"},{"asInt":6},{"as_double":1}]}"#);
    let Some(Data::Gauge(gauge)) = gauge.data else { panic!("not a gauge") };
    assert!(matches!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(v)) if v.is_nan()));
    assert_eq!(gauge.data_points[1].value, Some(number_data_point::Value::AsInt(5)));
    assert_eq!(gauge.data_points[2].value, Some(number_data_point::Value::AsInt(6)));
    let point = r#"{"count":"2","sum":0,"bucketCounts":["1",1],"explicitBounds":[10,"20"],"min":null}"#;
    let histogram = metric(&format!(r#""histogram":{{"dataPoints":[{point}],"aggregationTemporality":2}}"#));
    let Some(Data::Histogram(histogram)) = histogram.data else { panic!("not a histogram") };
    let expected = HistogramDataPoint {
        count: 2,
        sum: Some(0.0),
        bucket_counts: vec![1, 1],
        explicit_bounds: vec![10.0, 20.0],
        ..Default::default()
    };
    assert_eq!(histogram.data_points, [expected]);
}

#[test]
fn errors_say_where_and_what() {
    let cases = [
        (
            r#""traceId":"5b8efff798038103d269b633813fc6""#,
            "spans[0].traceId: expected 32 hex digits, found 30",
        ),
        (
            r#""spanId":"zzz19b7ec3c1b174""#,
            "spans[0].spanId: expected 16 hex digits, found \"zzz19b7ec3c1b174\"",
        ),
        (r#""name":7"#, "spans[0].name: expected a string, found a number"),
        (r#""attributes":{}"#, "spans[0].attributes: expected a list, found an object"),
        (r#""attributes":[{},[]]"#, "spans[0].attributes[1]: expected an object, found a list"),
        (r#""startTimeUnixNano":-1"#, "startTimeUnixNano: expected an unsigned 64-bit integer, found \"-1\""),
        (r#""droppedLinksCount":4294967296"#, "expected an unsigned 32-bit integer, found \"4294967296\""),
        (r#""kind":"SERVER""#, "spans[0].kind: expected an enum's number or name, found \"SERVER\""),
        (r#""status":{"code":1.5}"#, "spans[0].status.code: expected an enum's number or name"),
        (r#""name":"x" "kind":1"#, "expected ',' or '}', found a string"),
    ];
    for (members, part) in cases {
        let text = span(members).unwrap_err().to_string();
        assert!(text.contains(part), "{members}: {text}");
        assert!(text.contains("resourceSpans[0].scopeSpans[0].spans[0]"), "{members}: {text}");
    }
}

#[test]
fn errors_give_line_and_column() {
    let text = "{\n  \"resourceSpans\": [\n    {\"scopeSpans\": 5}\n  ]\n}";
    let expected = "not OTLP/JSON traces: line 3 column 20: resourceSpans[0].scopeSpans: expected a list, found a number";
    assert_eq!(refusal(Signal::Traces, text), expected);
}

#[test]
fn what_is_not_json_is_refused() {
    let cases = [
        ("", "expected an object, found the end"),
        ("[]", "expected an object, found a list"),
        ("{", "expected a key, found the end"),
        ("{} x", "expected the end of the text, found 'x'"),
        ("{\"resourceLogs\":[{}", "expected ',' or ']'"),
        ("\u{feff}{}", "expected an object"),
        ("{\"a\":tru}", "a: expected true"),
        ("{\"a\":\"\u{1}\"}", "must be escaped"),
    ];
    for (text, part) in cases {
        let refused = refusal(Signal::Logs, text);
        assert!(refused.contains(part), "{text:?}: {refused}");
    }
    let not_utf8 = json::decode(Signal::Logs, b"{\"a\":\"\xff\"}", &OtlpLimits::default()).unwrap_err();
    assert_eq!(not_utf8.to_string(), "not OTLP/JSON logs: line 1 column 7: the text is not utf-8");
}
