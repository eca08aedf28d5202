//! A soak: faults of every kind at random moments, one after the other and two at once, while load runs.
//!
//! The seed is printed and `OBTRACE_SOAK_SEED` replays it; `OBTRACE_SOAK_SECONDS` sets the length (two minutes here).

use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::faults::Fault;
use crate::field::{Field, SOON};
use crate::support::invariants::Expect;
use crate::support::load::Plan;
use crate::support::{Options, number};

#[test]
fn random_faults_cost_nothing() {
    let seed = number("OBTRACE_SOAK_SEED").unwrap_or_else(rand::random);
    let seconds = number("OBTRACE_SOAK_SECONDS").unwrap_or(120);
    println!("seed {seed}: OBTRACE_SOAK_SEED={seed} OBTRACE_SOAK_SECONDS={seconds} replays it");
    let mut chance = StdRng::seed_from_u64(seed);
    let mut field = Field::new(Options::default());
    let load = field.load(&Plan { batch: 100, ..Plan::mixed(2000, seconds) });
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut suffered = 0;
    while Instant::now() < until {
        sleep(Duration::from_millis(chance.random_range(200..2500)));
        // Now and then the next fault comes before the last one is healed.
        let fault = Fault::MIXED[chance.random_range(0..Fault::MIXED.len())];
        println!("{fault:?}");
        field.suffer(fault);
        suffered += 1;
        if chance.random_bool(0.7) {
            field.recovers(SOON, &format!("seed {seed}, fault {suffered}, {fault:?}"));
            if suffered % 10 == 0 {
                field.sight(&load);
            }
        }
    }
    assert!(suffered > 3, "seed {seed}: only {suffered} faults in {seconds} s");
    field.verify(load, &Expect::default(), &format!("seed {seed}, {suffered} faults"));
}
