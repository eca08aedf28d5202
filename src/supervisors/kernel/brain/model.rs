//! The brain against a reference: the rules of ARCHITECTURE.md written down once more, with lists and no cleverness.

use std::time::Duration;

use proptest::prelude::*;

use super::{Brain, Exit, Verdict};
use crate::domain::failure::FailureClass;
use crate::supervisors::kernel::exit::ExitReason;
use crate::supervisors::kernel::policy::{
    BackoffPolicy, IntensityPer, OnLimit, Policy, QuarantinePolicy, Restart, Strategy as Fate,
};

const CHILDREN: usize = 4;
const COOL_DOWN: u64 = 300;
const RESET_AFTER: u64 = 60;

/// All that ever happened, as a list.
struct Reference {
    policy: Policy,
    kinds: Vec<Restart>,
    costs: Vec<(usize, u64)>,
    tries: [u32; CHILDREN],
    probation: [Option<u32>; CHILDREN],
}

#[derive(Debug, PartialEq)]
enum Expected {
    Down,
    Restart { stop: Vec<usize>, start: Vec<usize>, after_ms: u64 },
    Aside,
    Up,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    child: usize,
    end: u8,
    suspect: bool,
    ran: u64,
    wait: u64,
    running: [bool; CHILDREN],
}

fn reason(end: u8) -> ExitReason {
    match end {
        0 => ExitReason::Panicked { message: String::new(), location: String::new() },
        1 => ExitReason::Stalled,
        2 => ExitReason::Done,
        3 => ExitReason::Failed(FailureClass::Dependency, String::new()),
        4 => ExitReason::Failed(FailureClass::Fenced, String::new()),
        5 => ExitReason::StartTimeout,
        _ => ExitReason::Failed(FailureClass::Config, String::new()),
    }
}

impl Reference {
    fn exited(&mut self, step: Step, now: u64) -> Expected {
        let (me, kind, end) = (step.child, self.kinds[step.child], step.end);
        if end == 6 {
            return Expected::Up;
        }
        if end == 4 || kind == Restart::Temporary || (kind == Restart::Transient && end == 2) {
            return Expected::Down;
        }
        // A crash over a message that was crashed over before is not the child's doing, a late start always is.
        let poison = step.suspect && end < 2;
        if let Some(left) = self.probation[me] {
            let good = (step.ran / RESET_AFTER) as u32 + u32::from(end == 2);
            if good >= left {
                self.probation[me] = None;
                self.tries[me] = 0;
                if self.policy.intensity_per == IntensityPer::Child {
                    self.costs.retain(|(of, _)| *of != me);
                }
            } else if matches!(end, 0 | 1 | 5) {
                return self.aside(me);
            } else {
                self.probation[me] = Some(left - good);
            }
        }
        if end != 3 && !poison {
            self.costs.push((me, now));
            let mine = |of: usize| self.policy.intensity_per == IntensityPer::Supervisor || of == me;
            let recent = |at: u64| now - at <= self.policy.period.as_secs();
            if self.costs.iter().filter(|(of, at)| mine(*of) && recent(*at)).count()
                > self.policy.intensity as usize
            {
                return if self.policy.on_limit == OnLimit::Escalate { Expected::Up } else { self.aside(me) };
            }
        }
        if step.ran >= RESET_AFTER {
            self.tries[me] = 0;
        }
        let after_ms = (100_u64 << self.tries[me].min(20)).min(1000);
        self.tries[me] += 1;
        let first = match self.policy.strategy {
            Fate::OneForAll => 0,
            Fate::OneForOne | Fate::RestForOne => me,
        };
        let last = if self.policy.strategy == Fate::OneForOne { me } else { CHILDREN - 1 };
        let stop = (first..=last).rev().filter(|other| *other != me && step.running[*other]).collect();
        let start = (first..=last).filter(|other| self.kinds[*other] != Restart::Temporary).collect();
        Expected::Restart { stop, start, after_ms }
    }

    fn aside(&mut self, child: usize) -> Expected {
        self.probation[child] = Some(self.policy.quarantine.probes);
        Expected::Aside
    }
}

fn said(verdict: Verdict) -> Expected {
    match verdict {
        Verdict::StayDown => Expected::Down,
        Verdict::Quarantine { after } => {
            assert_eq!(after, Duration::from_secs(COOL_DOWN));
            Expected::Aside
        }
        Verdict::Escalate { .. } => Expected::Up,
        Verdict::Restart { stop, start, after } => {
            Expected::Restart { stop, start, after_ms: (after.as_secs_f64() * 1000.0).round() as u64 }
        }
    }
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    let end = prop_oneof![6 => 0_u8..6, 1 => Just(0_u8)];
    let ran = prop_oneof![3 => 0_u64..20, 1 => 60_u64..200];
    (0..CHILDREN, end, any::<bool>(), ran, 0_u64..15, any::<[bool; CHILDREN]>()).prop_map(
        |(child, end, suspect, ran, wait, running)| Step { child, end, suspect, ran, wait, running },
    )
}

fn policy() -> impl proptest::strategy::Strategy<Value = Policy> {
    let fate = prop_oneof![Just(Fate::OneForOne), Just(Fate::OneForAll), Just(Fate::RestForOne)];
    let limit = prop_oneof![1 => Just(OnLimit::Escalate), 2 => Just(OnLimit::Quarantine)];
    let per = prop_oneof![Just(IntensityPer::Supervisor), Just(IntensityPer::Child)];
    (fate, limit, per, 0_u32..5, 1_u64..90, 1_u32..4).prop_map(
        |(strategy, on_limit, intensity_per, intensity, period, probes)| Policy {
            strategy,
            on_limit,
            intensity_per,
            intensity,
            period: Duration::from_secs(period),
            quarantine: QuarantinePolicy { cool_down: Duration::from_secs(COOL_DOWN), probes },
            backoff: BackoffPolicy {
                min: Duration::from_millis(100),
                max: Duration::from_secs(1),
                factor: 2.0,
                jitter: 0.0,
                reset_after: Duration::from_secs(RESET_AFTER),
            },
            ..Policy::default()
        },
    )
}

proptest! {
    #[test]
    fn the_brain_says_what_the_reference_says(
        policy in policy(),
        kinds in proptest::collection::vec(
            prop_oneof![2 => Just(Restart::Permanent), 1 => Just(Restart::Transient), 1 => Just(Restart::Temporary)],
            CHILDREN,
        ),
        steps in proptest::collection::vec(step(), 1..120),
        config in any::<bool>(),
    ) {
        let mut brain = Brain::new(policy.clone());
        for kind in &kinds {
            brain.add(*kind);
        }
        let backoff = policy.backoff;
        let mut reference =
            Reference { policy, kinds, costs: Vec::new(), tries: [0; CHILDREN], probation: [None; CHILDREN] };
        let last = config.then_some(Step { end: 6, ..steps[0] });
        let mut now = 0;
        for step in steps.into_iter().chain(last) {
            now += step.wait;
            let reason = reason(step.end);
            let exit = Exit {
                child: step.child,
                reason: &reason,
                ran: Duration::from_secs(step.ran),
                now: Duration::from_secs(now),
                chance: 0.5,
                suspect: step.suspect,
            };
            let verdict = said(brain.exited(exit, &backoff, |child| step.running[child]));
            let expected = reference.exited(step, now);
            prop_assert_eq!(&verdict, &expected, "{:?} at {}", step, now);
            if expected == Expected::Up {
                break;
            }
        }
    }
}
