//! Items that cannot be stored → records of their own for the next rung of the retry ladder, or for the dead letters.
//!
//! Pure but for the time it is given. An item leaves its batch as an OTLP request of its own, with its resource, its scope
//! and the headers of its batch; a record that cannot be read goes as it is.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::transform::{guarded, open};
use crate::backends::event_log::{Record, StoredRecord};
use crate::domain::block::BlockId;
use crate::domain::offence::{Cause, Offence};
use crate::domain::signal::{DLQ_TOPIC, RETRY_TOPICS, Signal};
use crate::wire::envelope::{names, record_count};
use crate::wire::letter::{Letter, dedup_key, set, text_of};

/// The retry ladder: how long an item waits on each rung. Zero leaves a rung out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ladder {
    /// The waits, in the order of the retry topics.
    pub waits: [Duration; RETRY_TOPICS.len()],
}

/// An item that is put aside: where it goes and as what.
#[derive(Debug, Clone)]
pub struct Aside {
    /// Topic.
    pub topic: &'static str,
    /// Partition.
    pub partition: u32,
    /// The record.
    pub record: Record,
    /// Key by which putting it aside twice is once.
    pub dedup: u128,
    /// Why.
    pub cause: Cause,
}

impl Ladder {
    /// The next rung for what failed in `topic`; `None` is the dead letters. What somebody replayed by hand does not climb
    /// again: its cause is still there, and he wants to know.
    fn next(&self, topic: &str, replayed: bool) -> Option<usize> {
        let below = RETRY_TOPICS.iter().position(|rung| *rung == topic).map_or(0, |rung| rung + 1);
        let first = if replayed { RETRY_TOPICS.len() } else { below };
        (first..RETRY_TOPICS.len()).find(|rung| !self.waits[*rung].is_zero())
    }
}

/// What becomes of the offences of a block, in their order.
pub fn put_aside(
    ladder: &Ladder,
    block: &BlockId,
    records: &[StoredRecord],
    offences: &[Offence],
    now_ns: u64,
) -> Vec<Aside> {
    let mut by_record: BTreeMap<u64, Vec<&Offence>> = BTreeMap::new();
    for offence in offences {
        by_record.entry(offence.item.offset).or_default().push(offence);
    }
    let found = |offset: u64| records.iter().find(|record| record.offset == offset);
    let pairs = by_record.into_iter().filter_map(|(offset, offences)| Some((found(offset)?, offences)));
    pairs.flat_map(|(source, offences)| of_record(ladder, block, source, &offences, now_ns)).collect()
}

fn of_record(
    ladder: &Ladder,
    block: &BlockId,
    source: &StoredRecord,
    offences: &[&Offence],
    now_ns: u64,
) -> Vec<Aside> {
    let mut items = take_out(source, offences);
    let asides = offences.iter().map(|offence| {
        let item = offence.item.index.and_then(|index| items.remove(&index));
        aside(ladder, block, source, offence, item, now_ns)
    });
    asides.collect()
}

/// The offending items of a record as payloads in the record's format, by number.
fn take_out(source: &StoredRecord, offences: &[&Offence]) -> BTreeMap<u32, Bytes> {
    let mut items: BTreeMap<u32, Bytes> =
        offences.iter().filter_map(|offence| Some((offence.item.index?, Bytes::new()))).collect();
    // A record with one item is that item already.
    if items.is_empty() || record_count(&source.record.headers) == 1 {
        return BTreeMap::new();
    }
    let taken = guarded(|| {
        let (header, payload) = open(source).ok()?;
        let mut index = 0;
        payload.for_each_item(&mut |item| {
            if let Some(place) = items.get_mut(&index) {
                *place = Bytes::from(item.encode(header.format));
            }
            index += 1;
        });
        Some(())
    });
    if let Ok(Some(())) = taken {
        items.retain(|_, payload| !payload.is_empty());
        return items;
    }
    BTreeMap::new()
}

fn aside(
    ladder: &Ladder,
    block: &BlockId,
    source: &StoredRecord,
    offence: &Offence,
    item: Option<Bytes>,
    now_ns: u64,
) -> Aside {
    let place = block.place(source.offset);
    let mut record = source.record.clone();
    let number = item.is_some().then_some(offence.item.index).flatten();
    let former = Letter::of(&record.headers);
    let rung = ladder.next(&block.topic, former.as_ref().is_some_and(|former| former.replay > 0));
    let former = former.unwrap_or_else(|| Letter {
        id: place.clone(),
        source: place.clone(),
        first_failed_ns: now_ns,
        ..Letter::default()
    });
    let letter = Letter {
        id: number.map_or_else(|| former.id.clone(), |number| format!("{}.{number}", former.id)),
        cause: Some(offence.cause),
        reason: offence.reason.clone(),
        attempts: former.attempts.saturating_add(1),
        last_failed_ns: now_ns,
        due_ns: rung.map_or(0, |rung| now_ns.saturating_add(nanos(ladder.waits[rung]))),
        ..former
    };
    if let Some(payload) = item {
        set(&mut record.headers, names::RECORD_COUNT, String::from("1"));
        set(&mut record.headers, names::BYTE_COUNT, payload.len().to_string());
        record.payload = payload;
    }
    letter.write(&mut record.headers);
    let index = offence.item.index.map(|index| format!(".{index}")).unwrap_or_default();
    let (topic, partition) = match rung {
        Some(rung) => (RETRY_TOPICS[rung], signal_of(block, source).number()),
        None => (DLQ_TOPIC, 0),
    };
    Aside { topic, partition, record, dedup: dedup_key(&format!("{place}{index}")), cause: offence.cause }
}

/// The signal of a record: by its header, or by the topic or partition it stands in.
fn signal_of(block: &BlockId, source: &StoredRecord) -> Signal {
    let by_header = text_of(&source.record.headers, names::SIGNAL).and_then(Signal::parse);
    let by_topic = Signal::ALL.into_iter().find(|signal| signal.topic() == block.topic);
    let by_partition = Signal::ALL.into_iter().find(|signal| signal.number() == block.partition);
    by_topic.or(by_header).or(by_partition).unwrap_or(Signal::Logs)
}

fn nanos(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::envelope::{Header, SCHEMA_VERSION, WireFormat};
    use crate::domain::offence::Item;
    use crate::domain::scope::Scope;
    use crate::wire::Payload;
    use crate::wire::envelope::to_record_headers;

    const LADDER: Ladder = Ladder { waits: [Duration::from_secs(60), Duration::from_secs(600)] };
    const NOW: u64 = 1_700_000_000_000_000_000;

    fn source(offset: u64, format: WireFormat) -> StoredRecord {
        let json = br#"{"resourceLogs": [{"resource": {"attributes": [{"key": "service.name", "value":
            {"stringValue": "till"}}]}, "scopeLogs": [{"scope": {"name": "lib"}, "logRecords": [
            {"timeUnixNano": "1", "body": {"stringValue": "one"}}, {"timeUnixNano": "2", "body": {"stringValue": "two"}}]}]}]}"#;
        let request = Payload::decode(Signal::Logs, WireFormat::Json, json, &Default::default()).unwrap();
        let payload = Bytes::from(request.encode(format));
        let header = Header {
            schema_version: SCHEMA_VERSION,
            format,
            scope: Scope::dev_default(),
            signal: Signal::Logs,
            retention_days: 3,
            received_at_ns: 5,
            batch_id: uuid::Uuid::now_v7(),
            content_hash: 7,
            record_count: 2,
            byte_count: 9,
            attempts: 0,
            last_error: None,
            trace_context: None,
        };
        let record = Record { key: Bytes::new(), headers: to_record_headers(&header), payload };
        StoredRecord { offset, record }
    }

    fn offence(item: Item) -> Offence {
        Offence { item, cause: Cause::Panic, reason: String::from("it panics at x.rs:1") }
    }

    fn block(topic: &str) -> BlockId {
        BlockId { topic: topic.into(), partition: 1, first: 10, end: 20 }
    }

    #[test]
    fn an_item_leaves_its_batch_with_its_resource_and_scope() {
        for format in [WireFormat::Json, WireFormat::Otlp] {
            let sources = [source(17, format)];
            let offences = [offence(Item::at(17, 1))];
            let asides = put_aside(&LADDER, &block("obtrace.logs"), &sources, &offences, NOW);
            assert_eq!(asides.len(), 1);
            assert_eq!((asides[0].topic, asides[0].partition), ("obtrace.retry.1m", 1));
            let taken = StoredRecord { offset: 0, record: asides[0].record.clone() };
            let (header, payload) = open(&taken).unwrap();
            assert_eq!((header.record_count, header.retention_days, payload.count()), (1, 3, 1));
            let text = String::from_utf8(payload.encode(WireFormat::Json)).unwrap();
            for part in ["till", "lib", "two"] {
                assert!(text.contains(part), "{part} in {text}");
            }
            let letter = Letter::of(&taken.record.headers).unwrap();
            assert_eq!(
                (letter.id.as_str(), letter.source.as_str()),
                ("obtrace.logs-1-17.1", "obtrace.logs-1-17")
            );
            assert_eq!((letter.attempts, letter.first_failed_ns), (1, NOW));
            assert_eq!(letter.due_ns, NOW + 60_000_000_000);
        }
    }

    #[test]
    fn the_ladder_ends_in_the_dead_letters_and_the_letter_stays_the_same() {
        let first = put_aside(
            &LADDER,
            &block("obtrace.logs"),
            &[source(17, WireFormat::Json)],
            &[offence(Item::at(17, 0))],
            NOW,
        );
        let on_rung = StoredRecord { offset: 3, record: first[0].record.clone() };
        let second =
            put_aside(&LADDER, &block(RETRY_TOPICS[0]), &[on_rung], &[offence(Item::at(3, 0))], NOW + 7);
        assert_eq!(second[0].topic, "obtrace.retry.10m");
        let on_rung = StoredRecord { offset: 4, record: second[0].record.clone() };
        let third =
            put_aside(&LADDER, &block(RETRY_TOPICS[1]), &[on_rung], &[offence(Item::at(4, 0))], NOW + 9);
        assert_eq!((third[0].topic, third[0].partition), (DLQ_TOPIC, 0));
        let letter = Letter::of(&third[0].record.headers).unwrap();
        assert_eq!((letter.id.as_str(), letter.attempts), ("obtrace.logs-1-17.0", 3));
        assert_eq!((letter.first_failed_ns, letter.last_failed_ns, letter.due_ns), (NOW, NOW + 9, 0));
        assert_ne!(first[0].dedup, third[0].dedup);
    }

    #[test]
    fn rungs_may_be_left_out_and_a_replay_does_not_climb() {
        let none = Ladder { waits: [Duration::ZERO; 2] };
        let second_only = Ladder { waits: [Duration::ZERO, Duration::from_secs(1)] };
        assert_eq!(none.next("obtrace.logs", false), None);
        assert_eq!(second_only.next("obtrace.logs", false), Some(1));
        assert_eq!(second_only.next("obtrace.retry.10m", false), None);
        assert_eq!(LADDER.next("obtrace.logs", true), None);
    }

    #[test]
    fn what_cannot_be_read_goes_whole_and_the_same_key_names_the_same_item() {
        let mut broken = source(17, WireFormat::Json);
        broken.record.payload = Bytes::from_static(b"{nonsense");
        let offences = [offence(Item::whole(17))];
        let once = put_aside(&LADDER, &block("obtrace.logs"), &[broken.clone()], &offences, NOW);
        let twice = put_aside(&LADDER, &block("obtrace.logs"), &[broken.clone()], &offences, NOW + 1);
        assert_eq!(once[0].record.payload, broken.record.payload);
        assert_eq!(once[0].dedup, twice[0].dedup);
        assert_eq!(Letter::of(&once[0].record.headers).unwrap().id, "obtrace.logs-1-17");
    }
}
