//! The watchdog: a plain thread that sees when an arbiter thread, or the root's, no longer turns.
//!
//! In: the beats of each thread, and whether somebody there holds work. Out: condemned arbiters, for the supervisors to
//! flee from; how late the beats are; whether the process is alive. It must not live on what it watches, so it is no
//! task. A process that was itself asleep (SIGSTOP, a closed laptop) blames nobody: it measures anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;

use super::pools::{ArbiterId, Pools};
use crate::clock;

/// A jump between wall time and monotonic time above this is a machine that slept.
const JUMP: Duration = Duration::from_secs(2);

/// How threads are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchdogPolicy {
    /// Time between two beats of a thread.
    pub beat_every: Duration,
    /// A thread without a beat for this long, with work on it, is given up.
    pub condemn_after: Duration,
    /// This many threads given up within `per` make the root fail.
    pub max_condemned: u32,
    /// Length of the sliding window of `max_condemned`.
    pub per: Duration,
}

/// What is seen of one thread at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadSight {
    /// The arbiter; `None` for the root's thread.
    pub arbiter: Option<ArbiterId>,
    /// Beats so far.
    pub beats: u64,
    /// Somebody there holds work or is in the middle of a poll.
    pub has_work: bool,
}

/// What a tick found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// How long after its time each thread's beat is, by thread.
    pub overdue: BTreeMap<Option<ArbiterId>, Duration>,
    /// Threads to be given up.
    pub condemned: Vec<ArbiterId>,
    /// The watchdog itself had not run for a while; nothing was judged.
    pub slept: bool,
}

/// The judgement, as a pure state machine over its ticks.
#[derive(Debug)]
pub struct Judge {
    policy: WatchdogPolicy,
    last: Option<(Duration, Duration)>,
    threads: BTreeMap<Option<ArbiterId>, (u64, Duration)>,
}

impl Judge {
    /// A judge that has seen nothing yet.
    pub fn new(policy: WatchdogPolicy) -> Self {
        Self { policy, last: None, threads: BTreeMap::new() }
    }

    /// Looks at all threads. `now` is monotonic, `wall` the wall clock, both as offsets from anything.
    pub fn tick(&mut self, now: Duration, wall: Duration, sights: &[ThreadSight]) -> Findings {
        let slept = self.slept(now, wall);
        if slept {
            self.threads.clear();
        }
        let mut findings = Findings { slept, ..Findings::default() };
        let before = std::mem::take(&mut self.threads);
        for sight in sights {
            let key = sight.arbiter;
            let since =
                before.get(&key).filter(|(beats, _)| *beats == sight.beats).map_or(now, |seen| seen.1);
            self.threads.insert(key, (sight.beats, since));
            let silent = now.saturating_sub(since);
            findings.overdue.insert(key, silent.saturating_sub(self.policy.beat_every));
            match key {
                Some(arbiter) if silent >= self.policy.condemn_after && sight.has_work => {
                    findings.condemned.push(arbiter);
                }
                _ => {}
            }
        }
        findings
    }

    /// True when the process did not run, or the machine slept, since the last tick.
    fn slept(&mut self, now: Duration, wall: Duration) -> bool {
        let Some((last, last_wall)) = self.last.replace((now, wall)) else { return false };
        let passed = now.saturating_sub(last);
        let jumped = match wall.checked_sub(last_wall) {
            Some(by_wall) => by_wall.abs_diff(passed) > JUMP,
            None => true,
        };
        jumped || passed > self.policy.beat_every * 2 + JUMP
    }
}

/// The pulse of one thread: counted up by a task there, looked at by the watchdog.
#[derive(Debug, Default)]
pub(super) struct Beat {
    count: AtomicU64,
    lag_ns: AtomicU64,
    overdue_ns: AtomicU64,
}

impl Beat {
    /// Beats for ever; ends with the thread's runtime, or by being aborted.
    pub(super) async fn keep(self: Arc<Self>, every: Duration) {
        loop {
            let due = clock::now() + every;
            tokio::time::sleep_until(due).await;
            self.lag_ns.store(nanos(clock::now().saturating_duration_since(due)), Ordering::Relaxed);
            self.overdue_ns.store(0, Ordering::Relaxed);
            self.count.fetch_add(1, Ordering::Release);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub(super) fn set_overdue(&self, overdue: Duration) {
        self.overdue_ns.store(nanos(overdue), Ordering::Relaxed);
    }

    fn overdue(&self) -> Duration {
        Duration::from_nanos(self.overdue_ns.load(Ordering::Relaxed))
    }

    /// How late the last beat was, or the one is that has not come yet.
    pub(super) fn lag(&self) -> Duration {
        self.overdue().max(Duration::from_nanos(self.lag_ns.load(Ordering::Relaxed)))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A look at a running watchdog, from any thread. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Pulse {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    policy: WatchdogPolicy,
    root: Arc<Beat>,
    ticked: Mutex<Instant>,
    stopped: Mutex<bool>,
    wake: Condvar,
}

impl Pulse {
    /// True while the watchdog ticks and the root's thread beats.
    pub(super) fn is_alive(&self) -> bool {
        let silent = clock::now().saturating_duration_since(*self.shared.ticked.lock());
        let bound = self.shared.policy.condemn_after;
        silent < bound && self.shared.root.overdue() < bound
    }

    /// How late the root's thread is.
    pub(super) fn root_lag(&self) -> Duration {
        self.shared.root.lag()
    }
}

/// The running watchdog. It stops when this is dropped.
#[derive(Debug)]
pub(super) struct Watchdog {
    pulse: Pulse,
    root_beat: tokio::task::JoinHandle<()>,
}

impl Watchdog {
    /// Starts watching `pools` and the calling thread, which is the root's. `None`, with a log line, where the operating
    /// system gives no thread for it.
    pub(super) fn start(pools: &Pools, policy: WatchdogPolicy) -> Option<Self> {
        let root = Arc::new(Beat::default());
        let shared = Arc::new(Shared {
            policy,
            root: root.clone(),
            ticked: Mutex::new(clock::now()),
            stopped: Mutex::new(false),
            wake: Condvar::new(),
        });
        let (watch, pools) = (shared.clone(), pools.clone());
        let thread = std::thread::Builder::new().name(String::from("watchdog"));
        if let Err(error) = thread.spawn(move || watch.run(&pools)) {
            tracing::error!(%error, "the watchdog has no thread: blocked threads are not noticed");
            return None;
        }
        let root_beat = tokio::task::spawn_local(root.keep(policy.beat_every));
        Some(Self { pulse: Pulse { shared }, root_beat })
    }

    pub(super) fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.root_beat.abort();
        *self.pulse.shared.stopped.lock() = true;
        self.pulse.shared.wake.notify_all();
    }
}

impl Shared {
    fn run(&self, pools: &Pools) {
        let born = clock::now();
        let mut judge = Judge::new(self.policy);
        let mut stopped = self.stopped.lock();
        while !*stopped {
            self.wake.wait_for(&mut stopped, self.policy.beat_every);
            let now = clock::now();
            let wall = Duration::from_nanos(clock::unix_nanos());
            *self.ticked.lock() = now;
            let mut sights = pools.sights();
            sights.push(ThreadSight { arbiter: None, beats: self.root.count(), has_work: true });
            self.act(pools, &judge.tick(now.saturating_duration_since(born), wall, &sights));
        }
    }

    fn act(&self, pools: &Pools, findings: &Findings) {
        if findings.slept {
            tracing::warn!("the process had not run for a while, measuring its threads anew");
        }
        if let Some(root) = findings.overdue.get(&None) {
            if *root >= self.policy.condemn_after && self.root.overdue() < self.policy.condemn_after {
                tracing::error!(overdue = ?root, "the root thread is blocked: nothing is supervised until it turns again");
            }
            self.root.set_overdue(*root);
        }
        pools.note_overdue(&findings.overdue);
        for arbiter in &findings.condemned {
            pools.condemn(*arbiter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: WatchdogPolicy = WatchdogPolicy {
        beat_every: Duration::from_millis(500),
        condemn_after: Duration::from_secs(10),
        max_condemned: 3,
        per: Duration::from_secs(3600),
    };

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn sight(arbiter: ArbiterId, beats: u64, has_work: bool) -> ThreadSight {
        ThreadSight { arbiter: Some(arbiter), beats, has_work }
    }

    #[test]
    fn a_thread_that_holds_work_and_does_not_beat_is_condemned() {
        let mut judge = Judge::new(POLICY);
        for second in 0..10 {
            let sights = [sight(1, 5, true), sight(2, second, true), sight(3, 5, false)];
            let findings = judge.tick(s(second), s(1_000 + second), &sights);
            assert_eq!(findings.condemned, Vec::<ArbiterId>::new(), "at {second}");
        }
        let sights = [sight(1, 5, true), sight(2, 10, true), sight(3, 5, false)];
        let findings = judge.tick(s(10), s(1_010), &sights);
        assert_eq!(findings.condemned, [1], "2 beats, and 3 has nothing to do");
        assert_eq!(findings.overdue[&Some(1)], s(10) - POLICY.beat_every);
        assert_eq!(findings.overdue[&Some(2)], Duration::ZERO);
    }

    #[test]
    fn the_root_is_never_condemned_but_its_lag_is_told() {
        let mut judge = Judge::new(POLICY);
        let root = [ThreadSight { arbiter: None, beats: 1, has_work: true }];
        let findings = (0..60).map(|second| judge.tick(s(second), s(second), &root)).last().unwrap();
        assert_eq!(findings.condemned, Vec::<ArbiterId>::new());
        assert_eq!(findings.overdue[&None], s(59) - POLICY.beat_every);
    }

    #[test]
    fn a_process_that_was_stopped_condemns_nobody() {
        let mut judge = Judge::new(POLICY);
        let sights = [sight(1, 5, true)];
        judge.tick(s(0), s(100), &sights);
        // SIGSTOP for a minute: monotonic time goes on, the watchdog did not tick.
        let findings = judge.tick(s(60), s(160), &sights);
        assert!(findings.slept && findings.condemned.is_empty());
        assert_eq!(findings.overdue[&Some(1)], Duration::ZERO);
        // It counts from here again.
        let later = (61..70).map(|second| judge.tick(s(second), s(100 + second), &sights));
        assert!(later.last().unwrap().condemned.is_empty());
        assert_eq!(judge.tick(s(70), s(170), &sights).condemned, [1]);
    }

    #[test]
    fn a_machine_that_slept_or_whose_clock_was_set_condemns_nobody() {
        for wall in [s(100_000), s(50)] {
            let mut judge = Judge::new(POLICY);
            let sights = [sight(1, 5, true)];
            (0..10).for_each(|second| drop(judge.tick(s(second), s(100 + second), &sights)));
            // Monotonic time stood still while the machine slept, or somebody set the clock.
            let findings = judge.tick(s(10), wall, &sights);
            assert!(findings.slept && findings.condemned.is_empty(), "{findings:?}");
        }
    }

    #[test]
    fn a_thread_that_came_and_went_is_forgotten() {
        let mut judge = Judge::new(POLICY);
        judge.tick(s(0), s(0), &[sight(1, 5, true)]);
        judge.tick(s(1), s(1), &[]);
        assert_eq!(judge.tick(s(2), s(2), &[sight(1, 5, true)]).overdue[&Some(1)], Duration::ZERO);
    }
}
