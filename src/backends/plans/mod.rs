//! The plan port: which tenant has which plan.
//!
//! In: nothing. Out: every tenant that is known, with its plan. What may fail: [`PortFault`]. Until there is a control
//! plane, the configuration is the only source.

use futures_util::future::BoxFuture;

use super::fault::PortFault;
use crate::domain::plan::TenantPlan;

/// Knows every tenant's plan.
pub trait PlanSource: Send + Sync + 'static {
    /// All tenants, one entry each.
    fn plans(&self) -> BoxFuture<'static, Result<Vec<TenantPlan>, PortFault>>;
}

/// Plans that do not change while the process runs: those of the configuration.
#[derive(Debug, Clone)]
pub struct FixedPlans(pub Vec<TenantPlan>);

impl PlanSource for FixedPlans {
    fn plans(&self) -> BoxFuture<'static, Result<Vec<TenantPlan>, PortFault>> {
        let plans = self.0.clone();
        Box::pin(async { Ok(plans) })
    }
}
