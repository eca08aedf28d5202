//! The OTLP worker: settles blocks, one delivery at a time, and tells the consumers what became of them.
//!
//! In: [`ProcessBlock`] from the partition consumers. Out: rows to the store, letters to the log (see [`super::settle`]).
//! What may fail: what a block does to this worker. A block whose earlier delivery ended a worker comes as a suspect and is
//! tried in a process of its own first, so that one item ends one worker at the most.

use std::cell::Cell;

use actix::AsyncContext;
use actix::fut::wrap_future;

use super::settle::Outlets;
use super::watch;
use crate::clock;
use crate::messages::process::ProcessBlock;
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::lane::Lease;
use crate::supervisors::kernel::seat::{Consume, Seated, Worker};
use crate::wire::letter::letter_id;

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
        let taken = clock::unix_nanos();
        let outlets = self.outlets.clone();
        ctx.spawn(wrap_future(async move {
            let suspect = lease.suspect || lease.attempts() > 0;
            let tried =
                suspect || lease.records.iter().any(|record| letter_id(&record.record.headers).is_some());
            // It waits for others, and does not stall: from the start where there is a trial, else once its rows are built.
            let waits = Cell::new(tried.then(|| lease.wait()));
            let transformed = Cell::new(taken);
            let settle = async {
                chaos::pause("worker.await").await;
                if !suspect && lease.verdict.is_clean() {
                    chaos::poison_wait(lease.records.iter().map(|record| &record.record.payload[..])).await;
                }
                let built = || {
                    // Its rows are built: a later crash is not this block's doing.
                    lease.passed();
                    transformed.set(clock::unix_nanos());
                    waits.set(Some(lease.wait()));
                    lease.generation().is_current()
                };
                outlets.settle(&lease, suspect, built).await
            };
            // A consumer that went away sends the block again under the same id: nothing is lost by letting go here.
            let settled = tokio::select! {
                biased;
                () = lease.reply.abandoned() => None,
                outcome = settle => Some(outcome),
            };
            drop(waits);
            chaos::point("worker.after");
            if let Some(outcome) = settled {
                watch::block(&lease, [taken, transformed.get()], &outcome);
                lease.reply.send(outcome);
            }
            lease.ack();
        }));
    }
}
