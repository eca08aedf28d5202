//! The row of a stage that is fifty times slower: back-pressure, and no restart.

use rand::RngExt as _;

use super::panics::planted;
use crate::field::{Field, SOON, row};
use crate::support::invariants::Expect;
use crate::support::load::Plan;

#[test]
fn slow() {
    row("table::pressure::slow", |chance, after| {
        // An insert takes some ms, an append about one.
        let insert = chance.random_range(300..500);
        let append = chance.random_range(80..160);
        let plan = format!("writer.insert=wait{insert}ms@1,producer.await=wait{append}ms@1");
        let mut field = Field::new(planted(
            &plan,
            &[
                "process.linger=100ms",
                "supervision.tree.store.writer.replicas=1",
                "supervision.tree.store.writer.lane.capacity=2",
                "supervision.tree.process.otlp.lane.capacity=2",
                "supervision.tree.ingest.receiver.lane.capacity=4",
                "supervision.tree.ingest.receiver.lane.overflow=shed_newest",
                "supervision.tree.ingest.receiver.lane.bytes=1MiB",
            ],
        ));
        let load = field.load(&Plan { batch: 20, ..Plan::mixed(1500, 6) });
        field.until(&format!("{after}: the lanes fill ({plan})"), SOON, |seen| {
            let full =
                |lane: &str| seen.fills.get(lane).is_some_and(|(most, bound)| most >= bound && *bound > 0);
            full("store.writer") && seen.sum(|life| *life.shed.get("ingest.receiver").unwrap_or(&0)) > 0
        });
        field.sight(&load);
        let outcome = field.verify(load, &Expect::default(), after);
        let life = outcome.seen.life(1);
        assert!(
            life.waited["store.writer"] > 0.0,
            "{after}: who sends to the slow one waits: {:?}",
            life.waited
        );
        assert!(life.shed["ingest.receiver"] > 0, "{after}: the edge refuses by its rule");
        let restarts = life.events.values().filter(|event| event["event"] == "restart_planned").count();
        assert_eq!(restarts, 0, "{after}: slow is no fault");
    });
}
