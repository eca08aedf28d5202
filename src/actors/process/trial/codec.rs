//! What goes between a worker and the process in which it has a block tried: one order with its records in, marks out.
//!
//! In: a line of JSON, then the records in binary. Out: a line of JSON for each step, written before the step is taken,
//! so that the last line of a process that ended names what ended it.

use std::io::{self, Read};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::backends::event_log::{Record, StoredRecord};
use crate::domain::offence::{Item, Offence, Verdict};

/// Largest record that is taken in; the log's own limit is below.
const MAX_PIECE: u32 = 1 << 30;

/// What is to be tried.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    /// What is known already; dead items are left out.
    pub(super) verdict: Verdict,
    /// Which steps.
    pub(super) steps: Steps,
    /// Number of records that follow.
    pub(super) records: u32,
}

/// Which steps a trial takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Steps {
    /// Building what will be built: the block, or each of its records where it is stored in parts.
    Rehearse,
    /// Every item alone; those up to this one were tried before.
    Alone {
        /// The last one that was tried.
        after: Option<Item>,
    },
}

/// A line of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mark {
    /// It has read its order.
    Begun,
    /// It is about to build the record at this offset, or the whole block.
    Rehearse(Option<u64>),
    /// It is about to try this.
    Try(Item),
    /// Trying it ended in a panic, which was caught.
    Bad(Offence),
    /// The rehearsal panicked, which was caught.
    Failed(String),
    /// All was tried.
    Done,
}

/// Writes an order with its records.
pub(super) fn write(order: &Order, records: &[StoredRecord]) -> io::Result<Vec<u8>> {
    let mut out = serde_json::to_vec(order)?;
    out.push(b'\n');
    for StoredRecord { offset, record } in records {
        out.extend_from_slice(&offset.to_le_bytes());
        piece(&mut out, &record.key);
        out.extend_from_slice(&u32::try_from(record.headers.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (name, value) in &record.headers {
            piece(&mut out, name.as_bytes());
            piece(&mut out, value);
        }
        piece(&mut out, &record.payload);
    }
    Ok(out)
}

fn piece(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Reads an order with its records.
///
/// # Errors
/// The input ends early or is not what [`write()`] wrote.
pub(super) fn read(from: &mut impl io::BufRead) -> io::Result<(Order, Vec<StoredRecord>)> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    let order: Order = serde_json::from_slice(&line)?;
    let records = (0..order.records).map(|_| record(from)).collect::<io::Result<_>>()?;
    Ok((order, records))
}

fn record(from: &mut impl Read) -> io::Result<StoredRecord> {
    let mut offset = [0; 8];
    from.read_exact(&mut offset)?;
    let key = take(from)?;
    let headers = (0..number(from)?)
        .map(|_| Ok((String::from_utf8_lossy(&take(from)?).into_owned(), take(from)?)))
        .collect::<io::Result<_>>()?;
    let payload = take(from)?;
    Ok(StoredRecord { offset: u64::from_le_bytes(offset), record: Record { key, headers, payload } })
}

fn take(from: &mut impl Read) -> io::Result<Bytes> {
    let length = number(from)?;
    if length > MAX_PIECE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a piece of {length} bytes")));
    }
    let mut bytes = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != u64::from(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Bytes::from(bytes))
}

fn number(from: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<StoredRecord> {
        let record = |n: u64| Record {
            key: Bytes::from_static(b"key"),
            headers: (0..n).map(|h| (format!("name{h}"), Bytes::from(h.to_string()))).collect(),
            payload: Bytes::from(vec![7; n as usize * 100]),
        };
        (0..3).map(|n| StoredRecord { offset: 10 + n, record: record(n) }).collect()
    }

    #[test]
    fn an_order_comes_back_as_it_was_written() {
        let verdict = Verdict { apart: true, dead: [Item::at(10, 1), Item::whole(11)].into() };
        let order = Order { verdict, steps: Steps::Alone { after: Some(Item::at(10, 3)) }, records: 3 };
        let bytes = write(&order, &records()).unwrap();
        let (again, read_back) = read(&mut &bytes[..]).unwrap();
        assert_eq!(format!("{again:?}"), format!("{order:?}"));
        assert_eq!(read_back.len(), 3);
        for (one, other) in read_back.iter().zip(records()) {
            assert_eq!((one.offset, &one.record), (other.offset, &other.record));
        }
        for cut in [0, 5, bytes.len() - 1] {
            assert!(read(&mut &bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
