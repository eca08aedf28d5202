//! What the adapters of state, blobs and cache share: a deadline and a breaker for each call, `Degraded` while the
//! backend is away.

use std::time::Duration;

use actix::AsyncContext;
use actix::fut::wrap_future;
use futures_util::future::BoxFuture;

use crate::backends::fault::PortFault;
use crate::domain::failure::FailureClass;
use crate::supervisors::kernel::breaker::Gate;
use crate::supervisors::kernel::policy::BreakerPolicy;
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Seated, Worker};

/// Runs the calls of one adapter. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard {
    port: &'static str,
    deadline: Duration,
    breaker: Gate,
    probe: Probe,
}

impl Guard {
    /// Gives each call of `port` this `deadline` and tells `probe` how the backend does.
    pub fn new(port: &'static str, deadline: Duration, breaker: BreakerPolicy, probe: &Probe) -> Self {
        Self { port, deadline, breaker: Gate::new(breaker, probe), probe: probe.clone() }
    }

    /// Runs one call within the deadline. While the breaker is open, calls fail at once and only its probe gets through.
    ///
    /// # Errors
    /// The fault of the backend, or a `Dependency` one when it counts as down or did not answer in time: whether a write
    /// took effect is then unknown.
    pub async fn call<T>(&self, call: BoxFuture<'static, Result<T, PortFault>>) -> Result<T, PortFault> {
        let away = |what: String| PortFault::new(self.port, FailureClass::Dependency, what);
        let Some(attempt) = self.breaker.try_enter() else {
            return Err(away("it is down and asked again in a moment".to_owned()));
        };
        let result = tokio::time::timeout(self.deadline, call)
            .await
            .unwrap_or_else(|_| Err(away(format!("no answer within {:?}", self.deadline))));
        match &result {
            Err(fault) if matches!(fault.class, FailureClass::Dependency | FailureClass::Config) => {
                attempt.failed(fault.class, fault.to_string());
            }
            // It answered; a call that it refused is the caller's affair.
            Ok(_) | Err(_) => attempt.answered(),
        }
        result
    }
}

/// Makes an adapter ready at once (Obtrace starts with every backend down) and has it check its backend now and then.
pub fn check_from_now_on<W: Worker>(
    guard: &Guard,
    every: Duration,
    ctx: &mut Seated<W>,
    check: impl Fn() -> BoxFuture<'static, Result<(), PortFault>> + 'static,
) {
    guard.probe.ready();
    let guard = guard.clone();
    ctx.spawn(wrap_future(async move {
        loop {
            // What it finds is in the tree: `call` reports it.
            guard.call(check()).await.ok();
            guard.probe.progress();
            tokio::time::sleep(every).await;
        }
    }));
}
