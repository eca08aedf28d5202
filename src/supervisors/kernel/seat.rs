//! How a worker sits in an actix actor: [`Seat`] owns the lifecycle, so that hooks cannot be got wrong by a worker.

use std::sync::Arc;

use actix::dev::MessageResponse;
use actix::fut::{ActorFutureExt, wrap_future};
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, StreamHandler};

use super::chaos;
use super::lane::{Cargo, Lane, Lease};
use super::launch::Recipe;
use super::probe::Probe;

/// The actix context of a worker.
pub type Seated<W> = Context<Seat<W>>;

/// What a stage implements: the state and lifecycle of one kind of actor.
pub trait Worker: Sized + Unpin + 'static {
    /// Runs once on the actor's thread before any message. Must lead to [`Probe::ready`], now or later.
    fn started(&mut self, probe: &Probe, _ctx: &mut Seated<Self>) {
        probe.ready();
    }

    /// Asked to finish up. A worker that reads a lane need not do anything: it is stopped when its inbox ends.
    /// One that reads none is stopped at once unless it overrides this.
    fn drain(&mut self, _probe: &Probe, reads_lane: bool, ctx: &mut Seated<Self>) {
        if !reads_lane {
            ctx.stop();
        }
    }
}

/// A worker that answers control messages, which travel through the (small) actix mailbox.
pub trait Handle<M: Message>: Worker {
    /// The answer, as in [`actix::Handler`].
    type Result: MessageResponse<Seat<Self>, M>;

    /// Handles one message.
    fn handle(&mut self, message: M, ctx: &mut Seated<Self>) -> Self::Result;
}

/// A worker that reads a lane.
pub trait Consume<M: Cargo>: Worker {
    /// Takes one lease. Acknowledge it when its work is done; dropping it brings the message back.
    fn consume(&mut self, lease: Lease<M>, ctx: &mut Seated<Self>);
}

/// Adds one inbox to a freshly started seat.
pub(super) type Attach<W> = dyn Fn(&mut Seated<W>, &Probe) + Send + Sync;

/// The actix actor around a worker.
pub struct Seat<W: Worker> {
    /// The worker, for futures that come back with a result (`|result, seat, ctx| seat.worker…`).
    pub worker: W,
    probe: Probe,
    recipe: Arc<Recipe<W>>,
    open_inboxes: usize,
}

impl<W: Worker> Seat<W> {
    pub(super) fn new(worker: W, probe: Probe, recipe: Arc<Recipe<W>>) -> Self {
        let open_inboxes = recipe.attach.len();
        Self { worker, probe, recipe, open_inboxes }
    }

    /// The probe of this incarnation.
    pub fn probe(&self) -> &Probe {
        &self.probe
    }
}

pub(super) fn attach_lane<W: Consume<M>, M: Cargo>(lane: &Lane<M>) -> Box<Attach<W>> {
    let lane = lane.clone();
    Box::new(move |ctx: &mut Seated<W>, probe: &Probe| {
        ctx.add_stream(lane.inbox(probe.clone()));
    })
}

impl<W: Worker> Actor for Seat<W> {
    type Context = Seated<W>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // actix starts an actor that was aborted before its first poll from within its drop, only to stop it again.
        if self.probe.is_over() {
            return;
        }
        let drained = wrap_future::<_, Self>(self.probe.drained());
        ctx.spawn(drained.map(|_, seat, ctx| {
            let reads_lane = seat.open_inboxes > 0;
            seat.worker.drain(&seat.probe, reads_lane, ctx);
        }));
        let recipe = self.recipe.clone();
        recipe.attach.iter().for_each(|attach| attach(ctx, &self.probe));
        chaos::step(self.probe.path(), "started");
        self.worker.started(&self.probe, ctx);
    }
}

impl<W: Handle<M>, M: Message> Handler<M> for Seat<W>
where
    M::Result: 'static,
{
    type Result = W::Result;

    fn handle(&mut self, message: M, ctx: &mut Self::Context) -> Self::Result {
        self.probe.handled();
        self.worker.handle(message, ctx)
    }
}

impl<W: Consume<M>, M: Cargo> StreamHandler<Lease<M>> for Seat<W> {
    fn handle(&mut self, lease: Lease<M>, ctx: &mut Self::Context) {
        self.worker.consume(lease, ctx);
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        self.open_inboxes = self.open_inboxes.saturating_sub(1);
        if self.open_inboxes == 0 {
            ctx.stop();
        }
    }
}

impl<W: Worker> std::fmt::Debug for Seat<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seat<{}>({:?})", std::any::type_name::<W>(), self.probe)
    }
}
