//! The partition consumer: reads one partition in blocks and sees each block settled before it commits.
//!
//! In: records of its partition. Out: [`ProcessBlock`] to the process stage; commits to the log. Order of one turn:
//! read, cut, commit the intent, have the block stored, commit its end. What is found out about a block on the way is
//! committed beside the intent before anything is stored by it. What may fail: the log or the workers being away, which it
//! waits out; a later consumer taking over, which ends it. On a rung of the retry ladder it waits until records are due.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{ActorContext, AsyncContext};

use crate::backends::event_log::{Claim, Committed, EventLog, LogError, MAX_METADATA_BYTES, StoredRecord};
use crate::clock;
use crate::config::live::LiveConfig;
use crate::domain::block::{BlockId, CutRule, Plan};
use crate::domain::failure::{Classified, FailureClass};
use crate::messages::process::{BlockOutcome, ProcessBlock};
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::port::{Port, PortError};
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Seated, Worker};
use crate::wire::envelope::record_count;
use crate::wire::letter::due_ns;

/// Most records read from the log at once.
const READ_RECORDS: usize = 1024;
/// How long one delivery of a block to the workers may take before it is sent again (under the same id). Longer than
/// the workers wait for the store, shorter than `liveness.wait_after`.
const SETTLE_DEADLINE: Duration = Duration::from_secs(100);
/// A block that is not settled after this shows as `Degraded`.
const SLOW: Duration = Duration::from_secs(5);
/// How often the lag is measured while a block is being settled.
const LAG_EVERY: Duration = Duration::from_secs(1);
/// How long a drain request leaves a block that is being settled.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// Wait after the log or the workers were not there.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// A rung of the retry ladder.
#[derive(Debug, Clone, Copy)]
pub struct Rung {
    /// How long a record waits there at the most.
    pub wait: Duration,
    /// Most records of a block: each of them is stored by itself.
    pub records: u64,
}

/// What a consumer needs.
#[derive(Clone)]
pub struct ConsumerDeps {
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// The process stage.
    pub process: Port<ProcessBlock>,
    /// Consumer group.
    pub group: &'static str,
    /// Topic.
    pub topic: &'static str,
    /// Partition.
    pub partition: u32,
    /// When a block is full, and how long one that is not waits for more (`process.*`), read for each block.
    pub config: LiveConfig,
    /// Set on a rung of the retry ladder, where records wait until they are due.
    pub rung: Option<Rung>,
    /// Number of this process, by which blocks that a former one left open are told.
    pub process_id: u64,
}

/// The actor of one partition.
pub struct PartitionConsumer {
    deps: Option<ConsumerDeps>,
}

impl PartitionConsumer {
    /// A consumer for the partition that `deps` names.
    pub fn new(deps: ConsumerDeps) -> Self {
        Self { deps: Some(deps) }
    }
}

impl Worker for PartitionConsumer {
    fn started(&mut self, probe: &Probe, ctx: &mut Seated<Self>) {
        let Some(deps) = self.deps.take() else { return };
        let turn = Turn { deps, probe: probe.clone() };
        ctx.spawn(wrap_future(turn.run()).map(|(), _, ctx: &mut Seated<Self>| ctx.stop()));
    }

    /// The loop sees the request itself and ends after the block in hand.
    fn drain(&mut self, _probe: &Probe, _reads_lane: bool, _ctx: &mut Seated<Self>) {}
}

/// The consumer's loop; a crash of it is a crash of the actor, and the next incarnation claims the partition anew.
struct Turn {
    deps: ConsumerDeps,
    probe: Probe,
}

/// The claim, until it is given back.
struct Held<'a> {
    deps: &'a ConsumerDeps,
    claim: Claim,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let ConsumerDeps { log, group, topic, partition, .. } = self.deps;
        log.release(group, topic, *partition, self.claim);
    }
}

/// Why the loop cannot go on with this claim.
enum Stop {
    Drained,
    Fenced,
    Again(String),
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Self {
        match error.class() {
            FailureClass::Fenced => Self::Fenced,
            _ => Self::Again(error.to_string()),
        }
    }
}

impl Turn {
    async fn run(self) {
        loop {
            match self.claim_and_consume().await {
                Stop::Drained => return,
                Stop::Fenced => return self.probe.fail(FailureClass::Fenced, "another consumer took over"),
                Stop::Again(why) => {
                    self.probe.degraded(why);
                    self.probe.ready();
                    if self.pause().await {
                        return;
                    }
                }
            }
        }
    }

    async fn claim_and_consume(&self) -> Stop {
        let deps = &self.deps;
        // A log that is shared may take its time to say whose the partition is.
        let claimed = tokio::select! {
            biased;
            _ = self.probe.drained() => return Stop::Drained,
            claimed = deps.log.claim(deps.group, deps.topic, deps.partition) => claimed,
        };
        let (claim, mut position) = match claimed {
            Ok(claimed) => claimed,
            Err(error) => return error.into(),
        };
        // However this ends, the partition need not wait for us.
        let _held = Held { deps, claim };
        self.probe.ready();
        loop {
            if self.probe.paused() && self.drained_while_paused().await {
                return Stop::Drained;
            }
            match self.turn(claim, position).await {
                Ok(next) => position = next,
                Err(stop) => return stop,
            }
        }
    }

    /// One block, from reading it to committing its end.
    async fn turn(&self, claim: Claim, position: Committed) -> Result<Committed, Stop> {
        self.show_lag(position.offset);
        let by = self.deps.process_id;
        let planned = Plan::parse(&position.metadata, position.offset);
        let (block, records) = match &planned {
            // The id that was announced, whatever is left of it: the store may know it.
            Some(plan) => {
                let records = self.read_planned(position.offset, plan.end).await?;
                (self.block(position.offset, plan.end), records)
            }
            None => {
                let records = self.read_fresh(position.offset).await?;
                let Some((first, last)) = records.first().zip(records.last()) else { return Ok(position) };
                (self.block(first.offset, last.offset + 1), records)
            }
        };
        if records.is_empty() {
            return self.pass(claim, block.end).await;
        }
        // A process that ended with this block open may have ended by it.
        let suspect = planned.as_ref().is_some_and(|plan| plan.by != Some(by));
        let verdict = planned.map(|plan| plan.verdict).unwrap_or_default();
        let plan = Plan { verdict, ..Plan::new(block.end, by) };
        // Fetched and not leased, so the kernel cannot know of it by itself.
        let _in_hand = self.probe.take_in_hand();
        // A fresh block begins with the first record really there: retention may have removed some before it.
        self.commit(claim, block.first, plan.to_metadata(MAX_METADATA_BYTES)).await?;
        chaos::point("consumer.after_intent");
        let end = block.end;
        self.settle(claim, block, records, plan, suspect).await?;
        chaos::point("consumer.before_commit");
        self.commit(claim, end, String::new()).await?;
        self.probe.progress();
        self.probe.recovered();
        Ok(Committed { offset: end, metadata: String::new() })
    }

    /// Passes a block of which nothing is there any more: retention has removed it, or all of it was there before.
    async fn pass(&self, claim: Claim, end: u64) -> Result<Committed, Stop> {
        self.commit(claim, end, String::new()).await?;
        self.probe.progress();
        Ok(Committed { offset: end, metadata: String::new() })
    }

    /// Reads exactly the block that an earlier incarnation had announced, or what is left of it. A log that only seems to end
    /// within it, as that of a new leader may for a moment, is waited for: cut short, the block would be another one.
    async fn read_planned(&self, from: u64, end: u64) -> Result<Vec<StoredRecord>, Stop> {
        let ConsumerDeps { log, topic, partition, .. } = &self.deps;
        let mut records: Vec<StoredRecord> = Vec::new();
        let mut next = from;
        while next < end {
            let batch = self.read(next).await?;
            let Some(last) = batch.last() else {
                let (start, _) = log.bounds(topic, *partition)?;
                if start.max(log.skip(topic, *partition, next)) >= end {
                    break;
                }
                let what = format!("a block up to {end} was announced, and {next} does not come");
                return Err(Stop::Again(what));
            };
            next = last.offset + 1;
            records.extend(batch.into_iter().filter(|record| record.offset < end));
        }
        Ok(records)
    }

    /// Waits for a first record, then gathers until the block is full or has lingered.
    async fn read_fresh(&self, from: u64) -> Result<Vec<StoredRecord>, Stop> {
        tokio::select! {
            biased;
            // What is read next is cut after the pause.
            () = self.probe.paused_changed(true) => return Ok(Vec::new()),
            there = self.wait_for(from, None) => drop(there?),
        }
        if let Some(rung) = self.deps.rung {
            return self.read_due(from, rung).await;
        }
        let (cut, until) = (self.cut(), clock::now() + self.deps.config.now().process.linger);
        let (mut records, mut rows, mut bytes) = (Vec::new(), 0_u64, 0_u64);
        let mut next = from;
        loop {
            for record in self.read(next).await? {
                rows += u64::from(record_count(&record.record.headers));
                bytes += record.record.payload.len() as u64;
                next = record.offset + 1;
                records.push(record);
                if cut.is_full(rows, bytes) {
                    return Ok(records);
                }
            }
            if !self.wait_for(next, Some(until)).await? {
                return Ok(records);
            }
        }
    }

    /// Waits until the head of a rung is due, then reads what is due by then. All of a rung waits equally long, so the head is
    /// due first. The wait itself is by the monotonic clock and never longer than the rung: a jump of the wall clock delays
    /// nothing beyond that.
    async fn read_due(&self, from: u64, rung: Rung) -> Result<Vec<StoredRecord>, Stop> {
        let records = self.read(from).await?;
        let Some(head) = records.first() else { return Ok(records) };
        let due = due_ns(&head.record.headers);
        let wait = Duration::from_nanos(due.saturating_sub(clock::unix_nanos())).min(rung.wait);
        tokio::select! {
            biased;
            _ = self.probe.drained() => return Err(Stop::Drained),
            () = self.probe.paused_changed(true) => return Ok(Vec::new()),
            () = tokio::time::sleep(wait) => {}
        }
        let cut = CutRule { rows: rung.records, ..self.cut() };
        let (mut rows, mut bytes, mut full) = (0, 0, false);
        let now = clock::unix_nanos().max(due);
        let mut is_due = |record: &StoredRecord| {
            let fits = !full;
            rows += u64::from(record_count(&record.record.headers));
            bytes += record.record.payload.len() as u64;
            full = cut.is_full(rows, bytes);
            fits && due_ns(&record.record.headers) <= now
        };
        Ok(records.into_iter().take_while(|record| is_due(record)).collect())
    }

    /// Reads on from `from`; where retention has removed it, from the first record still there.
    async fn read(&self, from: u64) -> Result<Vec<StoredRecord>, Stop> {
        let deps = &self.deps;
        let max_bytes = usize::try_from(self.cut().bytes).unwrap_or(usize::MAX);
        let read = |at| deps.log.read(deps.topic, deps.partition, at, READ_RECORDS, max_bytes);
        match read(from).await {
            Err(LogError::OutOfRange { start, .. }) if start > from => {
                tracing::warn!(
                    topic = deps.topic,
                    partition = deps.partition,
                    from,
                    start,
                    "retention overtook us"
                );
                Ok(read(start).await?)
            }
            Err(LogError::Corrupt { next, file, position, what }) if next > from => {
                let (topic, partition) = (deps.topic, deps.partition);
                tracing::error!(
                    topic,
                    partition,
                    from,
                    next,
                    file,
                    position,
                    what,
                    "the log is damaged, reading on"
                );
                Ok(read(next).await?)
            }
            other => Ok(other?),
        }
    }

    /// True when a record at `offset` is there, false when `until` came first.
    async fn wait_for(&self, offset: u64, until: Option<tokio::time::Instant>) -> Result<bool, Stop> {
        let there = self.deps.log.wait_for(self.deps.topic, self.deps.partition, offset);
        let time_is_up = async {
            match until {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.probe.drained() => Err(Stop::Drained),
            there = there => Ok(there.map(|()| true)?),
            () = time_is_up => Ok(false),
        }
    }

    /// Has the workers settle the block, however long they are away and whatever it does to them; only a drain request ends
    /// the waiting.
    async fn settle(
        &self,
        claim: Claim,
        block: BlockId,
        records: Vec<StoredRecord>,
        mut plan: Plan,
        mut suspect: bool,
    ) -> Result<(), Stop> {
        let bytes = records.iter().map(|record| record.record.size()).sum();
        loop {
            let make = |reply| ProcessBlock {
                block: block.clone(),
                records: records.clone(),
                bytes,
                verdict: plan.verdict.clone(),
                suspect,
                reply,
            };
            let _wait = self.probe.wait();
            let asked = tokio::select! {
                asked = self.deps.process.ask(make, SETTLE_DEADLINE) => asked,
                never = self.watch(&block) => match never {},
                () = self.drained_and_waited() => return Err(Stop::Drained),
            };
            let why = match asked {
                Ok(BlockOutcome::Settled { .. }) => return Ok(()),
                // The event and the count of it are the lane's; here the place of it is known.
                Ok(BlockOutcome::Dropped(why)) => {
                    tracing::error!(%block, why, "a block is lost, as lane.poison has it");
                    return Ok(());
                }
                Ok(BlockOutcome::Found { verdict, suspect: more }) => {
                    plan.verdict = verdict;
                    suspect = more;
                    self.commit(claim, block.first, plan.to_metadata(MAX_METADATA_BYTES)).await?;
                    chaos::point("consumer.after_verdict");
                    continue;
                }
                Ok(BlockOutcome::NotNow(why)) => why,
                Ok(BlockOutcome::Crashed(why)) => {
                    suspect = true;
                    why
                }
                Err(PortError::Draining) => return Err(Stop::Drained),
                Err(error) => {
                    // Taken and not answered: it may be what its worker hangs on.
                    suspect |= matches!(error, PortError::NoAnswer | PortError::Gone);
                    error.to_string()
                }
            };
            self.probe.degraded(format!("block {block} is not settled: {why}"));
            if self.pause().await {
                return Err(Stop::Drained);
            }
        }
    }

    /// Shows the lag while a block is being settled, and that it takes long.
    async fn watch(&self, block: &BlockId) -> Infallible {
        let begun = clock::now();
        loop {
            self.show_lag(block.first);
            if clock::now() - begun >= SLOW {
                self.probe.degraded(format!("block {block} is not settled yet"));
            }
            tokio::time::sleep(LAG_EVERY).await;
        }
    }

    /// Where the committed offset is, and how many records are in the partition behind it.
    fn show_lag(&self, committed: u64) {
        let ConsumerDeps { log, topic, partition, .. } = &self.deps;
        // A log that cannot say is found out by reading from it.
        if let Ok((_, end)) = log.bounds(topic, *partition) {
            let next = log.skip(topic, *partition, committed);
            self.probe.gauge("lag", end.saturating_sub(next) as f64);
            self.probe.gauge("committed", committed as f64);
        }
    }

    /// Resolves some time after a drain request: a block that is settled by then is committed, one that waits for a store
    /// that is away is left to the next start, which cuts the same block from its intent.
    async fn drained_and_waited(&self) {
        self.probe.drained().await;
        tokio::time::sleep(DRAIN_GRACE).await;
    }

    async fn commit(&self, claim: Claim, offset: u64, metadata: String) -> Result<(), Stop> {
        let deps = &self.deps;
        if !self.probe.generation().is_current() {
            self.probe.fenced();
            return Err(Stop::Fenced);
        }
        let position = Committed { offset, metadata };
        let _wait = self.probe.wait();
        let committed = deps.log.commit(deps.group, deps.topic, deps.partition, claim, position).await;
        if matches!(committed, Err(LogError::Fenced)) {
            self.probe.fenced();
        }
        Ok(committed?)
    }

    /// Waits until an operator resumes it. True when a drain request came first.
    async fn drained_while_paused(&self) -> bool {
        tokio::select! {
            biased;
            _ = self.probe.drained() => true,
            () = self.probe.paused_changed(false) => false,
        }
    }

    /// Waits a little. True when a drain request came meanwhile.
    async fn pause(&self) -> bool {
        tokio::select! {
            biased;
            _ = self.probe.drained() => true,
            () = tokio::time::sleep(RETRY_AFTER) => false,
        }
    }

    fn cut(&self) -> CutRule {
        let config = self.deps.config.now();
        let process = &config.process;
        CutRule { rows: u64::from(process.block_rows), bytes: process.block_bytes.as_u64() }
    }

    fn block(&self, first: u64, end: u64) -> BlockId {
        BlockId { topic: self.deps.topic.to_owned(), partition: self.deps.partition, first, end }
    }
}
