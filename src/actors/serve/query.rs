//! The query handler: runs queries against the telemetry store, a bounded number at a time.
//!
//! In: [`RunQuery`]. Out: the answer. What may fail: the query itself, the store being away, the deadline; a query whose
//! client has gone is dropped.

use std::sync::Arc;

use actix::AsyncContext;
use actix::fut::wrap_future;

use crate::backends::telemetry::read::{QueryLimits, SqlRunner, execute};
use crate::clock;
use crate::config::live::LiveConfig;
use crate::domain::plan::Plan;
use crate::domain::query::QueryError;
use crate::domain::scope::OWN_TENANT;
use crate::messages::serve::RunQuery;
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::lane::Lease;
use crate::supervisors::kernel::seat::{Consume, Seated, Worker};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::own::spans::{self, TRACES};

/// Actor that runs queries; its lane's credits bound how many run at a time.
pub struct QueryHandler {
    runner: Arc<dyn SqlRunner>,
    config: LiveConfig,
    metrics: Metrics,
}

impl QueryHandler {
    /// A handler over `runner`; `serve.query.*` bounds each statement.
    pub fn new(runner: Arc<dyn SqlRunner>, config: LiveConfig, metrics: Metrics) -> Self {
        Self { runner, config, metrics }
    }

    /// What a query may cost: by the configuration, and by the plan of who asks.
    fn limits(&self, plan: Option<Plan>) -> QueryLimits {
        let config = self.config.now();
        let query = &config.serve.query;
        let limits = QueryLimits {
            max_rows_to_read: query.max_rows_to_read,
            max_memory_bytes: query.max_memory.as_u64(),
            max_result_bytes: query.max_answer.as_u64(),
            ..QueryLimits::default()
        };
        match plan {
            Some(plan) => limits.within(plan),
            None => limits,
        }
    }
}

impl Worker for QueryHandler {}

impl Consume<RunQuery> for QueryHandler {
    fn consume(&mut self, lease: Lease<RunQuery>, ctx: &mut Seated<Self>) {
        chaos::point("query.before");
        let (runner, metrics) = (self.runner.clone(), self.metrics.clone());
        let limits = self.limits(lease.plan.clone());
        ctx.spawn(wrap_future(async move {
            let _wait = lease.wait();
            let now = clock::unix_nanos();
            let time = limits.plan_time().map_or(lease.deadline, |time| time.min(lease.deadline));
            let run = execute(&*runner, &lease.scope, lease.request.clone(), now, time, limits.clone());
            let outcome = tokio::select! {
                outcome = tokio::time::timeout(time, run) => {
                    match outcome.unwrap_or(Err(QueryError::Timeout)) {
                        Err(QueryError::Timeout) if time < lease.deadline => Err(limits.out_of_time()),
                        outcome => outcome,
                    }
                }
                () = lease.reply.abandoned() => {
                    metrics.queried("abandoned");
                    lease.ack();
                    return;
                }
            };
            metrics.queried(if outcome.is_ok() { "answered" } else { "failed" });
            // Of questions about its own telemetry Obtrace tells nothing: nothing grows by being looked at.
            if *lease.scope.tenant != *OWN_TENANT {
                let error = outcome.as_ref().err().map(QueryError::to_string);
                let what = lease.request.name();
                TRACES.put(|| spans::query(what, now, clock::unix_nanos(), error.as_deref()));
            }
            lease.reply.send(outcome);
            lease.ack();
        }));
    }
}
