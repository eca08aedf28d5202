//! How a supervisor keeps its children those that are wanted: members of a dynamic group, replicas by their number.
//!
//! In: what changed in the wishes of a [`Group`], the `replicas` of the policy. Out: children taken in, and children let
//! go that finish what they have in hand while the others work on. A member that comes or goes costs the same however
//! many others there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Supervisor;
use crate::supervisors::kernel::group::{Changed, Group};
use crate::supervisors::kernel::slot::{Then, Turn};

impl Supervisor {
    /// Becomes the supervisor of a dynamic group.
    pub(super) fn open(&mut self, group: Group) {
        // What changes from here on is told again.
        drop(group.take_changes());
        let wanted = group.wanted();
        self.node.keep_children(&wanted);
        self.group = Some(group);
        self.waiting = wanted;
        self.fill();
    }

    /// Makes the members of a dynamic group those that are wanted.
    pub(super) fn reconcile(&mut self) {
        let Some(group) = self.group.clone() else { return };
        let names = match group.take_changes() {
            Changed::Names(names) => names,
            Changed::All => self.roster.names().cloned().chain(group.wanted()).collect(),
        };
        names.into_iter().for_each(|name| self.reconsider(&group, name));
        self.fill();
    }

    /// Looks whether the one member of this name is wanted.
    fn reconsider(&mut self, group: &Group, name: Arc<str>) {
        let wanted = group.number(&name);
        match self.roster.find(&name) {
            Some(child) if wanted == Some(self.roster[child].wish) => {}
            // A leaving namesake goes first; its end leads here again.
            Some(child) => self.let_go(child),
            None if wanted.is_some() => drop(self.waiting.insert(name)),
            None => drop(self.waiting.remove(&name)),
        }
    }

    /// Takes in those that wait, as far as there is room.
    pub(super) fn fill(&mut self) {
        let Some(group) = self.group.clone() else { return };
        let most = self.node.policy().max_children;
        while self.roster.children() < most {
            let Some(name) = self.waiting.pop_first() else { return };
            if let Some(wish) = group.wish(&name) {
                self.add(wish.spec, wish.number, Turn::Alone);
            }
        }
        if !self.waiting.is_empty() {
            let (group, over) = (self.node.path(), self.waiting.len());
            tracing::warn!(group, over, "the group is full, members wait");
        }
    }

    /// Names of the replicas that the policy wants: 1, 2, ...
    pub(super) fn wanted_replicas(&self) -> impl Iterator<Item = Arc<str>> + use<> {
        (1..=self.node.policy().replicas.max(1)).map(|number| Arc::from(number.to_string()))
    }

    /// Makes the replicas as many as the policy wants.
    pub(super) fn adjust_replicas(&mut self) {
        let Some(make) = self.replicas.clone() else { return };
        let policy = self.node.policy();
        let wanted: BTreeSet<Arc<str>> = self.wanted_replicas().collect();
        for child in 0..self.roster.len() {
            let mut slot = self.roster.edit(child);
            let (wants, free) = (wanted.contains(slot.node.name()), slot.free);
            let leaving = slot.run.as_mut().and_then(|run| run.leaving.as_mut());
            match (wants, leaving) {
                // Wanted again before it was gone.
                (true, Some(leaving)) if matches!(leaving.then, Then::Forget) => leaving.then = Then::Restart,
                (false, _) if !free => {
                    drop(slot);
                    self.let_go(child);
                }
                _ => {}
            }
        }
        for name in self.wanted_replicas() {
            if self.roster.find(&name).is_none() {
                self.add(make(name.to_string(), (*policy).clone()), 0, Turn::InOrder);
            }
        }
    }

    /// Lets one child finish what it has in hand, while the others work on; then it is forgotten.
    fn let_go(&mut self, child: usize) {
        self.roster.edit(child).pending = None;
        match self.roster[child].run.is_some() {
            true => self.see_out(child, Then::Forget),
            false => self.forget(child),
        }
    }

    /// A child is gone for good: its place is free, perhaps for one of the same name that was wanted meanwhile. Whoever
    /// calls this [fills](Self::fill) the group in the end.
    pub(super) fn forget(&mut self, child: usize) {
        let name = self.roster[child].node.name().clone();
        self.roster.free(child);
        self.node.forget_child(&name);
        if let Some(group) = self.group.clone() {
            self.reconsider(&group, name);
        }
    }
}
