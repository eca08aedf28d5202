//! The supervisor task: starts its children in order, asks the [`Brain`] about every exit, and stops them in reverse.
//!
//! It runs on the root thread, does no work of its own, and never waits without a deadline. In: [`ChildEvent`]s, drain
//! requests, changed group membership. Out: launched and aborted children, and its own exit reason to its parent.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{AbortHandle, Abortable};
use tokio::time::Instant;

use super::brain::{Brain, Exit, Verdict};
use super::events::{ChildEvent, Events};
use super::exit::ExitReason;
use super::launch::{Berth, ExitGuard};
use super::panics;
use super::policy::Restart;
use super::pools::{Placement, Pools};
use super::probe::{Drain, Probe};
use super::snapshot::{ChildState, Node};
use super::spec::{ChildSpec, Group, Kind};
use super::tree::Ledger;
use crate::clock;
use crate::domain::failure::FailureClass;

/// One supervisor at work.
pub(super) struct Supervisor {
    node: Arc<Node>,
    brain: Brain,
    slots: Vec<Slot>,
    group: Option<Group>,
    events: Events,
    backlog: VecDeque<ChildEvent>,
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

struct Slot {
    spec: ChildSpec,
    node: Arc<Node>,
    run: Option<Running>,
    due: Option<Instant>,
    removed: bool,
}

struct Running {
    probe: Probe,
    abort: AbortHandle,
    started: Instant,
}

enum Step {
    Drain(Drain),
    Event(ChildEvent),
    Due,
    Members,
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
            slots: Vec::new(),
            group: None,
            events: Events::default(),
            backlog: VecDeque::new(),
            born: clock::now(),
            node,
            probe,
            shared,
        };
        match &spec.kind {
            Kind::Supervisor(children) => {
                for child in children.iter() {
                    this.add(child.clone());
                }
            }
            Kind::Group(group) => this.group = Some(group.clone()),
            Kind::Worker(_) => {}
        }
        this
    }

    fn add(&mut self, spec: ChildSpec) -> usize {
        let node = self.node.child(&spec);
        self.brain.add(spec.policy.restart);
        self.slots.push(Slot { spec, node, run: None, due: None, removed: false });
        self.slots.len() - 1
    }

    /// Runs until it is drained or fails; its children are down when this returns.
    pub(super) async fn run(mut self) -> ExitReason {
        if let Err(reason) = self.start_in_order().await {
            self.stop_all(Drain::Restart).await;
            return reason;
        }
        self.probe.ready();
        if self.group.is_some() {
            self.reconcile().await;
        }
        loop {
            let outcome = match self.next_step().await {
                Step::Drain(drain) => {
                    self.stop_all(drain).await;
                    return ExitReason::Shutdown;
                }
                Step::Event(event) => self.on_event(event).await,
                Step::Due => self.start_due().await,
                Step::Members => {
                    self.reconcile().await;
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
        let due = self.slots.iter().filter_map(|slot| slot.due).min();
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
            () = until(due) => Step::Due,
            () = members => Step::Members,
        }
    }

    // --- starting ---

    /// Starts the children one after another, each when the one before it is ready.
    async fn start_in_order(&mut self) -> Result<(), ExitReason> {
        for child in 0..self.slots.len() {
            self.start_until_up(child).await?;
        }
        Ok(())
    }

    /// Starts one child, with backoff by the brain's word, until it is ready or the brain gives up.
    async fn start_until_up(&mut self, child: usize) -> Result<(), ExitReason> {
        loop {
            let Err(reason) = self.start_and_wait(child).await else { return Ok(()) };
            if self.probe.drain_requested() {
                return Err(ExitReason::Shutdown);
            }
            match self.verdict(child, &reason, Duration::ZERO) {
                Verdict::StayDown => return Ok(()),
                Verdict::Restart { after, .. } | Verdict::Quarantine { after } => {
                    tokio::select! {
                        _ = self.probe.drained() => return Err(ExitReason::Shutdown),
                        () = tokio::time::sleep(after) => {}
                    }
                }
                Verdict::Escalate { why } => return Err(escalated(&reason, why)),
            }
        }
    }

    /// Launches a child and waits until it is ready, gone, or out of time.
    async fn start_and_wait(&mut self, child: usize) -> Result<(), ExitReason> {
        self.launch(child);
        let timeout = self.slots[child].spec.policy.start.timeout;
        let deadline = self.is_worker(child).then(|| clock::now() + timeout);
        let generation = self.generation(child);
        loop {
            let event = tokio::select! {
                biased;
                _ = self.probe.drained() => return Err(ExitReason::Shutdown),
                event = self.events.next() => event,
                () = until(deadline) => {
                    self.stop(child, Drain::Restart).await;
                    return Err(self.note_exit(child, ExitReason::StartTimeout));
                }
            };
            match event {
                ChildEvent::Ready { child: who, generation: of } if who == child && Some(of) == generation => {
                    self.slots[child].node.enter(ChildState::Running);
                    return Ok(());
                }
                ChildEvent::Exited { child: who, generation: of, reason }
                    if who == child && Some(of) == generation =>
                {
                    self.slots[child].run = None;
                    return Err(self.note_exit(child, reason));
                }
                other => self.backlog.push_back(other),
            }
        }
    }

    fn launch(&mut self, child: usize) {
        let slot = &mut self.slots[child];
        slot.due = None;
        let probe = Probe::new(child, slot.node.generations.advance(), self.events.clone());
        slot.node.launched(probe.clone());
        let placement = match slot.spec.kind {
            Kind::Worker(_) => self.shared.pools.place(&slot.spec.policy.pool),
            _ => Placement::Inline,
        };
        let berth = Berth { child, probe: probe.clone(), events: self.events.clone(), placement };
        let abort = match &slot.spec.kind {
            Kind::Worker(launcher) => launcher.launch(berth),
            _ => launch_supervisor(&slot.spec, slot.node.clone(), berth, self.shared.clone()),
        };
        slot.run = Some(Running { probe, abort, started: clock::now() });
    }

    async fn start_due(&mut self) -> Result<(), ExitReason> {
        let now = clock::now();
        let due: Vec<usize> =
            (0..self.slots.len()).filter(|c| self.slots[*c].due.is_some_and(|at| at <= now)).collect();
        // Members of a dynamic group do not wait for each other; those of a static one come up in order.
        for child in due {
            if self.group.is_some() {
                self.launch(child);
            } else {
                self.start_until_up(child).await?;
            }
        }
        Ok(())
    }

    /// Makes the members of a dynamic group those that are wanted.
    async fn reconcile(&mut self) {
        let Some(group) = self.group.clone() else { return };
        let wanted = group.wanted();
        for child in 0..self.slots.len() {
            let name = self.slots[child].spec.name.clone();
            if !self.slots[child].removed && !wanted.contains_key(&name) {
                self.stop(child, Drain::Restart).await;
                self.slots[child].removed = true;
                self.slots[child].due = None;
                self.node.forget_child(&name);
            }
        }
        for (name, spec) in wanted {
            let known = self.slots.iter().any(|slot| !slot.removed && slot.spec.name == name);
            if !known {
                let child = self.add(spec);
                self.launch(child);
            }
        }
    }

    // --- exits ---

    async fn on_event(&mut self, event: ChildEvent) -> Result<(), ExitReason> {
        match event {
            ChildEvent::Ready { child, generation } => {
                if self.generation(child) == Some(generation) {
                    self.slots[child].node.enter(ChildState::Running);
                }
                Ok(())
            }
            ChildEvent::Exited { child, generation, reason } => {
                if self.generation(child) != Some(generation) {
                    return Ok(());
                }
                self.on_exit(child, reason).await
            }
        }
    }

    async fn on_exit(&mut self, child: usize, reason: ExitReason) -> Result<(), ExitReason> {
        let ran = self.slots[child].run.take().map_or(Duration::ZERO, |run| clock::now() - run.started);
        let reason = self.note_exit(child, reason);
        match self.verdict(child, &reason, ran) {
            Verdict::StayDown => self.slots[child].node.enter(ChildState::Stopped),
            Verdict::Quarantine { after } => {
                self.slots[child].node.enter(ChildState::Quarantined);
                self.slots[child].due = Some(clock::now() + after);
            }
            Verdict::Restart { stop, start, after } => {
                for sibling in stop {
                    self.stop(sibling, Drain::Restart).await;
                }
                let at = clock::now() + after;
                for member in start {
                    self.slots[member].due = Some(at);
                    self.slots[member].node.enter(ChildState::BackingOff);
                }
            }
            Verdict::Escalate { why } => return Err(escalated(&reason, why)),
        }
        Ok(())
    }

    fn note_exit(&mut self, child: usize, reason: ExitReason) -> ExitReason {
        let node = &self.slots[child].node;
        node.ended(&reason);
        if !reason.is_normal() {
            tracing::error!(child = node.path, generation = node.generations.newest(), %reason, "child failed");
        }
        reason
    }

    fn verdict(&mut self, child: usize, reason: &ExitReason, ran: Duration) -> Verdict {
        let running: Vec<bool> = self.slots.iter().map(|slot| slot.run.is_some()).collect();
        let backoff = self.slots[child].spec.policy.backoff;
        let now = clock::now() - self.born;
        let exit = Exit { child, reason, ran, now, chance: rand::random::<f64>() };
        let verdict = self.brain.exited(exit, &backoff, &running);
        if self.slots[child].spec.policy.restart == Restart::Temporary {
            self.slots[child].node.enter(ChildState::Stopped);
        }
        verdict
    }

    // --- stopping ---

    async fn stop_all(&mut self, drain: Drain) {
        for child in (0..self.slots.len()).rev() {
            self.slots[child].due = None;
            self.stop(child, drain).await;
            self.slots[child].node.enter(ChildState::Stopped);
        }
    }

    /// Drains a child within its budget, then aborts it; one that does not even abort is left as a fenced zombie.
    async fn stop(&mut self, child: usize, drain: Drain) {
        let policy = self.slots[child].spec.policy.stop;
        let worker = self.is_worker(child);
        let Some(run) = &self.slots[child].run else { return };
        self.slots[child].node.enter(ChildState::Draining);
        if drain == Drain::Shutdown {
            self.slots[child].node.lanes().iter().for_each(|lane| lane.close());
        }
        run.probe.request_drain(drain);
        let abort = run.abort.clone();
        // A supervisor is bounded by the sum of its children; only the process-wide budget cuts it short.
        let drain_until = worker.then(|| clock::now() + policy.drain);
        if !self.gone(child, drain_until).await {
            let path = self.slots[child].node.path.clone();
            tracing::warn!(child = path, after = ?policy.drain, "did not drain in time, aborting it");
            self.shared.ledger.forced(path.clone());
            abort.abort();
            if !self.gone(child, Some(clock::now() + policy.kill)).await {
                tracing::error!(child = path, "blocks its thread and cannot be aborted, leaving it behind");
                let fenced = self.generation(child).unwrap_or_default();
                self.slots[child].node.generations.advance();
                self.slots[child].node.lanes().iter().for_each(|lane| drop(lane.revoke(fenced)));
                self.slots[child].run = None;
            }
        }
    }

    /// Waits for a child's exit until `deadline`; keeps what others report for later.
    async fn gone(&mut self, child: usize, deadline: Option<Instant>) -> bool {
        let generation = self.generation(child);
        if let Some(at) = self.backlog.iter().position(|event| is_exit_of(event, child, generation)) {
            self.backlog.remove(at);
            self.slots[child].run = None;
            return true;
        }
        loop {
            let event = tokio::select! {
                biased;
                event = self.events.next() => event,
                () = until(deadline) => return false,
            };
            if is_exit_of(&event, child, generation) {
                self.slots[child].run = None;
                return true;
            }
            self.backlog.push_back(event);
        }
    }

    fn generation(&self, child: usize) -> Option<u64> {
        self.slots.get(child)?.run.as_ref().map(|run| run.probe.generation().number())
    }

    fn is_worker(&self, child: usize) -> bool {
        matches!(self.slots[child].spec.kind, Kind::Worker(_))
    }
}

impl Drop for Supervisor {
    /// An aborted supervisor takes its children along.
    fn drop(&mut self) {
        for slot in &self.slots {
            if let Some(run) = &slot.run {
                run.abort.abort();
            }
        }
    }
}

fn is_exit_of(event: &ChildEvent, child: usize, generation: Option<u64>) -> bool {
    matches!(event, ChildEvent::Exited { child: who, generation: of, .. } if *who == child && Some(*of) == generation)
}

/// A configuration error keeps its class on the way up, so that the process ends with the right exit code.
fn escalated(reason: &ExitReason, why: String) -> ExitReason {
    let class = match reason.class() {
        Some(FailureClass::Config) => FailureClass::Config,
        _ => FailureClass::Bug,
    };
    ExitReason::Failed(class, why)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
