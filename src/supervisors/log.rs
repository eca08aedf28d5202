//! The event log that the configuration names: settings in, an open log out. What may fail: opening it.

use std::sync::Arc;
use std::time::Duration;

use crate::backends::event_log::dedup::DedupWindow;
use crate::backends::event_log::embedded::{
    EmbeddedLog, EmbeddedLogConfig, GroupCommit, OpenReport, TopicConfig,
};
use crate::backends::event_log::kafka::{
    Connection, GroupProtocol, GroupSettings, KafkaLog, KafkaLogConfig, KafkaTopic, Replication, Sasl, Tls,
};
use crate::backends::event_log::{EventLog, LogError};
use crate::config::Config;
use crate::config::kafka::{KafkaConfig, KafkaGroupProtocol, LogBackend, SaslMechanism};
use crate::config::stream::{Compression, StreamConfig};
use crate::domain::signal::{DLQ_TOPIC, REPLAYS_TOPIC, RETRY_TOPICS, Signal};

/// A topic of Obtrace, whatever log it is in.
struct Topic {
    name: &'static str,
    partitions: u32,
    /// Its partitions are read by consumers of a group.
    consumed: bool,
    retention_age: Option<Duration>,
    retention_bytes: Option<u64>,
}

/// Opens the log.
///
/// # Errors
/// The folder of the embedded log cannot be used; librdkafka does not take the settings. That the brokers are away is none.
pub fn open(config: &Config) -> Result<Arc<dyn EventLog>, LogError> {
    match config.stream.backend {
        LogBackend::Kafka => Ok(Arc::new(KafkaLog::open(kafka_settings(config))?)),
        LogBackend::Embedded => {
            let (log, report) = EmbeddedLog::open(embedded_settings(config))?;
            tell_open(&report);
            Ok(Arc::new(log))
        }
    }
}

fn tell_open(report: &OpenReport) {
    if report.torn_bytes > 0 {
        tracing::warn!(?report, "the event log was cut at a torn tail; nothing of it had been acknowledged");
    }
    if report.corrupt > 0 {
        tracing::error!(
            ?report,
            "the event log is damaged in its middle: what stood there is lost to its readers"
        );
    }
}

fn topics(config: &Config) -> Vec<Topic> {
    let stream = &config.stream;
    let topic = |name, partitions| Topic {
        name,
        partitions,
        consumed: true,
        retention_age: Some(stream.retention_age),
        retention_bytes: Some(stream.retention_bytes.as_u64()),
    };
    let mut topics: Vec<Topic> = Signal::ALL.iter().map(|s| topic(s.topic(), stream.partitions)).collect();
    // Dead letters are kept until somebody has looked at them; only their size is bounded.
    topics.extend([DLQ_TOPIC, REPLAYS_TOPIC].map(|name| Topic {
        consumed: false,
        retention_age: None,
        ..topic(name, 1)
    }));
    // What waits on a rung must not go before it is due, however much it is: only what is older than the wait ages.
    let signals = u32::try_from(Signal::ALL.len()).unwrap_or(u32::MAX);
    topics.extend(RETRY_TOPICS.into_iter().zip(config.process.retry.waits()).map(|(rung, wait)| Topic {
        retention_age: Some(stream.retention_age.saturating_add(wait)),
        retention_bytes: None,
        ..topic(rung, signals)
    }));
    topics
}

fn window(stream: &StreamConfig) -> DedupWindow {
    DedupWindow { records: stream.dedup.records as usize, age: stream.dedup.age }
}

fn embedded_settings(config: &Config) -> EmbeddedLogConfig {
    let stream = &config.stream;
    let topics = topics(config).into_iter().map(|topic| TopicConfig {
        name: topic.name.to_owned(),
        partitions: topic.partitions,
        retention_age: topic.retention_age,
        retention_bytes: topic.retention_bytes,
    });
    EmbeddedLogConfig {
        segment_bytes: stream.segment_bytes.as_u64(),
        max_record_bytes: stream.max_record_bytes.as_usize(),
        queue_bytes: stream.queue_bytes.as_usize(),
        group_commit: GroupCommit::default(),
        dedup_window: window(stream),
        compression: stream.compression == Compression::Lz4,
        ..EmbeddedLogConfig::new(config.data_dir.join("log"), topics.collect())
    }
}

/// The settings of the log at the brokers, also for whoever looks after its topics.
pub fn kafka_settings(config: &Config) -> KafkaLogConfig {
    let (stream, kafka) = (&config.stream, &config.stream.kafka);
    let topics = topics(config).into_iter().map(|topic| KafkaTopic {
        name: topic.name.to_owned(),
        partitions: topic.partitions,
        consumed: topic.consumed,
        retention_age: topic.retention_age,
        retention_bytes: topic.retention_bytes,
    });
    KafkaLogConfig {
        connection: connection(kafka),
        topics: topics.collect(),
        prefix: kafka.prefix.clone(),
        replication: Replication { factor: kafka.replication_factor, min_insync: kafka.min_insync_replicas },
        create_topics: kafka.create_topics,
        max_record_bytes: stream.max_record_bytes.as_usize(),
        queue_bytes: stream.queue_bytes.as_usize(),
        fetch_bytes: kafka.fetch_bytes.as_usize(),
        compression: stream.compression == Compression::Lz4,
        dedup_window: window(stream),
        dedup_bytes: kafka.dedup_bytes.as_usize(),
        delivery_timeout: kafka.delivery_timeout,
        group: GroupSettings {
            protocol: match kafka.group_protocol {
                KafkaGroupProtocol::Classic => GroupProtocol::Classic,
                KafkaGroupProtocol::Consumer => GroupProtocol::Broker,
            },
            session_timeout: kafka.session_timeout,
            revoke_timeout: kafka.revoke_timeout,
        },
    }
}

fn connection(kafka: &KafkaConfig) -> Connection {
    let tls = &kafka.tls;
    Connection {
        brokers: kafka.brokers.iter().map(|broker| broker.as_str().to_owned()).collect(),
        tls: tls.enabled.then(|| Tls {
            ca: tls.ca.clone(),
            identity: tls.certificate.clone().zip(tls.key.clone()),
            key_password: tls.key_password.expose().to_owned(),
        }),
        sasl: (kafka.sasl.mechanism != SaslMechanism::None).then(|| Sasl {
            mechanism: kafka.sasl.mechanism.as_str(),
            user: kafka.sasl.user.clone(),
            password: kafka.sasl.password.expose().to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::io;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn told(report: &OpenReport) -> String {
        let paper = Paper::default();
        let writer = paper.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || tell_open(report));
        String::from_utf8(paper.0.lock().clone()).unwrap()
    }

    #[test]
    fn only_of_a_torn_tail_it_is_said_that_nothing_was_acknowledged() {
        let (torn, corrupt) = ("nothing of it had been acknowledged", "lost to its readers");
        let both = |report: OpenReport| {
            let text = told(&report);
            (text.contains(torn), text.contains(corrupt), text.contains("ERROR"))
        };
        assert_eq!(both(OpenReport::default()), (false, false, false));
        assert_eq!(both(OpenReport { torn_bytes: 7, ..OpenReport::default() }), (true, false, false));
        assert_eq!(both(OpenReport { corrupt: 1, ..OpenReport::default() }), (false, true, true));
        let report = OpenReport { torn_bytes: 7, corrupt: 1, ..OpenReport::default() };
        assert_eq!(both(report), (true, true, true));
    }
}
