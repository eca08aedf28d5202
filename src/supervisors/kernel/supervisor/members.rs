//! How a supervisor keeps its children those that are wanted: members of a dynamic group, replicas by their number.
//!
//! In: the wishes of a [`Group`](crate::supervisors::kernel::spec::Group), the `replicas` of the policy. Out: children
//! taken in, and children let go that finish what they have in hand while the others work on.

use std::collections::BTreeSet;

use super::Supervisor;
use crate::supervisors::kernel::slot::{Then, Turn};

impl Supervisor {
    /// Makes the members of a dynamic group those that are wanted.
    pub(super) fn reconcile(&mut self) {
        let Some(group) = self.group.clone() else { return };
        let wanted = group.wanted();
        for child in 0..self.slots.len() {
            let slot = &self.slots[child];
            let still = wanted.get(&slot.spec.name).is_some_and(|wish| wish.number == slot.wish);
            if !slot.free && !still {
                self.let_go(child);
            }
        }
        let here: BTreeSet<String> =
            self.slots.iter().filter(|slot| !slot.free).map(|slot| slot.spec.name.clone()).collect();
        let room = self.node.policy().max_children.saturating_sub(here.len());
        // A leaving namesake goes first; its end calls here again.
        let missing: Vec<_> = wanted.into_values().filter(|wish| !here.contains(&wish.spec.name)).collect();
        if missing.len() > room {
            tracing::warn!(
                group = self.node.path,
                over = missing.len() - room,
                "the group is full, members wait"
            );
        }
        missing.into_iter().take(room).for_each(|wish| self.add(wish.spec, wish.number, Turn::Alone));
    }

    /// Names of the replicas that the policy wants: 1, 2, ...
    pub(super) fn wanted_replicas(&self) -> impl Iterator<Item = String> + use<> {
        (1..=self.node.policy().replicas.max(1)).map(|number| number.to_string())
    }

    /// Makes the replicas as many as the policy wants.
    pub(super) fn adjust_replicas(&mut self) {
        let Some(make) = self.replicas.clone() else { return };
        let policy = self.node.policy();
        let wanted: BTreeSet<String> = self.wanted_replicas().collect();
        for child in 0..self.slots.len() {
            let slot = &mut self.slots[child];
            let leaving = slot.run.as_mut().and_then(|run| run.leaving.as_mut());
            match (wanted.contains(&slot.spec.name), leaving) {
                // Wanted again before it was gone.
                (true, Some(leaving)) if matches!(leaving.then, Then::Forget) => leaving.then = Then::Restart,
                (false, _) if !slot.free => self.let_go(child),
                _ => {}
            }
        }
        for name in self.wanted_replicas() {
            if !self.slots.iter().any(|slot| !slot.free && slot.spec.name == name) {
                self.add(make(name, (*policy).clone()), 0, Turn::InOrder);
            }
        }
    }

    /// Lets one child finish what it has in hand, while the others work on; then it is forgotten.
    fn let_go(&mut self, child: usize) {
        self.slots[child].pending = None;
        match self.slots[child].run.is_some() {
            true => self.see_out(child, Then::Forget),
            false => self.forget(child),
        }
    }

    pub(super) fn forget(&mut self, child: usize) {
        let slot = &mut self.slots[child];
        slot.free = true;
        slot.pending = None;
        self.node.forget_child(&slot.spec.name);
    }
}
