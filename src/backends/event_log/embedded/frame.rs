//! One record as bytes: record → head + body with checksums, and back; what does not check out is told, never guessed.
//!
//! A frame is a 48-byte head and a body. The head has its own checksum, so that a log can be walked by heads alone and
//! found again after damage. Every checksum starts from the log's random salt: bytes that a client puts into a payload
//! can therefore not pass for a frame when the log searches for one after a corruption.

use bytes::Bytes;
use crc32fast::Hasher;

use crate::backends::event_log::Record;

/// Bytes of a frame's head.
pub(super) const HEAD_LEN: usize = 48;
/// First bytes of every frame.
pub(super) const MARKER: [u8; 4] = [0xB7, b'O', b'F', b'R'];

const FLAG_LZ4: u8 = 1;
const COMPRESS_FROM: usize = 1024;

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of the body.
    pub body_len: u32,
    /// Offset of the record.
    pub offset: u64,
    /// Append time, Unix nanoseconds.
    pub time_ns: u64,
    /// Dedup key, 0 for none.
    pub dedup: u128,
    /// Checksum of the body.
    pub body_crc: u32,
}

/// The variable part of a frame, ready to be written: what comes before the payload, and the payload as stored.
pub(super) struct Body {
    meta: Vec<u8>,
    payload: Bytes,
    crc: u32,
}

// === impl Head ===

impl Head {
    /// The head of the frame that carries `body`.
    pub(super) fn of(body: &Body, offset: u64, time_ns: u64, dedup: Option<u128>) -> Self {
        Self { body_len: body.len() as u32, offset, time_ns, dedup: dedup.unwrap_or(0), body_crc: body.crc }
    }

    /// Bytes of the whole frame.
    pub(super) fn frame_len(&self) -> u64 {
        HEAD_LEN as u64 + u64::from(self.body_len)
    }

    /// The head as bytes.
    pub(super) fn encode(&self, salt: u32) -> [u8; HEAD_LEN] {
        let mut out = [0; HEAD_LEN];
        out[..4].copy_from_slice(&MARKER);
        out[4..8].copy_from_slice(&self.body_len.to_le_bytes());
        out[8..16].copy_from_slice(&self.offset.to_le_bytes());
        out[16..24].copy_from_slice(&self.time_ns.to_le_bytes());
        out[24..40].copy_from_slice(&self.dedup.to_le_bytes());
        out[40..44].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = checksum(salt, &[&out[..44]]);
        out[44..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The head in `bytes`, or `None` when marker or checksum are not those of one.
    pub(super) fn decode(bytes: &[u8], salt: u32) -> Option<Self> {
        let bytes: &[u8; HEAD_LEN] = bytes.get(..HEAD_LEN)?.try_into().ok()?;
        let crc = u32::from_le_bytes(*bytes.last_chunk()?);
        if bytes[..4] != MARKER || checksum(salt, &[&bytes[..44]]) != crc {
            return None;
        }
        let mut rest = &bytes[4..];
        Some(Self {
            body_len: take_u32(&mut rest)?,
            offset: u64::from_le_bytes(*take::<8>(&mut rest)?),
            time_ns: u64::from_le_bytes(*take::<8>(&mut rest)?),
            dedup: u128::from_le_bytes(*take::<16>(&mut rest)?),
            body_crc: take_u32(&mut rest)?,
        })
    }

    /// Whether `body` is what was written under this head.
    pub(super) fn matches(&self, body: &[u8], salt: u32) -> bool {
        checksum(salt, &[body]) == self.body_crc
    }
}

// === impl Body ===

impl Body {
    /// Encodes a record, its payload compressed if `lz4` is on and it gains at least a sixteenth.
    /// Takes about 1 ms of CPU per MiB, on the calling thread: the writer thread is to wait for the disk only.
    pub(super) fn encode(record: &Record, lz4: bool, salt: u32) -> Self {
        let packed = Some(&record.payload)
            .filter(|p| lz4 && p.len() > COMPRESS_FROM)
            .map(|p| lz4_flex::block::compress(p))
            .filter(|packed| packed.len() < record.payload.len() / 16 * 15);
        let names: usize = record.headers.iter().map(|(k, v)| k.len() + v.len() + 8).sum();
        let mut meta = Vec::with_capacity(13 + record.key.len() + names);
        meta.push(if packed.is_some() { FLAG_LZ4 } else { 0 });
        put(&mut meta, &record.key);
        meta.extend_from_slice(&(record.headers.len() as u32).to_le_bytes());
        for (name, value) in &record.headers {
            put(&mut meta, name.as_bytes());
            put(&mut meta, value);
        }
        meta.extend_from_slice(&(record.payload.len() as u32).to_le_bytes());
        let payload = packed.map_or_else(|| record.payload.clone(), Bytes::from);
        let crc = checksum(salt, &[&meta, &payload]);
        Self { meta, payload, crc }
    }

    /// Bytes of the body.
    pub(super) fn len(&self) -> usize {
        self.meta.len() + self.payload.len()
    }

    /// The two pieces, in the order they are written.
    pub(super) fn pieces(&self) -> [&[u8]; 2] {
        [&self.meta, &self.payload]
    }
}

/// The record in a body whose checksum is right. Key, header values and an uncompressed payload share `body`'s memory.
///
/// # Errors
/// What is wrong with the body, if its inner lengths contradict each other.
pub(super) fn decode_body(body: &Bytes) -> Result<Record, &'static str> {
    parse_body(body).ok_or("the inner lengths of a record contradict each other")
}

fn parse_body(body: &Bytes) -> Option<Record> {
    let mut rest: &[u8] = body;
    let [flags] = *take::<1>(&mut rest)?;
    let key = body.slice_ref(take_block(&mut rest)?);
    let count = take_u32(&mut rest)? as usize;
    let mut headers = Vec::with_capacity(count.min(rest.len() / 8));
    for _ in 0..count {
        let name = std::str::from_utf8(take_block(&mut rest)?).ok()?.to_owned();
        headers.push((name, body.slice_ref(take_block(&mut rest)?)));
    }
    let raw_len = take_u32(&mut rest)? as usize;
    let payload = if flags & FLAG_LZ4 == 0 {
        body.slice_ref(rest)
    } else if raw_len / 256 > rest.len() {
        return None; // LZ4 cannot expand beyond 255 to 1: do not allocate for it
    } else {
        Bytes::from(lz4_flex::block::decompress(rest, raw_len).ok()?)
    };
    (payload.len() == raw_len).then_some(Record { key, headers, payload })
}

fn checksum(salt: u32, parts: &[&[u8]]) -> u32 {
    let mut hasher = Hasher::new_with_initial(salt);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(head)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take::<4>(rest).map(|b| u32::from_le_bytes(*b))
}

fn take_block<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take_u32(rest)? as usize;
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(body: &Body) -> Bytes {
        Bytes::from(body.pieces().concat())
    }

    fn record() -> impl Strategy<Value = Record> {
        let small = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let payload = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..3000),
            (any::<u8>(), 0..9000_usize).prop_map(|(b, n)| vec![b; n]),
        ];
        let headers = proptest::collection::vec(("[a-zé-]{0,12}", small()), 0..5);
        (small(), headers, payload.prop_map(Bytes::from)).prop_map(|(key, headers, payload)| Record {
            key,
            headers,
            payload,
        })
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(record in record(), lz4: bool, salt: u32, offset: u64, dedup: Option<u128>) {
            let body = Body::encode(&record, lz4, salt);
            let head = Head::of(&body, offset, 7, dedup);
            let bytes = bytes_of(&body);
            prop_assert_eq!(Head::decode(&head.encode(salt), salt), Some(head));
            prop_assert!(head.matches(&bytes, salt));
            prop_assert_eq!(decode_body(&bytes), Ok(record));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_body(&Bytes::from(noise.clone()));
            prop_assert_eq!(Head::decode(&noise, 1), None);
        }

        #[test]
        fn every_flipped_bit_of_a_head_is_seen(bit in 0..HEAD_LEN * 8) {
            let body = Body::encode(&Record { key: Bytes::new(), headers: vec![], payload: Bytes::from("x") }, true, 3);
            let mut bytes = Head::of(&body, 9, 8, Some(7)).encode(3);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Head::decode(&bytes, 3), None);
        }
    }

    #[test]
    fn a_frame_of_another_salt_is_no_frame() {
        let body =
            Body::encode(&Record { key: Bytes::new(), headers: vec![], payload: Bytes::from("x") }, true, 3);
        assert_eq!(Head::decode(&Head::of(&body, 0, 0, None).encode(3), 4), None);
    }

    #[test]
    fn a_repetitive_payload_is_stored_smaller() {
        let record = Record { key: Bytes::new(), headers: vec![], payload: Bytes::from(vec![1; 100_000]) };
        assert!(Body::encode(&record, true, 0).len() < 1_000);
        assert!(Body::encode(&record, false, 0).len() > 100_000);
    }
}
