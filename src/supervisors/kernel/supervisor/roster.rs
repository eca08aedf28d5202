//! The children of one supervisor, and what is to be done about them when.
//!
//! In: edits of single slots. Out: which child may start now, who is late, when to look again. Each edit costs the
//! logarithm of the number of children and each question, but for what it answers, no more: no step of a supervisor looks
//! at all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut, Index};
use std::sync::Arc;

use tokio::time::Instant;

use crate::supervisors::kernel::node::Node;
use crate::supervisors::kernel::policy::Policy;
use crate::supervisors::kernel::slot::{Pending, Slot, Turn};
use crate::supervisors::kernel::spec::ChildSpec;

/// The slots, by number and by name. Numbers are start order; a slot whose child is gone for good is given to another.
#[derive(Default)]
pub(super) struct Roster {
    slots: Vec<Slot>,
    marks: Vec<Marks>,
    free: BTreeSet<usize>,
    names: BTreeMap<Arc<str>, usize>,
    agenda: Agenda,
    /// Who is in the free slots.
    nobody: Option<(ChildSpec, Arc<Node>)>,
}

/// What is to be done, by when. All of it follows from the slots.
#[derive(Default)]
struct Agenda {
    /// On their way up, or to be started: those after them that start in order wait for them.
    coming: BTreeSet<usize>,
    /// How many are launched and not up.
    starting: usize,
    /// Starts whose time has not come.
    starts: BTreeSet<(Instant, usize)>,
    /// Starts whose time has come, and that wait for their turn only: those in order, and all others.
    ripe: [BTreeSet<usize>; 2],
    /// When somebody's patience ends or somebody has to be looked after.
    looks: BTreeSet<(Instant, usize)>,
}

/// What stands in the agenda about one slot.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Marks {
    coming: bool,
    starting: bool,
    start: Option<(Instant, Turn)>,
    look: Option<Instant>,
}

impl Marks {
    fn of(slot: &Slot) -> Self {
        Self {
            coming: slot.is_coming(),
            starting: slot.is_starting(),
            start: slot.pending.as_ref().map(|Pending { at, turn }| (*at, *turn)),
            look: slot.patience().into_iter().chain(slot.look_at()).min(),
        }
    }
}

/// A slot being changed; the agenda is brought up to it when this is dropped.
pub(super) struct Edit<'r> {
    roster: &'r mut Roster,
    child: usize,
}

impl Roster {
    /// Takes a child in, in the first free slot or a new one. Returns the slot, and whether it is a used one.
    pub(super) fn add(&mut self, slot: Slot) -> (usize, bool) {
        let free = self.free.pop_first();
        let child = free.unwrap_or(self.slots.len());
        self.names.insert(slot.node.name().clone(), child);
        match free {
            Some(child) => self.slots[child] = slot,
            None => {
                self.slots.push(slot);
                self.marks.push(Marks::default());
            }
        }
        self.mark(child);
        (child, free.is_some())
    }

    /// Gives a slot free whose child is gone for good.
    pub(super) fn free(&mut self, child: usize) {
        self.names.remove(self.slots[child].node.name());
        self.free.insert(child);
        // Nothing of the old child is kept until another comes.
        let (spec, node) = self.nobody.get_or_insert_with(|| {
            let spec = ChildSpec::supervisor("", Policy::default(), Vec::new());
            let node = Node::root(&spec);
            (spec, node)
        });
        self.slots[child] = Slot { free: true, ..Slot::new(spec.clone(), node.clone(), 0, 0) };
        self.mark(child);
    }

    pub(super) fn edit(&mut self, child: usize) -> Edit<'_> {
        Edit { roster: self, child }
    }

    /// Number of slots, free ones included.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Number of children.
    pub(super) fn children(&self) -> usize {
        self.names.len()
    }

    /// The child of this name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// Names of the children.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.keys()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    /// True while a child is on its way up.
    pub(super) fn is_any_coming(&self) -> bool {
        !self.agenda.coming.is_empty()
    }

    /// How many children are launched and not yet up.
    pub(super) fn starting(&self) -> usize {
        self.agenda.starting
    }

    /// The first child that may start at `now`. Of those in order at most `at_once` are on their way up at a time; the
    /// others wait for nobody, and start only where `others` says so.
    pub(super) fn next_start(&mut self, now: Instant, at_once: usize, others: bool) -> Option<usize> {
        self.ripen(now);
        let Agenda { coming, ripe: [in_order, alone], .. } = &self.agenda;
        // If the first of them has to wait for those before it, so has every later one.
        let turn = |child: &usize| coming.range(..child).nth(at_once.saturating_sub(1)).is_none();
        let first = in_order.first().filter(|child| turn(child));
        let other = alone.first().filter(|_| others);
        first.into_iter().chain(other).min().copied()
    }

    /// The time of every start up to `now` has come.
    fn ripen(&mut self, now: Instant) {
        while let Some((_, child)) = self.agenda.starts.first().copied().filter(|(at, _)| *at <= now) {
            self.agenda.starts.pop_first();
            if let Some((_, turn)) = self.marks[child].start {
                self.agenda.ripe[class(turn)].insert(child);
            }
        }
    }

    /// When something has to be done next, if nothing happens until then.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let start = self.agenda.starts.first().map(|(at, _)| *at);
        let look = self.agenda.looks.first().map(|(at, _)| *at);
        start.into_iter().chain(look).min()
    }

    /// Children whose patience has ended, or that have to be looked after, in start order.
    pub(super) fn due(&self, now: Instant) -> Vec<usize> {
        let due = self.agenda.looks.iter().take_while(|(at, _)| *at <= now);
        let mut children: Vec<usize> = due.map(|(_, child)| *child).collect();
        children.sort_unstable();
        children
    }

    /// Brings the agenda up to a slot.
    fn mark(&mut self, child: usize) {
        let (old, new) = (self.marks[child], Marks::of(&self.slots[child]));
        if old == new {
            return;
        }
        let agenda = &mut self.agenda;
        match (old.coming, new.coming) {
            (false, true) => drop(agenda.coming.insert(child)),
            (true, false) => drop(agenda.coming.remove(&child)),
            _ => {}
        }
        agenda.starting = agenda.starting + usize::from(new.starting) - usize::from(old.starting);
        if old.start != new.start {
            if let Some((at, turn)) = old.start {
                let _ripe = agenda.starts.remove(&(at, child)) || agenda.ripe[class(turn)].remove(&child);
            }
            agenda.starts.extend(new.start.map(|(at, _)| (at, child)));
        }
        if old.look != new.look {
            if let Some(at) = old.look {
                agenda.looks.remove(&(at, child));
            }
            agenda.looks.extend(new.look.map(|at| (at, child)));
        }
        self.marks[child] = new;
    }
}

fn class(turn: Turn) -> usize {
    usize::from(turn != Turn::InOrder)
}

impl Index<usize> for Roster {
    type Output = Slot;

    fn index(&self, child: usize) -> &Slot {
        &self.slots[child]
    }
}

impl Deref for Edit<'_> {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        &self.roster.slots[self.child]
    }
}

impl DerefMut for Edit<'_> {
    fn deref_mut(&mut self) -> &mut Slot {
        &mut self.roster.slots[self.child]
    }
}

impl Drop for Edit<'_> {
    fn drop(&mut self) {
        self.roster.mark(self.child);
    }
}

#[cfg(test)]
mod tests;
