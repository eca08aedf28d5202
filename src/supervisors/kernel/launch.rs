//! Starts one incarnation of a worker over actix's public seams and reports how it ended.
//!
//! The panic is caught outside `ContextFut` but inside the task: actix's hooks then do not run while unwinding, so a
//! second panic in them cannot abort the process (ARCHITECTURE.md, "Launching over actix").

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use actix::Context;
use actix::dev::ContextFut;
use futures_util::FutureExt;
use futures_util::future::{AbortHandle, AbortRegistration, Abortable};

use super::chaos;
use super::child_ref::ChildRef;
use super::events::{ChildEvent, Events};
use super::exit::ExitReason;
use super::lane::LaneView;
use super::panics;
use super::pools::Placement;
use super::probe::Probe;
use super::seat::{Attach, Seat, Worker};

/// How to make an incarnation of a worker.
pub(super) struct Recipe<W: Worker> {
    pub(super) factory: Box<dyn Fn(&Probe) -> W + Send + Sync>,
    pub(super) attach: Vec<Box<Attach<W>>>,
    pub(super) known_as: Option<ChildRef<W>>,
    pub(super) lanes: Vec<Arc<dyn LaneView>>,
}

/// The incarnation's own ends of what the supervisor holds.
pub(super) struct Berth {
    pub(super) child: usize,
    pub(super) probe: Probe,
    pub(super) events: Events,
    pub(super) placement: Placement,
    pub(super) control_capacity: usize,
}

/// Starts an incarnation. The handle aborts it at its next await.
pub(super) fn launch<W: Worker>(recipe: Arc<Recipe<W>>, berth: Berth) -> AbortHandle {
    let (abort, registration) = AbortHandle::new_pair();
    let guard = ExitGuard::new(&berth);
    let (probe, control_capacity) = (berth.probe, berth.control_capacity);
    if let Some(child_ref) = &recipe.known_as {
        child_ref.bound(control_capacity);
    }
    let start = move || {
        actix_rt::spawn(async move {
            let reason = live(recipe, probe, control_capacity, registration).await;
            guard.report(reason);
        });
    };
    match berth.placement {
        Placement::Inline => start(),
        // A stopped arbiter refuses the closure and drops it; the guard in it then reports the exit.
        Placement::Arbiter(_, arbiter) => {
            arbiter.spawn_fn(start);
        }
    }
    abort
}

async fn live<W: Worker>(
    recipe: Arc<Recipe<W>>,
    probe: Probe,
    control_capacity: usize,
    registration: AbortRegistration,
) -> ExitReason {
    let generation = probe.generation().number();
    // The thread may have been blocked until long after the supervisor gave this incarnation up.
    if registration.handle().is_aborted() || !probe.generation().is_current() {
        return ExitReason::Killed;
    }
    let seated =
        probe.measured(|| catch_unwind(AssertUnwindSafe(|| seat(&recipe, &probe, control_capacity))));
    let mut run = match seated {
        Ok(run) => Box::pin(run),
        Err(payload) => {
            let text = format!("{} at {}", panics::message_of(&*payload), panics::take_location());
            return ExitReason::StartFailed(text);
        }
    };
    let first = match probe.failure() {
        // The factory found out that there is nothing to start.
        Some((class, why)) => Some(ExitReason::Failed(class, why)),
        None => {
            let mut turn = Abortable::new(AssertUnwindSafe(&mut run).catch_unwind(), registration);
            match std::future::poll_fn(|cx| probe.measured(|| turn.poll_unpin(cx))).await {
                Ok(Ok(())) => None,
                Ok(Err(payload)) => Some(panicked(&*payload)),
                Err(_) => Some(ExitReason::Killed),
            }
        }
    };
    // The actor's own drop may panic too; the first fault keeps the blame.
    probe.set_over();
    let fall = probe.measured(|| {
        catch_unwind(AssertUnwindSafe(|| {
            drop(run);
            chaos::step(probe.path(), "stopped");
        }))
    });
    let fall = fall.err().map(|payload| panicked(&*payload));
    if let Some(child_ref) = &recipe.known_as {
        child_ref.clear(generation);
    }
    first.or(fall).unwrap_or_else(|| orderly(&probe))
}

fn seat<W: Worker>(
    recipe: &Arc<Recipe<W>>,
    probe: &Probe,
    control_capacity: usize,
) -> ContextFut<Seat<W>, Context<Seat<W>>> {
    let mut ctx = Context::<Seat<W>>::new();
    ctx.set_mailbox_capacity(control_capacity.max(1));
    chaos::step(probe.path(), "factory");
    let worker = (recipe.factory)(probe);
    if let Some(child_ref) = &recipe.known_as {
        child_ref.publish(probe, actix::AsyncContext::address(&ctx));
    }
    ctx.into_future(Seat::new(worker, probe.clone(), recipe.clone()))
}

fn panicked(payload: &(dyn std::any::Any + Send)) -> ExitReason {
    ExitReason::Panicked { message: panics::message_of(payload), location: panics::take_location() }
}

fn orderly(probe: &Probe) -> ExitReason {
    match probe.failure() {
        Some((class, why)) => ExitReason::Failed(class, why),
        None if probe.drain_requested() => ExitReason::Shutdown,
        None => ExitReason::Done,
    }
}

/// Reports the exit exactly once, as `Killed` where the task was dropped before it could say why.
pub(super) struct ExitGuard {
    child: usize,
    launch: u64,
    events: Events,
    reported: bool,
}

impl ExitGuard {
    pub(super) fn new(berth: &Berth) -> Self {
        Self {
            child: berth.child,
            launch: berth.probe.launch(),
            events: berth.events.clone(),
            reported: false,
        }
    }

    pub(super) fn report(mut self, reason: ExitReason) {
        self.push(reason);
    }

    fn push(&mut self, reason: ExitReason) {
        self.reported = true;
        self.events.push(ChildEvent::Exited { child: self.child, launch: self.launch, reason });
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        if !self.reported {
            self.push(ExitReason::Killed);
        }
    }
}
