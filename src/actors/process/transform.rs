//! Turns the records of a block into one record batch, as a pure function.
//!
//! Same records, same batch: the block's id then names the same rows however often the block is processed. A record
//! that cannot be turned into rows is named with its reason, and the others go on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::RecordBatch;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use crate::backends::event_log::{Record, StoredRecord};
use crate::domain::block::BlockId;
use crate::domain::columns::{BlockFull, LogColumns, MetricColumns, SpanColumns};
use crate::domain::envelope::{Envelope, Header};
use crate::domain::signal::Signal;
use crate::supervisors::kernel::{chaos, panics};
use crate::wire::Payload;
use crate::wire::envelope::{decode_payload, from_record_headers};
use crate::wire::limits::OtlpLimits;

/// A record that cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// Its offset in the block's partition.
    pub offset: u64,
    /// Why.
    pub reason: String,
}

/// What a block became.
#[derive(Debug, Default)]
pub struct Transformed {
    /// Signal of the block's records; `None` when none could be read.
    pub signal: Option<Signal>,
    /// The rows, mostly in one batch; more where one would be too large.
    pub batches: Vec<RecordBatch>,
    /// Number of rows.
    pub rows: u64,
    /// Records that did not make it.
    pub dead: Vec<Dead>,
}

impl Transformed {
    fn keep(&mut self, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            self.rows += batch.num_rows() as u64;
            self.batches.push(batch);
        }
    }
}

/// Transforms a block. With `isolate`, every record is first tried alone with panics caught, so that one that crashes
/// the code is found and left out.
pub fn transform(records: &[StoredRecord], isolate: bool) -> Transformed {
    let mut builder: Option<Builder> = None;
    let mut out = Transformed::default();
    for record in records {
        let tried = if isolate { try_alone(record) } else { Ok(()) };
        let appended = tried.and_then(|()| {
            let (header, payload) = open(record)?;
            let builder = builder.get_or_insert_with(|| Builder::new(header.signal));
            match builder.append(&header, &payload) {
                Err(Unappended::Full(_)) => {
                    out.keep(builder.finish());
                    builder.append(&header, &payload).map_err(|error| error.to_string())
                }
                other => other.map_err(|error| error.to_string()),
            }
        });
        if let Err(reason) = appended {
            out.dead.push(Dead { offset: record.offset, reason });
        }
    }
    if let Some(mut builder) = builder {
        out.signal = Some(builder.signal());
        out.keep(builder.finish());
    }
    out
}

/// The dead letter for a record, and the key that makes burying it twice the same as once.
pub fn dead_letter(source: &StoredRecord, block: &BlockId, dead: &Dead) -> (Record, u128) {
    let mut record = source.record.clone();
    let place = format!("{}-{}-{}", block.topic, block.partition, source.offset);
    record.headers.retain(|(name, _)| name != "obtrace-last-error" && name != "obtrace-source");
    record.headers.push((String::from("obtrace-last-error"), Bytes::from(dead.reason.clone())));
    record.headers.push((String::from("obtrace-source"), Bytes::from(place.clone())));
    let attempts = from_record_headers(&source.record.headers).map_or(0, |header| header.attempts);
    let attempts = attempts.saturating_add(1).to_string();
    record.headers.retain(|(name, _)| name != "obtrace-attempts");
    record.headers.push((String::from("obtrace-attempts"), Bytes::from(attempts)));
    (record, xxh3_128(place.as_bytes()).max(1))
}

fn try_alone(record: &StoredRecord) -> Result<(), String> {
    let alone = || {
        let (header, payload) = open(record)?;
        let mut builder = Builder::new(header.signal);
        builder.append(&header, &payload).map_err(|error| error.to_string())?;
        builder.finish();
        Ok(())
    };
    catch_unwind(AssertUnwindSafe(alone)).unwrap_or_else(|payload| {
        Err(format!("it panics at {}: {}", panics::take_location(), panics::message_of(&*payload)))
    })
}

fn open(record: &StoredRecord) -> Result<(Header, Payload), String> {
    chaos::poison(&record.record.payload);
    let header = from_record_headers(&record.record.headers).map_err(|error| error.to_string())?;
    let envelope = Envelope { header, payload: record.record.payload.clone() };
    let payload = decode_payload(&envelope, &OtlpLimits::default()).map_err(|error| error.to_string())?;
    Ok((envelope.header, payload))
}

/// Why a record was not added to the batch.
#[derive(Debug, thiserror::Error)]
enum Unappended {
    #[error(transparent)]
    Full(BlockFull),
    #[error("{0}")]
    Bad(String),
}

enum Builder {
    Spans(SpanColumns),
    Logs(LogColumns),
    Metrics(MetricColumns),
}

impl Builder {
    fn new(signal: Signal) -> Self {
        match signal {
            Signal::Traces => Self::Spans(SpanColumns::new()),
            Signal::Logs => Self::Logs(LogColumns::new()),
            Signal::Metrics => Self::Metrics(MetricColumns::new()),
        }
    }

    fn signal(&self) -> Signal {
        match self {
            Self::Spans(_) => Signal::Traces,
            Self::Logs(_) => Signal::Logs,
            Self::Metrics(_) => Signal::Metrics,
        }
    }

    fn append(&mut self, header: &Header, payload: &Payload) -> Result<(), Unappended> {
        let outcome = match (self, payload) {
            (Self::Spans(columns), Payload::Traces(request)) => columns.append(request, header),
            (Self::Logs(columns), Payload::Logs(request)) => columns.append(request, header),
            (Self::Metrics(columns), Payload::Metrics(request)) => columns.append(request, header),
            (builder, payload) => {
                let (has, wants) = (payload.signal(), builder.signal());
                return Err(Unappended::Bad(format!("a batch of {has} in a block of {wants}")));
            }
        };
        let rejected = outcome.map_err(Unappended::Full)?.rejected;
        match rejected.first() {
            None => Ok(()),
            Some(first) => {
                let (count, index, reason) = (rejected.len(), first.index, &first.reason);
                Err(Unappended::Bad(format!(
                    "{count} of its records cannot be stored, first number {index}: {reason}"
                )))
            }
        }
    }

    fn finish(&mut self) -> RecordBatch {
        match self {
            Self::Spans(columns) => columns.finish(),
            Self::Logs(columns) => columns.finish(),
            Self::Metrics(columns) => columns.finish(),
        }
    }
}
