//! What `top` knows and what the keys do to it: looks at the process in, rows in their order out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::readings::Readings;
use crate::cli::look::nodes::Node;
use crate::clock;

/// Events kept for the pane.
const EVENTS: usize = 200;

/// One look at the process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    /// When, on a clock that does not jump.
    pub(crate) at: Duration,
    /// Wall time, Unix nanoseconds.
    pub(crate) wall_ns: u64,
    /// The tree.
    pub(crate) root: Node,
    /// Its counters.
    pub(crate) readings: Readings,
}

/// What rows are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// As in the tree.
    Tree,
    /// Fullest lane first.
    Fill,
    /// Most handled per second first.
    Rate,
    /// Busiest first.
    Busy,
    /// Most restarts first.
    Restarts,
}

impl Sort {
    /// The next one, round and round.
    fn next(self) -> Self {
        match self {
            Self::Tree => Self::Fill,
            Self::Fill => Self::Rate,
            Self::Rate => Self::Busy,
            Self::Busy => Self::Restarts,
            Self::Restarts => Self::Tree,
        }
    }

    /// Its name in the footer.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Fill => "fill",
            Self::Rate => "rate",
            Self::Busy => "busy",
            Self::Restarts => "restarts",
        }
    }
}

/// What a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// One row up.
    Up,
    /// One row down.
    Down,
    /// Closes the node, or goes to the one above it.
    Close,
    /// Opens the node.
    Open,
    /// Closes an open node and opens a closed one.
    Toggle,
    /// The next order.
    Sort,
    /// Stands still, or goes on.
    Pause,
    /// The pane of events, or none.
    Events,
    /// Ends.
    Quit,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'m> {
    /// The node.
    pub(crate) node: &'m Node,
    /// How deep it stands; 0 where the order is not the tree's.
    pub(crate) depth: usize,
    /// True where members or children are not shown.
    pub(crate) closed: bool,
}

/// All that is known.
#[derive(Debug)]
pub(crate) struct Model {
    /// Where the process is.
    pub(crate) api: String,
    /// Where its clock starts.
    pub(crate) since: Instant,
    /// The newest look.
    pub(crate) now: Look,
    before: Option<Look>,
    /// What went wrong with the newest look, if something did.
    pub(crate) trouble: Option<String>,
    /// The newest events, oldest first.
    pub(crate) events: VecDeque<Value>,
    /// Number of the newest event.
    pub(crate) seq: u64,
    /// Path of the row the cursor is on.
    pub(crate) picked: String,
    /// The order of the rows.
    pub(crate) sort: Sort,
    /// True while nothing is fetched.
    pub(crate) paused: bool,
    /// Whether the pane of events is there.
    pub(crate) events_shown: bool,
    opened: BTreeSet<String>,
    closed: BTreeSet<String>,
}

impl Model {
    /// Nothing known yet.
    pub(crate) fn new(api: &str) -> Self {
        Self {
            api: api.to_owned(),
            since: clock::now(),
            now: Look::default(),
            before: None,
            trouble: None,
            events: VecDeque::new(),
            seq: 0,
            picked: String::new(),
            sort: Sort::Tree,
            paused: false,
            events_shown: true,
            opened: BTreeSet::new(),
            closed: BTreeSet::new(),
        }
    }

    /// Takes a new look in. One at a process that was started anew does not measure against the old one.
    pub(crate) fn seen(&mut self, look: Look) {
        // What was handled says nothing of that: with the end of a connection goes what its session handled.
        let again =
            look.root.since_s < self.now.root.since_s || look.readings.ingested < self.now.readings.ingested;
        let old = std::mem::replace(&mut self.now, look);
        self.before = (!again && old.wall_ns > 0).then_some(old);
        self.trouble = None;
    }

    /// Takes events in, as `/admin/events?follow=false` lists them.
    pub(crate) fn happened(&mut self, listed: &Value) {
        if listed["restarted"] == Value::Bool(true) {
            self.seq = 0;
        }
        for event in listed["events"].as_array().into_iter().flatten() {
            self.seq = event["seq"].as_u64().unwrap_or(self.seq);
            if self.events.len() == EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(event.clone());
        }
    }

    /// How much a reading grew in a second.
    pub(crate) fn per_second(&self, reading: impl Fn(&Look) -> f64) -> Option<f64> {
        let before = self.before.as_ref()?;
        let took = self.now.at.saturating_sub(before.at).as_secs_f64();
        (took > 0.0).then(|| ((reading(&self.now) - reading(before)) / took).max(0.0))
    }

    /// What a node handled in a second, members included.
    pub(crate) fn rate(&self, path: &str) -> Option<f64> {
        self.per_second(|look| look.root.find(path).map_or(0.0, |node| node.total_handled() as f64))
    }

    /// The time under which 99 of 100 acknowledgements since the look before were.
    pub(crate) fn ack_p99(&self) -> Option<f64> {
        self.now.readings.ack_quantile(&self.before.as_ref()?.readings, 0.99)
    }

    fn is_closed(&self, node: &Node) -> bool {
        match node.children.is_empty() {
            true => false,
            false if node.is_crowd() => !self.opened.contains(&node.path),
            false => self.closed.contains(&node.path),
        }
    }

    /// The rows in their order.
    pub(crate) fn rows(&self) -> Vec<Row<'_>> {
        let mut rows = Vec::new();
        self.collect(&mut rows, &self.now.root, 0);
        if self.sort != Sort::Tree {
            rows.retain(|row| row.closed || row.node.children.is_empty());
            rows.iter_mut().for_each(|row| row.depth = 0);
            let weights: BTreeMap<&str, f64> =
                rows.iter().map(|row| (row.node.path.as_str(), self.weight(row.node))).collect();
            // Stable: equal rows keep the order of the tree.
            rows.sort_by(|a, b| weights[b.node.path.as_str()].total_cmp(&weights[a.node.path.as_str()]));
        }
        rows
    }

    fn collect<'m>(&'m self, rows: &mut Vec<Row<'m>>, node: &'m Node, depth: usize) {
        let closed = self.is_closed(node);
        rows.push(Row { node, depth, closed });
        if !closed {
            node.children.iter().for_each(|child| self.collect(rows, child, depth + 1));
        }
    }

    fn weight(&self, node: &Node) -> f64 {
        match self.sort {
            Sort::Tree => 0.0,
            Sort::Fill => node.own_lanes().iter().map(|lane| lane.fill()).fold(0.0, f64::max),
            Sort::Rate => self.rate(&node.path).unwrap_or_default(),
            Sort::Busy => node.busy().unwrap_or_default(),
            Sort::Restarts => node.total_restarts() as f64,
        }
    }

    /// Place of the cursor among `rows`.
    pub(crate) fn cursor(&self, rows: &[Row<'_>]) -> usize {
        rows.iter().position(|row| row.node.path == self.picked).unwrap_or_default()
    }

    /// Does what a key means. False when that is the end.
    pub(crate) fn press(&mut self, key: Key) -> bool {
        match key {
            Key::Quit => return false,
            Key::Pause => self.paused = !self.paused,
            Key::Events => self.events_shown = !self.events_shown,
            Key::Sort => self.sort = self.sort.next(),
            Key::Up | Key::Down => {
                let rows = self.rows();
                let at = self.cursor(&rows);
                let to = if key == Key::Up {
                    at.saturating_sub(1)
                } else {
                    (at + 1).min(rows.len().saturating_sub(1))
                };
                let path = rows.get(to).map(|row| row.node.path.clone());
                self.picked = path.unwrap_or_default();
            }
            Key::Open | Key::Close | Key::Toggle => self.turn(key),
        }
        true
    }

    fn turn(&mut self, key: Key) {
        let Some(node) = self.now.root.find(&self.picked) else { return };
        let (path, crowd, closed) = (node.path.clone(), node.is_crowd(), self.is_closed(node));
        let open = match key {
            Key::Open => true,
            Key::Close => false,
            _ => closed,
        };
        if key == Key::Close && (closed || node.children.is_empty()) {
            self.picked = path.rsplit_once('.').map_or(String::new(), |(above, _)| above.to_owned());
            return;
        }
        // A crowd is closed unless opened, any other node the other way round.
        let (set, insert) = if crowd { (&mut self.opened, open) } else { (&mut self.closed, !open) };
        if insert {
            set.insert(path);
        } else {
            set.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn look(seconds: u64, handled: u64, ingested: f64) -> Look {
        let worker = |path: &str, handled: u64| {
            let name = path.rsplit('.').next().unwrap();
            json!({"path": path, "name": name, "kind": "worker", "state": "running", "handled": handled})
        };
        let root = json!({"path": "", "name": "root", "kind": "supervisor", "since_s": seconds, "children": [
            {"path": "store", "name": "store", "kind": "supervisor", "children": [
                worker("store.engine", 1),
                {"path": "store.writer", "name": "writer", "kind": "supervisor",
                 "children": [worker("store.writer.1", handled), worker("store.writer.2", 0)]}]},
            worker("serve", 2)]});
        Look {
            at: Duration::from_secs(seconds),
            wall_ns: 1 + seconds,
            root: serde_json::from_value(root).unwrap(),
            readings: Readings { ingested, ..Readings::default() },
        }
    }

    fn model() -> Model {
        let mut model = Model::new("http://x");
        model.seen(look(10, 100, 1000.0));
        model.seen(look(12, 150, 3000.0));
        model
    }

    fn paths(model: &Model) -> Vec<&str> {
        model.rows().iter().map(|row| row.node.path.as_str()).collect()
    }

    #[test]
    fn rates_are_per_second_between_two_looks() {
        let model = model();
        assert_eq!(model.per_second(|look| look.readings.ingested), Some(1000.0));
        assert_eq!(model.rate("store.writer"), Some(25.0));
        let mut fresh = Model::new("http://x");
        assert_eq!(fresh.rate("serve"), None);
        fresh.seen(look(1, 5, 5.0));
        assert_eq!(fresh.rate("serve"), None, "one look has no rate");
    }

    #[test]
    fn the_end_of_a_connection_is_no_restart_of_the_process() {
        let mut model = model();
        model.seen(look(14, 3, 5000.0));
        assert_eq!(model.per_second(|look| look.readings.ingested), Some(1000.0));
        assert_eq!(model.rate("store.writer"), Some(0.0), "less was handled by those who are left");
    }

    #[test]
    fn a_process_started_anew_is_not_measured_against_the_old_one() {
        // Nothing was sent to either of them.
        let mut idle = Model::new("http://x");
        idle.seen(look(10, 0, 0.0));
        idle.seen(Look { at: Duration::from_secs(12), ..look(1, 7, 0.0) });
        assert_eq!(idle.rate("store.writer"), None);
        let mut model = model();
        model.seen(look(14, 3, 10.0));
        assert_eq!(model.per_second(|look| look.readings.ingested), None);
        model.seen(look(15, 13, 20.0));
        assert_eq!(model.rate("store.writer"), Some(10.0));
    }

    #[test]
    fn keys_walk_open_and_close() {
        let mut model = model();
        assert_eq!(paths(&model), ["", "store", "store.engine", "store.writer", "serve"]);
        (0..3).for_each(|_| assert!(model.press(Key::Down)));
        model.press(Key::Open);
        assert_eq!(paths(&model)[3..], ["store.writer", "store.writer.1", "store.writer.2", "serve"]);
        model.press(Key::Toggle);
        assert_eq!(paths(&model).len(), 5);
        model.press(Key::Close);
        assert_eq!(model.picked, "store", "closing what is closed goes up");
        model.press(Key::Close);
        assert_eq!(paths(&model), ["", "store", "serve"]);
        (0..9).for_each(|_| assert!(model.press(Key::Down)));
        assert_eq!(model.picked, "serve");
        (0..9).for_each(|_| assert!(model.press(Key::Up)));
        assert_eq!(model.picked, "");
        assert!(!model.press(Key::Quit));
    }

    #[test]
    fn sorted_rows_are_flat_and_the_heaviest_stands_first() {
        let mut model = model();
        model.press(Key::Sort);
        model.press(Key::Sort);
        assert_eq!((model.sort, paths(&model)), (Sort::Rate, vec!["store.writer", "store.engine", "serve"]));
        (0..3).for_each(|_| assert!(model.press(Key::Sort)));
        assert_eq!(model.sort, Sort::Tree);
    }

    #[test]
    fn events_are_kept_in_number_and_a_restart_begins_anew() {
        let mut model = model();
        let many: Vec<Value> = (1..=300).map(|seq| json!({"seq": seq})).collect();
        model.happened(&json!({"events": many}));
        assert_eq!(
            (model.events.len(), model.seq, model.events[0]["seq"].as_u64()),
            (EVENTS, 300, Some(101))
        );
        model.happened(&json!({"restarted": true, "events": [{"seq": 1}]}));
        assert_eq!(model.seq, 1);
    }
}
