//! Locks in Redis: a key that expires and holds the token; a second key that never expires holds the last token.
//!
//! The token is the larger of the last one and the clock of Redis, and one more: it goes up even where Redis has lost its
//! data. One server is trusted to be one: a failover to a replica that lags may let two hold at once, which is why
//! whoever is acted upon compares tokens.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use deadpool_redis::redis::Script;

use super::{Answer, Held, Locks, PORT};
use crate::backends::redis::RedisLink;

/// KEYS: lock, last token. ARGV: milliseconds. Returns the token, or 0 where somebody holds it.
const ACQUIRE: &str = r"
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local time = redis.call('TIME')
local token = math.max(tonumber(redis.call('GET', KEYS[2]) or '0'), time[1] * 1000000 + time[2]) + 1
local text = string.format('%.0f', token)
redis.call('SET', KEYS[2], text)
redis.call('SET', KEYS[1], text, 'PX', ARGV[1])
return token
";

/// KEYS: lock. ARGV: token, milliseconds or 0 to let it go. Returns 1 where the token held it.
const CHANGE: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then redis.call('DEL', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
";

static ACQUIRE_SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(ACQUIRE));
static CHANGE_SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CHANGE));

/// Locks in Redis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RedisLocks {
    link: RedisLink,
}

impl RedisLocks {
    /// Locks over `link`.
    pub fn new(link: RedisLink) -> Self {
        Self { link }
    }

    fn change(&self, held: &Held, millis: u64) -> Answer<bool> {
        let (link, key, token) = (self.link.clone(), self.link.key("lock", &held.name), held.token);
        self.link.remote(PORT).run(async move {
            let mut call = CHANGE_SCRIPT.prepare_invoke();
            call.key(&key).arg(token).arg(millis);
            link.run(PORT, async |redis| call.invoke_async(redis).await).await
        })
    }
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Locks for RedisLocks {
    fn acquire(&self, name: &str, ttl: Duration) -> Answer<Option<Held>> {
        let (link, name): (_, Arc<str>) = (self.link.clone(), name.into());
        let keys = [link.key("lock", &name), link.key("fence", &name)];
        self.link.remote(PORT).run(async move {
            let mut call = ACQUIRE_SCRIPT.prepare_invoke();
            call.key(&keys[0]).key(&keys[1]).arg(millis(ttl));
            let token: u64 = link.run(PORT, async |redis| call.invoke_async(redis).await).await?;
            Ok((token > 0).then_some(Held { name, token }))
        })
    }

    fn renew(&self, held: &Held, ttl: Duration) -> Answer<bool> {
        self.change(held, millis(ttl))
    }

    fn release(&self, held: &Held) -> Answer<bool> {
        self.change(held, 0)
    }
}
