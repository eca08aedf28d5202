//! The tree as `GET /admin/tree` tells it, in the words of this program's version; unknown members are passed over.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The snapshot's version this program was built with.
pub(crate) use crate::supervisors::kernel::snapshot::SNAPSHOT_VERSION;

/// States that an operator should know of, the worst first.
const AMISS: [&str; 7] =
    ["quarantined", "backing_off", "degraded", "starting", "draining", "drained", "paused"];

/// A node and everything below it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) since_s: u64,
    pub(crate) generation: u64,
    pub(crate) restarts: u64,
    pub(crate) strategy: String,
    pub(crate) window: Option<Window>,
    pub(crate) handled: u64,
    pub(crate) busy_ratio: Option<f64>,
    pub(crate) gauges: BTreeMap<String, f64>,
    pub(crate) breaker: Option<Value>,
    pub(crate) paused: bool,
    pub(crate) quarantine_left_s: Option<f64>,
    pub(crate) degraded: Option<String>,
    pub(crate) last_failure: Option<String>,
    pub(crate) last_failure_at: Option<u64>,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) crowd: Option<Crowd>,
    pub(crate) children: Vec<Node>,
}

/// The members of a group that are too many to be listed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Crowd {
    pub(crate) members: u64,
    pub(crate) shown: u64,
    pub(crate) states: BTreeMap<String, u64>,
    pub(crate) restarts: u64,
    pub(crate) handled: u64,
    pub(crate) busy_ratio: f64,
    pub(crate) gauges: BTreeMap<String, f64>,
    pub(crate) lane: Option<Lane>,
}

/// How much of the restart budget is spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Window {
    pub(crate) spent: u64,
    pub(crate) intensity: u64,
    pub(crate) period_s: f64,
}

/// A lane that a node reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Lane {
    pub(crate) name: String,
    pub(crate) queued: u64,
    pub(crate) leased: u64,
    pub(crate) capacity: u64,
    pub(crate) bytes: u64,
    pub(crate) capacity_bytes: u64,
    pub(crate) poisoned: u64,
    pub(crate) dropped: u64,
    pub(crate) shed: u64,
}

impl Lane {
    /// Messages in it, waiting or in hand.
    pub(crate) fn resident(&self) -> u64 {
        self.queued + self.leased
    }

    /// How full it is, by the nearer of its two bounds.
    pub(crate) fn fill(&self) -> f64 {
        self.fill_messages().max(self.fill_bytes())
    }

    /// How full it is in messages.
    pub(crate) fn fill_messages(&self) -> f64 {
        share(self.resident(), self.capacity)
    }

    /// How full it is in bytes.
    pub(crate) fn fill_bytes(&self) -> f64 {
        share(self.bytes, self.capacity_bytes)
    }
}

/// A number in groups of three digits.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let ends = digits.char_indices().map(|(at, digit)| {
        let comma = at > 0 && (digits.len() - at).is_multiple_of(3);
        if comma { format!(",{digit}") } else { digit.to_string() }
    });
    ends.collect()
}

fn share(n: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { n as f64 / of as f64 }
}

/// Reads a snapshot.
///
/// # Errors
/// It is none, or one of a newer version, whose words may mean something else.
pub(crate) fn read(snapshot: &Value) -> Result<Node, String> {
    let version = snapshot["version"].as_u64().unwrap_or_default();
    if version != u64::from(SNAPSHOT_VERSION) {
        return Err(format!(
            "the tree comes in version {version} and this program knows {SNAPSHOT_VERSION}: use the program of the \
             same release, or --json"
        ));
    }
    Node::deserialize(&snapshot["root"]).map_err(|error| format!("the tree cannot be read: {error}"))
}

impl Node {
    /// `Running`, or what an operator should know before.
    pub(crate) fn shown_state(&self) -> &str {
        if self.paused && self.state == "running" { "paused" } else { &self.state }
    }

    /// How many are in a state: it and all below it, members that are not listed included.
    pub(crate) fn count_of(&self, state: &str) -> u64 {
        let members = || self.children.iter().map(|child| child.count_of(state)).sum();
        let unlisted = |crowd: &Crowd| crowd.states.get(state).copied().unwrap_or_default();
        u64::from(self.shown_state() == state) + self.crowd.as_ref().map_or_else(members, unlisted)
    }

    /// The state that matters most, of it and of all below it.
    pub(crate) fn worst(&self) -> &str {
        let mut states = AMISS.into_iter();
        // In a crowd also that somebody is down for good; elsewhere that is how some parts end.
        let stopped = || Some("stopped").filter(|state| self.is_crowd() && self.count_of(state) > 0);
        let worst = states.find(|state| self.count_of(state) > 0).or_else(stopped);
        worst.unwrap_or_else(|| self.shown_state())
    }

    /// True for a dynamic group and for workers side by side (`writer` over `writer.1`, `writer.2`): what is shown in one
    /// line unless asked otherwise.
    pub(crate) fn is_crowd(&self) -> bool {
        let numbered = |(n, child): (usize, &Node)| {
            child.children.is_empty() && child.name.parse() == Ok(n + 1) && child.kind == "worker"
        };
        let replicas = !self.children.is_empty() && self.children.iter().enumerate().all(numbered);
        self.kind == "group" || replicas
    }

    /// Its members, whether they are listed or not.
    pub(crate) fn members(&self) -> u64 {
        self.crowd.as_ref().map_or(self.children.len() as u64, |crowd| crowd.members)
    }

    /// Its lanes, or those of its members: each once, since members side by side read the same one.
    pub(crate) fn own_lanes(&self) -> Vec<&Lane> {
        if let Some(crowd) = &self.crowd {
            return crowd.lane.iter().collect();
        }
        let members = if self.is_crowd() { self.children.as_slice() } else { &[] };
        let mut lanes: Vec<&Lane> = Vec::new();
        for lane in self.lanes.iter().chain(members.iter().flat_map(|member| &member.lanes)) {
            if lanes.iter().all(|known| known.name != lane.name) {
                lanes.push(lane);
            }
        }
        lanes
    }

    /// What it handled, members included. A lane that members share is counted once.
    pub(crate) fn total_handled(&self) -> u64 {
        let members = || self.children.iter().map(Node::total_handled).sum();
        self.handled + self.crowd.as_ref().map_or_else(members, |crowd| crowd.handled)
    }

    /// Restarts of itself and of all below.
    pub(crate) fn total_restarts(&self) -> u64 {
        let members = || self.children.iter().map(Node::total_restarts).sum();
        self.restarts + self.crowd.as_ref().map_or_else(members, |crowd| crowd.restarts)
    }

    /// A gauge: its own, or the sum over its members.
    pub(crate) fn gauge(&self, name: &str) -> Option<f64> {
        let known = self.gauges.get(name).or_else(|| self.crowd.as_ref()?.gauges.get(name)).copied();
        let members = self.children.iter().filter_map(|child| child.gauges.get(name)).copied();
        known.or_else(|| members.reduce(|a, b| a + b))
    }

    /// How busy it is; of several members the mean.
    pub(crate) fn busy(&self) -> Option<f64> {
        if let Some(crowd) = &self.crowd {
            return Some(crowd.busy_ratio);
        }
        let members: Vec<f64> = self.children.iter().filter_map(|child| child.busy_ratio).collect();
        let mean = || (!members.is_empty()).then(|| members.iter().sum::<f64>() / members.len() as f64);
        self.busy_ratio.filter(|_| self.children.is_empty()).or_else(mean)
    }

    /// The state of the breaker in words, if it has one that is not closed.
    pub(crate) fn open_breaker(&self) -> Option<String> {
        let own = self.breaker.as_ref().and_then(|breaker| {
            let state = breaker.as_str().or_else(|| breaker["state"].as_str())?;
            (state != "closed").then(|| state.replace('_', " "))
        });
        let crowd = || self.children.iter().find_map(Node::open_breaker);
        own.or_else(|| self.is_crowd().then(crowd).flatten())
    }

    /// This node and all below it, parents first.
    pub(crate) fn walk(&self) -> Vec<&Node> {
        let mut all = vec![self];
        all.extend(self.children.iter().flat_map(Node::walk));
        all
    }

    /// The node at `path`.
    pub(crate) fn find(&self, path: &str) -> Option<&Node> {
        if self.path == path { Some(self) } else { self.children.iter().find_map(|child| child.find(path)) }
    }

    /// `48 running · 1 quarantined`, most of them first; `12,345 running (first 20 shown)` where not all are listed.
    pub(crate) fn census(&self) -> String {
        let mut states: BTreeMap<&str, u64> = BTreeMap::new();
        match &self.crowd {
            Some(crowd) => states.extend(crowd.states.iter().map(|(state, n)| (state.as_str(), *n))),
            None => {
                self.children.iter().for_each(|child| *states.entry(child.shown_state()).or_default() += 1)
            }
        }
        let mut states: Vec<(&str, u64)> = states.into_iter().collect();
        states.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        let words: Vec<String> =
            states.iter().map(|(state, n)| format!("{} {}", grouped(*n), state.replace('_', " "))).collect();
        let part = self.crowd.as_ref().map(|crowd| format!(" (first {} shown)", crowd.shown));
        let words = if words.is_empty() { "no members".to_owned() } else { words.join(" · ") };
        words + &part.unwrap_or_default()
    }
}
