//! The OTLP worker: turns one block into rows, has them stored, and sees to what cannot be stored.
//!
//! In: [`ProcessBlock`] from the partition consumers. Out: [`StoreRows`] under the block's id, dead letters to the log.
//! What may fail: single records (dead letters, the rest goes on); the store or the log being away (the consumer sends
//! the block again). A block that crashed its worker before is looked at record by record.

use std::time::Duration;

use actix::AsyncContext;
use actix::fut::wrap_future;
use arrow_array::RecordBatch;

use super::transform::{Dead, Transformed, dead_letter, transform};
use super::watch;
use crate::backends::event_log::StoredRecord;
use crate::clock;
use crate::domain::block::BlockId;
use crate::domain::failure::{Classified, FailureClass};
use crate::domain::signal::{DLQ_TOPIC, Signal};
use crate::messages::process::{BlockOutcome, ProcessBlock};
use crate::messages::store::StoreRows;
use crate::messages::stream::AppendRecord;
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::lane::Lease;
use crate::supervisors::kernel::port::Port;
use crate::supervisors::kernel::seat::{Consume, Seated, Worker};
use crate::telemetry::metrics::Metrics;

/// How long a store or an append may take before the block is given back.
const STORE_DEADLINE: Duration = Duration::from_secs(90);

/// Where a worker's results go.
#[derive(Clone)]
pub struct Outlets {
    /// The telemetry writers.
    pub store: Port<StoreRows>,
    /// The producer, for dead letters.
    pub producer: Port<AppendRecord>,
    /// Counts.
    pub metrics: Metrics,
}

/// Actor that processes blocks.
pub struct OtlpWorker {
    outlets: Outlets,
}

impl OtlpWorker {
    /// A worker with these outlets.
    pub fn new(outlets: Outlets) -> Self {
        Self { outlets }
    }
}

impl Worker for OtlpWorker {}

impl Consume<ProcessBlock> for OtlpWorker {
    fn consume(&mut self, lease: Lease<ProcessBlock>, ctx: &mut Seated<Self>) {
        chaos::point("worker.before");
        // A redelivered block crashed a worker before: its records are tried one by one.
        let taken = clock::unix_nanos();
        let transformed = transform(&lease.records, lease.attempts() > 0);
        let transformed_at = clock::unix_nanos();
        let outlets = self.outlets.clone();
        ctx.spawn(wrap_future(async move {
            // A consumer that went away sends the block again under the same id: nothing is lost by letting go here.
            let settled = tokio::select! {
                outcome = outlets.settle(&lease.block, &lease.records, transformed) => Some(outcome),
                () = lease.reply.abandoned() => None,
            };
            chaos::point("worker.after");
            if let Some(outcome) = settled {
                watch::block(&lease, [taken, transformed_at], &outcome);
                lease.reply.send(outcome);
            }
            lease.ack();
        }));
    }
}

/// Why a block cannot be settled now.
enum Trouble {
    /// The store can never take these rows together, and why.
    Rows(String),
    /// Something is away.
    Later(String),
}

impl Outlets {
    async fn settle(
        &self,
        block: &BlockId,
        records: &[StoredRecord],
        transformed: Transformed,
    ) -> BlockOutcome {
        let signal = transformed.signal;
        let (mut rows, mut dead) = (transformed.rows, transformed.dead.clone());
        let stored = if transformed.batches.len() > 1 {
            Err(Trouble::Rows(String::from("it is too large for one insert")))
        } else {
            self.store(block, transformed).await
        };
        match stored {
            Ok(()) => {}
            Err(Trouble::Rows(error)) => match self.one_by_one(block, records, &error).await {
                Ok((stored, offenders)) => (rows, dead) = (stored, offenders),
                Err(why) => return BlockOutcome::NotNow(why),
            },
            Err(Trouble::Later(why)) => return BlockOutcome::NotNow(why),
        }
        for letter in &dead {
            if let Err(why) = self.bury(block, records, letter).await {
                return BlockOutcome::NotNow(why);
            }
        }
        let buried = dead.len() as u64;
        if let Some(signal) = signal {
            self.metrics.settled(signal, rows, buried);
        }
        BlockOutcome::Settled { rows, dead: buried }
    }

    /// A block that cannot be stored as one: each record goes alone under a token of its own, and those refused again are
    /// the offenders. Nothing of the block was stored before, so no row is stored twice.
    async fn one_by_one(
        &self,
        block: &BlockId,
        records: &[StoredRecord],
        why: &str,
    ) -> Result<(u64, Vec<Dead>), String> {
        tracing::warn!(%block, why, "the block cannot be stored as one, storing its records one by one");
        let (mut rows, mut dead) = (0, Vec::new());
        for record in records {
            let single = transform(std::slice::from_ref(record), true);
            dead.extend(single.dead.iter().cloned());
            let count = single.rows;
            match self.store(&block.single(record.offset), single).await {
                Ok(()) => rows += count,
                Err(Trouble::Rows(error)) => {
                    dead.push(Dead {
                        offset: record.offset,
                        reason: format!("the store refused it: {error}"),
                    });
                }
                Err(Trouble::Later(why)) => return Err(why),
            }
        }
        Ok((rows, dead))
    }

    async fn store(&self, block: &BlockId, transformed: Transformed) -> Result<(), Trouble> {
        let Some(signal) = transformed.signal else { return Ok(()) };
        match transformed.batches.into_iter().next() {
            Some(batch) => self.insert(table(signal), batch, block.to_string()).await,
            None => Ok(()),
        }
    }

    async fn insert(&self, table: &'static str, batch: RecordBatch, token: String) -> Result<(), Trouble> {
        let make = |reply| StoreRows { table, batch, token, reply };
        match self.store.ask(make, STORE_DEADLINE).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.class() == FailureClass::Poison => Err(Trouble::Rows(error.to_string())),
            Ok(Err(error)) => Err(Trouble::Later(error.to_string())),
            Err(error) => Err(Trouble::Later(format!("the telemetry writer: {error}"))),
        }
    }

    /// Puts a record into the dead letters, once: the key is its place in the source topic.
    async fn bury(&self, block: &BlockId, records: &[StoredRecord], dead: &Dead) -> Result<(), String> {
        let Some(source) = records.iter().find(|record| record.offset == dead.offset) else { return Ok(()) };
        let (record, dedup) = dead_letter(source, block, dead);
        let make = |reply| AppendRecord { topic: DLQ_TOPIC, partition: 0, record, dedup: Some(dedup), reply };
        match self.producer.ask(make, STORE_DEADLINE).await {
            Ok(Ok(appended)) => {
                if !appended.duplicate {
                    tracing::warn!(%block, offset = dead.offset, reason = dead.reason, "put into the dead letters");
                }
                Ok(())
            }
            Ok(Err(error)) => Err(format!("the dead letters cannot be written: {error}")),
            Err(error) => Err(format!("the dead letters cannot be written: {error}")),
        }
    }
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
