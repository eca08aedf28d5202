//! The few protobuf field writers the payload maker needs: field number and value in, bytes appended.

use bytes::BufMut;
use prost::encoding::encode_varint;

/// Appends a length-delimited field.
pub(super) fn bytes_field(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    encode_varint(u64::from(field << 3 | 2), out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Appends a varint field.
pub(super) fn varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    encode_varint(u64::from(field << 3), out);
    encode_varint(value, out);
}

/// Appends a fixed64 field.
pub(super) fn fixed64_field(out: &mut Vec<u8>, field: u32, value: u64) {
    encode_varint(u64::from(field << 3 | 1), out);
    out.put_u64_le(value);
}

/// The same writers on a buffer of the stack, for the small messages inside every record.
pub(super) struct Small<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Small<'a> {
    pub(super) fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// A varint field with a field number below 16.
    pub(super) fn varint_field(&mut self, field: u32, value: u64) {
        self.advance(|mut rest| {
            encode_varint(u64::from(field << 3), &mut rest);
            encode_varint(value, &mut rest);
            rest.len()
        });
    }

    /// A length-delimited field with a field number below 16.
    pub(super) fn bytes_field(&mut self, field: u32, value: &[u8]) {
        self.advance(|mut rest| {
            encode_varint(u64::from(field << 3 | 2), &mut rest);
            encode_varint(value.len() as u64, &mut rest);
            rest.put_slice(value);
            rest.len()
        });
    }

    /// What was written so far.
    pub(super) fn written(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    fn advance(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        let rest = write(&mut self.buffer[self.len..]);
        self.len = self.buffer.len() - rest;
    }
}
