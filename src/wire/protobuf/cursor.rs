//! Reads protobuf fields off a byte slice without copying: bytes → (tag, wire value). Fails where a decoder would.

use crate::wire::fault::Fault;

/// Groups are long gone from OTLP; in unknown fields they may stand, but not nested for sport.
const MAX_GROUP_DEPTH: usize = 16;

/// A field's value as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    /// A group, skipped.
    Group,
}

impl Wire<'_> {
    /// What a field of another type says to this value.
    #[cold]
    pub(crate) fn mismatch(self, wanted: &str) -> Fault {
        let found = match self {
            Self::Varint(_) => "a varint",
            Self::Fixed64(_) => "a 64-bit value",
            Self::Fixed32(_) => "a 32-bit value",
            Self::Bytes(_) => "a length-delimited value",
            Self::Group => "a group",
        };
        Fault::malformed(format!("expected {wanted}, found {found}"))
    }
}

/// A position in the bytes of one message (or of a packed list).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field, or `None` at the end of the message. Inlined always: it is most of the walk's work.
    #[inline(always)]
    pub(crate) fn field(&mut self) -> Result<Option<(u32, Wire<'a>)>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (tag, kind) = self.key()?;
        let wire = match kind {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.fixed64()?),
            2 => Wire::Bytes(self.delimited()?),
            5 => Wire::Fixed32(self.fixed32()?),
            _ => return self.rare_field(tag, kind).map(Some),
        };
        Ok(Some((tag, wire)))
    }

    #[cold]
    fn rare_field(&mut self, tag: u32, kind: u8) -> Result<(u32, Wire<'a>), Fault> {
        match kind {
            3 => self.skip_group(tag).map(|()| (tag, Wire::Group)),
            4 => Err(Fault::malformed("a group ends that never began")),
            _ => Err(Fault::malformed(format!("field {tag} has the unknown wire type {kind}"))),
        }
    }

    #[inline(always)]
    fn key(&mut self) -> Result<(u32, u8), Fault> {
        match self.varint()? {
            key @ 8..0x1_0000_0000 => Ok((key as u32 >> 3, (key & 7) as u8)),
            0..8 => Err(Fault::malformed("a field has the number 0")),
            _ => Err(Fault::malformed("a field key is larger than 32 bits")),
        }
    }

    /// A varint of at most 64 bits.
    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64, Fault> {
        match *self.rest {
            [byte, ref rest @ ..] if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0u64;
        for (place, &byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                if place == 9 && byte > 1 {
                    break;
                }
                self.rest = &self.rest[place + 1..];
                return Ok(value);
            }
        }
        Err(Fault::malformed("a varint is cut off or larger than 64 bits"))
    }

    #[inline]
    pub(crate) fn fixed64(&mut self) -> Result<u64, Fault> {
        match self.rest.split_first_chunk::<8>() {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(u64::from_le_bytes(*bytes))
            }
            None => Err(Fault::malformed("a 64-bit value is cut off")),
        }
    }

    #[inline]
    fn fixed32(&mut self) -> Result<u32, Fault> {
        match self.rest.split_first_chunk::<4>() {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(u32::from_le_bytes(*bytes))
            }
            None => Err(Fault::malformed("a 32-bit value is cut off")),
        }
    }

    #[inline(always)]
    fn delimited(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.varint()?;
        self.take(len)
    }

    /// The next `len` bytes.
    #[inline(always)]
    pub(crate) fn take(&mut self, len: u64) -> Result<&'a [u8], Fault> {
        match usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len)) {
            Some((value, rest)) => {
                self.rest = rest;
                Ok(value)
            }
            None => Err(self.too_long(len)),
        }
    }

    #[cold]
    fn too_long(&self, len: u64) -> Fault {
        Fault::malformed(format!("a length of {len} with {} bytes left", self.rest.len()))
    }

    fn skip_group(&mut self, tag: u32) -> Result<(), Fault> {
        let mut open = vec![tag];
        while let Some(&innermost) = open.last() {
            let (tag, kind) = self.key()?;
            match kind {
                0 => _ = self.varint()?,
                1 => _ = self.fixed64()?,
                2 => _ = self.delimited()?,
                3 if open.len() < MAX_GROUP_DEPTH => open.push(tag),
                3 => return Err(Fault::limit("groups nested deeper than 16 levels")),
                4 if tag == innermost => _ = open.pop(),
                5 => _ = self.fixed32()?,
                _ => return Err(Fault::malformed("a group does not end where it should")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<(u32, Wire<'_>)>, Fault> {
        let mut cursor = Cursor::new(bytes);
        std::iter::from_fn(|| cursor.field().transpose()).collect()
    }

    #[test]
    fn reads_every_wire_type() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 0x01, 0x41, 0x1d, 1, 0, 0, 0, 0x21, 2, 0, 0, 0, 0, 0, 0, 0];
        let expected = vec![
            (1, Wire::Varint(150)),
            (2, Wire::Bytes(b"A")),
            (3, Wire::Fixed32(1)),
            (4, Wire::Fixed64(2)),
        ];
        assert_eq!(fields(&bytes).unwrap(), expected);
        // Field 5 as a group that holds field 1 = 0, then field 1 = 2.
        assert_eq!(
            fields(&[0x2b, 0x08, 0, 0x2c, 0x08, 2]).unwrap(),
            [(5, Wire::Group), (1, Wire::Varint(2))]
        );
    }

    #[test]
    fn refuses_what_cannot_be_read() {
        let cases: [(&[u8], &str); 9] = [
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], "4294967295 with 0 bytes left"),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "with 0 bytes left"),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], "larger than 64 bits"),
            (&[0x0a, 0x05, 0x41], "a length of 5 with 1 bytes left"),
            (&[0x00], "the number 0"),
            (&[0x0e], "wire type 6"),
            (&[0x0c], "never began"),
            (&[0x0b, 0x14], "does not end"),
            (&[0x09, 1, 2], "64-bit value is cut off"),
        ];
        for (bytes, part) in cases {
            let text = fields(bytes).unwrap_err().text();
            assert!(text.contains(part), "{bytes:x?}: {text}");
        }
        assert!(fields(&[0x0b; 100_000]).unwrap_err().text().contains("nested deeper"));
    }
}
