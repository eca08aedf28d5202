//! The kinds of single values in OTLP messages, each in four directions: JSON in and out, protobuf checked and turned
//! into JSON (for Avro see `avro`). A field's table entry names one of these; where a field stands and how often is `table`'s
//! matter.

use std::marker::PhantomData;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::SeverityNumber;
use opentelemetry_proto::tonic::metrics::v1::AggregationTemporality;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use super::fault::{Fault, shorten};
use super::json::reader::{Reader, not_in, parse_f64, parse_i64, parse_u64};
use super::json::writer;
use super::limits::{Budget, Place};
use super::protobuf::cursor::{Cursor, Wire};
use super::table::{self, Table};

/// How repeated values of a kind may be packed into one length-delimited field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Never: each stands in a field of its own.
    None,
    /// As varints.
    Varint,
    /// As 64-bit values.
    Fixed64,
}

impl Packing {
    pub(crate) fn take<'a>(self, cursor: &mut Cursor<'a>) -> Result<Wire<'a>, Fault> {
        match self {
            Self::Fixed64 => cursor.fixed64().map(Wire::Fixed64),
            Self::Varint | Self::None => cursor.varint().map(Wire::Varint),
        }
    }
}

/// One kind of value. `walk` is what makes the other protobuf direction safe: it refuses what prost would refuse.
pub(crate) trait Value {
    /// The Rust type in the prost messages.
    type Native: Default;
    /// How repeated values may be packed.
    const PACKING: Packing = Packing::None;
    /// Whether lists of this kind count as attribute lists.
    const ATTRIBUTE: bool = false;

    fn read(r: &mut Reader<'_>) -> Result<Self::Native, Fault>;
    fn write(value: &Self::Native, out: &mut Vec<u8>);
    /// Whether the value is left out where presence is not tracked.
    fn is_default(value: &Self::Native) -> bool;
    fn walk(wire: Wire<'_>, budget: &mut Budget<'_>) -> Result<(), Fault>;
    fn transcode(wire: Wire<'_>, out: &mut Vec<u8>) -> Result<(), Fault>;
    /// [`Value::is_default`] of a value on the wire.
    fn is_default_wire(wire: Wire<'_>) -> bool;
}

// === texts and bytes ===

macro_rules! text_kind {
    ($(#[$doc:meta])* $kind:ident, $charge:ident) => {
        $(#[$doc])*
        pub(crate) struct $kind;

        impl Value for $kind {
            type Native = String;

            #[inline]
            fn read(r: &mut Reader<'_>) -> Result<String, Fault> {
                let text = r.string("a string")?;
                let charged = r.budget.$charge(text.len());
                r.here(charged)?;
                Ok(text.into_owned())
            }

            fn write(value: &String, out: &mut Vec<u8>) {
                writer::text(out, value.as_bytes());
            }

            fn is_default(value: &String) -> bool {
                value.is_empty()
            }

            #[inline]
            fn walk(wire: Wire<'_>, budget: &mut Budget<'_>) -> Result<(), Fault> {
                let bytes = bytes_of(wire, "a string")?;
                budget.$charge(bytes.len())?;
                check_utf8(bytes)
            }

            #[inline]
            fn transcode(wire: Wire<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
                bytes_of(wire, "a string").map(|bytes| writer::text(out, bytes))
            }

            fn is_default_wire(wire: Wire<'_>) -> bool {
                wire == Wire::Bytes(&[])
            }
        }
    };
}

text_kind!(
    /// A text.
    Text,
    value
);
text_kind!(
    /// The key of an attribute.
    Key,
    key
);

/// Most texts are ASCII and short; on those the general check is several times slower than a look at the high bits.
#[inline]
fn check_utf8(bytes: &[u8]) -> Result<(), Fault> {
    let (words, tail) = bytes.as_chunks::<8>();
    let high = words.iter().fold(0, |high, word| high | u64::from_ne_bytes(*word));
    let high = tail.iter().fold(high, |high, byte| high | u64::from(*byte));
    if high & 0x8080_8080_8080_8080 == 0 || std::str::from_utf8(bytes).is_ok() {
        return Ok(());
    }
    Err(Fault::malformed("a string that is not utf-8"))
}

#[inline(always)]
fn bytes_of<'a>(wire: Wire<'a>, wanted: &str) -> Result<&'a [u8], Fault> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        other => Err(other.mismatch(wanted)),
    }
}

/// A trace or span id of `N` bytes: hex in JSON (unlike other bytes), may be empty where it is optional.
pub(crate) struct Id<const N: usize>;

impl<const N: usize> Id<N> {
    pub(crate) fn check(len: usize) -> Result<(), Fault> {
        match len {
            0 => Ok(()),
            _ if len == N => Ok(()),
            _ => Err(Fault::malformed(format!("expected {N} bytes, found {len}"))),
        }
    }
}

impl<const N: usize> Value for Id<N> {
    type Native = Vec<u8>;

    fn read(r: &mut Reader<'_>) -> Result<Vec<u8>, Fault> {
        let text = r.string("a string of hex digits")?;
        let digits = text.as_bytes();
        if !digits.is_empty() && digits.len() != 2 * N {
            return Err(r.malformed(format!("expected {} hex digits, found {}", 2 * N, digits.len())));
        }
        let charged = r.budget.charge(digits.len() / 2);
        r.here(charged)?;
        let nibble = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
        let bytes =
            digits.as_chunks::<2>().0.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?));
        bytes
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(|| r.malformed(format!("expected {} hex digits, found {:?}", 2 * N, shorten(&text))))
    }

    fn write(value: &Vec<u8>, out: &mut Vec<u8>) {
        writer::hex(out, value);
    }

    fn is_default(value: &Vec<u8>) -> bool {
        value.is_empty()
    }

    fn walk(wire: Wire<'_>, budget: &mut Budget<'_>) -> Result<(), Fault> {
        let bytes = bytes_of(wire, "bytes")?;
        Self::check(bytes.len())?;
        budget.charge(bytes.len())
    }

    fn transcode(wire: Wire<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        bytes_of(wire, "bytes").map(|bytes| writer::hex(out, bytes))
    }

    fn is_default_wire(wire: Wire<'_>) -> bool {
        wire == Wire::Bytes(&[])
    }
}

/// Bytes: base64 in JSON, read in both alphabets, padded or not.
pub(crate) struct Blob;

impl Blob {
    fn decode(text: &str) -> Option<Vec<u8>> {
        let lenient = GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true);
        let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
        GeneralPurpose::new(alphabet, lenient).decode(text).ok()
    }
}

impl Value for Blob {
    type Native = Vec<u8>;

    fn read(r: &mut Reader<'_>) -> Result<Vec<u8>, Fault> {
        let text = r.string("a base64 string")?;
        let charged = r.budget.value(text.trim_end_matches('=').len() * 3 / 4);
        r.here(charged)?;
        Self::decode(&text).ok_or_else(|| r.malformed(format!("expected base64, found {:?}", shorten(&text))))
    }

    fn write(value: &Vec<u8>, out: &mut Vec<u8>) {
        writer::base64(out, value);
    }

    fn is_default(value: &Vec<u8>) -> bool {
        value.is_empty()
    }

    fn walk(wire: Wire<'_>, budget: &mut Budget<'_>) -> Result<(), Fault> {
        bytes_of(wire, "bytes").and_then(|bytes| budget.value(bytes.len()))
    }

    fn transcode(wire: Wire<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        bytes_of(wire, "bytes").map(|bytes| writer::base64(out, bytes))
    }

    fn is_default_wire(wire: Wire<'_>) -> bool {
        wire == Wire::Bytes(&[])
    }
}

// === numbers ===

/// A number of fixed size: what [`Value`] needs follows from these few lines a kind.
pub(crate) trait Scalar {
    type Number: Copy + Default;
    const PACKS: Packing;
    fn parse(r: &mut Reader<'_>) -> Result<Self::Number, Fault>;
    fn put(value: Self::Number, out: &mut Vec<u8>);
    fn from_wire(wire: Wire<'_>) -> Result<Self::Number, Fault>;
    fn is_zero(value: Self::Number) -> bool;
}

impl<S: Scalar> Value for S {
    type Native = S::Number;
    const PACKING: Packing = S::PACKS;

    #[inline]
    fn read(r: &mut Reader<'_>) -> Result<S::Number, Fault> {
        S::parse(r)
    }

    #[inline]
    fn write(value: &S::Number, out: &mut Vec<u8>) {
        S::put(*value, out);
    }

    #[inline]
    fn is_default(value: &S::Number) -> bool {
        S::is_zero(*value)
    }

    #[inline]
    fn walk(wire: Wire<'_>, _: &mut Budget<'_>) -> Result<(), Fault> {
        S::from_wire(wire).map(drop)
    }

    #[inline]
    fn transcode(wire: Wire<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        S::from_wire(wire).map(|value| S::put(value, out))
    }

    #[inline]
    fn is_default_wire(wire: Wire<'_>) -> bool {
        S::from_wire(wire).is_ok_and(S::is_zero)
    }
}

/// Reads a number, or a string that holds one, by `parse`.
#[inline]
fn numeric<T>(
    r: &mut Reader<'_>,
    wanted: &str,
    parse: impl FnOnce(&str) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let text = r.number(wanted)?;
    let parsed = parse(&text);
    r.here(parsed)
}

fn parse_u32(text: &str) -> Result<u32, Fault> {
    parse_u64(text)?.try_into().map_err(|_| not_in("an unsigned 32-bit integer", text))
}

fn parse_i32(text: &str) -> Result<i32, Fault> {
    parse_i64(text)?.try_into().map_err(|_| not_in("a 32-bit integer", text))
}

macro_rules! integer_kind {
    ($(#[$doc:meta])* $kind:ident: $number:ty, $wire:ident, $packs:ident, $parse:ident, $put:ident, |$v:ident| $cast:expr) => {
        $(#[$doc])*
        pub(crate) struct $kind;

        impl Scalar for $kind {
            type Number = $number;
            const PACKS: Packing = Packing::$packs;

            #[inline]
            fn parse(r: &mut Reader<'_>) -> Result<$number, Fault> {
                numeric(r, "an integer", $parse)
            }

            #[inline]
            fn put(value: $number, out: &mut Vec<u8>) {
                writer::$put(out, value);
            }

            #[inline]
            fn from_wire(wire: Wire<'_>) -> Result<$number, Fault> {
                match wire {
                    Wire::$wire($v) => Ok($cast),
                    other => Err(other.mismatch(stringify!($kind))),
                }
            }

            #[inline]
            fn is_zero(value: $number) -> bool {
                value == 0
            }
        }
    };
}

integer_kind!(
    /// `fixed64`: times and counts.
    Fixed64: u64, Fixed64, Fixed64, parse_u64, quoted_integer, |v| v
);
integer_kind!(
    /// `uint64`.
    UInt64: u64, Varint, Varint, parse_u64, quoted_integer, |v| v
);
integer_kind!(
    /// `sfixed64`.
    SFixed64: i64, Fixed64, Fixed64, parse_i64, quoted_integer, |v| v as i64
);
integer_kind!(
    /// `int64`.
    Int64: i64, Varint, Varint, parse_i64, quoted_integer, |v| v as i64
);
integer_kind!(
    /// `fixed32`: flags.
    Fixed32: u32, Fixed32, None, parse_u32, integer, |v| v
);
integer_kind!(
    /// `uint32`; larger varints lose their upper half, as protobuf has it.
    UInt32: u32, Varint, Varint, parse_u32, integer, |v| v as u32
);
integer_kind!(
    /// `int32`, see [`UInt32`].
    Int32: i32, Varint, Varint, parse_i32, integer, |v| v as i32
);
integer_kind!(
    /// `sint32`: zigzag.
    SInt32: i32, Varint, Varint, parse_i32, integer, |v| ((v as u32 >> 1) as i32) ^ -((v & 1) as i32)
);

/// `bool`.
pub(crate) struct Bool;

impl Scalar for Bool {
    type Number = bool;
    const PACKS: Packing = Packing::Varint;

    fn parse(r: &mut Reader<'_>) -> Result<bool, Fault> {
        r.boolean()
    }

    fn put(value: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn from_wire(wire: Wire<'_>) -> Result<bool, Fault> {
        match wire {
            Wire::Varint(v) => Ok(v != 0),
            other => Err(other.mismatch("a boolean")),
        }
    }

    fn is_zero(value: bool) -> bool {
        !value
    }
}

/// `double`.
pub(crate) struct Double;

impl Scalar for Double {
    type Number = f64;
    const PACKS: Packing = Packing::Fixed64;

    fn parse(r: &mut Reader<'_>) -> Result<f64, Fault> {
        numeric(r, "a number", parse_f64)
    }

    fn put(value: f64, out: &mut Vec<u8>) {
        writer::double(out, value);
    }

    fn from_wire(wire: Wire<'_>) -> Result<f64, Fault> {
        match wire {
            Wire::Fixed64(v) => Ok(f64::from_bits(v)),
            other => Err(other.mismatch("a double")),
        }
    }

    /// By its bits: -0 is kept.
    fn is_zero(value: f64) -> bool {
        value.to_bits() == 0
    }
}

/// An enum: an integer in OTLP/JSON, read by name as well.
pub(crate) struct Enum<E>(PhantomData<E>);

/// An enum whose values have names.
pub(crate) trait Named {
    fn by_name(name: &str) -> Option<i32>;
}

macro_rules! named {
    ($($name:ty),*) => {
        $(impl Named for $name {
            fn by_name(name: &str) -> Option<i32> {
                Self::from_str_name(name).map(|value| value as i32)
            }
        })*
    };
}

named!(SpanKind, StatusCode, SeverityNumber, AggregationTemporality);

impl<E: Named> Scalar for Enum<E> {
    type Number = i32;
    const PACKS: Packing = Packing::Varint;

    fn parse(r: &mut Reader<'_>) -> Result<i32, Fault> {
        numeric(r, "an enum's number or name", |text| match E::by_name(text) {
            Some(value) => Ok(value),
            None => parse_i32(text).map_err(|_| not_in("an enum's number or name", text)),
        })
    }

    fn put(value: i32, out: &mut Vec<u8>) {
        writer::integer(out, value);
    }

    fn from_wire(wire: Wire<'_>) -> Result<i32, Fault> {
        Int32::from_wire(wire)
    }

    fn is_zero(value: i32) -> bool {
        value == 0
    }
}

// === messages ===

/// Implements [`Value`] for a kind of message, which is charged for by its place.
macro_rules! message_kind {
    ([$($generic:tt)*] $kind:ty => $message:ty, $place:ident) => {
        impl<$($generic)*> Value for $kind {
            type Native = $message;
            const ATTRIBUTE: bool = matches!(Place::$place, Place::Attribute);

            #[inline]
            fn read(r: &mut Reader<'_>) -> Result<$message, Fault> {
                let entered = r.budget.enter(Place::$place);
                r.here(entered)?;
                let message = table::read_message(r)?;
                r.budget.leave(Place::$place);
                Ok(message)
            }

            #[inline]
            fn write(value: &$message, out: &mut Vec<u8>) {
                table::write_message(value, out);
            }

            /// A message's presence is tracked by its own field.
            fn is_default(_: &$message) -> bool {
                false
            }

            #[inline]
            fn walk(wire: Wire<'_>, budget: &mut Budget<'_>) -> Result<(), Fault> {
                let bytes = bytes_of(wire, "a message")?;
                budget.enter(Place::$place)?;
                table::walk_message::<$message>(bytes, budget)?;
                budget.leave(Place::$place);
                Ok(())
            }

            #[inline]
            fn transcode(wire: Wire<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
                table::transcode_message::<$message>(bytes_of(wire, "a message")?, out)
            }

            fn is_default_wire(_: Wire<'_>) -> bool {
                false
            }
        }
    };
}

/// A message.
pub(crate) struct Msg<M>(PhantomData<M>);
/// A message that counts as a record: a span, a log record, a data point.
pub(crate) struct Record<M>(PhantomData<M>);
/// An attribute.
pub(crate) struct Pair;
/// A value that may hold values: the one place where messages nest without end, so depth is counted here.
pub(crate) struct Any;

message_kind!([M: Table] Msg<M> => M, Part);
message_kind!([M: Table] Record<M> => M, Record);
message_kind!([] Pair => KeyValue, Attribute);
message_kind!([] Any => AnyValue, Value);
