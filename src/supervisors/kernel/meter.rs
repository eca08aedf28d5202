//! What a node measures of its worker: how long its polls take, how much of its thread it uses, what it has handled.
//!
//! In: the start and the end of every poll of an incarnation, finished messages. Out: figures for the tree and for
//! metrics. A meter belongs to the node and outlives the incarnations that it measures.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock;

/// Upper bounds of the buckets of [`PollStats`], in seconds; one more bucket holds what is above.
pub const POLL_BUCKETS_S: [f64; 8] = [0.0001, 0.0005, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5];

/// Whole seconds that the busy ratio looks back, besides the one under way.
const WINDOW_S: u64 = 10;
const SLOTS: usize = WINDOW_S as usize + 1;

/// How long the polls of a node's worker took, since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PollStats {
    /// Polls.
    pub count: u64,
    /// Time spent in them.
    pub busy: Duration,
    /// The longest.
    pub longest: Duration,
    /// Polls by duration; the bounds are [`POLL_BUCKETS_S`]. Each poll is in one bucket.
    pub buckets: [u64; POLL_BUCKETS_S.len() + 1],
}

impl PollStats {
    /// Takes those of another worker in.
    pub(super) fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.busy += other.busy;
        self.longest = self.longest.max(other.longest);
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, n)| *sum += n);
    }
}

/// The figures of one node.
#[derive(Debug)]
pub(super) struct Meter {
    born: Instant,
    handled: AtomicU64,
    fenced: AtomicU64,
    polls: Mutex<Polls>,
}

/// Times are in nanoseconds: there is one of these an actor, and it is written at each of its polls.
#[derive(Debug, Default)]
struct Polls {
    busy_ns: u64,
    longest_ns: u64,
    buckets: [u64; POLL_BUCKETS_S.len() + 1],
    /// Busy time by second, in a ring; a second's nanoseconds fit.
    window_ns: [u32; SLOTS],
    /// The latest second that the ring knows of.
    newest: u64,
}

const SECOND_NS: u64 = 1_000_000_000;
/// [`POLL_BUCKETS_S`] in nanoseconds.
const BUCKETS_NS: [u64; POLL_BUCKETS_S.len()] =
    [100_000, 500_000, 1_000_000, 5_000_000, 25_000_000, 100_000_000, 500_000_000, 2_500_000_000];

impl Default for Meter {
    fn default() -> Self {
        Self {
            born: clock::now(),
            handled: AtomicU64::new(0),
            fenced: AtomicU64::new(0),
            polls: Mutex::default(),
        }
    }
}

impl Meter {
    pub(super) fn count_handled(&self) {
        self.handled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    pub(super) fn count_fenced(&self) {
        self.fenced.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fenced(&self) -> u64 {
        self.fenced.load(Ordering::Relaxed)
    }

    /// Time since this meter was made; what [`Meter::polled`] is told in.
    pub(super) fn now(&self) -> Duration {
        clock::now().saturating_duration_since(self.born)
    }

    /// A poll ran from `from` to `to`.
    pub(super) fn polled(&self, from: Duration, to: Duration) {
        self.polls.lock().add(nanos(from), nanos(to));
    }

    pub(super) fn stats(&self) -> PollStats {
        self.polls.lock().stats()
    }

    /// Share of the last seconds that was spent in polls, with the one that has been running since `running`.
    pub(super) fn busy_ratio(&self, running: Option<Duration>) -> f64 {
        let now = self.now();
        let mut polls = self.polls.lock();
        polls.busy_ratio(nanos(now), running.map(nanos))
    }
}

impl Polls {
    fn stats(&self) -> PollStats {
        PollStats {
            count: self.buckets.iter().sum(),
            busy: Duration::from_nanos(self.busy_ns),
            longest: Duration::from_nanos(self.longest_ns),
            buckets: self.buckets,
        }
    }

    fn add(&mut self, from: u64, to: u64) {
        let took = to.saturating_sub(from);
        self.busy_ns += took;
        self.longest_ns = self.longest_ns.max(took);
        self.buckets[BUCKETS_NS.partition_point(|bound| *bound < took)] += 1;
        let last = to / SECOND_NS;
        self.advance(last);
        for second in (from / SECOND_NS).max(self.oldest())..=last {
            let busy = &mut self.window_ns[slot(second)];
            *busy = busy.saturating_add(overlap(from, to, second));
        }
    }

    /// Makes room for the seconds up to `second`.
    fn advance(&mut self, second: u64) {
        let fresh = (self.newest + 1).max(second.saturating_sub(SLOTS as u64 - 1));
        for second in fresh..=second {
            self.window_ns[slot(second)] = 0;
        }
        self.newest = self.newest.max(second);
    }

    fn oldest(&self) -> u64 {
        self.newest.saturating_sub(WINDOW_S)
    }

    fn busy_ratio(&mut self, now: u64, running: Option<u64>) -> f64 {
        self.advance(now / SECOND_NS);
        let since = self.oldest() * SECOND_NS;
        let looked_at = now.saturating_sub(since);
        if looked_at == 0 {
            return 0.0;
        }
        let running = running.map_or(0, |from| now.saturating_sub(from.max(since)));
        let busy = self.window_ns.iter().map(|ns| u64::from(*ns)).sum::<u64>() + running;
        (busy as f64 / looked_at as f64).min(1.0)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn slot(second: u64) -> usize {
    (second % SLOTS as u64) as usize
}

/// The part of `from`..`to` that lies in this second.
fn overlap(from: u64, to: u64, second: u64) -> u32 {
    let (begin, end) = (second * SECOND_NS, (second + 1) * SECOND_NS);
    // At most a second, but for polls that overlap by a clock's grain.
    u32::try_from(to.min(end).saturating_sub(from.max(begin))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, proptest};

    fn ms(ms: u64) -> u64 {
        ms * 1_000_000
    }

    #[test]
    fn the_ratio_is_the_share_of_the_last_seconds() {
        let mut polls = Polls::default();
        // Half of every second for a minute, then nothing.
        for second in 0..60 {
            polls.add(ms(second * 1000), ms(second * 1000 + 500));
        }
        assert!((polls.busy_ratio(ms(60_000), None) - 0.5).abs() < 0.01);
        assert!((polls.busy_ratio(ms(65_000), None) - 0.25).abs() < 0.01);
        assert_eq!(polls.busy_ratio(ms(90_000), None), 0.0);
        let stats = polls.stats();
        assert_eq!(stats.count, 60);
        assert_eq!((stats.busy, stats.longest), (Duration::from_secs(30), Duration::from_millis(500)));
    }

    #[test]
    fn a_poll_that_goes_on_counts_while_it_runs() {
        let mut polls = Polls::default();
        assert_eq!(polls.busy_ratio(ms(20_000), Some(ms(5_000))), 1.0);
        assert!((polls.busy_ratio(ms(20_000), Some(ms(18_000))) - 0.2).abs() < 0.01);
    }

    #[test]
    fn polls_are_sorted_into_their_buckets() {
        let mut polls = Polls::default();
        for took in [0, 100_000, ms(1), ms(2), ms(500), ms(60_000)] {
            polls.add(ms(0), took);
        }
        assert_eq!(polls.stats().buckets, [2, 0, 1, 1, 0, 0, 1, 0, 1]);
    }

    #[test]
    fn the_bounds_are_the_same_in_nanoseconds() {
        assert_eq!(POLL_BUCKETS_S.map(|s| (s * 1e9).round() as u64), BUCKETS_NS);
    }

    proptest! {
        #[test]
        fn the_ratio_is_what_is_worked_out_by_hand(
            steps in proptest::collection::vec((0_u64..3_000, 0_u64..4_000), 1..100), rest in 0_u64..20_000,
        ) {
            let (mut polls, mut spans, mut now) = (Polls::default(), Vec::new(), 0);
            for (idle, busy) in steps {
                polls.add(ms(now + idle), ms(now + idle + busy));
                spans.push((now + idle, now + idle + busy));
                now += idle + busy;
            }
            now += rest;
            let since = (now / 1000).saturating_sub(WINDOW_S) * 1000;
            let busy: u64 = spans.iter().map(|(from, to)| to.saturating_sub(since.max(*from))).sum();
            let expected = if now == since { 0.0 } else { busy as f64 / (now - since) as f64 };
            let ratio = polls.busy_ratio(ms(now), None);
            prop_assert!((ratio - expected).abs() < 1e-6, "{ratio} and not {expected}");
        }
    }
}
