//! Random requests through Avro and back, an independent reader and writer beside ours, schemas that change, and input made
//! to hurt.

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::{Reader, Schema, Writer};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::domain::envelope::WireFormat;
use crate::wire::testing::Gen;
use crate::wire::{convert, json, protobuf};

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

/// What the Avro library reads, as OTLP/JSON by the names in the file's schema. Shares nothing with the tables. `None` where
/// a union says so.
fn as_json(name: &str, value: &Value) -> Option<String> {
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let unsigned = name.ends_with("UnixNano") || ["count", "zeroCount", "bucketCounts"].contains(&name);
    let any = matches!(value, Value::Union(..)) && ["value", "body"].contains(&name);
    Some(match value {
        Value::Union(_, value) if any => match &**value {
            Value::Null => return None,
            Value::String(text) => format!(r#"{{"stringValue":{}}}"#, quoted(text)),
            Value::Boolean(yes) => format!(r#"{{"boolValue":{yes}}}"#),
            Value::Long(number) => format!(r#"{{"intValue":"{number}"}}"#),
            Value::Double(_) => format!(r#"{{"doubleValue":{}}}"#, as_json("", value)?),
            Value::Bytes(bytes) => format!(r#"{{"bytesValue":"{}"}}"#, STANDARD.encode(bytes)),
            Value::Record(nested) => match &nested[0].1 {
                Value::String(json) => json.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        },
        Value::Union(_, value) => return as_json(name, value),
        Value::Null => return None,
        Value::Record(members) => {
            let member =
                |(name, value): &(String, Value)| Some(format!("\"{name}\":{}", as_json(name, value)?));
            format!("{{{}}}", members.iter().filter_map(member).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            let items = items.iter().filter_map(|item| as_json(name, item));
            format!("[{}]", items.collect::<Vec<_>>().join(","))
        }
        Value::String(text) => quoted(text),
        Value::Bytes(id) => quoted(&id.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        Value::Boolean(yes) => yes.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Long(number) if unsigned => quoted(&(*number as u64).to_string()),
        Value::Long(number) => quoted(&number.to_string()),
        Value::Double(number) if number.is_infinite() => {
            quoted(if *number > 0.0 { "Infinity" } else { "-Infinity" })
        }
        Value::Double(number) => quoted(&format!("{number:?}")),
        other => panic!("{name}: {other:?}"),
    })
}

#[test]
fn the_members_that_the_schema_names_are_those_that_json_names() {
    each_request(|name, payload| {
        let value = Reader::new(&encode(&payload)[..]).unwrap().next().unwrap().unwrap();
        let text = as_json("", &value).unwrap();
        let found = json::decode(payload.signal(), text.as_bytes(), &OtlpLimits::default());
        let found = found.unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
        assert_eq!(protobuf::encode(&found), protobuf::encode(&payload), "{name}: {text}");
    });
}

#[test]
fn limits_refuse_what_they_refuse_in_json_and_say_the_same() {
    let with = |set: fn(&mut OtlpLimits)| {
        let mut limits = OtlpLimits::default();
        set(&mut limits);
        limits
    };
    let tight = [
        with(|limits| limits.max_records = 3),
        with(|limits| limits.max_attributes = 2),
        with(|limits| limits.max_key_bytes = 20),
        with(|limits| limits.max_value_bytes = 20),
        with(|limits| limits.max_value_bytes = 3),
        with(|limits| limits.max_value_depth = 1),
        with(|limits| limits.max_value_depth = 2),
        with(|limits| limits.max_decoded_bytes = 2_000),
    ];
    for limits in tight {
        let (mut taken, mut refused) = (0, 0);
        each_request(|name, payload| {
            let by_json = json::decode(payload.signal(), &json::encode(&payload), &limits);
            match (decode(payload.signal(), &encode(&payload), &limits), by_json) {
                (Ok(ours), Ok(theirs)) => {
                    taken += 1;
                    assert_eq!(protobuf::encode(&ours), protobuf::encode(&theirs), "{name}");
                }
                (ours, theirs) => {
                    refused += 1;
                    let (ours, theirs) = (ours.unwrap_err(), theirs.unwrap_err());
                    assert!(matches!(ours, WireError::Limit { .. }), "{name}: {ours}");
                    assert_eq!(ours, theirs, "{name}");
                }
            }
        });
        assert!(taken > 20 && refused > 20, "{limits:?}: {taken} taken, {refused} refused");
    }
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

/// A file whose object is `object`.
fn file_of(signal: Signal, object: &[u8]) -> Vec<u8> {
    Format::of(signal).unwrap().file(object)
}

fn refusal(signal: Signal, object: &[u8]) -> WireError {
    decode(signal, &file_of(signal, object), &OtlpLimits::default()).unwrap_err()
}

#[test]
fn damaged_objects_are_refused_or_another_request() {
    for signal in Signal::ALL {
        let (mut taken, mut refused) = (0, 0);
        for seed in 0..2_000 {
            let mut g = Gen::new(seed);
            let file = encode(&g.payload(signal));
            let limits = OtlpLimits::default();
            let mut object = Format::of(signal).unwrap().object(&file, &limits).unwrap().unwrap().to_vec();
            g.mutate(&mut object);
            match decode(signal, &file_of(signal, &object), &limits) {
                Ok(payload) => {
                    taken += 1;
                    let again = read(signal, &encode(&payload));
                    assert_eq!(protobuf::encode(&again), protobuf::encode(&payload), "seed {seed}");
                    // What is taken keeps the rules of the other readers.
                    assert!(
                        protobuf::walk(signal, &protobuf::encode(&payload), &limits).is_ok(),
                        "seed {seed}"
                    );
                }
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().len() < 2_000, "seed {seed}: {error}");
                }
            }
        }
        assert!(taken > 20 && refused > 100, "{signal}: {taken} taken, {refused} refused");
    }
}

/// A request of one log record without anything but a body: the branch of the union, then `text`.
fn log_of(branch: i64, text: &[u8]) -> Vec<u8> {
    let mut object = Vec::new();
    // One resource of one scope of one record: list, resource; list, scope; list, the two times, severity number and text.
    for number in [1, 0, 1, 0, 1, 0, 0, 0, branch] {
        write::long(number, &mut object);
    }
    write::bytes(text, &mut object);
    // No attributes, dropped count, flags, ids, observed time, event name; end of records, the scope's schema; the same out.
    object.extend_from_slice(&[0; 12]);
    object
}

#[test]
fn nested_values_are_read_within_the_limits() {
    let body = |object: &[u8]| match read(Signal::Logs, &file_of(Signal::Logs, object)) {
        Payload::Logs(mut request) => {
            request.resource_logs.remove(0).scope_logs.remove(0).log_records.remove(0).body
        }
        other => panic!("{other:?}"),
    };
    let list =
        |depth: usize| (r#"{"arrayValue":{"values":["#.repeat(depth) + &"]}}".repeat(depth)).into_bytes();
    assert!(body(&log_of(6, &list(30))).is_some());
    assert_eq!(body(&log_of(6, br#" { "intValue" : "7" } "#)), body(&log_of(6, br#"{"intValue":7}"#)));
    assert_eq!(body(&log_of(6, b"null")), None);
    let small_stack = std::thread::Builder::new().stack_size(512 << 10).spawn(move || {
        for depth in [31, 100_000] {
            let error = refusal(Signal::Logs, &log_of(6, &list(depth)));
            assert!(matches!(error, WireError::Limit { .. }), "{error}");
            assert!(error.to_string().contains("nested deeper than 30 levels"), "{error}");
        }
    });
    small_stack.unwrap().join().unwrap();
    for (text, said) in [
        (&b"{"[..], "expected a key, found the end of the text"),
        (b"{} {}", "expected the end of the text"),
        (b"[]", "expected an object, found a list"),
        (b"\xff", "not utf-8"),
    ] {
        let error = refusal(Signal::Logs, &log_of(6, text));
        assert!(matches!(error, WireError::Avro { .. }), "{error}");
        let place = "resourceLogs[0].scopeLogs[0].logRecords[0].body: ";
        assert!(error.to_string().contains(place) && error.to_string().contains(said), "{error}");
    }
}

#[test]
fn what_means_nothing_is_refused_with_its_path() {
    let text = log_of(1, b"a");
    let body = text.len() - 15;
    assert_eq!(text[body..body + 3], [2, 2, b'a']);
    let changed = |from_body: usize, bytes: &[u8]| {
        let mut object = text.clone();
        object.splice(body + from_body..body + from_body + 1, bytes.iter().copied());
        refusal(Signal::Logs, &object).to_string()
    };
    let mut large = Vec::new();
    write::long(1 << 32, &mut large);
    for (error, said) in [
        (changed(0, &[14]), "logRecords[0].body: no branch 7"),
        (changed(0, &[4]), "logRecords[0].body: neither true nor false"),
        (changed(1, &[1]), "logRecords[0].body.stringValue: a negative length"),
        (changed(2, &[0xff]), "logRecords[0].body.stringValue: a string that is not utf-8"),
        (
            changed(4, &[1]),
            "logRecords[0].droppedAttributesCount: expected an unsigned 32-bit integer, found \"-1\"",
        ),
        (changed(4, &large), "found \"4294967296\""),
        (changed(6, &[2, 1]), "logRecords[0].traceId: expected 16 bytes, found 1"),
        (changed(14, &[0, 0]), "bytes behind the object"),
        (changed(14, &[0x80]), "resourceLogs: a varint is cut off"),
    ] {
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_list_that_announces_more_than_is_there_costs_nothing() {
    let mut object = Vec::new();
    write::long(i64::MAX, &mut object);
    let error = refusal(Signal::Logs, &object);
    assert!(error.to_string().contains("longer than the bytes"), "{error}");
    // A million empty records are a million bytes or more, each of them charged.
    let mut flood = Vec::new();
    for number in [1, 0, 1, 0, 1_000_000] {
        write::long(number, &mut flood);
    }
    flood.resize(flood.len() + 11_000_000, 0);
    let error = refusal(Signal::Logs, &flood);
    assert!(error.to_string().contains("more than 262144 records"), "{error}");
}
