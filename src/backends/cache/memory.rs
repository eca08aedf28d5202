//! The embedded cache: the memory of this process, bounded in bytes.
//!
//! What may fail: a value that is larger than the whole cache. When it is full, what was used least recently goes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache as Moka;

use super::{Answer, Cache, PORT};
use crate::backends::fault::PortFault;
use crate::domain::failure::FailureClass;

/// Bytes an entry costs beside its key and value.
const ENTRY_COST: usize = 128;

/// A cache in memory. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryCache {
    entries: Moka<String, Entry>,
    max_bytes: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    value: Bytes,
    ttl: Duration,
}

/// Each entry lives as long as its writer said.
struct OwnTime;

impl Expiry<String, Entry> for OwnTime {
    fn expire_after_create(&self, _: &String, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.ttl)
    }

    fn expire_after_update(
        &self,
        _: &String,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.ttl)
    }
}

impl MemoryCache {
    /// A cache of at most `max_bytes`.
    pub fn new(max_bytes: u64) -> Self {
        let entries = Moka::builder()
            .max_capacity(max_bytes)
            .weigher(|key: &String, entry: &Entry| {
                u32::try_from(weight(key, &entry.value)).unwrap_or(u32::MAX)
            })
            // A new value must not be turned away because an old one is popular.
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(OwnTime)
            .build();
        Self { entries, max_bytes }
    }
}

fn weight(key: &str, value: &Bytes) -> usize {
    key.len() + value.len() + ENTRY_COST
}

impl Cache for MemoryCache {
    fn get(&self, key: &str) -> Answer<Option<Bytes>> {
        let value = self.entries.get(key).map(|entry| entry.value);
        Box::pin(async move { Ok(value) })
    }

    fn put(&self, key: &str, value: Bytes, ttl: Duration) -> Answer<()> {
        let bytes = weight(key, &value);
        if bytes as u64 > self.max_bytes {
            let what = format!(
                "a value of {bytes} bytes is over the cache's {} bytes (store.cache.max_bytes)",
                self.max_bytes
            );
            return Box::pin(async { Err(PortFault::new(PORT, FailureClass::Poison, what)) });
        }
        self.entries.insert(key.to_owned(), Entry { value, ttl });
        Box::pin(async { Ok(()) })
    }

    fn remove(&self, key: &str) -> Answer<()> {
        self.entries.invalidate(key);
        Box::pin(async { Ok(()) })
    }
}
