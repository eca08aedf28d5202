//! The smallest tree that does something: a worker that reads a lane, crashes once, and loses nothing by it.
//!
//! 1. `Squarer` is an actor; `Worker` is its life, `Consume` its work.
//! 2. The lane is the queue that it reads. It has bounds, and it belongs to the tree and not to the actor.
//! 3. A message is handed out as a lease. The first delivery panics, so the lease is never acknowledged.
//! 4. The supervisor catches the panic, waits its backoff and starts the actor again.
//! 5. The new incarnation gets the same lease, with one attempt on its count, and answers.
//! 6. The asker has waited at the port all the while and knows nothing of it; the snapshot shows one restart.
//!
//! Run it with `cargo run --example minimal_tree`.

use std::time::Duration;

use obtrace::supervisors::kernel::lane::{Cargo, Lane, Lease};
use obtrace::supervisors::kernel::policy::Policy;
use obtrace::supervisors::kernel::pools::Pools;
use obtrace::supervisors::kernel::port::Reply;
use obtrace::supervisors::kernel::seat::{Consume, Seated, Worker};
use obtrace::supervisors::kernel::spec::ChildSpec;
use obtrace::supervisors::kernel::tree::Tree;

/// What travels: a number to square, and the slot for the answer.
struct Square(u32, Reply<u32>);

impl Cargo for Square {
    fn weight(&self) -> usize {
        4
    }
    // Called when every delivery failed. Here the asker hears `PortError::Gone`, as the reply is dropped.
    fn poisoned(&self, _attempts: u32) {}
}

struct Squarer;

// The defaults will do: ready once started, stopped once its lane has run dry.
impl Worker for Squarer {}

impl Consume<Square> for Squarer {
    fn consume(&mut self, lease: Lease<Square>, _: &mut Seated<Self>) {
        assert!(lease.attempts() > 0, "the first delivery always crashes this worker");
        lease.1.send(lease.0 * lease.0);
        lease.ack();
    }
}

/// Starts the tree, asks one question across the crash, and stops.
pub fn main() {
    actix_rt::System::new().block_on(async {
        let policy = Policy::default();
        // The lane belongs to the tree, not to the worker: the port stays good while the worker restarts.
        let lane = Lane::new("squarer", policy.lane);
        let port = lane.port();
        let squarer = ChildSpec::worker("squarer", policy.clone(), |_probe| Squarer).reads(&lane).build();
        let mut tree =
            Tree::start(&ChildSpec::supervisor("root", policy, vec![squarer]), Pools::new([].into()));
        tree.ready().await.expect("the worker comes up");

        let answer = port.ask(|reply| Square(12, reply), Duration::from_secs(5)).await;
        assert_eq!(answer, Ok(144));
        println!("{}", serde_json::to_string_pretty(&tree.view().snapshot()).expect("a snapshot is JSON"));

        let report = tree.stop(Duration::from_secs(5)).await;
        assert!(report.forced.is_empty());
    });
}
