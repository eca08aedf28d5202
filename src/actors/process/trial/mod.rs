//! The trial of a suspect block in a process of its own: which of its items cannot be processed.
//!
//! In: the records of a block that ended a worker, or the process that had it in hand. Out: the items to be left out, and
//! whether the block can be built as a whole without them. A panic, an abort, an overflow of the stack, a loop without end
//! or the kernel's out-of-memory killer hit the trial's process; its last line names the item. What may fail: the process
//! cannot be started, which is reported and tried again later.

pub mod child;
mod codec;

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout};

use self::codec::{Mark, Order, Steps};
use crate::backends::event_log::StoredRecord;
use crate::clock;
use crate::config::live::LiveConfig;
use crate::domain::offence::{Cause, Item, Offence, Verdict};

/// Time for the process to start and to read its order, on a busy machine.
const BEGIN_WITHIN: Duration = Duration::from_secs(60);
/// Building a block or reading a record may take so many times what one item may.
const LARGE: u32 = 4;
/// What the items of one record may cost before the rest of it is put aside without being tried: an item that ends its
/// process costs a new process, one that hangs the time as well.
const MOST_TROUBLE: u32 = 64;
const HANG_COSTS: u32 = 8;
/// After this long a trial tells what it has found so far, within the time a consumer waits for its block.
const TELL_AFTER: Duration = Duration::from_secs(45);
/// Rounds of a trial; each leaves out something more, so this is never reached but by a fault of ours.
const MOST_ROUNDS: u32 = 10_000;

/// What a trial found, over what was known before.
#[derive(Debug, Default)]
pub struct Found {
    /// Items to be left out, and why.
    pub offences: Vec<Offence>,
    /// Everything that is known now.
    pub verdict: Verdict,
    /// True when all that is left passes; false when the trial stopped to tell what it had.
    pub finished: bool,
}

/// A court for suspect blocks.
#[derive(Debug, Clone)]
pub struct Trial {
    /// How long one item may take (`process.trial_patience`), read for each step.
    pub config: LiveConfig,
}

/// How a process ended, before it was done.
struct Death {
    cause: Cause,
    reason: String,
}

impl Trial {
    /// Tries `records` by what is known about them until all that is left passes.
    ///
    /// # Errors
    /// Why the trial could not be held.
    pub async fn hold(&self, records: &[StoredRecord], known: &Verdict) -> Result<Found, String> {
        let mut found = Found { offences: Vec::new(), verdict: known.clone(), finished: false };
        let tell_at = clock::now() + TELL_AFTER;
        for _ in 0..MOST_ROUNDS {
            let Some(failed) = self.rehearse(records, &found.verdict).await? else {
                return Ok(Found { finished: true, ..found });
            };
            let suspects: Vec<StoredRecord> = match failed.at {
                None => records.to_vec(),
                Some(offset) => records.iter().filter(|r| r.offset == offset).cloned().collect(),
            };
            let offences = self.each_alone(&suspects, &found.verdict, tell_at).await?;
            if offences.is_empty() {
                found.blame_the_whole(failed);
            }
            found.add(offences);
            if clock::now() >= tell_at {
                return Ok(found);
            }
        }
        Err(String::from("its trial does not come to an end"))
    }

    fn patience(&self) -> Duration {
        self.config.now().process.trial_patience
    }

    /// Builds what will be built. `None` when that passes, otherwise what did not.
    async fn rehearse(&self, records: &[StoredRecord], verdict: &Verdict) -> Result<Option<Failed>, String> {
        let mut running = Running::start(records, verdict, Steps::Rehearse).await?;
        let mut at = None;
        loop {
            match running.next(self.patience() * LARGE).await? {
                Ok(Mark::Rehearse(offset)) => at = offset,
                Ok(Mark::Failed(reason)) => {
                    return Ok(Some(Failed { at, death: Death { cause: Cause::Panic, reason } }));
                }
                Ok(Mark::Done) => return Ok(None),
                Ok(_) => {}
                Err(death) => return Ok(Some(Failed { at, death })),
            }
        }
    }

    /// Tries every item alone; each one that ends the process costs a new process, which goes on behind it.
    /// Stops at the first one after `tell_at`.
    async fn each_alone(
        &self,
        records: &[StoredRecord],
        verdict: &Verdict,
        tell_at: Instant,
    ) -> Result<Vec<Offence>, String> {
        let mut offences = Vec::new();
        let mut trouble: BTreeMap<u64, u32> = BTreeMap::new();
        let mut verdict = verdict.clone();
        let mut after = None;
        'process: loop {
            let mut running = Running::start(records, &verdict, Steps::Alone { after }).await?;
            let mut trying: Option<Item> = None;
            loop {
                let patience = if trying.is_some_and(|item| item.index.is_some()) {
                    self.patience()
                } else {
                    self.patience() * LARGE
                };
                match running.next(patience).await? {
                    Ok(Mark::Try(item)) => trying = Some(item),
                    Ok(Mark::Bad(offence)) => offences.push(offence),
                    Ok(Mark::Done) => return Ok(offences),
                    Ok(_) => {}
                    Err(death) => {
                        let Some(item) = trying else {
                            return Err(format!("its trial ended before it began: {}", death.reason));
                        };
                        let costs = trouble.entry(item.offset).or_default();
                        *costs += if death.cause == Cause::Hang { HANG_COSTS } else { 1 };
                        let enough = *costs >= MOST_TROUBLE;
                        offences.push(Offence { item, cause: death.cause, reason: death.reason });
                        verdict.dead.insert(item);
                        after = Some(item);
                        if enough {
                            offences.extend(rest_of(records, item, death.cause));
                            // Nothing of this record is tried any more.
                            after = Some(Item::at(item.offset, u32::MAX));
                        }
                        if clock::now() >= tell_at {
                            return Ok(offences);
                        }
                        continue 'process;
                    }
                }
            }
        }
    }
}

/// What a rehearsal stumbled over: the record at `at`, or the block.
struct Failed {
    at: Option<u64>,
    death: Death,
}

impl Found {
    fn add(&mut self, offences: Vec<Offence>) {
        self.verdict.dead.extend(offences.iter().map(|offence| offence.item));
        self.offences.extend(offences);
    }

    /// No item fails alone, so they fail together: the block is taken apart, and a record that cannot be is left out.
    fn blame_the_whole(&mut self, failed: Failed) {
        match failed.at {
            None => self.verdict.apart = true,
            Some(offset) => {
                let reason = format!("no item of it fails alone, but all together: {}", failed.death.reason);
                let item = Item::whole(offset);
                self.add(vec![Offence { item, cause: failed.death.cause, reason }]);
            }
        }
    }
}

/// The items behind `item` in its record, which are not tried any more. Reading them is safe: it was done up to `item`.
fn rest_of(records: &[StoredRecord], item: Item, cause: Cause) -> Vec<Offence> {
    let Some(record) = records.iter().find(|record| record.offset == item.offset) else { return Vec::new() };
    let count = crate::wire::envelope::record_count(&record.record.headers);
    let next = item.index.map_or(count, |index| index.saturating_add(1));
    let reason = String::from("not tried: too many items of its batch ended the process that tried them");
    let items = (next..count).map(|index| Item::at(record.offset, index));
    items.map(|item| Offence { item, cause, reason: reason.clone() }).collect()
}

/// A trial's process.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Its order on the way; dropped with it.
    feeding: tokio::task::JoinHandle<std::io::Result<()>>,
    begun: bool,
}

impl Running {
    async fn start(records: &[StoredRecord], verdict: &Verdict, steps: Steps) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("a process for its trial cannot be started: {error}");
        let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let order = Order { verdict: verdict.clone(), steps, records: count };
        let bytes = codec::write(&order, records).map_err(failed)?;
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .arg("trial")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What is said there may quote telemetry.
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(std::io::Error::other("it has no streams")));
        };
        let feeding = tokio::spawn(feed(stdin, bytes));
        Ok(Self { child, lines: BufReader::new(stdout).lines(), feeding, begun: false })
    }

    /// The next line, or how the process ended instead. The outer error is a trial that could not be held.
    async fn next(&mut self, patience: Duration) -> Result<Result<Mark, Death>, String> {
        let within = if self.begun { patience } else { BEGIN_WITHIN };
        match timeout(within, self.lines.next_line()).await {
            Ok(Ok(Some(line))) => {
                self.begun = true;
                let mark = serde_json::from_str(&line);
                mark.map(Ok).map_err(|error| format!("its trial said what is no mark: {error}"))
            }
            Ok(Ok(None)) if self.begun => Ok(Err(self.ended().await)),
            Ok(Ok(None)) => Err(format!("its trial ended before it began: {}", self.ended().await.reason)),
            Ok(Err(error)) => Err(format!("its trial cannot be heard: {error}")),
            Err(_) if !self.begun => Err(format!("its trial did not begin within {BEGIN_WITHIN:?}")),
            Err(_) => {
                self.child.kill().await.ok();
                let reason = format!("the process that tried it did not come back within {within:?}");
                Ok(Err(Death { cause: Cause::Hang, reason }))
            }
        }
    }

    async fn ended(&mut self) -> Death {
        let status = timeout(BEGIN_WITHIN, self.child.wait()).await;
        let how = match status {
            Ok(Ok(status)) => describe(status),
            Ok(Err(error)) => error.to_string(),
            Err(_) => String::from("it closed its output and stayed"),
        };
        Death { cause: Cause::Killed, reason: format!("the process that tried it ended: {how}") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.feeding.abort();
    }
}

async fn feed(mut stdin: ChildStdin, bytes: Vec<u8>) -> std::io::Result<()> {
    stdin.write_all(&bytes).await?;
    stdin.shutdown().await
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status.signal() {
        Some(signal) => nix::sys::signal::Signal::try_from(signal)
            .map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned()),
        None => format!("{status}"),
    }
}

#[cfg(test)]
mod tests;
