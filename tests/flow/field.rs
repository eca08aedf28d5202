//! An Obtrace under load to which faults can be done, and the checks that follow on each: what the tests of single faults,
//! the soak and the fault table share.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use obtrace::domain::signal::Signal;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::disk::SmallDisk;
use crate::support::invariants::{Crash, Expect, Sight, chains, letters, looks, prefixes};
use crate::support::load::{Load, Plan};
use crate::support::log::ClosedLog;
use crate::support::watch::{Seen, Watch};
use crate::support::{Obtrace, Options, number};

/// Within which the tree is whole again after a fault (4); generous, since test machines are shared.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The field.
pub(crate) struct Field {
    pub(crate) obtrace: Obtrace,
    pub(crate) watch: Watch,
    /// The folder of the test.
    pub(crate) dir: PathBuf,
    /// The data folder.
    pub(crate) data: PathBuf,
    /// The file that moves the clock of the process.
    pub(crate) clock: PathBuf,
    /// A disk of its own, where it was asked for.
    pub(crate) disk: Option<SmallDisk>,
    sights: Vec<Sight>,
    // Last, so that the process is gone before its folder.
    _dir: TempDir,
}

/// What came of a row.
pub(crate) struct Outcome {
    /// The load generator's report.
    pub(crate) report: Value,
    /// What was seen meanwhile.
    pub(crate) seen: Seen,
    /// What crashed, in order.
    pub(crate) crashes: Vec<Crash>,
}

impl Field {
    /// One on a fresh folder.
    pub(crate) fn new(options: Options) -> Self {
        Self::on(options, None).expect("no disk of its own is asked for")
    }

    /// One with a part of its data folder on a disk of its own of so many MiB; `None` where this user may not mount.
    pub(crate) fn on(mut options: Options, disk: Option<(&str, u32)>) -> Option<Self> {
        let holder = tempfile::tempdir().expect("tempdir");
        let dir = holder.path().to_owned();
        let (data, clock) = (dir.join("data"), dir.join("clock"));
        let disk = match disk {
            Some((part, mib)) => Some(SmallDisk::mount(&data.join(part), mib)?),
            None => None,
        };
        // The generator's clock does not jump along.
        let set = ["ingest.accept_future=3h", "ingest.accept_past=3d", "supervision.black_box.keep=1000"];
        options.set.extend(set.map(String::from));
        // On a machine that is busy with other things a large block may take long; rows about the watchdog say otherwise.
        options.set.insert(0, "supervision.watchdog.condemn_after=60s".into());
        options.env.push(("OBTRACE_CHAOS_CLOCK".into(), clock.display().to_string()));
        let obtrace = Obtrace::start(&data, options);
        let watch = Watch::start(&obtrace);
        Some(Self { obtrace, watch, dir, data, clock, disk, sights: Vec::new(), _dir: holder })
    }

    /// Load in the background.
    pub(crate) fn load(&self, plan: &Plan) -> Load {
        Load::start(&self.obtrace, &self.dir, "load", plan)
    }

    /// (4): the tree does its work again, every node of it, within `within`.
    pub(crate) fn recovers(&self, within: Duration, after: &str) {
        let until = Instant::now() + within;
        loop {
            let tree = self.obtrace.try_get("/admin/tree").map_or(Value::Null, |(_, tree)| tree);
            let troubled = troubled(&tree["root"]);
            if self.obtrace.try_get("/readyz").is_some_and(|(status, _)| status == 200) && troubled.is_empty()
            {
                return;
            }
            assert!(Instant::now() < until, "{after}: not whole after {within:?}: {troubled:?}");
            sleep(Duration::from_millis(100));
        }
    }

    /// Compares what is committed with what is stored (6). False where the store cannot be asked at the moment.
    pub(crate) fn sight(&mut self, load: &Load) -> bool {
        let Some((200, tree)) = self.obtrace.try_get("/admin/tree") else { return false };
        let mut sight = Sight::default();
        each(&tree["root"], &mut |node| {
            if let Some(offset) = node["gauges"]["committed"].as_f64() {
                sight.committed.insert(node["path"].as_str().unwrap_or_default().to_owned(), offset as u64);
            }
        });
        for signal in [Signal::Traces, Signal::Logs] {
            let Some(stored) = load.stored(&self.obtrace, signal) else { return false };
            let doubled: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).take(5).collect();
            assert!(doubled.is_empty(), "{signal} are there more than once: {doubled:?}");
            sight.stored.insert(signal, stored.into_keys().collect());
        }
        self.sights.push(sight);
        true
    }

    /// Waits until `good` says so of what was seen so far.
    pub(crate) fn until(&self, what: &str, within: Duration, good: impl Fn(&Seen) -> bool) {
        let until = Instant::now() + within;
        loop {
            let seen = self.watch.seen();
            if good(&seen) {
                return;
            }
            assert!(Instant::now() < until, "{what}: {:?} {:?} {:#?}", seen.fills, seen.peaks, seen.story());
            sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the node at `path` is in `state`.
    pub(crate) fn becomes(&self, path: &str, state: &str, after: &str) {
        let until = Instant::now() + SOON;
        loop {
            let tree = self.obtrace.try_get("/admin/tree").map_or(Value::Null, |(_, tree)| tree);
            let mut found = Value::Null;
            each(&tree["root"], &mut |node| {
                if node["path"] == path {
                    found = node.clone();
                }
            });
            if found["state"] == state {
                return;
            }
            assert!(Instant::now() < until, "{after}: {path} is not {state}: {found}");
            sleep(Duration::from_millis(50));
        }
    }

    /// Waits for the end of the load and checks all seven invariants.
    pub(crate) fn verify(mut self, mut load: Load, expect: &Expect, after: &str) -> Outcome {
        let report = load.end(after);
        // (1) and (2)
        let missing = match expect.dead {
            None => {
                load.verified(&self.obtrace.api, after);
                Vec::new()
            }
            Some(dead) => load.settled(&self.obtrace, Signal::Logs, dead, after),
        };
        self.recovers(SOON, after);
        let until = Instant::now() + SOON;
        while !self.sight(&load) {
            assert!(Instant::now() < until, "{after}: the store cannot be asked");
            sleep(Duration::from_millis(200));
        }
        self.watch.look();
        assert_eq!(self.obtrace.stop().code(), Some(0), "{after}: the stop is in order");
        self.watch.end();

        let seen = self.watch.seen();
        let ledger = load.ledger().expect("the journal");
        let (log, run) = (ClosedLog::open(&self.data.join("log")), &ledger.info.run);
        let dead = letters(&log, run, after);
        let aside = dead.get(&Signal::Logs).cloned().unwrap_or_default();
        let gone: BTreeSet<u64> = missing.into_iter().collect();
        assert_eq!(
            gone, aside,
            "{after}: what is not stored is what the dead letters hold, record by record"
        );
        assert!(dead.keys().all(|signal| *signal == Signal::Logs), "{after}: {dead:?}");
        prefixes(&log, &self.sights, run, &dead, after);
        looks(&seen, expect, after);
        let crashes = chains(&seen, expect, &self.data.join("blackbox"), after);
        Outcome { report, seen, crashes }
    }
}

/// Calls `look` for a node and all below it.
pub(crate) fn each(node: &Value, look: &mut impl FnMut(&Value)) {
    look(node);
    node["children"].as_array().into_iter().flatten().for_each(|child| each(child, look));
}

/// Nodes that are not at their work.
fn troubled(node: &Value) -> Vec<String> {
    let mut all = Vec::new();
    each(node, &mut |node| {
        if node["state"] != "running" {
            all.push(format!("{} {}: {}", node["path"], node["state"], node["degraded"]));
        }
    });
    all
}

// === seeds ===

/// How often a fault is repeated: `OBTRACE_CHAOS_ROUNDS`, or `short`.
pub(crate) fn rounds(short: u64) -> u64 {
    number("OBTRACE_CHAOS_ROUNDS").unwrap_or(short)
}

/// Runs a row of the table once, or `OBTRACE_CHAOS_ROUNDS` times; each time with a seed of its own, from which the
/// moments of its faults come. A failure says how to have it again.
pub(crate) fn row(name: &str, body: impl Fn(&mut StdRng, &str)) {
    let first = number("OBTRACE_CHAOS_SEED").unwrap_or_else(rand::random);
    for round in 0..rounds(1) {
        seeded(name, first.wrapping_add(round), 1, &body);
    }
}

/// Runs a row once that has its rounds within, `OBTRACE_CHAOS_ROUNDS` or `short` of them.
pub(crate) fn once(name: &str, short: u64, body: impl Fn(&mut StdRng, u64, &str)) {
    let (seed, rounds) = (number("OBTRACE_CHAOS_SEED").unwrap_or_else(rand::random), rounds(short));
    seeded(name, seed, rounds, &|chance: &mut StdRng, after: &str| body(chance, rounds, after));
}

fn seeded(name: &str, seed: u64, rounds: u64, body: &impl Fn(&mut StdRng, &str)) {
    let _replay = Replay { name, seed, rounds };
    println!("{name}: seed {seed}");
    body(&mut StdRng::seed_from_u64(seed), &format!("{name}, seed {seed}"));
}

/// Says how a failed row is replayed.
struct Replay<'a> {
    name: &'a str,
    seed: u64,
    rounds: u64,
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { name, seed, rounds } = self;
            let set = format!("OBTRACE_CHAOS_SEED={seed} OBTRACE_CHAOS_ROUNDS={rounds}");
            eprintln!("replay: {set} cargo test --features chaos --test flow {name}");
        }
    }
}
