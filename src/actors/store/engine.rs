//! The keeper of the embedded engine: starts the child process, watches it, brings it back, ends it.
//!
//! In: nothing but time and the child's end. Out: a telemetry client that points at the running engine, with its
//! schema up to date. The engine being down is a state of this actor (`Degraded`), never a crash of it.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{ActorContext, AsyncContext};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::backends::telemetry::access::{self, Access};
use crate::backends::telemetry::client::{TelemetryClient, TelemetrySettings};
use crate::backends::telemetry::engine::USER;
use crate::backends::telemetry::engine::child::{EngineChild, EngineGrip, EngineSpec};
use crate::backends::telemetry::migrate;
use crate::backends::telemetry::schema::Layout;
use crate::clock;
use crate::config::live::LiveConfig;
use crate::domain::failure::FailureClass;
use crate::supervisors::kernel::backoff::Backoff;
use crate::supervisors::kernel::breaker::{Attempt, Gate};
use crate::supervisors::kernel::policy::{BackoffPolicy, BreakerPolicy};
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Seated, Worker};
use crate::supervisors::kernel::window::Window;

/// Wait between two tries to start the engine or to reach the server.
const RETRY: BackoffPolicy = BackoffPolicy {
    min: Duration::from_millis(100),
    max: Duration::from_secs(10),
    factor: 2.0,
    jitter: 0.25,
    reset_after: Duration::from_secs(30),
};
/// Restarts of an engine that finds its own data damaged, within so long. At its start it puts broken parts aside; what is
/// left after these is for an operator.
const MOST_HEALED: (u32, Duration) = (3, Duration::from_secs(600));
/// How often the child is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Adapter actor of the telemetry store's life: the engine process, or a server somewhere else.
pub struct StoreKeeper {
    client: Arc<TelemetryClient>,
    settings: TelemetrySettings,
    engine: Option<EngineSpec>,
    schema: Schema,
    config: LiveConfig,
    breaker: BreakerPolicy,
    former: Former,
}

/// The engine that the newest incarnation of the keeper started. An incarnation that sits on a blocked thread cannot end
/// its engine, which would keep the folder to itself: its successor does.
pub type Former = Arc<Mutex<Option<EngineGrip>>>;

/// The schema that the store has to have.
#[derive(Debug, Clone)]
pub struct Schema {
    /// One server or a cluster.
    pub layout: Layout,
    /// What a server has beside its tables.
    pub access: Option<Access>,
    /// Whether the keeper brings it up to date; else it waits until somebody has.
    pub migrates: bool,
}

impl StoreKeeper {
    /// Keeps the engine described by `engine`, which gets `telemetry.engine.stop_timeout` to end by itself; with `None` it only sees to
    /// the `schema` of the server in `settings`. `client` gets its address once that is there.
    pub fn new(
        client: Arc<TelemetryClient>,
        settings: TelemetrySettings,
        engine: Option<EngineSpec>,
        schema: Schema,
        config: LiveConfig,
        breaker: BreakerPolicy,
        former: Former,
    ) -> Self {
        Self { client, settings, engine, schema, config, breaker, former }
    }
}

impl Worker for StoreKeeper {
    /// Ready at once: Obtrace takes data in with its store down.
    fn started(&mut self, probe: &Probe, ctx: &mut Seated<Self>) {
        probe.degraded("the telemetry store is starting");
        probe.ready();
        let keep = Keep {
            client: self.client.clone(),
            settings: self.settings.clone(),
            engine: self.engine.clone(),
            schema: self.schema.clone(),
            config: self.config.clone(),
            former: self.former.clone(),
            gate: Gate::new(self.breaker, probe),
            probe: probe.clone(),
            born: clock::now(),
        };
        ctx.spawn(wrap_future(keep.run()).map(|(), _, ctx: &mut Seated<Self>| ctx.stop()));
    }

    /// The loop sees the request itself, and ends the engine last of all stores.
    fn drain(&mut self, _probe: &Probe, _reads_lane: bool, _ctx: &mut Seated<Self>) {}
}

struct Keep {
    client: Arc<TelemetryClient>,
    settings: TelemetrySettings,
    engine: Option<EngineSpec>,
    schema: Schema,
    config: LiveConfig,
    former: Former,
    gate: Gate,
    probe: Probe,
    born: Instant,
}

impl Keep {
    async fn run(self) {
        let mut backoff = Backoff::default();
        let mut healed = Window::new(MOST_HEALED.0, MOST_HEALED.1);
        while !self.probe.drain_requested() {
            let entered = tokio::select! {
                _ = self.probe.drained() => return,
                attempt = self.gate.enter() => attempt,
            };
            let (born, mut attempt) = (clock::now(), Some(entered));
            let why = self.one_life(&mut attempt, &mut healed).await;
            let Some(why) = why else { return };
            match attempt {
                Some(attempt) => attempt.failed(FailureClass::Dependency, why),
                None => self.probe.degraded(why),
            }
            let wait = backoff.next(&RETRY, clock::now() - born, rand::random());
            tokio::select! {
                _ = self.probe.drained() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Sees to the schema over a client of its own, and only then lets the writers and queries in: a row that came before
    /// its table's views were there would be missing in them for good.
    async fn open(&self, settings: &TelemetrySettings) -> Result<(), String> {
        let settings_of_admin = TelemetrySettings { reader: None, ..settings.clone() };
        let admin = TelemetryClient::new(settings_of_admin).map_err(|error| error.to_string())?;
        let late = |error: &dyn Display| format!("the telemetry schema is not up to date: {error}");
        let Schema { layout, access, migrates } = &self.schema;
        if *migrates {
            migrate::run(&admin, layout).await.map_err(|error| late(&error))?;
            if let Some(wanted) = access {
                access::run(&admin, layout, wanted).await.map_err(|error| late(&error))?;
            }
        } else {
            let plan = migrate::plan(&admin, layout).await.map_err(|error| late(&error))?;
            if !plan.steps.is_empty() {
                let steps: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
                let todo = format!("{} is missing, run `obtrace migrate`", steps.join(", "));
                return Err(late(&todo));
            }
        }
        self.client.open(settings);
        Ok(())
    }

    /// From starting the engine to its end. `None` after a drain request, else why it ended. The attempt is used up once
    /// the store is open.
    async fn one_life(&self, attempt: &mut Option<Attempt>, healed: &mut Window) -> Option<String> {
        if let Some(former) = self.former.lock().take() {
            former.kill();
        }
        let child = match &self.engine {
            Some(spec) => match EngineChild::spawn(spec.clone()).await {
                Ok(child) => Some(child),
                Err(error) => return Some(format!("the engine did not start: {error}")),
            },
            None => None,
        };
        if !self.probe.generation().is_current() {
            return Some(String::from("a later keeper has taken over"));
        }
        *self.former.lock() = child.as_ref().map(EngineChild::grip);
        let mut settings = self.settings.clone();
        if let Some(endpoint) = child.as_ref().and_then(EngineChild::endpoint) {
            settings.url = Some(endpoint.url);
            settings.user = USER.to_owned();
            settings.password = endpoint.secret;
        }
        if let Err(why) = self.open(&settings).await {
            return Some(why);
        }
        attempt.take().into_iter().for_each(Attempt::answered);
        let mut damage = self.client.damage();
        let why = loop {
            tokio::select! {
                _ = self.probe.drained() => break None,
                Ok(()) = damage.changed(), if child.is_some() => {
                    let told = damage.borrow_and_update().clone();
                    // Damage that is only told of is no restart: there is a next one when the time has passed.
                    if healed.try_spend(clock::now() - self.born) {
                        break Some(format!("the engine is started anew, to put damaged data aside: {told}"));
                    }
                    tracing::error!(told, "the engine's data are damaged, and starting it anew did not help");
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Some(end) = child.as_ref().and_then(EngineChild::try_wait) {
                return Some(format!("the engine ended: {end}"));
            }
        };
        if let Some(child) = child {
            let within = self.config.now().telemetry.engine.stop_timeout;
            if !child.stop(within).await {
                tracing::warn!(after = ?within, "the engine did not end by itself and was killed");
            }
        }
        why
    }
}
