//! Rows of ends: SIGTERM under load, SIGTERM with a child that hangs, kill -9.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::panics::planted;
use crate::faults::Fault;
use crate::field::{Field, SOON, once, row};
use crate::support::Options;
use crate::support::invariants::Expect;
use crate::support::load::Plan;

#[test]
fn sigterm_under_load() {
    row("table::stops::sigterm_under_load", |chance, after| {
        let budget = Duration::from_secs(20);
        let said = tempfile::NamedTempFile::new().expect("a file");
        let options = Options {
            set: vec![format!("supervision.shutdown_budget={}s", budget.as_secs())],
            stderr: Some(said.path().to_owned()),
            ..Options::default()
        };
        let mut field = Field::new(options);
        let load = field.load(&Plan::mixed(1500, 8));
        for _ in 0..2 {
            sleep(Duration::from_millis(chance.random_range(800..2200)));
            field.sight(&load);
            let asked = Instant::now();
            assert_eq!(field.obtrace.stop().code(), Some(0), "{after}: in order");
            assert!(asked.elapsed() < budget, "{after}: it took {:?}", asked.elapsed());
            field.obtrace.restart();
            field.recovers(SOON, after);
        }
        let text = std::fs::read_to_string(said.path()).expect("what it said");
        assert!(!text.contains("aborting it") && !text.contains("did not stop in order"), "{after}: {text}");
        field.verify(load, &Expect::default(), after);
    });
}

#[test]
fn sigterm_with_a_hung_child() {
    row("table::stops::sigterm_with_a_hung_child", |chance, after| {
        let said = tempfile::NamedTempFile::new().expect("a file");
        // A worker that hangs is let go by its consumer as that drains; a writer has nobody to wait for.
        let set = [
            "supervision.tree.store.writer.liveness.stall_after=0s",
            "supervision.tree.store.writer.liveness.wait_after=0s",
            "supervision.tree.store.writer.stop.drain=2s",
            "supervision.tree.store.writer.stop.kill=1s",
        ];
        let plan = format!("writer.insert=hang@{}*1", chance.random_range(3..9));
        let mut options = planted(&plan, &set);
        options.stderr = Some(said.path().to_owned());
        let mut field = Field::new(options);
        let load = field.load(&Plan::mixed(600, 6));
        sleep(Duration::from_secs(4));
        field.sight(&load);
        assert_eq!(field.obtrace.stop().code(), Some(75), "{after}: {plan}");
        let text = std::fs::read_to_string(said.path()).expect("what it said");
        let last = text.lines().rev().find(|line| line.contains("aborted: "));
        let last = last.unwrap_or_else(|| panic!("{after}: nobody is named: {text}"));
        let named = last.split("aborted: ").nth(1).unwrap_or_default().trim();
        assert!(named.starts_with("store.writer.") && !named.contains(','), "{after}: named is {named:?}");
        field.obtrace.options.env.retain(|(name, _)| name != "OBTRACE_CHAOS");
        field.obtrace.restart();
        field.verify(load, &Expect::default(), after);
    });
}

#[test]
fn kill_9() {
    once("table::stops::kill_9", 15, |chance: &mut StdRng, rounds, after| {
        let mut field = Field::new(Options::default());
        let rate = if rounds > 20 { 600 } else { 2000 };
        let load = field.load(&Plan { batch: 100, ..Plan::mixed(rate, rounds * 3 + 5) });
        for round in 0..rounds {
            // Any moment of the block cycle.
            sleep(Duration::from_millis(chance.random_range(300..1700)));
            let fault = [Fault::KillMain, Fault::KillMain, Fault::KillEngine, Fault::KillBoth];
            field.suffer(fault[chance.random_range(0..4)]);
            if round == rounds / 2 {
                field.recovers(SOON, after);
                field.sight(&load);
            }
        }
        let outcome = field.verify(load, &Expect::default(), after);
        println!("{after}: {rounds} kills, {} records", outcome.report["accepted"]);
    });
}
