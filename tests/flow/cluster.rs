//! Obtrace as six processes over real services: what goes in at an edge is found at the gateway, whatever is restarted,
//! killed or frozen on the way. The seed of the mixed faults is printed; `OBTRACE_SOAK_SEED` replays it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::clients;
use crate::support::Obtrace;
use crate::support::cluster::{Cluster, Plan};

/// Two edges, three workers and a gateway. Short sessions, so that a worker that is gone is noticed soon.
const SIX: Plan<'static> = Plan { edges: 2, workers: 3, set: &["stream.kafka.session_timeout=6s"] };
/// Records a second at each edge.
const RATE: u32 = 300;
/// Time after a fault until every process is ready again.
const WHOLE_WITHIN: Duration = Duration::from_secs(90);

/// What goes wrong. The numbers are those of the fault table in docs/cluster.md.
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
    /// Redis is away for some seconds.
    RedisDown,
    /// Postgres is away for some seconds.
    PostgresDown,
    /// The bucket is away for some seconds.
    BucketDown,
}

impl Fault {
    const ALL: [Self; 13] = [
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
        Self::RedisDown,
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

/// Every process is ready again soon.
fn recovers(cluster: &mut Cluster, after: &str) {
    let until = Instant::now() + WHOLE_WITHIN;
    for (name, process) in cluster.all() {
        assert!(process.is_alive(), "{after}: {name} ended");
        while !process.try_get("/readyz").is_some_and(|(status, _)| status == 200) {
            assert!(Instant::now() < until, "{after}: {name} is not ready: {:?}", process.try_get("/readyz"));
            sleep(Duration::from_millis(100));
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[test]
fn six_processes_take_in_what_sdks_send_and_restart_one_by_one_under_load() {
    let mut cluster = Cluster::start(&SIX);
    clients::meet(&cluster.edges[0], &cluster.gateway);
    let rounds = number("OBTRACE_CHAOS_ROUNDS").unwrap_or(1);
    let loads = cluster.load(RATE, rounds * 25);
    for round in 0..rounds {
        let names: Vec<String> = cluster.all().map(|(name, _)| name).collect();
        for (n, name) in names.iter().enumerate() {
            let (_, process) = cluster.all().nth(n).expect("as many as before");
            assert_eq!(process.stop().code(), Some(0), "round {round}: the stop of {name} is in order");
            process.restart();
        }
    }
    cluster.verify(loads, &format!("{rounds} rolling restarts"));
}

#[test]
fn faults_between_processes_cost_nothing() {
    let seed = number("OBTRACE_SOAK_SEED").unwrap_or_else(rand::random);
    let rounds = number("OBTRACE_CHAOS_ROUNDS").unwrap_or(1);
    println!("seed {seed}: OBTRACE_SOAK_SEED={seed} OBTRACE_CHAOS_ROUNDS={rounds} replays it");
    let mut chance = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(&SIX);
    // Every fault once a round, in an order of its own.
    for round in 0..rounds {
        let loads = cluster.load(RATE, 110);
        let mut faults = Fault::ALL.to_vec();
        while !faults.is_empty() {
            let fault = faults.swap_remove(chance.random_range(0..faults.len()));
            let after = format!("seed {seed}, round {round}, {fault:?}");
            println!("{after}");
            suffer(&mut cluster, fault, chance.random_range(0..6));
            recovers(&mut cluster, &after);
        }
        cluster.settle(loads, &format!("seed {seed}, round {round}"));
    }
    cluster.verify(Vec::new(), &format!("seed {seed}"));
}
