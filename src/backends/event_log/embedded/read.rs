//! Reads of durable records: (partition, offset) → records in order, by positioned reads without any lock of the writer.
//!
//! Every checksum is checked again. Damage at the asked offset is [`LogError::Corrupt`] with the offset to go on from.

use std::io;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::counters::Counters;
use super::frame::{Head, decode_body};
use super::partition::{Partition, Stretch};
use super::walk::{Found, Walker};
use crate::backends::event_log::{LogError, Offset, StoredRecord};

const READ_AHEAD: usize = 256 * 1024;

/// One read in progress.
pub(super) struct Reading<'a> {
    salt: u32,
    counters: &'a Counters,
    max_records: usize,
    max_bytes: usize,
    next: Offset,
    bytes: usize,
    records: Vec<StoredRecord>,
}

/// Whether the read goes on with the next segment.
#[derive(PartialEq, Eq)]
enum Flow {
    Continue,
    Done,
}

impl<'a> Reading<'a> {
    /// A read from `from` on, of at most `max_records` (at least one) and about `max_bytes`.
    pub(super) fn new(
        salt: u32,
        counters: &'a Counters,
        from: Offset,
        max_records: usize,
        max_bytes: usize,
    ) -> Self {
        Self { salt, counters, max_records, max_bytes, next: from, bytes: 0, records: Vec::new() }
    }

    /// Runs the read against `partition`. Blocks on the disk.
    pub(super) fn run(mut self, partition: &Partition) -> Result<Vec<StoredRecord>, LogError> {
        for stretch in partition.plan(self.next)? {
            if self.stretch(&stretch)? == Flow::Done {
                break;
            }
        }
        Ok(self.records)
    }

    fn stretch(&mut self, stretch: &Stretch) -> Result<Flow, LogError> {
        let file = match stretch.segment.handle() {
            Ok(file) => file,
            // Retention removed the segment after the plan was made.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.records.is_empty() => {
                return Err(LogError::OutOfRange { offset: self.next, start: stretch.end });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Flow::Done),
            Err(error) => return Err(error.into()),
        };
        let ahead = READ_AHEAD.min(self.max_bytes.max(16 * 1024)) as u64;
        let start = stretch.segment.position_of(self.next);
        let mut walker = Walker::new(&file, self.salt, start, stretch.limit, ahead);
        loop {
            let flow = match walker.look()? {
                Found::End if self.next < stretch.end => {
                    self.damage(stretch, &walker, "records are missing", stretch.end).map(Some)?
                }
                Found::End => Some(Flow::Continue),
                Found::Frame(head) if head.offset < self.next => {
                    walker.step(&head);
                    None
                }
                Found::Frame(head) if head.offset > self.next => {
                    self.damage(stretch, &walker, "records are missing", head.offset).map(Some)?
                }
                Found::Frame(head) => match walker.body(&head)? {
                    Some(body) => self.take(stretch, &mut walker, &head, &body)?,
                    None => self.pass(stretch, &mut walker, "a record does not match its checksum")?,
                },
                Found::Bad(what) => self.pass(stretch, &mut walker, what)?,
            };
            if let Some(flow) = flow {
                return Ok(flow);
            }
        }
    }

    fn take(
        &mut self,
        stretch: &Stretch,
        walker: &mut Walker<'_>,
        head: &Head,
        body: &Bytes,
    ) -> Result<Option<Flow>, LogError> {
        let record = match decode_body(body) {
            Ok(record) => record,
            Err(what) => return self.damage(stretch, walker, what, head.offset + 1).map(Some),
        };
        self.bytes = self.bytes.saturating_add(record.size());
        if !self.records.is_empty() && self.bytes > self.max_bytes {
            return Ok(Some(Flow::Done));
        }
        self.records.push(StoredRecord { offset: head.offset, record });
        self.next = head.offset + 1;
        walker.step(head);
        let full = self.records.len() >= self.max_records || self.bytes >= self.max_bytes;
        Ok(full.then_some(Flow::Done))
    }

    // Damage whose end is to be searched for; `None` when it lies wholly before the asked offset and the walker now
    // stands behind it. There is no search while there is something to return before the damage.
    fn pass(
        &mut self,
        stretch: &Stretch,
        walker: &mut Walker<'_>,
        what: &'static str,
    ) -> Result<Option<Flow>, LogError> {
        if !self.records.is_empty() {
            return Ok(Some(Flow::Done));
        }
        let position = walker.position();
        match walker.resync()?.map_or(stretch.end, |head| head.offset) {
            next if next <= self.next => Ok(None),
            next => Err(self.corrupt(stretch, position, what, next)),
        }
    }

    fn damage(
        &mut self,
        stretch: &Stretch,
        walker: &Walker<'_>,
        what: &'static str,
        next: Offset,
    ) -> Result<Flow, LogError> {
        if self.records.is_empty() {
            return Err(self.corrupt(stretch, walker.position(), what, next));
        }
        Ok(Flow::Done)
    }

    fn corrupt(&self, stretch: &Stretch, position: u64, what: &str, next: Offset) -> LogError {
        self.counters.corrupt.fetch_add(1, Ordering::Relaxed);
        let file = stretch.segment.path.display().to_string();
        LogError::Corrupt { file, position, what: what.to_owned(), next }
    }
}
