//! The tree as a whole: start it, look at it, stop it within a budget.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::black_box::BlackBox;
use super::events::Events;
use super::exit::ExitReason;
use super::journal::EventKind;
use super::node::Node;
use super::panics;
use super::pools::Pools;
use super::probe::{Drain, Probe};
use super::snapshot::{ChildState, NodeSnapshot, SNAPSHOT_VERSION, TreeSnapshot};
use super::spec::ChildSpec;
use super::supervisor::{Shared, Supervisor};
use super::watchdog::{Pulse, Watchdog};

/// What is waited at the very end: for aborted tasks to fall, for arbiter threads to end.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// Children that had to be aborted while the tree was running or stopping.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    forced: Arc<Mutex<Vec<String>>>,
    count: Arc<AtomicU64>,
}

impl Ledger {
    pub(super) fn forced(&self, path: String) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut forced = self.forced.lock();
        // The list is for the operator's last line; a flood of aborts does not make it more useful.
        if forced.len() < 64 && !forced.contains(&path) {
            forced.push(path);
        }
    }

    /// Starts a new account: what was aborted while the tree ran does not make its stop unclean.
    fn clear(&self) {
        self.forced.lock().clear();
    }
}

/// A running tree. Dropping it does not stop it; call [`Tree::stop`].
///
/// ```
/// use std::time::Duration;
/// use obtrace::supervisors::kernel::policy::Policy;
/// use obtrace::supervisors::kernel::pools::{INLINE, Pools};
/// use obtrace::supervisors::kernel::seat::Worker;
/// use obtrace::supervisors::kernel::spec::ChildSpec;
/// use obtrace::supervisors::kernel::tree::Tree;
///
/// struct Clerk;
/// impl Worker for Clerk {}
///
/// actix_rt::System::new().block_on(async {
///     let policy = Policy { pool: INLINE.into(), ..Policy::default() };
///     let clerk = ChildSpec::worker("clerk", policy.clone(), |_probe| Clerk).build();
///     let mut tree = Tree::start(&ChildSpec::supervisor("root", policy, vec![clerk]), Pools::new([].into()));
///     tree.ready().await.unwrap();
///     assert!(tree.view().is_up());
///     let report = tree.stop(Duration::from_secs(5)).await;
///     assert!(report.forced.is_empty() && !report.over_budget);
/// });
/// ```
#[derive(Debug)]
pub struct Tree {
    root: TreeView,
    probe: Probe,
    events: Events,
    ledger: Ledger,
    task: JoinHandle<ExitReason>,
    end: Option<ExitReason>,
    pools: Pools,
    watchdog: Option<Watchdog>,
}

/// How a stop went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopReport {
    /// Why the root ended.
    pub reason: ExitReason,
    /// Paths of children that did not drain in time.
    pub forced: Vec<String>,
    /// True when the whole budget ran out.
    pub over_budget: bool,
    /// Threads that did not end, because an actor blocks them.
    pub threads_left: usize,
}

/// A look at the tree from any thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TreeView {
    pub(super) node: Arc<Node>,
    leaving: Arc<AtomicBool>,
    pools: Pools,
    pulse: Option<Pulse>,
    ledger: Ledger,
}

/// A child of the root, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: ChildState,
    /// True when it and everything below it does its work.
    pub is_up: bool,
}

/// The tree, once it runs: set by whoever starts it, read by whoever looks at it.
pub type SharedView = Arc<arc_swap::ArcSwap<Option<TreeView>>>;

impl TreeView {
    /// The whole tree as of now.
    pub fn snapshot(&self) -> TreeSnapshot {
        TreeSnapshot {
            version: SNAPSHOT_VERSION,
            root: self.node.snapshot(),
            arbiters: self.pools.arbiters(),
            condemned: self.pools.condemned_total(),
            forced_aborts: self.ledger.count.load(Ordering::Relaxed),
        }
    }

    /// True while the watchdog ticks and the root's thread turns. A tree on pools that nobody watches counts as alive.
    pub fn is_alive(&self) -> bool {
        self.pulse.as_ref().is_none_or(Pulse::is_alive)
    }

    /// How late the root's thread is, where it is watched.
    pub fn root_lag(&self) -> Option<Duration> {
        self.pulse.as_ref().map(Pulse::root_lag)
    }

    /// True when every node does its work and nobody announced the end of it.
    pub fn is_up(&self) -> bool {
        !self.is_leaving() && self.node.is_up()
    }

    /// Where the root stands.
    pub fn state(&self) -> ChildState {
        self.node.state()
    }

    /// The parts of the tree, in start order. Asks the nodes, and makes no snapshot: it may be asked often.
    pub fn parts(&self) -> Vec<Part> {
        let part = |node: Arc<Node>| Part {
            name: node.name().to_string(),
            state: node.state(),
            is_up: node.is_up(),
        };
        self.node.below().into_iter().map(part).collect()
    }

    /// Announces that the tree will be stopped soon: it still does its work, but nobody should come to it any more.
    pub fn announce_stop(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// True once [`TreeView::announce_stop`] was called.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }
}

impl Tree {
    /// Starts the tree on this thread, which must run an actix `System`. Returns at once; see [`Tree::ready`].
    pub fn start(root: &ChildSpec, pools: Pools) -> Self {
        Self::start_recorded(root, pools, BlackBox::default())
    }

    /// As [`Tree::start`], with each crash written down.
    pub fn start_recorded(root: &ChildSpec, pools: Pools, black_box: BlackBox) -> Self {
        panics::install_hook();
        let node = Node::root(root);
        let events = Events::default();
        let probe = node.probe(0, 0, &events);
        node.launched(probe.clone());
        node.note(EventKind::Launched);
        let ledger = Ledger::default();
        let shared = Shared { pools: pools.clone(), ledger: ledger.clone(), black_box };
        let supervisor =
            Supervisor::new(&root.kind, root.policy.clone(), node.clone(), probe.clone(), shared);
        let ended = node.clone();
        let task = tokio::task::spawn_local(async move {
            let end = AssertUnwindSafe(supervisor.run()).catch_unwind().await;
            ended.close_lanes();
            let reason = end.unwrap_or_else(|payload| ExitReason::Panicked {
                message: panics::message_of(&*payload),
                location: panics::take_location(),
            });
            ended.ended(&reason);
            ended.enter(ChildState::Stopped);
            reason
        });
        let watchdog = pools.watchdog().and_then(|policy| Watchdog::start(&pools, policy));
        let pulse = watchdog.as_ref().map(Watchdog::pulse);
        let root =
            TreeView { node, leaving: Arc::default(), pools: pools.clone(), pulse, ledger: ledger.clone() };
        Self { root, probe, events, ledger, task, end: None, pools, watchdog }
    }

    /// Waits until every child has reported ready (`Ok`), or the root has ended (`Err` with its reason).
    ///
    /// # Errors
    /// The exit reason of the root.
    pub async fn ready(&mut self) -> Result<(), ExitReason> {
        if let Some(reason) = &self.end {
            return Err(reason.clone());
        }
        tokio::select! {
            biased;
            end = &mut self.task => Err(self.end.insert(joined(end)).clone()),
            () = reported(&self.probe, &self.events) => Ok(()),
        }
    }

    /// Waits until the root ends by itself: its restart limit was passed, or the configuration is wrong. Its children
    /// are down then; what is left is [`Tree::stop`] for the threads, or [`Tree::abandon`].
    pub async fn failed(&mut self) -> ExitReason {
        match &self.end {
            Some(reason) => reason.clone(),
            None => self.end.insert(joined((&mut self.task).await)).clone(),
        }
    }

    /// A look at the tree, for the admin API.
    pub fn view(&self) -> TreeView {
        self.root.clone()
    }

    /// Drains all children in reverse start order, at most for `budget`, then stops the arbiters.
    pub async fn stop(mut self, budget: Duration) -> StopReport {
        if self.end.is_none() {
            self.ledger.clear();
            self.root.node.enter(ChildState::Draining);
            self.root.node.note(EventKind::Draining);
            self.probe.request_drain(Drain::Shutdown);
        }
        let end = tokio::time::timeout(budget, self.failed()).await;
        let over_budget = end.is_err();
        if over_budget {
            self.name_the_slow();
            self.task.abort();
            // Children are aborted in its drop; they end when their threads next look.
            let _ = tokio::time::timeout(LAST_LOOK, &mut self.task).await;
            self.root.node.close_lanes();
        }
        self.root.node.enter(ChildState::Stopped);
        drop(self.watchdog.take());
        let threads_left = self.pools.stop(LAST_LOOK).await;
        let forced = self.ledger.forced.lock().clone();
        StopReport { reason: end.unwrap_or(ExitReason::Killed), forced, over_budget, threads_left }
    }

    /// Stops after the root has ended by itself: only threads are left to end.
    pub fn abandon(self) -> Vec<String> {
        self.ledger.forced.lock().clone()
    }

    fn name_the_slow(&self) {
        let snapshot = self.root.snapshot();
        let down = [ChildState::Stopped, ChildState::Quarantined, ChildState::BackingOff];
        let slow =
            snapshot.root.walk().into_iter().filter(|n| n.kind == "worker" && !down.contains(&n.state));
        slow.map(|NodeSnapshot { path, .. }| path.clone()).for_each(|path| self.ledger.forced(path));
    }
}

async fn reported(probe: &Probe, events: &Events) {
    while !probe.is_ready() {
        events.next().await;
    }
}

fn joined(end: Result<ExitReason, tokio::task::JoinError>) -> ExitReason {
    end.unwrap_or(ExitReason::Killed)
}
