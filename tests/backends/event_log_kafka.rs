//! The event log on a real broker: the contract of the port, and what only a log that processes share can show.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use obtrace::backends::event_log::EventLog;
use obtrace::backends::event_log::kafka::{KafkaLog, KafkaLogConfig, KafkaTopic};

use super::event_log::{Log, PATIENCE};

fn brokers() -> Vec<String> {
    vec![std::env::var("OBTRACE_KAFKA_BROKERS").expect("OBTRACE_KAFKA_BROKERS")]
}

/// A prefix that no other test and no earlier run has.
fn fresh_prefix() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("t{:x}.{number}.", obtrace::clock::unix_nanos() / 1000)
}

fn topic(name: &str, partitions: u32) -> KafkaTopic {
    KafkaTopic {
        name: name.into(),
        partitions,
        consumed: true,
        retention_age: None,
        retention_bytes: None,
    }
}

fn settings(prefix: &str) -> KafkaLogConfig {
    KafkaLogConfig {
        prefix: prefix.into(),
        max_record_bytes: 2 << 20,
        ..KafkaLogConfig::new(brokers(), vec![topic("alpha", 2), topic("beta", 1)])
    }
}

async fn open(config: KafkaLogConfig) -> KafkaLog {
    let log = KafkaLog::open(config).expect("open");
    log.reached(PATIENCE).await.expect("the brokers answer");
    log
}

async fn with_kafka_log<F: Future<Output = ()>>(test: impl FnOnce(Log) -> F) {
    let log = open(settings(&fresh_prefix())).await;
    test(Arc::new(log.clone())).await;
    log.close(Duration::from_secs(10)).expect("closed in order");
}

mod contract {
    super::super::event_log::contract!(super::with_kafka_log);
}
