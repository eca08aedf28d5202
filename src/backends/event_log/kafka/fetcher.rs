//! The client that fetches: it is told which partitions from which offsets, and hands each out as a queue of its own.
//!
//! librdkafka fetches ahead of each queue up to `fetch_bytes` and rests while nobody takes records out: that is the back
//! pressure. The client's own events are polled by a thread of their own. What may fail: the client is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::ears::Ears;
use super::errors::log_error;
use super::{KafkaLogConfig, spawn};
use crate::backends::event_log::{LogError, Offset};

/// How long one poll for events waits.
const POLL: Duration = Duration::from_millis(200);

/// The client.
pub(super) struct Fetcher {
    consumer: Mutex<Option<Arc<BaseConsumer<Ears>>>>,
    closing: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Fetcher {
    /// Makes the client; nothing is asked of the brokers yet.
    pub(super) fn open(config: &KafkaLogConfig, ears: Ears) -> Result<Self, LogError> {
        let made = config.reader().create_with_context(ears);
        let consumer: Arc<BaseConsumer<Ears>> =
            Arc::new(made.map_err(|error| LogError::Settings(format!("a client cannot be made: {error}")))?);
        let closing = Arc::new(AtomicBool::new(false));
        let thread = {
            let (consumer, closing) = (Arc::clone(&consumer), Arc::clone(&closing));
            spawn("kafka-fetch", move || {
                while !closing.load(Ordering::Acquire) {
                    // Records come by the partitions' queues; here are errors, which its ears have heard.
                    drop(consumer.poll(POLL));
                }
            })?
        };
        Ok(Self { consumer: Mutex::new(Some(consumer)), closing, thread: Mutex::new(Some(thread)) })
    }

    /// The client, to ask the brokers something.
    pub(super) fn client(&self) -> Result<Arc<BaseConsumer<Ears>>, LogError> {
        self.consumer.lock().clone().ok_or(LogError::Closed)
    }

    /// The queue of a partition, which calls `arrived` when it has something after it was empty.
    pub(super) fn queue(
        &self,
        name: &str,
        partition: u32,
        arrived: impl Fn() + Send + Sync + 'static,
    ) -> Result<PartitionQueue<Ears>, LogError> {
        let queue = self.client()?.split_partition_queue(name, number(partition));
        let mut queue = queue.ok_or_else(|| LogError::Away(format!("no queue for {name} {partition}")))?;
        queue.set_nonempty_callback(arrived);
        Ok(queue)
    }

    /// Fetches a partition from `offset` on; `again` where it was fetched from elsewhere before. What was fetched before
    /// does not come up any more.
    pub(super) fn start(
        &self,
        name: &str,
        partition: u32,
        offset: Offset,
        again: bool,
    ) -> Result<(), LogError> {
        let client = self.client()?;
        let doing = "reading";
        // Fails where an earlier call got half-way; then there is nothing to end.
        if again && let Err(error) = client.incremental_unassign(&place(name, partition, None)?) {
            tracing::debug!(name, partition, %error, "was not fetched");
        }
        let at = KafkaOffset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        client.incremental_assign(&place(name, partition, Some(at))?).map_err(|e| log_error(doing, &e))
    }

    /// Fetches a partition no longer.
    pub(super) fn stop(&self, name: &str, partition: u32) -> Result<(), LogError> {
        let client = self.client()?;
        client.incremental_unassign(&place(name, partition, None)?).map_err(|e| log_error("reading", &e))
    }

    /// Ends the client; the last of its queues ends it for good.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        let client = self.consumer.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            thread.join().ok();
        }
        drop(client);
    }
}

/// A list of one partition.
fn place(name: &str, partition: u32, at: Option<KafkaOffset>) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::with_capacity(1);
    match at {
        Some(at) => {
            let added = list.add_partition_offset(name, number(partition), at);
            added.map_err(|error| log_error("reading", &error))?;
        }
        None => drop(list.add_partition(name, number(partition))),
    }
    Ok(list)
}

/// The number of a partition as the brokers count.
pub(super) fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}
