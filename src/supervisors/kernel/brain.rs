//! The supervisor's brain: a pure state machine that turns the end of a child into a verdict, to OTP's rules.
//!
//! In: which child ended, why, when. Out: a [`Verdict`]. It knows no actor and no clock, so it can be tested as a table.

use std::time::Duration;

use super::backoff::Backoff;
use super::exit::ExitReason;
use super::policy::{IntensityPer, OnLimit, Policy, Restart, Strategy};
use super::window::Window;
use crate::domain::failure::FailureClass;

/// What the supervisor has to do about an exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: the child stays down.
    StayDown,
    /// Stop `stop` in that order, wait `after`, start `start` in that order.
    Restart {
        /// Running siblings that share the fate, last started first.
        stop: Vec<usize>,
        /// Children to start, first started first; the ended one among them.
        start: Vec<usize>,
        /// Wait before the start.
        after: Duration,
    },
    /// Put the child aside and try it again after the given time.
    Quarantine {
        /// Cool-down.
        after: Duration,
    },
    /// Stop everything and fail: the parent decides.
    Escalate {
        /// Why, for the operator.
        why: String,
    },
}

/// Restart bookkeeping of one supervisor.
#[derive(Debug)]
pub struct Brain {
    policy: Policy,
    shared: Window,
    children: Vec<Child>,
}

#[derive(Debug)]
struct Child {
    restart: Restart,
    window: Window,
    backoff: Backoff,
    /// Good runs that are still to come before it counts as healthy again, after a quarantine.
    probation: Option<u32>,
}

/// One exit, as the brain sees it.
#[derive(Debug, Clone, Copy)]
pub struct Exit<'a> {
    /// Slot of the child.
    pub child: usize,
    /// Why it ended.
    pub reason: &'a ExitReason,
    /// How long this incarnation ran.
    pub ran: Duration,
    /// Now, on the supervisor's monotonic clock.
    pub now: Duration,
    /// A random number in [0, 1) for the jitter.
    pub chance: f64,
    /// It fell with a message in hand that others had fallen with before: not this child's bug but that message's poison.
    pub suspect: bool,
}

impl Exit<'_> {
    /// The class that decides. A crash over a message that was crashed over before is [`FailureClass::Poison`].
    pub fn class(&self) -> Option<FailureClass> {
        let crashed =
            matches!(self.reason, ExitReason::Panicked { .. } | ExitReason::Stalled | ExitReason::Killed);
        if self.suspect && crashed { Some(FailureClass::Poison) } else { self.reason.class() }
    }
}

impl Brain {
    /// A brain for a supervisor with `policy`; children are added in start order.
    pub fn new(policy: Policy) -> Self {
        let shared = Window::new(policy.intensity, policy.period);
        Self { policy, shared, children: Vec::new() }
    }

    /// Adds a child after all others and returns its slot.
    pub fn add(&mut self, restart: Restart) -> usize {
        let child = self.clean(restart);
        self.children.push(child);
        self.children.len() - 1
    }

    /// Gives the slot of a child that is gone for good to another one, with a clean record.
    pub fn replace(&mut self, child: usize, restart: Restart) {
        self.children[child] = self.clean(restart);
    }

    /// Wipes a child's record: its own restarts, its backoff, its probation.
    pub fn pardon(&mut self, child: usize) {
        self.replace(child, self.children[child].restart);
    }

    /// Decides by this policy from now on, over the history there is.
    pub fn adopt(&mut self, policy: &Policy) {
        if self.policy == *policy {
            return;
        }
        self.policy = policy.clone();
        self.shared.limit(policy.intensity, policy.period);
        self.children.iter_mut().for_each(|child| child.window.limit(policy.intensity, policy.period));
    }

    /// Changes when a child is restarted.
    pub fn set_restart(&mut self, child: usize, restart: Restart) {
        self.children[child].restart = restart;
    }

    /// Restart times that count against the limit that `child` would pass.
    pub fn account(&self, child: usize) -> Vec<Duration> {
        match self.policy.intensity_per {
            IntensityPer::Supervisor => self.shared.restarts().collect(),
            IntensityPer::Child => self.children[child].window.restarts().collect(),
        }
    }

    fn clean(&self, restart: Restart) -> Child {
        let window = Window::new(self.policy.intensity, self.policy.period);
        Child { restart, window, backoff: Backoff::default(), probation: None }
    }

    /// Decides about an exit that nobody asked for. `running` says whether the child of a slot runs now; it is asked only
    /// about those that share the fate of the one that ended.
    pub fn exited(
        &mut self,
        exit: Exit<'_>,
        backoff: &super::policy::BackoffPolicy,
        running: impl Fn(usize) -> bool,
    ) -> Verdict {
        if let ExitReason::Failed(FailureClass::Config, why) = exit.reason {
            return Verdict::Escalate { why: why.clone() };
        }
        let restart = self.children[exit.child].restart;
        let stays_down = matches!(exit.reason, ExitReason::Failed(FailureClass::Fenced, _))
            || restart == Restart::Temporary
            || (restart == Restart::Transient && exit.reason.is_normal());
        if stays_down {
            return Verdict::StayDown;
        }
        if !self.keeps_probation(exit, backoff) {
            return self.put_aside(exit.child);
        }
        if self.spends(exit) && self.limit_passed(exit.child, exit.now) {
            return match self.policy.on_limit {
                OnLimit::Quarantine => self.put_aside(exit.child),
                OnLimit::Escalate => Verdict::Escalate { why: self.limit_text(exit.reason) },
            };
        }
        let after = self.children[exit.child].backoff.next(backoff, exit.ran, exit.chance);
        let members = self.members(exit.child);
        let stop = members.iter().rev().copied().filter(|m| *m != exit.child && running(*m)).collect();
        let start = members.into_iter().filter(|m| self.children[*m].restart != Restart::Temporary).collect();
        Verdict::Restart { stop, start, after }
    }

    fn put_aside(&mut self, child: usize) -> Verdict {
        self.children[child].probation = Some(self.policy.quarantine.probes.max(1));
        Verdict::Quarantine { after: self.policy.quarantine.cool_down }
    }

    /// Counts the good runs of a child that came out of a quarantine. False where it failed before it had enough of them.
    fn keeps_probation(&mut self, exit: Exit<'_>, backoff: &super::policy::BackoffPolicy) -> bool {
        let Some(left) = self.children[exit.child].probation else { return true };
        let spans = exit.ran.as_nanos() / backoff.reset_after.as_nanos().max(1);
        let orderly = u32::from(exit.class().is_none());
        let good = u32::try_from(spans).unwrap_or(u32::MAX).saturating_add(orderly);
        let left = left.saturating_sub(good);
        if left == 0 {
            self.pardon(exit.child);
            return true;
        }
        self.children[exit.child].probation = Some(left);
        !matches!(exit.class(), Some(FailureClass::Bug | FailureClass::Poison))
    }

    /// A dependency that is down, or poison that is being isolated, is nobody's bug: it costs no intensity.
    fn spends(&self, exit: Exit<'_>) -> bool {
        !matches!(
            exit.class(),
            Some(FailureClass::Dependency | FailureClass::Poison | FailureClass::Overload)
        )
    }

    fn limit_passed(&mut self, child: usize, now: Duration) -> bool {
        match self.policy.intensity_per {
            IntensityPer::Supervisor => self.shared.spend(now),
            IntensityPer::Child => self.children[child].window.spend(now),
        }
    }

    fn limit_text(&self, reason: &ExitReason) -> String {
        format!("more than {} restarts in {:?}, last: {reason}", self.policy.intensity, self.policy.period)
    }

    /// Slots that share the fate of `child`, in start order.
    fn members(&self, child: usize) -> Vec<usize> {
        match self.policy.strategy {
            Strategy::OneForOne => vec![child],
            Strategy::RestForOne => (child..self.children.len()).collect(),
            Strategy::OneForAll => (0..self.children.len()).collect(),
        }
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, proptest};

    fn brain(strategy: Strategy, restarts: &[Restart]) -> Brain {
        let mut brain = Brain::new(Policy { strategy, intensity: 2, ..Policy::default() });
        for restart in restarts {
            brain.add(*restart);
        }
        brain
    }

    fn panicked() -> ExitReason {
        ExitReason::Panicked { message: "x".into(), location: "y".into() }
    }

    fn exit(child: usize, reason: &ExitReason, now: u64) -> Exit<'_> {
        Exit {
            child,
            reason,
            ran: Duration::ZERO,
            now: Duration::from_secs(now),
            chance: 0.0,
            suspect: false,
        }
    }

    fn decide(brain: &mut Brain, child: usize, reason: &ExitReason, now: u64) -> Verdict {
        let policy = Policy::default().backoff;
        brain.exited(exit(child, reason, now), &policy, |_| true)
    }

    #[test]
    fn strategies_pick_their_members_and_never_bring_back_temporary_ones() {
        use Restart::{Permanent, Temporary, Transient};
        let restarts = [Permanent, Temporary, Permanent, Transient];
        let table = [
            (Strategy::OneForOne, vec![], vec![2]),
            (Strategy::RestForOne, vec![3], vec![2, 3]),
            (Strategy::OneForAll, vec![3, 1, 0], vec![0, 2, 3]),
        ];
        for (strategy, stops, starts) in table {
            let mut brain = brain(strategy, &restarts);
            match decide(&mut brain, 2, &panicked(), 0) {
                Verdict::Restart { stop, start, .. } => {
                    assert_eq!((stop, start), (stops, starts), "{strategy:?}")
                }
                other => panic!("{strategy:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn restart_types_decide_what_a_normal_and_an_abnormal_end_mean() {
        use Restart::{Permanent, Temporary, Transient};
        for (restart, normal, abnormal) in
            [(Permanent, true, true), (Transient, false, true), (Temporary, false, false)]
        {
            let mut normal_brain = brain(Strategy::OneForOne, &[restart]);
            let mut abnormal_brain = brain(Strategy::OneForOne, &[restart]);
            let comes_back = |v: Verdict| matches!(v, Verdict::Restart { .. });
            assert_eq!(comes_back(decide(&mut normal_brain, 0, &ExitReason::Done, 0)), normal, "{restart:?}");
            assert_eq!(comes_back(decide(&mut abnormal_brain, 0, &panicked(), 0)), abnormal, "{restart:?}");
        }
    }

    #[test]
    fn one_more_than_the_intensity_escalates_and_a_group_restart_counts_once() {
        let mut brain = brain(Strategy::OneForAll, &[Restart::Permanent; 4]);
        assert!(matches!(decide(&mut brain, 0, &panicked(), 0), Verdict::Restart { .. }));
        assert!(matches!(decide(&mut brain, 1, &panicked(), 1), Verdict::Restart { .. }));
        assert!(matches!(decide(&mut brain, 2, &panicked(), 2), Verdict::Escalate { .. }));
    }

    #[test]
    fn a_bad_configuration_escalates_at_once() {
        let mut brain = brain(Strategy::OneForOne, &[Restart::Permanent]);
        let reason = ExitReason::Failed(FailureClass::Config, "port taken".into());
        assert_eq!(decide(&mut brain, 0, &reason, 0), Verdict::Escalate { why: "port taken".into() });
    }

    #[test]
    fn with_a_budget_per_child_a_bad_child_spends_only_its_own() {
        let policy = Policy {
            intensity: 1,
            intensity_per: IntensityPer::Child,
            on_limit: OnLimit::Quarantine,
            ..Policy::default()
        };
        let mut brain = Brain::new(policy);
        brain.add(Restart::Permanent);
        brain.add(Restart::Permanent);
        decide(&mut brain, 0, &panicked(), 0);
        assert!(matches!(decide(&mut brain, 0, &panicked(), 1), Verdict::Quarantine { .. }));
        assert!(matches!(decide(&mut brain, 1, &panicked(), 1), Verdict::Restart { .. }));
    }

    proptest! {
        #[test]
        fn dependency_exits_never_pass_the_limit(times in proptest::collection::vec(0_u64..60, 1..200)) {
            let mut brain = brain(Strategy::OneForOne, &[Restart::Permanent]);
            let reason = ExitReason::Failed(FailureClass::Dependency, "down".into());
            let mut now = 0;
            for step in times {
                now += step;
                let restarts = matches!(decide(&mut brain, 0, &reason, now), Verdict::Restart { .. });
                prop_assert!(restarts);
            }
        }
    }
}
