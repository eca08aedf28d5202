//! The cache in Redis: what one process projects, every edge sees.
//!
//! What may fail: Redis, and a value over the bound, which is refused before it is sent. Each value has a time of its own,
//! so that nothing is there for good.

use std::time::Duration;

use bytes::Bytes;
use deadpool_redis::redis::cmd;

use super::{Answer, Cache, PORT};
use crate::backends::fault::PortFault;
use crate::backends::redis::RedisLink;
use crate::domain::failure::FailureClass;

/// A cache in Redis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RedisCache {
    link: RedisLink,
    max_value: usize,
}

impl RedisCache {
    /// A cache over `link` that takes values of up to `max_value` bytes.
    pub fn new(link: RedisLink, max_value: usize) -> Self {
        Self { link, max_value }
    }
}

impl Cache for RedisCache {
    fn get(&self, key: &str) -> Answer<Option<Bytes>> {
        let (link, key) = (self.link.clone(), self.link.key(PORT, key));
        self.link.remote(PORT).run(async move {
            let found: Option<Vec<u8>> =
                link.run(PORT, async |redis| cmd("GET").arg(&key).query_async(redis).await).await?;
            Ok(found.map(Bytes::from))
        })
    }

    fn put(&self, key: &str, value: Bytes, ttl: Duration) -> Answer<()> {
        if value.len() > self.max_value {
            let what =
                format!("a value of {} bytes is over the bound of {} bytes", value.len(), self.max_value);
            return Box::pin(async { Err(PortFault::new(PORT, FailureClass::Poison, what)) });
        }
        let (link, key) = (self.link.clone(), self.link.key(PORT, key));
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, MOST_TTL_MS);
        self.link.remote(PORT).run(async move {
            let put = cmd("SET").arg(&key).arg(&*value).arg("PX").arg(millis).to_owned();
            link.run(PORT, async |redis| put.query_async(redis).await).await
        })
    }

    fn remove(&self, key: &str) -> Answer<()> {
        let (link, key) = (self.link.clone(), self.link.key(PORT, key));
        self.link.remote(PORT).run(async move {
            link.run(PORT, async |redis| cmd("UNLINK").arg(&key).query_async(redis).await).await
        })
    }
}

/// A hundred years; Redis refuses times that overflow its clock.
const MOST_TTL_MS: u64 = 100 * 365 * 86_400_000;
