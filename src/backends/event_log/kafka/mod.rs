//! The event log on Kafka or Redpanda: the same port over a cluster of brokers, shared by many processes.
//!
//! An append is answered when all replicas in sync have it. What the embedded log does by itself and brokers do not, is
//! done here: repeats are recognised by who appends (`window`) and left out by who reads (`filter`); a claim is good as
//! long as the group has the partition with this process (`member`). Opening asks nothing of the brokers: a process
//! starts and stays up without them. What may fail: `LogError`, by the class of the broker's code (`errors`).
//!
//! Three kinds of clients: one producer, one that fetches, and one for each group, which fetches nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use rdkafka::consumer::Consumer;
use tokio::sync::{oneshot, watch};

use self::counters::Counters;
use self::ears::{Ears, Trouble};
use self::errors::log_error;
use self::fetcher::{Fetcher, number};
use self::member::{Member, Place};
use self::partition::Partition;
use self::reader::Reading;
use self::writer::Writer;
use super::{
    Appended, Assigned, Claim, Committed, EventLog, LogError, Offset, Record, RemoteStats, StoredRecord,
};
use crate::clock;

mod commits;
mod counters;
mod ears;
mod errors;
mod fetcher;
mod filter;
mod keeper;
mod member;
mod partition;
mod reader;
mod record;
mod settings;
pub mod topics;
mod window;
mod writer;

pub use settings::{
    Connection, GroupProtocol, GroupSettings, KafkaLogConfig, KafkaTopic, Replication, Sasl, Tls,
};

/// How long one question to the brokers may take.
const ASK: Duration = Duration::from_secs(5);
/// How long a group that is being joined may take to give a partition to whoever claims it.
const JOIN: Duration = Duration::from_secs(30);

/// The log at the brokers. Cheap to clone; to be closed by [`EventLog::close`].
#[derive(Clone)]
pub struct KafkaLog {
    shared: Arc<Shared>,
}

/// The log behind its handles.
struct Shared {
    config: KafkaLogConfig,
    topics: HashMap<String, Topic>,
    partitions: Mutex<HashMap<Place, Arc<Partition>>>,
    fetcher: Fetcher,
    writer: Writer,
    members: Mutex<HashMap<String, Arc<Member>>>,
    /// Committed positions as this process knows them, by group.
    positions: Mutex<HashMap<(String, Place), Committed>>,
    claims: AtomicU64,
    counters: Arc<Counters>,
    trouble: Trouble,
    closed: AtomicBool,
}

/// A topic, with as many partitions as it has at the broker where those are more.
struct Topic {
    config: KafkaTopic,
    partitions: AtomicU32,
}

impl KafkaLog {
    /// Makes the clients, and starts to look for the brokers. Blocks on nothing.
    ///
    /// # Errors
    /// [`LogError::Settings`] where librdkafka does not take the settings.
    pub fn open(config: KafkaLogConfig) -> Result<Self, LogError> {
        let (counters, trouble) = (Arc::new(Counters::default()), Trouble::default());
        trouble.set("no broker has answered yet");
        let ears = Ears { trouble: trouble.clone() };
        let topics = config.topics.iter().map(|topic| {
            let partitions = AtomicU32::new(topic.partitions);
            (topic.name.clone(), Topic { config: topic.clone(), partitions })
        });
        let shared = Arc::new(Shared {
            topics: topics.collect(),
            partitions: Mutex::default(),
            fetcher: Fetcher::open(&config, ears.clone())?,
            writer: Writer::open(&config, Arc::clone(&counters), ears)?,
            members: Mutex::default(),
            positions: Mutex::default(),
            claims: AtomicU64::new(0),
            counters,
            trouble,
            closed: AtomicBool::new(false),
            config,
        });
        for topic in &shared.config.topics {
            for number in 0..topic.partitions {
                shared.partition(&topic.name, number)?;
            }
        }
        keeper::start(&shared)?;
        Ok(Self { shared })
    }

    /// Resolves when the brokers have answered and all topics are there; for tests and tools.
    ///
    /// # Errors
    /// What stood in the way when `within` was over.
    pub async fn reached(&self, within: Duration) -> Result<(), LogError> {
        let until = clock::now() + within;
        let known = || self.shared.all_partitions().iter().all(|partition| partition.bounds().is_some());
        while !known() {
            if clock::now() >= until {
                let why = self.trouble().unwrap_or_else(|| "not all partitions have answered".into());
                return Err(LogError::Away(why));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

// === impl Shared ===

impl Shared {
    fn open_for_use(&self) -> Result<(), LogError> {
        if self.closed.load(Ordering::Acquire) { Err(LogError::Closed) } else { Ok(()) }
    }

    /// A partition; those that a topic gained at the broker come up as they are asked for.
    fn partition(&self, topic: &str, number: u32) -> Result<Arc<Partition>, LogError> {
        let known = self.topics.get(topic).filter(|t| number < t.partitions.load(Ordering::Acquire));
        let Some(known) = known else {
            return Err(LogError::NoPartition { topic: topic.to_owned(), partition: number });
        };
        let make = || Arc::new(Partition::new(&self.config, topic, number, known.config.consumed));
        let mut partitions = self.partitions.lock();
        Ok(Arc::clone(partitions.entry((topic.to_owned(), number)).or_insert_with(make)))
    }

    fn all_partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.lock().values().cloned().collect()
    }

    /// The membership of `group`, which is joined by the first who asks.
    fn member(&self, group: &str) -> Result<Arc<Member>, LogError> {
        self.open_for_use()?;
        let mut members = self.members.lock();
        if let Some(member) = members.get(group) {
            return Ok(Arc::clone(member));
        }
        let consumed = self.config.topics.iter().filter(|topic| topic.consumed);
        let names: Vec<String> = consumed.map(|topic| self.config.topic_name(&topic.name)).collect();
        let ears = Ears { trouble: self.trouble.clone() };
        let member = Arc::new(Member::join(&self.config, group, &names, Arc::clone(&self.counters), ears)?);
        members.insert(group.to_owned(), Arc::clone(&member));
        Ok(member)
    }
}

/// Asks the brokers for the bounds of a partition; the end is the last one that this process has seen.
async fn ask_bounds(shared: &Shared, partition: &Partition) -> Result<(Offset, Offset), LogError> {
    Ok((ask_marks(shared, partition).await?.0, partition.end()))
}

/// What the brokers say now about the bounds of a partition, also where that is less than they said before.
async fn ask_marks(shared: &Shared, partition: &Partition) -> Result<(Offset, Offset), LogError> {
    let client = shared.fetcher.client()?;
    let (name, number) = (shared.config.topic_name(&partition.topic), number(partition.number));
    let asked = ask(move || client.fetch_watermarks(&name, number, ASK)).await?;
    let (first, end) = asked.map_err(|error| log_error("asking for the bounds", &error))?;
    partition.learn(offset_of(first), offset_of(end));
    Ok((offset_of(first), offset_of(end)))
}

fn offset_of(raw: i64) -> Offset {
    Offset::try_from(raw).unwrap_or(0)
}

/// Runs a question that blocks on a thread of its own. They are few: claims, and bounds that nobody knows yet.
async fn ask<T: Send + 'static>(question: impl FnOnce() -> T + Send + 'static) -> Result<T, LogError> {
    let (tell, told) = oneshot::channel();
    spawn("kafka-ask", move || drop(tell.send(question())))?;
    told.await.map_err(|_| LogError::Away("a question to the brokers failed".into()))
}

/// A thread of the log.
fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LogError> {
    Ok(std::thread::Builder::new().name(name.to_owned()).spawn(run)?)
}

impl EventLog for KafkaLog {
    fn partitions(&self, topic: &str) -> Option<u32> {
        self.shared.topics.get(topic).map(|topic| topic.config.partitions)
    }

    // The record is queued before this returns, so the order of calls is the order of offsets.
    fn append(
        &self,
        topic: &str,
        partition: u32,
        record: Record,
        dedup: Option<u128>,
    ) -> BoxFuture<'static, Result<Appended, LogError>> {
        let queued = self.shared.open_for_use().and_then(|()| {
            let partition = self.shared.partition(topic, partition)?;
            self.shared.writer.append(&partition, &record, dedup)
        });
        match queued {
            Ok(answer) => async move { answer.await.unwrap_or(Err(LogError::Closed)) }.boxed(),
            Err(error) => ready(Err(error)).boxed(),
        }
    }

    fn read(
        &self,
        topic: &str,
        partition: u32,
        from: Offset,
        max_records: usize,
        max_bytes: usize,
    ) -> BoxFuture<'static, Result<Vec<StoredRecord>, LogError>> {
        let (shared, partition) = (Arc::clone(&self.shared), self.shared.partition(topic, partition));
        async move {
            shared.open_for_use()?;
            let reading = Reading { shared: &shared, partition: &*partition? };
            reading.read(from, max_records, max_bytes).await
        }
        .boxed()
    }

    fn wait_for(&self, topic: &str, partition: u32, at: Offset) -> BoxFuture<'static, Result<(), LogError>> {
        let (shared, partition) = (Arc::clone(&self.shared), self.shared.partition(topic, partition));
        async move { Reading { shared: &shared, partition: &*partition? }.wait_for(at).await }.boxed()
    }

    fn bounds(&self, topic: &str, partition: u32) -> Result<(Offset, Offset), LogError> {
        let partition = self.shared.partition(topic, partition)?;
        partition.bounds().ok_or_else(|| LogError::Away("the bounds are not known yet".into()))
    }

    fn claim(
        &self,
        group: &str,
        topic: &str,
        partition: u32,
    ) -> BoxFuture<'static, Result<(Claim, Committed), LogError>> {
        commits::claim(&self.shared, group, topic, partition)
    }

    fn commit(
        &self,
        group: &str,
        topic: &str,
        partition: u32,
        claim: Claim,
        position: Committed,
    ) -> BoxFuture<'static, Result<(), LogError>> {
        commits::commit(&self.shared, group, topic, partition, claim, position)
    }

    fn committed(&self, group: &str, topic: &str, partition: u32) -> Result<Option<Committed>, LogError> {
        self.shared.partition(topic, partition)?;
        let place = (group.to_owned(), (topic.to_owned(), partition));
        Ok(self.shared.positions.lock().get(&place).cloned())
    }

    fn release(&self, group: &str, topic: &str, partition: u32, claim: Claim) {
        if let Some(member) = self.shared.members.lock().get(group) {
            member.hold.release(&(topic.to_owned(), partition), claim);
        }
    }

    fn assigned(&self, group: &str) -> Option<watch::Receiver<Assigned>> {
        match self.shared.member(group) {
            Ok(member) => Some(member.hold.watch()),
            Err(error) => {
                // A group that cannot be joined gives nothing. Whoever waits for it sees an end, and asks again.
                self.shared.trouble.group(group, error.to_string());
                Some(watch::Sender::new(Assigned::new()).subscribe())
            }
        }
    }

    fn leave(&self, group: &str) -> BoxFuture<'static, ()> {
        let member = self.shared.members.lock().remove(group);
        async move {
            if let Some(member) = member {
                member.leave();
                member.left().await;
            }
        }
        .boxed()
    }

    fn skip(&self, topic: &str, partition: u32, from: Offset) -> Offset {
        self.shared.partition(topic, partition).map_or(from, |partition| partition.reader.skip(from))
    }

    fn trouble(&self) -> Option<String> {
        self.shared.trouble.get()
    }

    fn remote_stats(&self) -> Option<RemoteStats> {
        Some(self.shared.counters.stats())
    }

    fn close(&self, deadline: Duration) -> Result<(), LogError> {
        keeper::close(&self.shared, deadline)
    }
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KafkaLog({})", self.shared.config.connection.brokers.join(","))
    }
}
