//! Three brokers with certificates under a cluster that works: one is cut off from the others, and at times from clients, then
//! again while another one is killed. Edges refuse retryably at the worst, and what was acknowledged is stored once.

use std::thread::sleep;
use std::time::{Duration, Instant};

use obtrace::tools::load::Fate;
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::field::once;
use crate::support::cluster::{Cluster, Plan};
use crate::support::load::Load;
use crate::support::proxy::Mode;

/// Records a second at each edge.
const RATE: u64 = 200;
/// How long the load lasts, with all faults of a round in it.
const LOAD_SECONDS: u64 = 45;
/// Time in which the brokers notice.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);
/// Time in which the edges go on without a broker; it is 30 s where nobody gives up a request to a silent one.
const GOES_ON_WITHIN: Duration = Duration::from_secs(25);

/// Waits until this broker knows of so many live ones, itself too.
fn sees(cluster: &Cluster, broker: u8, count: usize, after: &str) {
    let links = cluster.links.as_ref().expect("three brokers");
    let until = Instant::now() + NOTICED_WITHIN;
    while !links.sees(broker, count) {
        assert!(Instant::now() < until, "{after}: broker {broker} does not see {count}");
        sleep(Duration::from_millis(100));
    }
}

/// Waits until each edge has taken in what takes it three seconds: nobody waits for the broker that says nothing.
fn goes_on(loads: &[Load], after: &str) {
    let taken = |load: &Load| {
        let ledger = load.ledger().expect("the journal");
        ledger.batches.values().filter(|batch| batch.fate == Fate::Accepted).count()
    };
    let (begun, before) = (Instant::now(), loads.iter().map(taken).collect::<Vec<_>>());
    while loads.iter().zip(&before).any(|(load, before)| taken(load) < before + 12) {
        assert!(begun.elapsed() < GOES_ON_WITHIN, "{after}: nothing is taken in: {before:?}");
        sleep(Duration::from_millis(100));
    }
    println!("{after}: went on after {:?}", begun.elapsed());
}

fn heal(cluster: &Cluster, after: &str) {
    cluster.links.as_ref().expect("three brokers").heal();
    (1..=3).for_each(|broker| sees(cluster, broker, 3, after));
}

fn round(cluster: &mut Cluster, chance: &mut StdRng, after: &str) {
    let loads = cluster.load(RATE, LOAD_SECONDS);
    let first = chance.random_range(1..=3_u8);
    // The two that are left: one to be asked, one to be killed.
    let (asked, killed) = (first % 3 + 1, (first + 1) % 3 + 1);
    sleep(Duration::from_secs(3));
    let mode = if chance.random_bool(0.7) { Mode::HalfOpen } else { Mode::Reset };
    let wholly = chance.random_bool(0.7);
    println!("{after}, {first} cut off by {mode:?}, from clients too: {wholly}");
    cluster.links.as_ref().expect("three brokers").cut(first, wholly, mode);
    // The others go on without it.
    sees(cluster, asked, 2, after);
    sees(cluster, killed, 2, after);
    // One that clients still reach does not know that others lead now, and may tell them so.
    if wholly {
        goes_on(&loads, after);
    } else {
        sleep(Duration::from_millis(chance.random_range(2000..5000)));
    }
    heal(cluster, after);
    let after = format!("{after}, {first} cut off and {killed} killed");
    println!("{after}");
    cluster.links.as_ref().expect("three brokers").cut(first, wholly, Mode::HalfOpen);
    sleep(Duration::from_millis(chance.random_range(0..1500)));
    cluster.kafka.kill9(&format!("broker-{killed}"));
    // Nobody has a majority.
    sleep(Duration::from_millis(chance.random_range(4000..6000)));
    cluster.links.as_ref().expect("three brokers").heal();
    cluster.kafka.start_again();
    heal(cluster, &after);
    cluster.recovers(&after);
    for report in cluster.reports(loads, &after) {
        println!("{after}: {} accepted, errors on the way {}", report["accepted"], report["errors"]);
    }
}

#[test]
fn a_broker_cut_off_from_the_others_and_another_killed_cost_nothing() {
    once("brokers::a_broker_cut_off", 1, |chance, rounds, after| {
        let mut cluster = Cluster::start(&Plan { workers: 2, three_brokers: true, ..Plan::SIX });
        for number in 0..rounds {
            round(&mut cluster, chance, &format!("{after}, round {number}"));
        }
        cluster.verify(Vec::new(), after);
    });
}
