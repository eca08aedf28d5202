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
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::lane::Lease;
use crate::supervisors::kernel::policy::BackoffPolicy;
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
    probe: Probe,
}

impl TelemetryWriter {
    /// A writer over `client`; one insert may take `telemetry.insert_timeout`.
    pub fn new(client: Arc<TelemetryClient>, config: LiveConfig, probe: &Probe) -> Self {
        Self { client, config, probe: probe.clone() }
    }
}

impl Worker for TelemetryWriter {}

impl Consume<StoreRows> for TelemetryWriter {
    fn consume(&mut self, lease: Lease<StoreRows>, ctx: &mut Seated<Self>) {
        chaos::point("writer.before");
        let insert = Insert {
            client: self.client.clone(),
            config: self.config.clone(),
            probe: self.probe.clone(),
            lease,
        };
        ctx.spawn(wrap_future(insert.run()).map(|(), _, _: &mut Seated<Self>| ()));
    }
}

struct Insert {
    client: Arc<TelemetryClient>,
    config: LiveConfig,
    probe: Probe,
    lease: Lease<StoreRows>,
}

impl Insert {
    /// Tries until the rows are stored or refused for good. At a drain request with the store away it lets go: the
    /// rows stay in the log.
    async fn run(self) {
        let mut backoff = Backoff::default();
        loop {
            let Some(error) = self.once().await else {
                self.lease.ack();
                return;
            };
            self.probe.degraded(error.to_string());
            let wait = backoff.next(&RETRY, Duration::ZERO, rand::random());
            tokio::select! {
                biased;
                _ = self.probe.drained() => {
                    self.lease.reply.send(Err(error));
                    self.lease.ack();
                    return;
                }
                // Whoever asked is gone; the rows are in the log and come again under the same token.
                () = self.lease.reply.abandoned() => {
                    self.lease.ack();
                    return;
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One try. `None` when the sender has its answer, the error when it is worth another try.
    async fn once(&self) -> Option<TelemetryError> {
        let rows = &*self.lease;
        let batch = std::slice::from_ref(&rows.batch);
        let deadline = self.config.now().telemetry.insert_timeout;
        let result = self.client.insert(rows.table, batch, &rows.token, deadline).await;
        chaos::point("writer.after");
        match result {
            Err(error) if waits(&error) => return Some(error),
            other => {
                if other.is_ok() {
                    self.probe.recovered();
                }
                rows.reply.send(other.map(drop));
            }
        }
        None
    }
}

/// True for what time or an operator mends. A missing table or a wrong password is waited out as well: the rows are
/// safe in the log, and the tree says what is wrong.
fn waits(error: &TelemetryError) -> bool {
    matches!(error.class(), FailureClass::Dependency | FailureClass::Overload | FailureClass::Config)
}
