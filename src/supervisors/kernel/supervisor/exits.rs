//! What a supervisor does about the reports of its children: ready, ended, or a message that fails for good.
//!
//! In: [`ChildEvent`]s. Out: the brain's verdict carried out: restarts planned, children put aside, or the supervisor's own
//! failure for its parent. Each crash is written down on the way.

use std::time::Duration;

use super::Supervisor;
use crate::clock;
use crate::domain::failure::FailureClass;
use crate::supervisors::kernel::brain::{Exit, Verdict};
use crate::supervisors::kernel::events::ChildEvent;
use crate::supervisors::kernel::exit::ExitReason;
use crate::supervisors::kernel::journal::EventKind;
use crate::supervisors::kernel::lane::Held;
use crate::supervisors::kernel::node::Account;
use crate::supervisors::kernel::policy::{IntensityPer, Restart, Strategy};
use crate::supervisors::kernel::probe::{Drain, Probe};
use crate::supervisors::kernel::slot::{Then, Turn};
use crate::supervisors::kernel::snapshot::ChildState;

impl Supervisor {
    pub(super) async fn on_event(&mut self, event: ChildEvent) -> Result<(), ExitReason> {
        match event {
            ChildEvent::Ready { child, launch } => {
                self.on_ready(child, launch);
                Ok(())
            }
            ChildEvent::Spoiled { child, launch, why } => self.on_spoiled(child, launch, why),
            ChildEvent::Exited { child, launch, .. } if self.roster[child].launch() != Some(launch) => Ok(()),
            ChildEvent::Exited { child, reason, .. } => {
                let leaving = self.roster[child].run.as_ref().is_some_and(|run| run.leaving.is_some());
                if leaving {
                    self.after_leaving(child, Some(reason)).await
                } else {
                    self.on_exit(child, reason).await
                }
            }
        }
    }

    pub(super) async fn on_exit(&mut self, child: usize, reason: ExitReason) -> Result<(), ExitReason> {
        self.note_exit(child, &reason);
        let run = self.roster.edit(child).run.take();
        let ran = run.as_ref().map_or(Duration::ZERO, |run| clock::now() - run.started);
        let held = run.and_then(|run| self.fell_with(child, &run.probe));
        let suspect = held.as_ref().is_some_and(Held::is_suspect);
        self.write_down(child, &reason, held);
        let now = clock::now() - self.born;
        let exit = Exit { child, reason: &reason, ran, now, chance: rand::random::<f64>(), suspect };
        match self.decide(exit) {
            Verdict::StayDown => self.stay_down(child),
            Verdict::Quarantine { after } => {
                self.plan(child, ChildState::Quarantined, after, Turn::Probation)
            }
            Verdict::Restart { stop, start, after } => {
                let mut room = false;
                for sibling in stop {
                    room |= self.stop_with_the_group(sibling).await;
                }
                let alone = self.node.policy().strategy == Strategy::OneForOne;
                let turn = if alone { Turn::Alone } else { Turn::InOrder };
                for member in start {
                    self.plan(member, ChildState::BackingOff, after, turn);
                }
                if room {
                    self.fill();
                }
            }
            Verdict::Escalate { why } => return Err(self.escalated(child, &reason, why)),
        }
        Ok(())
    }

    /// Stops a child that shares the fate of another. One that was being let go is gone with it, since nobody wants it
    /// back: true, and its place is free.
    async fn stop_with_the_group(&mut self, sibling: usize) -> bool {
        let leaving = self.roster[sibling].run.as_ref().and_then(|run| run.leaving.as_ref());
        let unwanted = leaving.is_some_and(|leaving| matches!(leaving.then, Then::Forget));
        self.stop(sibling, Drain::Restart).await;
        if unwanted {
            self.forget(sibling);
        }
        unwanted
    }

    /// Asks the brain, by the policies as they are now.
    fn decide(&mut self, exit: Exit<'_>) -> Verdict {
        let policy = self.node.policy();
        self.brain.adopt(&policy);
        let roster = &self.roster;
        // Of all the others the brain asks only where they share the fate of this one.
        let sharers = match policy.strategy {
            Strategy::OneForOne => exit.child..exit.child + 1,
            Strategy::OneForAll | Strategy::RestForOne => 0..roster.len(),
        };
        sharers.for_each(|child| self.brain.set_restart(child, roster[child].policy().restart));
        let backoff = roster[exit.child].policy().backoff;
        let verdict = self.brain.exited(exit, &backoff, |child| roster[child].run.is_some());
        let restarts = self.brain.account(exit.child).into_iter().map(|at| self.born + at).collect();
        let account = Account { restarts, intensity: policy.intensity, period: policy.period };
        match policy.intensity_per {
            IntensityPer::Supervisor => self.node.set_account(account),
            IntensityPer::Child => self.roster[exit.child].node.set_account(account),
        }
        verdict
    }

    /// A message fails for good in the hands of a child, and is not to be passed over: the supervisor fails for it.
    fn on_spoiled(&mut self, child: usize, launch: u64, why: String) -> Result<(), ExitReason> {
        let slot = &self.roster[child];
        if slot.free || launch <= slot.since {
            return Ok(());
        }
        let reason = ExitReason::Failed(FailureClass::Poison, why.clone());
        slot.node.set_failure(&reason);
        tracing::error!(child = slot.node.path(), %reason, "child failed");
        Err(self.escalated(child, &reason, why))
    }

    /// What an incarnation had in hand at its end; detached work may hold it still.
    fn fell_with(&self, child: usize, probe: &Probe) -> Option<Held> {
        probe.fallen().or_else(|| self.roster[child].node.held_by(probe))
    }

    /// A temporary member of a group is over with its incarnation; any other child stays in the tree as stopped.
    fn stay_down(&mut self, child: usize) {
        let slot = &self.roster[child];
        slot.node.enter(ChildState::Stopped);
        slot.node.note(EventKind::Stopped);
        if let (Some(group), Restart::Temporary) = (&self.group, slot.policy().restart) {
            group.fulfilled(slot.node.name(), slot.wish);
            self.forget(child);
            self.fill();
        }
    }

    pub(super) fn note_exit(&self, child: usize, reason: &ExitReason) {
        let node = &self.roster[child].node;
        node.ended(reason);
        if !reason.is_normal() {
            tracing::error!(child = node.path(), generation = node.generations.newest(), %reason, "child failed");
        }
    }

    /// Notes the end of a child that was asked to go. Should it crash on its way, that has its record too; what had to be
    /// aborted is in the ledger instead.
    pub(super) fn note_last(&self, child: usize, reason: &ExitReason) {
        self.note_exit(child, reason);
        if matches!(reason, ExitReason::Panicked { .. } | ExitReason::StartFailed(_)) {
            let run = self.roster[child].run.as_ref();
            self.write_down(child, reason, run.and_then(|run| self.fell_with(child, &run.probe)));
        }
    }

    /// Has a crash written down. What only lost its thread to another did not crash, and a supervisor's end has its record
    /// with the child that caused it.
    fn write_down(&self, child: usize, reason: &ExitReason, held: Option<Held>) {
        let slot = &self.roster[child];
        if slot.is_worker() && !reason.is_normal() && *reason != ExitReason::Displaced {
            slot.node.set_black_box(self.shared.black_box.record(&slot.node, reason, held));
        }
    }

    /// The reason this supervisor fails for: it names the child, and a configuration error keeps its class on the way
    /// up, so that the process ends with the right exit code.
    fn escalated(&self, child: usize, reason: &ExitReason, why: String) -> ExitReason {
        let slot = &self.roster[child];
        self.node.note(EventKind::Escalated { why: format!("{}: {why}", slot.node.path()) });
        match reason.class() {
            Some(FailureClass::Config) if !slot.is_worker() => ExitReason::Failed(FailureClass::Config, why),
            Some(FailureClass::Config) => {
                ExitReason::Failed(FailureClass::Config, format!("{}: {why}", slot.node.path()))
            }
            _ => ExitReason::Failed(FailureClass::Bug, format!("{}: {why}", slot.node.path())),
        }
    }
}
