//! What operators see of the tree: live nodes, and the snapshot that `GET /admin/tree` and `obtrace tree` print.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::breaker::BreakerState;
use super::control::Tray;
use super::events::Events;
use super::exit::ExitReason;
use super::generation::Generations;
use super::journal::{EventKind, Journal, Scribe};
use super::lane::{Held, LaneStats, LaneView};
use super::meter::{Meter, PollStats};
use super::policy::{IntensityPer, Policy};
use super::pools::ArbiterSnapshot;
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
}

/// A node of the live tree; it outlives the incarnations of its child.
pub struct Node {
    /// Path from the root, joined by dots; empty for the root.
    pub path: String,
    name: String,
    kind: &'static str,
    policy: ArcSwap<Policy>,
    pub(super) scribe: Scribe,
    pub(super) generations: Generations,
    lanes: Vec<Arc<dyn LaneView>>,
    meter: Arc<Meter>,
    launches: AtomicU64,
    restarts: AtomicU64,
    cell: Mutex<Cell>,
    paused: watch::Sender<bool>,
    held: AtomicBool,
    /// Orders to its children, where it is a supervisor or a group.
    pub(super) tray: Tray,
    children: RwLock<Vec<Arc<Node>>>,
}

struct Cell {
    state: ChildState,
    since: Instant,
    /// When its planned start is due.
    due: Option<Instant>,
    last_failure: Option<String>,
    last_failure_at: Option<u64>,
    black_box: Option<String>,
    account: Option<Account>,
    probe: Option<Probe>,
}

/// The restarts that count against a limit, and the limit.
pub(super) struct Account {
    pub(super) restarts: Vec<Instant>,
    pub(super) intensity: u32,
    pub(super) period: Duration,
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
    #[serde(skip_serializing_if = "String::is_empty")]
    pub strategy: String,
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
    /// The threads that actors run on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arbiters: Vec<ArbiterSnapshot>,
    /// Threads given up because they were blocked.
    pub condemned: u64,
    /// Children aborted because they did not start or drain in time.
    pub forced_aborts: u64,
}

impl Node {
    /// The root's node, which opens the journal of the tree.
    pub(super) fn root(spec: &ChildSpec) -> Arc<Self> {
        Self::new(spec, None)
    }

    fn new(spec: &ChildSpec, parent: Option<&Node>) -> Arc<Self> {
        let path = match parent {
            None => String::new(),
            Some(parent) if parent.path.is_empty() => spec.name.clone(),
            Some(parent) => format!("{}.{}", parent.path, spec.name),
        };
        let (kind, lanes) = match &spec.kind {
            Kind::Worker(launcher) => ("worker", launcher.lanes().to_vec()),
            Kind::Supervisor(_) | Kind::Replicas(_) => ("supervisor", Vec::new()),
            Kind::Group(_) => ("group", Vec::new()),
        };
        let journal = parent.map_or_else(Journal::default, |parent| parent.scribe.journal().clone());
        Arc::new(Self {
            scribe: Scribe::new(&path, journal),
            path,
            name: spec.name.clone(),
            kind,
            policy: ArcSwap::from_pointee(spec.policy.clone()),
            generations: Generations::default(),
            lanes,
            meter: Arc::default(),
            launches: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            cell: Mutex::new(Cell {
                state: ChildState::Starting,
                since: clock::now(),
                due: None,
                last_failure: None,
                last_failure_at: None,
                black_box: None,
                account: None,
                probe: None,
            }),
            // What comes into a paused subtree is paused as well.
            paused: watch::Sender::new(parent.is_some_and(Node::is_paused)),
            held: AtomicBool::new(false),
            tray: Tray::default(),
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
        Probe::new(child, launch, self, events.clone(), self.meter.clone())
    }

    pub(super) fn forget_child(&self, name: &str) {
        self.children.write().retain(|node| node.name != name);
    }

    /// Forgets every child that is not among `names`, as a group does that comes back to other wishes.
    pub(super) fn keep_children(&self, names: &[String]) {
        self.children.write().retain(|node| names.contains(&node.name));
    }

    /// Name within its parent.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The policy it lives by now.
    pub(super) fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Lives by `policy` from now on; its lanes take the new bounds at once.
    pub(super) fn adopt(&self, policy: Policy) {
        self.lanes.iter().for_each(|lane| lane.resize(policy.lane));
        self.policy.store(Arc::new(policy));
    }

    pub(super) fn is_worker(&self) -> bool {
        self.kind == "worker"
    }

    /// True while an incarnation of it is up or on its way up.
    pub(super) fn is_launched(&self) -> bool {
        self.cell.lock().probe.is_some()
    }

    /// What an incarnation of it has in hand.
    pub(super) fn held_by(&self, holder: &Probe) -> Option<Held> {
        let held = self.lanes.iter().filter_map(|lane| lane.held_by(holder));
        held.max_by_key(|held| held.attempts)
    }

    /// Writes into the journal what happened to the newest incarnation.
    pub(super) fn note(&self, kind: EventKind) {
        self.scribe.note(self.generations.newest(), kind);
    }

    /// Nodes below it, in start order.
    pub(super) fn below(&self) -> Vec<Arc<Node>> {
        self.children.read().clone()
    }

    pub(super) fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    pub(super) fn pause_watch(&self) -> watch::Receiver<bool> {
        self.paused.subscribe()
    }

    /// Pauses or resumes the node and all below it.
    pub(super) fn set_paused(&self, paused: bool) {
        // The node first: a child that comes into being meanwhile looks at it.
        self.paused.send_replace(paused);
        self.lanes.iter().for_each(|lane| lane.wake());
        self.children.read().iter().for_each(|child| child.set_paused(paused));
    }

    /// True when an operator wants it down.
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    pub(super) fn set_held(&self, held: bool) {
        self.held.store(held, Ordering::Release);
    }

    pub(super) fn set_account(&self, account: Account) {
        self.cell.lock().account = Some(account);
    }

    /// Takes back what incarnations that are no longer current still hold.
    pub(super) fn revoke_leases(&self, blame: bool) {
        let revoked: usize = self.lanes.iter().map(|lane| lane.revoke(blame)).sum();
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
        cell.due = None;
    }

    /// Waits in `state` for a start that is due at `at`.
    pub(super) fn wait_until(&self, state: ChildState, at: Instant) {
        self.enter(state);
        self.cell.lock().due = Some(at);
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
            cell.last_failure_at = Some(clock::unix_nanos());
        }
        drop(cell);
        self.note(EventKind::exited(reason));
    }

    /// Names the record of its last crash.
    pub(super) fn set_black_box(&self, name: Option<String>) {
        self.cell.lock().black_box = name;
    }

    pub(super) fn journal(&self) -> &Journal {
        self.scribe.journal()
    }

    pub(super) fn lanes(&self) -> &[Arc<dyn LaneView>] {
        &self.lanes
    }

    /// Where the child stands; `Degraded` where it runs but reports so, `Paused` where it runs but takes no work.
    pub fn state(&self) -> ChildState {
        let cell = self.cell.lock();
        let degraded = || cell.probe.as_ref().is_some_and(|probe| probe.degradation().is_some());
        match cell.state {
            ChildState::Running if self.is_paused() => ChildState::Paused,
            ChildState::Running if degraded() => ChildState::Degraded,
            state => state,
        }
    }

    /// A supervisor's own account, or that of a child with a budget of its own.
    fn window(&self, cell: &Cell) -> Option<WindowSnapshot> {
        let policy = self.policy();
        let fresh = || Account { restarts: Vec::new(), intensity: policy.intensity, period: policy.period };
        let shares = self.kind != "worker" && policy.intensity_per == IntensityPer::Supervisor;
        let now = clock::now();
        let shown = |account: &Account| WindowSnapshot {
            spent: account
                .restarts
                .iter()
                .filter(|at| now.saturating_duration_since(**at) <= account.period)
                .count() as u32,
            intensity: account.intensity,
            period_s: account.period.as_secs(),
        };
        cell.account.as_ref().map(shown).or_else(|| shares.then(|| shown(&fresh())))
    }

    /// The node and everything below it, as of now.
    pub fn snapshot(&self) -> NodeSnapshot {
        let state = self.state();
        let children = self.children.read().iter().map(|child| child.snapshot()).collect();
        let policy = self.policy();
        let cell = self.cell.lock();
        let quarantined = cell.due.filter(|_| cell.state == ChildState::Quarantined);
        NodeSnapshot {
            path: self.path.clone(),
            name: self.name.clone(),
            kind: self.kind,
            state,
            since_s: clock::now().saturating_duration_since(cell.since).as_secs(),
            generation: self.generations.newest(),
            restarts: self.restarts.load(Ordering::Relaxed),
            strategy: if self.kind == "worker" { String::new() } else { strategy_name(&policy) },
            intensity: policy.intensity,
            window: self.window(&cell),
            progress: cell.probe.as_ref().map_or(0, Probe::progressed),
            handled: self.meter.handled(),
            fenced: self.meter.fenced(),
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
            last_failure_at: cell.last_failure_at,
            black_box: cell.black_box.clone(),
            paused: self.is_paused(),
            quarantine_left_s: quarantined
                .map(|at| at.saturating_duration_since(clock::now()).as_secs_f64().ceil() as u64),
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

    /// True when it and everything below it does its work. `Degraded` counts: that is a state, not a fault; so does what
    /// an operator paused or drained. A child that ended for good by its restart type does not count, nor do the members
    /// of a dynamic group, which come, go and are put aside one by one.
    pub fn is_up(&self) -> bool {
        use ChildState::{Degraded, Drained, Paused, Quarantined, Running, Stopped};
        let at_work = matches!(self.state, Running | Degraded | Paused);
        let children_up = || {
            self.children
                .iter()
                .all(|child| matches!(child.state, Stopped | Quarantined | Drained) || child.is_up())
        };
        at_work && (self.kind == "group" || children_up())
    }
}

fn none(count: &u64) -> bool {
    *count == 0
}

fn strategy_name(policy: &Policy) -> String {
    serde_json::to_value(policy.strategy).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}
