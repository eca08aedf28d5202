//! The writer thread: batches of operations → files → one round of syncs → answers. A failing disk fails the round, never the thread.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use super::appender::Appender;
use super::groups::Journal;
use super::queue::Op;
use super::shared::Shared;
use crate::clock;

/// Files synced at the same time: a disk merges concurrent flushes, so a round over many partitions costs little more than one.
const SYNC_LANES: usize = 4;

/// All that writes.
pub(super) struct Writer {
    shared: Arc<Shared>,
    appenders: Vec<Appender>,
    journal: Journal,
}

// Ends the log with its writer, also when that panics: nobody waits for answers that cannot come.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Whose file it is in a round's list of files to sync.
#[derive(Clone, Copy)]
enum Owner {
    Partition(usize),
    Journal,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, appenders: Vec<Appender>, journal: Journal) -> Self {
        Self { shared, appenders, journal }
    }

    /// Starts the thread; it ends when the queue is closed and empty.
    pub(super) fn spawn(mut self) -> io::Result<()> {
        let guard = EndGuard(Arc::clone(&self.shared));
        let run = move || {
            let _guard = guard;
            while let Some((batch, bytes)) = self.shared.queue.next(&self.shared.config.group_commit) {
                self.round(batch, bytes);
            }
            self.appenders.iter().for_each(Appender::seal);
        };
        thread::Builder::new().name("event-log-writer".into()).spawn(run).map(drop)
    }

    fn round(&mut self, batch: Vec<Op>, bytes: usize) {
        self.shared.counters.commits.fetch_add(1, Ordering::Relaxed);
        let now = clock::steady_nanos();
        batch.into_iter().for_each(|op| self.stage(op, now));
        let written = self.write();
        let files: Vec<&File> = written.iter().map(|(_, file)| &**file).collect();
        let results = sync_all(&self.shared, &files);
        self.shared.queue.release(bytes); // before the answers: who has one finds room for the next
        for ((owner, _), result) in written.iter().zip(results) {
            self.answer(*owner, result);
        }
        self.journal.compact_if_worth();
    }

    fn stage(&mut self, op: Op, now: u64) {
        match op {
            Op::Append { slot, body, dedup, reply } => {
                self.appenders[slot].stage(&self.shared, body, dedup, now, reply);
            }
            Op::Claim { key, slot, reply } => {
                let (start, _) = self.shared.partitions[slot].bounds();
                self.journal.stage_claim(key, start, reply);
            }
            Op::Commit { key, claim, position, reply } => {
                self.journal.stage_commit(key, claim, position, reply);
            }
        }
    }

    // Writes all that is staged and returns the files to sync; what fails here is answered here.
    fn write(&mut self) -> Vec<(Owner, Arc<File>)> {
        let mut written = Vec::new();
        for slot in 0..self.appenders.len() {
            if !self.appenders[slot].is_staged() {
                continue;
            }
            match self.appenders[slot].write(&self.shared) {
                Ok(Some(file)) => written.push((Owner::Partition(slot), file)),
                Ok(None) => self.answer(Owner::Partition(slot), Ok(())),
                Err(error) => self.answer(Owner::Partition(slot), Err(error)),
            }
        }
        match self.journal.write() {
            Ok(Some(file)) => written.push((Owner::Journal, file)),
            Ok(None) => {}
            Err(error) => self.answer(Owner::Journal, Err(error)),
        }
        written
    }

    fn answer(&mut self, owner: Owner, result: io::Result<()>) {
        match (owner, result) {
            (Owner::Partition(slot), Ok(())) => self.appenders[slot].settle(&self.shared),
            (Owner::Partition(slot), Err(error)) => self.appenders[slot].fail(&self.shared, error),
            (Owner::Journal, Ok(())) => drop(self.journal.settle()),
            (Owner::Journal, Err(error)) => {
                let failed = self.journal.fail(error) as u64;
                self.shared.counters.failed.fetch_add(failed, Ordering::Relaxed);
            }
        }
    }
}

/// Syncs the files, up to [`SYNC_LANES`] at a time, and returns their results in order.
fn sync_all(shared: &Shared, files: &[&File]) -> Vec<io::Result<()>> {
    let sync = |files: &[&File]| files.iter().map(|f| shared.sync(f)).collect::<Vec<_>>();
    let lane = files.len().div_ceil(SYNC_LANES).max(1);
    let Some((first, others)) = files.split_at_checked(lane) else { return sync(files) };
    thread::scope(|scope| {
        let lanes: Vec<_> = others
            .chunks(lane)
            .map(|files| (files, thread::Builder::new().spawn_scoped(scope, move || sync(files)).ok()))
            .collect();
        let mut results = sync(first);
        for (files, lane) in lanes {
            // Without a thread to be had, or with one that died, this one does the work.
            results.extend(lane.and_then(|l| l.join().ok()).unwrap_or_else(|| sync(files)));
        }
        results
    })
}
