//! Opaque page cursors: where a page ended in → text out, and back; a cursor that is damaged, too new or of another query is refused.
//!
//! A page ends at a key, not at a row number: rows that arrive between two pages neither shift nor double what follows. The cursor also
//! carries the time range of the first page, so that `now-1h` stays the same hour while paging.

use super::failure::BadParameter;
use super::hex;
use super::time::TimeRange;

/// Version of the layout below; a cursor of another version is refused.
const VERSION: u8 = 1;
/// Longest tie-breaking key, in bytes: a metric or service name.
const LONGEST_KEY: usize = 4096;
/// Version, fingerprint, start, end, ts, skip and checksum.
const FIXED_LEN: usize = 1 + 8 + 8 + 8 + 8 + 4 + 4;

/// The place of the last item of a page in the order of the list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// Time of the last item, Unix nanoseconds; 0 for lists that are ordered by name.
    pub ts_ns: i64,
    /// What tells items of one time apart: a row hash, a trace id, or the name.
    pub key: Vec<u8>,
    /// How many items with exactly this time and key were given already. They are equal, so their order does not matter.
    pub skip: u32,
}

/// What a cursor holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Hash of the query the cursor belongs to, without limit, cursor and times.
    pub fingerprint: u64,
    /// Time range of the first page.
    pub range: TimeRange,
    /// Where the page ended.
    pub position: Position,
}

impl Cursor {
    /// The cursor as text: hex digits, safe in a URL.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(FIXED_LEN + self.position.key.len());
        bytes.push(VERSION);
        bytes.extend(self.fingerprint.to_be_bytes());
        bytes.extend(self.range.start_ns.to_be_bytes());
        bytes.extend(self.range.end_ns.to_be_bytes());
        bytes.extend(self.position.ts_ns.to_be_bytes());
        bytes.extend(self.position.skip.to_be_bytes());
        bytes.extend(&self.position.key);
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        hex::encode(&bytes)
    }

    /// Reads a cursor and checks that it belongs to the query of `fingerprint`.
    ///
    /// # Errors
    /// [`BadParameter`] for `cursor` when it is damaged, of another version, or of another query.
    pub fn decode(text: &str, fingerprint: u64) -> Result<Self, BadParameter> {
        let refuse =
            |why: &str| BadParameter::new("cursor", format!("{why}: pass next_cursor as it was given"));
        let bytes = hex::decode(text).filter(|b| (FIXED_LEN..=FIXED_LEN + LONGEST_KEY).contains(&b.len()));
        let bytes = bytes.ok_or_else(|| refuse("is not a cursor"))?;
        let (body, checksum) = bytes.split_at(bytes.len() - 4);
        if crc32fast::hash(body).to_be_bytes() != checksum {
            return Err(refuse("is damaged"));
        }
        if body[0] != VERSION {
            return Err(refuse("was made by another version of Obtrace"));
        }
        let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| body[at + i]));
        let cursor = Self {
            fingerprint: word(1),
            range: TimeRange { start_ns: word(9).cast_signed(), end_ns: word(17).cast_signed() },
            position: Position {
                ts_ns: word(25).cast_signed(),
                skip: u32::from_be_bytes(std::array::from_fn(|i| body[33 + i])),
                key: body[37..].to_vec(),
            },
        };
        if cursor.fingerprint != fingerprint {
            return Err(BadParameter::new(
                "cursor",
                "belongs to another query: keep all parameters but limit as they were, or start without a cursor",
            ));
        }
        Ok(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(key: &[u8]) -> Cursor {
        Cursor {
            fingerprint: 0xdead_beef_0102_0304,
            range: TimeRange { start_ns: -5, end_ns: 1_700_000_000_000_000_000 },
            position: Position { ts_ns: 1_699_999_999_999_999_999, key: key.to_vec(), skip: 3 },
        }
    }

    #[test]
    fn round_trips() {
        for key in [&b""[..], &[0, 255, 7], "näme".as_bytes(), &[9; LONGEST_KEY]] {
            let cursor = sample(key);
            assert_eq!(Cursor::decode(&cursor.encode(), cursor.fingerprint), Ok(cursor));
        }
    }

    #[test]
    fn refuses_a_cursor_with_any_digit_changed() {
        let text = sample(b"key").encode();
        for at in 0..text.len() {
            let mut digits = text.clone().into_bytes();
            digits[at] = if digits[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(digits).unwrap();
            assert_eq!(
                Cursor::decode(&changed, 0xdead_beef_0102_0304).unwrap_err().parameter,
                "cursor",
                "digit {at}"
            );
        }
    }

    #[test]
    fn refuses_what_is_cut_foreign_or_no_cursor() {
        let text = sample(b"key").encode();
        assert!(Cursor::decode(&text, 1).unwrap_err().detail.contains("another query"));
        for bad in ["", "zz", "00", &text[..text.len() - 2], &sample(&[1; LONGEST_KEY + 1]).encode()] {
            assert!(Cursor::decode(bad, 0xdead_beef_0102_0304).is_err());
        }
    }
}
