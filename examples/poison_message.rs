//! A message that kills its worker each time it is delivered, and what becomes of it.
//!
//! 1. Five orders wait in the lane of a cook; order 3 makes any cook panic.
//! 2. The panic ends the cook, not the process. The lane belongs to the supervisor, so the other orders are still there.
//! 3. The lease of order 3 was never acknowledged: it comes back to its old place with one attempt more.
//! 4. The supervisor starts another cook, who meets the same order. After `max_attempts` deliveries it is not handed
//!    out again but takes the poison path: `Cargo::poisoned` tells whoever waits for it.
//! 5. Everybody else gets what he ordered. Obtrace's workers put such records into the dead letters in that place.
//!
//! Run it with `cargo run --example poison_message`. The panics that it prints are the point.

use std::time::Duration;

use obtrace::supervisors::kernel::lane::{Cargo, Lane, LaneView, Lease};
use obtrace::supervisors::kernel::policy::{LanePolicy, Policy};
use obtrace::supervisors::kernel::pools::Pools;
use obtrace::supervisors::kernel::port::Reply;
use obtrace::supervisors::kernel::seat::{Consume, Seated, Worker};
use obtrace::supervisors::kernel::spec::ChildSpec;
use obtrace::supervisors::kernel::tree::Tree;

/// What travels: the number of an order, and the slot for what becomes of it.
struct Order(u32, Reply<String>);

impl Cargo for Order {
    fn weight(&self) -> usize {
        16
    }

    // Every delivery ended with a crash. This is the place of a dead letter.
    fn poisoned(&self, attempts: u32) {
        self.1.send(format!("put aside after {attempts} attempts"));
    }
}

struct Cook;

impl Worker for Cook {}

impl Consume<Order> for Cook {
    fn consume(&mut self, order: Lease<Order>, _: &mut Seated<Self>) {
        assert_ne!(order.0, 3, "nobody can cook order 3");
        order.1.send(format!("served, attempt {}", order.attempts() + 1));
        order.ack();
    }
}

fn main() {
    actix_rt::System::new().block_on(async {
        let lane = LanePolicy { max_attempts: 2, ..Policy::default().lane };
        let mut policy = Policy { lane, ..Policy::default() };
        policy.backoff.min = Duration::from_millis(10);
        let lane = Lane::new("kitchen.cook", policy.lane);
        let port = lane.port();
        let cook = ChildSpec::worker("cook", policy.clone(), |_probe| Cook).reads(&lane).build();
        let mut tree =
            Tree::start(&ChildSpec::supervisor("kitchen", policy, vec![cook]), Pools::new([].into()));
        tree.ready().await.expect("the cook comes up");

        let orders = (1..=5).map(|n| port.ask(move |reply| Order(n, reply), Duration::from_secs(20)));
        for (n, answer) in (1..).zip(futures_util::future::join_all(orders).await) {
            println!("order {n}: {}", answer.unwrap_or_else(|error| error.to_string()));
        }
        let stats = lane.stats();
        println!("lane: {} acknowledged, {} poisoned, {} left", stats.acked, stats.poisoned, stats.queued);
        let report = tree.stop(Duration::from_secs(5)).await;
        assert!(report.forced.is_empty());
    });
}
