//! The store's disk runs full while a cluster works: the engine refuses inserts long before the last byte, which becomes lag
//! and nothing else; when there is room again, everything is stored, once. What Obtrace cannot protect against, another
//! program that takes the very last bytes within moments, stands in ARCHITECTURE.md.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::field::{SOON, each, once};
use crate::support::cluster::{Cluster, Plan};
use crate::support::disk::SmallDisk;
use crate::support::load::refusals;

/// Size of the disk, and what is left of it: the engine refuses below 128 MiB, and keeps 64 for what is under way.
const DISK_MIB: u32 = 448;
const LEFT_MIB: u64 = 96;
const RATE: u64 = 300;
const LOAD_SECONDS: u64 = 25;

/// Whether some worker says that the store has no room.
fn no_room(cluster: &Cluster) -> bool {
    let mut said = false;
    for worker in &cluster.workers {
        let tree = worker.try_get("/admin/tree").map(|(_, tree)| tree).unwrap_or_default();
        each(&tree["root"], &mut |node| said |= node["degraded"].to_string().contains("243"));
    }
    said
}

#[test]
fn a_full_disk_of_the_store_becomes_lag_and_costs_nothing() {
    once("full::a_full_disk_of_the_store", 1, |_, rounds, after| {
        let dir = tempfile::tempdir().expect("tempdir");
        let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), DISK_MIB) else { return };
        let store = disk.path().join("store");
        let mut cluster = Cluster::start(&Plan { workers: 2, store: Some(&store), ..Plan::SIX });
        for round in 0..rounds {
            let after = format!("{after}, round {round}");
            let loads = cluster.load(RATE, LOAD_SECONDS);
            sleep(Duration::from_secs(4));
            let ballast = disk.fill_to(LEFT_MIB);
            let until = Instant::now() + SOON;
            while !no_room(&cluster) {
                assert!(Instant::now() < until, "{after}: {} bytes free, and nobody minds", disk.free());
                sleep(Duration::from_millis(100));
            }
            sleep(Duration::from_secs(8));
            assert!(no_room(&cluster), "{after}: it goes on without room");
            println!("{after}: {} MiB were free", disk.free() >> 20);
            fs::remove_file(ballast).expect("the ballast goes");
            cluster.recovers(&after);
            for report in cluster.reports(loads, &after) {
                assert_eq!(refusals(&report), [""; 0], "{after}: an edge refused, and the brokers have room");
            }
        }
        cluster.verify(Vec::new(), after);
    });
}
