//! What is stored under which token, and what is put aside, when the store refuses: against a store and a log of the test.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, StringArray};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::backends::event_log::{Appended, Record};
use crate::backends::telemetry::client::TelemetryError;
use crate::config::Config;
use crate::domain::envelope::{Header, SCHEMA_VERSION, WireFormat};
use crate::domain::scope::Scope;
use crate::supervisors::kernel::lane::Lane;
use crate::supervisors::kernel::policy::Policy;
use crate::supervisors::kernel::port::Reply;
use crate::supervisors::kernel::probe::Probe;
use crate::wire::envelope::to_record_headers;
use crate::wire::letter::Letter;

/// A store that refuses batches with a body that holds `refused`, and keeps what it takes by token.
struct Stand {
    outlets: Outlets,
    stored: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
    aside: Arc<Mutex<BTreeMap<u128, Record>>>,
}

fn bodies(batch: &RecordBatch) -> Vec<String> {
    let column = batch.column_by_name("body").expect("a body");
    let texts = column.as_any().downcast_ref::<StringArray>().expect("texts");
    (0..texts.len()).map(|row| texts.value(row).to_owned()).collect()
}

fn stand() -> Stand {
    let (store, producer) =
        (Lane::new("store", Policy::default().lane), Lane::new("log", Policy::default().lane));
    let outlets = Outlets {
        store: store.port(),
        producer: producer.port(),
        metrics: Metrics::new(),
        trial: Trial { config: Config::default().into() },
        ladder: Ladder { waits: [Duration::ZERO; 2] },
    };
    let (stored, aside) = (Arc::new(Mutex::new(BTreeMap::new())), Arc::new(Mutex::new(BTreeMap::new())));
    let kept = Arc::clone(&stored);
    tokio::spawn(async move {
        let mut inbox = store.inbox(Probe::detached());
        while let Some(rows) = inbox.next().await {
            let texts = bodies(&rows.batch);
            let answer = if texts.iter().any(|text| text.contains("refused")) {
                Err(TelemetryError::Exception { code: 117, text: "INCORRECT_DATA".into() })
            } else {
                kept.lock().entry(rows.token.clone()).or_insert(texts);
                Ok(())
            };
            rows.reply.send(answer);
            rows.ack();
        }
    });
    let kept = Arc::clone(&aside);
    tokio::spawn(async move {
        let mut inbox = producer.inbox(Probe::detached());
        while let Some(append) = inbox.next().await {
            let mut kept = kept.lock();
            let duplicate = kept.insert(append.dedup.unwrap_or_default(), append.record.clone()).is_some();
            append.reply.send(Ok(Appended { offset: kept.len() as u64, duplicate }));
            append.ack();
        }
    });
    Stand { outlets, stored, aside }
}

fn record(offset: u64, texts: &[String]) -> StoredRecord {
    let time = "1700000000000000000";
    let logs: Vec<_> =
        texts.iter().map(|text| json!({"timeUnixNano": time, "body": {"stringValue": text}})).collect();
    let payload = Bytes::from(json!({"resourceLogs": [{"scopeLogs": [{"logRecords": logs}]}]}).to_string());
    let header = Header {
        schema_version: SCHEMA_VERSION,
        format: WireFormat::Json,
        scope: Scope::dev_default(),
        signal: Signal::Logs,
        retention_days: 3,
        received_at_ns: 5,
        batch_id: uuid::Uuid::now_v7(),
        content_hash: 7,
        record_count: u32::try_from(texts.len()).expect("few"),
        byte_count: 9,
        attempts: 0,
        last_error: None,
        trace_context: None,
    };
    StoredRecord {
        offset,
        record: Record { key: Bytes::new(), headers: to_record_headers(&header), payload },
    }
}

fn work(records: Vec<StoredRecord>, verdict: Verdict) -> ProcessBlock {
    let (first, end) = (records[0].offset, records[records.len() - 1].offset + 1);
    let block = BlockId { topic: "obtrace.logs".into(), partition: 0, first, end };
    ProcessBlock { block, records, bytes: 1, verdict, suspect: false, reply: Reply::new().0 }
}

/// Eight records of four items; the ones in `bad` are refused.
fn records(bad: &[(u64, u32)]) -> Vec<StoredRecord> {
    let text = |offset: u64, index: u32| {
        let kind = if bad.contains(&(offset, index)) { "refused" } else { "fine" };
        format!("{kind} {offset}.{index}")
    };
    (10..18).map(|offset| record(offset, &[0, 1, 2, 3].map(|index| text(offset, index)))).collect()
}

/// Sends the block as a consumer does, until it is settled.
async fn settle(stand: &Stand, records: Vec<StoredRecord>) -> (u64, u64) {
    let mut verdict = Verdict::default();
    for _ in 0..10 {
        match stand.outlets.settle(&work(records.clone(), verdict.clone()), false, || true).await {
            BlockOutcome::Settled { rows, aside } => return (rows, aside),
            BlockOutcome::Found { verdict: found, suspect } => {
                assert!(!suspect && found != verdict, "each finding is a new one");
                verdict = found;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("it does not come to an end");
}

#[tokio::test]
async fn what_the_store_refuses_is_put_aside_alone_and_the_rest_is_stored_once() {
    let stand = stand();
    let bad = [(12, 1), (12, 2), (17, 3)];
    // A second time, as after a crash: the same tokens, the same letters.
    for _ in 0..2 {
        assert_eq!(settle(&stand, records(&bad)).await, (8 * 4 - 3, 3));
        let stored = stand.stored.lock();
        let mut texts: Vec<&String> = stored.values().flatten().collect();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), stored.values().flatten().count(), "no row under two tokens: {stored:?}");
        assert_eq!(texts.len(), 8 * 4 - 3);
        assert!(!stored.contains_key("obtrace.logs-0-10-18"), "nothing under the id of the block");
        let aside = stand.aside.lock();
        let mut ids: Vec<String> =
            aside.values().map(|record| Letter::of(&record.headers).expect("a letter").id).collect();
        ids.sort();
        assert_eq!(ids, ["obtrace.logs-0-12.1", "obtrace.logs-0-12.2", "obtrace.logs-0-17.3"]);
        for record in aside.values() {
            let letter = Letter::of(&record.headers).expect("a letter");
            assert!(letter.reason.contains("code 117") && letter.cause == Some(Cause::Refused), "{letter:?}");
            let payload = String::from_utf8_lossy(&record.payload);
            assert!(payload.contains("refused") && !payload.contains("fine"), "{payload}");
        }
    }
}

#[tokio::test]
async fn where_all_is_refused_not_every_item_is_asked_alone() {
    let stand = stand();
    let texts: Vec<String> = (0..2000).map(|n| format!("refused {n}")).collect();
    let (rows, aside) = settle(&stand, vec![record(10, &texts), record(11, &["fine".into()])]).await;
    assert_eq!((rows, aside), (1, 2000));
    assert_eq!(stand.aside.lock().len(), 2000);
    let asked = stand.outlets.store.stats().acked;
    assert!(asked < 1000, "{asked} inserts for 2000 refused items");
}

#[tokio::test]
async fn what_the_columns_refuse_leaves_without_a_second_delivery() {
    let stand = stand();
    let mut odd = record(10, &["fine".into(), "fine too".into()]);
    let payload = String::from_utf8_lossy(&odd.record.payload).replacen(
        "\"timeUnixNano\":\"1700000000000000000\"",
        "\"timeUnixNano\":\"18446744073709551615\"",
        1,
    );
    odd.record.payload = Bytes::from(payload);
    let outcome = stand.outlets.settle(&work(vec![odd], Verdict::default()), false, || true).await;
    assert_eq!(outcome, BlockOutcome::Settled { rows: 1, aside: 1 });
    let aside = stand.aside.lock();
    let letter = aside.values().next().and_then(|record| Letter::of(&record.headers)).expect("a letter");
    assert_eq!((letter.cause, letter.id.as_str()), (Some(Cause::Unfit), "obtrace.logs-0-10.0"));
}

#[tokio::test]
async fn a_worker_that_was_replaced_stores_nothing() {
    let stand = stand();
    let outcome = stand.outlets.settle(&work(records(&[]), Verdict::default()), false, || false).await;
    assert!(matches!(outcome, BlockOutcome::NotNow(_)), "{outcome:?}");
    assert!(stand.stored.lock().is_empty());
}

#[tokio::test]
async fn a_verdict_leaves_out_what_it_names() {
    let stand = stand();
    let verdict = Verdict { apart: false, dead: [Item::at(12, 1), Item::whole(13)].into() };
    let outcome = stand.outlets.settle(&work(records(&[(12, 1)]), verdict), false, || true).await;
    assert_eq!(outcome, BlockOutcome::Settled { rows: 8 * 4 - 5, aside: 0 });
    assert_eq!(stand.stored.lock().keys().collect::<Vec<_>>(), ["obtrace.logs-0-10-18"]);
}
