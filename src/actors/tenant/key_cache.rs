//! The key cache: which API keys there are, when they end and when they were last used, every 30 s.
//!
//! In: the key table, the uses this process saw, those of all processes in the state store. Out: last uses into the
//! state store, the list of each tenant's keys into the cache, a warning for each key that ends within a week. What may
//! fail: the ports; uses are kept until they are written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{ActorContext, AsyncContext};
use arc_swap::ArcSwap;

use crate::backends::state::KeyUse;
use crate::clock;
use crate::config::live::LiveConfig;
use crate::domain::auth::{KeyLog, KeyTable};
use crate::domain::gate::KeyAnswer;
use crate::messages::store::{CacheCall, StateCall, settled};
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::port::Port;
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Seat, Seated, Worker};

/// Longest wait for one answer of a port.
const ASK: Duration = Duration::from_secs(10);
/// How long before its end a key is warned of.
const WARN_S: u64 = 7 * 86_400;

/// What the key cache works with.
#[derive(Clone)]
pub struct KeyCacheDeps {
    /// All keys.
    pub keys: Arc<ArcSwap<KeyTable>>,
    /// Uses that this process saw.
    pub log: KeyLog,
    /// The state adapter.
    pub state: Port<StateCall>,
    /// The cache adapter.
    pub cache: Port<CacheCall>,
    /// How often it looks (`tenant.gate.every`), read each time.
    pub config: LiveConfig,
}

/// Actor that keeps the books on keys.
pub struct KeyCache {
    deps: KeyCacheDeps,
}

impl KeyCache {
    /// A key cache.
    pub fn new(deps: KeyCacheDeps) -> Self {
        Self { deps }
    }
}

impl Worker for KeyCache {
    fn started(&mut self, probe: &Probe, ctx: &mut Seated<Self>) {
        probe.ready();
        let (deps, probe) = (self.deps.clone(), probe.clone());
        ctx.spawn(wrap_future(async move {
            let mut warned = HashSet::new();
            loop {
                chaos::point("key_cache.before");
                match round(&deps).await {
                    Ok(()) => probe.recovered(),
                    Err(why) => probe.degraded(why),
                }
                warn(&deps, &mut warned);
                probe.progress();
                tokio::time::sleep(deps.config.now().tenant.gate.every).await;
            }
        }));
    }

    /// Writes the last uses once more.
    fn drain(&mut self, _probe: &Probe, _reads_lane: bool, ctx: &mut Seated<Self>) {
        let deps = self.deps.clone();
        let last = wrap_future::<_, Seat<Self>>(async move { flush(&deps).await });
        ctx.spawn(last.map(|_, _, ctx| ctx.stop()));
    }
}

async fn flush(deps: &KeyCacheDeps) -> Result<(), String> {
    let uses: Vec<KeyUse> =
        deps.log.all().into_iter().map(|(name, last_used_s)| KeyUse { name, last_used_s }).collect();
    if uses.is_empty() {
        return Ok(());
    }
    settled(deps.state.ask(|reply| StateCall::TouchKeys(uses, reply), ASK).await)
}

async fn round(deps: &KeyCacheDeps) -> Result<(), String> {
    flush(deps).await?;
    let uses = settled(deps.state.ask(StateCall::ReadKeyUses, ASK).await)?;
    let last: HashMap<Arc<str>, u64> = uses.into_iter().map(|used| (used.name, used.last_used_s)).collect();
    for (tenant, keys) in by_tenant(&deps.keys.load(), &last) {
        let value = serde_json::to_vec(&keys).map_err(|error| error.to_string())?;
        let put = |reply| {
            CacheCall::Put(
                super::gate::keys_of(&tenant),
                value.into(),
                deps.config.now().tenant.gate.stale_after * 10,
                reply,
            )
        };
        settled(deps.cache.ask(put, ASK).await)?;
    }
    Ok(())
}

fn by_tenant(table: &KeyTable, last: &HashMap<Arc<str>, u64>) -> BTreeMap<Arc<str>, Vec<KeyAnswer>> {
    let mut tenants: BTreeMap<Arc<str>, Vec<KeyAnswer>> = BTreeMap::new();
    for grant in table.grants() {
        let Some(name) = &grant.key else { continue };
        tenants.entry(grant.scope.tenant.clone()).or_default().push(KeyAnswer {
            name: name.to_string(),
            expires_at: grant.expires_at,
            last_used_at: last.get(name).copied(),
        });
    }
    tenants.values_mut().for_each(|keys| keys.sort_by(|a, b| a.name.cmp(&b.name)));
    tenants
}

/// Says once of each key that it is about to end.
fn warn(deps: &KeyCacheDeps, warned: &mut HashSet<Arc<str>>) {
    let now_s = clock::unix_nanos() / 1_000_000_000;
    for grant in deps.keys.load().grants() {
        let (Some(name), Some(ends)) = (&grant.key, grant.expires_at) else { continue };
        if ends <= now_s + WARN_S && warned.insert(name.clone()) {
            let left_h = ends.saturating_sub(now_s) / 3600;
            tracing::warn!(key = &**name, left_h, "an API key ends soon or has ended: make a new one");
        }
    }
}
