//! The path of back-pressure: a snapshot in, a mark on each stage between a full lane and the edge out. Pure.

use std::collections::BTreeMap;

use crate::cli::look::figures::FULL;
use crate::cli::look::nodes::Node;

/// The ways of data, each from the last reader up to the edge: who stands behind sends into the lane of who stands before.
const WAYS: [&[&str]; 2] = [
    &[
        "store.writer",
        "process.otlp",
        "stream_in.consumers",
        LOG,
        "broker_out.producer",
        "ingest.receiver",
        EDGE,
    ],
    &["serve.query", "serve.http"],
];

/// The durable log: what waits there waits on disk, so pressure from behind goes no further than this as a wait.
const LOG: &str = "";
/// The listeners, which answer clients.
const EDGE: &str = "ingest.grpc ingest.http";

/// What pressure does to a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    /// Before it the log on disk takes up what cannot go on: clients notice nothing, the lag grows.
    Spared,
    /// It waits for a stage behind it that has no room.
    Waits,
    /// Its own lane is full.
    Full,
}

/// The stages under pressure, by path.
pub(crate) fn path(root: &Node) -> BTreeMap<&'static str, Mark> {
    let mut marks: BTreeMap<&'static str, Mark> = BTreeMap::new();
    for way in WAYS {
        let mut above = None;
        for stage in way {
            if *stage == LOG {
                above = above.map(|_| Mark::Spared);
                continue;
            }
            for part in stage.split(' ') {
                let mark = if is_full(root, part) { Some(Mark::Full) } else { above };
                if let Some(mark) = mark {
                    marks.insert(part, mark);
                }
            }
            let full = stage.split(' ').any(|part| marks.get(part) == Some(&Mark::Full));
            if full {
                above = Some(Mark::Waits);
            }
        }
    }
    marks
}

/// The path in one line, from the full lane up: `store.writer full ← process.otlp waits ← … ← edge`.
pub(crate) fn sentence(marks: &BTreeMap<&'static str, Mark>) -> Option<String> {
    let mut ways = Vec::new();
    for way in WAYS {
        let mut parts = Vec::new();
        let mut spared = false;
        for stage in way.iter().flat_map(|stage| stage.split(' ')).filter(|stage| !stage.is_empty()) {
            match marks.get(stage) {
                Some(Mark::Full) => parts.push(format!("{stage} FULL")),
                Some(Mark::Waits) => parts.push(format!("{stage} waits")),
                Some(Mark::Spared) => spared = true,
                None => {}
            }
        }
        if spared {
            parts.push("the log on disk takes it up".to_owned());
        }
        if !parts.is_empty() {
            ways.push(parts.join(" ← "));
        }
    }
    (!ways.is_empty()).then(|| ways.join(" · "))
}

/// The mark of a node: its own, or that of the stage it is a member of.
pub(crate) fn mark_of(marks: &BTreeMap<&'static str, Mark>, path: &str) -> Option<Mark> {
    let within =
        |stage: &str| path == stage || path.strip_prefix(stage).is_some_and(|rest| rest.starts_with('.'));
    marks.iter().find(|(stage, _)| within(stage)).map(|(_, mark)| *mark)
}

fn is_full(root: &Node, stage: &str) -> bool {
    let lanes = |node: &Node| node.lanes.iter().any(|lane| lane.fill() >= FULL);
    root.find(stage).is_some_and(|node| node.walk().into_iter().any(lanes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A tree with the stages of the way; `full` of them have a full lane.
    fn tree(full: &[&str]) -> Node {
        let node = |path: &str| {
            let queued = if full.contains(&path) { 59 } else { 10 };
            let lane =
                json!({"name": path, "queued": queued, "capacity": 64, "bytes": 1, "capacity_bytes": 100});
            json!({"path": path, "name": path, "lanes": [lane]})
        };
        let paths = WAYS.iter().flat_map(|way| way.iter()).flat_map(|stage| stage.split(' '));
        let children: Vec<_> = paths.filter(|path| !path.is_empty()).map(node).collect();
        serde_json::from_value(json!({"path": "", "name": "root", "children": children})).unwrap()
    }

    #[test]
    fn a_full_writer_makes_the_stages_before_it_wait_up_to_the_log() {
        let marks = path(&tree(&["store.writer"]));
        assert_eq!(marks["store.writer"], Mark::Full);
        assert_eq!((marks["process.otlp"], marks["stream_in.consumers"]), (Mark::Waits, Mark::Waits));
        for spared in ["broker_out.producer", "ingest.receiver", "ingest.grpc", "ingest.http"] {
            assert_eq!(marks[spared], Mark::Spared, "{spared}");
        }
        assert_eq!(marks.get("serve.query"), None);
        assert_eq!(
            sentence(&marks).unwrap(),
            "store.writer FULL ← process.otlp waits ← stream_in.consumers waits ← the log on disk takes it up"
        );
    }

    #[test]
    fn a_full_producer_reaches_the_clients() {
        let marks = path(&tree(&["broker_out.producer", "ingest.receiver"]));
        assert_eq!((marks["broker_out.producer"], marks["ingest.receiver"]), (Mark::Full, Mark::Full));
        assert_eq!((marks["ingest.grpc"], marks["ingest.http"]), (Mark::Waits, Mark::Waits));
        assert_eq!(marks.get("process.otlp"), None, "pressure goes up, not down");
    }

    #[test]
    fn both_ends_may_be_full_at_once() {
        let marks = path(&tree(&["process.otlp", "broker_out.producer"]));
        assert_eq!((marks["stream_in.consumers"], marks["broker_out.producer"]), (Mark::Waits, Mark::Full));
        assert_eq!((marks["ingest.receiver"], marks["ingest.grpc"]), (Mark::Waits, Mark::Waits));
        assert_eq!(marks.get("store.writer"), None);
    }

    #[test]
    fn queries_have_a_way_of_their_own_and_members_carry_the_mark_of_their_stage() {
        let marks = path(&tree(&["serve.query"]));
        assert_eq!((marks["serve.query"], marks["serve.http"], marks.len()), (Mark::Full, Mark::Waits, 2));
        assert_eq!(mark_of(&marks, "serve.query.3"), Some(Mark::Full));
        assert_eq!((mark_of(&marks, "serve.queryx"), mark_of(&marks, "serve")), (None, None));
        assert_eq!((path(&tree(&[])).len(), sentence(&path(&tree(&[])))), (0, None));
    }

    #[test]
    fn a_lane_is_full_by_its_bytes_too() {
        let mut tree = tree(&[]);
        tree.children[0].lanes[0].bytes = 90;
        assert_eq!(path(&tree)["store.writer"], Mark::Full);
        tree.children[0].lanes[0].bytes = 89;
        assert!(path(&tree).is_empty());
    }
}
