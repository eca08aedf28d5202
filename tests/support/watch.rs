//! Looks at a running Obtrace all the time: its lanes, its events, what was fenced; over all the processes of a test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use super::{Obtrace, block_on};

/// Between two looks. What matters is counted by the process itself; this bounds what a kill can hide.
const EVERY: Duration = Duration::from_millis(60);

/// What was seen of one process.
#[derive(Debug, Clone, Default)]
pub struct Life {
    /// Events of its journal by number.
    pub events: BTreeMap<u64, Value>,
    /// Events that were no longer kept when they were asked for.
    pub missed: u64,
    /// Attempts of replaced incarnations, all lanes and workers together.
    pub fenced: u64,
    /// Deliveries that ended without an acknowledgement, by lane.
    pub redelivered: BTreeMap<String, u64>,
    /// Messages refused because a lane was full, by lane.
    pub shed: BTreeMap<String, u64>,
    /// Seconds that messages waited in a lane, summed up.
    pub waited: BTreeMap<String, f64>,
    /// Threads given up.
    pub condemned: u64,
    /// Children aborted.
    pub forced: u64,
}

/// What was seen of all of them.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// By number of the process, from 1.
    pub lives: BTreeMap<u64, Life>,
    /// Most bytes of each lane, and its bound.
    pub peaks: BTreeMap<String, (u64, u64)>,
    /// Most messages of each lane at a look, and its bound.
    pub fills: BTreeMap<String, (u64, u64)>,
    /// Lanes whose bound was changed.
    pub resized: BTreeSet<String>,
    /// Lanes above their bound, in words.
    pub over_full: Vec<String>,
    /// Nodes that were degraded at some time.
    pub degraded: BTreeMap<String, String>,
    /// Committed offset by consumer.
    pub committed: BTreeMap<String, u64>,
    /// Committed offsets that went back, in words.
    pub went_back: Vec<String>,
    /// Most records behind, all consumers together.
    pub most_lag: u64,
    /// Looks that were answered.
    pub looks: u64,
}

/// The onlooker.
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    eye: Eye,
}

#[derive(Clone)]
struct Eye {
    api: String,
    lives: Arc<AtomicU64>,
}

impl Watch {
    /// Starts looking.
    pub fn start(obtrace: &Obtrace) -> Self {
        let eye = Eye { api: obtrace.api.clone(), lives: obtrace.lives.clone() };
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let (book, end, looks) = (seen.clone(), stop.clone(), eye.clone());
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::SeqCst) {
                looks.look(&book);
                sleep(EVERY);
            }
        });
        Self { seen, stop, thread: Some(thread), eye }
    }

    /// Looks once more, now.
    pub fn look(&self) {
        self.eye.look(&self.seen);
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    /// Stops looking.
    pub fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the onlooker");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

impl Eye {
    fn look(&self, seen: &Mutex<Seen>) {
        let life = self.lives.load(Ordering::SeqCst);
        let after = {
            let seen = seen.lock();
            seen.lives.get(&life).and_then(|life| life.events.keys().next_back().copied()).unwrap_or(0)
        };
        let (tree, events) = block_on(async {
            let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().expect("client");
            let ask = async |path: String| -> Option<Value> {
                let answer = client.get(format!("{}{path}", self.api)).send().await.ok()?;
                if answer.status() != 200 {
                    return None;
                }
                answer.json().await.ok()
            };
            let tree = ask("/admin/tree".to_owned()).await;
            (tree, ask(format!("/admin/events?follow=false&after={after}")).await)
        });
        // What was asked of one process may have been answered by the next.
        if self.lives.load(Ordering::SeqCst) != life {
            return;
        }
        let mut seen = seen.lock();
        seen.looks += u64::from(tree.is_some());
        if let Some(events) = events {
            let life = seen.lives.entry(life).or_default();
            if after > 0 {
                life.missed += events["missed"].as_u64().unwrap_or(0);
            }
            for event in events["events"].as_array().into_iter().flatten() {
                life.events.insert(event["seq"].as_u64().unwrap_or(0), event.clone());
            }
        }
        if let Some(tree) = tree {
            seen.take_in(life, &tree);
        }
    }
}

impl Seen {
    fn take_in(&mut self, life: u64, tree: &Value) {
        let mut nodes = Vec::new();
        walk(&tree["root"], &mut nodes);
        let (mut fenced, mut lag) = (0, 0.0);
        let mut lanes = BTreeMap::new();
        for node in &nodes {
            let path = node["path"].as_str().unwrap_or_default().to_owned();
            fenced += node["fenced"].as_u64().unwrap_or(0);
            lag += node["gauges"]["lag"].as_f64().unwrap_or(0.0);
            if node["state"] == "degraded" {
                let why = node["degraded"].as_str().unwrap_or_default();
                self.degraded.insert(path.clone(), why.to_owned());
            }
            if let Some(committed) = node["gauges"]["committed"].as_f64() {
                self.committed_at(&path, committed as u64);
            }
            for lane in node["lanes"].as_array().into_iter().flatten() {
                lanes.insert(lane["name"].as_str().unwrap_or_default().to_owned(), lane);
            }
        }
        self.most_lag = self.most_lag.max(lag as u64);
        for (name, lane) in &lanes {
            self.lane(name, lane);
        }
        let number = |lane: &Value, key: &str| lane[key].as_u64().unwrap_or(0);
        let life = self.lives.entry(life).or_default();
        life.fenced = fenced + lanes.values().map(|lane| number(lane, "fenced")).sum::<u64>();
        for (name, lane) in &lanes {
            life.redelivered.insert(name.clone(), number(lane, "redelivered"));
            life.shed.insert(name.clone(), number(lane, "shed"));
            life.waited.insert(name.clone(), lane["waited_s"].as_f64().unwrap_or(0.0));
        }
        life.condemned = tree["condemned"].as_u64().unwrap_or(0);
        life.forced = tree["forced_aborts"].as_u64().unwrap_or(0);
    }

    fn lane(&mut self, name: &str, lane: &Value) {
        let of = |key: &str| lane[key].as_u64().unwrap_or_default();
        let peak = self.peaks.entry(name.to_owned()).or_default();
        *peak = (peak.0.max(of("peak_bytes")), peak.1.max(of("capacity_bytes")));
        // The peak counts under the present bounds, so this holds after a change of them as well. A lane of less than one
        // KiB takes one.
        if of("peak_bytes") > of("capacity_bytes").max(1024) {
            self.over_full.push(format!("{name}: {lane}"));
        }
        let fill = self.fills.entry(name.to_owned()).or_default();
        if fill.1 != 0 && fill.1 != of("capacity") {
            self.resized.insert(name.to_owned());
        }
        let now = of("queued") + of("leased");
        *fill = (fill.0.max(now), of("capacity"));
        // Of one that was made smaller, what was in it before may still be on its way out.
        if now > of("capacity") && !self.resized.contains(name) {
            self.over_full.push(format!("{name}: {lane}"));
        }
    }

    fn committed_at(&mut self, path: &str, offset: u64) {
        let before = self.committed.entry(path.to_owned()).or_default();
        if offset < *before {
            self.went_back.push(format!("{path}: from {before} to {offset}"));
        }
        *before = offset;
    }

    /// What was seen of one process; of one that nobody saw, nothing.
    pub fn life(&self, number: u64) -> &Life {
        static NOTHING: LazyLock<Life> = LazyLock::new(Life::default);
        self.lives.get(&number).unwrap_or(&NOTHING)
    }

    /// What happened after everything was up, for a failed test to show.
    pub fn story(&self) -> Vec<String> {
        let starts = ["launched", "ready"];
        let told =
            self.lives.iter().flat_map(|(life, one)| one.events.values().map(move |event| (life, event)));
        let told = told.filter(|(_, event)| {
            event["generation"] != 1 || !event["event"].as_str().is_some_and(|kind| starts.contains(&kind))
        });
        told.map(|(life, event)| format!("{life}: {event}")).collect()
    }

    /// All lives together.
    pub fn sum(&self, of: impl Fn(&Life) -> u64) -> u64 {
        self.lives.values().map(of).sum()
    }
}

fn walk<'a>(node: &'a Value, nodes: &mut Vec<&'a Value>) {
    nodes.push(node);
    node["children"].as_array().into_iter().flatten().for_each(|child| walk(child, nodes));
}
