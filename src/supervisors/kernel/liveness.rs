//! Tells a stalled incarnation from one that is idle, waits, or is merely slow: a pure state machine, fed by looks.
//!
//! In: what was seen of an incarnation, and when. Out: when to look again, or that it has stalled. Stalled is who holds
//! work (a lease, a control message without answer) and has made no progress for `stall_after`; inside a declared wait
//! `wait_after` holds instead. Idle is never stalled.

use std::time::Duration;

use super::policy::LivenessPolicy;

/// Looks in a `stall_after`: a stall is found out at most this part of it too late.
const LOOKS: u32 = 8;

/// What one look at an incarnation saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Steps of work counted so far.
    pub progressed: u64,
    /// It holds a lease, or has not answered a control message.
    pub has_work: bool,
    /// It is inside a declared wait.
    pub waiting: bool,
}

/// What follows from a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// All is well; look again after this time, or never (`None`: detection is off).
    Again(Option<Duration>),
    /// No progress with work in hand for this long.
    Stalled(Duration),
}

/// The memory between the looks at one incarnation. Times are offsets on any monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Liveness {
    progressed: u64,
    quiet_since: Duration,
    /// When the next look is due. Time that passes until a later one does not count: whoever was to look did not run then,
    /// and perhaps nobody did (SIGSTOP, a blocked root thread).
    due: Duration,
}

impl Liveness {
    /// For an incarnation that starts now.
    pub fn new(now: Duration) -> Self {
        Self { progressed: 0, quiet_since: now, due: now }
    }

    /// Judges one look.
    pub fn look(&mut self, policy: &LivenessPolicy, seen: Sight, now: Duration) -> Look {
        if policy.stall_after.is_zero() {
            return Look::Again(None);
        }
        self.quiet_since += now.saturating_sub(self.due);
        if seen.progressed != self.progressed || !seen.has_work {
            self.progressed = seen.progressed;
            self.quiet_since = now;
        }
        let limit = if seen.waiting { policy.wait_after } else { policy.stall_after };
        let quiet = now.saturating_sub(self.quiet_since);
        if quiet >= limit {
            return Look::Stalled(quiet);
        }
        let after = (policy.stall_after / LOOKS).min(limit - quiet).max(Duration::from_millis(1));
        self.due = now + after;
        Look::Again(Some(after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, proptest};

    const POLICY: LivenessPolicy =
        LivenessPolicy { stall_after: Duration::from_secs(16), wait_after: Duration::from_secs(120) };

    /// Looks as often as it is told to, until it stalls or `end` has come. `at` says what is to be seen when.
    fn watch(policy: &LivenessPolicy, end: Duration, at: impl Fn(Duration) -> Sight) -> Option<Duration> {
        let (mut liveness, mut now) = (Liveness::new(Duration::ZERO), Duration::ZERO);
        while now < end {
            match liveness.look(policy, at(now), now) {
                Look::Again(Some(after)) => now += after,
                Look::Again(None) => return None,
                Look::Stalled(_) => return Some(now),
            }
        }
        None
    }

    fn hour(at: impl Fn(Duration) -> Sight) -> Option<Duration> {
        watch(&POLICY, Duration::from_secs(3600), at)
    }

    #[test]
    fn idle_is_never_stalled_and_work_without_progress_is() {
        let idle = Sight { progressed: 7, has_work: false, waiting: false };
        assert_eq!(hour(|_| idle), None);
        assert_eq!(hour(|_| Sight { has_work: true, ..idle }), Some(POLICY.stall_after));
        assert_eq!(hour(|_| Sight { has_work: true, waiting: true, ..idle }), Some(POLICY.wait_after));
        let off = LivenessPolicy { stall_after: Duration::ZERO, ..POLICY };
        assert_eq!(watch(&off, Duration::MAX, |_| Sight { has_work: true, ..idle }), None);
    }

    #[test]
    fn the_time_counts_from_the_work_and_not_from_the_idling_before_it() {
        let begins = Duration::from_secs(100);
        let found = hour(|now| Sight { progressed: 0, has_work: now >= begins, waiting: false }).unwrap();
        assert!(found >= begins + POLICY.stall_after - POLICY.stall_after / LOOKS, "{found:?}");
        assert!(found <= begins + POLICY.stall_after + POLICY.stall_after / LOOKS, "{found:?}");
    }

    #[test]
    fn a_wait_that_ends_leaves_the_usual_time() {
        // The end of a wait counts as progress.
        let ends = Duration::from_secs(100);
        let found =
            hour(|now| Sight { progressed: u64::from(now >= ends), has_work: true, waiting: now < ends })
                .unwrap();
        assert!(found >= ends + POLICY.stall_after, "{found:?}");
        assert!(found <= ends + POLICY.stall_after + POLICY.stall_after / LOOKS, "{found:?}");
    }

    #[test]
    fn time_in_which_nobody_looked_does_not_count() {
        let busy = Sight { progressed: 1, has_work: true, waiting: false };
        let mut liveness = Liveness::new(Duration::ZERO);
        let Look::Again(Some(after)) = liveness.look(&POLICY, busy, Duration::ZERO) else {
            panic!("stalled")
        };
        let woken = after + Duration::from_secs(3600);
        let look = liveness.look(&POLICY, busy, woken);
        assert!(matches!(look, Look::Again(Some(_))), "{look:?}");
        let mut now = woken;
        while let Look::Again(Some(after)) = liveness.look(&POLICY, busy, now) {
            now += after;
        }
        assert_eq!(now, woken - after + POLICY.stall_after, "from then on it does");
    }

    proptest! {
        #[test]
        fn whoever_makes_progress_in_time_lives_and_whoever_does_not_is_found_in_time(
            stall in 8_u64..60_000, pace in 1_u64..60_000, stops_at in 0_u64..300_000, work in any::<bool>(),
        ) {
            let ms = Duration::from_millis;
            let policy = LivenessPolicy { stall_after: ms(stall), wait_after: ms(stall) };
            let steps = move |now: Duration| (now.min(ms(stops_at)).as_millis() as u64) / pace;
            let see = |now| Sight { progressed: steps(now), has_work: work, waiting: false };
            let found = watch(&policy, ms(400_000), see);
            let last_step = ms(stops_at / pace * pace);
            if !work {
                prop_assert!(found.is_none());
            } else if pace < stall {
                let found = found.unwrap();
                prop_assert!(found >= last_step + policy.stall_after, "{found:?}");
                prop_assert!(found <= last_step + policy.stall_after + policy.stall_after / LOOKS + ms(2));
            }
        }
    }
}
