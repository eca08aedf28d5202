//! Rows of a store that is away, for long or again and again. The engine stands behind a door that the test closes.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use serde_json::Value;

use crate::field::{Field, SOON, row};
use crate::support::invariants::Expect;
use crate::support::load::Plan;
use crate::support::store::Store;
use crate::support::watch::Seen;

/// Ten minutes down would be 300 probes at the default of 2 s; here 16 s and a probe each 500 ms, with less of everything.
const SET: [&str; 3] = [
    "supervision.tree.store.writer.breaker.open_after=3",
    "supervision.tree.store.writer.breaker.probe_every=500ms",
    "telemetry.connect_timeout=1s",
];

/// States of the breakers of a writer, in order.
fn breakers(seen: &Seen, path: &str) -> Vec<String> {
    let events = seen.life(1).events.values();
    let of = events.filter(|event| event["path"] == path && event["event"] == "breaker");
    of.map(|event| event["state"].as_str().unwrap_or_default().to_owned()).collect()
}

fn restarts(seen: &Seen) -> usize {
    let is = |event: &&Value| {
        event["event"] == "restart_planned" || event["event"] == "launched" && event["generation"] != 1
    };
    seen.life(1).events.values().filter(is).count()
}

#[test]
fn dependency_down() {
    row("table::stores::dependency_down", |chance, after| {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::start(dir.path());
        let mut field = Field::new(store.options(&SET));
        let load = field.load(&Plan::mixed(500, 14));
        sleep(Duration::from_millis(chance.random_range(1500..2500)));
        assert!(field.sight(&load), "{after}: the store answers");
        let (before, down) = (field.watch.seen().most_lag, Duration::from_secs(10));
        store.close();
        let closed = Instant::now();
        sleep(down);
        // Two writers, each with a breaker of its own; queries are not asked meanwhile.
        let refused = store.refused();
        let most = 2 * (3 + 2 * closed.elapsed().as_secs() + 2) + 8;
        assert!(
            (4..=most).contains(&refused),
            "{after}: {refused} calls of a store that is down, at most {most}"
        );
        let seen = field.watch.seen();
        assert!(seen.most_lag > before + 20, "{after}: lag grows, from {before} to {}", seen.most_lag);
        let degraded = |path: &str| seen.degraded.keys().any(|known| known.starts_with(path));
        assert!(
            degraded("store.writer.") && degraded("stream_in.consumers."),
            "{after}: {:?}",
            seen.degraded
        );
        store.open();
        field.recovers(SOON, after);
        let outcome = field.verify(load, &Expect::default(), after);
        assert_eq!(restarts(&outcome.seen), 0, "{after}: nobody is restarted for it");
        let mut opened = 0;
        for path in ["store.writer.1", "store.writer.2"] {
            let states = breakers(&outcome.seen, path);
            // A writer that had no block meanwhile noticed nothing.
            let Some(last) = states.last() else { continue };
            opened += 1;
            assert_eq!(last, "closed", "{after}: {path} {states:?}");
            // Half open once, then closed: the one probe that got through.
            assert_eq!(states[states.len() - 2], "half_open", "{after}: {path} {states:?}");
            assert_eq!(
                states.iter().filter(|state| *state == "closed").count(),
                1,
                "{after}: {path} {states:?}"
            );
        }
        assert!(opened > 0, "{after}: no breaker opened");
    });
}

#[test]
fn dependency_flaps() {
    row("table::stores::dependency_flaps", |chance, after| {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::start(dir.path());
        let mut field = Field::new(store.options(&SET));
        let load = field.load(&Plan::mixed(500, 10));
        sleep(Duration::from_millis(chance.random_range(1000..2000)));
        let flaps = 4;
        for _ in 0..flaps {
            store.close();
            sleep(Duration::from_millis(chance.random_range(900..1100)));
            store.open();
            sleep(Duration::from_millis(chance.random_range(900..1100)));
        }
        let refused = store.refused();
        // A second down is three failures and at most two probes, for each of two writers with two inserts in hand.
        assert!(refused <= flaps * 2 * 7, "{after}: {refused} calls of a closed door over {flaps} flaps");
        field.sight(&load);
        let outcome = field.verify(load, &Expect::default(), after);
        assert_eq!(restarts(&outcome.seen), 0, "{after}: nobody is restarted for it");
    });
}

/// A store that refuses some rows for good: the real engine, with a rule on a table that some records break.
#[test]
fn a_store_that_refuses_rows_gets_the_others_and_the_refused_are_dead_letters() {
    row("table::stores::a_store_that_refuses", |chance, after| {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::start(dir.path());
        let ladder = ["process.retry.first=0s", "process.retry.second=0s"];
        let mut field = Field::new(store.options(&[&SET[..], &ladder].concat()));
        store.sql("ALTER TABLE obtrace.logs ADD CONSTRAINT refused CHECK NOT endsWith(splitByString(' of batch ', body)[1], '499')");
        let load = field.load(&Plan::logs(chance.random_range(300..500), 5));
        sleep(Duration::from_secs(3));
        field.sight(&load);
        let expect = Expect { dead: Some(|seq| seq % 1000 == 499), ..Expect::default() };
        let outcome = field.verify(load, &expect, after);
        assert_eq!(restarts(&outcome.seen), 0, "{after}: nobody is restarted for it");
    });
}
