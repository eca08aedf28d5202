//! The way back from the store: text and type letter of an attribute → the OTLP value that was sent.
//!
//! In: what the map and `*_types` columns of a row hold. Out: `AnyValue` and `KeyValue`. What may fail: [`RestoreError`],
//! where a row holds text that its letter does not allow, which no row written by Obtrace does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::value::Kind;

/// Deepest nesting of arrays and key-value lists that is read back; decoders let about half of this in.
const MAX_DEPTH: usize = 200;

/// Why a stored value could not be read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The types column has a letter this build does not know.
    #[error("stored value has unknown type letter {0:?}")]
    Letter(char),
    /// The text is not of the kind its letter says.
    #[error("stored value is no {kind:?}: {reason}")]
    Text {
        /// The kind the letter stands for.
        kind: Kind,
        /// What the reader said.
        reason: String,
    },
    /// The types column is neither empty nor one letter an entry.
    #[error("stored row has {letters} type letters for {entries} attributes")]
    Count {
        /// Letters in the types column.
        letters: usize,
        /// Entries in the map.
        entries: usize,
    },
}

/// Restores one value from its text and its type letter.
///
/// # Errors
/// [`RestoreError::Letter`] and [`RestoreError::Text`].
pub fn value(text: &str, letter: char) -> Result<AnyValue, RestoreError> {
    let kind = Kind::of(letter).ok_or(RestoreError::Letter(letter))?;
    let value = match kind {
        Kind::Empty => None,
        Kind::String => Some(Value::StringValue(text.to_owned())),
        Kind::Bool => Some(Value::BoolValue(parse(kind, text)?)),
        Kind::Int => Some(Value::IntValue(parse(kind, text)?)),
        Kind::Double => Some(Value::DoubleValue(parse(kind, text)?)),
        Kind::Bytes => Some(Value::BytesValue(bytes(text)?)),
        Kind::StringIndex => Some(Value::StringValueStrindex(parse(kind, text)?)),
        Kind::Array | Kind::KeyValues => {
            let read = serde_json::from_str::<Json<'_>>(text).map_err(|error| wrong(kind, &error))?;
            read.value(0)?
        }
    };
    Ok(AnyValue { value })
}

/// Restores the attributes of a row: its map entries in order, and its types column.
///
/// # Errors
/// Any [`RestoreError`].
pub fn attributes<'a>(
    entries: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    types: &str,
) -> Result<Vec<KeyValue>, RestoreError> {
    if !types.is_empty() && types.len() != entries.len() {
        return Err(RestoreError::Count { letters: types.len(), entries: entries.len() });
    }
    let letters = types.chars().chain(std::iter::repeat(Kind::String.letter()));
    entries
        .zip(letters)
        .map(|((key, text), letter)| {
            Ok(KeyValue { key: key.to_owned(), value: Some(value(text, letter)?), key_strindex: 0 })
        })
        .collect()
}

/// One level of an OTLP/JSON value. What is below stays raw text, so that deep nesting is no matter of the parser's
/// own recursion limit.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Json<'a> {
    string_value: Option<String>,
    bool_value: Option<bool>,
    int_value: Option<String>,
    #[serde(borrow)]
    double_value: Option<&'a RawValue>,
    bytes_value: Option<String>,
    string_value_strindex: Option<i32>,
    #[serde(borrow)]
    array_value: Option<Items<'a>>,
    #[serde(borrow)]
    kvlist_value: Option<Items<'a>>,
}

#[derive(Deserialize)]
struct Items<'a> {
    #[serde(borrow, default)]
    values: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    key: String,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
}

impl Json<'_> {
    fn value(self, depth: usize) -> Result<Option<Value>, RestoreError> {
        if depth > MAX_DEPTH {
            return Err(wrong(Kind::Array, &format!("nested deeper than {MAX_DEPTH}")));
        }
        Ok(Some(if let Some(text) = self.string_value {
            Value::StringValue(text)
        } else if let Some(truth) = self.bool_value {
            Value::BoolValue(truth)
        } else if let Some(digits) = self.int_value {
            Value::IntValue(parse(Kind::Int, &digits)?)
        } else if let Some(raw) = self.double_value {
            Value::DoubleValue(parse(Kind::Double, raw.get().trim_matches('"'))?)
        } else if let Some(text) = self.bytes_value {
            Value::BytesValue(bytes(&text)?)
        } else if let Some(index) = self.string_value_strindex {
            Value::StringValueStrindex(index)
        } else if let Some(items) = self.array_value {
            let values =
                items.values.into_iter().map(|raw| nested(raw, depth + 1)).collect::<Result<_, _>>()?;
            Value::ArrayValue(ArrayValue { values })
        } else if let Some(items) = self.kvlist_value {
            let values =
                items.values.into_iter().map(|raw| entry(raw, depth + 1)).collect::<Result<_, _>>()?;
            Value::KvlistValue(KeyValueList { values })
        } else {
            return Ok(None);
        }))
    }
}

fn nested(raw: &RawValue, depth: usize) -> Result<AnyValue, RestoreError> {
    let read = serde_json::from_str::<Json<'_>>(raw.get()).map_err(|error| wrong(Kind::Array, &error))?;
    Ok(AnyValue { value: read.value(depth)? })
}

fn entry(raw: &RawValue, depth: usize) -> Result<KeyValue, RestoreError> {
    let read =
        serde_json::from_str::<Entry<'_>>(raw.get()).map_err(|error| wrong(Kind::KeyValues, &error))?;
    let value = read.value.map(|raw| nested(raw, depth)).transpose()?;
    Ok(KeyValue { key: read.key, value, key_strindex: 0 })
}

fn bytes(text: &str) -> Result<Vec<u8>, RestoreError> {
    STANDARD.decode(text).map_err(|error| wrong(Kind::Bytes, &error))
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(kind: Kind, text: &str) -> Result<T, RestoreError> {
    text.parse().map_err(|error| wrong(kind, &error))
}

fn wrong(kind: Kind, reason: &impl ToString) -> RestoreError {
    RestoreError::Text { kind, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::value::write_text;
    use super::*;

    fn any_value() -> impl Strategy<Value = AnyValue> {
        let leaf = prop_oneof![
            any::<String>().prop_map(Value::StringValue),
            any::<bool>().prop_map(Value::BoolValue),
            any::<i64>().prop_map(Value::IntValue),
            any::<f64>().prop_map(Value::DoubleValue),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::BytesValue),
            any::<i32>().prop_map(Value::StringValueStrindex),
        ]
        .prop_map(Some);
        let leaf = prop_oneof![8 => leaf, 1 => Just(None)].prop_map(|value| AnyValue { value });
        leaf.prop_recursive(6, 40, 5, |inner| {
            let entry = (any::<String>(), prop::option::of(inner.clone()));
            let entry = entry.prop_map(|(key, value)| KeyValue { key, value, key_strindex: 0 });
            prop_oneof![
                prop::collection::vec(inner, 0..5)
                    .prop_map(|values| Value::ArrayValue(ArrayValue { values })),
                prop::collection::vec(entry, 0..5)
                    .prop_map(|values| Value::KvlistValue(KeyValueList { values })),
            ]
            .prop_map(|value| AnyValue { value: Some(value) })
        })
    }

    /// Equal, with all NaNs counted as one.
    fn same(a: &AnyValue, b: &AnyValue) -> bool {
        match (&a.value, &b.value) {
            (Some(Value::DoubleValue(a)), Some(Value::DoubleValue(b))) => {
                a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
            }
            (Some(Value::ArrayValue(a)), Some(Value::ArrayValue(b))) => {
                a.values.len() == b.values.len() && a.values.iter().zip(&b.values).all(|(a, b)| same(a, b))
            }
            (Some(Value::KvlistValue(a)), Some(Value::KvlistValue(b))) => {
                a.values.len() == b.values.len()
                    && a.values.iter().zip(&b.values).all(|(a, b)| {
                        a.key == b.key
                            && match (&a.value, &b.value) {
                                (Some(a), Some(b)) => same(a, b),
                                (None, None) => true,
                                _ => false,
                            }
                    })
            }
            (a, b) => a == b,
        }
    }

    fn there_and_back(sent: &AnyValue) -> AnyValue {
        let mut text = Vec::new();
        let kind = write_text(&mut text, Some(sent));
        value(std::str::from_utf8(&text).unwrap(), kind.letter()).unwrap()
    }

    proptest! {
        #[test]
        fn any_value_survives_the_store(sent in any_value()) {
            let back = there_and_back(&sent);
            prop_assert!(same(&sent, &back), "{sent:?} came back as {back:?}");
        }
    }

    #[test]
    fn text_is_what_a_reader_would_search_for() {
        let text = |value| {
            let mut out = Vec::new();
            write_text(&mut out, Some(&AnyValue { value: Some(value) }));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(Value::IntValue(-42)), "-42");
        assert_eq!(text(Value::BoolValue(true)), "true");
        assert_eq!(text(Value::DoubleValue(5.0)), "5");
        assert_eq!(text(Value::DoubleValue(0.1)), "0.1");
        assert_eq!(text(Value::DoubleValue(1e300)), "1e300");
        assert_eq!(text(Value::DoubleValue(f64::NEG_INFINITY)), "-Infinity");
        assert_eq!(text(Value::BytesValue(vec![1, 2])), "AQI=");
        let nested =
            Value::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(Value::IntValue(7)) }] });
        assert_eq!(text(nested), r#"{"arrayValue":{"values":[{"intValue":"7"}]}}"#);
    }

    #[test]
    fn deep_nesting_comes_back() {
        let mut sent = AnyValue { value: Some(Value::StringValue("core".into())) };
        for _ in 0..100 {
            sent = AnyValue { value: Some(Value::ArrayValue(ArrayValue { values: vec![sent] })) };
        }
        assert_eq!(there_and_back(&sent), sent);
    }

    #[test]
    fn rows_that_do_not_fit_are_errors() {
        assert_eq!(value("x", '?'), Err(RestoreError::Letter('?')));
        assert!(matches!(value("x", 'i'), Err(RestoreError::Text { kind: Kind::Int, .. })));
        assert!(matches!(value("{", 'a'), Err(RestoreError::Text { kind: Kind::Array, .. })));
        let entries = [("a", "1"), ("b", "2")];
        let counted = attributes(entries.into_iter(), "i");
        assert_eq!(counted, Err(RestoreError::Count { letters: 1, entries: 2 }));
        let plain = attributes(entries.into_iter(), "").unwrap();
        assert_eq!(plain[1].value, Some(AnyValue { value: Some(Value::StringValue("2".into())) }));
    }
}
