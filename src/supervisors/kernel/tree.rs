//! The tree as a whole: start it, look at it, stop it within a budget.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::events::Events;
use super::exit::ExitReason;
use super::panics;
use super::pools::Pools;
use super::probe::{Drain, Probe};
use super::snapshot::{ChildState, Node, NodeSnapshot, SNAPSHOT_VERSION, TreeSnapshot};
use super::spec::ChildSpec;
use super::supervisor::{Shared, Supervisor};

/// Children that had to be aborted while the tree was running or stopping.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    forced: Arc<Mutex<Vec<String>>>,
}

impl Ledger {
    pub(super) fn forced(&self, path: String) {
        let mut forced = self.forced.lock();
        // The list is for the operator's last line; a flood of aborts does not make it more useful.
        if forced.len() < 64 {
            forced.push(path);
        }
    }
}

/// A running tree. Dropping it does not stop it; call [`Tree::stop`].
#[derive(Debug)]
pub struct Tree {
    root: TreeView,
    probe: Probe,
    events: Events,
    ledger: Ledger,
    task: JoinHandle<ExitReason>,
    pools: Pools,
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
}

/// A look at the tree from any thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TreeView {
    node: Arc<Node>,
}

impl TreeView {
    /// The whole tree as of now.
    pub fn snapshot(&self) -> TreeSnapshot {
        TreeSnapshot { version: SNAPSHOT_VERSION, root: self.node.snapshot() }
    }

    /// True when every node does its work.
    pub fn is_up(&self) -> bool {
        self.node.snapshot().is_up()
    }
}

impl Tree {
    /// Starts the tree on this thread, which must run an actix `System`. Returns at once; see [`Tree::ready`].
    pub fn start(root: &ChildSpec, pools: Pools) -> Self {
        panics::install_hook();
        let node = Node::new(root, None);
        let events = Events::default();
        let probe = Probe::new(0, node.generations.advance(), events.clone());
        node.launched(probe.clone());
        let ledger = Ledger::default();
        let shared = Shared { pools: pools.clone(), ledger: ledger.clone() };
        let supervisor = Supervisor::new(root, node.clone(), probe.clone(), shared);
        let task = tokio::task::spawn_local(async move {
            let end = AssertUnwindSafe(supervisor.run()).catch_unwind().await;
            end.unwrap_or_else(|payload| ExitReason::Panicked {
                message: panics::message_of(&*payload),
                location: panics::take_location(),
            })
        });
        Self { root: TreeView { node }, probe, events, ledger, task, pools }
    }

    /// Waits until every child has reported ready (`Ok`), or the root has failed (`Err` with its reason).
    ///
    /// # Errors
    /// The exit reason of the root.
    pub async fn ready(&mut self) -> Result<(), ExitReason> {
        tokio::select! {
            _ = self.events.next() => {
                self.root.node.enter(ChildState::Running);
                Ok(())
            }
            end = &mut self.task => Err(joined(end)),
        }
    }

    /// Waits until the root ends by itself: its restart limit was passed, or the configuration is wrong.
    pub async fn failed(&mut self) -> ExitReason {
        joined((&mut self.task).await)
    }

    /// A look at the tree, for the admin API.
    pub fn view(&self) -> TreeView {
        self.root.clone()
    }

    /// Drains all children in reverse start order, at most for `budget`, then stops the arbiters.
    pub async fn stop(mut self, budget: Duration) -> StopReport {
        self.probe.request_drain(Drain::Shutdown);
        self.root.node.enter(ChildState::Draining);
        let end = tokio::time::timeout(budget, &mut self.task).await;
        let over_budget = end.is_err();
        let reason = match end {
            Ok(end) => joined(end),
            Err(_) => {
                self.name_the_slow();
                self.task.abort();
                ExitReason::Killed
            }
        };
        self.root.node.enter(ChildState::Stopped);
        if !over_budget {
            self.pools.stop();
        }
        StopReport { reason, forced: self.ledger.forced.lock().clone(), over_budget }
    }

    /// Stops after the root has ended by itself: only threads are left to end.
    pub fn abandon(self) -> Vec<String> {
        self.ledger.forced.lock().clone()
    }

    fn name_the_slow(&self) {
        let snapshot = self.root.snapshot();
        let slow = snapshot.root.walk().into_iter().filter(|n| n.state == ChildState::Draining && n.kind == "worker");
        slow.map(|NodeSnapshot { path, .. }| path.clone()).for_each(|path| self.ledger.forced(path));
    }
}

fn joined(end: Result<ExitReason, tokio::task::JoinError>) -> ExitReason {
    end.unwrap_or(ExitReason::Killed)
}
