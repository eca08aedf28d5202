//! Reports of children that came while a supervisor waited for one child's end: kept in order, and the end of any child
//! is found without a search.

use std::collections::BTreeMap;

use crate::supervisors::kernel::events::ChildEvent;
use crate::supervisors::kernel::exit::ExitReason;

/// What was reported and not yet dealt with.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    events: BTreeMap<u64, ChildEvent>,
    /// Where the end of which launch of which child stands.
    exits: BTreeMap<(usize, u64), u64>,
    made: u64,
}

impl Backlog {
    pub(super) fn push(&mut self, event: ChildEvent) {
        self.made += 1;
        if let ChildEvent::Exited { child, launch, .. } = &event {
            self.exits.insert((*child, *launch), self.made);
        }
        self.events.insert(self.made, event);
    }

    /// The oldest report.
    pub(super) fn pop(&mut self) -> Option<ChildEvent> {
        let (_, event) = self.events.pop_first()?;
        if let ChildEvent::Exited { child, launch, .. } = &event {
            self.exits.remove(&(*child, *launch));
        }
        Some(event)
    }

    /// The end of this launch, if it was reported.
    pub(super) fn take_exit(&mut self, child: usize, launch: u64) -> Option<ExitReason> {
        let at = self.exits.remove(&(child, launch))?;
        match self.events.remove(&at) {
            Some(ChildEvent::Exited { reason, .. }) => Some(reason),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_taken_out_of_order_and_the_rest_stays_in_it() {
        let mut backlog = Backlog::default();
        let exited = |child| ChildEvent::Exited { child, launch: 7, reason: ExitReason::Done };
        (0..3).for_each(|child| backlog.push(exited(child)));
        backlog.push(ChildEvent::Ready { child: 9, launch: 8 });
        assert_eq!(backlog.take_exit(1, 7), Some(ExitReason::Done));
        assert_eq!((backlog.take_exit(1, 7), backlog.take_exit(2, 6)), (None, None));
        assert_eq!((backlog.pop(), backlog.pop()), (Some(exited(0)), Some(exited(2))));
        assert_eq!(backlog.pop(), Some(ChildEvent::Ready { child: 9, launch: 8 }));
        assert_eq!(backlog.pop(), None);
    }
}
