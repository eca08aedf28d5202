//! The contract of the event log port, as functions over any implementation, and its run against each of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use obtrace::backends::event_log::embedded::{EmbeddedLog, EmbeddedLogConfig, TopicConfig};
use obtrace::backends::event_log::{Appended, Claim, Committed, EventLog, LogError, Record, StoredRecord};
use tokio::time::timeout;

/// A log under test: topic `alpha` with two partitions, `beta` with one, all empty.
pub type Log = Arc<dyn EventLog>;

/// Longest wait for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn record(text: &str) -> Record {
    Record {
        key: Bytes::from_static(b"tenant-1"),
        headers: vec![("signal".into(), Bytes::from_static(b"traces")), ("odd é".into(), Bytes::new())],
        payload: Bytes::copy_from_slice(text.as_bytes()),
    }
}

pub async fn append(log: &Log, topic: &str, partition: u32, text: &str) -> u64 {
    log.append(topic, partition, record(text), None).await.expect("append").offset
}

pub fn texts(records: &[StoredRecord]) -> Vec<(u64, String)> {
    let text = |r: &StoredRecord| String::from_utf8_lossy(&r.record.payload).into_owned();
    records.iter().map(|r| (r.offset, text(r))).collect()
}

fn at(offset: u64, metadata: &str) -> Committed {
    Committed { offset, metadata: metadata.into() }
}

pub async fn what_is_appended_is_read_in_order(log: Log) {
    for n in 0..5 {
        assert_eq!(append(&log, "alpha", 1, &format!("r{n}")).await, n);
    }
    let all = log.read("alpha", 1, 0, 100, usize::MAX).await.unwrap();
    assert_eq!(all.iter().map(|r| r.offset).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(all[3].record, record("r3"), "key, headers and payload come back as they were");
    let some = log.read("alpha", 1, 2, 2, usize::MAX).await.unwrap();
    assert_eq!(texts(&some), [(2, "r2".to_owned()), (3, "r3".to_owned())]);
    assert_eq!(log.read("alpha", 1, 1, 100, 1).await.unwrap().len(), 1, "at least one, whatever its size");
    assert!(log.read("alpha", 1, 5, 10, 1000).await.unwrap().is_empty());
    assert_eq!(log.bounds("alpha", 1).unwrap(), (0, 5));
    assert_eq!(log.bounds("alpha", 0).unwrap(), (0, 0), "partitions are apart");
}

pub async fn an_unknown_partition_is_named(log: Log) {
    assert_eq!(
        (log.partitions("alpha"), log.partitions("beta"), log.partitions("nope")),
        (Some(2), Some(1), None)
    );
    for (topic, partition) in [("nope", 0), ("beta", 1)] {
        let is_named = |e: LogError| matches!(e, LogError::NoPartition { topic: t, partition: p } if t == topic && p == partition);
        assert!(is_named(log.append(topic, partition, record("x"), None).await.unwrap_err()));
        assert!(is_named(log.read(topic, partition, 0, 1, 1).await.unwrap_err()));
        assert!(is_named(log.wait_for(topic, partition, 0).await.unwrap_err()));
        assert!(is_named(log.claim("g", topic, partition).await.unwrap_err()));
        assert!(is_named(log.bounds(topic, partition).unwrap_err()));
    }
}

pub async fn a_repeat_is_not_written_again(log: Log) {
    let first = log.append("alpha", 0, record("one"), Some(7)).await.unwrap();
    let again = log.append("alpha", 0, record("one"), Some(7)).await.unwrap();
    assert_eq!((first.duplicate, again), (false, Appended { offset: first.offset, duplicate: true }));
    let elsewhere = log.append("alpha", 1, record("one"), Some(7)).await.unwrap();
    assert!(!elsewhere.duplicate, "the window is a partition's own");
    // Both in flight at once: one copy, the same answer.
    let (a, b) = tokio::join!(
        log.append("alpha", 0, record("two"), Some(8)),
        log.append("alpha", 0, record("two"), Some(8))
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!((a.offset, a.duplicate, b.duplicate), (b.offset, false, true));
    assert_eq!(log.bounds("alpha", 0).unwrap(), (0, 2));
}

pub async fn a_waiter_wakes_when_the_record_is_there(log: Log) {
    let waiting = tokio::spawn(log.wait_for("beta", 0, 1));
    append(&log, "beta", 0, "zero").await;
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "offset 1 is not there yet");
    append(&log, "beta", 0, "one").await;
    timeout(PATIENCE, waiting).await.expect("woken").unwrap().unwrap();
    assert_eq!(log.read("beta", 0, 1, 1, 1).await.unwrap().len(), 1);
    timeout(PATIENCE, log.wait_for("beta", 0, 0)).await.expect("at once").unwrap();
}

pub async fn concurrent_appends_get_offsets_without_gaps(log: Log) {
    let appends = (0..64_u32).map(|n| log.append("alpha", n % 2, record(&n.to_string()), None));
    let answers = futures_util::future::join_all(appends).await;
    for partition in 0..2_u32 {
        let mine = answers.iter().skip(partition as usize).step_by(2).map(|a| a.as_ref().unwrap().offset);
        assert_eq!(mine.collect::<Vec<_>>(), (0..32).collect::<Vec<_>>(), "in the order of the calls");
    }
}

pub async fn a_commit_is_found_by_the_next_claim(log: Log) {
    append(&log, "beta", 0, "a").await;
    append(&log, "beta", 0, "b").await;
    let (claim, position) = log.claim("g", "beta", 0).await.unwrap();
    assert_eq!(position, at(0, ""), "a new group starts at the beginning");
    assert_eq!(log.committed("g", "beta", 0).unwrap(), None);
    log.commit("g", "beta", 0, claim, at(0, "intent 0..2")).await.unwrap();
    log.commit("g", "beta", 0, claim, at(2, "")).await.unwrap();
    assert_eq!(log.committed("g", "beta", 0).unwrap(), Some(at(2, "")));
    assert_eq!(log.committed("other", "beta", 0).unwrap(), None, "groups are apart");
    let (later, position) = log.claim("g", "beta", 0).await.unwrap();
    assert!(later > claim);
    assert_eq!(position, at(2, ""));
}

pub async fn a_later_claim_fences_the_earlier(log: Log) {
    append(&log, "beta", 0, "a").await;
    let (old, _) = log.claim("g", "beta", 0).await.unwrap();
    let (new, _) = log.claim("g", "beta", 0).await.unwrap();
    assert!(matches!(log.commit("g", "beta", 0, old, at(1, "")).await, Err(LogError::Fenced)));
    log.commit("g", "beta", 0, new, at(1, "mine")).await.unwrap();
    assert!(matches!(log.commit("g", "beta", 0, old, at(0, "")).await, Err(LogError::Fenced)));
    assert!(matches!(log.commit("unclaimed", "beta", 0, Claim(0), at(0, "")).await, Err(LogError::Fenced)));
    assert_eq!(log.committed("g", "beta", 0).unwrap(), Some(at(1, "mine")));
}

pub async fn a_senseless_commit_is_refused(log: Log) {
    append(&log, "beta", 0, "a").await;
    let (claim, _) = log.claim("g", "beta", 0).await.unwrap();
    let beyond = log.commit("g", "beta", 0, claim, at(2, "")).await;
    assert!(matches!(beyond, Err(LogError::BeyondEnd { offset: 2, end: 1 })), "{beyond:?}");
    let long = log.commit("g", "beta", 0, claim, at(1, &"m".repeat(4097))).await;
    assert!(matches!(long, Err(LogError::MetadataTooLong { size: 4097 })), "{long:?}");
    log.commit("g", "beta", 0, claim, at(1, &"m".repeat(4096))).await.unwrap();
}

pub async fn a_record_over_the_limit_is_refused(log: Log) {
    let huge = Record { payload: Bytes::from(vec![0; 3 << 20]), ..record("") };
    let refused = log.append("beta", 0, huge, None).await;
    assert!(matches!(refused, Err(LogError::TooLarge { limit, .. }) if limit == 2 << 20), "{refused:?}");
    assert_eq!(append(&log, "beta", 0, "small").await, 0);
}

/// Runs the whole contract against a fresh log each of what `$with` opens, as one test each.
macro_rules! contract {
    ($with:path) => {
        $crate::event_log::contract! { $with:
            what_is_appended_is_read_in_order
            an_unknown_partition_is_named
            a_repeat_is_not_written_again
            a_waiter_wakes_when_the_record_is_there
            concurrent_appends_get_offsets_without_gaps
            a_commit_is_found_by_the_next_claim
            a_later_claim_fences_the_earlier
            a_senseless_commit_is_refused
            a_record_over_the_limit_is_refused
        }
    };
    ($with:path: $($name:ident)*) => { $(
        #[tokio::test]
        async fn $name() {
            $with($crate::event_log::$name).await;
        }
    )* };
}
pub(crate) use contract;

mod embedded {
    use super::{Log, embedded_log};

    async fn with_embedded_log<F: Future<Output = ()>>(test: impl FnOnce(Log) -> F) {
        let dir = tempfile::tempdir().unwrap();
        test(embedded_log(dir.path())).await;
    }

    super::contract!(with_embedded_log);
}

fn embedded_log(dir: &std::path::Path) -> Log {
    let topics = vec![TopicConfig::new("alpha", 2), TopicConfig::new("beta", 1)];
    let config = EmbeddedLogConfig { max_record_bytes: 2 << 20, ..EmbeddedLogConfig::new(dir, topics) };
    Arc::new(EmbeddedLog::open(config).expect("open").0)
}
