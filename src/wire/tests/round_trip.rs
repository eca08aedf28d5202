//! Random requests through every codec and back.

use bytes::Bytes;

use crate::domain::envelope::WireFormat;
use crate::domain::signal::Signal;
use crate::wire::limits::OtlpLimits;
use crate::wire::testing::Gen;
use crate::wire::{Payload, convert, json, protobuf};

const SEEDS: u64 = 400;

fn each_request(mut check: impl FnMut(&str, Payload)) {
    for signal in Signal::ALL {
        for seed in 0..SEEDS {
            check(&format!("{signal} of seed {seed}"), Gen::new(seed).payload(signal));
        }
    }
}

fn text(json: &[u8]) -> &str {
    std::str::from_utf8(json).unwrap()
}

#[test]
fn json_comes_back_as_it_went_out() {
    let limits = OtlpLimits::default();
    each_request(|name, payload| {
        let written = json::encode(&payload);
        let read =
            json::decode(payload.signal(), &written, &limits).unwrap_or_else(|e| panic!("{name}: {e}"));
        // By their bytes: NaN does not equal itself.
        assert_eq!(protobuf::encode(&read), protobuf::encode(&payload), "{name}: {}", text(&written));
    });
}

#[test]
fn what_is_written_is_json() {
    each_request(|name, payload| {
        let written = json::encode(&payload);
        let parsed: Result<serde_json::Value, _> = serde_json::from_slice(&written);
        assert!(parsed.is_ok(), "{name}: {}", text(&written));
    });
}

#[test]
fn the_walk_counts_what_prost_decodes() {
    let limits = OtlpLimits::default();
    let mut records = 0;
    each_request(|name, payload| {
        let bytes = protobuf::encode(&payload);
        let walked =
            protobuf::walk(payload.signal(), &bytes, &limits).unwrap_or_else(|e| panic!("{name}: {e}"));
        let decoded = protobuf::decode(payload.signal(), &bytes, &limits).unwrap();
        assert_eq!(walked.records as usize, decoded.count(), "{name}");
        records += decoded.count();
    });
    assert!(records > 1000, "{records} records are too few to say anything");
}

#[test]
fn transcoding_gives_what_decoding_and_encoding_gives() {
    let limits = OtlpLimits::default();
    each_request(|name, payload| {
        let bytes = protobuf::encode(&payload);
        let (json, _) = protobuf::to_json(payload.signal(), &bytes, &limits).unwrap();
        assert_eq!(text(&json), text(&json::encode(&payload)), "{name}");
    });
}

#[test]
fn every_conversion_keeps_the_request_and_its_count() {
    let limits = OtlpLimits::default();
    let formats = [WireFormat::Json, WireFormat::Otlp];
    each_request(|name, payload| {
        let signal = payload.signal();
        for (sent, kept) in formats.into_iter().flat_map(|sent| formats.map(|kept| (sent, kept))) {
            let body = Bytes::from(payload.encode(sent));
            let (converted, records) = convert(signal, sent, kept, &body, &limits).unwrap();
            let read = Payload::decode(signal, kept, &converted, &limits).unwrap();
            assert_eq!(records as usize, payload.count(), "{name}: {sent:?} to {kept:?}");
            assert_eq!(protobuf::encode(&read), protobuf::encode(&payload), "{name}: {sent:?} to {kept:?}");
        }
    });
}

/// A list in two parts, a message in two parts, a oneof set twice: valid protobuf that no SDK writes.
#[test]
fn fields_in_any_order_mean_what_prost_makes_of_them() {
    let limits = OtlpLimits::default();
    for seed in 0..SEEDS {
        let mut g = Gen::new(seed);
        let signal = g.pick(&Signal::ALL);
        let mut parts: Vec<Vec<u8>> =
            (0..3).map(|_| body_of_first(&protobuf::encode(&g.payload(signal)))).collect();
        // The three resource entries merged into one: their fields follow each other, lists and oneofs repeat.
        let merged = parts.concat();
        parts.clear();
        let mut bytes = vec![0x0a];
        push_varint(&mut bytes, merged.len());
        bytes.extend_from_slice(&merged);
        same_as_prost(signal, &bytes, &limits, seed);
    }
    // Metric { gauge of two points, then sum of one } = the sum alone.
    let metric = [0x2a, 4, 0x0a, 0, 0x0a, 0, 0x3a, 2, 0x0a, 0];
    let mut bytes = metric.to_vec();
    for tag in [0x12, 0x12, 0x0a] {
        let mut outer = vec![tag];
        push_varint(&mut outer, bytes.len());
        outer.extend_from_slice(&bytes);
        bytes = outer;
    }
    assert_eq!(protobuf::walk(Signal::Metrics, &bytes, &limits).unwrap().records, 1);
    same_as_prost(Signal::Metrics, &bytes, &limits, u64::MAX);
}

fn same_as_prost(signal: Signal, bytes: &[u8], limits: &OtlpLimits, seed: u64) {
    let decoded = protobuf::decode(signal, bytes, limits).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    let (json, walked) = protobuf::to_json(signal, bytes, limits).unwrap();
    let read = json::decode(signal, &json, limits).unwrap();
    assert_eq!(walked.records as usize, decoded.count(), "seed {seed}");
    assert_eq!(protobuf::encode(&read), protobuf::encode(&decoded), "seed {seed}: {}", text(&json));
}

/// The bytes within the first field of a request, which are those of one resource entry.
fn body_of_first(request: &[u8]) -> Vec<u8> {
    match protobuf::cursor::Cursor::new(request).field().unwrap() {
        Some((_, protobuf::cursor::Wire::Bytes(bytes))) => bytes.to_vec(),
        _ => Vec::new(),
    }
}

fn push_varint(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
