//! The edge's side of the gate: asks the cache at most once a second a tenant, waits 5 ms for it, and lets in when in doubt.
//!
//! In: a tenant and a signal. Out: yes, or a retryable refusal with its reason. What may fail: nothing that would keep
//! data out. A projection that is missing, stale or does not come in time is counted and lets the request in, within the
//! requests a second that were last known. Those are shared with the other edges by leases (`pace`). A request waits for
//! the cache only where nothing is known yet; else somebody asks in the background. What comes too late for the request that
//! asked is there for the next one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::clock;
use crate::config::live::LiveConfig;
use crate::domain::gate::{GateAnswer, GateSnapshot, KeyAnswer, Limited};
use crate::domain::plan::Plan;
use crate::domain::rate::Rate;
use crate::domain::refusal::Refusal;
use crate::domain::signal::Signal;
use crate::domain::usage::{Day, Meter, Usage};
use crate::messages::store::CacheCall;
use crate::messages::tenant::TenantGate;
use crate::supervisors::kernel::port::{Port, PortError};
use crate::telemetry::metrics::Metrics;

use super::pace::{Pace, Pacer};

/// How often the cache is asked for a tenant.
const REFRESH: Duration = Duration::from_secs(1);
/// What was known this long ago is worth waiting for anew, unless the cache is away.
const OLD: Duration = Duration::from_secs(5);

/// Longest that an answer is worth having; a request goes on without it long before (`tenant.gate.deadline`).
const ASK_WITHIN: Duration = Duration::from_secs(1);

/// Cache key of a tenant's projection.
pub fn key_of(tenant: &str) -> String {
    format!("gate/{tenant}")
}

/// Cache key of the list of a tenant's API keys.
pub fn keys_of(tenant: &str) -> String {
    format!("keys/{tenant}")
}

/// What the gate works with.
#[derive(Clone)]
pub struct GateDeps {
    /// The cache adapter.
    pub cache: Port<CacheCall>,
    /// What this process counted.
    pub meter: Meter,
    /// Counts requests that were let in because nothing was known.
    pub metrics: Metrics,
    /// Id of this process among the edges.
    pub node: Arc<str>,
    /// Longest wait for the cache and greatest age of a projection (`tenant.gate`), read each time.
    pub config: LiveConfig,
}

/// The gate as listeners and sessions ask it.
pub struct CachedGate {
    deps: GateDeps,
    seats: RwLock<HashMap<Arc<str>, Arc<Seat>>>,
    pacer: Pacer,
}

/// What is remembered of one tenant.
#[derive(Default)]
struct Seat {
    known: Mutex<Known>,
    refreshing: AtomicBool,
    pace: Pace,
}

#[derive(Default, Clone)]
struct Known {
    asked_at: Option<Instant>,
    snapshot: Option<Arc<GateSnapshot>>,
    /// What this process had counted when it first saw the snapshot: later counts come on top.
    own_then: Usage,
    /// Why the last ask gave no snapshot; empty where it did.
    missing: &'static str,
}

impl Known {
    /// Whether a request should wait for a newer answer.
    fn is_worth_a_wait(&self) -> bool {
        self.asked_at.is_none_or(|at| self.missing.is_empty() && clock::now() >= at + OLD)
    }
}

/// Lets the next one ask when this one is done.
struct Refreshing(Arc<Seat>);

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.0.refreshing.store(false, Ordering::Release);
    }
}

impl CachedGate {
    /// A gate that knows nobody yet.
    pub fn new(deps: GateDeps) -> Self {
        let pacer = Pacer::new(deps.cache.clone(), deps.node.clone(), deps.metrics.clone());
        Self { deps, seats: RwLock::default(), pacer }
    }

    fn seat(&self, tenant: &Arc<str>) -> Arc<Seat> {
        if let Some(seat) = self.seats.read().get(tenant) {
            return seat.clone();
        }
        // Only tenants that a key leads to come here: their number is that of the configuration.
        self.seats.write().entry(tenant.clone()).or_default().clone()
    }

    /// What is known of the tenant, asked anew where it is due and nobody else does so already.
    async fn known(&self, tenant: &Arc<str>, seat: &Arc<Seat>) -> Known {
        let held = seat.known.lock().clone();
        let waits = held.is_worth_a_wait();
        if held.asked_at.is_some_and(|at| clock::now() < at + REFRESH) {
            return held;
        }
        if seat.refreshing.swap(true, Ordering::AcqRel) && held.asked_at.is_some() {
            return held;
        }
        // Lets the next one ask however this ends, or where it is dropped before it has begun.
        let refreshing = Refreshing(seat.clone());
        let (deps, tenant) = (self.deps.clone(), tenant.clone());
        // Outlives the request: a cache that is slower than a request may wait would else never be heard.
        let asking = tokio::spawn(async move {
            let Refreshing(asked) = &refreshing;
            let held = asked.known.lock().clone();
            let fresh = deps.ask(&tenant, held).await;
            *asked.known.lock() = fresh.clone();
            fresh
        });
        if !waits {
            return held;
        }
        let deadline = self.deps.config.now().tenant.gate.deadline;
        if let Ok(Ok(fresh)) = tokio::time::timeout(deadline, asking).await {
            return fresh;
        }
        let mut known = seat.known.lock();
        if known.asked_at.is_none() {
            // Who comes next does not wait for it as well.
            (known.asked_at, known.missing) = (Some(clock::now()), "slow");
        }
        known.clone()
    }

    /// The snapshot if it may be relied on, else why not.
    fn fresh(&self, known: &Known, now_s: u64) -> Result<Arc<GateSnapshot>, &'static str> {
        let Some(snapshot) = &known.snapshot else { return Err(known.missing) };
        let age = Duration::from_secs(now_s.saturating_sub(snapshot.projected_at_s));
        if age > self.deps.config.now().tenant.gate.stale_after { Err("stale") } else { Ok(snapshot.clone()) }
    }

    /// What was used today: the projection's figure and what this process counted since.
    fn used(&self, tenant: &Arc<str>, known: &Known, today: Day) -> Usage {
        let own = self.deps.meter.usage(tenant, today);
        match &known.snapshot {
            Some(snapshot) if snapshot.day == today => {
                let then = known.own_then;
                let since = Usage {
                    spans: own.spans.saturating_sub(then.spans),
                    logs: own.logs.saturating_sub(then.logs),
                    points: own.points.saturating_sub(then.points),
                    bytes: own.bytes.saturating_sub(then.bytes),
                };
                snapshot.usage + since
            }
            _ => own,
        }
    }

    /// Holds the tenant to its requests a second, those that were last known too: an old rate is better than none.
    async fn paced(&self, tenant: &Arc<str>, seat: &Arc<Seat>, known: &GateSnapshot) -> Result<(), Refusal> {
        let gate = self.deps.config.now().tenant.gate.clone();
        let rate = Rate { per_second: known.limits.requests_per_second, term: gate.lease };
        let passed = self.pacer.pass(tenant, &seat.pace, rate, gate.deadline).await;
        passed.map_err(|retry_after| {
            let message = format!(
                "tenant {tenant} sends more than the {} requests a second of plan {}",
                rate.per_second, known.plan
            );
            Refusal::OverQuota { message, retry_after }
        })
    }

    async fn keys(&self, tenant: &Arc<str>) -> Vec<KeyAnswer> {
        let asked = self
            .deps
            .cache
            .ask(|reply| CacheCall::Get(keys_of(tenant), reply), self.deps.config.now().tenant.gate.deadline);
        let Ok(Ok(Some(bytes))) = asked.await else { return Vec::new() };
        serde_json::from_slice(&bytes).unwrap_or_default()
    }
}

impl GateDeps {
    async fn ask(&self, tenant: &Arc<str>, held: Known) -> Known {
        let asked = self.cache.ask(|reply| CacheCall::Get(key_of(tenant), reply), ASK_WITHIN);
        let found = match asked.await {
            Ok(Ok(Some(bytes))) => serde_json::from_slice::<GateSnapshot>(&bytes).map_err(|_| "broken"),
            Ok(Ok(None)) => Err("missing"),
            Ok(Err(_)) => Err("cache"),
            Err(PortError::Full | PortError::NoAnswer) => Err("slow"),
            Err(_) => Err("cache"),
        };
        let asked_at = Some(clock::now());
        match found {
            Ok(found) if held.snapshot.as_ref().is_some_and(|known| **known == found) => {
                Known { asked_at, missing: "", ..held }
            }
            Ok(found) => {
                let own_then = self.meter.usage(tenant, found.day);
                Known { asked_at, own_then, snapshot: Some(Arc::new(found)), missing: "" }
            }
            // What was known holds on until it is stale.
            Err(missing) => Known { asked_at, missing, ..held },
        }
    }
}

impl TenantGate for CachedGate {
    fn admit<'a>(&'a self, tenant: &'a Arc<str>, signal: Signal) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move {
            let seat = self.seat(tenant);
            let known = self.known(tenant, &seat).await;
            let now_ns = clock::unix_nanos();
            let now_s = now_ns / 1_000_000_000;
            match self.fresh(&known, now_s) {
                Ok(snapshot) => {
                    let used = self.used(tenant, &known, Day::of_nanos(now_ns));
                    let over =
                        |Limited { reason, retry_after }| Refusal::OverQuota { message: reason, retry_after };
                    snapshot.admits(signal, used, now_s).map_err(over)?;
                }
                Err(reason) => self.deps.metrics.gate_failed_open(reason),
            }
            match &known.snapshot {
                Some(snapshot) => self.paced(tenant, &seat, snapshot).await,
                None => Ok(()),
            }
        })
    }

    fn plan<'a>(&'a self, tenant: &'a Arc<str>) -> BoxFuture<'a, Option<Plan>> {
        Box::pin(async move {
            let known = self.known(tenant, &self.seat(tenant)).await;
            let fresh = self.fresh(&known, clock::unix_nanos() / 1_000_000_000);
            let plan = |snapshot: &GateSnapshot| Plan {
                name: Arc::from(snapshot.plan.as_str()),
                limits: snapshot.limits,
            };
            fresh.ok().map(|snapshot| plan(&snapshot))
        })
    }

    fn answer<'a>(&'a self, tenant: &'a Arc<str>) -> BoxFuture<'a, GateAnswer> {
        Box::pin(async move {
            let known = self.known(tenant, &self.seat(tenant)).await;
            let now_ns = clock::unix_nanos();
            let (now_s, today) = (now_ns / 1_000_000_000, Day::of_nanos(now_ns));
            let used = self.used(tenant, &known, today);
            match self.fresh(&known, now_s) {
                Ok(snapshot) => {
                    let snapshot = GateSnapshot { day: today, ..(*snapshot).clone() };
                    GateAnswer::of(&snapshot, used, now_s, self.keys(tenant).await)
                }
                Err(_) => GateAnswer::unknown(used, today),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::supervisors::kernel::lane::Lane;
    use crate::supervisors::kernel::policy::Policy;

    fn gate() -> CachedGate {
        CachedGate::new(GateDeps {
            cache: Lane::new("cache", Policy::default().lane).port(),
            meter: Meter::default(),
            metrics: Metrics::new(),
            node: "n".into(),
            config: Config::default().into(),
        })
    }

    #[test]
    fn an_ask_that_is_dropped_before_it_begins_lets_the_next_one_ask() {
        let (gate, tenant) = (gate(), Arc::<str>::from("t"));
        let seat = gate.seat(&tenant);
        let asked_at = clock::now().checked_sub(REFRESH * 2);
        *seat.known.lock() = Known { asked_at, missing: "slow", ..Known::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // It asks in the background, which ends with its runtime and has not been there.
        runtime.block_on(gate.known(&tenant, &seat));
        assert!(seat.refreshing.load(Ordering::Acquire), "it was to ask");
        drop(runtime);
        assert!(!seat.refreshing.load(Ordering::Acquire), "and the next one may");
    }
}
