//! Faults on the whole process while load runs, one test a kind: after each, what was acknowledged is stored, once.
//!
//! The kinds are those rows of the reliability table that one machine can show: kill -9, an engine that is down, slow or
//! flapping, a full disk, a clock that jumps, torn files, SIGTERM, SIGSTOP. Each test repeats its fault a few times here
//! and `OBTRACE_CHAOS_ROUNDS` times by `make chaos`; `soak.rs` mixes them by a seed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::field::{Field, SOON, rounds};
use crate::support::Options;
use crate::support::invariants::Expect;
use crate::support::load::Plan;

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
    /// No byte is free for some seconds on the log's disk, which is one of its own.
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

impl Field {
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

/// One kind of fault, again and again, at other moments of the block cycle each time.
fn withstands(fault: Fault, short: u64, disk: Option<(&str, u32)>) {
    let Some(mut field) = Field::on(Options::default(), disk) else { return };
    let rounds = rounds(short);
    // Long runs at a rate whose records can still be compared one by one.
    let rate = if rounds > 10 { 400 } else { 2000 };
    let load = field.load(&Plan { batch: 100, ..Plan::mixed(rate, rounds * 9 + 4) });
    for round in 0..rounds {
        sleep(Duration::from_millis(900 + round * 137 % 900));
        field.suffer(fault);
        field.recovers(SOON, &format!("{fault:?}, round {round}"));
        if round % 5 == 0 && round < 20 {
            field.sight(&load);
        }
    }
    field.verify(load, &Expect::default(), &format!("{fault:?} × {rounds}"));
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
fn torn_files_are_cut_and_cost_nothing() {
    withstands(Fault::TornFiles, 3, None);
}

#[test]
fn a_clock_that_jumps_costs_nothing() {
    withstands(Fault::ClockJumps, 2, None);
}

#[test]
fn a_full_disk_refuses_for_a_while_and_costs_nothing() {
    withstands(Fault::DiskFull, 2, Some(("log", 96)));
}
