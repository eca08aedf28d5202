//! The supervisor task: starts its children in order, asks the [`Brain`] about every exit, and stops them in reverse.
//!
//! It runs on the root thread and does no work of its own. In: [`ChildEvent`]s, drain requests, timers, changed group
//! membership, condemned arbiters. Out: launched and aborted children, and its own exit reason to its parent. Starts,
//! start timeouts and leaving group members are states of its slot, so that one slow child never keeps its siblings
//! waiting; only children that share a fate are waited for, each at most its `drain` and `kill`.
//!
//! A step costs what has changed, not how many children there are: `roster` knows what is to be done next. `starting`,
//! `timers`, `exits`, `stopping`, `members`, `orders` and `liveness` are what a step can be about.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{AbortHandle, Abortable};
use tokio::sync::watch;
use tokio::time::Instant;

use super::black_box::BlackBox;
use super::brain::Brain;
use super::control::Errand;
use super::events::{ChildEvent, Events};
use super::exit::ExitReason;
use super::group::Group;
use super::launch::{Berth, ExitGuard};
use super::node::Node;
use super::panics;
use super::policy::Policy;
use super::pools::{ArbiterId, Pools};
use super::probe::{Drain, Probe};
use super::slot::{Pending, Slot, Turn};
use super::snapshot::ChildState;
use super::spec::{ChildSpec, Kind, Make};
use super::tree::Ledger;
use crate::clock;
use backlog::Backlog;
use roster::Roster;

mod backlog;
mod exits;
mod liveness;
mod members;
mod orders;
mod roster;
mod starting;
mod stopping;
mod timers;

/// One supervisor at work.
pub(super) struct Supervisor {
    node: Arc<Node>,
    brain: Brain,
    /// The policy its specification came with, which its children may share.
    origin: Arc<Policy>,
    roster: Roster,
    group: Option<Group>,
    /// Wanted members that found no room in the group.
    waiting: BTreeSet<Arc<str>>,
    replicas: Option<Arc<Make>>,
    events: Events,
    backlog: Backlog,
    condemned: watch::Receiver<BTreeSet<ArbiterId>>,
    launches: u64,
    probe: Probe,
    shared: Shared,
    born: Instant,
}

/// What all supervisors of a tree share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) pools: Pools,
    pub(super) ledger: Ledger,
    pub(super) black_box: BlackBox,
}

enum Step {
    Drain(Drain),
    Event(ChildEvent),
    Errand(Errand),
    Timer,
    Members,
    Condemned,
}

/// Starts a nested supervisor as a child of another.
fn launch_supervisor(slot: &Slot, berth: Berth, shared: Shared) -> AbortHandle {
    let (abort, registration) = AbortHandle::new_pair();
    let guard = ExitGuard::new(&berth);
    let supervisor = Supervisor::new(&slot.kind, slot.origin.clone(), slot.node.clone(), berth.probe, shared);
    tokio::task::spawn_local(async move {
        let run = Abortable::new(AssertUnwindSafe(supervisor.run()).catch_unwind(), registration).await;
        guard.report(match run {
            Ok(Ok(reason)) => reason,
            Ok(Err(payload)) => ExitReason::Panicked {
                message: panics::message_of(&*payload),
                location: panics::take_location(),
            },
            Err(_) => ExitReason::Killed,
        });
    });
    abort
}

impl Supervisor {
    pub(super) fn new(
        kind: &Kind,
        origin: Arc<Policy>,
        node: Arc<Node>,
        probe: Probe,
        shared: Shared,
    ) -> Self {
        let mut this = Self {
            brain: Brain::new((*node.policy()).clone()),
            origin,
            roster: Roster::default(),
            group: None,
            waiting: BTreeSet::new(),
            replicas: None,
            events: Events::default(),
            backlog: Backlog::default(),
            condemned: shared.pools.condemned(),
            launches: 0,
            born: clock::now(),
            node,
            probe,
            shared,
        };
        match kind {
            Kind::Supervisor(children) => {
                for child in children.iter() {
                    this.add(child.clone(), 0, Turn::InOrder);
                }
            }
            Kind::Group(group) => this.open(group.clone()),
            Kind::Replicas(make) => {
                this.replicas = Some(make.clone());
                this.node.keep_children(&this.wanted_replicas().collect());
                this.adjust_replicas();
            }
            Kind::Worker(_) => {}
        }
        this
    }

    /// Takes a child in, to be started as soon as its turn comes.
    fn add(&mut self, spec: ChildSpec, wish: u64, turn: Turn) {
        let node = self.node.child(&spec);
        if node.generations.newest() == 0
            && *spec.policy == *self.origin
            && *self.node.policy() != *self.origin
        {
            // It lives by the same policy as this supervisor, which may have got another one meanwhile.
            node.adopt(self.node.policy());
        }
        let restart = node.policy().restart;
        let held = node.is_held();
        node.enter(if held { ChildState::Drained } else { ChildState::Starting });
        let mut slot = Slot::new(spec, node, wish, self.launches);
        slot.pending = (!held).then(|| Pending { at: clock::now(), turn });
        match self.roster.add(slot) {
            (child, true) => self.brain.replace(child, restart),
            (_, false) => drop(self.brain.add(restart)),
        }
    }

    /// Runs until it is drained or fails; its children are down when this returns.
    pub(super) async fn run(mut self) -> ExitReason {
        loop {
            self.launch_due();
            self.report_ready();
            let outcome = match self.next_step().await {
                Step::Drain(drain) => {
                    self.stop_all(drain).await;
                    return ExitReason::Shutdown;
                }
                Step::Event(event) => self.on_event(event).await,
                Step::Errand(errand) => {
                    self.on_errand(errand);
                    Ok(())
                }
                Step::Timer => self.on_timer().await,
                Step::Condemned => self.flee_condemned().await,
                Step::Members => {
                    self.reconcile();
                    Ok(())
                }
            };
            if let Err(reason) = outcome {
                self.stop_all(Drain::Restart).await;
                return reason;
            }
        }
    }

    async fn next_step(&mut self) -> Step {
        if let Some(event) = self.backlog.pop() {
            return Step::Event(event);
        }
        let timer = self.roster.next_time();
        let group = self.group.clone();
        let members = async move {
            match group {
                Some(group) => group.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            drain = self.probe.drained() => Step::Drain(drain),
            event = self.events.next() => Step::Event(event),
            errand = self.node.next_errand() => Step::Errand(errand),
            Ok(()) = self.condemned.changed() => Step::Condemned,
            () = until(timer) => Step::Timer,
            () = members => Step::Members,
        }
    }
}

impl Drop for Supervisor {
    /// An aborted supervisor takes its children along.
    fn drop(&mut self) {
        for run in self.roster.iter().filter_map(|slot| slot.run.as_ref()) {
            run.abort.abort();
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
