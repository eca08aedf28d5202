//! Counts what the API returned against the ledger: sequence numbers in, missing, doubled, altered and stray records out.
//!
//! Two bits a record (seen 0, 1, 2, 3 or more times), so that a run of a hundred million records takes 25 MB.

use serde::Serialize;

use super::journal::{Fate, Ledger};
use crate::domain::signal::Signal;

/// Offenders named in a report; the rest is counted.
const NAMED: usize = 10;

/// How often each sequence number of one signal was seen.
#[derive(Debug, Clone, Default)]
pub struct SeqCounts {
    words: Vec<u64>,
    end: u64,
}

impl SeqCounts {
    /// Room for sequence numbers below `end`.
    pub fn new(end: u64) -> Self {
        Self { words: vec![0; usize::try_from(end.div_ceil(32)).unwrap_or(0)], end }
    }

    /// Counts one sighting; false where the number lies outside of the run.
    pub fn add(&mut self, seq: u64) -> bool {
        let count = self.get(seq);
        let Some(word) = usize::try_from(seq / 32).ok().and_then(|w| self.words.get_mut(w)) else {
            return false;
        };
        if seq < self.end && count < 3 {
            *word += 1 << (seq % 32 * 2);
        }
        seq < self.end
    }

    /// Sightings, 3 for 3 or more.
    pub fn get(&self, seq: u64) -> u64 {
        let word = usize::try_from(seq / 32).ok().and_then(|w| self.words.get(w));
        word.map_or(0, |w| w >> (seq % 32 * 2) & 3)
    }
}

/// The result for one signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Which signal.
    pub signal: Signal,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Rows the API returned for the run.
    pub returned: u64,
    /// Acknowledged records that are not there.
    pub missing: u64,
    /// Records that are there more than once, whatever was answered.
    pub doubled: u64,
    /// Records without an answer.
    pub unknown: u64,
    /// Of these, how many are there (which is fine).
    pub unknown_stored: u64,
    /// Records of batches refused for good that are there nevertheless.
    pub refused_stored: u64,
    /// Rows with a sequence number that was never sent.
    pub stray: u64,
    /// Rows whose trace id is not the one that was sent.
    pub altered: u64,
    /// The first few offenders, in words.
    pub offenders: Vec<String>,
}

impl Verdict {
    /// Nothing known yet.
    pub fn new(signal: Signal) -> Self {
        Self {
            signal,
            acknowledged: 0,
            returned: 0,
            missing: 0,
            doubled: 0,
            unknown: 0,
            unknown_stored: 0,
            refused_stored: 0,
            stray: 0,
            altered: 0,
            offenders: Vec::new(),
        }
    }

    /// Every acknowledged record is there, once, as it was sent, and no other.
    pub fn holds(&self) -> bool {
        self.missing == 0 && self.doubled == 0 && self.stray == 0 && self.altered == 0
    }

    /// Names an offender while there is room.
    pub fn name(&mut self, offender: impl FnOnce() -> String) {
        if self.offenders.len() < NAMED {
            self.offenders.push(offender());
        }
    }

    /// Adds what is known of one batch: `stored` distinct records are there, `doubled` of them more than once.
    pub fn batch(&mut self, number: u64, count: u64, fate: Fate, stored: u64, doubled: u64) {
        self.doubled += doubled;
        match fate {
            Fate::Accepted => self.must_hold(number, count, stored),
            Fate::Partial(rejected) => self.must_hold(number, count.saturating_sub(rejected), stored),
            Fate::Refused => self.refused_stored += stored,
            Fate::Unknown => {
                self.unknown += count;
                self.unknown_stored += stored;
            }
        }
        if doubled > 0 {
            self.name(|| {
                format!("batch {number}: {doubled} of {count} records are there more than once ({fate:?})")
            });
        }
    }

    fn must_hold(&mut self, number: u64, expected: u64, stored: u64) {
        let missing = expected.saturating_sub(stored);
        self.acknowledged += expected;
        self.missing += missing;
        if missing > 0 {
            self.name(|| format!("batch {number}: {missing} of {expected} acknowledged records are missing"));
        }
    }
}

/// Judges spans or log records by their sequence numbers. `verdict` already counts returned, stray and altered rows.
pub fn judge(ledger: &Ledger, mut verdict: Verdict, counts: &SeqCounts) -> Verdict {
    for (number, batch) in ledger.of(verdict.signal) {
        let first = number * ledger.info.batch_size;
        let seen = || (first..first + batch.count).map(|seq| counts.get(seq));
        let stored = seen().filter(|n| *n > 0).count() as u64;
        let doubled = seen().filter(|n| *n > 1).count() as u64;
        verdict.batch(number, batch.count, batch.fate, stored, doubled);
        if stored < batch.count && batch.fate == Fate::Accepted {
            let seq = (first..first + batch.count).find(|seq| counts.get(*seq) == 0);
            verdict.name(|| format!("batch {number}: first missing sequence {}", seq.unwrap_or_default()));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::journal::{Batch, RunInfo};
    use super::*;

    fn ledger(fates: &[Fate]) -> Ledger {
        let info = RunInfo { run: "r".to_owned(), seed: 0, batch_size: 10 };
        let batch = |fate| Batch { count: 10, base_ns: 0, fate };
        let batches: BTreeMap<_, _> =
            fates.iter().enumerate().map(|(n, fate)| ((Signal::Traces, n as u64), batch(*fate))).collect();
        Ledger { info, batches }
    }

    fn judged(fates: &[Fate], seen: impl IntoIterator<Item = u64>) -> Verdict {
        let mut counts = SeqCounts::new(fates.len() as u64 * 10);
        let mut verdict = Verdict::new(Signal::Traces);
        for seq in seen {
            verdict.returned += 1;
            verdict.stray += u64::from(!counts.add(seq));
        }
        judge(&ledger(fates), verdict, &counts)
    }

    #[test]
    fn all_there_once_holds_whatever_became_of_the_unknown() {
        let verdict = judged(&[Fate::Accepted, Fate::Unknown], 0..15);
        assert!(verdict.holds(), "{verdict:?}");
        assert_eq!((verdict.acknowledged, verdict.unknown, verdict.unknown_stored), (10, 10, 5));
        let partial = judged(&[Fate::Partial(3)], 3..10);
        assert!(partial.holds() && partial.acknowledged == 7);
    }

    #[test]
    fn missing_doubled_and_stray_are_told_apart() {
        let missing = judged(&[Fate::Accepted], (0..10).filter(|s| *s != 4));
        assert_eq!((missing.missing, missing.doubled), (1, 0));
        assert!(missing.offenders.iter().any(|o| o.contains("sequence 4")), "{:?}", missing.offenders);
        let doubled = judged(&[Fate::Accepted], (0..10).chain([4, 4, 4, 4]));
        assert_eq!((doubled.missing, doubled.doubled), (0, 1));
        let unknown_twice = judged(&[Fate::Unknown], [1, 1]);
        assert_eq!((unknown_twice.doubled, unknown_twice.holds()), (1, false));
        let stray = judged(&[Fate::Accepted], (0..10).chain([10, 99]));
        assert_eq!((stray.stray, stray.holds()), (2, false));
        assert_eq!(judged(&[Fate::Refused], [1]).refused_stored, 1);
    }

    #[test]
    fn counts_stay_in_their_two_bits() {
        let mut counts = SeqCounts::new(70);
        for _ in 0..9 {
            assert!(counts.add(33));
        }
        assert_eq!((counts.get(32), counts.get(33), counts.get(34)), (0, 3, 0));
        assert!(!counts.add(70) && !counts.add(u64::MAX));
        assert_eq!(counts.get(70), 0);
    }
}
