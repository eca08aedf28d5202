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

use super::black_box::BlackBox;
use super::brain::{Brain, Exit, Verdict};
use super::control::Errand;
use super::events::{ChildEvent, Events};
use super::exit::ExitReason;
use super::journal::EventKind;
use super::lane::Held;
use super::launch::{Berth, ExitGuard};
use super::liveness::Liveness;
use super::panics;
use super::policy::{IntensityPer, Policy, Ready, Restart, Strategy};
use super::pools::{ArbiterId, Placement, Pools};
use super::probe::{Drain, Probe};
use super::slot::{Leaving, Pending, Running, Slot, Then, Turn};
use super::snapshot::{Account, ChildState, Node};
use super::spec::{ChildSpec, Group, Kind, Make};
use super::tree::Ledger;
use crate::clock;
use crate::domain::failure::FailureClass;

mod liveness;
mod members;
mod orders;
mod stopping;

/// One supervisor at work.
pub(super) struct Supervisor {
    node: Arc<Node>,
    brain: Brain,
    /// The policy its specification came with, which its children may share.
    origin: Policy,
    slots: Vec<Slot>,
    group: Option<Group>,
    replicas: Option<Arc<Make>>,
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
            brain: Brain::new((*node.policy()).clone()),
            origin: spec.policy.clone(),
            slots: Vec::new(),
            group: None,
            replicas: None,
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
            Kind::Replicas(make) => {
                this.replicas = Some(make.clone());
                let names: Vec<String> = this.wanted_replicas().collect();
                this.node.keep_children(&names);
                this.adjust_replicas();
            }
            Kind::Worker(_) => {}
        }
        this
    }

    /// Takes a child in, to be started as soon as its turn comes.
    fn add(&mut self, spec: ChildSpec, wish: u64, turn: Turn) {
        let node = self.node.child(&spec);
        if node.generations.newest() == 0 && spec.policy == self.origin && *self.node.policy() != self.origin
        {
            // It lives by the same policy as this supervisor, which may have got another one meanwhile.
            node.adopt((*self.node.policy()).clone());
        }
        let restart = node.policy().restart;
        let mut slot = Slot::new(spec, node, wish);
        if slot.node.is_held() {
            slot.node.enter(ChildState::Drained);
        } else {
            slot.node.enter(ChildState::Starting);
            slot.pending = Some(Pending { at: clock::now(), turn });
        }
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
            errand = self.node.tray.next() => Step::Errand(errand),
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
        let ahead = match pending.turn {
            Turn::InOrder => self.slots[..child].iter().filter(|slot| slot.is_coming()).count(),
            Turn::Alone | Turn::Probation if self.group.is_some() => {
                self.slots.iter().filter(|slot| slot.is_starting()).count()
            }
            Turn::Alone | Turn::Probation => 0,
        };
        (ahead < self.at_once()).then_some(pending.at)
    }

    /// How many children may be on their way up at a time: one, where those after it rely on it.
    fn at_once(&self) -> usize {
        let alike = self.group.is_some() || self.replicas.is_some();
        if alike { self.node.policy().start.at_once.max(1) } else { 1 }
    }

    fn next_timer(&self) -> Option<Instant> {
        let starts = (0..self.slots.len()).filter_map(|child| self.start_time(child));
        let patience = self.slots.iter().filter_map(Slot::patience);
        let looks = self.slots.iter().filter_map(Slot::look_at);
        starts.chain(patience).chain(looks).min()
    }

    /// Tells the parent once that all children are up (or put aside); a group is ready before it has members.
    fn report_ready(&mut self) {
        if !self.probe.is_ready() && (self.group.is_some() || !self.slots.iter().any(Slot::is_coming)) {
            self.node.enter(ChildState::Running);
            if self.node.path.is_empty() {
                // Of any other, its parent notes it.
                self.node.note(EventKind::Ready);
            }
            self.probe.ready();
        }
    }

    fn launch(&mut self, child: usize) {
        self.launches += 1;
        let slot = &mut self.slots[child];
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
        let placement = match slot.spec.kind {
            Kind::Worker(_) => self.shared.pools.place(&policy.pool, policy.place, &slot.node.path),
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
        let abort = match &slot.spec.kind {
            Kind::Worker(launcher) => launcher.launch(berth),
            _ => launch_supervisor(&slot.spec, slot.node.clone(), berth, self.shared.clone()),
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
        if policy.start.ready == Ready::Started && slot.is_worker() {
            self.on_ready(child, launch);
        }
    }

    // --- timers ---

    async fn on_timer(&mut self) -> Result<(), ExitReason> {
        let now = clock::now();
        for child in 0..self.slots.len() {
            if self.slots[child].patience().is_some_and(|until| until <= now) {
                self.lose_patience(child, now).await?;
            }
            if self.slots[child].look_at().is_some_and(|at| at <= now) {
                self.look_after(child, now);
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
                self.leave_behind(child, true);
                return self.after_leaving(child, None).await;
            }
            Some(leaving) => {
                leaving.aborted = true;
                leaving.until = Some(now + slot.node.policy().stop.kill);
                self.shared.ledger.forced(slot.node.path.clone());
                slot.node.note(EventKind::Forced);
            }
            None => {
                let then = Then::Exit(ExitReason::StartTimeout);
                let until = Some(now + slot.node.policy().stop.kill);
                run.leaving = Some(Leaving { until, aborted: true, then });
            }
        }
        tracing::warn!(child = slot.node.path, "did not start or drain in time, aborting it");
        run.abort.abort();
        Ok(())
    }

    /// What follows on the end of a child that was seen off; `reason` is how it ended, where it said so itself.
    async fn after_leaving(&mut self, child: usize, reason: Option<ExitReason>) -> Result<(), ExitReason> {
        let leaving = self.slots[child].run.as_mut().and_then(|run| run.leaving.take());
        let then = match leaving.map(|leaving| leaving.then) {
            Some(Then::Exit(reason)) => return self.on_exit(child, reason).await,
            Some(then) => then,
            None => Then::Forget,
        };
        self.note_last(child, &reason.unwrap_or(ExitReason::Killed));
        self.slots[child].run = None;
        match then {
            Then::Restart => self.plan(child, ChildState::Starting, Duration::ZERO, Turn::Alone),
            Then::Hold => self.slots[child].node.enter(ChildState::Drained),
            Then::Forget | Then::Exit(_) => {
                self.forget(child);
                self.reconcile();
            }
        }
        Ok(())
    }

    /// Starts children again elsewhere whose arbiter was found blocked. Only the one that blocks it is to blame.
    async fn flee_condemned(&mut self) -> Result<(), ExitReason> {
        let condemned = self.condemned.borrow_and_update().clone();
        if let Some(why) = self.shared.pools.too_many_lost().filter(|_| self.node.path.is_empty()) {
            return Err(ExitReason::Failed(FailureClass::Bug, why));
        }
        for child in 0..self.slots.len() {
            let arbiter = self.slots[child].run.as_ref().and_then(|run| run.arbiter);
            if !arbiter.is_some_and(|arbiter| condemned.contains(&arbiter)) {
                continue;
            }
            let run = self.slots[child].run.as_ref();
            let blocks = run.is_some_and(|run| run.probe.is_in_poll());
            let leaving = run.is_some_and(|run| run.leaving.is_some());
            self.leave_behind(child, blocks);
            let reason = if blocks { ExitReason::Stalled } else { ExitReason::Displaced };
            match leaving {
                true => self.after_leaving(child, None).await?,
                false => self.on_exit(child, reason).await?,
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
                if leaving {
                    self.after_leaving(child, Some(reason)).await
                } else {
                    self.on_exit(child, reason).await
                }
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
        slot.node.note(EventKind::Ready);
    }

    async fn on_exit(&mut self, child: usize, reason: ExitReason) -> Result<(), ExitReason> {
        let running: Vec<bool> = self.slots.iter().map(|slot| slot.run.is_some()).collect();
        self.note_exit(child, &reason);
        let run = self.slots[child].run.take();
        let ran = run.as_ref().map_or(Duration::ZERO, |run| clock::now() - run.started);
        let held = run.and_then(|run| self.fell_with(child, &run.probe));
        let suspect = held.as_ref().is_some_and(Held::is_suspect);
        self.write_down(child, &reason, held);
        let now = clock::now() - self.born;
        let exit = Exit { child, reason: &reason, ran, now, chance: rand::random::<f64>(), suspect };
        match self.decide(exit, &running) {
            Verdict::StayDown => self.stay_down(child),
            Verdict::Quarantine { after } => {
                self.plan(child, ChildState::Quarantined, after, Turn::Probation)
            }
            Verdict::Restart { stop, start, after } => {
                for sibling in stop {
                    self.stop(sibling, Drain::Restart).await;
                }
                let alone = self.node.policy().strategy == Strategy::OneForOne;
                let turn = if alone { Turn::Alone } else { Turn::InOrder };
                for member in start {
                    self.plan(member, ChildState::BackingOff, after, turn);
                }
            }
            Verdict::Escalate { why } => return Err(self.escalated(child, &reason, why)),
        }
        Ok(())
    }

    /// Asks the brain, by the policies as they are now.
    fn decide(&mut self, exit: Exit<'_>, running: &[bool]) -> Verdict {
        let policy = self.node.policy();
        self.brain.adopt(&policy);
        for (child, slot) in self.slots.iter().enumerate() {
            self.brain.set_restart(child, slot.policy().restart);
        }
        let verdict = self.brain.exited(exit, &self.slots[exit.child].policy().backoff, running);
        let restarts = self.brain.account(exit.child).into_iter().map(|at| self.born + at).collect();
        let account = Account { restarts, intensity: policy.intensity, period: policy.period };
        match policy.intensity_per {
            IntensityPer::Supervisor => self.node.set_account(account),
            IntensityPer::Child => self.slots[exit.child].node.set_account(account),
        }
        verdict
    }

    /// What an incarnation had in hand at its end; detached work may hold it still.
    fn fell_with(&self, child: usize, probe: &Probe) -> Option<Held> {
        probe.fallen().or_else(|| self.slots[child].node.held_by(probe))
    }

    /// Has a child started in some time, unless an operator or nobody wants it.
    fn plan(&mut self, child: usize, state: ChildState, after: Duration, turn: Turn) {
        let slot = &mut self.slots[child];
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

    /// A temporary member of a group is over with its incarnation; any other child stays in the tree as stopped.
    fn stay_down(&mut self, child: usize) {
        let slot = &self.slots[child];
        slot.node.enter(ChildState::Stopped);
        slot.node.note(EventKind::Stopped);
        if let (Some(group), Restart::Temporary) = (&self.group, slot.policy().restart) {
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

    /// Notes the end of a child that was asked to go. Should it crash on its way, that has its record too; what had to be
    /// aborted is in the ledger instead.
    fn note_last(&self, child: usize, reason: &ExitReason) {
        self.note_exit(child, reason);
        if matches!(reason, ExitReason::Panicked { .. } | ExitReason::StartFailed(_)) {
            let run = self.slots[child].run.as_ref();
            self.write_down(child, reason, run.and_then(|run| self.fell_with(child, &run.probe)));
        }
    }

    /// Has a crash written down. What only lost its thread to another did not crash, and a supervisor's end has its record
    /// with the child that caused it.
    fn write_down(&self, child: usize, reason: &ExitReason, held: Option<Held>) {
        let slot = &self.slots[child];
        if slot.is_worker() && !reason.is_normal() && *reason != ExitReason::Displaced {
            slot.node.set_black_box(self.shared.black_box.record(&slot.node, reason, held));
        }
    }

    /// The reason this supervisor fails for: it names the child, and a configuration error keeps its class on the way
    /// up, so that the process ends with the right exit code.
    fn escalated(&self, child: usize, reason: &ExitReason, why: String) -> ExitReason {
        let slot = &self.slots[child];
        self.node.note(EventKind::Escalated { why: format!("{}: {why}", slot.node.path) });
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
