//! The shape of an OTLP request by its Avro schema (`proto/avro/`): which member is what, in which order.
//!
//! Out of the schema's text, once. Members are named as in OTLP/JSON. What Avro's types leave open stands beside them as
//! `otlp`: bytes that JSON has in hex, 64-bit numbers without sign, 32-bit ones without sign, and an AnyValue. The schemas do
//! not recurse: what an AnyValue nests is OTLP/JSON text. Fails only on a schema that this build does not ship.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

/// What stands at a place.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    Text,
    /// Bytes; ids are hex in JSON.
    Id,
    Bool,
    /// 32 bits, with sign or without: a number in JSON.
    Small,
    /// 64 bits with sign: text in JSON.
    Long,
    /// 64 bits without sign, in the same bits.
    Unsigned,
    Double,
    /// The union of an AnyValue's branches, in the order of [`ANY_BRANCHES`].
    Any,
    /// Absent, or there.
    Optional(Box<Shape>),
    List(Box<Shape>),
    Record(Arc<Vec<Field>>),
}

/// The branches of an AnyValue.
pub(super) const ANY_BRANCHES: [&str; 7] =
    ["null", "string", "boolean", "long", "double", "bytes", "NestedValue"];

/// A member.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) shape: Shape,
}

/// The shape that a schema describes.
pub(super) fn parse(schema: &str) -> Result<Shape, String> {
    let schema: Value = serde_json::from_str(schema).map_err(|error| error.to_string())?;
    Parser::default().shape(&schema, None)
}

#[derive(Default)]
struct Parser {
    records: HashMap<String, Arc<Vec<Field>>>,
}

impl Parser {
    fn shape(&mut self, schema: &Value, otlp: Option<&str>) -> Result<Shape, String> {
        match schema {
            Value::String(name) => self.named(name, otlp),
            Value::Array(branches) => self.union(branches, otlp),
            Value::Object(object) => match object.get("type").and_then(Value::as_str) {
                Some("array") => {
                    let items = object.get("items").ok_or("an array of nothing")?;
                    Ok(Shape::List(Box::new(self.shape(items, otlp)?)))
                }
                Some("record") => self.record(object),
                _ => Err(format!("a type of no use here: {schema}")),
            },
            _ => Err(format!("no type: {schema}")),
        }
    }

    fn named(&self, name: &str, otlp: Option<&str>) -> Result<Shape, String> {
        Ok(match (name, otlp) {
            ("string", _) => Shape::Text,
            ("bytes", Some("hex")) => Shape::Id,
            ("boolean", _) => Shape::Bool,
            ("int", _) | ("long", Some("number")) => Shape::Small,
            ("long", Some("unsigned")) => Shape::Unsigned,
            ("long", _) => Shape::Long,
            ("double", _) => Shape::Double,
            _ => Shape::Record(Arc::clone(self.records.get(name).ok_or(format!("no type {name}"))?)),
        })
    }

    fn union(&mut self, branches: &[Value], otlp: Option<&str>) -> Result<Shape, String> {
        if otlp == Some("any") {
            let name = |branch: &Value| branch.get("name").unwrap_or(branch).as_str().map(str::to_owned);
            let names: Vec<String> = branches.iter().filter_map(name).collect();
            return if names == ANY_BRANCHES { Ok(Shape::Any) } else { Err(format!("branches {names:?}")) };
        }
        match branches {
            [Value::String(null), there] if null == "null" => {
                Ok(Shape::Optional(Box::new(self.shape(there, otlp)?)))
            }
            _ => Err("a union that is no choice between nothing and something".into()),
        }
    }

    fn record(&mut self, object: &serde_json::Map<String, Value>) -> Result<Shape, String> {
        let name = object.get("name").and_then(Value::as_str).ok_or("a record without a name")?;
        let mut fields = Vec::new();
        for field in object.get("fields").and_then(Value::as_array).into_iter().flatten() {
            let shape = self.shape(&field["type"], field["otlp"].as_str())?;
            let name = field["name"].as_str().ok_or("a member without a name")?.to_owned();
            fields.push(Field { name, shape });
        }
        let fields = Arc::new(fields);
        self.records.insert(name.to_owned(), Arc::clone(&fields));
        Ok(Shape::Record(fields))
    }
}
