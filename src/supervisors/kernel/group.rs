//! The wanted members of a dynamic group: wishes from any thread in, to its supervisor only what changed since it last
//! looked.
//!
//! A wish costs the same however many members there are. What cannot fail here can wait there: a group has a most number
//! of members (`max_children`), and what is wanted beyond it waits for room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::policy::Policy;
use super::spec::ChildSpec;

/// Changes that nobody has taken yet are kept one by one up to this number or as many as there are members.
const FEW: usize = 64;

/// The wanted members of a dynamic group. The group's supervisor keeps what runs equal to what is wanted, also across
/// its own restarts. Cheap to clone; clones are handles of the same wishes.
///
/// ```
/// use obtrace::supervisors::kernel::group::Group;
/// use obtrace::supervisors::kernel::policy::Policy;
/// use obtrace::supervisors::kernel::seat::Worker;
/// use obtrace::supervisors::kernel::spec::ChildSpec;
///
/// struct Guest;
/// impl Worker for Guest {}
///
/// let group = Group::default();
/// group.want(ChildSpec::worker("ann", Policy::default(), |_probe| Guest).build());
/// group.want(ChildSpec::worker("bob", Policy::default(), |_probe| Guest).build());
/// // In a tree, `ChildSpec::group("guests", policy, group.clone())` now runs both; this one leaves.
/// group.unwant("ann");
/// assert_eq!(group.names(), ["bob"]);
/// ```
#[derive(Clone, Default)]
pub struct Group {
    inner: Arc<(Mutex<Wishes>, Notify)>,
}

#[derive(Default)]
struct Wishes {
    made: u64,
    members: BTreeMap<Arc<str>, Wish>,
    changed: Changed,
    /// The policy of the last member: as a rule all have the same, and then they share it.
    policy: Option<Arc<Policy>>,
}

/// What changed since the supervisor looked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// The wishes of these names.
    Names(BTreeSet<Arc<str>>),
    /// So many that going through all of them costs no more.
    All,
}

impl Default for Changed {
    fn default() -> Self {
        Self::Names(BTreeSet::new())
    }
}

/// One wanted member. Its number tells a member that was dropped and wanted anew from one that was never dropped.
#[derive(Clone)]
pub(super) struct Wish {
    pub(super) number: u64,
    pub(super) spec: ChildSpec,
}

impl Group {
    /// Wants a member; one of the same name stays as it is.
    pub fn want(&self, mut spec: ChildSpec) {
        let mut wishes = self.inner.0.lock();
        if wishes.members.contains_key(&spec.name) {
            return;
        }
        match &wishes.policy {
            Some(policy) if *policy == spec.policy => spec.policy = policy.clone(),
            _ => wishes.policy = Some(spec.policy.clone()),
        }
        wishes.made += 1;
        let (number, name) = (wishes.made, spec.name.clone());
        wishes.members.insert(name.clone(), Wish { number, spec });
        wishes.note(name);
        drop(wishes);
        self.inner.1.notify_one();
    }

    /// No longer wants the member of this name: it finishes what it has in hand and is removed.
    pub fn unwant(&self, name: &str) {
        let mut wishes = self.inner.0.lock();
        let Some((name, _)) = wishes.members.remove_entry(name) else { return };
        wishes.note(name);
        drop(wishes);
        self.inner.1.notify_one();
    }

    /// Names of the wanted members, sorted.
    pub fn names(&self) -> Vec<String> {
        self.inner.0.lock().members.keys().map(|name| name.to_string()).collect()
    }

    /// How many members are wanted.
    pub fn len(&self) -> usize {
        self.inner.0.lock().members.len()
    }

    /// True when nobody is wanted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn wish(&self, name: &str) -> Option<Wish> {
        self.inner.0.lock().members.get(name).cloned()
    }

    /// The number of the wish for this name.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.inner.0.lock().members.get(name).map(|wish| wish.number)
    }

    /// Names of the wanted members, shared.
    pub(super) fn wanted(&self) -> BTreeSet<Arc<str>> {
        self.inner.0.lock().members.keys().cloned().collect()
    }

    /// What changed since the last time this was asked.
    pub(super) fn take_changes(&self) -> Changed {
        std::mem::take(&mut self.inner.0.lock().changed)
    }

    /// Forgets a temporary member that ended, unless it was wanted anew meanwhile.
    pub(super) fn fulfilled(&self, name: &str, number: u64) {
        let mut wishes = self.inner.0.lock();
        if wishes.members.get(name).is_some_and(|wish| wish.number == number) {
            wishes.members.remove(name);
        }
    }

    /// Resolves when there may be changes to take.
    pub(super) async fn changed(&self) {
        self.inner.1.notified().await;
    }
}

impl Wishes {
    /// Notes a change. A group that no supervisor looks after for a while does not gather names without end.
    fn note(&mut self, name: Arc<str>) {
        let Changed::Names(names) = &mut self.changed else { return };
        names.insert(name);
        if names.len() > FEW.max(self.members.len()) {
            self.changed = Changed::All;
        }
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisors::kernel::seat::Worker;

    struct Guest;
    impl Worker for Guest {}

    fn guest(name: &str) -> ChildSpec {
        ChildSpec::worker(name, Policy::default(), |_| Guest).build()
    }

    fn names(names: &[&str]) -> Changed {
        Changed::Names(names.iter().map(|name| Arc::from(*name)).collect())
    }

    #[test]
    fn only_what_changed_is_told_and_only_once() {
        let group = Group::default();
        group.want(guest("a"));
        group.want(guest("b"));
        assert_eq!(group.take_changes(), names(&["a", "b"]));
        group.want(guest("a"));
        group.unwant("nobody");
        assert_eq!(group.take_changes(), names(&[]));
        group.unwant("b");
        let before = group.number("a");
        group.unwant("a");
        group.want(guest("a"));
        assert_ne!(group.number("a"), before, "wanted anew is another wish");
        assert_eq!(group.take_changes(), names(&["a", "b"]));
    }

    #[test]
    fn changes_that_nobody_takes_do_not_pile_up() {
        let group = Group::default();
        for n in 0..10 * FEW {
            group.want(guest(&n.to_string()));
            group.unwant(&n.to_string());
        }
        assert_eq!(group.take_changes(), Changed::All);
        assert_eq!(group.take_changes(), names(&[]));
    }

    #[test]
    fn members_of_the_same_policy_share_it() {
        let group = Group::default();
        group.want(guest("a"));
        group.want(guest("b"));
        let policy = |name: &str| group.wish(name).unwrap().spec.policy;
        assert!(Arc::ptr_eq(&policy("a"), &policy("b")));
    }
}
