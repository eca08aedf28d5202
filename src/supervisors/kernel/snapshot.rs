//! What operators see of the tree: live nodes, and the snapshot that `GET /admin/tree` and `obtrace tree` print.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::breaker::BreakerState;
use super::events::Events;
use super::exit::ExitReason;
use super::generation::Generations;
use super::lane::{LaneStats, LaneView};
use super::meter::{Meter, PollStats};
use super::policy::Policy;
use super::probe::Probe;
use super::spec::{ChildSpec, Kind};
use crate::clock;

/// Version of the snapshot's JSON.
pub const SNAPSHOT_VERSION: u32 = 2;

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
    /// Waiting for its restart.
    BackingOff,
    /// Put aside until its cool-down is over.
    Quarantined,
    /// Finishing up.
    Draining,
    /// Down for good.
    Stopped,
}

/// A node of the live tree; it outlives the incarnations of its child.
pub struct Node {
    /// Path from the root, joined by dots; empty for the root.
    pub path: String,
    name: String,
    kind: &'static str,
    strategy: String,
    intensity: u32,
    pub(super) generations: Generations,
    lanes: Vec<Arc<dyn LaneView>>,
    meter: Arc<Meter>,
    launches: AtomicU64,
    restarts: AtomicU64,
    cell: Mutex<Cell>,
    children: RwLock<Vec<Arc<Node>>>,
}

struct Cell {
    state: ChildState,
    since: Instant,
    last_failure: Option<String>,
    probe: Option<Probe>,
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
    #[serde(skip_serializing_if = "String::is_empty")]
    pub strategy: String,
    /// Restarts its supervisor's window tolerates.
    pub intensity: u32,
    /// Steps of work its incarnation counted.
    pub progress: u64,
    /// Messages handled since the process started: leases acknowledged and control messages taken.
    pub handled: u64,
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
    /// Lanes it reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lanes: Vec<LaneStats>,
    /// Children.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<NodeSnapshot>,
}

/// The whole tree as it is printed.
#[derive(Debug, Clone, Serialize)]
pub struct TreeSnapshot {
    /// [`SNAPSHOT_VERSION`].
    pub version: u32,
    /// The root node.
    pub root: NodeSnapshot,
}

impl Node {
    pub(super) fn new(spec: &ChildSpec, parent: Option<&Node>) -> Arc<Self> {
        let path = match parent {
            None => String::new(),
            Some(parent) if parent.path.is_empty() => spec.name.clone(),
            Some(parent) => format!("{}.{}", parent.path, spec.name),
        };
        let (kind, strategy, lanes) = match &spec.kind {
            Kind::Worker(launcher) => ("worker", String::new(), launcher.lanes().to_vec()),
            Kind::Supervisor(_) => ("supervisor", strategy_name(&spec.policy), Vec::new()),
            Kind::Group(_) => ("group", strategy_name(&spec.policy), Vec::new()),
        };
        Arc::new(Self {
            path,
            name: spec.name.clone(),
            kind,
            strategy,
            intensity: spec.policy.intensity,
            generations: Generations::default(),
            lanes,
            meter: Arc::default(),
            launches: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            cell: Mutex::new(Cell {
                state: ChildState::Starting,
                since: clock::now(),
                last_failure: None,
                probe: None,
            }),
            children: RwLock::new(Vec::new()),
        })
    }

    /// The child node of this name, made on first use so that generations outlive a supervisor's own restart.
    pub(super) fn child(&self, spec: &ChildSpec) -> Arc<Node> {
        let mut children = self.children.write();
        if let Some(known) = children.iter().find(|node| node.name == spec.name) {
            return known.clone();
        }
        let node = Node::new(spec, Some(self));
        children.push(node.clone());
        node
    }

    /// The probe of a new incarnation, which fences all earlier ones.
    pub(super) fn probe(&self, child: usize, launch: u64, events: &Events) -> Probe {
        Probe::new(child, launch, self.generations.advance(), events.clone(), self.meter.clone())
    }

    pub(super) fn forget_child(&self, name: &str) {
        self.children.write().retain(|node| node.name != name);
    }

    /// Forgets every child that is not among `names`, as a group does that comes back to other wishes.
    pub(super) fn keep_children(&self, names: &[String]) {
        self.children.write().retain(|node| names.contains(&node.name));
    }

    /// Takes back what incarnations that are no longer current still hold.
    pub(super) fn revoke_leases(&self) {
        let revoked: usize = self.lanes.iter().map(|lane| lane.revoke()).sum();
        if revoked > 0 {
            tracing::warn!(child = self.path, revoked, "took leases of an earlier incarnation back");
        }
    }

    /// Closes every lane read in this subtree, so that senders hear `Draining` and not silence.
    pub(super) fn close_lanes(&self) {
        self.lanes.iter().for_each(|lane| lane.close());
        self.children.read().iter().for_each(|child| child.close_lanes());
    }

    pub(super) fn enter(&self, state: ChildState) {
        let mut cell = self.cell.lock();
        if cell.state != state {
            cell.state = state;
            cell.since = clock::now();
        }
    }

    pub(super) fn launched(&self, probe: Probe) {
        if self.launches.fetch_add(1, Ordering::Relaxed) > 0 {
            self.restarts.fetch_add(1, Ordering::Relaxed);
        }
        self.cell.lock().probe = Some(probe);
        self.enter(ChildState::Starting);
    }

    pub(super) fn ended(&self, reason: &ExitReason) {
        let mut cell = self.cell.lock();
        cell.probe = None;
        if !reason.is_normal() {
            cell.last_failure = Some(reason.to_string());
        }
    }

    pub(super) fn lanes(&self) -> &[Arc<dyn LaneView>] {
        &self.lanes
    }

    /// Where the child stands; `Degraded` where it runs but reports so.
    pub fn state(&self) -> ChildState {
        let cell = self.cell.lock();
        let degraded = cell.probe.as_ref().is_some_and(|probe| probe.degradation().is_some());
        if cell.state == ChildState::Running && degraded { ChildState::Degraded } else { cell.state }
    }

    /// The node and everything below it, as of now.
    pub fn snapshot(&self) -> NodeSnapshot {
        let state = self.state();
        let children = self.children.read().iter().map(|child| child.snapshot()).collect();
        let cell = self.cell.lock();
        NodeSnapshot {
            path: self.path.clone(),
            name: self.name.clone(),
            kind: self.kind,
            state,
            since_s: clock::now().saturating_duration_since(cell.since).as_secs(),
            generation: self.generations.newest(),
            restarts: self.restarts.load(Ordering::Relaxed),
            strategy: self.strategy.clone(),
            intensity: self.intensity,
            progress: cell.probe.as_ref().map_or(0, Probe::progressed),
            handled: self.meter.handled(),
            busy_ratio: (self.kind == "worker").then(|| {
                let ratio =
                    cell.probe.as_ref().map_or_else(|| self.meter.busy_ratio(None), Probe::busy_ratio);
                (ratio * 1000.0).round() / 1000.0
            }),
            breaker: cell.probe.as_ref().and_then(Probe::breaker_state),
            gauges: cell.probe.as_ref().map(Probe::gauges).unwrap_or_default(),
            polls: self.meter.stats(),
            degraded: cell.probe.as_ref().and_then(Probe::degradation),
            last_failure: cell.last_failure.clone(),
            lanes: self.lanes.iter().map(|lane| lane.stats()).collect(),
            children,
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({} {:?})", self.path, self.state())
    }
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

    /// True when it and everything below it does its work. `Degraded` counts: that is a state, not a fault. A child
    /// that ended for good by its restart type does not count, nor do the members of a dynamic group, which come, go
    /// and are put aside one by one.
    pub fn is_up(&self) -> bool {
        let at_work = matches!(self.state, ChildState::Running | ChildState::Degraded);
        let children_up = || {
            self.children.iter().all(|child| {
                matches!(child.state, ChildState::Stopped | ChildState::Quarantined) || child.is_up()
            })
        };
        at_work && (self.kind == "group" || children_up())
    }
}

fn strategy_name(policy: &Policy) -> String {
    serde_json::to_value(policy.strategy).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}
