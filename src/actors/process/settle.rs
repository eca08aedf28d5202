//! Settles one block: has its rows stored under tokens that name them, and puts aside what cannot be stored.
//!
//! In: a block with what is known about it. Out: rows to the store, letters to the log, and what became of it. What may
//! fail: single items, which get their letters while the rest is stored; the store or the log being away, which the
//! outcome says. How a block that the store refuses is stored in parts: by halves, down to the single item.

use std::ops::Range;
use std::time::Duration;

use arrow_array::RecordBatch;
use futures_util::stream::{self, StreamExt};

use super::letters::{Aside, Ladder, put_aside};
use super::transform::{Built, build, build_items, guarded};
use super::trial::{Found, Trial};
use crate::backends::event_log::StoredRecord;
use crate::clock;
use crate::domain::block::BlockId;
use crate::domain::failure::{Classified, FailureClass};
use crate::domain::offence::{Cause, Item, Offence, Verdict};
use crate::domain::signal::Signal;
use crate::messages::process::{BlockOutcome, ProcessBlock};
use crate::messages::store::StoreRows;
use crate::messages::stream::AppendRecord;
use crate::supervisors::kernel::port::Port;
use crate::telemetry::metrics::Metrics;
use crate::wire::envelope::{names, record_count};
use crate::wire::letter::{letter_id, text_of};

/// How long a store or an append may take before the block is given back.
const STORE_DEADLINE: Duration = Duration::from_secs(90);
/// Letters on their way into the log at the same time.
const APPENDS: usize = 64;
/// Parts of a block that are taken further apart. Beyond it a refused part is put aside item by item without asking the
/// store about each: where all is refused, all would be asked one by one.
const MOST_REFUSED: u32 = 256;

/// Where a worker's results go.
#[derive(Clone)]
pub struct Outlets {
    /// The telemetry writers.
    pub store: Port<StoreRows>,
    /// The producer, for letters.
    pub producer: Port<AppendRecord>,
    /// Counts.
    pub metrics: Metrics,
    /// Where suspects are tried.
    pub trial: Trial,
    /// Where letters go.
    pub ladder: Ladder,
}

/// Why a unit is not stored.
enum Trouble {
    /// These rows can never be stored together.
    Never(Cause, String),
    /// Something is away.
    Later(String),
}

impl Outlets {
    /// Settles `work`. `built` is called once its rows are there, before anything is stored: it says whether the worker may
    /// still act.
    pub async fn settle(
        &self,
        work: &ProcessBlock,
        suspect: bool,
        built: impl FnOnce() -> bool,
    ) -> BlockOutcome {
        if suspect || work.records.iter().any(|record| letter_id(&record.record.headers).is_some()) {
            match self.try_first(work).await {
                Ok(Some(found)) => {
                    return BlockOutcome::Found { verdict: found.verdict, suspect: !found.finished };
                }
                Ok(None) => {}
                Err(why) => return BlockOutcome::NotNow(why),
            }
        }
        let mut pass = Pass {
            outlets: self,
            block: &work.block,
            verdict: &work.verdict,
            guarded: suspect || !work.verdict.is_clean(),
            signal: None,
            rows: 0,
            offences: Vec::new(),
            refused: 0,
        };
        let stored = pass.run(&work.records, built).await;
        let (signal, rows, offences) = (pass.signal, pass.rows, pass.offences);
        match stored {
            Ok(()) => {}
            Err(Trouble::Never(_, why)) => {
                tracing::warn!(block = %work.block, why, "the block cannot be stored as one, storing it in parts");
                let verdict = Verdict { apart: true, ..work.verdict.clone() };
                return BlockOutcome::Found { verdict, suspect: false };
            }
            Err(Trouble::Later(why)) => return BlockOutcome::NotNow(why),
        }
        match self.put_aside(&work.block, &work.records, &offences).await {
            Ok(()) => {
                if let Some(signal) = signal {
                    self.metrics.settled(signal, rows);
                }
                BlockOutcome::Settled { rows, aside: offences.len() as u64 }
            }
            Err(why) => BlockOutcome::NotNow(why),
        }
    }

    /// Has the block tried in a process of its own. What is found there has its letters when this returns.
    async fn try_first(&self, work: &ProcessBlock) -> Result<Option<Found>, String> {
        let found = self.trial.hold(&work.records, &work.verdict).await?;
        if found.verdict == work.verdict {
            return Ok(None);
        }
        let (block, items, apart) = (&work.block, found.offences.len(), found.verdict.apart);
        tracing::warn!(%block, items, apart, "found guilty in a trial");
        self.put_aside(block, &work.records, &found.offences).await?;
        Ok(Some(found))
    }

    /// Puts items aside, each once: the key is its place.
    async fn put_aside(
        &self,
        block: &BlockId,
        records: &[StoredRecord],
        offences: &[Offence],
    ) -> Result<(), String> {
        let asides = put_aside(&self.ladder, block, records, offences, clock::unix_nanos());
        // Side by side: they share the syncs of the log.
        let mut appends = stream::iter(asides).map(|aside| self.append(aside)).buffer_unordered(APPENDS);
        while let Some(appended) = appends.next().await {
            appended?;
        }
        if let Some(first) = offences.first() {
            let (count, reason, cause) = (offences.len(), &first.reason, first.cause.as_str());
            tracing::warn!(%block, count, cause, reason, "put aside what cannot be stored; this is the first");
        }
        Ok(())
    }

    /// Appends a letter, and counts it where it was not there yet.
    async fn append(&self, aside: Aside) -> Result<(), String> {
        let Aside { topic, partition, record, dedup, cause } = aside;
        let signal = text_of(&record.headers, names::SIGNAL).and_then(Signal::parse);
        let make = |reply| AppendRecord { topic, partition, record, dedup: Some(dedup), reply };
        let appended = match self.producer.ask(make, STORE_DEADLINE).await {
            Ok(Ok(appended)) => appended,
            Ok(Err(error)) => return Err(format!("{topic} cannot be written: {error}")),
            Err(error) => return Err(format!("{topic} cannot be written: {error}")),
        };
        if !appended.duplicate {
            self.metrics.put_aside(cause, topic, signal);
        }
        Ok(())
    }
}

/// One pass over a block.
struct Pass<'a> {
    outlets: &'a Outlets,
    block: &'a BlockId,
    verdict: &'a Verdict,
    /// Panics are caught: the block was tried before, so a panic is known not to leave anything behind.
    guarded: bool,
    signal: Option<Signal>,
    rows: u64,
    offences: Vec<Offence>,
    /// Parts that were refused.
    refused: u32,
}

impl Pass<'_> {
    async fn run(&mut self, records: &[StoredRecord], built: impl FnOnce() -> bool) -> Result<(), Trouble> {
        let is_letter = |record: &&StoredRecord| letter_id(&record.record.headers).is_some();
        let letters: Vec<&StoredRecord> = records.iter().filter(is_letter).collect();
        let plain: Vec<&StoredRecord> = records.iter().filter(|record| !is_letter(record)).collect();
        if self.verdict.apart {
            if !built() {
                return Err(stale());
            }
            self.in_parts(&plain).await?;
        } else {
            let rows = self.build(|verdict| build(plain.iter().copied(), verdict));
            if !built() {
                return Err(stale());
            }
            self.store(rows?, self.block.to_string()).await?;
        }
        for letter in letters {
            self.letter(letter).await?;
        }
        Ok(())
    }

    /// Stores records by halves: each part under a token of its own, and what is refused is split.
    async fn in_parts(&mut self, records: &[&StoredRecord]) -> Result<(), Trouble> {
        self.guarded = true;
        let mut parts = vec![records];
        let mut whole = records.len() > 1;
        while let Some(part) = parts.pop() {
            let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
            let token = self.block.part(first.offset, last.offset + 1).to_string();
            // That the whole is refused is known already.
            if !std::mem::take(&mut whole) {
                let rows = self.build(|verdict| build(part.iter().copied(), verdict));
                match self.store_built(rows, token.clone()).await {
                    Ok(()) => continue,
                    Err(Trouble::Never(cause, why)) if part.len() == 1 => {
                        self.items_in_parts(first, &token, cause, why).await?;
                        continue;
                    }
                    Err(Trouble::Never(cause, why)) if self.is_enough() => {
                        let items = part.iter().map(|record| Item::whole(record.offset));
                        self.offences.extend(items.map(|item| untried(item, cause, &why)));
                        continue;
                    }
                    Err(Trouble::Never(..)) => {}
                    Err(later) => return Err(later),
                }
            }
            let (left, right) = part.split_at(part.len() / 2);
            parts.extend([right, left]);
        }
        Ok(())
    }

    /// Stores the items of a record that was refused by halves; what is refused alone is an offence.
    async fn items_in_parts(
        &mut self,
        record: &StoredRecord,
        token: &str,
        cause: Cause,
        why: String,
    ) -> Result<(), Trouble> {
        let count = record_count(&record.record.headers).max(1);
        if count == 1 {
            self.offences.push(Offence { item: Item::at(record.offset, 0), cause, reason: why });
            return Ok(());
        }
        let mut parts: Vec<Range<u32>> = halves(&(0..count)).into();
        while let Some(part) = parts.pop() {
            let token = format!("{token}-i{}-{}", part.start, part.end);
            let rows = self.build(|verdict| build_items(record, part.clone(), verdict));
            match self.store_built(rows, token).await {
                Ok(()) => {}
                Err(Trouble::Never(cause, reason)) if part.len() == 1 => {
                    self.offences.push(Offence { item: Item::at(record.offset, part.start), cause, reason });
                }
                Err(Trouble::Never(cause, why)) if self.is_enough() => {
                    let items = part.map(|index| Item::at(record.offset, index));
                    self.offences.extend(items.map(|item| untried(item, cause, &why)));
                }
                Err(Trouble::Never(..)) => parts.extend(halves(&part)),
                Err(later) => return Err(later),
            }
        }
        Ok(())
    }

    /// Counts a refused part. True when no more are taken apart.
    fn is_enough(&mut self) -> bool {
        self.refused += 1;
        self.refused > MOST_REFUSED
    }

    /// A letter that came back is stored alone under its id, so that it is stored once however often it comes.
    async fn letter(&mut self, record: &StoredRecord) -> Result<(), Trouble> {
        self.guarded = true;
        let Some(id) = letter_id(&record.record.headers) else { return Ok(()) };
        let token = format!("letter-{id}");
        let rows = self.build(|verdict| build_items(record, 0..u32::MAX, verdict));
        match self.store_built(rows, token.clone()).await {
            Err(Trouble::Never(cause, why)) => self.items_in_parts(record, &token, cause, why).await,
            other => other,
        }
    }

    fn build(&self, rows: impl FnOnce(&Verdict) -> Built) -> Result<Built, Trouble> {
        if self.guarded {
            guarded(|| rows(self.verdict)).map_err(|panic| Trouble::Never(Cause::Panic, panic))
        } else {
            Ok(rows(self.verdict))
        }
    }

    async fn store_built(&mut self, built: Result<Built, Trouble>, token: String) -> Result<(), Trouble> {
        self.store(built?, token).await
    }

    /// Stores what was built under `token`; its offences count once that is done.
    async fn store(&mut self, built: Built, token: String) -> Result<(), Trouble> {
        let Built { signal, mut batches, rows, offences } = built;
        if batches.len() > 1 {
            return Err(Trouble::Never(Cause::Unfit, String::from("it is too large for one insert")));
        }
        if let (Some(signal), Some(batch)) = (signal, batches.pop()) {
            self.insert(table(signal), batch, token).await?;
        }
        self.signal = self.signal.or(signal);
        self.rows += rows;
        self.offences.extend(offences);
        Ok(())
    }

    async fn insert(&self, table: &'static str, batch: RecordBatch, token: String) -> Result<(), Trouble> {
        let make = |reply| StoreRows { table, batch, token, reply };
        match self.outlets.store.ask(make, STORE_DEADLINE).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.class() == FailureClass::Poison => {
                Err(Trouble::Never(Cause::Refused, error.to_string()))
            }
            Ok(Err(error)) => Err(Trouble::Later(error.to_string())),
            Err(error) => Err(Trouble::Later(format!("the telemetry writer: {error}"))),
        }
    }
}

/// The worker was replaced while it worked; its successor has the block.
fn stale() -> Trouble {
    Trouble::Later(String::from("another worker has taken over"))
}

/// An item of a part that was refused, and is not taken further apart.
fn untried(item: Item, cause: Cause, why: &str) -> Offence {
    let reason =
        format!("refused with others, not asked alone since {MOST_REFUSED} parts were refused before: {why}");
    Offence { item, cause, reason }
}

fn halves(range: &Range<u32>) -> [Range<u32>; 2] {
    let middle = range.start + (range.end - range.start) / 2;
    [middle..range.end, range.start..middle]
}

fn table(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "spans",
        Signal::Logs => "logs",
        Signal::Metrics => "metrics",
    }
}

impl std::fmt::Debug for Outlets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outlets({:?}, {:?})", self.store, self.producer)
    }
}

#[cfg(test)]
mod tests;
