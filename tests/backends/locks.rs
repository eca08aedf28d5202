//! The contract of the lock port, as functions over any implementation, and its run against memory and Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use obtrace::backends::locks::memory::MemoryLocks;
use obtrace::backends::locks::redis::RedisLocks;
use obtrace::backends::locks::{Held, Locks};

use crate::{redis, services};

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(60);

type Keeper = Arc<dyn Locks>;

pub async fn one_holds_a_name_until_it_lets_go(locks: Keeper) {
    let held = locks.acquire("a", LONG).await.unwrap().expect("nobody holds it");
    assert_eq!(locks.acquire("a", LONG).await.unwrap(), None);
    assert!(locks.acquire("b", LONG).await.unwrap().is_some(), "another name is another lock");
    assert!(locks.renew(&held, LONG).await.unwrap());
    assert!(locks.release(&held).await.unwrap());
    assert!(!locks.release(&held).await.unwrap(), "it is gone");
    assert!(!locks.renew(&held, LONG).await.unwrap());
    let next = locks.acquire("a", LONG).await.unwrap().expect("free again");
    assert!(next.token > held.token, "{next:?} after {held:?}");
}

pub async fn a_lock_ends_with_its_time_and_its_holder_cannot_act_on_the_next(locks: Keeper) {
    let slept = locks.acquire("a", SHORT).await.unwrap().expect("free");
    let next = async {
        loop {
            if let Some(held) = locks.acquire("a", LONG).await.unwrap() {
                return held;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let next = tokio::time::timeout(Duration::from_secs(20), next).await.expect("its time is over");
    assert!(next.token > slept.token);
    assert!(!locks.renew(&slept, LONG).await.unwrap(), "who slept too long is fenced");
    assert!(!locks.release(&slept).await.unwrap());
    assert_eq!(locks.acquire("a", LONG).await.unwrap(), None, "and has let nobody in");
    assert!(locks.renew(&next, LONG).await.unwrap());
}

pub async fn renewing_holds_it_past_its_first_time(locks: Keeper) {
    let held = locks.acquire("a", Duration::from_millis(400)).await.unwrap().expect("free");
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(locks.renew(&held, Duration::from_millis(400)).await.unwrap());
        assert_eq!(locks.acquire("a", LONG).await.unwrap(), None);
    }
}

pub async fn of_many_one_is_inside_and_tokens_only_rise(locks: Keeper) {
    let (inside, last, rounds) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
    let workers = (0..6).map(|_| {
        let (locks, inside, last, rounds) = (locks.clone(), inside.clone(), last.clone(), rounds.clone());
        tokio::spawn(async move {
            while rounds.load(Ordering::SeqCst) < 60 {
                let Some(held) = locks.acquire("a", LONG).await.unwrap() else {
                    tokio::task::yield_now().await;
                    continue;
                };
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "somebody else is inside");
                assert!(last.swap(held.token, Ordering::SeqCst) < held.token);
                tokio::task::yield_now().await;
                rounds.fetch_add(1, Ordering::SeqCst);
                inside.fetch_sub(1, Ordering::SeqCst);
                assert!(locks.release(&held).await.unwrap());
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
}

/// Every case against memory and against Redis.
macro_rules! contract {
    ($($case:ident),+ $(,)?) => {
        mod memory_keeps_the_contract { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(std::sync::Arc::new(super::MemoryLocks::default())).await;
            }
        )+ }
        mod redis_keeps_the_contract { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let link = super::redis::link(&super::services::redis());
                super::$case(std::sync::Arc::new(super::RedisLocks::new(link))).await;
            }
        )+ }
    };
}

contract!(
    one_holds_a_name_until_it_lets_go,
    a_lock_ends_with_its_time_and_its_holder_cannot_act_on_the_next,
    renewing_holds_it_past_its_first_time,
    of_many_one_is_inside_and_tokens_only_rise,
);

#[tokio::test]
async fn a_redis_that_lost_its_data_gives_no_token_twice() {
    let link = redis::link(&services::redis());
    let locks = RedisLocks::new(link.clone());
    let before: Held = locks.acquire("a", LONG).await.unwrap().expect("free");
    let keys = [link.key("lock", "a"), link.key("fence", "a")];
    let wiped = link.run("test", async |redis| {
        deadpool_redis::redis::cmd("DEL").arg(&keys).query_async::<u32>(redis).await
    });
    assert_eq!(wiped.await.unwrap(), 2);
    let after = locks.acquire("a", LONG).await.unwrap().expect("free, and nobody knows of the other");
    assert!(after.token > before.token, "{after:?} after {before:?}");
    assert!(!locks.renew(&before, LONG).await.unwrap());
}
