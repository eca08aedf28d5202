//! A node of the live tree: what is known of a child whatever its incarnations do. Figures and events of the incarnation
//! in, state and snapshots out; it belongs to the tree and outlives every restart below the root.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use super::control::{Errand, Tray};
use super::events::Events;
use super::exit::ExitReason;
use super::generation::Generations;
use super::journal::{EventKind, Journal, Scribe};
use super::lane::{Held, LaneView};
use super::meter::Meter;
use super::policy::{IntensityPer, Policy, Restart};
use super::probe::Probe;
use super::signal::Signal;
use super::snapshot::{ChildState, Crowd, LISTED, Left, NodeSnapshot, SHOWN, WindowSnapshot};
use super::spec::{ChildSpec, Kind, Launcher};
use crate::clock;

/// A node of the live tree; it outlives the incarnations of its child.
pub struct Node {
    name: Arc<str>,
    kind: &'static str,
    policy: ArcSwap<Policy>,
    pub(super) scribe: Scribe,
    pub(super) generations: Generations,
    /// Where it is a worker; it knows the lanes.
    launcher: Option<Arc<dyn Launcher>>,
    meter: Arc<Meter>,
    launches: AtomicU64,
    restarts: AtomicU64,
    cell: Mutex<Cell>,
    paused: Arc<Signal>,
    held: AtomicBool,
    /// Where it is a supervisor or a group.
    below: Option<Box<Below>>,
}

/// What only a node with children has.
#[derive(Default)]
struct Below {
    /// Orders to the children.
    tray: Tray,
    children: RwLock<Children>,
}

/// The children of a node, by name and in start order.
#[derive(Default)]
struct Children {
    by_name: BTreeMap<ByName, u64>,
    in_order: BTreeMap<u64, Arc<Node>>,
    made: u64,
    /// What those had counted that left a group.
    left: Option<Box<Left>>,
}

/// A node, found by its name.
struct ByName(Arc<Node>);

struct Cell {
    state: ChildState,
    since: Instant,
    /// When its planned start is due.
    due: Option<Instant>,
    probe: Option<Probe>,
    /// Made with the first failure.
    trouble: Option<Box<Trouble>>,
}

/// What is known of a node that failed before, or whose children did.
#[derive(Default)]
struct Trouble {
    last_failure: Option<String>,
    last_failure_at: Option<u64>,
    black_box: Option<String>,
    account: Option<Account>,
}

/// The restarts that count against a limit, and the limit.
pub(super) struct Account {
    pub(super) restarts: Vec<Instant>,
    pub(super) intensity: u32,
    pub(super) period: Duration,
}

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ByName {}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.name.cmp(&other.0.name)
    }
}

impl Children {
    fn add(&mut self, node: Arc<Node>) {
        self.made += 1;
        self.by_name.insert(ByName(node.clone()), self.made);
        self.in_order.insert(self.made, node);
    }

    fn find(&self, name: &str) -> Option<&Arc<Node>> {
        self.by_name.get_key_value(name).map(|(ByName(node), _)| node)
    }

    /// Takes a child out and returns it.
    fn remove(&mut self, name: &str) -> Option<Arc<Node>> {
        let place = self.by_name.remove(name)?;
        self.in_order.remove(&place)
    }
}

impl Node {
    /// The root's node, which opens the journal of the tree.
    pub(super) fn root(spec: &ChildSpec) -> Arc<Self> {
        Self::new(spec, None)
    }

    fn new(spec: &ChildSpec, parent: Option<&Node>) -> Arc<Self> {
        let path: Arc<str> = match parent {
            None => Arc::from(""),
            Some(parent) if parent.path().is_empty() => spec.name.clone(),
            Some(parent) => format!("{}.{}", parent.path(), spec.name).into(),
        };
        let (kind, launcher) = match &spec.kind {
            Kind::Worker(launcher) => ("worker", Some(launcher.clone())),
            Kind::Supervisor(_) | Kind::Replicas(_) => ("supervisor", None),
            Kind::Group(_) => ("group", None),
        };
        let journal = parent.map_or_else(Journal::default, |parent| parent.scribe.journal().clone());
        Arc::new(Self {
            scribe: Scribe::new(path, journal),
            name: spec.name.clone(),
            kind,
            policy: ArcSwap::new(spec.policy.clone()),
            generations: Generations::default(),
            below: launcher.is_none().then(Box::default),
            launcher,
            meter: Arc::default(),
            launches: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            cell: Mutex::new(Cell {
                state: ChildState::Starting,
                since: clock::now(),
                due: None,
                probe: None,
                trouble: None,
            }),
            // What comes into a paused subtree is paused as well.
            paused: Arc::new(Signal::new(u8::from(parent.is_some_and(Node::is_paused)))),
            held: AtomicBool::new(false),
        })
    }

    /// Path from the root, joined by dots; empty for the root.
    pub fn path(&self) -> &str {
        self.scribe.path()
    }

    /// The child node of this name, made on first use so that generations outlive a supervisor's own restart.
    pub(super) fn child(&self, spec: &ChildSpec) -> Arc<Node> {
        let Some(below) = &self.below else { return Node::new(spec, Some(self)) };
        let mut children = below.children.write();
        if let Some(known) = children.find(&spec.name) {
            return known.clone();
        }
        let node = Node::new(spec, Some(self));
        children.add(node.clone());
        node
    }

    /// The child node of this name, if there is one.
    pub(super) fn child_named(&self, name: &str) -> Option<Arc<Node>> {
        self.below.as_ref()?.children.read().find(name).cloned()
    }

    /// The probe of a new incarnation, which fences all earlier ones.
    pub(super) fn probe(&self, child: usize, launch: u64, events: &Events) -> Probe {
        Probe::new(child, launch, self, events.clone(), self.meter.clone())
    }

    /// Forgets a child that is gone for good. What a member of a group has counted stays in the figures of the group.
    pub(super) fn forget_child(&self, name: &str) {
        let Some(below) = &self.below else { return };
        let mut children = below.children.write();
        let gone = children.remove(name);
        // Under the same lock: no snapshot finds it in both places or in none.
        if let Some(gone) = gone.filter(|_| self.kind == "group") {
            gone.leave_to(children.left.get_or_insert_default());
        }
    }

    /// Forgets every child that is not among `names`, as a group does that comes back to other wishes.
    pub(super) fn keep_children(&self, names: &BTreeSet<Arc<str>>) {
        let known = self.below().into_iter().map(|child| child.name.clone());
        known.filter(|name| !names.contains(name)).for_each(|name| self.forget_child(&name));
    }

    /// The next order to one of its children, waiting for it.
    pub(super) async fn next_errand(&self) -> Errand {
        match &self.below {
            Some(below) => below.tray.next().await,
            None => std::future::pending().await,
        }
    }

    /// Leaves an order to its supervisor. False where too many wait already, or it has no children.
    pub(super) fn put_errand(&self, errand: Errand) -> bool {
        self.below.as_ref().is_some_and(|below| below.tray.put(errand))
    }

    /// Name within its parent.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The policy it lives by now.
    pub(super) fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Lives by `policy` from now on; its lanes take the new bounds at once.
    pub(super) fn adopt(&self, policy: Arc<Policy>) {
        self.lanes().iter().for_each(|lane| lane.resize(policy.lane));
        self.policy.store(policy);
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
        let held = self.lanes().iter().filter_map(|lane| lane.held_by(holder));
        held.max_by_key(|held| held.attempts)
    }

    /// Writes into the journal what happened to the newest incarnation.
    pub(super) fn note(&self, kind: EventKind) {
        self.scribe.note(self.generations.newest(), kind);
    }

    /// Nodes below it, in start order.
    pub(super) fn below(&self) -> Vec<Arc<Node>> {
        self.members().0
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.get() != u8::from(false)
    }

    pub(super) fn pause_signal(&self) -> Arc<Signal> {
        self.paused.clone()
    }

    /// Pauses or resumes the node and all below it.
    pub(super) fn set_paused(&self, paused: bool) {
        // The node first: a child that comes into being meanwhile looks at it.
        self.paused.set(u8::from(paused));
        self.lanes().iter().for_each(|lane| lane.wake());
        self.below().iter().for_each(|child| child.set_paused(paused));
    }

    /// True when an operator wants it down.
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    pub(super) fn set_held(&self, held: bool) {
        self.held.store(held, Ordering::Release);
    }

    pub(super) fn set_account(&self, account: Account) {
        self.cell.lock().trouble().account = Some(account);
    }

    /// Takes back what incarnations that are no longer current still hold.
    pub(super) fn revoke_leases(&self, blame: bool) {
        let revoked: usize = self.lanes().iter().map(|lane| lane.revoke(blame)).sum();
        if revoked > 0 {
            tracing::warn!(child = self.path(), revoked, "took leases of an earlier incarnation back");
        }
    }

    /// Closes every lane read in this subtree, so that senders hear `Draining` and not silence.
    pub(super) fn close_lanes(&self) {
        self.lanes().iter().for_each(|lane| lane.close());
        self.below().iter().for_each(|child| child.close_lanes());
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
        self.cell.lock().probe = None;
        if !reason.is_normal() {
            self.set_failure(reason);
        }
        self.note(EventKind::exited(reason));
    }

    /// Notes why it failed, where that is not the end of an incarnation.
    pub(super) fn set_failure(&self, reason: &ExitReason) {
        let mut cell = self.cell.lock();
        let trouble = cell.trouble();
        trouble.last_failure = Some(reason.to_string());
        trouble.last_failure_at = Some(clock::unix_nanos());
    }

    /// Names the record of its last crash.
    pub(super) fn set_black_box(&self, name: Option<String>) {
        self.cell.lock().trouble().black_box = name;
    }

    pub(super) fn journal(&self) -> &Journal {
        self.scribe.journal()
    }

    pub(super) fn lanes(&self) -> &[Arc<dyn LaneView>] {
        self.launcher.as_ref().map_or(&[], |launcher| launcher.lanes())
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
        let known = cell.trouble.as_ref().and_then(|trouble| trouble.account.as_ref());
        known.map(shown).or_else(|| shares.then(|| shown(&fresh())))
    }

    /// True when it and everything below it does its work. `Degraded` counts: that is a state, not a fault; so does what
    /// an operator paused or drained. A child that ended for good by its restart type does not count, nor do the members
    /// of a dynamic group, which come, go and are put aside one by one.
    pub fn is_up(&self) -> bool {
        let children_up = || self.below().iter().all(|child| child.state().is_excused() || child.is_up());
        self.state().is_at_work() && (self.kind == "group" || children_up())
    }

    /// The node and everything below it, as of now. Of a large group of temporary children only the first are listed;
    /// all are in its figures.
    pub fn snapshot(&self) -> NodeSnapshot {
        let (children, left) = self.members();
        let policy = self.policy();
        let passing = self.kind == "group" && policy.restart == Restart::Temporary && children.len() > LISTED;
        let crowd = passing.then(|| {
            let mut crowd = Crowd { shown: SHOWN, ..Crowd::default() };
            children.iter().for_each(|child| child.count_into(&mut crowd));
            crowd
        });
        let listed = if passing { SHOWN } else { usize::MAX };
        let children = children.iter().take(listed).map(|child| child.snapshot()).collect();
        NodeSnapshot { crowd, left, children, ..self.about() }
    }

    /// Nodes below it, in start order, and what those had counted that left, both of the same moment.
    fn members(&self) -> (Vec<Arc<Node>>, Option<Box<Left>>) {
        let Some(below) = &self.below else { return (Vec::new(), None) };
        let children = below.children.read();
        (children.in_order.values().cloned().collect(), children.left.clone())
    }

    /// Leaves what it and those below it have counted.
    fn leave_to(&self, left: &mut Left) {
        left.handled += self.meter.handled();
        left.fenced += self.meter.fenced();
        left.polls.add(&self.meter.stats());
        for lane in self.lanes() {
            left.lane.get_or_insert_default().add_counts(&lane.stats());
        }
        self.below().iter().for_each(|child| child.leave_to(left));
    }

    /// Takes this node into the figures of its group.
    fn count_into(&self, crowd: &mut Crowd) {
        let state = self.state();
        let probe = self.cell.lock().probe.clone();
        let busy = probe.as_ref().map_or_else(|| self.meter.busy_ratio(None), Probe::busy_ratio);
        crowd.add(state, self.generations.newest(), busy);
        crowd.restarts += self.restarts.load(Ordering::Relaxed);
        crowd.handled += self.meter.handled();
        crowd.fenced += self.meter.fenced();
        crowd.polls.add(&self.meter.stats());
        for (name, value) in probe.iter().flat_map(Probe::gauges) {
            *crowd.gauges.entry(name).or_default() += value;
        }
        for lane in self.lanes() {
            crowd.lane.get_or_insert_default().add(&lane.stats());
        }
    }

    /// The node alone.
    fn about(&self) -> NodeSnapshot {
        let state = self.state();
        let policy = self.policy();
        let cell = self.cell.lock();
        let quarantined = cell.due.filter(|_| cell.state == ChildState::Quarantined);
        let trouble = cell.trouble.as_ref();
        NodeSnapshot {
            path: self.path().to_owned(),
            name: self.name.to_string(),
            kind: self.kind,
            state,
            since_s: clock::now().saturating_duration_since(cell.since).as_secs(),
            generation: self.generations.newest(),
            restarts: self.restarts.load(Ordering::Relaxed),
            strategy: if self.is_worker() { "" } else { policy.strategy.as_str() },
            intensity: policy.intensity,
            window: self.window(&cell),
            progress: cell.probe.as_ref().map_or(0, Probe::progressed),
            handled: self.meter.handled(),
            fenced: self.meter.fenced(),
            busy_ratio: self.is_worker().then(|| {
                let ratio =
                    cell.probe.as_ref().map_or_else(|| self.meter.busy_ratio(None), Probe::busy_ratio);
                (ratio * 1000.0).round() / 1000.0
            }),
            breaker: cell.probe.as_ref().and_then(Probe::breaker_state),
            gauges: cell.probe.as_ref().map(Probe::gauges).unwrap_or_default(),
            polls: self.meter.stats(),
            degraded: cell.probe.as_ref().and_then(Probe::degradation),
            last_failure: trouble.and_then(|trouble| trouble.last_failure.clone()),
            last_failure_at: trouble.and_then(|trouble| trouble.last_failure_at),
            black_box: trouble.and_then(|trouble| trouble.black_box.clone()),
            paused: self.is_paused(),
            quarantine_left_s: quarantined
                .map(|at| at.saturating_duration_since(clock::now()).as_secs_f64().ceil() as u64),
            lanes: self.lanes().iter().map(|lane| lane.stats()).collect(),
            crowd: None,
            left: None,
            children: Vec::new(),
        }
    }
}

impl Cell {
    fn trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({} {:?})", self.path(), self.state())
    }
}
