//! The contract of the cache port, as functions over any implementation, and its run against memory and Redis.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use obtrace::backends::cache::Cache;
use obtrace::backends::cache::memory::MemoryCache;
use obtrace::backends::cache::redis::RedisCache;
use obtrace::backends::redis::RedisSettings;
use obtrace::domain::failure::FailureClass;

use crate::proxy::{Mode, Proxy};
use crate::{redis, services};

const LONG: Duration = Duration::from_secs(600);

pub async fn a_value_is_there_until_it_is_replaced_or_removed(cache: Arc<dyn Cache>) {
    assert_eq!(cache.get("k").await.unwrap(), None);
    cache.put("k", Bytes::from_static(b"1"), LONG).await.unwrap();
    assert_eq!(cache.get("k").await.unwrap(), Some(Bytes::from_static(b"1")));
    cache.put("k", Bytes::from_static(b"2"), LONG).await.unwrap();
    assert_eq!(cache.get("k").await.unwrap(), Some(Bytes::from_static(b"2")));
    cache.remove("k").await.unwrap();
    cache.remove("k").await.unwrap();
    assert_eq!(cache.get("k").await.unwrap(), None);
}

pub async fn each_value_has_a_time_of_its_own(cache: Arc<dyn Cache>) {
    cache.put("long", Bytes::from_static(b"l"), LONG).await.unwrap();
    cache.put("short", Bytes::from_static(b"s"), Duration::from_millis(50)).await.unwrap();
    let gone = async {
        while cache.get("short").await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("its time is over");
    assert!(cache.get("long").await.unwrap().is_some());
    cache.put("short", Bytes::from_static(b"again"), LONG).await.unwrap();
    assert!(cache.get("short").await.unwrap().is_some(), "a new value has a new time");
}

pub async fn any_bytes_are_a_value_and_tenants_are_kept_apart_by_their_keys(cache: Arc<dyn Cache>) {
    let bytes: Bytes = (0..=255_u8).cycle().take(10_000).collect();
    cache.put("gate/a", bytes.clone(), LONG).await.unwrap();
    cache.put("gate/a b*", Bytes::new(), LONG).await.unwrap();
    assert_eq!(cache.get("gate/a").await.unwrap(), Some(bytes));
    assert_eq!(cache.get("gate/a b*").await.unwrap(), Some(Bytes::new()), "nothing is a value too");
    assert_eq!(cache.get("gate/").await.unwrap(), None);
    cache.remove("gate/*").await.unwrap();
    assert!(cache.get("gate/a").await.unwrap().is_some(), "a key is no pattern");
}

/// Every case against memory and against Redis.
macro_rules! contract {
    ($($case:ident),+ $(,)?) => {
        mod memory_keeps_the_contract { $(
            #[tokio::test]
            async fn $case() {
                super::$case(std::sync::Arc::new(super::MemoryCache::new(1 << 20))).await;
            }
        )+ }
        mod redis_keeps_the_contract { $(
            #[tokio::test]
            async fn $case() {
                let link = super::redis::link(&super::services::redis());
                super::$case(std::sync::Arc::new(super::RedisCache::new(link, 1 << 20))).await;
            }
        )+ }
    };
}

contract!(
    a_value_is_there_until_it_is_replaced_or_removed,
    each_value_has_a_time_of_its_own,
    any_bytes_are_a_value_and_tenants_are_kept_apart_by_their_keys,
);

#[tokio::test]
async fn redis_refuses_what_is_too_large_and_keeps_nothing_for_good() {
    let url = services::redis();
    let settings = redis::settings(&url);
    let cache = RedisCache::new(redis::link_of(&settings), 1000);
    let fault = cache.put("k", Bytes::from(vec![0; 1001]), LONG).await.unwrap_err();
    assert_eq!(fault.class, FailureClass::Poison, "{fault}");
    cache.put("k", Bytes::from(vec![0; 1000]), Duration::MAX).await.unwrap();
    cache.put("z", Bytes::new(), Duration::ZERO).await.unwrap();
    let raw = redis::link_of(&settings);
    let key = raw.key("cache", "k");
    let ttl = raw.run("test", async |redis| {
        deadpool_redis::redis::cmd("PTTL").arg(&key).query_async::<i64>(redis).await
    });
    assert!(ttl.await.unwrap() > 0, "even the longest time is one");
    let other = RedisCache::new(redis::link(&url), 1000);
    assert_eq!(other.get("k").await.unwrap(), None, "another prefix is another cache");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_away_is_a_dependency_that_is_down_within_the_deadline() {
    let url = services::redis();
    let proxy = Proxy::start(url.trim_start_matches("redis://"));
    let limit = Duration::from_millis(300);
    let settings =
        RedisSettings { connect_timeout: limit, timeout: limit, ..redis::settings(&proxy.in_front_of(&url)) };
    let cache = RedisCache::new(redis::link_of(&settings), 1000);
    proxy.set(Mode::Reset);
    let fault = cache.get("k").await.unwrap_err();
    assert_eq!(fault.class, FailureClass::Dependency, "down from the start: {fault}");
    for mode in [Mode::HalfOpen, Mode::Latency(Duration::from_secs(1)), Mode::Reset] {
        proxy.set(Mode::Pass);
        let back = async { while cache.put("k", Bytes::from_static(b"v"), LONG).await.is_err() {} };
        tokio::time::timeout(Duration::from_secs(20), back).await.expect("it is back");
        proxy.set(mode);
        for _ in 0..6 {
            let begun = std::time::Instant::now();
            let fault = cache.get("k").await.unwrap_err();
            assert_eq!(fault.class, FailureClass::Dependency, "{mode:?}: {fault}");
            assert!(begun.elapsed() < limit * 4, "{mode:?}: {:?}", begun.elapsed());
        }
    }
    proxy.set(Mode::Pass);
    // An answer that came late was not taken for that of the next call.
    cache.put("k", Bytes::from_static(b"new"), LONG).await.unwrap();
    assert_eq!(cache.get("k").await.unwrap(), Some(Bytes::from_static(b"new")));
}

/// One connection to Redis behind a proxy.
fn one_connection() -> (Proxy, RedisCache) {
    let url = services::redis();
    let proxy = Proxy::start(url.trim_start_matches("redis://"));
    let (connect_timeout, timeout) = (Duration::from_millis(400), Duration::from_millis(500));
    let through = redis::settings(&proxy.in_front_of(&url));
    let settings = RedisSettings { pool: 1, connect_timeout, timeout, ..through };
    let cache = RedisCache::new(redis::link_of(&settings), 1000);
    (proxy, cache)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_call_was_given_up_is_not_used_again() {
    let (proxy, cache) = one_connection();
    cache.put("k", Bytes::from_static(b"old"), LONG).await.unwrap();
    cache.put("k", Bytes::from_static(b"v"), LONG).await.unwrap();
    assert_eq!(proxy.accepted(), 1, "what was answered is used again");
    // The look at the connection before a call takes half of this, the call the other half and more.
    proxy.set(Mode::Latency(Duration::from_millis(150)));
    let fault = cache.get("k").await.unwrap_err();
    assert_eq!(fault.class, FailureClass::Dependency, "{fault}");
    proxy.set(Mode::Pass);
    assert_eq!(cache.get("k").await.unwrap(), Some(Bytes::from_static(b"v")));
    assert_eq!(proxy.accepted(), 2, "its answer may still come");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gets_no_connection_of_the_pool_hears_that_it_is_used_up() {
    let (proxy, cache) = one_connection();
    cache.put("k", Bytes::from_static(b"v"), LONG).await.unwrap();
    proxy.set(Mode::HalfOpen);
    let first = tokio::spawn(cache.get("k"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let fault = cache.get("k").await.unwrap_err();
    assert_eq!(fault.class, FailureClass::Overload, "{fault}");
    assert!(fault.what.contains("store.cache.pool"), "{fault}");
    first.await.unwrap().expect_err("nothing came");
}

#[tokio::test]
async fn redis_by_tls_takes_the_right_authority_and_no_other() {
    let url = services::shared("redis", "OBTRACE_TEST_REDIS_TLS");
    let ca = services::shared("redis", "OBTRACE_TEST_REDIS_CA");
    let with = |ca: Option<&str>| {
        let settings = RedisSettings { ca: ca.map(Into::into), ..redis::settings(&url) };
        RedisCache::new(redis::link_of(&settings), 1000)
    };
    with(Some(&ca)).put("k", Bytes::new(), LONG).await.expect("the authority is known");
    assert!(with(None).put("k", Bytes::new(), LONG).await.is_err());
}

#[tokio::test]
async fn a_wrong_password_or_url_is_for_the_operator() {
    let url = services::redis();
    let fault = |url: &str| {
        let settings = redis::settings(url);
        let link = obtrace::backends::redis::RedisLink::new(&settings, tokio::runtime::Handle::current());
        async move {
            match link {
                Ok(link) => RedisCache::new(link, 1000).get("k").await.unwrap_err(),
                Err(fault) => fault,
            }
        }
    };
    for url in [url.replace("redis://", "redis://nobody:secret-word@"), "nonsense".into(), String::new()] {
        let fault = fault(&url).await;
        assert_eq!(fault.class, FailureClass::Config, "{url}: {fault}");
        assert!(!fault.what.contains("secret-word"), "{fault}");
    }
}

#[tokio::test]
async fn memory_is_bounded_and_the_newest_value_is_kept() {
    let cache = MemoryCache::new(64 << 10);
    let value = Bytes::from(vec![0_u8; 1000]);
    for n in 0..1000 {
        cache.put(&format!("k{n}"), value.clone(), LONG).await.unwrap();
    }
    let settled = async {
        loop {
            let mut kept = 0;
            for n in 0..1000 {
                kept += usize::from(cache.get(&format!("k{n}")).await.unwrap().is_some());
            }
            if kept <= 64 {
                return kept;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), settled).await.expect("it shrinks") > 0);
    cache.put("last", value, LONG).await.unwrap();
    assert!(cache.get("last").await.unwrap().is_some());
    let fault = cache.put("huge", Bytes::from(vec![0; 100 << 10]), LONG).await.unwrap_err();
    assert_eq!(fault.class, FailureClass::Poison, "{fault}");
}
