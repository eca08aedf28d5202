//! How a supervisor sees its children off: asked, waited for, aborted, and at the very worst left behind.
//!
//! In: a child and a reason to drain. Out: an empty slot, within the child's `drain` and `kill`; what had to be forced
//! goes into the tree's ledger.

use std::time::Duration;

use tokio::time::Instant;

use super::{Supervisor, until};
use crate::clock;
use crate::supervisors::kernel::exit::ExitReason;
use crate::supervisors::kernel::journal::EventKind;
use crate::supervisors::kernel::probe::Drain;
use crate::supervisors::kernel::snapshot::ChildState;

impl Supervisor {
    /// Stops the children in reverse start order; members of a dynamic group and replicas all at once, for they have no
    /// order.
    pub(super) async fn stop_all(&mut self, drain: Drain) {
        let begun = clock::now();
        let together = self.group.is_some() || self.replicas.is_some();
        if together {
            (0..self.roster.len()).for_each(|child| self.ask_to_stop(child, drain));
        }
        for child in (0..self.roster.len()).rev() {
            match together {
                true => self.see_off(child, begun).await,
                false => self.stop(child, drain).await,
            }
        }
    }

    pub(super) async fn stop(&mut self, child: usize, drain: Drain) {
        self.ask_to_stop(child, drain);
        self.see_off(child, clock::now()).await;
    }

    fn ask_to_stop(&mut self, child: usize, drain: Drain) {
        self.roster.edit(child).pending = None;
        let slot = &self.roster[child];
        if drain == Drain::Shutdown {
            slot.node.lanes().iter().for_each(|lane| lane.close());
        }
        if let Some(run) = &slot.run {
            slot.node.enter(ChildState::Draining);
            slot.node.note(EventKind::Draining);
            run.probe.request_drain(drain);
        }
    }

    /// Waits for a child that was asked to stop at `asked`, then aborts it; one that does not even abort is left behind.
    async fn see_off(&mut self, child: usize, asked: Instant) {
        let slot = &self.roster[child];
        let policy = slot.policy().stop;
        if let Some(run) = &slot.run {
            let abort = run.abort.clone();
            // A supervisor is bounded by the sum of its children; only the process-wide budget cuts it short.
            let lost = run.arbiter.is_some_and(|arbiter| self.condemned.borrow().contains(&arbiter));
            // What sits on a thread that was given up will not drain.
            let patience = if lost { Duration::ZERO } else { policy.drain };
            let drain_until = slot.is_worker().then(|| asked + patience);
            if !self.gone(child, drain_until).await {
                let path = self.roster[child].node.path().to_owned();
                tracing::warn!(child = path, after = ?policy.drain, "did not drain in time, aborting it");
                self.shared.ledger.forced(path);
                self.roster[child].node.note(EventKind::Forced);
                abort.abort();
                if !self.gone(child, Some(clock::now() + policy.kill)).await {
                    self.leave_behind(child, true);
                    self.note_exit(child, &ExitReason::Killed);
                    self.roster.edit(child).run = None;
                }
            }
            self.roster[child].node.note(EventKind::Stopped);
        }
        let node = &self.roster[child].node;
        node.enter(if node.is_held() { ChildState::Drained } else { ChildState::Stopped });
    }

    /// Waits for a child's exit until `deadline`; keeps what others report for later.
    async fn gone(&mut self, child: usize, deadline: Option<Instant>) -> bool {
        let Some(launch) = self.roster[child].launch() else { return true };
        let mut reason = self.backlog.take_exit(child, launch);
        while reason.is_none() {
            let event = tokio::select! {
                biased;
                event = self.events.next() => event,
                () = until(deadline) => return false,
            };
            self.backlog.push(event);
            reason = self.backlog.take_exit(child, launch);
        }
        reason.into_iter().for_each(|reason| self.note_last(child, &reason));
        self.roster.edit(child).run = None;
        true
    }

    /// Gives an incarnation up whose thread is blocked: fences it, takes its leases back, condemns its arbiter. With
    /// `blame` it is what blocks the thread, and its leases are suspects.
    pub(super) fn leave_behind(&mut self, child: usize, blame: bool) {
        let slot = &self.roster[child];
        tracing::error!(
            child = slot.node.path(),
            blocks = blame,
            "its thread is blocked and it cannot be aborted, leaving it behind"
        );
        if let Some(run) = &slot.run {
            // Noted before its leases are taken away.
            run.probe.fell_with(|| slot.node.held_by(&run.probe));
        }
        slot.node.generations.advance();
        slot.node.revoke_leases(blame);
        if let Some(run) = &slot.run {
            run.abort.abort();
            if let Some(arbiter) = run.arbiter {
                slot.node.note(EventKind::Condemned { arbiter });
                self.shared.pools.condemn(arbiter);
            }
        }
    }
}
