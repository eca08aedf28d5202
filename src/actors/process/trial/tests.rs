//! The steps of a trial, taken in this process: what is told, in which order, and what is left out. That a trial survives
//! what kills its process is tested with real processes (`tests/flow/poison.rs`).

use bytes::Bytes;
use serde_json::json;

use super::child::carry_out;
use super::codec::{Mark, Order, Steps};
use super::*;
use crate::backends::event_log::Record;
use crate::domain::envelope::{Header, SCHEMA_VERSION, WireFormat};
use crate::domain::scope::Scope;
use crate::domain::signal::Signal;
use crate::wire::envelope::to_record_headers;

fn record(offset: u64, logs: usize) -> StoredRecord {
    let one = json!({"timeUnixNano": "1700000000000000000", "body": {"stringValue": "x"}});
    let body = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": vec![one; logs]}]}]});
    let payload = Bytes::from(body.to_string());
    let header = Header {
        schema_version: SCHEMA_VERSION,
        format: WireFormat::Json,
        scope: Scope::dev_default(),
        signal: Signal::Logs,
        retention_days: 3,
        received_at_ns: 5,
        batch_id: uuid::Uuid::now_v7(),
        content_hash: 7,
        record_count: u32::try_from(logs).unwrap(),
        byte_count: u32::try_from(payload.len()).unwrap(),
        attempts: 0,
        last_error: None,
        trace_context: None,
    };
    StoredRecord {
        offset,
        record: Record { key: Bytes::new(), headers: to_record_headers(&header), payload },
    }
}

fn marks(records: &[StoredRecord], verdict: Verdict, steps: Steps) -> Vec<Mark> {
    let order = Order { verdict, steps, records: u32::try_from(records.len()).unwrap() };
    let mut told = Vec::new();
    carry_out(&order, records, &mut |mark| {
        told.push(mark.clone());
        Ok(())
    })
    .unwrap();
    assert_eq!((told.first(), told.last()), (Some(&Mark::Begun), Some(&Mark::Done)));
    told[1..told.len() - 1].to_vec()
}

#[test]
fn a_block_is_rehearsed_as_it_will_be_stored() {
    let records = [record(4, 2), record(5, 1)];
    assert_eq!(marks(&records, Verdict::default(), Steps::Rehearse), [Mark::Rehearse(None)]);
    let apart = Verdict { apart: true, ..Verdict::default() };
    assert_eq!(marks(&records, apart, Steps::Rehearse), [4, 5].map(|at| Mark::Rehearse(Some(at))));
}

#[test]
fn every_item_is_named_before_it_is_tried_and_the_dead_rest() {
    let records = [record(4, 3), record(5, 1), record(6, 2)];
    let verdict = Verdict { apart: false, dead: [Item::at(4, 1), Item::whole(6)].into() };
    let expected = [Item::whole(4), Item::at(4, 0), Item::at(4, 2), Item::whole(5), Item::at(5, 0)];
    let told = marks(&records, verdict, Steps::Alone { after: None });
    assert_eq!(told, expected.map(Mark::Try));
}

#[test]
fn a_trial_goes_on_behind_the_item_that_ended_the_last_one() {
    let records = [record(4, 3), record(5, 3), record(6, 1)];
    let after = Some(Item::at(5, 1));
    let told = marks(&records, Verdict::default(), Steps::Alone { after });
    let expected = [Item::whole(5), Item::at(5, 2), Item::whole(6), Item::at(6, 0)];
    assert_eq!(told, expected.map(Mark::Try));
}

#[test]
fn what_cannot_be_read_is_no_fault_of_the_code() {
    let mut broken = record(4, 1);
    broken.record.payload = Bytes::from_static(b"{");
    let told = marks(&[broken], Verdict::default(), Steps::Alone { after: None });
    assert_eq!(told, [Mark::Try(Item::whole(4))]);
}

#[test]
fn the_rest_of_a_deadly_batch_is_named_item_by_item() {
    let records = [record(4, 20)];
    let rest = rest_of(&records, Item::at(4, 16), Cause::Killed);
    assert_eq!(
        rest.iter().map(|offence| offence.item).collect::<Vec<_>>(),
        [17, 18, 19].map(|n| Item::at(4, n))
    );
    assert!(rest_of(&records, Item::at(4, 19), Cause::Killed).is_empty());
}
