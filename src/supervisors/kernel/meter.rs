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

/// The figures of one node.
#[derive(Debug)]
pub(super) struct Meter {
    born: Instant,
    handled: AtomicU64,
    fenced: AtomicU64,
    polls: Mutex<Polls>,
}

#[derive(Debug, Default)]
struct Polls {
    stats: PollStats,
    /// Busy time by second, in a ring.
    window: [Duration; SLOTS],
    /// The latest second that the ring knows of.
    newest: u64,
}

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
        self.polls.lock().add(from, to);
    }

    pub(super) fn stats(&self) -> PollStats {
        self.polls.lock().stats
    }

    /// Share of the last seconds that was spent in polls, with the one that has been running since `running`.
    pub(super) fn busy_ratio(&self, running: Option<Duration>) -> f64 {
        let now = self.now();
        let mut polls = self.polls.lock();
        polls.busy_ratio(now, running)
    }
}

impl Polls {
    fn add(&mut self, from: Duration, to: Duration) {
        let took = to.saturating_sub(from);
        self.stats.count += 1;
        self.stats.busy += took;
        self.stats.longest = self.stats.longest.max(took);
        let bucket = POLL_BUCKETS_S.partition_point(|bound| *bound < took.as_secs_f64());
        self.stats.buckets[bucket] += 1;
        self.advance(to.as_secs());
        for second in from.as_secs().max(self.oldest())..=to.as_secs() {
            self.window[slot(second)] += overlap(from, to, second);
        }
    }

    /// Makes room for the seconds up to `second`.
    fn advance(&mut self, second: u64) {
        let fresh = (self.newest + 1).max(second.saturating_sub(SLOTS as u64 - 1));
        for second in fresh..=second {
            self.window[slot(second)] = Duration::ZERO;
        }
        self.newest = self.newest.max(second);
    }

    fn oldest(&self) -> u64 {
        self.newest.saturating_sub(WINDOW_S)
    }

    fn busy_ratio(&mut self, now: Duration, running: Option<Duration>) -> f64 {
        self.advance(now.as_secs());
        let since = Duration::from_secs(self.oldest());
        let looked_at = now.saturating_sub(since);
        if looked_at.is_zero() {
            return 0.0;
        }
        let running = running.map_or(Duration::ZERO, |from| now.saturating_sub(from.max(since)));
        let busy: Duration = self.window.iter().sum::<Duration>() + running;
        (busy.as_secs_f64() / looked_at.as_secs_f64()).min(1.0)
    }
}

fn slot(second: u64) -> usize {
    (second % SLOTS as u64) as usize
}

/// The part of `from`..`to` that lies in this second.
fn overlap(from: Duration, to: Duration, second: u64) -> Duration {
    let (begin, end) = (Duration::from_secs(second), Duration::from_secs(second + 1));
    to.min(end).saturating_sub(from.max(begin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, proptest};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
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
        assert_eq!(polls.stats.count, 60);
        assert_eq!((polls.stats.busy, polls.stats.longest), (ms(30_000), ms(500)));
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
        for took in [Duration::ZERO, Duration::from_micros(100), ms(1), ms(2), ms(500), ms(60_000)] {
            polls.add(ms(0), took);
        }
        assert_eq!(polls.stats.buckets, [2, 0, 1, 1, 0, 0, 1, 0, 1]);
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
