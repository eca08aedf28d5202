//! Three stages joined by lanes, with a crash in the middle and a slow end: nothing is lost and nothing piles up.
//!
//! 1. `parse` turns text into numbers, `square` squares them, `sum` adds them up, slowly. Each reads a lane of its own.
//! 2. Stages know only the port of the next one: that they are in one process is nobody's business but the tree's.
//! 3. A stage acknowledges a message after the next stage has taken it. Until then the message is still its own.
//! 4. `square` panics once, at 50, before it passes it on. It is started again, the lease comes back, 50 is counted once.
//! 5. `sum` is slow and every lane holds 4 messages: its lane fills, then that of `square`, then that of `parse`, then
//!    the sender waits. That is back-pressure, and the fill is printed as it climbs up the pipeline.
//! 6. The tree starts top to bottom (consumers before producers) and drains in reverse, so the sum is whole at the end.
//!
//! Run it with `cargo run --example supervised_pipeline`. The panic that it prints is the point.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actix::AsyncContext;
use actix::fut::wrap_future;
use obtrace::supervisors::kernel::lane::{Cargo, Lane, LaneView, Lease};
use obtrace::supervisors::kernel::policy::{LanePolicy, Policy, Strategy};
use obtrace::supervisors::kernel::pools::Pools;
use obtrace::supervisors::kernel::port::Port;
use obtrace::supervisors::kernel::seat::{Consume, Seated, Worker};
use obtrace::supervisors::kernel::spec::ChildSpec;
use obtrace::supervisors::kernel::tree::Tree;

const PATIENCE: Duration = Duration::from_secs(30);

/// What travels: text at first, numbers later.
struct Item<T>(T);

impl<T: Send + Sync + 'static> Cargo for Item<T> {
    fn weight(&self) -> usize {
        size_of::<T>()
    }

    fn poisoned(&self, attempts: u32) {
        eprintln!("given up after {attempts} attempts");
    }
}

/// A stage that turns each item into another for the next one. The function belongs to it, the lanes do not.
struct Stage<A, B: Send + Sync + 'static> {
    turn: fn(&A) -> B,
    next: Port<Item<B>>,
}

impl<A: Unpin + 'static, B: Send + Sync + Unpin + 'static> Worker for Stage<A, B> {}

impl<A: Send + Sync + Unpin + 'static, B: Send + Sync + Unpin + 'static> Consume<Item<A>> for Stage<A, B> {
    fn consume(&mut self, lease: Lease<Item<A>>, ctx: &mut Seated<Self>) {
        let (item, next) = (Item((self.turn)(&lease.0)), self.next.clone());
        ctx.spawn(wrap_future(async move {
            next.send(item, PATIENCE).await.expect("the next stage takes it");
            lease.ack();
        }));
    }
}

/// The last stage.
struct Sum(Arc<AtomicU64>);

impl Worker for Sum {}

impl Consume<Item<u64>> for Sum {
    fn consume(&mut self, lease: Lease<Item<u64>>, ctx: &mut Seated<Self>) {
        let sum = self.0.clone();
        ctx.spawn(wrap_future(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            sum.fetch_add(lease.0, Ordering::Relaxed);
            lease.ack();
        }));
    }
}

#[allow(clippy::ptr_arg, reason = "a stage passes on what its lane holds")]
fn parse(text: &String) -> u64 {
    text.parse().expect("a number")
}

fn square(number: &u64) -> u64 {
    static CRASHED: AtomicBool = AtomicBool::new(false);
    assert!(*number != 50 || CRASHED.swap(true, Ordering::Relaxed), "the planted crash");
    number * number
}

fn main() {
    actix_rt::System::new().block_on(async {
        let lane = LanePolicy { capacity: 4, ..Policy::default().lane };
        let mut policy = Policy { lane, ..Policy::default() };
        policy.backoff.min = Duration::from_millis(50);
        let (texts, numbers, squares) =
            (Lane::new("parse", lane), Lane::new("square", lane), Lane::new("sum", lane));
        let total = Arc::new(AtomicU64::new(0));

        let (to_squares, to_numbers, counter) = (squares.port(), numbers.port(), total.clone());
        let sum =
            ChildSpec::worker("sum", policy.clone(), move |_| Sum(counter.clone())).reads(&squares).build();
        let squarer = ChildSpec::worker("square", policy.clone(), move |_| Stage {
            turn: square,
            next: to_squares.clone(),
        });
        let parser = ChildSpec::worker("parse", policy.clone(), move |_| Stage {
            turn: parse,
            next: to_numbers.clone(),
        });
        // The consumer of a lane comes before its producer.
        let stages = vec![sum, squarer.reads(&numbers).build(), parser.reads(&texts).build()];
        let policy = Policy { strategy: Strategy::OneForOne, ..policy };
        let mut tree = Tree::start(&ChildSpec::supervisor("pipeline", policy, stages), Pools::new([].into()));
        tree.ready().await.expect("the stages come up");

        let port = texts.port();
        for n in 1..=100_u64 {
            port.send(Item(n.to_string()), PATIENCE).await.expect("room in time");
            if n % 20 == 0 {
                let fill = |stats: obtrace::supervisors::kernel::lane::LaneStats| stats.queued + stats.leased;
                let fills = [fill(texts.stats()), fill(numbers.stats()), fill(squares.stats())];
                println!("sent {n}: parse {}/4, square {}/4, sum {}/4", fills[0], fills[1], fills[2]);
            }
        }
        let view = tree.view();
        let report = tree.stop(PATIENCE).await;
        assert!(report.forced.is_empty(), "{report:?}");
        let crashed = view.snapshot().root.find("square").map_or(0, |node| node.restarts);
        println!("restarts of square: {crashed}");
        println!("sum of squares: {} (338350 expected)", total.load(Ordering::Relaxed));
    });
}
