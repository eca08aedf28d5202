//! Avro's binary form → OTLP/JSON, member by member as the shape says. Fails on bytes that end early or mean nothing.

use serde_json::value::RawValue;

use super::shape::{Field, Shape};
use crate::wire::json::writer;

/// Bytes being read.
pub(super) struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or("the bytes end early")?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn long(&mut self) -> Result<i64, String> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err("a number of more than 64 bits".into())
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], String> {
        let length = usize::try_from(self.long()?).map_err(|_| "a negative length")?;
        self.take(length)
    }

    fn text(&mut self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a text is not utf-8".into())
    }

    fn double(&mut self) -> Result<f64, String> {
        let bits = self.take(8)?.try_into().map_err(|_| "the bytes end early")?;
        Ok(f64::from_le_bytes(bits))
    }

    fn bool(&mut self) -> Result<bool, String> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err("neither true nor false".into()),
        }
    }

    /// Items of the next block of a list; 0 at its end.
    fn block(&mut self) -> Result<u64, String> {
        let count = self.long()?;
        if count < 0 {
            self.long()?; // the block's size in bytes
        }
        let count = count.unsigned_abs();
        // An item has a byte at the least: what announces more means no good.
        if count > self.rest.len() as u64 { Err("a list longer than the bytes".into()) } else { Ok(count) }
    }
}

/// Writes what stands next as JSON. False where it is a value that JSON leaves out; then nothing is written.
pub(super) fn value(shape: &Shape, from: &mut Input<'_>, out: &mut Vec<u8>) -> Result<bool, String> {
    let before = out.len();
    let there = match shape {
        Shape::Text => text(from.text()?, out),
        Shape::Id => {
            let id = from.bytes()?;
            writer::hex(out, id);
            !id.is_empty()
        }
        Shape::Bool => {
            let yes = from.bool()?;
            out.extend_from_slice(if yes { b"true" } else { b"false" });
            yes
        }
        Shape::Small => {
            let number = from.long()?;
            writer::integer(out, number);
            number != 0
        }
        Shape::Long => {
            let number = from.long()?;
            writer::quoted_integer(out, number);
            number != 0
        }
        Shape::Unsigned => {
            let number = from.long()? as u64;
            writer::quoted_integer(out, number);
            number != 0
        }
        Shape::Double => {
            let number = from.double()?;
            writer::double(out, number);
            number.to_bits() != 0
        }
        Shape::Any => any(from, out)?,
        Shape::Optional(inner) => match from.long()? {
            0 => false,
            1 => {
                value(inner, from, out)?;
                true
            }
            other => return Err(format!("no branch {other}")),
        },
        Shape::List(items) => list(items, from, out)?,
        Shape::Record(fields) => {
            record(fields, from, out)?;
            true
        }
    };
    // In a list, and where presence counts, the value stands all the same.
    if !there && matches!(shape, Shape::Optional(_) | Shape::Any) {
        out.truncate(before);
    }
    Ok(there)
}

fn record(fields: &[Field], from: &mut Input<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    out.push(b'{');
    for field in fields {
        let before = out.len();
        writer::text(out, field.name.as_bytes());
        out.push(b':');
        if value(&field.shape, from, out)? {
            out.push(b',');
        } else {
            out.truncate(before);
        }
    }
    writer::close(out, b'}');
    Ok(())
}

fn list(items: &Shape, from: &mut Input<'_>, out: &mut Vec<u8>) -> Result<bool, String> {
    let before = out.len();
    out.push(b'[');
    loop {
        let count = from.block()?;
        if count == 0 {
            break;
        }
        for _ in 0..count {
            value(items, from, out)?;
            out.push(b',');
        }
    }
    writer::close(out, b']');
    Ok(out.len() > before + 2)
}

fn any(from: &mut Input<'_>, out: &mut Vec<u8>) -> Result<bool, String> {
    let mut member = |name: &str| {
        out.extend_from_slice(b"{\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
    };
    match from.long()? {
        0 => return Ok(false),
        1 => {
            member("stringValue");
            text(from.text()?, out);
        }
        2 => {
            member("boolValue");
            out.extend_from_slice(if from.bool()? { b"true" } else { b"false" });
        }
        3 => {
            member("intValue");
            writer::quoted_integer(out, from.long()?);
        }
        4 => {
            member("doubleValue");
            writer::double(out, from.double()?);
        }
        5 => {
            member("bytesValue");
            writer::base64(out, from.bytes()?);
        }
        6 => {
            let nested: &RawValue =
                serde_json::from_str(from.text()?).map_err(|_| "a nested value is no JSON")?;
            out.extend_from_slice(nested.get().as_bytes());
            return Ok(true);
        }
        other => return Err(format!("no branch {other}")),
    }
    out.push(b'}');
    Ok(true)
}

fn text(text: &str, out: &mut Vec<u8>) -> bool {
    writer::text(out, text.as_bytes());
    !text.is_empty()
}
