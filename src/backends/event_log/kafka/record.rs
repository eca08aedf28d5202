//! A record of the port as a message at the broker, and back.
//!
//! Key and payload travel as they are, headers as Kafka headers of the same names and order. Behind them stands one of our
//! own, the dedup key. Cannot fail: what has no form in the port (no key, no value) is empty there.

use bytes::Bytes;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};

use crate::backends::event_log::{Offset, Record, StoredRecord};

/// Header of the dedup key: 16 bytes, little endian.
const DEDUP_HEADER: &str = "obtrace-dedup";

/// A message as it was read.
pub(super) struct Fetched {
    pub stored: StoredRecord,
    pub dedup: Option<u128>,
    /// Milliseconds since 1970, by the broker's clock where the topic says so.
    pub time_ms: i64,
}

/// The headers of `record` and its dedup key.
pub(super) fn headers(record: &Record, dedup: Option<u128>) -> OwnedHeaders {
    let mut out = OwnedHeaders::new_with_capacity(record.headers.len() + 1);
    for (key, value) in &record.headers {
        out = out.insert(Header { key, value: Some(value.as_ref()) });
    }
    match dedup {
        Some(key) => out.insert(Header { key: DEDUP_HEADER, value: Some(&key.to_le_bytes()[..]) }),
        None => out,
    }
}

/// The record in `message`.
pub(super) fn fetched(message: &BorrowedMessage<'_>) -> Fetched {
    let mut headers = Vec::new();
    let mut dedup = None;
    for header in message.headers().into_iter().flat_map(Headers::iter) {
        let value = header.value.unwrap_or_default();
        match value.try_into() {
            Ok(key) if header.key == DEDUP_HEADER => dedup = Some(u128::from_le_bytes(key)),
            _ => headers.push((header.key.to_owned(), Bytes::copy_from_slice(value))),
        }
    }
    let bytes = |part: Option<&[u8]>| part.map(Bytes::copy_from_slice).unwrap_or_default();
    let record = Record { key: bytes(message.key()), headers, payload: bytes(message.payload()) };
    Fetched {
        stored: StoredRecord { offset: offset(message), record },
        dedup,
        time_ms: message.timestamp().to_millis().unwrap_or(0),
    }
}

/// Where it stands.
pub(super) fn offset(message: &BorrowedMessage<'_>) -> Offset {
    Offset::try_from(message.offset()).unwrap_or(0)
}
