//! The telemetry writer: inserts rows and does not give up while the store is merely away.
//!
//! In: [`StoreRows`]. Out: inserts under the block's token. What may fail: rows the store can never take, which the
//! reply says (the sender isolates them); the store being down or overloaded, which is waited out as `Degraded`.

use std::sync::Arc;
use std::time::Duration;

use actix::AsyncContext;
use actix::fut::{ActorFutureExt, wrap_future};

use crate::backends::telemetry::client::TelemetryClient;
use crate::backends::telemetry::client::TelemetryError;
use crate::config::live::LiveConfig;
use crate::domain::failure::{Classified, FailureClass};
use crate::messages::store::StoreRows;
use crate::supervisors::kernel::backoff::Backoff;
use crate::supervisors::kernel::breaker::{Attempt, Gate};
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::lane::Lease;
use crate::supervisors::kernel::policy::{BackoffPolicy, BreakerPolicy};
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Consume, Seated, Worker};

/// Wait between two tries while the store is away.
const RETRY: BackoffPolicy = BackoffPolicy {
    min: Duration::from_millis(100),
    max: Duration::from_secs(5),
    factor: 2.0,
    jitter: 0.25,
    reset_after: Duration::from_secs(60),
};

/// Adapter actor of the telemetry store's writing side.
pub struct TelemetryWriter {
    client: Arc<TelemetryClient>,
    config: LiveConfig,
    gate: Gate,
    probe: Probe,
}

impl TelemetryWriter {
    /// A writer over `client`; one insert may take `telemetry.insert_timeout`. A store that is down by the rules of
    /// `breaker` is probed by one insert at a time.
    pub fn new(
        client: Arc<TelemetryClient>,
        config: LiveConfig,
        breaker: BreakerPolicy,
        probe: &Probe,
    ) -> Self {
        Self { client, config, gate: Gate::new(breaker, probe), probe: probe.clone() }
    }
}

impl Worker for TelemetryWriter {}

impl Consume<StoreRows> for TelemetryWriter {
    fn consume(&mut self, lease: Lease<StoreRows>, ctx: &mut Seated<Self>) {
        chaos::point("writer.before");
        let insert = Insert {
            client: self.client.clone(),
            config: self.config.clone(),
            gate: self.gate.clone(),
            probe: self.probe.clone(),
            lease,
        };
        ctx.spawn(wrap_future(insert.run()).map(|(), _, _: &mut Seated<Self>| ()));
    }
}

struct Insert {
    client: Arc<TelemetryClient>,
    config: LiveConfig,
    gate: Gate,
    probe: Probe,
    lease: Lease<StoreRows>,
}

impl Insert {
    /// Tries until the rows are stored or refused for good. At a drain request with the store away it lets go: the
    /// rows stay in the log.
    async fn run(self) {
        let mut backoff = Backoff::default();
        let mut last = None;
        loop {
            let waits = self.lease.wait();
            let attempt = tokio::select! {
                biased;
                attempt = self.gate.enter() => attempt,
                () = self.unwanted() => return self.let_go(last),
            };
            chaos::pause("writer.insert").await;
            if !self.lease.is_current() {
                // A successor has these rows by now; what a zombie writes would come on top of what it does.
                return self.lease.fenced();
            }
            let tried = self.once(attempt).await;
            drop(waits);
            let Some(error) = tried else {
                self.lease.ack();
                return;
            };
            last = Some(error);
            let wait = backoff.next(&RETRY, Duration::ZERO, rand::random());
            tokio::select! {
                biased;
                () = self.unwanted() => return self.let_go(last),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Resolves when nobody is served by further tries: the process drains, or whoever asked is gone; the rows are in the
    /// log and come again under the same token.
    async fn unwanted(&self) {
        tokio::select! {
            _ = self.probe.drained() => {}
            () = self.lease.reply.abandoned() => {}
        }
    }

    fn let_go(self, last: Option<TelemetryError>) {
        let away = || TelemetryError::Unreachable(String::from("it counts as down since earlier tries"));
        self.lease.reply.send(Err(last.unwrap_or_else(away)));
        self.lease.ack();
    }

    /// One try. `None` when the sender has its answer, the error when it is worth another try.
    async fn once(&self, attempt: Attempt) -> Option<TelemetryError> {
        let rows = &*self.lease;
        let batch = std::slice::from_ref(&rows.batch);
        let deadline = self.config.now().telemetry.insert_timeout;
        let result = self.client.insert(rows.table, batch, &rows.token, deadline).await;
        chaos::point("writer.after");
        match &result {
            Err(error) if waits(error) => {
                attempt.failed(error.class(), error.to_string());
                return result.err();
            }
            Ok(_) | Err(TelemetryError::Exception { .. }) => attempt.answered(),
            // It never came to the store.
            Err(_) => drop(attempt),
        }
        rows.reply.send(result.map(drop));
        None
    }
}

/// True for what time or an operator mends. A missing table or a wrong password is waited out as well: the rows are
/// safe in the log, and the tree says what is wrong.
fn waits(error: &TelemetryError) -> bool {
    matches!(error.class(), FailureClass::Dependency | FailureClass::Overload | FailureClass::Config)
}
