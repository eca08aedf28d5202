//! Short ways to write OTLP values, so that the shop reads as a shop.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};

/// A string attribute.
pub(super) fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.to_owned()))
}

/// An integer attribute.
pub(super) fn int(key: &str, value: i64) -> KeyValue {
    pair(key, Value::IntValue(value))
}

/// A floating-point attribute.
pub(super) fn real(key: &str, value: f64) -> KeyValue {
    pair(key, Value::DoubleValue(value))
}

/// A boolean attribute.
pub(super) fn flag(key: &str, value: bool) -> KeyValue {
    pair(key, Value::BoolValue(value))
}

/// A list of strings.
pub(super) fn list(key: &str, values: &[&str]) -> KeyValue {
    let values = values.iter().map(|v| any((*v).to_owned())).collect();
    pair(key, Value::ArrayValue(ArrayValue { values }))
}

/// A string as value.
pub(super) fn any(value: String) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value)) }
}

/// The instrumentation scope of everything the shop sends.
pub(super) fn scope(name: &str) -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: name.to_owned(), version: "0.4.0".to_owned(), ..Default::default() })
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}
