//! `[stream]`: the durable log between the edge and the consumers.

use std::time::Duration;

use super::kafka::{KafkaConfig, LogBackend};
use super::reader::Reader;
use super::schema::{Validate, config_enum, config_struct};
use super::units::ByteSize;

config_enum! {
    /// How payloads are compressed in the log.
    pub enum Compression {
        /// LZ4 blocks where they save room: about a fifth of the bytes to sync for JSON.
        Lz4 = "lz4",
        /// As they come.
        None = "none",
    }
}

config_struct! {
    /// The event log.
    pub struct StreamConfig {
        /// Where it is: "embedded" in the data folder, or "kafka" at brokers that several processes share.
        backend: LogBackend = LogBackend::Embedded,
        /// Partitions of each topic: how many consumers can work on it at once. May grow, never shrink; while it grows, a
        /// client's resend may be taken for something new. The same for all processes.
        partitions: u32 = 2,
        /// A file of the embedded log is closed at this size. Retention removes whole files.
        segment_bytes: ByteSize = ByteSize::mib(64),
        /// Largest record. A request that encodes larger is refused as too large.
        max_record_bytes: ByteSize = ByteSize::mib(96),
        /// Bytes waiting for the disk, or for the brokers. Above it appends are refused and clients are told to come back.
        queue_bytes: ByteSize = ByteSize::mib(128),
        /// Compression of payloads in the log: "lz4" or "none".
        compression: Compression = Compression::Lz4,
        /// How long consumed and unconsumed records stay in the log. What a consumer has not read by then is lost.
        retention_age: Duration = Duration::from_secs(24 * 3600),
        /// Bytes of each partition above which its oldest files go, whether consumed or not. A topic takes so much times
        /// its partitions, over Kafka times stream.kafka.replication_factor as well.
        retention_bytes: ByteSize = ByteSize::gib(8),
        /// By what a client's resend after a lost answer is recognised. The same for all processes.
        dedup: DedupConfig = DedupConfig::default(),
        /// Kafka or Redpanda.
        kafka: KafkaConfig = KafkaConfig::default(),
    }
}

config_struct! {
    /// The window of request hashes of each partition. The same for all processes that share a log: they have to leave out
    /// the same repeats.
    pub struct DedupConfig {
        /// Requests remembered in each partition. 0 turns it off.
        records: u32 = 16_384,
        /// How long a request is remembered.
        age: Duration = Duration::from_secs(600),
    }
}

/// Largest record over Kafka. With what goes around it, it is within what its clients may be set to write and to receive.
const MOST_OVER_KAFKA: ByteSize = ByteSize::mib(900);

impl Validate for StreamConfig {
    fn validate(&self, at: &mut Reader) {
        if !(1..=1024).contains(&self.partitions) {
            at.refuse(&["partitions"], "must be from 1 to 1024");
        }
        if self.segment_bytes < ByteSize::kib(64) {
            at.refuse(&["segment_bytes"], "must be at least 64KiB");
        }
        if self.max_record_bytes < ByteSize::kib(64) || self.max_record_bytes > ByteSize::gib(1) {
            at.refuse(&["max_record_bytes"], "must be from 64KiB to 1GiB");
        }
        if self.queue_bytes < self.max_record_bytes {
            at.refuse(
                &["queue_bytes", "max_record_bytes"],
                &format!(
                    "does not fit: queue_bytes ({}) must hold one record of max_record_bytes ({})",
                    self.queue_bytes, self.max_record_bytes
                ),
            );
        }
        if self.retention_bytes < self.segment_bytes {
            at.refuse(
                &["retention_bytes", "segment_bytes"],
                &format!(
                    "does not fit: retention_bytes ({}) must be at least segment_bytes ({})",
                    self.retention_bytes, self.segment_bytes
                ),
            );
        }
        if self.backend == LogBackend::Kafka && self.max_record_bytes > MOST_OVER_KAFKA {
            at.refuse(
                &["max_record_bytes", "backend"],
                &format!(
                    "must be at most {MOST_OVER_KAFKA} with backend = \"kafka\": its clients take no more"
                ),
            );
        }
        if self.backend == LogBackend::Kafka && self.kafka.brokers.is_empty() {
            at.refuse(&["backend"], "is \"kafka\": name some brokers in stream.kafka.brokers");
        }
        if self.retention_age.is_zero() {
            at.refuse(&["retention_age"], "must be more than 0");
        }
    }
}

impl Validate for DedupConfig {}
