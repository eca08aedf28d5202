//! Replays: letters go back into their source topics, and the log remembers how often, when and by whom.
//!
//! Each put-back is a record in a topic of its own, appended after the letter itself. A process that ends between the two
//! gives the next replay the same number and thereby the same dedup key; and whatever is put back is stored under the
//! letter's id, so that even a letter that is replayed twice is stored once.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::shelf::{Shelf, info_of, unavailable};
use crate::backends::event_log::{Record, StoredRecord};
use crate::clock;
use crate::domain::dead_letters::{LettersError, MOST_LETTERS, Replayed, Selection};
use crate::domain::signal::{REPLAYS_TOPIC, Signal};
use crate::messages::stream::AppendRecord;
use crate::supervisors::kernel::port::Port;
use crate::wire::envelope::names;
use crate::wire::letter::{Letter, dedup_key, text_of};

/// How long an append may take.
const APPEND_DEADLINE: Duration = Duration::from_secs(10);
/// Events read at a time when the desk opens.
const READ_EVENTS: u64 = 10_000;

/// What was put back, by number of the letter.
#[derive(Debug, Default)]
pub(super) struct Replays {
    by_letter: BTreeMap<u64, (u32, u64)>,
}

/// One put-back, as the log keeps it.
#[derive(Debug, Serialize, Deserialize)]
struct Event {
    letter: u64,
    number: u32,
    at_ns: u64,
    who: String,
}

impl Replays {
    /// How often a letter was put back, and when last.
    pub(super) fn of(&self, letter: u64) -> (u32, Option<u64>) {
        self.by_letter.get(&letter).map_or((0, None), |(number, at)| (*number, Some(*at)))
    }

    fn note(&mut self, event: &Event) {
        self.by_letter.insert(event.letter, (event.number, event.at_ns));
    }
}

/// Reads what was replayed before; what concerns letters that are gone is passed over.
pub(super) async fn restore(shelf: &Shelf) -> Result<Replays, LettersError> {
    let (oldest, _) = shelf.bounds(crate::domain::signal::DLQ_TOPIC)?;
    let (mut from, end) = shelf.bounds(REPLAYS_TOPIC)?;
    let mut replays = Replays::default();
    while from < end {
        let to = end.min(from + READ_EVENTS);
        for stored in shelf.range(REPLAYS_TOPIC, from, to).await? {
            match serde_json::from_slice::<Event>(&stored.record.payload) {
                Ok(event) if event.letter >= oldest => replays.note(&event),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(offset = stored.offset, %error, "an event of a replay cannot be read")
                }
            }
        }
        from = to;
    }
    Ok(replays)
}

/// One order to replay.
pub(super) struct Job<'a> {
    pub(super) shelf: &'a Shelf,
    pub(super) producer: &'a Port<AppendRecord>,
    pub(super) who: &'a str,
    pub(super) dry_run: bool,
}

impl Job<'_> {
    pub(super) async fn run(
        &self,
        what: &Selection,
        replays: &mut Replays,
    ) -> Result<Replayed, LettersError> {
        let mut done = Replayed { dry_run: self.dry_run, ..Replayed::default() };
        match what {
            Selection::Ids(ids) => {
                for id in ids.iter().take(MOST_LETTERS) {
                    match self.shelf.letter(*id).await? {
                        Some(stored) => self.one(stored, replays, &mut done).await?,
                        None => done.not_replayed.push(*id),
                    }
                }
            }
            Selection::Matching(filter, before) => {
                let page = self.shelf.page(filter, MOST_LETTERS, *before, replays).await?;
                done.next_cursor = page.next_cursor;
                for info in page.items {
                    if let Some(stored) = self.shelf.letter(info.id).await? {
                        self.one(stored, replays, &mut done).await?;
                    }
                }
            }
        }
        if !self.dry_run && !done.items.is_empty() {
            tracing::info!(letters = done.items.len(), who = self.who, "dead letters were put back");
        }
        Ok(done)
    }

    async fn one(
        &self,
        stored: StoredRecord,
        replays: &mut Replays,
        done: &mut Replayed,
    ) -> Result<(), LettersError> {
        let id = stored.offset;
        let number = replays.of(id).0.saturating_add(1);
        let Some(back) = put_back(self.shelf, &stored, number) else {
            done.not_replayed.push(id);
            return Ok(());
        };
        if !self.dry_run {
            self.append(back).await?;
            let event = Event { letter: id, number, at_ns: clock::unix_nanos(), who: self.who.to_owned() };
            let payload = Bytes::from(serde_json::to_vec(&event).map_err(unavailable)?);
            let record = Record { key: Bytes::new(), headers: Vec::new(), payload };
            self.append(Back { topic: REPLAYS_TOPIC, partition: 0, record, dedup: key(id, number) }).await?;
            replays.note(&event);
        }
        done.items.push(info_of(&stored, replays));
        Ok(())
    }

    async fn append(&self, back: Back) -> Result<(), LettersError> {
        let Back { topic, partition, record, dedup } = back;
        let make = |reply| AppendRecord { topic, partition, record, dedup: Some(dedup), reply };
        match self.producer.ask(make, APPEND_DEADLINE).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(unavailable(error)),
            Err(error) => Err(unavailable(error)),
        }
    }
}

/// A record on its way back.
struct Back {
    topic: &'static str,
    partition: u32,
    record: Record,
    dedup: u128,
}

fn key(letter: u64, number: u32) -> u128 {
    dedup_key(&format!("replay {letter} {number}"))
}

/// The record that puts a letter back into its source topic; `None` where it does not say which signal it is.
fn put_back(shelf: &Shelf, stored: &StoredRecord, number: u32) -> Option<Back> {
    let mut record = stored.record.clone();
    let signal = text_of(&record.headers, names::SIGNAL).and_then(Signal::parse)?;
    let letter = Letter::of(&record.headers)?;
    let partitions = shelf.partitions(signal.topic()).max(1);
    let from = letter.source.rsplit('-').nth(1).and_then(|partition| partition.parse().ok()).unwrap_or(0);
    Letter { replay: letter.replay.saturating_add(1), ..letter }.write(&mut record.headers);
    Some(Back {
        topic: signal.topic(),
        partition: from % partitions,
        record,
        dedup: key(stored.offset, number),
    })
}
