//! Attributes as JSON without loss: text and type letter of each entry in → a plain JSON object, with a note where plain JSON cannot say it.
//!
//! A string, a bool, a double and a 64-bit int are what they look like in JSON (a double always has a point or an exponent). What JSON has no
//! form for, or what a client with 53-bit numbers would spoil, is written as text and named in `attribute_types`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Largest integer that every JSON reader keeps exactly.
const SAFE_INT: u64 = 1 << 53;
/// Deepest nesting of arrays and maps that is shown plainly; deeper ones are given as OTLP/JSON text.
const DEEPEST: usize = 32;

/// Attributes of a span, log record, event, link, scope or resource.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Attributes {
    /// Key to value as plain JSON: string, bool, number, array, object, or null for an empty value.
    #[schema(value_type = Object, example = json!({"http.request.method": "GET", "http.response.status_code": 200}))]
    pub attributes: Map<String, Value>,
    /// Only for keys whose value above is not what it looks like: `int` (decimal text beyond ±2^53), `double` (`NaN`, `Infinity`,
    /// `-Infinity`), `bytes` (base64), `string_index` (a place in a string table), `otlp` (an array or map given as OTLP/JSON `AnyValue`, as it holds such values).
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub attribute_types: BTreeMap<String, String>,
    /// Only for keys that were sent more than once: the second and later entries, in order.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub duplicate_attributes: Vec<DuplicateAttribute>,
    /// How many attributes the client dropped before sending.
    pub dropped_attributes_count: u32,
}

/// A further entry of a key that was sent more than once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DuplicateAttribute {
    /// The key.
    pub key: String,
    /// The value, as in `attributes`.
    #[schema(value_type = Object)]
    pub value: Value,
    /// As in `attribute_types`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value_type: Option<String>,
}

impl Attributes {
    /// Builds attributes from the entries of a map column. `types` has one letter per entry, or none at all when all are strings.
    pub fn from_entries<'a>(
        entries: impl IntoIterator<Item = (&'a str, &'a str)>,
        types: &str,
        dropped: u32,
    ) -> Self {
        let mut built = Self { dropped_attributes_count: dropped, ..Self::default() };
        let mut letters = types.chars();
        for (key, text) in entries {
            let (value, note) = plain(text, letters.next().unwrap_or('s'));
            if built.attributes.contains_key(key) {
                let value_type = note.map(str::to_owned);
                built.duplicate_attributes.push(DuplicateAttribute {
                    key: key.to_owned(),
                    value,
                    value_type,
                });
                continue;
            }
            if let Some(note) = note {
                built.attribute_types.insert(key.to_owned(), note.to_owned());
            }
            built.attributes.insert(key.to_owned(), value);
        }
        built
    }
}

/// The JSON form of a stored value and, where that is not what it looks like, the name of its type. A text that does not fit its letter is
/// given as the string it is.
pub fn plain(text: &str, letter: char) -> (Value, Option<&'static str>) {
    let as_string = || Value::String(text.to_owned());
    match letter {
        'b' => (text.parse().map_or_else(|_| as_string(), Value::Bool), None),
        'i' => match text.parse::<i64>() {
            Ok(int) if int.unsigned_abs() <= SAFE_INT => (Value::from(int), None),
            Ok(_) => (as_string(), Some("int")),
            Err(_) => (as_string(), None),
        },
        'd' => match text.parse::<f64>() {
            Ok(double) if double.is_finite() => (Value::from(double), None),
            Ok(double) => (Value::String(non_finite(double).to_owned()), Some("double")),
            Err(_) => (as_string(), None),
        },
        'y' => (as_string(), Some("bytes")),
        'e' => (Value::Null, None),
        'x' => (as_string(), Some("string_index")),
        'a' | 'k' => nested(text).unwrap_or_else(|| (as_string(), None)),
        _ => (as_string(), None),
    }
}

fn non_finite(double: f64) -> &'static str {
    match double {
        d if d.is_nan() => "NaN",
        d if d > 0.0 => "Infinity",
        _ => "-Infinity",
    }
}

/// An array or map from its OTLP/JSON text: plainly where that loses nothing, else the OTLP form itself.
fn nested(text: &str) -> Option<(Value, Option<&'static str>)> {
    let otlp: Value = serde_json::from_str(text).ok()?;
    Some(match plain_nested(&otlp, 0) {
        Some(value) => (value, None),
        None => (otlp, Some("otlp")),
    })
}

/// Plain form of an OTLP/JSON `AnyValue`; `None` when it would lose a type, a doubled key or an order that counts.
fn plain_nested(any: &Value, depth: usize) -> Option<Value> {
    let Value::Object(fields) = any else { return None };
    if depth > DEEPEST || fields.len() > 1 {
        return None;
    }
    let Some((form, inner)) = fields.iter().next() else { return Some(Value::Null) };
    match form.as_str() {
        "stringValue" => inner.as_str().map(Value::from),
        "boolValue" => inner.as_bool().map(Value::from),
        "intValue" => {
            let int = inner.as_i64().or_else(|| inner.as_str()?.parse().ok())?;
            (int.unsigned_abs() <= SAFE_INT).then(|| Value::from(int))
        }
        "doubleValue" => inner.as_f64().map(Value::from),
        "arrayValue" => list(inner)?
            .iter()
            .map(|each| plain_nested(each, depth + 1))
            .collect::<Option<_>>()
            .map(Value::Array),
        "kvlistValue" => plain_map(list(inner)?, depth),
        // The text of an array or map column may be the inner message alone.
        "values" => {
            let items = inner.as_array()?;
            match items.first().and_then(|first| first.get("key")) {
                Some(_) => plain_map(items, depth),
                None => items
                    .iter()
                    .map(|each| plain_nested(each, depth + 1))
                    .collect::<Option<_>>()
                    .map(Value::Array),
            }
        }
        _ => None,
    }
}

fn list(message: &Value) -> Option<&[Value]> {
    match message.get("values") {
        Some(values) => values.as_array().map(Vec::as_slice),
        None => Some(&[]),
    }
}

fn plain_map(entries: &[Value], depth: usize) -> Option<Value> {
    let mut map = Map::new();
    for entry in entries {
        let key = entry.get("key").map_or(Some(""), Value::as_str)?;
        let empty = Value::Object(Map::new());
        let value = plain_nested(entry.get("value").unwrap_or(&empty), depth + 1)?;
        if map.insert(key.to_owned(), value).is_some() {
            return None;
        }
    }
    Some(Value::Object(map))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_type_has_a_form_that_loses_nothing() {
        for (text, letter, want, note) in [
            ("x", 's', json!("x"), None),
            ("true", 'b', json!(true), None),
            ("200", 'i', json!(200), None),
            ("9007199254740993", 'i', json!("9007199254740993"), Some("int")),
            ("-9223372036854775808", 'i', json!("-9223372036854775808"), Some("int")),
            ("1", 'd', json!(1.0), None),
            ("-0.5e300", 'd', json!(-0.5e300), None),
            ("NaN", 'd', json!("NaN"), Some("double")),
            ("-inf", 'd', json!("-Infinity"), Some("double")),
            ("AQI=", 'y', json!("AQI="), Some("bytes")),
            ("", 'e', json!(null), None),
            ("maybe", 'b', json!("maybe"), None),
            ("7", 'x', json!("7"), Some("string_index")),
            ("x", '?', json!("x"), None),
        ] {
            assert_eq!(plain(text, letter), (want, note), "{text} {letter}");
        }
        // An int and a double of the same amount stay apart in the text.
        assert_eq!(plain("1", 'd').0.to_string(), "1.0");
        assert_eq!(plain("1", 'i').0.to_string(), "1");
    }

    #[test]
    fn nested_values_are_plain_where_that_loses_nothing() {
        let array =
            r#"{"arrayValue":{"values":[{"stringValue":"a"},{"intValue":"5"},{},{"arrayValue":{}}]}}"#;
        assert_eq!(plain(array, 'a'), (json!(["a", 5, null, []]), None));
        let inner =
            r#"{"values":[{"key":"k","value":{"doubleValue":1.5}},{"key":"m","value":{"boolValue":true}}]}"#;
        assert_eq!(plain(inner, 'k'), (json!({"k": 1.5, "m": true}), None));
        for kept in [
            r#"{"arrayValue":{"values":[{"bytesValue":"AQI="}]}}"#,
            r#"{"arrayValue":{"values":[{"intValue":"9223372036854775807"}]}}"#,
            r#"{"arrayValue":{"values":[{"doubleValue":"NaN"}]}}"#,
            r#"{"kvlistValue":{"values":[{"key":"k","value":{}},{"key":"k","value":{}}]}}"#,
        ] {
            let otlp: Value = serde_json::from_str(kept).unwrap();
            assert_eq!(plain(kept, 'k'), (otlp, Some("otlp")), "{kept}");
        }
        assert_eq!(plain("[not json", 'a'), (json!("[not json"), None));
    }

    #[test]
    fn doubled_keys_are_kept() {
        let built = Attributes::from_entries([("k", "1"), ("k", "AQ=="), ("z", "x")], "iys", 4);
        assert_eq!(built.attributes["k"], json!(1));
        assert_eq!(built.duplicate_attributes[0].value_type.as_deref(), Some("bytes"));
        assert_eq!((built.attributes.len(), built.dropped_attributes_count), (2, 4));
        assert!(Attributes::from_entries([("k", "v")], "", 0).attribute_types.is_empty());
    }
}
