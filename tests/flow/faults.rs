//! Faults on the whole process while load runs, one test a kind: after each, what was acknowledged is stored, once.
//!
//! The kinds are those rows of the reliability table that one machine can show: kill -9, an engine that is down, slow or
//! flapping, a full disk, a clock that jumps, torn files, SIGTERM, SIGSTOP. Each test repeats its fault a few times here
//! and `OBTRACE_CHAOS_ROUNDS` times by `make chaos`; `soak.rs` mixes them by a seed.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Obtrace, Options, binary, wait};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// kill -9 of the main process.
    KillMain,
    /// kill -9 of the engine.
    KillEngine,
    /// kill -9 of both.
    KillBoth,
    /// The engine stands still for some seconds: slow, from outside.
    SlowEngine,
    /// The engine dies each time it has come back, for some seconds.
    FlappingEngine,
    /// The whole process stands still for some seconds, as on a suspended machine.
    Suspended,
    /// SIGTERM under load, and a new start.
    Restarted,
    /// kill -9, and half a record of nonsense at the end of every file that was being written.
    TornFiles,
    /// The wall clock jumps ahead by most of an hour, then back.
    ClockJumps,
    /// No byte is free on the log's disk for some seconds.
    DiskFull,
}

impl Fault {
    /// All that the seeded soak mixes; a full disk needs a disk of its own.
    pub(crate) const MIXED: [Self; 9] = [
        Self::KillMain,
        Self::KillEngine,
        Self::KillBoth,
        Self::SlowEngine,
        Self::FlappingEngine,
        Self::Suspended,
        Self::Restarted,
        Self::TornFiles,
        Self::ClockJumps,
    ];
}

/// An Obtrace under load, to which faults can be done.
pub(crate) struct Field {
    pub(crate) obtrace: Obtrace,
    data: PathBuf,
    clock: PathBuf,
    journal: PathBuf,
    // Last, so that the process is gone before its folder.
    disk: Option<SmallDisk>,
    _dir: TempDir,
}

impl Field {
    /// One on a fresh folder; its log on a disk of its own of `disk_mib`, where that is asked for.
    pub(crate) fn new(disk_mib: Option<u32>) -> Option<Self> {
        let dir = tempfile::tempdir().expect("tempdir");
        let data = dir.path().join("data");
        let disk = match disk_mib {
            Some(mib) => Some(SmallDisk::mount(&data.join("log"), mib)?),
            None => None,
        };
        let (clock, journal) = (dir.path().join("clock"), dir.path().join("journal"));
        let options = Options {
            // The generator's clock does not jump along.
            set: vec!["ingest.accept_future=3h".into(), "ingest.accept_past=3d".into()],
            env: vec![("OBTRACE_CHAOS_CLOCK".into(), clock.display().to_string())],
            ..Options::default()
        };
        let obtrace = Obtrace::start(&data, options);
        Some(Self { obtrace, data, clock, journal, disk, _dir: dir })
    }

    /// Load of all signals in the background, for `seconds`; in the end it asks for every acknowledged record.
    pub(crate) fn load(&self, seconds: u64) -> Child {
        Command::new(binary())
            .args(["load", "--endpoint", &self.obtrace.grpc, "--protocol", "grpc", "--signal", "mixed"])
            .args(["--rate", "2000", "--duration", &format!("{seconds}s"), "--batch", "100"])
            .args(["--connections", "2", "--journal"])
            .arg(&self.journal)
            .args(["--verify", "--api", &self.obtrace.api, "--verify-timeout", "120s"])
            .stdin(Stdio::null())
            .spawn()
            .expect("spawn load")
    }

    /// Does the fault and undoes it; the process runs again when this returns, though it may not be whole yet.
    pub(crate) fn suffer(&mut self, fault: Fault) {
        match fault {
            Fault::KillMain => self.obtrace.kill9(),
            Fault::KillEngine => drop(self.obtrace.kill9_engine()),
            Fault::KillBoth => {
                self.obtrace.kill9_engine();
                self.obtrace.kill9();
            }
            Fault::SlowEngine => {
                self.obtrace.signal_engine(libc::SIGSTOP);
                sleep(Duration::from_secs(3));
                self.obtrace.signal_engine(libc::SIGCONT);
            }
            Fault::FlappingEngine => {
                for _ in 0..4 {
                    self.obtrace.kill9_engine();
                    sleep(Duration::from_millis(900));
                }
            }
            Fault::Suspended => {
                self.obtrace.signal(libc::SIGSTOP);
                sleep(Duration::from_secs(5));
                self.obtrace.signal(libc::SIGCONT);
            }
            Fault::Restarted => {
                let code = self.obtrace.stop().code();
                assert_eq!(code, Some(0), "a stop under load is in order");
            }
            Fault::TornFiles => {
                self.obtrace.kill9();
                assert!(tear(&self.data.join("log")) > 0, "there are files to tear");
            }
            Fault::ClockJumps => {
                for seconds in ["3000", "-3000", "0"] {
                    fs::write(&self.clock, seconds).expect("the clock file");
                    sleep(Duration::from_millis(1500));
                }
            }
            Fault::DiskFull => {
                let disk = self.disk.as_ref().expect("a disk of its own");
                let ballast = disk.fill();
                sleep(Duration::from_secs(4));
                fs::remove_file(ballast).expect("the ballast goes");
            }
        }
        if !self.obtrace.is_alive() {
            self.obtrace.restart();
        }
    }

    /// What must hold soon after every fault: the tree does its work again and no lane is above its bound.
    pub(crate) fn recovers(&self, within: Duration, after: &str) {
        let until = Instant::now() + within;
        loop {
            let tree = self.obtrace.get("/admin/tree").1;
            over_full(&tree["root"], after);
            let troubled = troubled(&tree["root"]);
            if self.obtrace.get("/readyz").0 == 200 && troubled.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "{after}: not whole after {within:?}: {troubled:?}");
            sleep(Duration::from_millis(100));
        }
    }

    /// Waits for the load, which says what is missing or doubled, and for an orderly end.
    pub(crate) fn verify(mut self, mut load: Child, after: &str) {
        let status = wait(&mut load, Duration::from_secs(600)).expect("the load generator ends");
        assert!(status.success(), "{after}: records are missing or doubled: {status}");
        let letters: u64 = self.counter("obtrace_process_dead_letters_total");
        assert_eq!(letters, 0, "{after}: good records went to the dead letters");
        assert_eq!(self.obtrace.stop().code(), Some(0), "{after}: the stop is in order");
    }

    /// The sum of a counter over its labels, from the metrics page.
    fn counter(&self, name: &str) -> u64 {
        let (_, page) = self.obtrace.get("/metrics");
        let text = page.as_str().unwrap_or_default();
        let of = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        text.lines().filter(|line| line.starts_with(name)).filter_map(of).sum::<f64>() as u64
    }
}

/// Nodes that are not at their work.
fn troubled(node: &Value) -> Vec<String> {
    let state = node["state"].as_str().unwrap_or_default();
    let mut all: Vec<String> = node["children"].as_array().into_iter().flatten().flat_map(troubled).collect();
    if state != "running" {
        all.push(format!("{} {state}: {}", node["path"], node["degraded"]));
    }
    all
}

/// Fails where a lane holds more than its bound: in messages, or in bytes by more than the one message that may be
/// larger than the bound.
fn over_full(node: &Value, after: &str) {
    for lane in node["lanes"].as_array().into_iter().flatten() {
        let of = |key: &str| lane[key].as_u64().unwrap_or_default();
        assert!(of("queued") + of("leased") <= of("capacity"), "{after}: a lane above its bound: {lane}");
        assert!(of("bytes") <= of("capacity_bytes") + 1024, "{after}: a lane above its bound: {lane}");
    }
    node["children"].as_array().into_iter().flatten().for_each(|child| over_full(child, after));
}

/// Appends nonsense to the newest segment of every partition and to the groups' journal, as a write that was cut off
/// would leave it. Returns how many files were torn.
fn tear(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let (mut torn, mut newest) = (0, None);
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            torn += tear(&path);
        } else if path.extension().is_some_and(|extension| extension == "log")
            && Some(&path) > newest.as_ref()
        {
            newest = Some(path);
        }
    }
    if let Some(path) = newest {
        let mut file = OpenOptions::new().append(true).open(&path).expect("the segment opens");
        file.write_all(&[0xA5; 77]).expect("the nonsense is written");
        torn += 1;
    }
    torn
}

/// A small file system in memory, of its own: it can be filled without harm to anybody else.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user may not mount; said, because the test then shows nothing.
    fn mount(at: &Path, mib: u32) -> Option<Self> {
        fs::create_dir_all(at).expect("the mount point");
        let options = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("left out: a disk that fills up needs the right to mount a tmpfs");
            return None;
        }
        Some(Self(at.to_owned()))
    }

    /// Takes every free byte; the returned file holds them.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).expect("the ballast");
        for size in [1 << 20, 1 << 12, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the process that is being killed may hold a file for a moment longer.
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

fn rounds(short: u64) -> u64 {
    std::env::var("OBTRACE_CHAOS_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(short)
}

/// One kind of fault, again and again, at other moments of the block cycle each time.
fn withstands(fault: Fault, short: u64, disk_mib: Option<u32>) {
    let Some(mut field) = Field::new(disk_mib) else { return };
    let rounds = rounds(short);
    let load = field.load(rounds * 9 + 4);
    for round in 0..rounds {
        sleep(Duration::from_millis(900 + round * 137 % 900));
        field.suffer(fault);
        field.recovers(Duration::from_secs(60), &format!("{fault:?}, round {round}"));
    }
    field.verify(load, &format!("{fault:?} × {rounds}"));
}

#[test]
fn a_slow_engine_costs_nothing() {
    withstands(Fault::SlowEngine, 2, None);
}

#[test]
fn a_flapping_engine_costs_nothing() {
    withstands(Fault::FlappingEngine, 2, None);
}

#[test]
fn a_suspended_process_costs_nothing() {
    withstands(Fault::Suspended, 2, None);
}

#[test]
fn stops_under_load_cost_nothing() {
    withstands(Fault::Restarted, 3, None);
}

#[test]
fn torn_files_are_cut_and_cost_nothing() {
    withstands(Fault::TornFiles, 3, None);
}

#[test]
fn a_clock_that_jumps_costs_nothing() {
    withstands(Fault::ClockJumps, 2, None);
}

#[test]
fn a_full_disk_refuses_for_a_while_and_costs_nothing() {
    withstands(Fault::DiskFull, 2, Some(96));
}
