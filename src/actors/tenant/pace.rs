//! How the edge holds a tenant to its requests a second, together with the other edges.
//!
//! In: a request of a tenant. Out: let in, or the wait. Permits come by lease from the cache ([`LeasedRate`] decides), asked
//! for in the background before they run out; a request waits for them only where there are none, and never longer than
//! the gate's deadline. What may fail: the cache. Then this edge goes on with its share, and is back when the cache is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backends::leases::LeaseAsk;
use crate::clock;
use crate::domain::rate::{LeasedRate, Rate, Take, Wanted};
use crate::messages::store::CacheCall;
use crate::supervisors::kernel::port::Port;
use crate::telemetry::metrics::Metrics;

/// Longest wait for a lease by whoever asks in the background.
const LEASE_WITHIN: Duration = Duration::from_secs(1);
/// Looks at a rate before a request is let in or not without another answer.
const LOOKS: u32 = 4;

/// Gets permits for all tenants of this edge. Cheap to clone.
#[derive(Clone)]
pub struct Pacer {
    cache: Port<CacheCall>,
    node: Arc<str>,
    metrics: Metrics,
    /// Edges that share the cache, as of the last answer.
    nodes: Arc<AtomicU32>,
    /// Times of rates count from here, by a clock that nobody sets.
    begun: Instant,
}

/// One tenant's rate at this edge.
#[derive(Default)]
pub struct Pace {
    rate: Arc<LeasedRate>,
    asking: Arc<Asking>,
}

/// Whether somebody asks for permits.
struct Asking {
    since: Mutex<Option<Instant>>,
    /// How many asks have ended.
    ended: watch::Sender<u64>,
}

impl Default for Asking {
    fn default() -> Self {
        Self { since: Mutex::new(None), ended: watch::Sender::new(0) }
    }
}

/// Ends an ask, however it ends.
struct Asks(Arc<Asking>);

impl Drop for Asks {
    fn drop(&mut self) {
        *self.0.since.lock() = None;
        self.0.ended.send_modify(|ended| *ended += 1);
    }
}

impl Pacer {
    /// A pacer of the edge `node`.
    pub fn new(cache: Port<CacheCall>, node: Arc<str>, metrics: Metrics) -> Self {
        Self { cache, node, metrics, nodes: Arc::new(AtomicU32::new(1)), begun: clock::now() }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from((clock::now() - self.begun).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// The wait until there is room.
    pub async fn pass(
        &self,
        tenant: &Arc<str>,
        pace: &Pace,
        rate: Rate,
        deadline: Duration,
    ) -> Result<(), Duration> {
        for _ in 0..LOOKS {
            match pace.rate.take(&rate, self.now_ns()) {
                Take::Admitted => return Ok(()),
                Take::AdmittedLow(wanted) => {
                    self.ask(tenant, pace, rate, wanted);
                    return Ok(());
                }
                Take::Refused(wait) => return Err(wait),
                Take::Ask(wanted) => {
                    let mut ended = pace.asking.ended.subscribe();
                    let since = self.ask(tenant, pace, rate, wanted);
                    let left = (since + deadline).saturating_duration_since(clock::now());
                    if left.is_zero() || tokio::time::timeout(left, ended.changed()).await.is_err() {
                        break;
                    }
                }
                Take::Alone => {
                    if let Some(wanted) = pace.rate.may_ask(&rate, self.now_ns()) {
                        self.ask(tenant, pace, rate, wanted);
                    }
                    break;
                }
            }
        }
        self.metrics.gate_paced_alone();
        pace.rate.take_alone(&rate, self.nodes.load(Ordering::Relaxed), self.now_ns())
    }

    /// Asks in the background, unless somebody does so already; since when.
    fn ask(&self, tenant: &Arc<str>, pace: &Pace, rate: Rate, wanted: Wanted) -> Instant {
        let mut since = pace.asking.since.lock();
        if let Some(since) = *since {
            return since;
        }
        let now = clock::now();
        *since = Some(now);
        let asks = Asks(pace.asking.clone());
        let (this, held) = (self.clone(), pace.rate.clone());
        let ask =
            LeaseAsk { tenant: tenant.clone(), per_second: rate.per_second, wanted, node: self.node.clone() };
        tokio::spawn(async move {
            let _asks = asks;
            let answer = this.cache.ask(|reply| CacheCall::Lease(ask, reply), LEASE_WITHIN).await;
            let now_ns = this.now_ns();
            match answer {
                Ok(Ok(grant)) => {
                    this.nodes.store(grant.nodes, Ordering::Relaxed);
                    held.granted(&rate, wanted, &grant, now_ns);
                }
                Ok(Err(_)) | Err(_) => held.unanswered(now_ns),
            }
        });
        now
    }
}
