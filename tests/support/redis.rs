//! A corner of a real Redis for one test: keys of its own that nobody else sees.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::time::Duration;

use obtrace::backends::redis::{RedisLink, RedisSettings};

/// Settings for a corner of the Redis at `url`.
pub fn settings(url: &str) -> RedisSettings {
    RedisSettings {
        url: url.to_owned(),
        prefix: format!("t-{}", uuid::Uuid::now_v7().simple()),
        pool: 4,
        connect_timeout: Duration::from_secs(10),
        timeout: Duration::from_secs(10),
        ca: None,
    }
}

/// A link to a corner of the Redis at `url`, on the runtime of the test.
pub fn link(url: &str) -> RedisLink {
    link_of(&settings(url))
}

/// A link by these settings, on the runtime of the test.
pub fn link_of(settings: &RedisSettings) -> RedisLink {
    RedisLink::new(settings, tokio::runtime::Handle::current()).expect("settings")
}
