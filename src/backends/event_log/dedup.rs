//! The window in which a repeated append is recognised: dedup keys in, offset of the first copy out. Cannot fail.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// How far back a partition remembers dedup keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupWindow {
    /// At most so many records with a key.
    pub records: usize,
    /// At most so old.
    pub age: Duration,
}

impl Default for DedupWindow {
    fn default() -> Self {
        Self { records: 16_384, age: Duration::from_secs(600) }
    }
}

/// The keys of one partition, oldest first.
pub(crate) struct Seen {
    window: DedupWindow,
    order: VecDeque<(u128, u64, u64)>,
    by_key: HashMap<u128, u64>,
}

impl Seen {
    pub(crate) fn new(window: DedupWindow) -> Self {
        Self { window, order: VecDeque::new(), by_key: HashMap::new() }
    }

    /// Offset of the first copy of `key`, if it is in the window at `now_ns`.
    pub(crate) fn find(&mut self, key: u128, now_ns: u64) -> Option<u64> {
        self.expire(now_ns);
        self.by_key.get(&key).copied()
    }

    /// Remembers `key` as the record at `offset`.
    pub(crate) fn insert(&mut self, key: u128, offset: u64, time_ns: u64) {
        self.order.push_back((key, offset, time_ns));
        self.by_key.insert(key, offset);
        self.expire(time_ns);
    }

    /// Forgets the records from `offset` on: they did not become durable.
    pub(crate) fn forget_from(&mut self, offset: u64) {
        while let Some((key, at, _)) = self.order.back().copied() {
            if at < offset {
                break;
            }
            self.order.pop_back();
            self.drop_key(key, at);
        }
    }

    fn expire(&mut self, now_ns: u64) {
        let oldest = now_ns.saturating_sub(u64::try_from(self.window.age.as_nanos()).unwrap_or(u64::MAX));
        while let Some((key, at, time_ns)) = self.order.front().copied() {
            if self.order.len() <= self.window.records && time_ns >= oldest {
                break;
            }
            self.order.pop_front();
            self.drop_key(key, at);
        }
    }

    // A key may have come back after its first copy expired; only the entry that owns it removes it.
    fn drop_key(&mut self, key: u128, offset: u64) {
        if self.by_key.get(&key) == Some(&offset) {
            self.by_key.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(records: usize, seconds: u64) -> Seen {
        Seen::new(DedupWindow { records, age: Duration::from_secs(seconds) })
    }

    #[test]
    fn the_oldest_key_goes_when_the_count_is_reached() {
        let mut seen = seen(2, 600);
        (0..3).for_each(|n| seen.insert(u128::from(n), n, n));
        assert_eq!([0, 1, 2].map(|key| seen.find(key, 3)), [None, Some(1), Some(2)]);
    }

    #[test]
    fn a_key_goes_when_it_is_too_old() {
        let mut seen = seen(10, 1);
        seen.insert(7, 0, 1_000_000_000);
        assert_eq!(seen.find(7, 2_000_000_000), Some(0));
        assert_eq!(seen.find(7, 2_000_000_001), None);
    }

    #[test]
    fn records_that_were_lost_are_no_first_copies() {
        let mut seen = seen(10, 600);
        (0..4).for_each(|n| seen.insert(u128::from(n), n, 0));
        seen.forget_from(2);
        assert_eq!([0, 1, 2, 3].map(|key| seen.find(key, 0)), [Some(0), Some(1), None, None]);
    }
}
