//! The supervisor task: starts its children in order, asks the [`Brain`] about every exit, and stops them in reverse.
//!
//! It runs on the root thread and does no work of its own. In: [`ChildEvent`]s, drain requests, timers, changed group
//! membership, condemned arbiters. Out: launched and aborted children, and its own exit reason to its parent. Starts,
//! start timeouts and leaving group members are states of its slot, so that one slow child never keeps its siblings
//! waiting; only children that share a fate are waited for, each at most its `drain` and `kill`.

use std::collections::{BTreeSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{AbortHandle, Abortable};
use tokio::sync::watch;
use tokio::time::Instant;

use super::brain::{Brain, Exit, Verdict};
use super::events::{ChildEvent, Events};
use super::exit::ExitReason;
use super::launch::{Berth, ExitGuard};
use super::panics;
use super::policy::{Restart, Strategy};
use super::pools::{ArbiterId, Placement, Pools};
use super::probe::{Drain, Probe};
use super::slot::{Leaving, Pending, Running, Slot, Then, Turn};
use super::snapshot::{ChildState, Node};
use super::spec::{ChildSpec, Group, Kind};
use super::tree::Ledger;
use crate::clock;
use crate::domain::failure::FailureClass;

mod stopping;

/// One supervisor at work.
pub(super) struct Supervisor {
    node: Arc<Node>,
    brain: Brain,
    strategy: Strategy,
    max_children: usize,
    slots: Vec<Slot>,
    group: Option<Group>,
    events: Events,
    backlog: VecDeque<ChildEvent>,
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
}

enum Step {
    Drain(Drain),
    Event(ChildEvent),
    Timer,
    Members,
    Condemned,
}

/// Starts a nested supervisor as a child of another.
fn launch_supervisor(spec: &ChildSpec, node: Arc<Node>, berth: Berth, shared: Shared) -> AbortHandle {
    let (abort, registration) = AbortHandle::new_pair();
    let guard = ExitGuard::new(&berth);
    let supervisor = Supervisor::new(spec, node, berth.probe, shared);
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
    pub(super) fn new(spec: &ChildSpec, node: Arc<Node>, probe: Probe, shared: Shared) -> Self {
        let mut this = Self {
            brain: Brain::new(spec.policy.clone()),
            strategy: spec.policy.strategy,
            max_children: spec.policy.max_children,
            slots: Vec::new(),
            group: None,
            events: Events::default(),
            backlog: VecDeque::new(),
            condemned: shared.pools.condemned(),
            launches: 0,
            born: clock::now(),
            node,
            probe,
            shared,
        };
        match &spec.kind {
            Kind::Supervisor(children) => {
                for child in children.iter() {
                    this.add(child.clone(), 0, Turn::InOrder);
                }
            }
            Kind::Group(group) => {
                this.node.keep_children(&group.names());
                this.group = Some(group.clone());
                this.reconcile();
            }
            Kind::Worker(_) => {}
        }
        this
    }

    /// Takes a child in, to be started as soon as its turn comes.
    fn add(&mut self, spec: ChildSpec, wish: u64, turn: Turn) {
        let restart = spec.policy.restart;
        let node = self.node.child(&spec);
        node.enter(ChildState::Starting);
        let mut slot = Slot::new(spec, node, wish);
        slot.pending = Some(Pending { at: clock::now(), turn });
        match self.slots.iter().position(|slot| slot.free) {
            Some(free) => {
                self.brain.replace(free, restart);
                self.slots[free] = slot;
            }
            None => {
                self.brain.add(restart);
                self.slots.push(slot);
            }
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
        if let Some(event) = self.backlog.pop_front() {
            return Step::Event(event);
        }
        let timer = self.next_timer();
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
            Ok(()) = self.condemned.changed() => Step::Condemned,
            () = until(timer) => Step::Timer,
            () = members => Step::Members,
        }
    }

    // --- starting ---

    fn launch_due(&mut self) {
        let now = clock::now();
        while let Some(child) = (0..self.slots.len()).find(|child| self.may_start(*child, now)) {
            self.launch(child);
        }
    }

    fn may_start(&self, child: usize, now: Instant) -> bool {
        self.start_time(child).is_some_and(|at| at <= now)
    }

    /// When a pending child may be started, if that depends on the clock alone.
    fn start_time(&self, child: usize) -> Option<Instant> {
        let pending = self.slots[child].pending.as_ref()?;
        let waits = pending.turn == Turn::InOrder && self.slots[..child].iter().any(Slot::is_coming);
        (!waits).then_some(pending.at)
    }

    fn next_timer(&self) -> Option<Instant> {
        let starts = (0..self.slots.len()).filter_map(|child| self.start_time(child));
        let patience = self.slots.iter().filter_map(Slot::patience);
        starts.chain(patience).min()
    }

    /// Tells the parent once that all children are up (or put aside); a group is ready before it has members.
    fn report_ready(&mut self) {
        if !self.probe.is_ready() && (self.group.is_some() || !self.slots.iter().any(Slot::is_coming)) {
            self.node.enter(ChildState::Running);
            self.probe.ready();
        }
    }

    fn launch(&mut self, child: usize) {
        self.launches += 1;
        let slot = &mut self.slots[child];
        slot.pending = None;
        let probe = slot.node.probe(child, self.launches, &self.events);
        // Leases that earlier incarnations left with detached work count for nothing from here on.
        slot.node.revoke_leases();
        slot.node.launched(probe.clone());
        let placement = match slot.spec.kind {
            Kind::Worker(_) => self.shared.pools.place(&slot.spec.policy.pool),
            _ => Placement::Inline,
        };
        let arbiter = placement.arbiter();
        let berth = Berth { child, probe: probe.clone(), events: self.events.clone(), placement };
        let abort = match &slot.spec.kind {
            Kind::Worker(launcher) => launcher.launch(berth),
            _ => launch_supervisor(&slot.spec, slot.node.clone(), berth, self.shared.clone()),
        };
        let started = clock::now();
        // A supervisor needs as long as its children, each of which has its own bound.
        let ready_by = slot.is_worker().then(|| started + slot.spec.policy.start.timeout);
        let launch = self.launches;
        slot.run =
            Some(Running { launch, probe, abort, arbiter, started, up: false, ready_by, leaving: None });
    }

    /// Makes the members of a dynamic group those that are wanted.
    fn reconcile(&mut self) {
        let Some(group) = self.group.clone() else { return };
        let wanted = group.wanted();
        for child in 0..self.slots.len() {
            let slot = &self.slots[child];
            let still = wanted.get(&slot.spec.name).is_some_and(|wish| wish.number == slot.wish);
            if !slot.free && !still {
                self.let_go(child);
            }
        }
        let here: BTreeSet<String> =
            self.slots.iter().filter(|slot| !slot.free).map(|slot| slot.spec.name.clone()).collect();
        let room = self.max_children.saturating_sub(here.len());
        // A leaving namesake goes first; its end calls here again.
        let missing: Vec<_> = wanted.into_values().filter(|wish| !here.contains(&wish.spec.name)).collect();
        if missing.len() > room {
            tracing::warn!(
                group = self.node.path,
                over = missing.len() - room,
                "the group is full, members wait"
            );
        }
        missing.into_iter().take(room).for_each(|wish| self.add(wish.spec, wish.number, Turn::Alone));
    }

    /// Lets one member finish what it has in hand, while the others work on.
    fn let_go(&mut self, child: usize) {
        let patience = self.slots[child].is_worker().then_some(self.slots[child].spec.policy.stop.drain);
        self.slots[child].pending = None;
        let Some(run) = &mut self.slots[child].run else { return self.forget(child) };
        if let Some(leaving) = &mut run.leaving {
            leaving.then = Then::Forget;
            return;
        }
        run.probe.request_drain(Drain::Restart);
        let until = patience.map(|drain| clock::now() + drain);
        run.leaving = Some(Leaving { until, aborted: false, then: Then::Forget });
        self.slots[child].node.enter(ChildState::Draining);
    }

    fn forget(&mut self, child: usize) {
        let slot = &mut self.slots[child];
        slot.free = true;
        slot.pending = None;
        self.node.forget_child(&slot.spec.name);
    }

    // --- timers ---

    async fn on_timer(&mut self) -> Result<(), ExitReason> {
        let now = clock::now();
        for child in 0..self.slots.len() {
            if self.slots[child].patience().is_some_and(|until| until <= now) {
                self.lose_patience(child, now).await?;
            }
        }
        Ok(())
    }

    /// A child is late: with its start, with its draining, or, aborted already, with its end.
    async fn lose_patience(&mut self, child: usize, now: Instant) -> Result<(), ExitReason> {
        let slot = &mut self.slots[child];
        let Some(run) = &mut slot.run else { return Ok(()) };
        match &mut run.leaving {
            Some(leaving) if leaving.aborted => {
                self.leave_behind(child);
                return self.after_leaving(child).await;
            }
            Some(leaving) => {
                leaving.aborted = true;
                leaving.until = Some(now + slot.spec.policy.stop.kill);
                self.shared.ledger.forced(slot.node.path.clone());
            }
            None => {
                let then = Then::Exit(ExitReason::StartTimeout);
                let until = Some(now + slot.spec.policy.stop.kill);
                run.leaving = Some(Leaving { until, aborted: true, then });
            }
        }
        tracing::warn!(child = slot.node.path, "did not start or drain in time, aborting it");
        run.abort.abort();
        Ok(())
    }

    async fn after_leaving(&mut self, child: usize) -> Result<(), ExitReason> {
        let leaving = self.slots[child].run.as_mut().and_then(|run| run.leaving.take());
        match leaving.map(|leaving| leaving.then) {
            Some(Then::Exit(reason)) => self.on_exit(child, reason).await,
            _ => {
                self.slots[child].run = None;
                self.forget(child);
                self.reconcile();
                Ok(())
            }
        }
    }

    /// Starts children again elsewhere whose arbiter another supervisor found blocked.
    async fn flee_condemned(&mut self) -> Result<(), ExitReason> {
        let condemned = self.condemned.borrow_and_update().clone();
        for child in 0..self.slots.len() {
            let arbiter = self.slots[child].run.as_ref().and_then(|run| run.arbiter);
            if !arbiter.is_some_and(|arbiter| condemned.contains(&arbiter)) {
                continue;
            }
            self.leave_behind(child);
            let leaving = self.slots[child].run.as_ref().is_some_and(|run| run.leaving.is_some());
            match leaving {
                true => self.after_leaving(child).await?,
                false => self.on_exit(child, ExitReason::Stalled).await?,
            }
        }
        Ok(())
    }

    // --- exits ---

    async fn on_event(&mut self, event: ChildEvent) -> Result<(), ExitReason> {
        match event {
            ChildEvent::Ready { child, launch } => {
                self.on_ready(child, launch);
                Ok(())
            }
            ChildEvent::Exited { child, launch, .. } if self.slots[child].launch() != Some(launch) => Ok(()),
            ChildEvent::Exited { child, reason, .. } => {
                let leaving = self.slots[child].run.as_ref().is_some_and(|run| run.leaving.is_some());
                if leaving { self.after_leaving(child).await } else { self.on_exit(child, reason).await }
            }
        }
    }

    fn on_ready(&mut self, child: usize, launch: u64) {
        let slot = &mut self.slots[child];
        let Some(run) = slot.run.as_mut().filter(|run| run.launch == launch && run.leaving.is_none()) else {
            return;
        };
        run.up = true;
        run.ready_by = None;
        slot.node.enter(ChildState::Running);
    }

    async fn on_exit(&mut self, child: usize, reason: ExitReason) -> Result<(), ExitReason> {
        let running: Vec<bool> = self.slots.iter().map(|slot| slot.run.is_some()).collect();
        let ran = self.slots[child].run.take().map_or(Duration::ZERO, |run| clock::now() - run.started);
        self.note_exit(child, &reason);
        let backoff = self.slots[child].spec.policy.backoff;
        let now = clock::now() - self.born;
        let exit = Exit { child, reason: &reason, ran, now, chance: rand::random::<f64>() };
        match self.brain.exited(exit, &backoff, &running) {
            Verdict::StayDown => self.stay_down(child),
            Verdict::Quarantine { after } => {
                self.plan(child, ChildState::Quarantined, after, Turn::Probation)
            }
            Verdict::Restart { stop, start, after } => {
                for sibling in stop {
                    self.stop(sibling, Drain::Restart).await;
                }
                let turn = if self.strategy == Strategy::OneForOne { Turn::Alone } else { Turn::InOrder };
                for member in start {
                    self.plan(member, ChildState::BackingOff, after, turn);
                }
            }
            Verdict::Escalate { why } => return Err(self.escalated(child, &reason, why)),
        }
        Ok(())
    }

    fn plan(&mut self, child: usize, state: ChildState, after: Duration, turn: Turn) {
        let slot = &mut self.slots[child];
        slot.pending = Some(Pending { at: clock::now() + after, turn });
        slot.node.enter(state);
    }

    /// A temporary member of a group is over with its incarnation; any other child stays in the tree as stopped.
    fn stay_down(&mut self, child: usize) {
        let slot = &self.slots[child];
        slot.node.enter(ChildState::Stopped);
        if let (Some(group), Restart::Temporary) = (&self.group, slot.spec.policy.restart) {
            group.fulfilled(&slot.spec.name, slot.wish);
            self.forget(child);
            self.reconcile();
        }
    }

    fn note_exit(&self, child: usize, reason: &ExitReason) {
        let node = &self.slots[child].node;
        node.ended(reason);
        if !reason.is_normal() {
            tracing::error!(child = node.path, generation = node.generations.newest(), %reason, "child failed");
        }
    }

    /// The reason this supervisor fails for: it names the child, and a configuration error keeps its class on the way
    /// up, so that the process ends with the right exit code.
    fn escalated(&self, child: usize, reason: &ExitReason, why: String) -> ExitReason {
        let slot = &self.slots[child];
        match reason.class() {
            Some(FailureClass::Config) if !slot.is_worker() => ExitReason::Failed(FailureClass::Config, why),
            Some(FailureClass::Config) => {
                ExitReason::Failed(FailureClass::Config, format!("{}: {why}", slot.node.path))
            }
            _ => ExitReason::Failed(FailureClass::Bug, format!("{}: {why}", slot.node.path)),
        }
    }
}

impl Drop for Supervisor {
    /// An aborted supervisor takes its children along.
    fn drop(&mut self) {
        for run in self.slots.iter().filter_map(|slot| slot.run.as_ref()) {
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
