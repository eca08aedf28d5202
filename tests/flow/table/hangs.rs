//! Rows of hangs: a future that never resolves, and a thread that is blocked.

use std::time::Instant;

use rand::RngExt as _;

use super::panics::planted;
use crate::field::{Field, SOON, row};
use crate::support::invariants::{Crash, Expect};
use crate::support::load::Plan;

/// Quick, but not so quick that a machine that is busy with other things looks blocked; and it may look so now and then.
pub(super) const WATCHDOG: [&str; 3] = [
    "supervision.watchdog.beat_every=100ms",
    "supervision.watchdog.condemn_after=5s",
    "supervision.watchdog.max_condemned=100",
];

#[test]
fn await_hang() {
    row("table::hangs::await_hang", |chance, after| {
        // The worker stalls over its work, the writer in a declared wait.
        let (point, path) =
            [("worker.await", "process.otlp"), ("writer.insert", "store.writer")][chance.random_range(0..2)];
        let plan = format!("{point}=hang@{}*1", chance.random_range(2..10));
        let patience = [
            format!("supervision.tree.{path}.liveness.stall_after=3s"),
            format!("supervision.tree.{path}.liveness.wait_after=4s"),
        ];
        let mut field = Field::new(planted(&plan, &patience.each_ref().map(String::as_str)));
        let load = field.load(&Plan::mixed(600, 5));
        let stalled = |kind: &'static str| {
            move |seen: &crate::support::watch::Seen| {
                seen.life(1).events.values().any(|event| event["event"] == kind)
            }
        };
        field.until(&format!("{after}: {plan} is noticed"), SOON, stalled("stalled"));
        field.sight(&load);
        // On a machine that is busy with other things, a block may take as long by itself.
        let expect = Expect { crash: |crash| crash.reason == "stalled", crashes: 1..=3, ..Expect::default() };
        let outcome = field.verify(load, &expect, after);
        let crashes = &outcome.crashes;
        assert!(crashes.iter().all(|crash| crash.path.starts_with(path)), "{after}: {crashes:?}");
        let redelivered = outcome.seen.sum(|life| life.redelivered[path]);
        assert!(
            (1..=2).contains(&redelivered),
            "{after}: what it held was delivered again, {redelivered} times"
        );
    });
}

#[test]
fn blocking_hang() {
    row("table::hangs::blocking_hang", |chance, after| {
        // Between the store's answer and the log's, or with rows in hand: both write when they wake up.
        let (point, pool, blamed) = [
            ("writer.insert", "store", "store.writer."),
            ("consumer.before_commit", "stream", "stream_in.consumers."),
        ][chance.random_range(0..2)];
        let plan = format!("{point}=stall12s@{}*1", chance.random_range(2..10));
        let mut field = Field::new(planted(&plan, &WATCHDOG));
        let load = field.load(&Plan::mixed(600, 6));
        field.until(&format!("{after}: the thread of {plan} is given up"), SOON, |seen| {
            seen.sum(|life| life.condemned) >= 1
        });
        field.recovers(SOON, after);
        field.sight(&load);
        field.until(
            &format!("{after}: the zombie of {plan} wakes up and is kept from writing"),
            SOON,
            |seen| seen.sum(|life| life.fenced) >= 1,
        );
        let expect = Expect {
            crash: |crash: &Crash| crash.reason == "stalled",
            crashes: 1..=5,
            fenced: 1..=8,
            ..Expect::default()
        };
        let outcome = field.verify(load, &expect, after);
        let is_blamed = outcome.crashes.iter().any(|crash| crash.path.starts_with(blamed));
        assert!(is_blamed, "{after}: {:?}", outcome.crashes);
        let displaced = |path: &str| {
            let events = outcome.seen.life(1).events.values();
            events.filter(|event| event["path"] == path && event["reason"] == "displaced").count()
        };
        let sibling =
            if pool == "store" { "broker_out.producer" } else { "stream_in.consumers.retry-1m-logs" };
        assert!(displaced(sibling) >= 1, "{after}: who sat beside it is started elsewhere, without blame");
    });
}

#[test]
fn blocked_query() {
    row("table::hangs::blocked_query", |chance, after| {
        // A query holds the thread that the listener of the API lives on as well.
        let plan = format!("query.before=stall12s@{}*1", chance.random_range(2..10));
        let mut field = Field::new(planted(&plan, &WATCHDOG));
        let load = field.load(&Plan::mixed(600, 6));
        let displaced = |seen: &crate::support::watch::Seen| {
            seen.life(1)
                .events
                .values()
                .any(|event| event["path"] == "serve.http" && event["reason"] == "displaced")
        };
        let until = Instant::now() + SOON;
        while !displaced(&field.watch.seen()) {
            assert!(Instant::now() < until, "{after}: {plan}: the listener stays where it is");
            field.sight(&load);
        }
        // It has its port again although nobody could tell the one before to let go of it.
        field.recovers(SOON, after);
        assert!(field.sight(&load), "{after}: queries are answered again");
        let expect = Expect {
            crash: |crash: &Crash| crash.reason == "stalled",
            crashes: 1..=5,
            fenced: 0..=8,
            ..Expect::default()
        };
        let outcome = field.verify(load, &expect, after);
        let is_blamed = outcome.crashes.iter().any(|crash| crash.path.starts_with("serve.query"));
        assert!(is_blamed, "{after}: {:?}", outcome.crashes);
    });
}
