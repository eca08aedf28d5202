//! Orders to nodes of the running tree, by path: restart, drain, pause, resume, release, and a new policy.
//!
//! In: an [`Order`] from any thread. Out: `Ok` once the supervisor concerned has begun to carry it out, or an
//! [`OrderError`] that says why not. An order that nobody took within its deadline is withdrawn and never carried out.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};

use super::journal::{EventKind, Journal};
use super::node::Node;
use super::policy::{self, Effect, Policy};
use super::tree::TreeView;
use crate::clock;
use crate::config::error::suggest;

/// Orders one supervisor keeps until it gets to them.
const MOST_WAITING: usize = 64;

/// What an operator can have done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Finish what is in hand and start again; costs no restart of any budget.
    Restart,
    /// Finish what is in hand and stay down until it is resumed or restarted. Its lane stays open and keeps what it holds.
    Drain,
    /// Stay up, with all below it, but take no more work.
    Pause,
    /// Take work again; start again what was drained.
    Resume,
    /// Try a quarantined or backing-off child at once, with a clean record.
    Release,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Restart, Self::Drain, Self::Pause, Self::Resume, Self::Release];

    /// The lower-case name used in paths and the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Drain => "drain",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Release => "release",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::as_str);
        Self::ALL.into_iter().find(|action| action.as_str() == name).ok_or_else(|| {
            let hint = suggest(name, names).map_or_else(
                || format!("there are {}", names.join(", ")),
                |meant| format!("did you mean {meant}?"),
            );
            format!("no action {name:?}, {hint}")
        })
    }
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Command {
    /// An action.
    Do(Action),
    /// Live by this policy from now on.
    Apply(Box<Policy>),
}

/// An order: what, who gave it, and why; the latter two go into the journal.
#[derive(Debug, Clone)]
pub struct Order {
    /// What is to be done.
    pub command: Command,
    /// Who ordered it.
    pub who: String,
    /// Why.
    pub why: String,
}

impl Order {
    /// An order to do `action`.
    pub fn new(action: Action, who: impl Into<String>, why: impl Into<String>) -> Self {
        Self { command: Command::Do(action), who: who.into(), why: why.into() }
    }

    /// An order to live by `policy`.
    pub fn apply(policy: Policy, who: impl Into<String>, why: impl Into<String>) -> Self {
        Self { command: Command::Apply(Box::new(policy)), who: who.into(), why: why.into() }
    }
}

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is no such node.
    #[error("no node {path:?} in the tree{}", .meant.as_ref().map(|m| format!(", did you mean {m:?}?")).unwrap_or_default())]
    Unknown {
        /// The path that was given.
        path: String,
        /// The path that may have been meant.
        meant: Option<String>,
    },
    /// The node is not in a state for it.
    #[error("{} cannot {action}: it {why}", named(.path))]
    NotApplicable {
        /// Path of the node.
        path: String,
        /// What was ordered.
        action: String,
        /// Why it cannot.
        why: String,
    },
    /// Nobody took the order within its deadline; it is withdrawn.
    #[error("the supervisor of {} did not take the order within {within:?}: it is down itself or busy stopping children, see the tree", named(.path))]
    NoAnswer {
        /// Path of the node.
        path: String,
        /// The deadline.
        within: Duration,
    },
}

fn named(path: &str) -> &str {
    if path.is_empty() { "the root" } else { path }
}

/// What a supervisor is asked to do, between two steps of its own work.
#[derive(Debug)]
pub(super) enum Errand {
    /// Something about a child.
    Do(ChildErrand),
    /// Its policy changed: it may want other children.
    Reform,
}

/// An action on a child, and where the answer goes.
#[derive(Debug)]
pub(super) struct ChildErrand {
    pub(super) child: String,
    pub(super) action: Action,
    /// Who and why; none where the order was written down already.
    pub(super) signed: Option<(String, String)>,
    pub(super) reply: oneshot::Sender<Result<(), String>>,
}

/// The orders that wait for one supervisor. It belongs to the node, so it outlives the supervisor's own restart.
#[derive(Debug, Default)]
pub(super) struct Tray {
    inner: Mutex<VecDeque<Errand>>,
    filled: Notify,
}

impl Tray {
    /// False when too many wait already.
    pub(super) fn put(&self, errand: Errand) -> bool {
        let mut waiting = self.inner.lock();
        waiting.retain(|errand| !matches!(errand, Errand::Do(errand) if errand.reply.is_closed()));
        if waiting.len() >= MOST_WAITING {
            return false;
        }
        waiting.push_back(errand);
        self.filled.notify_one();
        true
    }

    /// The next errand that somebody still wants done. One supervisor task waits at a time.
    pub(super) async fn next(&self) -> Errand {
        loop {
            match self.inner.lock().pop_front() {
                Some(Errand::Do(errand)) if errand.reply.is_closed() => continue,
                Some(errand) => return errand,
                None => {}
            }
            self.filled.notified().await;
        }
    }
}

impl TreeView {
    /// The journal of this tree.
    pub fn journal(&self) -> Journal {
        self.node.scribe.journal().clone()
    }

    /// The policy by which the node at `path` lives now.
    pub fn policy(&self, path: &str) -> Option<Policy> {
        self.trail(path).map(|(node, _)| (*node.policy()).clone())
    }

    /// Has an order carried out on the node at `path` (empty for the root); `Ok` says that it was begun. Everything that
    /// follows from it is in the tree and in the journal. May be called from any thread.
    ///
    /// # Errors
    /// [`OrderError`]; the order was then not carried out, nor will it be.
    pub async fn order(&self, path: &str, order: Order, deadline: Duration) -> Result<(), OrderError> {
        let (node, parent) = self.trail(path).ok_or_else(|| self.unknown(path))?;
        let clerk = Clerk { node, parent, ends: clock::now() + deadline, within: deadline };
        match order.command {
            Command::Do(action) => clerk.act(action, order.who, order.why).await,
            Command::Apply(policy) => clerk.apply(*policy).await,
        }
    }

    /// The node at `path` and the one above it.
    fn trail(&self, path: &str) -> Option<(Arc<Node>, Option<Arc<Node>>)> {
        let (mut node, mut parent) = (self.node.clone(), None);
        while node.path() != path {
            let rest = path.strip_prefix(node.path())?;
            let rest = if node.path().is_empty() { rest } else { rest.strip_prefix('.')? };
            // A name may hold dots itself.
            let ends = rest.match_indices('.').map(|(at, _)| at).chain([rest.len()]);
            let next = ends.filter_map(|end| node.child_named(&rest[..end])).next()?;
            parent = Some(std::mem::replace(&mut node, next));
        }
        Some((node, parent))
    }

    fn unknown(&self, path: &str) -> OrderError {
        let snapshot = self.snapshot();
        let paths =
            snapshot.root.walk().into_iter().map(|node| node.path.as_str()).filter(|path| !path.is_empty());
        OrderError::Unknown { path: path.to_owned(), meant: suggest(path, paths).map(str::to_owned) }
    }
}

/// Sees one order through.
struct Clerk {
    node: Arc<Node>,
    parent: Option<Arc<Node>>,
    ends: tokio::time::Instant,
    within: Duration,
}

impl Clerk {
    async fn act(&self, action: Action, who: String, why: String) -> Result<(), OrderError> {
        let node = &self.node;
        match action {
            Action::Pause if node.is_paused() => Err(self.cannot(action, "is paused already")),
            Action::Pause => {
                node.note(EventKind::Action { action, who, why });
                node.set_paused(true);
                node.note(EventKind::Paused);
                Ok(())
            }
            Action::Resume if node.is_paused() => {
                node.note(EventKind::Action { action, who, why });
                node.set_paused(false);
                node.note(EventKind::Resumed);
                if node.is_held() { self.errand(action, None).await } else { Ok(()) }
            }
            _ => self.errand(action, Some((who, why))).await,
        }
    }

    /// Gives an action to the supervisor above, and waits for its word.
    async fn errand(&self, action: Action, signed: Option<(String, String)>) -> Result<(), OrderError> {
        let Some(parent) = &self.parent else {
            return Err(self.cannot(action, "has no supervisor; stop or start the process instead"));
        };
        let (reply, answer) = oneshot::channel();
        let errand = ChildErrand { child: self.node.name().to_string(), action, signed, reply };
        let no_answer = || OrderError::NoAnswer { path: self.node.path().to_owned(), within: self.within };
        if !parent.put_errand(Errand::Do(errand)) {
            return Err(no_answer());
        }
        match tokio::time::timeout_at(self.ends, answer).await {
            Ok(Ok(answer)) => answer.map_err(|why| self.cannot(action, &why)),
            // Dropped unanswered: the supervisor fell over it, or the tree is gone.
            Ok(Err(_)) | Err(_) => Err(no_answer()),
        }
    }

    /// Lays a new policy over the node and over what below it lives by the very same one: replicas, members of a group.
    async fn apply(&self, policy: Policy) -> Result<(), OrderError> {
        let policy = Arc::new(policy);
        let old = self.node.policy();
        let changes = policy::changes(&old, &policy);
        if changes.is_empty() {
            return Ok(());
        }
        let followers: Vec<Arc<Node>> =
            self.node.below().into_iter().filter(|child| *child.policy() == *old).collect();
        for node in std::iter::once(&self.node).chain(&followers) {
            node.adopt(policy.clone());
        }
        let keys = changes.iter().map(|(key, _)| (*key).to_owned()).collect();
        self.node.note(EventKind::PolicyApplied { keys });
        self.node.put_errand(Errand::Reform);
        if changes.iter().any(|(_, effect)| *effect == Effect::RestartsChild) {
            self.restart_workers(&followers).await?;
        }
        Ok(())
    }

    /// Starts those anew that can only so live by the new policy. One that is down does when it is started.
    async fn restart_workers(&self, followers: &[Arc<Node>]) -> Result<(), OrderError> {
        let above = |node: &Arc<Node>, parent: &Option<Arc<Node>>| Self {
            node: node.clone(),
            parent: parent.clone(),
            ends: self.ends,
            within: self.within,
        };
        let mut workers = vec![above(&self.node, &self.parent)];
        workers.extend(followers.iter().map(|node| above(node, &Some(self.node.clone()))));
        for clerk in workers.iter().filter(|clerk| clerk.node.is_worker() && clerk.node.is_launched()) {
            match clerk.errand(Action::Restart, None).await {
                // It is on its way down already, and comes back with the new policy if at all.
                Ok(()) | Err(OrderError::NotApplicable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn cannot(&self, action: Action, why: &str) -> OrderError {
        OrderError::NotApplicable {
            path: self.node.path().to_owned(),
            action: action.to_string(),
            why: why.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_read_by_name_and_a_slip_is_met_with_a_suggestion() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse(), Ok(action));
        }
        assert_eq!(
            "restrat".parse::<Action>(),
            Err(String::from("no action \"restrat\", did you mean restart?"))
        );
        assert_eq!(
            "explode".parse::<Action>(),
            Err(String::from("no action \"explode\", there are restart, drain, pause, resume, release"))
        );
    }

    #[test]
    fn a_tray_is_bounded_and_forgets_what_nobody_waits_for() {
        let tray = Tray::default();
        let put = |waiters: &mut Vec<_>| {
            let (reply, answer) = oneshot::channel();
            waiters.push(answer);
            tray.put(Errand::Do(ChildErrand {
                child: String::from("a"),
                action: Action::Drain,
                signed: None,
                reply,
            }))
        };
        let mut waiters = Vec::new();
        assert!((0..MOST_WAITING).all(|_| put(&mut waiters)));
        assert!(!put(&mut waiters));
        waiters.clear();
        assert!(put(&mut waiters));
        assert_eq!(tray.inner.lock().len(), 1);
    }
}
