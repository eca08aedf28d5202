//! How a supervisor starts its children: who is next, when, on which thread, and when it counts as up.
//!
//! In: starts that are due. Out: incarnations on their way up. What may fail is found out later: a child that cannot be
//! launched exits, and one that does not report ready runs into its patience (`timers`).

use std::time::Duration;

use super::{Supervisor, launch_supervisor};
use crate::clock;
use crate::supervisors::kernel::journal::EventKind;
use crate::supervisors::kernel::launch::Berth;
use crate::supervisors::kernel::liveness::Liveness;
use crate::supervisors::kernel::policy::Ready;
use crate::supervisors::kernel::pools::Placement;
use crate::supervisors::kernel::slot::{Pending, Running, Turn};
use crate::supervisors::kernel::snapshot::ChildState;
use crate::supervisors::kernel::spec::Kind;

impl Supervisor {
    /// Launches every child whose time and turn have come.
    pub(super) fn launch_due(&mut self) {
        let now = clock::now();
        let at_once = self.at_once();
        loop {
            let others = self.group.is_none() || self.roster.starting() < at_once;
            let Some(child) = self.roster.next_start(now, at_once, others) else { return };
            self.launch(child);
        }
    }

    /// How many children may be on their way up at a time: one, where those after it rely on it.
    fn at_once(&self) -> usize {
        let alike = self.group.is_some() || self.replicas.is_some();
        if alike { self.node.policy().start.at_once.max(1) } else { 1 }
    }

    /// Tells the parent once that all children are up (or put aside); a group is ready before it has members.
    pub(super) fn report_ready(&mut self) {
        if !self.probe.is_ready() && (self.group.is_some() || !self.roster.is_any_coming()) {
            self.node.enter(ChildState::Running);
            if self.node.path().is_empty() {
                // Of any other, its parent notes it.
                self.node.note(EventKind::Ready);
            }
            self.probe.ready();
        }
    }

    fn launch(&mut self, child: usize) {
        self.launches += 1;
        let mut slot = self.roster.edit(child);
        let pending = slot.pending.take();
        let probe = slot.node.probe(child, self.launches, &self.events);
        if pending.is_some_and(|pending| pending.turn == Turn::Probation) {
            slot.node.note(EventKind::Probing);
        }
        slot.node.note(EventKind::Launched);
        // Leases that earlier incarnations left with detached work count for nothing from here on.
        slot.node.revoke_leases(true);
        slot.node.launched(probe.clone());
        let policy = slot.policy();
        let placement = match slot.kind {
            Kind::Worker(_) => self.shared.pools.place(&policy.pool, policy.place, slot.node.path()),
            _ => Placement::Inline,
        };
        let arbiter = placement.arbiter();
        arbiter.into_iter().for_each(|arbiter| self.shared.pools.settle(arbiter, &probe));
        let berth = Berth {
            child,
            probe: probe.clone(),
            events: self.events.clone(),
            placement,
            control_capacity: policy.control_capacity,
        };
        let abort = match &slot.kind {
            Kind::Worker(launcher) => launcher.clone().launch(berth),
            _ => launch_supervisor(&slot, berth, self.shared.clone()),
        };
        let started = clock::now();
        // A supervisor needs as long as its children, each of which has its own bound.
        let ready_by = slot.is_worker().then(|| started + policy.start.timeout);
        let launch = self.launches;
        slot.run = Some(Running {
            launch,
            probe,
            abort,
            arbiter,
            started,
            up: false,
            ready_by,
            leaving: None,
            liveness: Liveness::new(started - self.born),
            look_at: slot.is_worker().then_some(started),
        });
        let is_up = policy.start.ready == Ready::Started && slot.is_worker();
        drop(slot);
        if is_up {
            self.on_ready(child, launch);
        }
    }

    pub(super) fn on_ready(&mut self, child: usize, launch: u64) {
        let mut slot = self.roster.edit(child);
        let Some(run) = slot.run.as_mut().filter(|run| run.launch == launch && run.leaving.is_none()) else {
            return;
        };
        run.up = true;
        run.ready_by = None;
        slot.node.enter(ChildState::Running);
        slot.node.note(EventKind::Ready);
    }

    /// Has a child started in some time, unless an operator or nobody wants it.
    pub(super) fn plan(&mut self, child: usize, state: ChildState, after: Duration, turn: Turn) {
        let mut slot = self.roster.edit(child);
        if slot.free || slot.node.is_held() {
            return;
        }
        let at = clock::now() + after;
        slot.pending = Some(Pending { at, turn });
        slot.node.wait_until(state, at);
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        match state {
            ChildState::BackingOff => slot.node.note(EventKind::RestartPlanned { after_ms }),
            ChildState::Quarantined => slot.node.note(EventKind::Quarantined { after_ms }),
            _ => {}
        }
    }
}
