//! OTLP/JSON as this build writes it → Avro's binary form, member by member as the shape says.
//!
//! Members that are left out get the value that their absence means. Cannot fail on what this build writes; anything else
//! would be taken for absent.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::shape::{Field, Shape};

/// Writes the value that stands in `json`, or its absence.
pub(super) fn value(shape: &Shape, json: Option<&str>, out: &mut Vec<u8>) {
    match shape {
        Shape::Text => bytes(text(json).as_bytes(), out),
        Shape::Id => bytes(&unhex(&text(json)), out),
        Shape::Bool => out.push(u8::from(json == Some("true"))),
        Shape::Small | Shape::Long => long(number(json).parse().unwrap_or(0), out),
        // The same bits.
        Shape::Unsigned => long(number(json).parse::<u64>().unwrap_or(0) as i64, out),
        Shape::Double => out.extend_from_slice(&double(json).to_le_bytes()),
        Shape::Any => any(json, out),
        Shape::Optional(inner) => match json.filter(|json| *json != "null") {
            None => long(0, out),
            Some(json) => {
                long(1, out);
                value(inner, Some(json), out);
            }
        },
        Shape::List(items) => list(items, json, out),
        Shape::Record(fields) => record(fields, json, out),
    }
}

fn record(fields: &[Field], json: Option<&str>, out: &mut Vec<u8>) {
    let members = json.map(members).unwrap_or_default();
    for field in fields {
        value(&field.shape, members.get(field.name.as_str()).map(|raw| raw.get()), out);
    }
}

fn list(items: &Shape, json: Option<&str>, out: &mut Vec<u8>) {
    let found: Vec<&RawValue> = json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    if !found.is_empty() {
        long(i64::try_from(found.len()).unwrap_or(0), out);
        found.iter().for_each(|item| value(items, Some(item.get()), out));
    }
    long(0, out);
}

/// The branches of an AnyValue. What has none of its own goes along as the text that it is.
fn any(json: Option<&str>, out: &mut Vec<u8>) {
    let Some(json) = json.filter(|json| *json != "null") else { return long(0, out) };
    let members = members(json);
    let one = members.iter().next().filter(|_| members.len() == 1);
    match one.map(|(name, raw)| (name.as_ref(), Some(raw.get()))) {
        Some(("stringValue", raw)) => {
            long(1, out);
            bytes(text(raw).as_bytes(), out);
        }
        Some(("boolValue", raw)) => {
            long(2, out);
            out.push(u8::from(raw == Some("true")));
        }
        Some(("intValue", raw)) => {
            long(3, out);
            long(number(raw).parse().unwrap_or(0), out);
        }
        Some(("doubleValue", raw)) => {
            long(4, out);
            out.extend_from_slice(&double(raw).to_le_bytes());
        }
        Some(("bytesValue", raw)) => {
            long(5, out);
            bytes(&STANDARD.decode(text(raw).as_bytes()).unwrap_or_default(), out);
        }
        _ => {
            long(6, out);
            bytes(json.as_bytes(), out);
        }
    }
}

/// A number in zigzag and base 128, as Avro writes all of them.
pub(super) fn long(number: i64, out: &mut Vec<u8>) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes behind their length.
pub(super) fn bytes(bytes: &[u8], out: &mut Vec<u8>) {
    long(i64::try_from(bytes.len()).unwrap_or(i64::MAX), out);
    out.extend_from_slice(bytes);
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn members(json: &str) -> HashMap<Cow<'_, str>, &RawValue> {
    serde_json::from_str(json).unwrap_or_default()
}

fn text(json: Option<&str>) -> Cow<'_, str> {
    json.and_then(|json| serde_json::from_str::<Text<'_>>(json).ok()).map(|text| text.0).unwrap_or_default()
}

/// The digits of a number, which may stand in quotes.
fn number(json: Option<&str>) -> &str {
    json.unwrap_or("0").trim_matches('"')
}

fn double(json: Option<&str>) -> f64 {
    match number(json) {
        "NaN" => f64::NAN,
        "Infinity" => f64::INFINITY,
        "-Infinity" => f64::NEG_INFINITY,
        digits => digits.parse().unwrap_or(0.0),
    }
}

fn unhex(digits: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
    digits.as_bytes().chunks_exact(2).map(|pair| (digit(pair[0]) << 4) | digit(pair[1])).collect()
}
