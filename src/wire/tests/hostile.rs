//! Input made to hurt: bombs of every kind are refused at the limit, and no mutation of valid input panics.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use uuid::Uuid;

use crate::domain::envelope::{Header, SCHEMA_VERSION, WireFormat};
use crate::domain::failure::{Classified, FailureClass};
use crate::domain::scope::Scope;
use crate::domain::signal::Signal;
use crate::wire::compress::{Encoding, compress, decompress};
use crate::wire::envelope::{from_record_headers, to_record_headers};
use crate::wire::limits::OtlpLimits;
use crate::wire::testing::Gen;
use crate::wire::{Payload, WireError, json, protobuf};

/// Mutations of each kind of input in one run.
const MUTATIONS: usize = 4_000;

/// Runs on a stack of the size that tokio gives its threads by default, divided by four.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(512 << 10).spawn(work).unwrap().join().unwrap();
}

/// Builds nested protobuf from the inside out, as one reversed buffer.
struct Inward(Vec<u8>);

impl Inward {
    fn wrap(&mut self, tag: u8) {
        let mut header = vec![tag];
        prost::encoding::encode_varint(self.0.len() as u64, &mut header);
        self.0.extend(header.iter().rev());
    }

    fn bytes(mut self) -> Vec<u8> {
        self.0.reverse();
        self.0
    }
}

/// A log record whose body is `depth` lists in each other: AnyValue.array_value.values…
fn nested_lists(depth: usize) -> Vec<u8> {
    let mut inward = Inward(Vec::new());
    for _ in 1..depth {
        inward.wrap(0x0a);
        inward.wrap(0x2a);
    }
    for tag in [0x2a, 0x12, 0x12, 0x0a] {
        inward.wrap(tag);
    }
    inward.bytes()
}

/// A data point whose exemplar has an attribute of `depth` key-value lists in each other: as deep as OTLP goes.
fn nested_key_values(depth: usize) -> Vec<u8> {
    let mut inward = Inward(Vec::new());
    for _ in 1..depth {
        inward.wrap(0x12);
        inward.wrap(0x0a);
        inward.wrap(0x32);
    }
    for tag in [0x12, 0x3a, 0x2a, 0x0a, 0x2a, 0x12, 0x12, 0x0a] {
        inward.wrap(tag);
    }
    inward.bytes()
}

fn nested_json(depth: usize) -> String {
    let body = r#"{"arrayValue":{"values":["#.repeat(depth) + &"]}}".repeat(depth);
    format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{body}}}]}}]}}]}}"#)
}

fn expect_limit<T: std::fmt::Debug>(result: Result<T, WireError>, part: &str) {
    let refused = result.unwrap_err();
    assert!(matches!(refused, WireError::Limit { .. }), "{refused}");
    assert!(refused.to_string().contains(part), "{refused}");
    assert!(refused.is_too_large());
    assert_eq!(refused.class(), FailureClass::Poison);
}

#[test]
fn values_nested_a_hundred_thousand_deep_are_refused() {
    on_a_small_stack(|| {
        let limits = OtlpLimits::default();
        let deep = "nested deeper than 30 levels";
        expect_limit(protobuf::walk(Signal::Logs, &nested_lists(100_000), &limits), deep);
        expect_limit(protobuf::to_json(Signal::Logs, &nested_lists(100_000), &limits), deep);
        expect_limit(protobuf::decode(Signal::Metrics, &nested_key_values(100_000), &limits), deep);
        expect_limit(json::decode(Signal::Logs, nested_json(100_000).as_bytes(), &limits), deep);
        let unknown = format!("{{\"new\":{}", "{\"a\":[".repeat(100_000));
        expect_limit(json::decode(Signal::Logs, unknown.as_bytes(), &limits), "deeper than 64 levels");
    });
}

#[test]
fn values_as_deep_as_allowed_pass_everywhere() {
    on_a_small_stack(|| {
        let limits = OtlpLimits::default();
        let depth = limits.max_value_depth as usize;
        for (signal, nest) in [
            (Signal::Logs, nested_lists as fn(usize) -> Vec<u8>),
            (Signal::Metrics, nested_key_values as fn(usize) -> Vec<u8>),
        ] {
            let decoded = protobuf::decode(signal, &nest(depth), &limits).unwrap();
            let (json, _) = protobuf::to_json(signal, &nest(depth), &limits).unwrap();
            assert_eq!(json::decode(signal, &json, &limits).unwrap(), decoded);
            assert!(protobuf::walk(signal, &nest(depth + 1), &limits).is_err());
        }
        assert!(json::decode(Signal::Logs, nested_json(depth - 1).as_bytes(), &limits).is_ok());
        assert!(json::decode(Signal::Logs, nested_json(depth + 1).as_bytes(), &limits).is_err());
    });
}

/// A request with one span whose bytes are `span`.
fn one_span(span: Vec<u8>) -> Vec<u8> {
    let mut inward = Inward(span.into_iter().rev().collect());
    for tag in [0x12, 0x12, 0x0a] {
        inward.wrap(tag);
    }
    inward.bytes()
}

#[test]
fn floods_of_small_things_are_refused() {
    let limits = OtlpLimits::default();
    let attributes = one_span([0x4a, 0].repeat(1_000_000));
    expect_limit(protobuf::walk(Signal::Traces, &attributes, &limits), "more than 2048 attributes");
    let events = one_span([0x5a, 0].repeat(5_000_000));
    expect_limit(protobuf::walk(Signal::Traces, &events, &limits), "once decoded");
    let mut spans = Inward([0x12, 0].repeat(1_000_000).into_iter().rev().collect());
    spans.wrap(0x12);
    spans.wrap(0x0a);
    expect_limit(protobuf::walk(Signal::Traces, &spans.bytes(), &limits), "more than 262144 records");

    let span = |members: String| {
        format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{members}}}]}}]}}]}}"#).into_bytes()
    };
    let attributes = span(format!("\"attributes\":[{}{{}}]", "{},".repeat(1_000_000)));
    expect_limit(json::decode(Signal::Traces, &attributes, &limits), "more than 2048 attributes");
    let events = span(format!("\"events\":[{}{{}}]", "{},".repeat(5_000_000)));
    expect_limit(json::decode(Signal::Traces, &events, &limits), "once decoded");
    let spans = span(format!("}}{},{{", ",{}".repeat(1_000_000)));
    expect_limit(json::decode(Signal::Traces, &spans, &limits), "more than 262144 records");
}

#[test]
fn long_keys_and_values_are_refused_with_their_path() {
    let limits = OtlpLimits { max_key_bytes: 8, max_value_bytes: 16, ..OtlpLimits::default() };
    let request = |key: &str, value: &str| {
        let pair = format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#);
        format!(r#"{{"resourceLogs":[{{"resource":{{"attributes":[{pair}]}}}}]}}"#)
    };
    let fits = request("12345678", "1234567890123456");
    let fits = json::decode(Signal::Logs, fits.as_bytes(), &limits).unwrap();
    assert!(protobuf::walk(Signal::Logs, &protobuf::encode(&fits), &limits).is_ok());
    for (key, value, member, len) in [
        ("123456789", "", "key: a key of 9", 9),
        ("k", "12345678901234567", "value.stringValue: a value of 17", 17),
    ] {
        let text = request(key, value);
        expect_limit(
            json::decode(Signal::Logs, text.as_bytes(), &limits),
            &format!("attributes[0].{member} bytes"),
        );
        let loose = json::decode(Signal::Logs, text.as_bytes(), &OtlpLimits::default()).unwrap();
        expect_limit(
            protobuf::walk(Signal::Logs, &protobuf::encode(&loose), &limits),
            &format!("resourceLogs.resource.attributes.{member} bytes, the limit is {}", len - 1),
        );
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    let limits = OtlpLimits::default();
    let mut huge = vec![0x0a];
    prost::encoding::encode_varint(u64::MAX, &mut huge);
    let cases: [&[u8]; 5] = [&huge, &[0x0a, 0x7f], &[0x0a, 0x02, 0x12, 0x7f], &[0x0a, 0x80], &[0x0a; 64]];
    for bytes in cases {
        for signal in Signal::ALL {
            let refused = protobuf::decode(signal, bytes, &limits).unwrap_err();
            assert!(matches!(refused, WireError::Protobuf { .. }), "{bytes:x?}: {refused}");
        }
    }
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let given = std::env::var("OBTRACE_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let seed = given.unwrap_or(now);
    println!("replay with OBTRACE_TEST_SEED={seed}");
    seed
}

fn each_mutation(make: impl Fn(&mut Gen) -> Vec<u8>, mut check: impl FnMut(&mut Gen, Vec<u8>)) {
    let mut g = Gen::new(seed());
    for _ in 0..MUTATIONS {
        let mut bytes = make(&mut g);
        g.mutate(&mut bytes);
        check(&mut g, bytes);
    }
}

fn prost_decode(signal: Signal, bytes: &[u8]) -> Option<Payload> {
    match signal {
        Signal::Traces => ExportTraceServiceRequest::decode(bytes).ok().map(Payload::Traces),
        Signal::Logs => ExportLogsServiceRequest::decode(bytes).ok().map(Payload::Logs),
        Signal::Metrics => ExportMetricsServiceRequest::decode(bytes).ok().map(Payload::Metrics),
    }
}

/// The walk and prost agree on every mutation: what one takes the other takes (but ids of a wrong length), with the
/// same count; and the transcoder's JSON says what prost decoded.
#[test]
fn mutated_protobuf_is_refused_or_means_what_prost_says() {
    let limits = OtlpLimits::default();
    for signal in Signal::ALL {
        let (mut taken, mut refused) = (0, 0);
        each_mutation(
            |g| protobuf::encode(&g.payload(signal)),
            |_, bytes| match (protobuf::to_json(signal, &bytes, &limits), prost_decode(signal, &bytes)) {
                (Ok((json, walked)), Some(decoded)) => {
                    taken += 1;
                    assert_eq!(walked.records as usize, decoded.count(), "{bytes:x?}");
                    let read = json::decode(signal, &json, &limits).unwrap();
                    // Compared as JSON, which has one NaN where mutations make many.
                    assert_eq!(json::encode(&read), json::encode(&decoded), "{bytes:x?}");
                }
                (Err(_), None) => refused += 1,
                (Err(e), Some(_)) => assert!(e.to_string().contains(" bytes, found "), "{e}: {bytes:x?}"),
                (Ok(_), None) => panic!("prost refuses what the walk took: {bytes:x?}"),
            },
        );
        assert!(
            taken > MUTATIONS / 20 && refused > MUTATIONS / 20,
            "{signal}: {taken} taken, {refused} refused"
        );
    }
}

#[test]
fn mutated_json_is_refused_or_stays_what_it_is() {
    let limits = OtlpLimits::default();
    for signal in Signal::ALL {
        let (mut taken, mut refused) = (0, 0);
        each_mutation(
            |g| json::encode(&g.payload(signal)),
            |_, bytes| match json::decode(signal, &bytes, &limits) {
                Ok(payload) => {
                    taken += 1;
                    assert!(
                        serde_json::from_slice::<serde_json::Value>(&bytes).is_ok() || has_half_pair(&bytes)
                    );
                    let again = json::decode(signal, &json::encode(&payload), &limits).unwrap();
                    assert_eq!(protobuf::encode(&again), protobuf::encode(&payload));
                }
                Err(e) => {
                    refused += 1;
                    assert!(e.to_string().len() < 2000, "{e}");
                }
            },
        );
        assert!(taken > 20 && refused > MUTATIONS / 20, "{signal}: {taken} taken, {refused} refused");
    }
}

/// The one thing that is read here and not by `serde_json`: half a surrogate pair.
fn has_half_pair(bytes: &[u8]) -> bool {
    bytes.windows(3).any(|w| w.eq_ignore_ascii_case(b"\\ud"))
}

#[test]
fn mutated_bodies_decompress_or_do_not() {
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        each_mutation(
            |g| compress(encoding, &protobuf::encode(&g.payload(Signal::Traces))).unwrap(),
            |_, bytes| {
                if let Ok(out) = decompress(encoding, &Bytes::from(bytes), 1 << 20, 250) {
                    assert!(out.len() <= 1 << 20);
                }
            },
        );
    }
}

#[test]
fn mutated_record_headers_are_refused_or_come_back() {
    let header = Header {
        schema_version: SCHEMA_VERSION,
        format: WireFormat::Json,
        scope: Scope::new("acme", "shop", "cart", "prod").unwrap(),
        signal: Signal::Traces,
        retention_days: 7,
        received_at_ns: 1_700_000_000_000_000_000,
        batch_id: Uuid::from_u128(7),
        content_hash: u128::MAX,
        record_count: 1,
        byte_count: 2,
        attempts: 3,
        last_error: Some("timeout".to_owned()),
        trace_context: None,
    };
    let mut taken = 0;
    each_mutation(
        |_| vec![0],
        |g, _| {
            let mut headers = to_record_headers(&header);
            let (name, value) = {
                let at = g.below(headers.len());
                headers.swap_remove(at)
            };
            let mut bytes = value.to_vec();
            g.mutate(&mut bytes);
            headers.push((name, Bytes::from(bytes)));
            if let Ok(read) = from_record_headers(&headers) {
                taken += 1;
                assert_eq!(from_record_headers(&to_record_headers(&read)).unwrap(), read);
            }
        },
    );
    assert!(taken > 20);
}
