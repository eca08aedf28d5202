//! The event log on real brokers: the contract of the port, and what only a log that processes share can show.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use obtrace::backends::event_log::dedup::DedupWindow;
use obtrace::backends::event_log::kafka::topics::{Step, ensure_topics, plan_topics};
use obtrace::backends::event_log::kafka::{
    Connection, GroupProtocol, KafkaLog, KafkaLogConfig, KafkaTopic, Replication, Sasl, Tls,
};
use obtrace::backends::event_log::{Assigned, Committed, EventLog, LogError, Record};
use obtrace::domain::failure::{Classified, FailureClass};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::sync::watch;
use tokio::time::timeout;

use super::event_log::{Log, PATIENCE, append, record, texts};
use super::services::{self, KafkaCluster, Private};

/// A prefix that no other test and no earlier run has.
pub(super) fn fresh_prefix() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("t{:x}.{number}.", obtrace::clock::unix_nanos() / 1000)
}

pub(super) fn topic(name: &str, partitions: u32) -> KafkaTopic {
    KafkaTopic { name: name.into(), partitions, consumed: true, retention_age: None, retention_bytes: None }
}

pub(super) fn settings_at(brokers: &str, prefix: &str) -> KafkaLogConfig {
    let brokers = brokers.split(',').map(str::to_owned).collect();
    KafkaLogConfig {
        prefix: prefix.into(),
        max_record_bytes: 2 << 20,
        ..KafkaLogConfig::new(brokers, vec![topic("alpha", 2), topic("beta", 1)])
    }
}

pub(super) fn settings(prefix: &str) -> KafkaLogConfig {
    settings_at(&services::kafka(), prefix)
}

pub(super) async fn open(config: KafkaLogConfig) -> KafkaLog {
    let log = KafkaLog::open(config).expect("open");
    log.reached(PATIENCE).await.expect("the brokers answer");
    log
}

pub(super) fn close(log: &KafkaLog) {
    log.close(Duration::from_secs(10)).expect("closed in order");
}

pub(super) fn shared(log: &KafkaLog) -> Log {
    Arc::new(log.clone())
}

async fn with_kafka_log<F: Future<Output = ()>>(test: impl FnOnce(Log) -> F) {
    let log = open(settings(&fresh_prefix())).await;
    test(shared(&log)).await;
    close(&log);
}

mod contract {
    super::super::event_log::contract!(super::with_kafka_log);
}

pub(super) fn at(offset: u64, metadata: &str) -> Committed {
    Committed { offset, metadata: metadata.into() }
}

/// Everything from `from` on.
pub(super) async fn read_all(log: &Log, topic: &str, partition: u32, from: u64) -> Vec<(u64, String)> {
    texts(&log.read(topic, partition, from, 10_000, usize::MAX).await.expect("read"))
}

pub(super) fn words(records: &[(u64, String)]) -> Vec<&str> {
    records.iter().map(|(_, text)| text.as_str()).collect()
}

// === repeats ===

#[tokio::test]
async fn what_two_processes_wrote_twice_is_read_once_and_by_every_reader_alike() {
    let prefix = fresh_prefix();
    let (one, other) = (open(settings(&prefix)).await, open(settings(&prefix)).await);
    let (first, second) = (shared(&one), shared(&other));
    for (n, text) in ["a", "b", "c"].into_iter().enumerate() {
        let key = Some(n as u128 + 1);
        first.append("beta", 0, record(text), key).await.unwrap();
        let again = second.append("beta", 0, record(text), key).await.unwrap();
        assert!(!again.duplicate, "the brokers know nothing of it");
    }
    append(&first, "beta", 0, "end").await;
    let found = read_all(&first, "beta", 0, 0).await;
    assert_eq!(found.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 2, 4, 6]);
    assert_eq!(words(&found), ["a", "b", "c", "end"]);
    assert_eq!(first.bounds("beta", 0).unwrap(), (0, 7));
    // Whoever begins in the midst has to look at what stands before.
    for from in 1..=6 {
        let late = open(settings(&prefix)).await;
        let expected: Vec<_> = found.iter().filter(|(at, _)| *at >= from).cloned().collect();
        assert_eq!(read_all(&shared(&late), "beta", 0, from).await, expected, "from {from} on");
        close(&late);
    }
    close(&one);
    close(&other);
}

#[tokio::test]
async fn a_repeat_at_the_end_is_no_lag_and_wakes_nobody() {
    let prefix = fresh_prefix();
    let (one, other) = (open(settings(&prefix)).await, open(settings(&prefix)).await);
    let (reads, writes) = (shared(&one), shared(&other));
    reads.append("beta", 0, record("a"), Some(1)).await.unwrap();
    assert_eq!(read_all(&reads, "beta", 0, 0).await.len(), 1);
    let waiting = tokio::spawn(reads.wait_for("beta", 0, 1));
    writes.append("beta", 0, record("a"), Some(1)).await.unwrap();
    let until = Instant::now() + PATIENCE;
    while reads.skip("beta", 0, 1) < 2 {
        assert!(Instant::now() < until, "the repeat is passed over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!waiting.is_finished(), "a repeat is nothing to read");
    assert!(reads.read("beta", 0, 1, 10, 1000).await.unwrap().is_empty());
    writes.append("beta", 0, record("b"), Some(2)).await.unwrap();
    timeout(PATIENCE, waiting).await.expect("woken").unwrap().unwrap();
    assert_eq!(read_all(&reads, "beta", 0, 1).await, [(2, "b".to_owned())]);
    assert!(reads.remote_stats().unwrap().duplicates >= 1);
    close(&one);
    close(&other);
}

#[tokio::test]
async fn beyond_the_window_a_repeat_is_a_record() {
    let prefix = fresh_prefix();
    let small = || KafkaLogConfig {
        dedup_window: DedupWindow { records: 3, age: Duration::from_secs(600) },
        ..settings(&prefix)
    };
    let log = open(small()).await;
    let writes = shared(&log);
    for (text, key) in [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("a", 1)] {
        writes.append("beta", 0, record(text), Some(key)).await.unwrap();
    }
    assert_eq!(words(&read_all(&writes, "beta", 0, 0).await), ["a", "b", "c", "d", "a"]);
    let late = open(small()).await;
    assert_eq!(words(&read_all(&shared(&late), "beta", 0, 2).await), ["c", "d", "a"]);
    close(&log);
    close(&late);
}

// === reading ===

#[tokio::test]
async fn it_is_read_from_anywhere_and_again() {
    let log = open(settings(&fresh_prefix())).await;
    let all = shared(&log);
    for n in 0..50 {
        append(&all, "alpha", 0, &n.to_string()).await;
    }
    for from in [0, 40, 10, 11, 49, 0, 30] {
        let found = all.read("alpha", 0, from, 5, usize::MAX).await.unwrap();
        let expected: Vec<u64> = (from..50).take(5).collect();
        assert_eq!(found.iter().map(|r| r.offset).collect::<Vec<_>>(), expected, "from {from}");
        let again = all.read("alpha", 0, from, 3, usize::MAX).await.unwrap();
        assert_eq!(texts(&again), texts(&found)[..again.len()]);
    }
    close(&log);
}

#[tokio::test]
async fn offsets_without_a_record_are_passed_over() {
    let prefix = fresh_prefix();
    let log = open(settings(&prefix)).await;
    let all = shared(&log);
    append(&all, "beta", 0, "a").await;
    // Transactions leave marks in the log, and records that were taken back.
    let strange: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", services::kafka())
        .set("transactional.id", format!("{prefix}strange"))
        .create()
        .unwrap();
    let name = format!("{prefix}beta");
    let send = |text: &str| {
        strange
            .send(BaseRecord::<str, str>::to(&name).partition(0).payload(text))
            .map_err(|(e, _)| e)
            .unwrap();
    };
    strange.init_transactions(PATIENCE).unwrap();
    strange.begin_transaction().unwrap();
    send("kept");
    strange.commit_transaction(PATIENCE).unwrap();
    strange.begin_transaction().unwrap();
    send("taken back");
    strange.flush(PATIENCE).unwrap();
    strange.abort_transaction(PATIENCE).unwrap();
    let until = Instant::now() + PATIENCE;
    while all.bounds("beta", 0).unwrap().1 < 5 {
        assert!(Instant::now() < until, "{:?}", all.bounds("beta", 0));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(words(&read_all(&all, "beta", 0, 0).await), ["a", "kept"]);
    assert!(all.read("beta", 0, 3, 10, 1000).await.unwrap().is_empty(), "nothing but marks");
    let waiting = tokio::spawn(all.wait_for("beta", 0, 2));
    append(&all, "beta", 0, "b").await;
    timeout(PATIENCE, waiting).await.expect("woken").unwrap().unwrap();
    assert_eq!(read_all(&all, "beta", 0, 2).await, [(5, "b".to_owned())]);
    close(&log);
}

// === groups ===

/// Waits until `good` says so of what is assigned.
pub(super) async fn until(assigned: &mut watch::Receiver<Assigned>, good: impl Fn(&Assigned) -> bool) {
    let found = timeout(PATIENCE * 2, assigned.wait_for(|now| good(now))).await;
    found.unwrap_or_else(|_| panic!("the group gives and takes")).expect("open");
}

/// Claims a partition that the group is about to give.
pub(super) async fn claim_in_time(log: &Log, topic: &str, partition: u32) -> Committed {
    let until = Instant::now() + PATIENCE * 2;
    loop {
        match log.claim("g", topic, partition).await {
            Ok((_, position)) => return position,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn partitions_go_over_to_who_joins(protocol: GroupProtocol) {
    let prefix = fresh_prefix();
    let with = || {
        let mut config = settings(&prefix);
        config.group.protocol = protocol;
        config
    };
    let (one, other) = (open(with()).await, open(with()).await);
    let (first, second) = (shared(&one), shared(&other));
    for partition in 0..2 {
        append(&first, "alpha", partition, "r").await;
    }
    let mut mine = first.assigned("g").unwrap();
    until(&mut mine, |now| now.len() == 3).await;
    let mut claims = Vec::new();
    for partition in 0..2 {
        let (claim, position) = first.claim("g", "alpha", partition).await.unwrap();
        assert_eq!(position, at(0, ""));
        first.commit("g", "alpha", partition, claim, at(0, "intent=1")).await.unwrap();
        claims.push(claim);
    }
    let beta = first.claim("g", "beta", 0).await.unwrap().0;

    let mut theirs = second.assigned("g").unwrap();
    until(&mut mine, |now| now.len() < 3).await;
    let left = |now: &Assigned, place: (&str, u32)| !now.contains_key(&(place.0.to_owned(), place.1));
    let gone: Vec<(&str, u32)> = [("alpha", 0), ("alpha", 1), ("beta", 0)]
        .into_iter()
        .filter(|place| left(&mine.borrow(), *place))
        .collect();
    assert!(!gone.is_empty() && gone.len() < 3, "{gone:?}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(theirs.borrow().is_empty(), "the group waits until the claims are given back");
    for (topic, partition) in gone.iter().copied() {
        let claim = if topic == "beta" { beta } else { claims[partition as usize] };
        // What is in hand may still be finished.
        let end = if topic == "beta" { 0 } else { 1 };
        first.commit("g", topic, partition, claim, at(end, "")).await.unwrap();
        first.release("g", topic, partition, claim);
    }
    until(&mut theirs, |now| now.len() == gone.len()).await;
    for (topic, partition) in gone {
        let end = if topic == "beta" { 0 } else { 1 };
        let (_, position) = second.claim("g", topic, partition).await.unwrap();
        assert_eq!(position, at(end, ""), "what was committed last is found");
        let claim = if topic == "beta" { beta } else { claims[partition as usize] };
        let late = first.commit("g", topic, partition, claim, at(0, "")).await;
        assert!(matches!(late, Err(LogError::Fenced)), "{late:?}");
        assert!(matches!(first.claim("g", topic, partition).await, Err(LogError::Fenced)));
    }
    // And back when it leaves.
    timeout(PATIENCE, second.leave("g")).await.expect("left");
    until(&mut mine, |now| now.len() == 3).await;
    assert!(first.remote_stats().unwrap().rebalances >= 3);
    close(&one);
    close(&other);
}

#[tokio::test]
async fn partitions_go_over_to_who_joins_as_members_agree() {
    partitions_go_over_to_who_joins(GroupProtocol::Classic).await;
}

#[tokio::test]
async fn partitions_go_over_to_who_joins_as_the_broker_says() {
    partitions_go_over_to_who_joins(GroupProtocol::Broker).await;
}

#[tokio::test]
async fn a_claim_that_is_not_given_back_in_time_is_void() {
    let prefix = fresh_prefix();
    let with = || {
        let mut config = settings(&prefix);
        config.topics = vec![topic("beta", 2)];
        config.group.revoke_timeout = Duration::from_secs(1);
        config
    };
    let (one, other) = (open(with()).await, open(with()).await);
    let (first, second) = (shared(&one), shared(&other));
    let mut mine = first.assigned("g").unwrap();
    until(&mut mine, |now| now.len() == 2).await;
    let claims = [first.claim("g", "beta", 0).await.unwrap().0, first.claim("g", "beta", 1).await.unwrap().0];
    let mut theirs = second.assigned("g").unwrap();
    until(&mut theirs, |now| now.len() == 1).await;
    let (_, partition) = theirs.borrow().keys().next().cloned().unwrap();
    let late = first.commit("g", "beta", partition, claims[partition as usize], at(0, "late")).await;
    assert!(matches!(late, Err(LogError::Fenced)), "{late:?}");
    assert_eq!(second.claim("g", "beta", partition).await.unwrap().1, at(0, ""));
    let stays = 1 - partition;
    first.commit("g", "beta", stays, claims[stays as usize], at(0, "mine")).await.unwrap();
    close(&one);
    close(&other);
}

// === topics ===

#[tokio::test]
async fn a_plan_says_what_is_missing_and_what_differs() {
    let config = KafkaLogConfig { create_topics: false, ..settings(&fresh_prefix()) };
    let plan = plan_topics(&config, PATIENCE).await.unwrap();
    assert_eq!(plan.steps.len(), 2);
    assert!(matches!(&plan.steps[0], Step::Make { partitions: 2, .. }), "{plan:?}");
    let log = KafkaLog::open(config.clone()).unwrap();
    let refused = log.append("beta", 0, record("x"), None).await.unwrap_err();
    assert_eq!(refused.class(), FailureClass::Config, "{refused}");
    assert!(log.trouble().is_some());
    log.close(Duration::from_secs(1)).ok();

    ensure_topics(&config, PATIENCE).await.unwrap();
    assert_eq!(plan_topics(&config, PATIENCE).await.unwrap().steps, []);
    let mut more = config.clone();
    more.topics[1].partitions = 3;
    more.topics[0].retention_age = Some(Duration::from_secs(3600));
    let plan = plan_topics(&more, PATIENCE).await.unwrap();
    assert!(!plan.is_done());
    let told: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    assert!(told[0].contains("retention.ms=-1, configured is 3600000"), "{told:?}");
    assert!(told[1].contains("from 1 to 3 partitions"), "{told:?}");
    ensure_topics(&more, PATIENCE).await.unwrap();
    let plan = plan_topics(&more, PATIENCE).await.unwrap();
    assert!(plan.is_done() && plan.differences().count() == 1, "settings are left as they are: {plan:?}");
}

// === brokers that are away, and come back ===

#[tokio::test]
async fn it_opens_and_closes_with_no_broker_there() {
    let config = KafkaLogConfig {
        delivery_timeout: Duration::from_secs(1),
        ..settings_at("127.0.0.1:1", &fresh_prefix())
    };
    let begun = Instant::now();
    let log = KafkaLog::open(config).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));
    let all = shared(&log);
    let refused = timeout(PATIENCE, all.append("beta", 0, record("x"), Some(1))).await.unwrap().unwrap_err();
    assert_eq!(refused.class(), FailureClass::Dependency, "{refused}");
    assert_eq!(all.bounds("beta", 0).unwrap_err().class(), FailureClass::Dependency);
    assert!(all.trouble().is_some());
    assert!(all.assigned("g").unwrap().borrow().is_empty());
    let stats = all.remote_stats().unwrap();
    assert_eq!((stats.queued_bytes, stats.delivery_errors), (0, 1));
    let begun = Instant::now();
    close(&log);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(matches!(all.append("beta", 0, record("x"), None).await, Err(LogError::Closed)));
}

#[tokio::test]
async fn a_full_queue_refuses_and_recovers() {
    let config = KafkaLogConfig {
        queue_bytes: 3 << 20,
        delivery_timeout: Duration::from_secs(2),
        ..settings_at("127.0.0.1:1", &fresh_prefix())
    };
    let log = KafkaLog::open(config).unwrap();
    let large = || Record { payload: Bytes::from(vec![7; 1 << 20]), ..record("") };
    let under_way = [(); 2].map(|()| log.append("beta", 0, large(), None));
    let refused = log.append("beta", 0, large(), Some(1)).await;
    assert!(matches!(refused, Err(LogError::Full)), "{refused:?}");
    for append in under_way {
        assert_eq!(append.await.unwrap_err().class(), FailureClass::Dependency);
    }
    let refused = log.append("beta", 0, large(), Some(1)).await.unwrap_err();
    assert!(!matches!(refused, LogError::Full), "there is room again: {refused}");
    log.close(Duration::from_secs(1)).ok();
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_broker_that_is_killed() {
    let mut broker = Private::start("kafka");
    let config = settings_at(&broker.line("OBTRACE_TEST_KAFKA"), "k.");
    let log = open(config.clone()).await;
    let all = shared(&log);
    let mut assigned = all.assigned("g").unwrap();
    until(&mut assigned, |now| now.len() == 3).await;
    let (claim, _) = all.claim("g", "beta", 0).await.unwrap();
    append(&all, "beta", 0, "before").await;
    all.commit("g", "beta", 0, claim, at(0, "intent=1")).await.unwrap();
    broker.kill9("broker");
    let under_way: Vec<_> =
        (0..20).map(|n| all.append("beta", 0, record(&format!("away {n}")), Some(n + 1))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let restart = move || {
        broker.start_again();
        broker
    };
    let _broker = tokio::task::spawn_blocking(restart).await.unwrap();
    for append in under_way {
        assert!(!append.await.expect("written when the broker is back").duplicate);
    }
    // As a client does that did not hear: within the window it is known.
    assert!(all.append("beta", 0, record("away 3"), Some(4)).await.unwrap().duplicate);
    let found = read_all(&all, "beta", 0, 0).await;
    assert_eq!(found.len(), 21, "{found:?}");
    assert_eq!(claim_in_time(&all, "beta", 0).await, at(0, "intent=1"));
    close(&log);
}

fn with_certificate(cluster: &KafkaCluster, prefix: &str) -> KafkaLogConfig {
    let mut config = settings_at(&cluster.brokers, prefix);
    config.replication = Replication { factor: 3, min_insync: 2 };
    config.connection.tls = Some(Tls {
        ca: Some(cluster.ca.clone()),
        identity: Some((cluster.certificate.clone(), cluster.key.clone())),
        key_password: String::new(),
    });
    config
}

#[tokio::test]
async fn three_brokers_with_certificates_lose_one_and_nothing_else() {
    let cluster = Private::start("kafka-cluster");
    let config = with_certificate(&cluster.kafka_cluster(), "m.");
    let log = open(config.clone()).await;
    let all = shared(&log);
    let mut acknowledged = Vec::new();
    for n in 0..200_u128 {
        if n == 50 {
            cluster.kill9("broker-2");
        }
        let answer = all.append("alpha", (n % 2) as u32, record(&n.to_string()), Some(n + 1)).await;
        acknowledged.extend(answer.map(|_| n.to_string()).map_err(|error| {
            assert_eq!(error.class(), FailureClass::Dependency, "{error}");
        }));
    }
    assert!(acknowledged.len() >= 190, "{} of 200", acknowledged.len());
    let mut found = read_all(&all, "alpha", 0, 0).await;
    found.extend(read_all(&all, "alpha", 1, 0).await);
    for text in &acknowledged {
        assert_eq!(found.iter().filter(|(_, found)| found == text).count(), 1, "{text}");
    }
    close(&log);
    // Without a certificate nobody comes in.
    let mut config = with_certificate(&cluster.kafka_cluster(), "m.");
    config.connection.tls = Some(Tls { identity: None, ..config.connection.tls.unwrap() });
    let log = KafkaLog::open(config).unwrap();
    assert!(log.reached(Duration::from_secs(3)).await.is_err());
    log.close(Duration::from_secs(1)).ok();
}

#[tokio::test]
async fn a_login_opens_and_a_wrong_password_does_not() {
    let line = |key: &str| services::shared("kafka", key);
    let brokers = line("OBTRACE_TEST_KAFKA_SASL");
    let (user, password) = (line("OBTRACE_TEST_KAFKA_SASL_USER"), line("OBTRACE_TEST_KAFKA_SASL_PASSWORD"));
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        let with = |password: &str| {
            let sasl = Sasl { mechanism, user: user.clone(), password: password.to_owned() };
            let connection =
                Connection { brokers: vec![brokers.clone()], sasl: Some(sasl), ..Connection::default() };
            KafkaLogConfig { connection, ..settings(&fresh_prefix()) }
        };
        let log = open(with(&password)).await;
        assert_eq!(append(&shared(&log), "beta", 0, "in").await, 0, "{mechanism}");
        close(&log);
        let log = KafkaLog::open(with("wrong")).unwrap();
        let why = log.reached(Duration::from_secs(4)).await.unwrap_err().to_string();
        assert!(why.to_lowercase().contains("auth"), "{mechanism}: {why}");
        log.close(Duration::from_secs(1)).ok();
    }
}

#[test]
fn a_certificate_that_is_not_there_is_a_matter_of_settings() {
    let mut config = settings_at("127.0.0.1:1", "x.");
    config.connection.tls = Some(Tls { ca: Some(PathBuf::from("no-such-file.pem")), ..Tls::default() });
    let error = KafkaLog::open(config).unwrap_err();
    assert_eq!(error.class(), FailureClass::Config, "{error}");
}

// === faults that a real broker does not show on demand ===

pub(super) async fn with_faulty_brokers<F: Future<Output = ()>>(
    test: impl FnOnce(Log, Rc<MockCluster<'static, rdkafka::producer::DefaultProducerContext>>) -> F,
) {
    let cluster = Rc::new(MockCluster::new(3).unwrap());
    for (name, partitions) in [("alpha", 2), ("beta", 1)] {
        cluster.create_topic(name, partitions, 3).unwrap();
    }
    let config = KafkaLogConfig { create_topics: false, ..settings_at(&cluster.bootstrap_servers(), "") };
    let log = open(config).await;
    test(shared(&log), Rc::clone(&cluster)).await;
    log.close(Duration::from_secs(5)).ok();
}

#[tokio::test]
async fn a_leader_that_moves_and_answers_late_loses_and_doubles_nothing() {
    with_faulty_brokers(async |log, cluster| {
        for broker in 1..=3 {
            cluster.broker_round_trip_time(broker, Duration::from_millis(200)).unwrap();
        }
        let errors = [
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        ];
        cluster.request_errors(RDKafkaApiKey::Produce, &errors);
        let mut under_way = Vec::new();
        for n in 0..30_u128 {
            under_way.push(log.append("beta", 0, record(&n.to_string()), Some(n + 1)));
            if n % 10 == 5 {
                cluster.partition_leader("beta", 0, Some(1 + (n / 10) as i32)).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for append in under_way {
            append.await.expect("written in the end");
        }
        let found = read_all(&log, "beta", 0, 0).await;
        let expected: Vec<String> = (0..30).map(|n| n.to_string()).collect();
        assert_eq!(words(&found), expected.iter().map(String::as_str).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn commits_are_tried_again_while_the_group_changes_and_not_when_they_are_void() {
    with_faulty_brokers(async |log, cluster| {
        append(&log, "beta", 0, "a").await;
        let mut assigned = log.assigned("g").unwrap();
        until(&mut assigned, |now| now.len() == 3).await;
        let number = assigned.borrow()[&("beta".to_owned(), 0)];
        let (claim, _) = log.claim("g", "beta", 0).await.unwrap();
        let passing = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS; 3];
        cluster.request_errors(RDKafkaApiKey::OffsetCommit, &passing);
        log.commit("g", "beta", 0, claim, at(0, "intent=1")).await.unwrap();
        let void = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION];
        cluster.request_errors(RDKafkaApiKey::OffsetCommit, &void);
        let fenced = log.commit("g", "beta", 0, claim, at(1, "")).await;
        assert!(matches!(fenced, Err(LogError::Fenced)), "{fenced:?}");
        // It is not claimed for good: the partition is assigned anew, and the position is where it was.
        let place = ("beta".to_owned(), 0);
        until(&mut assigned, |now| now.get(&place).is_some_and(|now| *now != number)).await;
        assert_eq!(claim_in_time(&log, "beta", 0).await, at(0, "intent=1"));
        assert!(log.remote_stats().unwrap().fenced >= 1);
    })
    .await;
}

#[tokio::test]
async fn a_producer_that_is_given_up_is_replaced() {
    with_faulty_brokers(async |log, cluster| {
        append(&log, "beta", 0, "before").await;
        cluster.request_errors(
            RDKafkaApiKey::InitProducerId,
            &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED],
        );
        let epoch = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH; 2];
        cluster.request_errors(RDKafkaApiKey::Produce, &epoch);
        let given_up = log.append("beta", 0, record("lost"), Some(1)).await;
        assert!(given_up.is_err(), "{given_up:?}");
        cluster.clear_request_errors(RDKafkaApiKey::Produce);
        cluster.clear_request_errors(RDKafkaApiKey::InitProducerId);
        let until = Instant::now() + PATIENCE;
        while let Err(error) = log.append("beta", 0, record("after"), Some(2)).await {
            assert!(Instant::now() < until, "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(words(&read_all(&log, "beta", 0, 0).await).contains(&"after"));
    })
    .await;
}
