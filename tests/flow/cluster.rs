//! Obtrace as six processes over real services: what goes in at an edge is found at the gateway, whatever is restarted,
//! killed or frozen on the way. The seed of the mixed faults is printed; `OBTRACE_SOAK_SEED` replays it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::clients;
use crate::support::cluster::{Cluster, Plan};
use crate::support::proxy::{Instead, Mode, Proxy};
use crate::support::{Obtrace, number};

/// How long one load lasts, and how long the longest fault.
const LOAD_SECONDS: u64 = 120;
const FAULT_WITHIN: Duration = Duration::from_secs(50);
/// Records a second at each edge.
const RATE: u64 = 300;
/// Time until a fault of single inserts has met as many.
const HIT_WITHIN: Duration = Duration::from_secs(40);

/// What goes wrong; docs/cluster.md has them in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// kill -9 of an edge in the midst of requests.
    KillEdge,
    /// kill -9 of a worker, at any point between reading a block and committing it.
    KillWorker,
    /// A worker stands still for longer than its session, and goes on as one that was replaced.
    ZombieWorker,
    /// SIGTERM of an edge under load, and a new start.
    RestartEdge,
    /// SIGTERM of a worker under load, and a new start.
    RestartWorker,
    /// A worker leaves and comes back every two seconds.
    RebalanceStorm,
    /// The store dies and comes back.
    KillStore,
    /// The store stands still for some seconds.
    SlowStore,
    /// kill -9 of the only broker, and a new start.
    KillBroker,
    /// The broker stands still for some seconds.
    SlowBroker,
    /// Inserts are done, and their answers get lost.
    AnswersLost,
    /// The store has too many parts and says so.
    TooManyParts,
    /// Something in front of the store answers 500 in its place.
    StoreErrors,
    /// Each piece to and from the store takes a while.
    StoreLatency,
    /// The store takes connections and bytes, and says nothing.
    StoreHalfOpen,
    /// Connections to the store are reset.
    StoreResets,
    /// The store's tables get a column that this build does not know, as while newer workers are being brought in.
    NewerSchema,
    /// Redis is away for some seconds.
    RedisDown,
    /// Each answer of Redis takes a second.
    RedisSlow,
    /// Postgres is away for some seconds.
    PostgresDown,
    /// The bucket is away for some seconds.
    BucketDown,
}

impl Fault {
    const ALL: [Self; 21] = [
        Self::KillEdge,
        Self::KillWorker,
        Self::ZombieWorker,
        Self::RestartEdge,
        Self::RestartWorker,
        Self::RebalanceStorm,
        Self::KillStore,
        Self::SlowStore,
        Self::KillBroker,
        Self::SlowBroker,
        Self::AnswersLost,
        Self::TooManyParts,
        Self::StoreErrors,
        Self::StoreLatency,
        Self::StoreHalfOpen,
        Self::StoreResets,
        Self::NewerSchema,
        Self::RedisDown,
        Self::RedisSlow,
        Self::PostgresDown,
        Self::BucketDown,
    ];
}

/// Lets a process stand still for a while.
fn freeze(pid: u32, seconds: u64) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
    kill(pid, Signal::SIGSTOP).expect("it runs");
    sleep(Duration::from_secs(seconds));
    kill(pid, Signal::SIGCONT).expect("it runs");
}

/// Has a connection behave so for a while.
fn link(link: &Proxy, mode: Mode, seconds: u64) {
    link.set(mode);
    sleep(Duration::from_secs(seconds));
    link.set(Mode::Pass);
}

/// Does something to the next inserts, and waits until it was done to all of them.
fn on_inserts(cluster: &Cluster, times: usize, instead: Instead) {
    let link = &cluster.store.link;
    let all = link.applied() + times;
    link.on_request("INSERT", times, instead);
    let until = Instant::now() + HIT_WITHIN;
    while link.applied() < all {
        assert!(Instant::now() < until, "{} of {times} inserts did not come", all - link.applied());
        sleep(Duration::from_millis(50));
    }
}

/// The next inserts are answered in the store's place, by an error with this header.
fn refuse_inserts(cluster: &Cluster, header: &str) {
    let body = if header.is_empty() { "no" } else { "Code: 252. DB::Exception: Too many parts (3000)" };
    let answer = format!(
        "HTTP/1.1 500 Internal Server Error\r\n{header}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    on_inserts(cluster, 6, Instead::Answer(answer.into_bytes()));
}

fn stop_and_start(process: &mut Obtrace) {
    assert_eq!(process.stop().code(), Some(0), "a stop under load is in order");
    process.restart();
}

fn kill_and_start(process: &mut Obtrace) {
    process.kill9();
    process.restart();
}

/// Does the fault to the `chosen` of its kind and undoes it.
fn suffer(cluster: &mut Cluster, fault: Fault, chosen: usize) {
    let (edge, worker) = (chosen % cluster.edges.len(), chosen % cluster.workers.len());
    match fault {
        Fault::KillEdge => kill_and_start(&mut cluster.edges[edge]),
        Fault::KillWorker => kill_and_start(&mut cluster.workers[worker]),
        Fault::ZombieWorker => freeze(cluster.workers[worker].pid(), 12),
        Fault::RestartEdge => stop_and_start(&mut cluster.edges[edge]),
        Fault::RestartWorker => stop_and_start(&mut cluster.workers[worker]),
        Fault::RebalanceStorm => {
            for round in 0..4 {
                let worker = &mut cluster.workers[worker];
                if round % 2 == 0 {
                    stop_and_start(worker)
                } else {
                    kill_and_start(worker)
                }
                sleep(Duration::from_secs(2));
            }
        }
        Fault::KillStore => {
            cluster.store.kill9();
            sleep(Duration::from_secs(2));
            cluster.store.start_again();
        }
        Fault::SlowStore => freeze(cluster.store.pid(), 5),
        Fault::KillBroker => {
            cluster.kafka.kill9("broker");
            sleep(Duration::from_secs(1));
            cluster.kafka.start_again();
        }
        Fault::SlowBroker => freeze(cluster.kafka.pid("broker"), 5),
        Fault::AnswersLost => on_inserts(cluster, 4, Instead::LoseAnswer),
        Fault::TooManyParts => refuse_inserts(cluster, "X-ClickHouse-Exception-Code: 252\r\n"),
        Fault::StoreErrors => refuse_inserts(cluster, ""),
        Fault::StoreLatency => link(&cluster.store.link, Mode::Latency(Duration::from_millis(300)), 4),
        Fault::StoreHalfOpen => link(&cluster.store.link, Mode::HalfOpen, 6),
        Fault::StoreResets => link(&cluster.store.link, Mode::Reset, 3),
        Fault::NewerSchema => {
            let name = format!("unknown_{chosen}");
            for table in ["spans", "logs", "metrics"] {
                cluster.store.sql(&format!(
                    "ALTER TABLE obtrace.{table} ADD COLUMN IF NOT EXISTS {name} UInt64 DEFAULT 7"
                ));
            }
        }
        Fault::RedisSlow => link(&cluster.redis_link, Mode::Latency(Duration::from_secs(1)), 4),
        Fault::RedisDown => {
            cluster.redis.kill9("redis");
            sleep(Duration::from_secs(3));
            cluster.redis.start_again();
        }
        Fault::PostgresDown => {
            cluster.postgres.freeze("postgres");
            sleep(Duration::from_secs(4));
            cluster.postgres.thaw("postgres");
        }
        Fault::BucketDown => {
            cluster.s3.kill9("weed");
            sleep(Duration::from_secs(2));
            cluster.s3.start_again();
        }
    }
}

#[test]
fn six_processes_take_in_what_sdks_send_and_restart_one_by_one_under_load() {
    let mut cluster = Cluster::start(&Plan::SIX);
    clients::meet(&cluster.edges[0], &cluster.gateway);
    let rounds = number("OBTRACE_CHAOS_ROUNDS").unwrap_or(1);
    for round in 0..rounds {
        let loads = cluster.load(RATE, 35);
        let names: Vec<String> = cluster.all().map(|(name, _)| name).collect();
        for (n, name) in names.iter().enumerate() {
            let (_, process) = cluster.all().nth(n).expect("as many as before");
            assert_eq!(process.stop().code(), Some(0), "round {round}: the stop of {name} is in order");
            process.restart();
        }
        cluster.settle(loads, &format!("rolling restart {round}"));
    }
    cluster.verify(Vec::new(), &format!("{rounds} rolling restarts"));
}

#[test]
fn faults_between_processes_cost_nothing() {
    let seed = number("OBTRACE_SOAK_SEED").unwrap_or_else(rand::random);
    let rounds = number("OBTRACE_CHAOS_ROUNDS").unwrap_or(0);
    println!("seed {seed}: OBTRACE_SOAK_SEED={seed} OBTRACE_CHAOS_ROUNDS={rounds} replays it");
    let mut chance = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(&Plan::SIX);
    // By `make chaos` every fault once a round, otherwise some of them; in an order of its own each time.
    let (rounds, most) = if rounds == 0 { (1, 9) } else { (rounds, Fault::ALL.len()) };
    for round in 0..rounds {
        let (mut loads, mut begun) = (cluster.load(RATE, LOAD_SECONDS), Instant::now());
        let mut faults = Fault::ALL.to_vec();
        while faults.len() > Fault::ALL.len() - most {
            let fault = faults.swap_remove(chance.random_range(0..faults.len()));
            let after = format!("seed {seed}, round {round}, {fault:?}");
            println!("{after}");
            // No fault without load.
            if begun.elapsed() + FAULT_WITHIN > Duration::from_secs(LOAD_SECONDS) {
                cluster.settle(loads, &after);
                (loads, begun) = (cluster.load(RATE, LOAD_SECONDS), Instant::now());
            }
            suffer(&mut cluster, fault, chance.random_range(0..6));
            // Now and then the next one comes before the last one is healed.
            if chance.random_bool(0.7) {
                cluster.recovers(&after);
            }
        }
        let after = format!("seed {seed}, round {round}");
        cluster.recovers(&after);
        cluster.settle(loads, &after);
    }
    cluster.verify(Vec::new(), &format!("seed {seed}"));
}
