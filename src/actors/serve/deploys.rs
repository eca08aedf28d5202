//! Deploy markers of the API: what a tenant tells or asks in, one call of the state adapter out.
//!
//! What may fail: the state store being away or full, which whoever asks is told with a time to come back; a tenant that tells
//! more than fits into a day.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::http::DeployPort;
use super::turnstile::Turnstile;
use crate::backends::fault::PortFault;
use crate::clock;
use crate::config::live::LiveConfig;
use crate::domain::deploy::{Deploy, DeployQuery};
use crate::domain::failure::FailureClass;
use crate::domain::query::QueryError;
use crate::domain::scope::Scope;
use crate::domain::usage::Day;
use crate::messages::store::StateCall;
use crate::supervisors::kernel::port::{Port, PortError};

/// Markers that one tenant may tell of one process in a UTC day.
const MOST_A_DAY: u32 = 10_000;
/// What is told to come back where the store is away.
const COME_BACK: Duration = Duration::from_secs(1);
/// The same where a day is full: tomorrow, and not more often than this until then.
const NOT_TODAY: Duration = Duration::from_secs(600);

/// Asks the state adapter for markers, each tenant through a turnstile as its queries pass one.
pub struct Markers {
    state: Port<StateCall>,
    turnstile: Turnstile,
    config: LiveConfig,
    told: Mutex<(Day, HashMap<Arc<str>, u32>)>,
}

impl Markers {
    /// Markers in the store behind `state`.
    pub fn new(state: Port<StateCall>, config: LiveConfig) -> Self {
        Self { state, turnstile: Turnstile::default(), config, told: Mutex::new((Day(0), HashMap::new())) }
    }

    /// Counts one marker of a tenant.
    fn count(&self, tenant: &Arc<str>) -> Result<(), QueryError> {
        let today = Day::of_nanos(clock::unix_nanos());
        let mut told = self.told.lock();
        if told.0 != today {
            *told = (today, HashMap::new());
        }
        let count = told.1.entry(tenant.clone()).or_default();
        if *count >= MOST_A_DAY {
            let what =
                format!("tenant {tenant} has told {MOST_A_DAY} deploy markers today, which is all that fit");
            return Err(QueryError::OverQuota { what, retry_after: NOT_TODAY });
        }
        *count += 1;
        Ok(())
    }

    /// Asks the adapter for one thing in the tenant's turn.
    fn ask<T: Send + 'static>(
        &self,
        tenant: Arc<str>,
        deadline: Duration,
        make: impl FnOnce(crate::messages::store::StateReply<T>) -> StateCall + Send + 'static,
    ) -> BoxFuture<'static, Result<T, QueryError>> {
        let (state, turnstile) = (self.state.clone(), self.turnstile.clone());
        let bound = self.config.now().serve.queries_per_tenant as usize;
        Box::pin(async move {
            let ends = clock::now() + deadline;
            let _pass = turnstile.enter(&tenant, bound, deadline).await?;
            let asked = state.ask(make, ends.saturating_duration_since(clock::now())).await;
            answered(asked)
        })
    }
}

impl DeployPort for Markers {
    fn tell(
        &self,
        scope: Scope,
        deploy: Deploy,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<bool, QueryError>> {
        if let Err(over) = self.count(&scope.tenant) {
            return Box::pin(std::future::ready(Err(over)));
        }
        let tenant = scope.tenant.clone();
        self.ask(scope.tenant, deadline, move |reply| StateCall::PutDeploy(tenant, deploy, reply))
    }

    fn list(
        &self,
        scope: Scope,
        query: DeployQuery,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Vec<Deploy>, QueryError>> {
        let tenant = scope.tenant.clone();
        self.ask(scope.tenant, deadline, move |reply| StateCall::ReadDeploys(tenant, query, reply))
    }
}

fn answered<T>(asked: Result<Result<T, PortFault>, PortError>) -> Result<T, QueryError> {
    let away = |reason: String| QueryError::StateAway { reason, retry_after: COME_BACK };
    match asked {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(fault)) if fault.class == FailureClass::Bug => Err(QueryError::Internal(fault.to_string())),
        // What an operator has to mend is named in the tree and the log, not to tenants.
        Ok(Err(fault)) if fault.class == FailureClass::Config => {
            Err(away("an operator has to look at store.state".to_owned()))
        }
        Ok(Err(fault)) => Err(away(fault.what)),
        Err(error) => Err(away(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::supervisors::kernel::lane::Lane;
    use crate::supervisors::kernel::policy::Policy;

    fn markers() -> Markers {
        let lane = Lane::new("store.state", Policy::default().lane);
        Markers::new(lane.port(), Config::default().into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_away_and_worth_another_try() {
        let scope = Scope::new("acme", "p", "", "").unwrap();
        let query = DeployQuery { service: None, from_ms: 0, until_ms: 1, after: None, most: 1 };
        let error = markers().list(scope, query, Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(error, QueryError::StateAway { .. }), "{error:?}");
        let fault = |class| Ok::<Result<(), _>, _>(Err(PortFault::new("state", class, "at /secret/place")));
        let error = answered(fault(FailureClass::Config)).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(matches!(answered(fault(FailureClass::Bug)), Err(QueryError::Internal(_))));
    }

    #[test]
    fn a_tenant_fills_its_own_day_only() {
        let (markers, noisy, quiet): (_, Arc<str>, Arc<str>) = (markers(), "noisy".into(), "quiet".into());
        for _ in 0..MOST_A_DAY {
            markers.count(&noisy).unwrap();
        }
        let over = markers.count(&noisy).unwrap_err();
        assert!(over.to_string().contains("10000 deploy markers today"), "{over}");
        markers.count(&quiet).unwrap();
        markers.told.lock().0 = Day(1);
        markers.count(&noisy).expect("another day");
    }
}
