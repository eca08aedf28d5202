//! Random requests through Avro and back, an independent reader and writer beside ours, and schemas that change.

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::{Reader, Schema, Writer};

use super::*;
use crate::domain::envelope::WireFormat;
use crate::wire::testing::Gen;
use crate::wire::{convert, protobuf};

const SEEDS: u64 = 300;

fn schema_text(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => include_str!("../../../proto/avro/traces.avsc"),
        Signal::Logs => include_str!("../../../proto/avro/logs.avsc"),
        Signal::Metrics => include_str!("../../../proto/avro/metrics.avsc"),
    }
}

fn each_request(mut check: impl FnMut(&str, Payload)) {
    for signal in Signal::ALL {
        for seed in 0..SEEDS {
            check(&format!("{signal} of seed {seed}"), Gen::new(seed).payload(signal));
        }
    }
}

fn read(signal: Signal, file: &[u8]) -> Payload {
    decode(signal, file, &OtlpLimits::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// A file of `value` by `schema`, written by the Avro library.
fn file_by(schema: &Schema, value: Value) -> Vec<u8> {
    let mut writer = Writer::new(schema, Vec::new()).unwrap();
    writer.append_value(value).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn a_request_comes_back_as_it_went_out() {
    each_request(|name, payload| {
        let found = read(payload.signal(), &encode(&payload));
        // By their bytes: NaN does not equal itself.
        assert_eq!(protobuf::encode(&found), protobuf::encode(&payload), "{name}");
    });
}

#[test]
fn any_avro_reader_reads_what_is_written_and_any_writer_writes_what_is_read() {
    each_request(|name, payload| {
        let (signal, file) = (payload.signal(), encode(&payload));
        let mut reader = Reader::new(&file[..]).unwrap();
        let value = reader.next().expect("one object").unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(reader.next().is_none());
        let theirs = file_by(&Schema::parse_str(schema_text(signal)).unwrap(), value);
        // Its sync marker is another, so it takes the long way.
        assert_eq!(protobuf::encode(&read(signal, &theirs)), protobuf::encode(&payload), "{name}");
    });
}

/// The schema of a build to come: members more, at several depths.
fn newer(signal: Signal) -> Schema {
    let text = schema_text(signal);
    let with = |text: &str, before: &str, member: &str| {
        assert!(text.contains(before), "{before}");
        text.replacen(before, &format!("{member},\n{before}"), 1)
    };
    let text = with(text, "{\"name\": \"keyStrindex\"", r#"{"name": "rank", "type": "int", "default": 7}"#);
    let more =
        r#"{"name": "extra", "type": ["null", {"type": "array", "items": "string"}], "default": null}"#;
    Schema::parse_str(&with(&text, "{\"name\": \"entityRefs\"", more)).unwrap()
}

/// The schema of a build that was: without some members.
fn older(signal: Signal) -> Schema {
    let drop = |text: &str, from: &str| {
        let at = text.find(from).unwrap_or_else(|| panic!("{from}"));
        let end = at + text[at..].find('\n').expect("a line");
        let before = text[..at].trim_end().trim_end_matches(',');
        format!("{before}{}", if text[..end].ends_with(',') { "," } else { "" }) + &text[end..]
    };
    let text = drop(schema_text(signal), "{\"name\": \"keyStrindex\"");
    Schema::parse_str(&drop(&text, "{\"name\": \"version\"")).unwrap()
}

fn resolved(file: &[u8], schema: &Schema) -> Value {
    Reader::new(file).unwrap().next().unwrap().unwrap().resolve(schema).unwrap()
}

#[test]
fn this_build_reads_what_a_newer_and_an_older_one_wrote() {
    each_request(|name, payload| {
        let signal = payload.signal();
        let file = encode(&payload);
        let of_newer = file_by(&newer(signal), resolved(&file, &newer(signal)));
        assert_ne!(of_newer, file);
        assert_eq!(protobuf::encode(&read(signal, &of_newer)), protobuf::encode(&payload), "{name}");
        let of_older = file_by(&older(signal), resolved(&file, &older(signal)));
        let found = read(signal, &of_older);
        assert_eq!(found.count(), payload.count(), "{name}");
        let again = read(signal, &encode(&found));
        assert_eq!(
            protobuf::encode(&again),
            protobuf::encode(&found),
            "{name}: what is missing has its default"
        );
    });
}

#[test]
fn an_older_and_a_newer_build_read_what_this_one_writes() {
    for signal in Signal::ALL {
        for seed in 0..40 {
            let payload = Gen::new(seed).payload(signal);
            for other in [newer(signal), older(signal)] {
                let value = resolved(&encode(&payload), &other);
                let bytes = apache_avro::writer::datum::GenericDatumWriter::builder(&other)
                    .build()
                    .unwrap()
                    .write_value_to_vec(value);
                let bytes = bytes.unwrap_or_else(|error| panic!("{signal} {seed}: {error}"));
                let reader = GenericDatumReader::builder(&other).build().unwrap();
                assert!(reader.read_value(&mut &bytes[..]).is_ok());
            }
        }
    }
}

#[test]
fn every_conversion_keeps_the_request_and_its_count() {
    let (limits, sent) = (OtlpLimits::default(), [WireFormat::Json, WireFormat::Otlp, WireFormat::Avro]);
    for seed in 0..40 {
        for signal in Signal::ALL {
            let payload = Gen::new(seed).payload(signal);
            for (sent, kept) in sent.into_iter().flat_map(|a| sent.map(|b| (a, b))) {
                let body = payload.encode(sent).into();
                let (converted, records) = convert(signal, sent, kept, &body, &limits).unwrap();
                let found = Payload::decode(signal, kept, &converted, &limits).unwrap();
                assert_eq!(records as usize, payload.count(), "{sent:?} to {kept:?}");
                assert_eq!(protobuf::encode(&found), protobuf::encode(&payload), "{sent:?} to {kept:?}");
            }
        }
    }
}

#[test]
fn damaged_files_are_errors() {
    let limits = OtlpLimits::default();
    let mut refused = 0;
    for seed in 0..60 {
        let mut g = Gen::new(seed);
        let signal = g.pick(&Signal::ALL);
        let file = encode(&g.payload(signal));
        for length in [0, 3, file.len() / 2, file.len() - 1] {
            assert!(decode(signal, &file[..length], &limits).is_err(), "cut at {length}");
        }
        let mut flipped = file.clone();
        let at = g.below(flipped.len());
        flipped[at] ^= 1 << g.below(8);
        // Either another request, or an error: never a panic.
        refused += usize::from(decode(signal, &flipped, &limits).is_err());
    }
    assert!(refused > 10, "{refused} of 60");
    let error = decode(Signal::Logs, b"{}", &limits).unwrap_err();
    assert!(matches!(error, WireError::Avro { .. }), "{error}");
}

#[test]
fn a_list_that_announces_more_than_is_there_costs_nothing() {
    let format = Format::of(Signal::Logs).unwrap();
    let mut object = Vec::new();
    write::long(i64::MAX, &mut object);
    let mut file = format.head.clone();
    write::long(1, &mut file);
    write::bytes(&object, &mut file);
    file.extend_from_slice(&format.sync);
    let error = decode(Signal::Logs, &file, &OtlpLimits::default()).unwrap_err();
    assert!(error.to_string().contains("longer than the bytes"), "{error}");
}
