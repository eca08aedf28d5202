//! The contract of the cache port, as functions over any implementation, and its run against the one in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use obtrace::backends::cache::Cache;
use obtrace::backends::cache::memory::MemoryCache;
use obtrace::domain::failure::FailureClass;

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

#[tokio::test]
async fn memory_keeps_the_contract() {
    a_value_is_there_until_it_is_replaced_or_removed(Arc::new(MemoryCache::new(1 << 20))).await;
    each_value_has_a_time_of_its_own(Arc::new(MemoryCache::new(1 << 20))).await;
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
