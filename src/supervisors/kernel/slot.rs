//! The supervisor's record of one child: what runs, what is to be started when, and what is being seen off.

use std::sync::Arc;

use futures_util::future::AbortHandle;
use tokio::time::Instant;

use super::exit::ExitReason;
use super::liveness::Liveness;
use super::node::Node;
use super::policy::Policy;
use super::pools::ArbiterId;
use super::probe::Probe;
use super::spec::{ChildSpec, Kind};

pub(super) struct Slot {
    pub(super) kind: Kind,
    /// The policy of its specification.
    pub(super) origin: Arc<Policy>,
    pub(super) node: Arc<Node>,
    /// Which wish of a dynamic group this member fulfils; 0 elsewhere.
    pub(super) wish: u64,
    /// Launches of its supervisor before it had this slot.
    pub(super) since: u64,
    pub(super) run: Option<Running>,
    pub(super) pending: Option<Pending>,
    /// Its member is gone for good: the slot is free for another.
    pub(super) free: bool,
}

/// The incarnation that runs.
pub(super) struct Running {
    pub(super) launch: u64,
    pub(super) probe: Probe,
    pub(super) abort: AbortHandle,
    pub(super) arbiter: Option<ArbiterId>,
    pub(super) started: Instant,
    pub(super) up: bool,
    /// When it must have reported ready.
    pub(super) ready_by: Option<Instant>,
    pub(super) leaving: Option<Box<Leaving>>,
    pub(super) liveness: Liveness,
    /// When to look next whether it has stalled.
    pub(super) look_at: Option<Instant>,
}

/// An incarnation that was asked to go, while its siblings live on.
pub(super) struct Leaving {
    /// When patience ends: first with its draining, then with its thread. `None` for a supervisor, which bounds itself.
    pub(super) until: Option<Instant>,
    pub(super) aborted: bool,
    pub(super) then: Then,
}

/// What follows when a leaving incarnation is gone.
pub(super) enum Then {
    /// The member is no longer wanted.
    Forget,
    /// It counts as an exit for this reason.
    Exit(ExitReason),
    /// It is started again at once, as ordered.
    Restart,
    /// It stays down until an operator wants it back.
    Hold,
}

/// A start that is to come.
pub(super) struct Pending {
    pub(super) at: Instant,
    pub(super) turn: Turn,
}

/// Whom a pending start waits for, besides the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nobody.
    Alone,
    /// Every earlier sibling that is on its way up.
    InOrder,
    /// Nobody, and nobody waits for it: it was put aside.
    Probation,
}

impl Slot {
    pub(super) fn new(spec: ChildSpec, node: Arc<Node>, wish: u64, since: u64) -> Self {
        let ChildSpec { policy: origin, kind, .. } = spec;
        Self { kind, origin, node, wish, since, run: None, pending: None, free: false }
    }

    /// The policy it lives by now; that of its specification until an operator applied another.
    pub(super) fn policy(&self) -> Arc<Policy> {
        self.node.policy()
    }

    pub(super) fn is_worker(&self) -> bool {
        matches!(self.kind, Kind::Worker(_))
    }

    /// On its way up: later siblings that start in order wait for it.
    pub(super) fn is_coming(&self) -> bool {
        self.run.as_ref().is_some_and(|run| !run.up)
            || self.pending.as_ref().is_some_and(|pending| pending.turn != Turn::Probation)
    }

    /// Launched and not yet up.
    pub(super) fn is_starting(&self) -> bool {
        self.run.as_ref().is_some_and(|run| !run.up && run.leaving.is_none())
    }

    /// When to look next whether the incarnation has stalled; one that is on its way out has other bounds.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.run.as_ref().filter(|run| run.leaving.is_none()).and_then(|run| run.look_at)
    }

    pub(super) fn launch(&self) -> Option<u64> {
        self.run.as_ref().map(|run| run.launch)
    }

    /// When something has to be done about the incarnation, if it does nothing itself.
    pub(super) fn patience(&self) -> Option<Instant> {
        let run = self.run.as_ref()?;
        match &run.leaving {
            Some(leaving) => leaving.until,
            None => run.ready_by,
        }
    }
}
