//! The circuit breaker of an adapter: a dependency that is down is asked now and then, and not by everybody.
//!
//! [`Breaker`] is a pure state machine: closed, open after `open_after` failures in a row, half open while its one probe is
//! under way. [`Gate`] is what an actor holds: it hands out attempts, and tells the tree how the dependency stands.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::policy::BreakerPolicy;
use super::probe::Probe;
use crate::clock;
use crate::domain::failure::FailureClass;

/// How a dependency stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// It answers: everybody may call it.
    Closed,
    /// It is down: nobody calls it until the next probe is due.
    Open,
    /// One probe is under way; what it finds decides.
    HalfOpen,
}

impl BreakerState {
    /// The lower-case name used in the tree and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What somebody who wants to call the dependency is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Call it. Report what came of it under this number.
    Go(u64),
    /// Ask again at that time, if the state has not changed before.
    Wait(Duration),
    /// A probe is under way: ask again when the state has changed.
    Stay,
}

/// The state machine. Times are offsets on any monotonic clock.
#[derive(Debug, Clone)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: BreakerState,
    failures: u32,
    probe_at: Duration,
    /// Number of the attempts that count now; it changes with the state, so that latecomers are known as such.
    era: u64,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: BreakerState::Closed, failures: 0, probe_at: Duration::ZERO, era: 0 }
    }

    /// How the dependency stands.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// May somebody call it now?
    pub fn ask(&mut self, now: Duration) -> Permit {
        match self.state {
            BreakerState::Closed => Permit::Go(self.era),
            BreakerState::HalfOpen => Permit::Stay,
            BreakerState::Open if now < self.probe_at => Permit::Wait(self.probe_at),
            BreakerState::Open => {
                self.enter(BreakerState::HalfOpen);
                Permit::Go(self.era)
            }
        }
    }

    /// An attempt reached the dependency and got its answer, good or bad for the caller. Of attempts that began before
    /// the breaker opened it is not believed: while it is open, the probe alone decides.
    pub fn answered(&mut self, attempt: u64) {
        if attempt != self.era {
            return;
        }
        self.failures = 0;
        if self.state == BreakerState::HalfOpen {
            self.enter(BreakerState::Closed);
        }
    }

    /// An attempt failed. Only [`FailureClass::Dependency`] says that the dependency is away and opens the breaker; but a
    /// probe that failed for whatever reason has not shown that it is back.
    pub fn failed(&mut self, attempt: u64, class: FailureClass, now: Duration) {
        if attempt != self.era {
            return;
        }
        if class == FailureClass::Dependency {
            self.failures = self.failures.saturating_add(1);
        }
        if self.state == BreakerState::HalfOpen || self.failures >= self.policy.open_after.max(1) {
            self.probe_at = now + self.policy.probe_every;
            self.enter(BreakerState::Open);
        }
    }

    /// An attempt ended without finding out; a probe's place is free for the next one at once.
    pub fn abandoned(&mut self, attempt: u64, now: Duration) {
        if attempt == self.era && self.state == BreakerState::HalfOpen {
            self.probe_at = now;
            self.enter(BreakerState::Open);
        }
    }

    fn enter(&mut self, state: BreakerState) {
        self.state = state;
        self.era += 1;
    }
}

/// The breaker as an actor holds it, for one dependency. Cheap to clone; clones are the same breaker.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    breaker: Mutex<Breaker>,
    changed: watch::Sender<BreakerState>,
    probe: Probe,
    born: Instant,
}

/// Leave to call the dependency once. Dropped without a report it counts for nothing.
#[derive(Debug)]
#[must_use = "report what came of the attempt"]
pub struct Attempt {
    gate: Gate,
    number: u64,
    open: bool,
}

impl Gate {
    /// A closed gate that tells `probe` how things stand.
    pub fn new(policy: BreakerPolicy, probe: &Probe) -> Self {
        probe.breaker(BreakerState::Closed);
        Self {
            inner: Arc::new(Inner {
                breaker: Mutex::new(Breaker::new(policy)),
                changed: watch::Sender::new(BreakerState::Closed),
                probe: probe.clone(),
                born: clock::now(),
            }),
        }
    }

    /// How the dependency stands.
    pub fn state(&self) -> BreakerState {
        *self.inner.changed.borrow()
    }

    /// Waits until the dependency may be called. For as long as the dependency is away: the caller bounds it.
    pub async fn enter(&self) -> Attempt {
        let mut changed = self.inner.changed.subscribe();
        loop {
            changed.mark_unchanged();
            match self.step(|breaker, now| breaker.ask(now)) {
                Permit::Go(number) => return self.attempt(number),
                Permit::Wait(at) => tokio::select! {
                    // The sender is in this gate.
                    _ = changed.changed() => {}
                    () = tokio::time::sleep_until(self.inner.born + at) => {}
                },
                Permit::Stay => drop(changed.changed().await),
            }
        }
    }

    /// Leave to call the dependency now, or `None` while it counts as down.
    pub fn try_enter(&self) -> Option<Attempt> {
        match self.step(|breaker, now| breaker.ask(now)) {
            Permit::Go(number) => Some(self.attempt(number)),
            Permit::Wait(_) | Permit::Stay => None,
        }
    }

    fn attempt(&self, number: u64) -> Attempt {
        Attempt { gate: self.clone(), number, open: true }
    }

    /// One step of the machine; whoever waits, and the tree, hear of a change.
    fn step<T>(&self, step: impl FnOnce(&mut Breaker, Duration) -> T) -> T {
        let inner = &*self.inner;
        let mut breaker = inner.breaker.lock();
        let before = breaker.state();
        let out = step(&mut breaker, clock::now().saturating_duration_since(inner.born));
        let state = breaker.state();
        // Under the lock, so that changes are told in their order.
        if state != before {
            inner.probe.breaker(state);
            inner.changed.send_replace(state);
        }
        out
    }
}

impl Attempt {
    /// The dependency answered; what it said to the caller is the caller's business.
    pub fn answered(mut self) {
        self.open = false;
        self.gate.step(|breaker, _| breaker.answered(self.number));
        if self.gate.state() == BreakerState::Closed {
            self.gate.inner.probe.recovered();
        }
    }

    /// The attempt failed, see [`Breaker::failed`]; the child shows as `Degraded` with this cause.
    pub fn failed(mut self, class: FailureClass, cause: impl Into<String>) {
        self.open = false;
        self.gate.inner.probe.degraded(cause);
        self.gate.step(|breaker, now| breaker.failed(self.number, class, now));
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.open {
            self.gate.step(|breaker, now| breaker.abandoned(self.number, now));
        }
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gate({})", self.state().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    const DOWN: FailureClass = FailureClass::Dependency;

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn breaker(open_after: u32) -> Breaker {
        Breaker::new(BreakerPolicy { open_after, probe_every: s(2) })
    }

    fn go(breaker: &mut Breaker, now: u64) -> u64 {
        match breaker.ask(s(now)) {
            Permit::Go(attempt) => attempt,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_probe_closes_it() {
        let mut breaker = breaker(2);
        let first = go(&mut breaker, 0);
        breaker.failed(first, DOWN, s(0));
        breaker.answered(first);
        breaker.failed(first, DOWN, s(0));
        assert_eq!(breaker.state(), BreakerState::Closed, "two failures, but not in a row");
        breaker.failed(first, DOWN, s(1));
        assert_eq!((breaker.state(), breaker.ask(s(2))), (BreakerState::Open, Permit::Wait(s(3))));
        let probe = go(&mut breaker, 3);
        assert_eq!((breaker.state(), breaker.ask(s(99))), (BreakerState::HalfOpen, Permit::Stay));
        breaker.answered(first);
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "a latecomer of the time before does not decide");
        breaker.answered(probe);
        assert_eq!(breaker.state(), BreakerState::Closed);
        let again = go(&mut breaker, 4);
        breaker.failed(again, DOWN, s(4));
        assert_eq!(breaker.state(), BreakerState::Closed, "the count starts anew");
    }

    #[test]
    fn other_failures_do_not_open_it_but_a_probe_must_succeed() {
        let mut breaker = breaker(1);
        let attempt = go(&mut breaker, 0);
        for class in [FailureClass::Overload, FailureClass::Config, FailureClass::Poison] {
            breaker.failed(attempt, class, s(0));
            assert_eq!(breaker.state(), BreakerState::Closed, "{class}");
        }
        breaker.failed(attempt, DOWN, s(0));
        let probe = go(&mut breaker, 2);
        breaker.failed(probe, FailureClass::Overload, s(2));
        assert_eq!((breaker.state(), breaker.ask(s(2))), (BreakerState::Open, Permit::Wait(s(4))));
    }

    #[test]
    fn a_probe_that_was_given_up_leaves_its_place() {
        let mut breaker = breaker(1);
        let attempt = go(&mut breaker, 0);
        breaker.failed(attempt, DOWN, s(0));
        let probe = go(&mut breaker, 2);
        breaker.abandoned(probe, s(3));
        let next = go(&mut breaker, 3);
        assert_ne!(probe, next);
        breaker.answered(probe);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
    }

    proptest! {
        /// A dependency that comes and goes: whatever the callers do, attempts while it counts as down are one at a time
        /// and `probe_every` apart, and it opens exactly after `open_after` failures in a row.
        #[test]
        fn attempts_on_a_flapping_dependency_are_bounded(
            open_after in 1_u32..6, steps in proptest::collection::vec((0_u8..5, 0_u64..1_500, 0_usize..8), 1..300),
        ) {
            let every = Duration::from_millis(2_000);
            let mut breaker = Breaker::new(BreakerPolicy { open_after, probe_every: every });
            let (mut now, mut in_flight) = (Duration::ZERO, Vec::new());
            let (mut row, mut opened_at) = (0_u32, None);
            for (what, step, which) in steps {
                now += Duration::from_millis(step);
                let before = breaker.state();
                if what < 2 {
                    match breaker.ask(now) {
                        Permit::Go(attempt) => {
                            if let Some(at) = opened_at {
                                prop_assert!(now >= at + every, "a probe before its time");
                                prop_assert_eq!(breaker.state(), BreakerState::HalfOpen);
                            }
                            in_flight.push((attempt, before == BreakerState::Open));
                        }
                        Permit::Wait(at) => prop_assert!(before == BreakerState::Open && at > now),
                        Permit::Stay => prop_assert_eq!(before, BreakerState::HalfOpen),
                    }
                } else if !in_flight.is_empty() {
                    let (attempt, is_probe) = in_flight.swap_remove(which % in_flight.len());
                    let counts = attempt == breaker.era;
                    match what {
                        2 => breaker.answered(attempt),
                        3 => breaker.failed(attempt, DOWN, now),
                        _ => breaker.abandoned(attempt, now),
                    }
                    match (counts, is_probe, what) {
                        (false, ..) => prop_assert_eq!(breaker.state(), before, "a latecomer changes nothing"),
                        (true, _, 2) => {
                            prop_assert_eq!(breaker.state(), BreakerState::Closed);
                            (row, opened_at) = (0, None);
                        }
                        (true, _, 3) => {
                            row += 1;
                            let opens = is_probe || row >= open_after;
                            prop_assert_eq!(breaker.state() == BreakerState::Open, opens, "{} in a row", row);
                            opened_at = opens.then_some(now);
                        }
                        // A probe given up is due again at once.
                        (true, true, _) => opened_at = now.checked_sub(every),
                        (true, false, _) => prop_assert_eq!(breaker.state(), BreakerState::Closed),
                    }
                }
                let probes = in_flight.iter().filter(|(attempt, _)| *attempt == breaker.era).count();
                prop_assert!(breaker.state() == BreakerState::Closed || probes <= 1, "one probe at a time");
            }
        }
    }
}
