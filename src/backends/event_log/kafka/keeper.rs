//! The log's housekeeping thread: topics are made once the brokers are there, partitions that they gain and bounds are
//! asked for, idle readers rest, a dead producer is replaced. And the order in which a log is closed. Errors become the
//! log's trouble, and pass.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::Consumer;

use super::errors::log_error;
use super::fetcher::number;
use super::member::Member;
use super::partition::Partition;
use super::{ASK, Shared, offset_of, spawn, topics};
use crate::backends::event_log::LogError;
use crate::clock;

/// How often the thread looks around.
const TICK: Duration = Duration::from_millis(100);
/// How often each partition's bounds are asked for. Whoever reads or appends knows its end sooner.
const BOUNDS_EVERY: Duration = Duration::from_secs(1);
/// While the brokers are away.
const RETRY: Duration = Duration::from_millis(500);
/// So many partitions are asked for in one second.
const BOUNDS_A_SECOND: u32 = 64;
/// How often is asked how many partitions the topics have. Whoever has the say may give them more at any time.
const PARTITIONS_EVERY: Duration = Duration::from_secs(10);
/// A reader that nobody used for this long fetches no more.
const IDLE: Duration = Duration::from_secs(90);

/// Starts the thread. It ends with the log.
pub(super) fn start(shared: &Arc<Shared>) -> Result<(), LogError> {
    let shared = Arc::downgrade(shared);
    spawn("kafka-keeper", move || {
        let mut rounds = Rounds { topics_made: false, next: clock::now(), count: clock::now() };
        while let Some(shared) = shared.upgrade().filter(|shared| shared.open_for_use().is_ok()) {
            rounds.one(&shared);
            drop(shared);
            std::thread::park_timeout(TICK);
        }
    })?;
    Ok(())
}

struct Rounds {
    topics_made: bool,
    next: tokio::time::Instant,
    /// When the topics' partitions are counted next.
    count: tokio::time::Instant,
}

impl Rounds {
    fn one(&mut self, shared: &Shared) {
        shared.writer.revive();
        let now = clock::now();
        if now < self.next {
            return;
        }
        match self.look(shared) {
            Ok(()) => {
                shared.trouble.clear();
                let partitions = u32::try_from(shared.partitions.lock().len()).unwrap_or(u32::MAX);
                self.next = now + BOUNDS_EVERY * (partitions / BOUNDS_A_SECOND + 1);
            }
            Err(error) => {
                shared.trouble.set(error.to_string());
                self.next = now + RETRY;
            }
        }
    }

    fn look(&mut self, shared: &Shared) -> Result<(), LogError> {
        if !self.topics_made {
            if shared.config.create_topics {
                make_topics(shared)?;
            }
            self.topics_made = true;
        }
        if clock::now() >= self.count {
            count_partitions(shared)?;
            self.count = clock::now() + PARTITIONS_EVERY;
        }
        let partitions = shared.all_partitions();
        let mut failed = None;
        for partition in &partitions {
            shared.open_for_use()?;
            if let Err(error) = ask(shared, partition) {
                let away = matches!(error, LogError::Away(_));
                failed = Some(error);
                if away {
                    break; // the others would wait as long for nothing
                }
            }
            partition.reader.rest(&shared.fetcher, IDLE);
        }
        failed.map_or(Ok(()), Err)
    }
}

fn ask(shared: &Shared, partition: &Partition) -> Result<(), LogError> {
    let name = shared.config.topic_name(&partition.topic);
    let client = shared.fetcher.client()?;
    let (first, end) = client
        .fetch_watermarks(&name, number(partition.number), ASK)
        .map_err(|error| log_error(&format!("asking for the bounds of {name}"), &error))?;
    partition.learn(offset_of(first), offset_of(end));
    Ok(())
}

/// Takes in partitions that topics gained at the broker. One topic at a time: others may have many topics there.
fn count_partitions(shared: &Shared) -> Result<(), LogError> {
    let client = shared.fetcher.client()?;
    for (topic, known) in &shared.topics {
        shared.open_for_use()?;
        let name = shared.config.topic_name(topic);
        let found = client
            .fetch_metadata(Some(&name), ASK)
            .map_err(|error| log_error(&format!("asking for the partitions of {name}"), &error))?;
        let there = found.topics().iter().filter(|topic| topic.error().is_none());
        for found in there.filter(|topic| topic.name() == name) {
            let count = u32::try_from(found.partitions().len()).unwrap_or(u32::MAX);
            let before = known.partitions.fetch_max(count, Ordering::AcqRel);
            if before < count {
                tracing::info!(topic = name, from = before, to = count, "the topic has more partitions");
            }
        }
    }
    Ok(())
}

fn make_topics(shared: &Shared) -> Result<(), LogError> {
    let plan = topics::plan_now(&shared.config, ASK)?;
    for (topic, partitions) in &plan.partitions {
        if let Some(topic) = shared.topics.get(topic) {
            topic.partitions.fetch_max(*partitions, Ordering::AcqRel);
        }
    }
    if plan.missing().next().is_some() {
        topics::make_missing_now(&shared.config, &plan, ASK)?;
    }
    for difference in plan.differences() {
        tracing::warn!("{difference}");
    }
    Ok(())
}

/// Closes the log: groups are left, what is queued is written out, the clients end. Each part has what the one before left
/// of the time.
pub(super) fn close(shared: &Arc<Shared>, deadline: Duration) -> Result<(), LogError> {
    if shared.closed.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    let until = clock::now() + deadline;
    let left = || until.saturating_duration_since(clock::now());
    let members: Vec<Arc<Member>> = shared.members.lock().drain().map(|(_, member)| member).collect();
    members.iter().for_each(|member| member.leave());
    let written = shared.writer.close(left());
    while !left().is_zero() && !members.iter().all(|member| member.has_left()) {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    for partition in shared.all_partitions() {
        partition.reader.close();
    }
    shared.fetcher.close();
    written
}
