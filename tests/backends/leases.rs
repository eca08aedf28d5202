//! The contract of the lease port, as functions over any implementation, and its run against memory and Redis; and nodes
//! that share a rate through a Redis that goes away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use obtrace::backends::leases::memory::MemoryLeases;
use obtrace::backends::leases::redis::RedisLeases;
use obtrace::backends::leases::{LeaseAsk, Leases};
use obtrace::backends::redis::RedisSettings;
use obtrace::clock;
use obtrace::domain::rate::{LeasedRate, Rate, Take, Wanted};

use crate::proxy::{Mode, Proxy};
use crate::{redis, services};

type Keeper = Arc<dyn Leases>;

fn ask(tenant: &str, per_second: u32, want: u32) -> LeaseAsk {
    let wanted = Wanted { permits: want, spent: 0 };
    LeaseAsk { tenant: tenant.into(), per_second, wanted, node: "n1".into() }
}

pub async fn a_seconds_worth_is_given_at_once_and_then_the_rate(keeper: Keeper) {
    let begun = Instant::now();
    let mut given = 0;
    for want in [30, 30, 30, 30] {
        given += keeper.lease(ask("a", 100, want)).await.unwrap().permits;
    }
    let most = 100 + begun.elapsed().as_millis() as u32 / 10 + 1;
    assert!((100..=most).contains(&given), "{given} of {most}");
    // What is missing is only what came by the rate meanwhile.
    let refused = loop {
        let grant = keeper.lease(ask("a", 100, 1)).await.unwrap();
        if grant.permits == 0 {
            break grant;
        }
        given += 1;
        assert!(given < 10_000, "it never ends");
    };
    assert!(
        refused.retry_after <= Duration::from_millis(11) && !refused.retry_after.is_zero(),
        "{refused:?}"
    );
    tokio::time::sleep(refused.retry_after + Duration::from_millis(2)).await;
    assert_eq!(keeper.lease(ask("a", 100, 1)).await.unwrap().permits, 1, "it kept its word");
}

pub async fn tenants_have_rates_of_their_own(keeper: Keeper) {
    assert_eq!(keeper.lease(ask("a", 5, 9)).await.unwrap().permits, 5);
    assert_eq!(keeper.lease(ask("b", 7, 9)).await.unwrap().permits, 7);
    assert_eq!(keeper.lease(ask("a", 5, 9)).await.unwrap().permits, 0);
}

pub async fn many_who_ask_at_once_get_no_more_than_there_is(keeper: Keeper) {
    let begun = Instant::now();
    let asks = (0..40).map(|n| {
        let keeper = keeper.clone();
        let ask = LeaseAsk { node: format!("n{}", n % 4).into(), ..ask("a", 200, 20) };
        tokio::spawn(async move { keeper.lease(ask).await.unwrap().permits })
    });
    let mut given = 0;
    for ask in asks.collect::<Vec<_>>() {
        given += ask.await.unwrap();
    }
    let most = 200 + begun.elapsed().as_millis() as u32 / 5 + 1;
    assert!((200..=most).contains(&given), "{given} of {most}");
}

pub async fn a_rate_that_changes_holds_from_then_on(keeper: Keeper) {
    assert_eq!(keeper.lease(ask("a", 1, 9)).await.unwrap().permits, 1);
    assert_eq!(keeper.lease(ask("a", 1, 9)).await.unwrap().permits, 0);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(keeper.lease(ask("a", 1000, 50)).await.unwrap().permits > 0, "a larger plan is felt at once");
}

pub async fn what_a_node_took_by_itself_counts(keeper: Keeper) {
    let told = |permits, spent| LeaseAsk { wanted: Wanted { permits, spent }, ..ask("a", 100, 0) };
    assert_eq!(keeper.lease(told(10, 0)).await.unwrap().permits, 10);
    let grant = keeper.lease(told(0, 60)).await.unwrap();
    assert_eq!(grant.permits, 0, "it only told");
    let begun = Instant::now();
    let left = keeper.lease(told(100, 0)).await.unwrap().permits;
    assert!(
        (30..=31 + begun.elapsed().as_millis() as u32 / 10 + 10).contains(&left),
        "{left} of 100 - 10 - 60"
    );
    keeper.lease(told(0, u32::MAX)).await.unwrap();
    let wait = keeper.lease(told(1, 0)).await.unwrap().retry_after;
    let second = Duration::from_secs(1);
    assert!(wait > second / 2 && wait <= second * 101 / 100, "a debt is made up for, for a second: {wait:?}");
}

/// Every case against memory and against Redis.
macro_rules! contract {
    ($($case:ident),+ $(,)?) => {
        mod memory_keeps_the_contract { $(
            #[tokio::test]
            async fn $case() {
                super::$case(std::sync::Arc::new(super::MemoryLeases::default())).await;
            }
        )+ }
        mod redis_keeps_the_contract { $(
            #[tokio::test]
            async fn $case() {
                let link = super::redis::link(&super::services::redis());
                super::$case(std::sync::Arc::new(super::RedisLeases::new(link))).await;
            }
        )+ }
    };
}

contract!(
    a_seconds_worth_is_given_at_once_and_then_the_rate,
    tenants_have_rates_of_their_own,
    many_who_ask_at_once_get_no_more_than_there_is,
    a_rate_that_changes_holds_from_then_on,
    what_a_node_took_by_itself_counts,
);

#[tokio::test]
async fn redis_says_how_many_nodes_asked() {
    let keeper = RedisLeases::new(redis::link(&services::redis()));
    for (node, nodes) in [("n1", 1), ("n2", 2), ("n1", 2), ("n3", 3)] {
        let ask = LeaseAsk { node: node.into(), ..ask("a", 100, 1) };
        assert_eq!(keeper.lease(ask).await.unwrap().nodes, nodes);
    }
}

/// One node of several, as the gate does it.
struct Node {
    id: Arc<str>,
    rate: LeasedRate,
    keeper: RedisLeases,
    nodes: u32,
}

const RATE: Rate = Rate { per_second: 200, term: Duration::from_millis(100) };

impl Node {
    async fn asks(&mut self, wanted: Wanted) {
        let ask = LeaseAsk { tenant: "a".into(), per_second: 200, wanted, node: self.id.clone() };
        match self.keeper.lease(ask).await {
            Ok(grant) => {
                self.nodes = grant.nodes;
                self.rate.granted(&RATE, wanted, &grant, clock::unix_nanos());
            }
            Err(_) => self.rate.unanswered(clock::unix_nanos()),
        }
    }

    async fn request(&mut self) -> bool {
        for _ in 0..4 {
            match self.rate.take(&RATE, clock::unix_nanos()) {
                Take::Admitted => return true,
                Take::Refused(_) => return false,
                Take::AdmittedLow(want) => {
                    self.asks(want).await;
                    return true;
                }
                Take::Ask(want) => self.asks(want).await,
                Take::Alone => match self.rate.may_ask(&RATE, clock::unix_nanos()) {
                    Some(want) => self.asks(want).await,
                    None => return self.rate.take_alone(&RATE, self.nodes, clock::unix_nanos()).is_ok(),
                },
            }
        }
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_away_three_nodes_overshoot_by_at_most_a_lease_each() {
    let url = services::redis();
    let proxy = Proxy::start(url.trim_start_matches("redis://"));
    let limit = Duration::from_millis(20);
    let settings = RedisSettings { timeout: limit, ..redis::settings(&proxy.in_front_of(&url)) };
    let mut nodes: Vec<Node> = ["n1", "n2", "n3"]
        .map(|id| {
            let keeper = RedisLeases::new(redis::link_of(&settings));
            Node { id: id.into(), rate: LeasedRate::default(), keeper, nodes: 1 }
        })
        .into();
    let begun = Instant::now();
    let (mut admitted, mut during) = (0_u32, [0_u32; 2]);
    // Twice the rate on each node: there, away without a word, back.
    for (mode, seconds) in [(Mode::Pass, 2), (Mode::HalfOpen, 4), (Mode::Pass, 2)] {
        proxy.set(mode);
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            for node in &mut nodes {
                let is_in = u32::from(node.request().await);
                admitted += is_in;
                during[usize::from(mode == Mode::HalfOpen)] += is_in;
            }
            tokio::time::sleep(Duration::from_micros(2500)).await;
        }
    }
    let rate = (begun.elapsed().as_secs_f64() * 200.0) as u32;
    let (burst, leases) = (200, 3 * RATE.most());
    assert!(admitted <= rate + burst + leases, "{admitted} in, {rate} by the rate, {leases} in leases");
    assert!(during[1] >= 4 * 200 * 8 / 10, "the rate goes on while Redis is away: {during:?}");
    println!(
        "in: {admitted}, by the rate: {rate}, allowed over it: {} ; away: {}",
        burst + leases,
        during[1]
    );
}
