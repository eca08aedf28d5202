//! The writing end: records in, answers out when all replicas in sync have them.
//!
//! One idempotent producer; its thread polls delivery reports. A producer that librdkafka declares dead is replaced, and
//! what it had under way is answered with an error: it may have been written or not, its sender sends it again. What may
//! fail: the queue is full, the brokers are away, the record is too large.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use super::KafkaLogConfig;
use super::counters::Counters;
use super::ears::{Ears, write_line};
use super::errors::{is_too_large, log_error};
use super::fetcher::number;
use super::partition::Partition;
use super::record::{headers, offset};
use super::window::{AppendReply, Entry, answer};
use crate::backends::event_log::{Appended, LogError, Offset, Record};
use crate::clock;

/// What a record counts for beyond its bytes, so that many small ones are bounded too.
const OVERHEAD: u64 = 256;

/// The producer and what it needs.
pub(super) struct Writer {
    config: KafkaLogConfig,
    counters: Arc<Counters>,
    ears: Ears,
    dead: Arc<AtomicBool>,
    producer: ArcSwapOption<ThreadedProducer<Reports>>,
}

/// A record on its way.
pub(super) struct Delivery {
    partition: Arc<Partition>,
    dedup: Option<u128>,
    size: u64,
    reply: AppendReply,
}

/// What becomes of records.
pub(super) struct Reports {
    counters: Arc<Counters>,
    ears: Ears,
    dead: Arc<AtomicBool>,
    limit: usize,
}

impl Writer {
    /// Makes the producer; nothing is asked of the brokers yet.
    pub(super) fn open(
        config: &KafkaLogConfig,
        counters: Arc<Counters>,
        ears: Ears,
    ) -> Result<Self, LogError> {
        let dead = Arc::new(AtomicBool::new(false));
        let this = Self { config: config.clone(), counters, ears, dead, producer: ArcSwapOption::empty() };
        this.producer.store(Some(Arc::new(this.make()?)));
        Ok(this)
    }

    /// Puts a record into the queue. The order of calls is the order of offsets.
    pub(super) fn append(
        &self,
        partition: &Arc<Partition>,
        record: &Record,
        dedup: Option<u128>,
    ) -> Result<oneshot::Receiver<Result<Appended, LogError>>, LogError> {
        let limit = self.config.max_record_bytes;
        if record.size() > limit {
            return Err(LogError::TooLarge { size: record.size(), limit });
        }
        let producer = self.producer.load_full().ok_or(LogError::Closed)?;
        let dedup = dedup.filter(|key| *key != 0);
        let (reply, asked) = oneshot::channel();
        let Some(reply) = enter(partition, dedup, reply) else {
            self.counters.duplicate();
            return Ok(asked);
        };
        let size = record.size() as u64 + OVERHEAD;
        let delivery = Delivery { partition: Arc::clone(partition), dedup, size, reply };
        if !self.counters.queue(size, self.config.queue_bytes as u64) {
            delivery.settle(Err(LogError::Full));
            return Ok(asked);
        }
        self.send(&producer, record, Box::new(delivery));
        Ok(asked)
    }

    /// Replaces a producer that is dead. Blocks for a moment.
    pub(super) fn revive(&self) {
        if !self.dead.swap(false, Ordering::AcqRel) || self.producer.load().is_none() {
            return;
        }
        match self.make() {
            Ok(fresh) => {
                tracing::warn!("the producer was given up by librdkafka and is replaced");
                // What it had under way is answered as it goes.
                drop(self.producer.swap(Some(Arc::new(fresh))));
            }
            Err(error) => {
                tracing::error!(%error, "the producer cannot be replaced, trying again");
                self.dead.store(true, Ordering::Release);
            }
        }
    }

    /// Takes no more, and waits until what is queued has been answered.
    pub(super) fn close(&self, deadline: Duration) -> Result<(), LogError> {
        let Some(producer) = self.producer.swap(None) else { return Ok(()) };
        producer.flush(deadline).map_err(|error| log_error("writing out what is queued", &error))
    }

    fn make(&self) -> Result<ThreadedProducer<Reports>, LogError> {
        let reports = Reports {
            counters: Arc::clone(&self.counters),
            ears: self.ears.clone(),
            dead: Arc::clone(&self.dead),
            limit: self.config.max_record_bytes,
        };
        let made = self.config.producer().create_with_context(reports);
        made.map_err(|error| LogError::Settings(format!("a producer cannot be made: {error}")))
    }

    fn send(&self, producer: &ThreadedProducer<Reports>, record: &Record, delivery: Box<Delivery>) {
        let partition = Arc::clone(&delivery.partition);
        let name = self.config.topic_name(&partition.topic);
        let (headers, payload) = (headers(record, delivery.dedup), record.payload.as_ref());
        let mut message =
            BaseRecord::with_opaque_to(&name, delivery).partition(number(partition.number)).payload(payload);
        message.headers = Some(headers);
        message.key = (!record.key.is_empty()).then_some(record.key.as_ref());
        if let Err((error, back)) = producer.send(message) {
            self.counters.unqueue(back.delivery_opaque.size);
            let error = self.refusal(&error, record.size());
            back.delivery_opaque.settle(Err(error));
        }
    }

    fn refusal(&self, error: &KafkaError, size: usize) -> LogError {
        match error.rdkafka_error_code() {
            Some(code) if is_too_large(code) => {
                LogError::TooLarge { size, limit: self.config.max_record_bytes }
            }
            Some(RDKafkaErrorCode::Fatal) => {
                self.dead.store(true, Ordering::Release);
                log_error("writing", error)
            }
            _ => log_error("writing", error),
        }
    }
}

/// Looks a dedup key up; gives the reply back where the record is to be written.
fn enter(partition: &Partition, dedup: Option<u128>, reply: AppendReply) -> Option<AppendReply> {
    let Some(key) = dedup else { return Some(reply) };
    match partition.window.lock().enter(key, clock::steady_nanos(), reply) {
        Entry::First(reply) => Some(reply),
        Entry::Repeat => None,
    }
}

impl Delivery {
    /// Answers, and tells the window.
    fn settle(self, result: Result<Offset, LogError>) {
        if let Ok(offset) = result {
            self.partition.saw(offset);
        }
        if let Some(key) = self.dedup {
            self.partition.window.lock().settle(key, clock::steady_nanos(), &result);
        }
        answer(self.reply, result.map(|offset| Appended { offset, duplicate: false }));
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        write_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            tracing::error!(reason, "the producer cannot go on");
            self.dead.store(true, Ordering::Release);
        }
        self.ears.hear(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        self.counters.unqueue(delivery.size);
        let result = match result {
            Ok(message) => {
                self.ears.trouble.clear();
                Ok(offset(message))
            }
            Err((error, _)) => {
                self.counters.delivery_error();
                Err(match error.rdkafka_error_code() {
                    Some(code) if is_too_large(code) => LogError::TooLarge {
                        size: usize::try_from(delivery.size - OVERHEAD).unwrap_or(usize::MAX),
                        limit: self.limit,
                    },
                    _ => log_error("writing", error),
                })
            }
        };
        delivery.settle(result);
    }
}
