//! The kinds of values and members in OTLP messages ⇄ Avro's binary form: the tables of `schema` say which stands where.
//!
//! A record has every member, in the order of the tags; presence is a union with null. Fails on what the kind cannot be, and
//! where a limit is passed. Charged is what the JSON reader charges.

use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Choice;

use super::read::{Input, no_branch};
use super::write;
use crate::wire::fault::Fault;
use crate::wire::json::reader::{Reader, not_in};
use crate::wire::limits::Place;
use crate::wire::table::{Table, write_message};
use crate::wire::value::{Any, Blob, Bool, Double, Id, Int64, Key, Msg, Pair, Record, Scalar, Text, Value};

/// A kind of value in Avro.
pub(crate) trait Kind: Value {
    fn decode(from: &mut Input<'_>) -> Result<Self::Native, Fault>;
    fn encode(value: &Self::Native, out: &mut Vec<u8>);

    /// A value that may be absent.
    #[inline]
    fn decode_optional(from: &mut Input<'_>) -> Result<Option<Self::Native>, Fault> {
        match from.long()? {
            0 => Ok(None),
            1 => Self::decode(from).map(Some),
            other => Err(no_branch(other)),
        }
    }

    #[inline]
    fn encode_optional(value: Option<&Self::Native>, out: &mut Vec<u8>) {
        write::long(i64::from(value.is_some()), out);
        if let Some(value) = value {
            Self::encode(value, out);
        }
    }
}

// === texts and bytes ===

impl Kind for Text {
    #[inline]
    fn decode(from: &mut Input<'_>) -> Result<String, Fault> {
        let text = from.text()?;
        from.budget.value(text.len())?;
        Ok(text.to_owned())
    }

    #[inline]
    fn encode(value: &String, out: &mut Vec<u8>) {
        write::bytes(value.as_bytes(), out);
    }
}

impl Kind for Key {
    #[inline]
    fn decode(from: &mut Input<'_>) -> Result<String, Fault> {
        let key = from.text()?;
        from.budget.key(key.len())?;
        Ok(key.to_owned())
    }

    #[inline]
    fn encode(value: &String, out: &mut Vec<u8>) {
        write::bytes(value.as_bytes(), out);
    }
}

impl Kind for Blob {
    fn decode(from: &mut Input<'_>) -> Result<Vec<u8>, Fault> {
        let bytes = from.bytes()?;
        from.budget.value(bytes.len())?;
        Ok(bytes.to_vec())
    }

    fn encode(value: &Vec<u8>, out: &mut Vec<u8>) {
        write::bytes(value, out);
    }
}

impl<const N: usize> Kind for Id<N> {
    #[inline]
    fn decode(from: &mut Input<'_>) -> Result<Vec<u8>, Fault> {
        let id = from.bytes()?;
        Self::check(id.len())?;
        from.budget.charge(id.len())?;
        Ok(id.to_vec())
    }

    #[inline]
    fn encode(value: &Vec<u8>, out: &mut Vec<u8>) {
        write::bytes(value, out);
    }
}

// === numbers ===

/// A number by its Rust type: Avro has but one form for whole ones.
pub(crate) trait Number: Sized {
    fn decode(from: &mut Input<'_>) -> Result<Self, Fault>;
    fn encode(self, out: &mut Vec<u8>);
}

macro_rules! whole {
    ($($number:ty: |$long:ident| $decoded:expr;)*) => {
        $(impl Number for $number {
            #[inline]
            fn decode(from: &mut Input<'_>) -> Result<Self, Fault> {
                let $long = from.long()?;
                $decoded
            }

            #[inline]
            fn encode(self, out: &mut Vec<u8>) {
                write::long(self as i64, out);
            }
        })*
    };
}

whole! {
    i64: |long| Ok(long);
    // The same bits: Avro has no numbers without sign.
    u64: |long| Ok(long as u64);
    i32: |long| long.try_into().map_err(|_| not_in("a 32-bit integer", &long.to_string()));
    u32: |long| long.try_into().map_err(|_| not_in("an unsigned 32-bit integer", &long.to_string()));
}

impl Number for f64 {
    #[inline]
    fn decode(from: &mut Input<'_>) -> Result<Self, Fault> {
        from.double()
    }

    #[inline]
    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
}

impl Number for bool {
    #[inline]
    fn decode(from: &mut Input<'_>) -> Result<Self, Fault> {
        from.bool()
    }

    #[inline]
    fn encode(self, out: &mut Vec<u8>) {
        out.push(u8::from(self));
    }
}

impl<S: Scalar<Number: Number>> Kind for S {
    #[inline]
    fn decode(from: &mut Input<'_>) -> Result<S::Number, Fault> {
        Number::decode(from)
    }

    #[inline]
    fn encode(value: &S::Number, out: &mut Vec<u8>) {
        Number::encode(*value, out);
    }
}

// === messages ===

impl<M: Table> Kind for Msg<M> {
    #[inline]
    fn decode(from: &mut Input<'_>) -> Result<M, Fault> {
        M::decode_avro(from)
    }

    #[inline]
    fn encode(value: &M, out: &mut Vec<u8>) {
        value.encode_avro(out);
    }
}

impl<M: Table> Kind for Record<M> {
    #[inline]
    fn decode(from: &mut Input<'_>) -> Result<M, Fault> {
        from.budget.enter(Place::Record)?;
        M::decode_avro(from)
    }

    #[inline]
    fn encode(value: &M, out: &mut Vec<u8>) {
        value.encode_avro(out);
    }
}

impl Kind for Pair {
    #[inline]
    fn decode(from: &mut Input<'_>) -> Result<Self::Native, Fault> {
        Table::decode_avro(from)
    }

    #[inline]
    fn encode(value: &Self::Native, out: &mut Vec<u8>) {
        value.encode_avro(out);
    }
}

/// A union of the kinds that nest nothing; whatever else there is stands as OTLP/JSON text, because the schemas do not
/// recurse.
impl Kind for Any {
    fn decode(from: &mut Input<'_>) -> Result<AnyValue, Fault> {
        Self::decode_optional(from).map(Option::unwrap_or_default)
    }

    fn encode(value: &AnyValue, out: &mut Vec<u8>) {
        Self::encode_optional(Some(value), out);
    }

    fn decode_optional(from: &mut Input<'_>) -> Result<Option<AnyValue>, Fault> {
        let branch = from.long()?;
        match branch {
            0 => return Ok(None),
            6 => return nested(from),
            _ => {}
        }
        from.budget.enter(Place::Value)?;
        let value = match branch {
            1 => Text::decode(from).map(Choice::StringValue).map_err(|fault| fault.under("stringValue"))?,
            2 => Choice::BoolValue(Bool::decode(from)?),
            3 => Choice::IntValue(Int64::decode(from)?),
            4 => Choice::DoubleValue(Double::decode(from)?),
            5 => Blob::decode(from).map(Choice::BytesValue).map_err(|fault| fault.under("bytesValue"))?,
            other => return Err(no_branch(other)),
        };
        from.budget.leave(Place::Value);
        Ok(Some(AnyValue { value: Some(value) }))
    }

    fn encode_optional(value: Option<&AnyValue>, out: &mut Vec<u8>) {
        fn branch<K: Kind>(branch: i64, value: &K::Native, out: &mut Vec<u8>) {
            write::long(branch, out);
            K::encode(value, out);
        }
        let Some(any) = value else { return write::long(0, out) };
        match &any.value {
            Some(Choice::StringValue(text)) => branch::<Text>(1, text, out),
            Some(Choice::BoolValue(yes)) => branch::<Bool>(2, yes, out),
            Some(Choice::IntValue(number)) => branch::<Int64>(3, number, out),
            Some(Choice::DoubleValue(number)) => branch::<Double>(4, number, out),
            Some(Choice::BytesValue(bytes)) => branch::<Blob>(5, bytes, out),
            _ => {
                let mut json = Vec::new();
                write_message(any, &mut json);
                write::long(6, out);
                write::bytes(&json, out);
            }
        }
    }
}

/// An AnyValue in OTLP/JSON, charged to the same account.
fn nested(from: &mut Input<'_>) -> Result<Option<AnyValue>, Fault> {
    let mut reader = Reader::new(from.text()?, from.budget.clone());
    let value = if reader.take_null()? { None } else { Some(Any::read(&mut reader)?) };
    reader.finish()?;
    from.budget = reader.budget;
    Ok(value)
}

// === members ===

/// A member that is there once.
pub(crate) mod one {
    use super::*;

    #[inline]
    pub(crate) fn decode<K: Kind>(from: &mut Input<'_>) -> Result<K::Native, Fault> {
        K::decode(from)
    }

    #[inline]
    pub(crate) fn encode<K: Kind>(value: &K::Native, out: &mut Vec<u8>) {
        K::encode(value, out);
    }
}

/// A member whose presence is tracked.
pub(crate) mod opt {
    use super::*;

    #[inline]
    pub(crate) fn decode<K: Kind>(from: &mut Input<'_>) -> Result<Option<K::Native>, Fault> {
        K::decode_optional(from)
    }

    #[inline]
    pub(crate) fn encode<K: Kind>(value: &Option<K::Native>, out: &mut Vec<u8>) {
        K::encode_optional(value.as_ref(), out);
    }
}

/// A list: blocks of items, the last of none.
pub(crate) mod many {
    use super::*;

    /// Items that room is made for because they are announced; for more when they are there.
    const AHEAD: usize = 1_024;

    pub(crate) fn decode<K: Kind>(from: &mut Input<'_>) -> Result<Vec<K::Native>, Fault> {
        let mut list = Vec::new();
        loop {
            let count = from.block()?;
            if count == 0 {
                return Ok(list);
            }
            list.reserve(count.min(AHEAD));
            for _ in 0..count {
                from.budget.charge(size_of::<K::Native>())?;
                if K::ATTRIBUTE {
                    from.budget.attributes(list.len() + 1)?;
                }
                list.push(K::decode(from).map_err(|fault| fault.index(list.len()))?);
            }
        }
    }

    pub(crate) fn encode<K: Kind>(list: &[K::Native], out: &mut Vec<u8>) {
        if !list.is_empty() {
            write::count(list.len(), out);
            list.iter().for_each(|value| K::encode(value, out));
        }
        write::long(0, out);
    }
}
