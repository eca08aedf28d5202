//! The shelf: the dead letters as they lie in the log. Numbers and filters in, letters out; only reads.

use std::sync::Arc;

use super::replays::Replays;
use crate::backends::event_log::{EventLog, LogError, StoredRecord};
use crate::domain::dead_letters::{LetterDetail, LetterFilter, LetterInfo, LetterPage, LettersError};
use crate::domain::envelope::{Envelope, WireFormat};
use crate::domain::signal::{DLQ_TOPIC, Signal};
use crate::wire::envelope::{decode_payload, from_record_headers, names};
use crate::wire::letter::{Letter, text_of};
use crate::wire::limits::OtlpLimits;

/// Letters read at a time on the way back from the newest.
const WINDOW: u64 = 64;
/// Bytes read at a time.
const READ_BYTES: usize = 8 << 20;
/// Letters looked through for one answer.
const MOST_SEEN: u64 = 20_000;

/// The dead letters in the log.
#[derive(Clone)]
pub(super) struct Shelf {
    log: Arc<dyn EventLog>,
}

/// The log's error as the one who asks is told.
pub(super) fn unavailable(error: impl std::fmt::Display) -> LettersError {
    LettersError::Unavailable(error.to_string())
}

impl Shelf {
    pub(super) fn new(log: Arc<dyn EventLog>) -> Self {
        Self { log }
    }

    pub(super) fn partitions(&self, topic: &str) -> u32 {
        self.log.partitions(topic).unwrap_or(0)
    }

    /// A page of what `filter` takes, newest first.
    pub(super) async fn page(
        &self,
        filter: &LetterFilter,
        limit: usize,
        before: Option<u64>,
        replays: &Replays,
    ) -> Result<LetterPage, LettersError> {
        let mut items = Vec::new();
        let next_cursor = self
            .walk_back(before, |stored| {
                let info = info_of(stored, replays);
                if filter.takes(&info) {
                    items.push(info);
                }
                items.len() < limit
            })
            .await?;
        Ok(LetterPage { items, next_cursor })
    }

    /// One letter with all it holds.
    pub(super) async fn show(&self, id: u64, replays: &Replays) -> Result<LetterDetail, LettersError> {
        let stored = self.letter(id).await?.ok_or(LettersError::NoSuchLetter(id))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = stored.record.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        let (payload, unreadable) = match as_json(&stored) {
            Ok(payload) => (Some(payload), None),
            Err(why) => (None, Some(why)),
        };
        Ok(LetterDetail { info: info_of(&stored, replays), headers, payload, unreadable })
    }

    /// The letter of this number.
    pub(super) async fn letter(&self, id: u64) -> Result<Option<StoredRecord>, LettersError> {
        let (start, end) = self.log.bounds(DLQ_TOPIC, 0).map_err(unavailable)?;
        if !(start..end).contains(&id) {
            return Ok(None);
        }
        Ok(self.range(DLQ_TOPIC, id, id + 1).await?.pop())
    }

    /// Shows letters to `visit`, newest first from below `before`, until it has enough, the shelf ends or many were seen.
    /// Returns where to go on.
    pub(super) async fn walk_back(
        &self,
        before: Option<u64>,
        mut visit: impl FnMut(&StoredRecord) -> bool,
    ) -> Result<Option<u64>, LettersError> {
        let (start, end) = self.log.bounds(DLQ_TOPIC, 0).map_err(unavailable)?;
        let mut upper = before.unwrap_or(end).min(end);
        let lowest = start.max(upper.saturating_sub(MOST_SEEN));
        while upper > lowest {
            let lower = upper.saturating_sub(WINDOW).max(lowest);
            for stored in self.range(DLQ_TOPIC, lower, upper).await?.iter().rev() {
                if !visit(stored) {
                    return Ok((stored.offset > start).then_some(stored.offset));
                }
            }
            upper = lower;
        }
        Ok((upper > start).then_some(upper))
    }

    /// First number still there, and the one past the last.
    pub(super) fn bounds(&self, topic: &str) -> Result<(u64, u64), LettersError> {
        self.log.bounds(topic, 0).map_err(unavailable)
    }

    /// The records `from..to` of a topic, apart from those that are gone or damaged.
    pub(super) async fn range(
        &self,
        topic: &str,
        mut from: u64,
        to: u64,
    ) -> Result<Vec<StoredRecord>, LettersError> {
        let mut found = Vec::new();
        while from < to {
            let most = usize::try_from(to - from).unwrap_or(usize::MAX);
            match self.log.read(topic, 0, from, most, READ_BYTES).await {
                Ok(records) => {
                    let Some(last) = records.last() else { break };
                    from = last.offset + 1;
                    found.extend(records.into_iter().filter(|record| record.offset < to));
                }
                Err(LogError::OutOfRange { start, .. }) if start > from => from = start,
                Err(LogError::Corrupt { next, .. }) if next > from => from = next,
                Err(error) => return Err(unavailable(error)),
            }
        }
        Ok(found)
    }
}

/// What a list says of a letter.
pub(super) fn info_of(stored: &StoredRecord, replays: &Replays) -> LetterInfo {
    let headers = &stored.record.headers;
    let text = |name: &str| text_of(headers, name).unwrap_or_default().to_owned();
    let letter = Letter::of(headers).unwrap_or_default();
    let (replayed, replayed_at_ns) = replays.of(stored.offset);
    LetterInfo {
        id: stored.offset,
        tenant: text(names::TENANT),
        project: text(names::PROJECT),
        signal: text_of(headers, names::SIGNAL).and_then(Signal::parse),
        source: letter.id,
        class: letter.cause,
        reason: letter.reason,
        attempts: letter.attempts,
        first_failed_ns: letter.first_failed_ns,
        last_failed_ns: letter.last_failed_ns,
        size: stored.record.payload.len(),
        replayed,
        replayed_at_ns,
    }
}

fn as_json(stored: &StoredRecord) -> Result<serde_json::Value, String> {
    let header = from_record_headers(&stored.record.headers).map_err(|error| error.to_string())?;
    let envelope = Envelope { header, payload: stored.record.payload.clone() };
    let payload = decode_payload(&envelope, &OtlpLimits::default()).map_err(|error| error.to_string())?;
    serde_json::from_slice(&payload.encode(WireFormat::Json)).map_err(|error| error.to_string())
}
