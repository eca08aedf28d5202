//! The keeper of rates in Redis: one script, run as a whole, by the clock of Redis.

use std::sync::LazyLock;
use std::time::Duration;

use deadpool_redis::redis::Script;
use futures_util::future::BoxFuture;

use super::{LeaseAsk, Leases, PORT};
use crate::backends::fault::PortFault;
use crate::backends::redis::RedisLink;
use crate::domain::rate::{Grant, Wanted};

/// KEYS: when the next permit is due (microseconds); the nodes by when they last asked. ARGV: permits a second, permits
/// wanted, the node, permits it took by itself. Returns permits, microseconds to wait, nodes. The rule is that of
/// `domain::rate::Gcra`. When it is due is kept for an hour: after an outage the nodes tell what they took since.
const SCRIPT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local rate, want = tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('ZADD', KEYS[2], now, ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 60000000)
redis.call('PEXPIRE', KEYS[2], 60000)
local nodes = redis.call('ZCARD', KEYS[2])
local step = 1000000 / rate
local due = tonumber(redis.call('GET', KEYS[1]) or '0') + tonumber(ARGV[4]) * step
due = math.min(math.max(due, now), now + 2000000)
local ahead = due - now
local permits = math.max(0, math.min(want, math.floor((1000000 - ahead) / step + 0.000001)))
redis.call('SET', KEYS[1], string.format('%.3f', due + permits * step), 'PX', 3600000)
if permits < 1 then return {0, math.max(1, math.ceil(ahead + step - 1000000)), nodes} end
return {permits, 0, nodes}
";

static LEASE: LazyLock<Script> = LazyLock::new(|| Script::new(SCRIPT));

/// Rates in Redis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RedisLeases {
    link: RedisLink,
}

impl RedisLeases {
    /// Rates over `link`.
    pub fn new(link: RedisLink) -> Self {
        Self { link }
    }
}

impl Leases for RedisLeases {
    fn lease(&self, ask: LeaseAsk) -> BoxFuture<'static, Result<Grant, PortFault>> {
        let link = self.link.clone();
        let keys = [link.key("rate", &ask.tenant), link.key("nodes", "rate")];
        self.link.remote(PORT).run(async move {
            let mut call = LEASE.prepare_invoke();
            call.key(&keys[0]).key(&keys[1]);
            let Wanted { permits, spent } = ask.wanted;
            call.arg(ask.per_second.max(1)).arg(permits).arg(&*ask.node).arg(spent);
            let (permits, wait_us, nodes): (u32, u64, u32) =
                link.run(PORT, async |redis| call.invoke_async(redis).await).await?;
            Ok(Grant { permits, nodes, retry_after: Duration::from_micros(wait_us) })
        })
    }
}
