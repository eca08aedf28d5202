//! What supervision costs: one hop through a lane beside a bare actix mailbox, a tokio channel and a kameo mailbox, and
//! a tree of 10,000 supervised actors.
//!
//! `cargo bench --bench supervision` measures the hops; `cargo bench --bench supervision -- crowd` the tree. All sides
//! run on one thread, so that a hop is its own work and no wake-up of another core; all have room for 1,024 messages.

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "a benchmark reads clocks and sends to bare mailboxes"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler, Message, System};
use criterion::{BenchmarkId, Criterion};
use kameo::mailbox;
use kameo::prelude::Spawn;
use obtrace::supervisors::kernel::child_ref::ChildRef;
use obtrace::supervisors::kernel::lane::{Cargo, Lane, Lease};
use obtrace::supervisors::kernel::policy::{BackoffPolicy, LanePolicy, Policy, StartPolicy};
use obtrace::supervisors::kernel::pools::{INLINE, Pools};
use obtrace::supervisors::kernel::seat::{Consume, Handle, Seated, Worker};
use obtrace::supervisors::kernel::spec::{ChildSpec, Group};
use obtrace::supervisors::kernel::tree::Tree;
use tokio::sync::{mpsc, oneshot};

/// Room of every queue measured here, in messages.
const ROOM: usize = 1024;
/// Records of a batch: what Obtrace sends between its actors.
const BATCH: usize = 512;
/// Members that come and go one by one beside the crowd.
const GUESTS: u32 = 500;
/// Actors of the large tree.
const CROWD: usize = 10_000;

/// What travels: some records. A single message is a batch of one.
#[derive(Clone)]
struct Hop(Arc<Vec<u64>>);

impl Hop {
    /// What a receiver does with it.
    fn work(&self) -> u64 {
        self.0.iter().fold(0, |sum, record| sum.wrapping_add(*record))
    }
}

/// Counts what arrives, and says when all of it has.
struct Tally {
    left: u64,
    done: Option<oneshot::Sender<()>>,
}

impl Tally {
    fn of(messages: u64) -> (Self, oneshot::Receiver<()>) {
        let (done, all) = oneshot::channel();
        (Self { left: messages, done: Some(done) }, all)
    }

    fn arrived(&mut self, hop: &Hop) {
        black_box(hop.work());
        self.left -= 1;
        if self.left == 0 {
            self.done.take().map(|done| done.send(()));
        }
    }
}

// === the lane of a supervised worker ===

impl Cargo for Hop {
    fn weight(&self) -> usize {
        self.0.len() * size_of::<u64>()
    }

    fn poisoned(&self, _attempts: u32) {}
}

struct Reader(Tally);

impl Worker for Reader {}

impl Consume<Hop> for Reader {
    fn consume(&mut self, lease: Lease<Hop>, _ctx: &mut Seated<Self>) {
        self.0.arrived(&lease);
        lease.ack();
    }
}

fn policy() -> Policy {
    let policy = Policy::default();
    let lane = LanePolicy { capacity: ROOM, bytes: 1 << 30, ..policy.lane };
    Policy { pool: INLINE.into(), lane, ..policy }
}

async fn lane(messages: u64, hop: Hop) -> Duration {
    let (tally, all) = Tally::of(messages);
    let lane = Lane::new("reader", policy().lane);
    let port = lane.port();
    let first = parking_lot::Mutex::new(Some(tally));
    let make = move |_: &_| Reader(first.lock().take().expect("the reader never restarts"));
    let reader = ChildSpec::worker("reader", policy(), make).reads(&lane).build();
    let mut tree = Tree::start(&ChildSpec::supervisor("root", policy(), vec![reader]), Pools::new([].into()));
    tree.ready().await.expect("the reader comes up");
    let begun = Instant::now();
    for _ in 0..messages {
        port.send(hop.clone(), Duration::from_secs(60)).await.expect("there is room in time");
    }
    all.await.expect("everything arrives");
    let took = begun.elapsed();
    tree.stop(Duration::from_secs(5)).await;
    took
}

// === a bare actix mailbox ===

struct Bare(Tally);

impl Actor for Bare {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(ROOM);
    }
}

impl Message for Hop {
    type Result = ();
}

impl Handler<Hop> for Bare {
    type Result = ();

    fn handle(&mut self, hop: Hop, _ctx: &mut Self::Context) {
        self.0.arrived(&hop);
    }
}

async fn actix_mailbox(messages: u64, hop: Hop) -> Duration {
    let (tally, all) = Tally::of(messages);
    let addr = Bare(tally).start();
    let begun = Instant::now();
    for _ in 0..messages {
        // Full: let the actor run, as a sender that waits for room would.
        while addr.try_send(hop.clone()).is_err() {
            tokio::task::yield_now().await;
        }
    }
    all.await.expect("everything arrives");
    begun.elapsed()
}

// === a tokio channel ===

async fn channel(messages: u64, hop: Hop) -> Duration {
    let (mut tally, all) = Tally::of(messages);
    let (sender, mut receiver) = mpsc::channel::<Hop>(ROOM);
    tokio::task::spawn_local(async move {
        while let Some(hop) = receiver.recv().await {
            tally.arrived(&hop);
        }
    });
    let begun = Instant::now();
    for _ in 0..messages {
        sender.send(hop.clone()).await.expect("the receiver lives");
    }
    all.await.expect("everything arrives");
    begun.elapsed()
}

// === a kameo mailbox ===

struct Kameo(Tally);

impl kameo::Actor for Kameo {
    type Args = Self;
    type Error = kameo::error::Infallible;

    async fn on_start(this: Self, _: kameo::actor::ActorRef<Self>) -> Result<Self, Self::Error> {
        Ok(this)
    }
}

impl kameo::message::Message<Hop> for Kameo {
    type Reply = ();

    async fn handle(&mut self, hop: Hop, _: &mut kameo::message::Context<Self, ()>) {
        self.0.arrived(&hop);
    }
}

async fn kameo_mailbox(messages: u64, hop: Hop) -> Duration {
    let (tally, all) = Tally::of(messages);
    let actor = Kameo::spawn_with_mailbox(Kameo(tally), mailbox::bounded(ROOM));
    let begun = Instant::now();
    for _ in 0..messages {
        actor.tell(hop.clone()).await.expect("the actor lives");
    }
    all.await.expect("everything arrives");
    begun.elapsed()
}

fn hops(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hop");
    group.sample_size(30).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    for (grain, records) in [("single", 1), ("batch", BATCH)] {
        let hop = Hop(Arc::new(vec![1; records]));
        macro_rules! side {
            ($name:literal, $run:path) => {
                group.bench_function(BenchmarkId::new($name, grain), |bench| {
                    bench.iter_custom(|messages| System::new().block_on($run(messages, hop.clone())));
                });
            };
        }
        side!("lane", lane);
        side!("actix mailbox", actix_mailbox);
        side!("tokio mpsc", channel);
        side!("kameo mailbox", kameo_mailbox);
    }
    group.finish();
}

// === ten thousand supervised actors ===

struct Extra;

struct Crash;
struct Ping;

impl Message for Crash {
    type Result = ();
}

impl Message for Ping {
    type Result = ();
}

impl Worker for Extra {}

impl Handle<Crash> for Extra {
    type Result = ();

    fn handle(&mut self, _: Crash, _ctx: &mut Seated<Self>) {
        panic!("asked to");
    }
}

impl Handle<Ping> for Extra {
    type Result = ();

    fn handle(&mut self, _: Ping, _ctx: &mut Seated<Self>) {}
}

/// Resident memory of this process in bytes, from `/proc/self/statm`.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096
}

/// Starts the crowd, crashes a random tenth of it, and prints what each took.
fn crowd() {
    // One line for each planted panic would measure the terminal.
    tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::default()).ok();
    System::new().block_on(async {
        let backoff = BackoffPolicy { min: Duration::ZERO, max: Duration::ZERO, ..Policy::default().backoff };
        let policy = Policy { pool: INLINE.into(), intensity: u32::MAX, backoff, ..Policy::default() };
        let policy = Policy {
            max_children: CROWD + 1,
            start: StartPolicy { at_once: CROWD, ..policy.start },
            ..policy
        };
        let known: Vec<ChildRef<Extra>> = (0..CROWD).map(|_| ChildRef::default()).collect();
        let before = resident();
        let begun = Instant::now();
        let child = |n: usize| {
            ChildSpec::worker(n.to_string(), policy.clone(), |_probe| Extra).known_as(&known[n]).build()
        };
        let group = Group::default();
        (0..CROWD).for_each(|n| group.want(child(n)));
        let crowd = ChildSpec::group("crowd", policy.clone(), group.clone());
        let root = ChildSpec::supervisor("root", policy.clone(), vec![crowd]);
        let mut tree = Tree::start(&root, Pools::new([].into()));
        tree.ready().await.expect("the group comes up");
        // A group is ready before its members are: the last one is what is waited for.
        for member in &known {
            member.ask(Ping, Duration::from_secs(60)).await.expect("it answers");
        }
        let started = begun.elapsed();
        let each = (resident() - before) / CROWD;
        let tenth = rand::seq::index::sample(&mut rand::rng(), CROWD, CROWD / 10).into_vec();
        let deadline = Duration::from_secs(60);
        let begun = Instant::now();
        for n in &tenth {
            known[*n].ask(Crash, deadline).await.expect_err("it crashes");
        }
        for n in &tenth {
            known[*n].ask(Ping, deadline).await.expect("its successor answers");
        }
        let restarted = begun.elapsed();
        let restarts: u64 = tree.view().snapshot().root.walk().iter().map(|node| node.restarts).sum();
        assert_eq!(restarts as usize, tenth.len());
        println!("{CROWD} supervised actors on one thread");
        println!("  start      {started:?}, {:?} each", started / CROWD as u32);
        println!("  memory     {each} bytes each, idle");
        println!("  restart    {restarted:?} for a random tenth, {:?} each", restarted / tenth.len() as u32);
        let begun = Instant::now();
        for _ in 0..GUESTS {
            let guest = ChildRef::default();
            group.want(ChildSpec::worker("guest", policy.clone(), |_probe| Extra).known_as(&guest).build());
            guest.ask(Ping, deadline).await.expect("it answers");
            group.unwant("guest");
        }
        println!("  one more   {:?} each to come beside the others, answer and go", begun.elapsed() / GUESTS);
        let begun = Instant::now();
        black_box(tree.view().snapshot());
        println!("  snapshot   {:?}, all of them listed", begun.elapsed());
        let begun = Instant::now();
        tree.stop(deadline).await;
        println!("  stop       {:?}", begun.elapsed());
    });
}

fn main() {
    if std::env::args().any(|arg| arg == "crowd") {
        return crowd();
    }
    hops(&mut Criterion::default().configure_from_args());
    crowd();
}
