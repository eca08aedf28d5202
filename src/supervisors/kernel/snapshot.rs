//! What operators see of the tree: the snapshot that `GET /admin/tree` and `obtrace tree` print. Plain data, made from the
//! live nodes; its JSON is versioned.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::breaker::BreakerState;
use super::lane::LaneStats;
use super::meter::PollStats;
use super::pools::ArbiterSnapshot;

/// Version of the snapshot's JSON.
///
/// 3: a group of more than [`LISTED`] temporary members lists the first [`SHOWN`] of them under `children` and tells of
/// all of them in `crowd`; lanes have the counter `dropped`.
pub const SNAPSHOT_VERSION: u32 = 3;

/// A group of temporary children (sessions) is listed in full up to this many members.
pub const LISTED: usize = 64;

/// Members listed of a larger one, oldest first.
pub const SHOWN: usize = 20;

/// Where a child stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildState {
    /// Launched, not yet ready.
    Starting,
    /// At work.
    Running,
    /// At work, but something it depends on is down.
    Degraded,
    /// Up, but takes no work until an operator resumes it.
    Paused,
    /// Waiting for its restart.
    BackingOff,
    /// Put aside until its cool-down is over.
    Quarantined,
    /// Finishing up.
    Draining,
    /// Down by an operator's order, until it is resumed or restarted; its lane stays open.
    Drained,
    /// Down for good.
    Stopped,
}

impl ChildState {
    /// The name used in the tree.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Paused => "paused",
            Self::BackingOff => "backing_off",
            Self::Quarantined => "quarantined",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Stopped => "stopped",
        }
    }

    /// True where the work is done, or would be but for an operator. `Degraded` counts: that is a state, not a fault.
    pub(super) fn is_at_work(self) -> bool {
        matches!(self, Self::Running | Self::Degraded | Self::Paused)
    }

    /// True of a child without which what stands over it is up: its end was its restart type's, a policy put it aside, or
    /// an operator wants it down.
    pub(super) fn is_excused(self) -> bool {
        matches!(self, Self::Stopped | Self::Quarantined | Self::Drained)
    }
}

/// How much of a budget of restarts is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WindowSnapshot {
    /// Restarts within the last `period_s`.
    pub spent: u32,
    /// Restarts tolerated; one more is the limit.
    pub intensity: u32,
    /// Length of the sliding window in seconds.
    pub period_s: u64,
}

/// A node as it is printed. Lists its children in start order.
#[derive(Debug, Clone, Serialize)]
pub struct NodeSnapshot {
    /// Path from the root.
    pub path: String,
    /// Last part of the path.
    pub name: String,
    /// `supervisor`, `group` or `worker`.
    pub kind: &'static str,
    /// Where it stands.
    pub state: ChildState,
    /// Seconds in this state.
    pub since_s: u64,
    /// Number of the incarnation; 0 before the first.
    pub generation: u64,
    /// Restarts since the process started.
    pub restarts: u64,
    /// Strategy of a supervisor.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub strategy: &'static str,
    /// Restarts of its children that it tolerates.
    pub intensity: u32,
    /// The budget of restarts: of a supervisor for all its children, or of a child that has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowSnapshot>,
    /// Steps of work its incarnation counted.
    pub progress: u64,
    /// Messages handled since the process started: leases acknowledged and control messages taken.
    pub handled: u64,
    /// Writes outside from which replaced incarnations of it were kept, since the process started.
    #[serde(skip_serializing_if = "none")]
    pub fenced: u64,
    /// Share of the last ten seconds that a worker spent at work, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_ratio: Option<f64>,
    /// How the dependency behind an adapter stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerState>,
    /// Figures that its incarnation reports, such as `lag`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub gauges: BTreeMap<&'static str, f64>,
    /// How long the worker's polls took; for metrics.
    #[serde(skip)]
    pub polls: PollStats,
    /// Why it is degraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded: Option<String>,
    /// Why its last incarnation ended, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// When that was, as Unix nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure_at: Option<u64>,
    /// File that tells of its last crash, in the folder of crash records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub black_box: Option<String>,
    /// True when an operator paused it or what stands over it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Seconds until a quarantined child is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine_left_s: Option<u64>,
    /// Lanes it reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lanes: Vec<LaneStats>,
    /// Its members in figures, where it is a group that has too many to list them all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crowd: Option<Crowd>,
    /// What members that left the group had counted; for metrics.
    #[serde(skip)]
    pub left: Option<Box<Left>>,
    /// Children; of a `crowd` only the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<NodeSnapshot>,
}

/// The members of a large group together, those that are listed included.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Crowd {
    /// How many there are.
    pub members: usize,
    /// How many of them are listed.
    pub shown: usize,
    /// How many are not.
    pub left_out: usize,
    /// How many are in which state.
    pub states: BTreeMap<&'static str, usize>,
    /// Their highest generation.
    pub generation: u64,
    /// Their restarts.
    pub restarts: u64,
    /// Messages that they handled. Who has left does not count any more.
    pub handled: u64,
    /// The mean of their busy ratios.
    pub busy_ratio: f64,
    /// Their figures, summed up by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub gauges: BTreeMap<&'static str, f64>,
    /// Writes from which their replaced incarnations were kept; for metrics.
    #[serde(skip)]
    pub fenced: u64,
    /// Their lanes, summed up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<LaneStats>,
    /// How long their polls took; for metrics.
    #[serde(skip)]
    pub polls: PollStats,
}

impl Crowd {
    /// Counts a member; its other figures are summed up by whoever knows them.
    pub(super) fn add(&mut self, state: ChildState, generation: u64, busy_ratio: f64) {
        let before = self.busy_ratio * self.members as f64;
        self.members += 1;
        self.left_out = self.members.saturating_sub(self.shown);
        self.busy_ratio = (before + busy_ratio) / self.members as f64;
        *self.states.entry(state.as_str()).or_default() += 1;
        self.generation = self.generation.max(generation);
    }
}

/// What the members that left a group had counted, so that the counters of the group as a whole never go down.
#[derive(Debug, Clone, Default)]
pub struct Left {
    /// Messages that they handled.
    pub handled: u64,
    /// Writes from which their replaced incarnations were kept.
    pub fenced: u64,
    /// How long their polls took.
    pub polls: PollStats,
    /// What their lanes counted; nothing is in them any more, and they have no bounds.
    pub lane: Option<LaneStats>,
}

/// The whole tree as it is printed.
#[derive(Debug, Clone, Serialize)]
pub struct TreeSnapshot {
    /// [`SNAPSHOT_VERSION`].
    pub version: u32,
    /// The root node.
    pub root: NodeSnapshot,
    /// The threads that actors run on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arbiters: Vec<ArbiterSnapshot>,
    /// Threads given up because they were blocked.
    pub condemned: u64,
    /// Children aborted because they did not start or drain in time.
    pub forced_aborts: u64,
}

impl NodeSnapshot {
    /// The node at `path` in this subtree.
    pub fn find(&self, path: &str) -> Option<&NodeSnapshot> {
        if self.path == path {
            return Some(self);
        }
        self.children.iter().find_map(|child| child.find(path))
    }

    /// This node and all below it, parents first.
    pub fn walk(&self) -> Vec<&NodeSnapshot> {
        let mut all = vec![self];
        all.extend(self.children.iter().flat_map(NodeSnapshot::walk));
        all
    }
}

fn none(count: &u64) -> bool {
    *count == 0
}
