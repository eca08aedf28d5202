//! Turns records of the log, or some items of one, into one record batch, as a pure function.
//!
//! Same records and same verdict, same batch: a token then names the same rows however often they are built. An item that
//! cannot be turned into a row is named with its reason, and the others go on.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::RecordBatch;

use crate::backends::event_log::StoredRecord;
use crate::domain::columns::{AppendOutcome, BlockFull, LogColumns, MetricColumns, SpanColumns};
use crate::domain::envelope::{Envelope, Header, WireFormat};
use crate::domain::offence::{Cause, Item, Offence, Verdict};
use crate::domain::signal::Signal;
use crate::supervisors::kernel::{chaos, panics};
use crate::wire::Payload;
use crate::wire::envelope::{decode_payload, from_record_headers};
use crate::wire::limits::OtlpLimits;

/// What was built.
#[derive(Debug, Default)]
pub struct Built {
    /// Signal of the records; `None` when none could be read.
    pub signal: Option<Signal>,
    /// The rows, mostly in one batch; more where one would be too large.
    pub batches: Vec<RecordBatch>,
    /// Number of rows.
    pub rows: u64,
    /// Items that did not make it.
    pub offences: Vec<Offence>,
}

impl Built {
    fn keep(&mut self, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            self.rows += batch.num_rows() as u64;
            self.batches.push(batch);
        }
    }
}

/// Builds the rows of `records` without what is dead by `verdict`.
pub fn build<'a>(records: impl Iterator<Item = &'a StoredRecord>, verdict: &Verdict) -> Built {
    let mut builder: Option<Builder> = None;
    let mut out = Built::default();
    for record in records {
        let Some(dead) = verdict.dead_in(record.offset) else { continue };
        match open(record) {
            Ok((header, payload)) => {
                let part = Part { offset: record.offset, range: 0..u32::MAX, dead: &dead };
                part.add(&mut builder, &mut out, &header, &payload);
            }
            Err(offence) => out.offences.push(offence),
        }
    }
    finish(builder, out)
}

/// Builds the rows of some items of one record, without what is dead by `verdict`.
pub fn build_items(record: &StoredRecord, range: Range<u32>, verdict: &Verdict) -> Built {
    let mut builder = None;
    let mut out = Built::default();
    let Some(dead) = verdict.dead_in(record.offset) else { return out };
    match open(record) {
        Ok((header, payload)) => {
            let part = Part { offset: record.offset, range, dead: &dead };
            part.add(&mut builder, &mut out, &header, &payload);
        }
        Err(offence) => out.offences.push(offence),
    }
    finish(builder, out)
}

/// Builds the row of one item that was taken out of its record, to see whether that can be done.
pub fn build_alone(header: &Header, item: &Payload) {
    let mut builder = Builder::new(header.signal);
    // Whether the columns want it is judged, with all the others, when the block is built.
    drop(builder.append(header, item));
    builder.finish();
}

/// Reads a record: its header and its request.
///
/// # Errors
/// The offence of the record as a whole.
pub fn open(record: &StoredRecord) -> Result<(Header, Payload), Offence> {
    let unreadable = |error: crate::wire::WireError| Offence {
        item: Item::whole(record.offset),
        cause: Cause::Unreadable,
        reason: error.to_string(),
    };
    let header = from_record_headers(&record.record.headers).map_err(unreadable)?;
    let envelope = Envelope { header, payload: record.record.payload.clone() };
    let payload = decode_payload(&envelope, &OtlpLimits::default()).map_err(unreadable)?;
    Ok((envelope.header, payload))
}

/// Runs `work`; a panic comes back as text with its place.
///
/// # Errors
/// Where and why it panicked.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        format!("it panics at {}: {}", panics::take_location(), panics::message_of(&*payload))
    })
}

fn finish(builder: Option<Builder>, mut out: Built) -> Built {
    if let Some(mut builder) = builder {
        out.signal = Some(builder.signal());
        out.keep(builder.finish());
    }
    out
}

/// What of a record is wanted.
struct Part<'a> {
    offset: u64,
    range: Range<u32>,
    dead: &'a BTreeSet<u32>,
}

impl Part<'_> {
    fn add(&self, builder: &mut Option<Builder>, out: &mut Built, header: &Header, payload: &Payload) {
        let (wanted, numbers) = self.cut(payload);
        let builder = builder.get_or_insert_with(|| Builder::new(header.signal));
        let outcome = builder.append(header, &wanted).or_else(|_full| {
            out.keep(builder.finish());
            builder.append(header, &wanted)
        });
        let offence = |item, reason: String| Offence { item, cause: Cause::Unfit, reason };
        match outcome {
            Ok(Ok(outcome)) => {
                for rejected in outcome.rejected {
                    let index = numbers.get(rejected.index as usize).copied().unwrap_or(rejected.index);
                    out.offences.push(offence(Item::at(self.offset, index), rejected.reason.to_string()));
                }
            }
            Ok(Err(mismatch)) => out.offences.push(offence(Item::whole(self.offset), mismatch)),
            Err(full) => out.offences.push(offence(Item::whole(self.offset), full.to_string())),
        }
    }

    /// The wanted part of a request, and the numbers its items have in the whole; none where it is the whole.
    fn cut<'p>(&self, payload: &'p Payload) -> (Cow<'p, Payload>, Vec<u32>) {
        let count = u32::try_from(payload.count()).unwrap_or(u32::MAX);
        let range = self.range.start.min(count)..self.range.end.min(count);
        if self.dead.is_empty() && range == (0..count) {
            return (Cow::Borrowed(payload), Vec::new());
        }
        let numbers = range.clone().filter(|index| !self.dead.contains(index)).collect();
        (Cow::Owned(payload.part(range, self.dead)), numbers)
    }
}

#[expect(
    clippy::large_enum_variant,
    reason = "one of them a block: its size is nothing beside the columns it points to"
)]
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

    /// Adds a request. The inner error is a request of another signal.
    fn append(
        &mut self,
        header: &Header,
        payload: &Payload,
    ) -> Result<Result<AppendOutcome, String>, BlockFull> {
        chaos::poison(|| payload.encode(WireFormat::Json));
        let outcome = match (&mut *self, payload) {
            (Self::Spans(columns), Payload::Traces(request)) => columns.append(request, header),
            (Self::Logs(columns), Payload::Logs(request)) => columns.append(request, header),
            (Self::Metrics(columns), Payload::Metrics(request)) => columns.append(request, header),
            (builder, payload) => {
                let (has, wants) = (payload.signal(), builder.signal());
                return Ok(Err(format!("a batch of {has} in a block of {wants}")));
            }
        };
        outcome.map(Ok)
    }

    fn finish(&mut self) -> RecordBatch {
        match self {
            Self::Spans(columns) => columns.finish(),
            Self::Logs(columns) => columns.finish(),
            Self::Metrics(columns) => columns.finish(),
        }
    }
}
