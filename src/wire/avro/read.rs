//! Avro's binary form → numbers, texts and bytes. Fails on bytes that end early or mean nothing.

use crate::wire::fault::Fault;
use crate::wire::limits::Budget;
use crate::wire::protobuf::cursor::Cursor;

/// Bytes being read, and the account that what is read is charged to. Numbers are protobuf's in zigzag.
pub(crate) struct Input<'a> {
    bytes: Cursor<'a>,
    pub(super) budget: Budget<'a>,
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8], budget: Budget<'a>) -> Self {
        Self { bytes: Cursor::new(bytes), budget }
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.rest()
    }

    #[inline]
    pub(super) fn long(&mut self) -> Result<i64, Fault> {
        let zigzag = self.bytes.varint()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.long()?;
        match u64::try_from(length) {
            Ok(length) => self.bytes.take(length),
            Err(_) => Err(Fault::malformed("a negative length")),
        }
    }

    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a str, Fault> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Fault::malformed("a string that is not utf-8"))
    }

    #[inline]
    pub(super) fn double(&mut self) -> Result<f64, Fault> {
        self.bytes.fixed64().map(f64::from_bits)
    }

    #[inline]
    pub(super) fn bool(&mut self) -> Result<bool, Fault> {
        match self.bytes.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Fault::malformed("neither true nor false")),
        }
    }

    /// Items of the next block of a list; 0 at its end.
    #[inline]
    pub(super) fn block(&mut self) -> Result<usize, Fault> {
        let count = self.long()?;
        if count < 0 {
            self.long()?; // the block's size in bytes
        }
        // An item has a byte at the least: what announces more means no good.
        match usize::try_from(count.unsigned_abs()) {
            Ok(count) if count <= self.rest().len() => Ok(count),
            _ => Err(Fault::malformed("a list longer than the bytes")),
        }
    }
}

/// What is said of a union's branch that is none.
#[cold]
pub(super) fn no_branch(branch: i64) -> Fault {
    Fault::malformed(format!("no branch {branch}"))
}
