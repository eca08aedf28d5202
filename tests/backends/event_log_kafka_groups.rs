//! Groups of the event log on real brokers: what stands in the way of a claim, and what is told of it.

use std::time::{Duration, Instant};

use obtrace::backends::event_log::kafka::KafkaLogConfig;
use obtrace::backends::event_log::kafka::topics::ensure_topics;
use obtrace::backends::event_log::{EventLog, LogError};
use obtrace::domain::failure::{Classified, FailureClass};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, TopicPartitionList};
use tokio::time::timeout;

use super::event_log::{Log, PATIENCE, append};
use super::event_log_kafka::{
    at, claim_in_time, close, fresh_prefix, open, read_all, settings, settings_at, shared, topic, until,
    with_faulty_brokers, words,
};
use super::services;

#[tokio::test]
async fn a_position_beyond_the_end_is_told_and_not_taken_up() {
    let prefix = fresh_prefix();
    let log = open(settings(&prefix)).await;
    let all = shared(&log);
    append(&all, "beta", 0, "a").await;
    // As it is when the brokers came up again with less than they had.
    let commits: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", services::kafka())
        .set("group.id", format!("{prefix}g"))
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&format!("{prefix}beta"), 0, rdkafka::Offset::Offset(5)).unwrap();
    commits.commit(&list, CommitMode::Sync).unwrap();
    drop(commits);
    let mut mine = all.assigned("g").unwrap();
    until(&mut mine, |now| now.len() == 3).await;
    let error = all.claim("g", "beta", 0).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("beta 0 ends at 1, committed is 5: the brokers lost records"), "{text}");
    assert_eq!(error.class(), FailureClass::Dependency);
    assert_eq!(all.claim("g", "alpha", 0).await.unwrap().1, at(0, ""), "the others are as they were");
    close(&log);
}

/// Waits until the log says something of its trouble that `good` takes.
async fn in_trouble(log: &Log, good: impl Fn(&str) -> bool) {
    let until = Instant::now() + PATIENCE * 2;
    while !log.trouble().is_some_and(|trouble| good(&trouble)) {
        assert!(Instant::now() < until, "{:?}", log.trouble());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_group_that_does_not_let_us_in_is_trouble() {
    let prefix = fresh_prefix();
    let mut config = settings(&prefix);
    // Brokers have a least; these (dev/services) of 1 s.
    config.group.session_timeout = Duration::from_millis(500);
    let log = open(config).await;
    let all = shared(&log);
    assert_eq!(all.trouble(), None);
    let assigned = all.assigned("g").unwrap();
    in_trouble(&all, |trouble| trouble.contains("group g") && trouble.contains("session timeout")).await;
    // That all else is well does not hide it.
    append(&all, "beta", 0, "a").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    in_trouble(&all, |trouble| trouble.contains("group g")).await;
    assert!(assigned.borrow().is_empty());
    close(&log);
}

#[tokio::test]
async fn what_topics_gain_at_the_brokers_is_read() {
    let prefix = fresh_prefix();
    let maker = open(settings(&prefix)).await;
    close(&maker);
    let config = || KafkaLogConfig { create_topics: false, ..settings(&prefix) };
    let log = open(config()).await;
    let all = shared(&log);
    let mut mine = all.assigned("g").unwrap();
    until(&mut mine, |now| now.len() == 3).await;
    let grown = KafkaLogConfig { topics: vec![topic("alpha", 4), topic("beta", 1)], ..config() };
    ensure_topics(&grown, PATIENCE).await.unwrap();
    let gained = ("alpha".to_owned(), 3);
    until(&mut mine, |now| now.contains_key(&gained)).await;
    assert_eq!(claim_in_time(&all, "alpha", 3).await, at(0, ""));
    let other = open(KafkaLogConfig { topics: grown.topics.clone(), ..config() }).await;
    append(&shared(&other), "alpha", 3, "there").await;
    timeout(PATIENCE, all.wait_for("alpha", 3, 0)).await.expect("it comes").unwrap();
    assert_eq!(words(&read_all(&all, "alpha", 3, 0).await), ["there"]);
    assert_eq!(all.partitions("alpha"), Some(2), "who writes keeps to what is configured");
    close(&log);
    close(&other);
}

#[tokio::test]
async fn a_group_that_is_forbidden_is_trouble_until_it_is_allowed() {
    with_faulty_brokers(async |log, cluster| {
        let forbidden = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 4];
        cluster.request_errors(RDKafkaApiKey::JoinGroup, &forbidden);
        let mut assigned = log.assigned("g").unwrap();
        in_trouble(&log, |trouble| trouble.contains("group g") && trouble.contains("authorization")).await;
        until(&mut assigned, |now| now.len() == 3).await;
        assert_eq!(log.trouble(), None);
    })
    .await;
}

#[tokio::test]
async fn a_position_is_read_after_the_commits_of_an_earlier_claim() {
    with_faulty_brokers(async |log, cluster| {
        append(&log, "beta", 0, "a").await;
        let mut assigned = log.assigned("g").unwrap();
        until(&mut assigned, |now| now.len() == 3).await;
        let (earlier, _) = log.claim("g", "beta", 0).await.unwrap();
        for broker in 1..=3 {
            cluster.broker_round_trip_time(broker, Duration::from_millis(500)).unwrap();
        }
        // To the brokers, both are the same member.
        let commit = tokio::spawn(log.commit("g", "beta", 0, earlier, at(1, "intent=1")));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let claim = log.claim("g", "beta", 0);
        tokio::pin!(claim);
        assert!(timeout(Duration::from_millis(200), &mut claim).await.is_err(), "brokers are slow");
        let late = log.commit("g", "beta", 0, earlier, at(1, "late")).await;
        assert!(matches!(late, Err(LogError::Fenced)), "{late:?}");
        let (claim, position) = claim.await.unwrap();
        commit.await.unwrap().unwrap();
        assert_eq!(position, at(1, "intent=1"));
        log.commit("g", "beta", 0, claim, at(1, "")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_nobody_waits_for_is_not_held() {
    with_faulty_brokers(async |log, cluster| {
        let mut assigned = log.assigned("g").unwrap();
        until(&mut assigned, |now| now.len() == 3).await;
        for broker in 1..=3 {
            cluster.broker_round_trip_time(broker, Duration::from_millis(500)).unwrap();
        }
        assert!(timeout(Duration::from_millis(200), log.claim("g", "beta", 0)).await.is_err());
        for broker in 1..=3 {
            cluster.broker_round_trip_time(broker, Duration::ZERO).unwrap();
        }
        // Another joins and gets its part at once, though claims may be held for longer than this waits.
        let config = KafkaLogConfig { create_topics: false, ..settings_at(&cluster.bootstrap_servers(), "") };
        let other = open(config).await;
        let mut theirs = shared(&other).assigned("g").unwrap();
        until(&mut theirs, |now| !now.is_empty()).await;
        assert_eq!(log.remote_stats().unwrap().fenced, 0);
        other.close(Duration::from_secs(5)).ok();
    })
    .await;
}
