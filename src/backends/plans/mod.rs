//! The plan port: which tenant has which plan.
//!
//! In: nothing. Out: every tenant that is known, with its plan. What may fail: [`PortFault`]. Until there is a control
//! plane, the configuration is the only source.

use futures_util::future::BoxFuture;

use super::fault::PortFault;
use crate::config::live::LiveConfig;
use crate::domain::plan::TenantPlan;

/// Knows every tenant's plan.
pub trait PlanSource: Send + Sync + 'static {
    /// All tenants, one entry each.
    fn plans(&self) -> BoxFuture<'static, Result<Vec<TenantPlan>, PortFault>>;
}

/// The plans of the configuration, as they are at each look.
#[derive(Debug, Clone)]
pub struct ConfiguredPlans(pub LiveConfig);

impl PlanSource for ConfiguredPlans {
    fn plans(&self) -> BoxFuture<'static, Result<Vec<TenantPlan>, PortFault>> {
        let config = self.0.now();
        let plans = config.tenant.tenant_plans(config.ingest.dev_loopback);
        Box::pin(async { Ok(plans) })
    }
}
