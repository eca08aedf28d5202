//! The window of who reads: records in the order of their offsets in, and whether each is the first of its dedup key out.
//!
//! Brokers know no dedup keys, so a resend that came by way of another edge, or after the answer of the first copy was
//! lost, stands in the log twice. The second copy is left out in reading. **The rule looks at the log alone**: a record is
//! a repeat when one with its key stands before it, no more than so many offsets, bytes and milliseconds back. Whoever
//! reads the partition comes to the same verdict, so the blocks that are cut from it hold the same rows. A new reader needs
//! what stands before its first record within these bounds, and no more ([`Reach::ends`]).
//!
//! Two copies that are further apart are two records. Records whose first copy was removed by retention count as first.

use std::collections::{HashMap, VecDeque};

use crate::backends::event_log::Offset;
use crate::backends::event_log::dedup::DedupWindow;

/// How far back a repeat is recognised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    pub(super) offsets: u64,
    pub(super) bytes: u64,
    pub(super) age_ms: i64,
}

/// What the filter knows of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trace {
    pub(super) offset: Offset,
    pub(super) key: Option<u128>,
    pub(super) time_ms: i64,
    pub(super) size: u64,
}

/// The keys of one partition up to some offset.
pub(super) struct Filter {
    reach: Reach,
    /// Bytes of all records seen so far.
    bytes: u64,
    /// The newest place of each key.
    newest: HashMap<u128, Place>,
    order: VecDeque<(u128, Place)>,
    next: Offset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    offset: Offset,
    bytes_before: u64,
    time_ms: i64,
}

impl Reach {
    pub(super) fn new(window: DedupWindow, bytes: usize) -> Self {
        Self {
            offsets: window.records as u64,
            bytes: bytes as u64,
            age_ms: i64::try_from(window.age.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// True when something that stands `offsets`, `bytes` and `age_ms` before a record matters no more for it.
    pub(super) fn ends(&self, offsets: u64, bytes: u64, age_ms: i64) -> bool {
        offsets >= self.offsets || bytes > self.bytes || age_ms > self.age_ms
    }
}

impl Filter {
    /// A filter that knows `before`, which stands in the order of the log and reaches far enough back, and is asked about
    /// the records from `next` on.
    pub(super) fn new(reach: Reach, before: &[Trace], next: Offset) -> Self {
        let mut this = Self { reach, bytes: 0, newest: HashMap::new(), order: VecDeque::new(), next: 0 };
        for trace in before {
            this.is_first(trace);
        }
        this.next = next;
        this
    }

    /// The offset from which on it can be asked.
    pub(super) fn next(&self) -> Offset {
        self.next
    }

    /// Whether the record is the first of its key. To be asked about each record once, in order.
    pub(super) fn is_first(&mut self, trace: &Trace) -> bool {
        self.next = trace.offset + 1;
        let place = Place { offset: trace.offset, bytes_before: self.bytes, time_ms: trace.time_ms };
        self.bytes += trace.size;
        let Some(key) = trace.key else { return true };
        let before = self.newest.insert(key, place);
        self.order.push_back((key, place));
        self.forget(place);
        !before.is_some_and(|before| self.is_within(before, place))
    }

    fn is_within(&self, before: Place, now: Place) -> bool {
        now.offset - before.offset <= self.reach.offsets
            && now.bytes_before - before.bytes_before <= self.reach.bytes
            && now.time_ms - before.time_ms <= self.reach.age_ms
    }

    fn forget(&mut self, now: Place) {
        // By count and bytes alone: the times of a log need not be in order.
        let far = |place: &Place| {
            now.offset - place.offset > self.reach.offsets
                || now.bytes_before - place.bytes_before > self.reach.bytes
        };
        while let Some((key, place)) = self.order.front().copied().filter(|(_, place)| far(place)) {
            self.order.pop_front();
            if self.newest.get(&key) == Some(&place) {
                self.newest.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REACH: Reach = Reach { offsets: 10, bytes: 100, age_ms: 1000 };

    fn trace(offset: Offset, key: u128, time_ms: i64, size: u64) -> Trace {
        Trace { offset, key: (key > 0).then_some(key), time_ms, size }
    }

    fn verdicts(traces: &[Trace]) -> Vec<bool> {
        let mut filter = Filter::new(REACH, &[], 0);
        traces.iter().map(|trace| filter.is_first(trace)).collect()
    }

    #[test]
    fn the_second_copy_is_left_out_within_each_bound_and_not_beyond() {
        let near = [trace(0, 7, 0, 10), trace(10, 7, 1000, 10)];
        assert_eq!(verdicts(&near), [true, false]);
        assert_eq!(verdicts(&[trace(0, 7, 0, 10), trace(11, 7, 0, 10)]), [true, true], "offsets");
        assert_eq!(verdicts(&[trace(0, 7, 0, 101), trace(1, 7, 0, 10)]), [true, true], "bytes");
        assert_eq!(verdicts(&[trace(0, 7, 0, 10), trace(1, 7, 1001, 10)]), [true, true], "age");
        assert_eq!(verdicts(&[trace(0, 0, 0, 10), trace(1, 0, 0, 10)]), [true, true], "no key");
    }

    proptest! {
        /// Whoever takes a partition over at any place, and reads back as far as the reach goes, says of each record what
        /// he says who has read all of it.
        #[test]
        fn who_takes_over_comes_to_the_same_verdict(
            records in prop::collection::vec((0_u128..6, 1_u64..40, 0_i64..300), 1..80),
            at in 0_usize..80,
        ) {
            let mut now = 0;
            let traces: Vec<Trace> = records.iter().enumerate().map(|(n, (key, size, step))| {
                now += step;
                trace(n as u64, *key, now, *size)
            }).collect();
            let at = at.min(traces.len() - 1);
            let whole = verdicts(&traces);
            let first = &traces[at];
            let mut bytes = 0;
            let mut from = at;
            while from > 0 {
                let before = &traces[from - 1];
                bytes += before.size;
                from -= 1;
                if REACH.ends(first.offset - before.offset, bytes, first.time_ms - before.time_ms) {
                    break;
                }
            }
            let mut late = Filter::new(REACH, &traces[from..at], first.offset);
            let said: Vec<bool> = traces[at..].iter().map(|trace| late.is_first(trace)).collect();
            prop_assert_eq!(&said[..], &whole[at..]);
        }
    }
}
