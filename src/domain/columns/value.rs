//! An attribute value as text and a type letter, without loss: in an OTLP `AnyValue`, out the text of a map value.
//!
//! Strings stay as they are, so that a search for `key=value` finds what the sender wrote. Arrays and key-value lists
//! become OTLP/JSON. Nothing can fail; [`restore`](super::restore) is the way back.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
pub(super) use opentelemetry_proto::tonic::common::v1::{AnyValue as Any, KeyValue};

/// What kind of value a text stands for; its letter is what the `*_types` columns hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The string itself.
    String,
    /// `true` or `false`.
    Bool,
    /// A 64-bit integer in decimal.
    Int,
    /// A double: shortest text that reads back as the same number, or `NaN`, `Infinity`, `-Infinity`.
    Double,
    /// Bytes in base64.
    Bytes,
    /// An array, as the OTLP/JSON text of the value.
    Array,
    /// A key-value list, as the OTLP/JSON text of the value.
    KeyValues,
    /// No value.
    Empty,
    /// An index into a string table, which only profiles have; kept as the number.
    StringIndex,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::String,
        Self::Bool,
        Self::Int,
        Self::Double,
        Self::Bytes,
        Self::Array,
        Self::KeyValues,
        Self::Empty,
        Self::StringIndex,
    ];

    /// The letter in the `*_types` columns.
    pub fn letter(self) -> char {
        match self {
            Self::String => 's',
            Self::Bool => 'b',
            Self::Int => 'i',
            Self::Double => 'd',
            Self::Bytes => 'y',
            Self::Array => 'a',
            Self::KeyValues => 'k',
            Self::Empty => 'e',
            Self::StringIndex => 'x',
        }
    }

    /// The kind of a letter.
    pub fn of(letter: char) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.letter() == letter)
    }

    /// The letter as the text of a column.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::String => "s",
            Self::Bool => "b",
            Self::Int => "i",
            Self::Double => "d",
            Self::Bytes => "y",
            Self::Array => "a",
            Self::KeyValues => "k",
            Self::Empty => "e",
            Self::StringIndex => "x",
        }
    }
}

/// Appends the text of a value (always UTF-8) and returns its kind.
pub(super) fn write_text(out: &mut Vec<u8>, value: Option<&Any>) -> Kind {
    let Some(inner) = value.and_then(|any| any.value.as_ref()) else { return Kind::Empty };
    match inner {
        Value::StringValue(text) => {
            out.extend_from_slice(text.as_bytes());
            Kind::String
        }
        Value::BoolValue(truth) => {
            out.extend_from_slice(if *truth { b"true" } else { b"false" });
            Kind::Bool
        }
        Value::IntValue(number) => {
            write_int(out, *number);
            Kind::Int
        }
        Value::DoubleValue(number) => {
            write_double(out, *number);
            Kind::Double
        }
        Value::BytesValue(bytes) => {
            write_base64(out, bytes);
            Kind::Bytes
        }
        Value::ArrayValue(_) => {
            write_json(out, inner);
            Kind::Array
        }
        Value::KvlistValue(_) => {
            write_json(out, inner);
            Kind::KeyValues
        }
        Value::StringValueStrindex(index) => {
            write_int(out, i64::from(*index));
            Kind::StringIndex
        }
    }
}

/// Appends a number in decimal.
fn write_int(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends the shortest text that parses back to the same double; an exponent where digits would run long.
fn write_double(out: &mut Vec<u8>, number: f64) {
    let size = number.abs();
    // Writing into a `Vec` cannot fail.
    let _ = if number.is_nan() {
        write!(out, "NaN")
    } else if number.is_infinite() {
        write!(out, "{}Infinity", if number < 0.0 { "-" } else { "" })
    } else if number == 0.0 || (1e-5..1e16).contains(&size) {
        write!(out, "{number}")
    } else {
        write!(out, "{number:e}")
    };
}

fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The slice is exactly as long as padded base64 is, so this fills it.
    let _ = STANDARD.encode_slice(bytes, &mut out[start..]);
}

/// Appends a value as OTLP/JSON. Nesting is bounded by the decoders (about 100 levels), so this may recurse.
fn write_json(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::StringValue(text) => {
            out.extend_from_slice(b"{\"stringValue\":");
            write_json_string(out, text);
        }
        Value::BoolValue(truth) => {
            let text: &[u8] = if *truth { b"{\"boolValue\":true" } else { b"{\"boolValue\":false" };
            out.extend_from_slice(text);
        }
        Value::IntValue(number) => quoted(out, b"{\"intValue\":", |out| write_int(out, *number)),
        Value::DoubleValue(number) if number.is_finite() => {
            out.extend_from_slice(b"{\"doubleValue\":");
            write_double(out, *number);
        }
        Value::DoubleValue(number) => quoted(out, b"{\"doubleValue\":", |out| write_double(out, *number)),
        Value::BytesValue(bytes) => quoted(out, b"{\"bytesValue\":", |out| write_base64(out, bytes)),
        Value::ArrayValue(array) => {
            out.extend_from_slice(b"{\"arrayValue\":{\"values\":[");
            separated(out, &array.values, write_json_any);
            out.extend_from_slice(b"]}");
        }
        Value::KvlistValue(list) => {
            out.extend_from_slice(b"{\"kvlistValue\":{\"values\":[");
            separated(out, &list.values, write_json_entry);
            out.extend_from_slice(b"]}");
        }
        Value::StringValueStrindex(index) => {
            out.extend_from_slice(b"{\"stringValueStrindex\":");
            write_int(out, i64::from(*index));
        }
    }
    out.push(b'}');
}

fn write_json_any(out: &mut Vec<u8>, any: &Any) {
    match &any.value {
        Some(value) => write_json(out, value),
        None => out.extend_from_slice(b"{}"),
    }
}

fn write_json_entry(out: &mut Vec<u8>, entry: &KeyValue) {
    out.extend_from_slice(b"{\"key\":");
    write_json_string(out, &entry.key);
    if let Some(any) = &entry.value {
        out.extend_from_slice(b",\"value\":");
        write_json_any(out, any);
    }
    out.push(b'}');
}

fn write_json_string(out: &mut Vec<u8>, text: &str) {
    // A string always serialises, and a `Vec` always takes it.
    let _ = serde_json::to_writer(out, text);
}

fn quoted(out: &mut Vec<u8>, open: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(open);
    out.push(b'"');
    write(out);
    out.push(b'"');
}

fn separated<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
}
