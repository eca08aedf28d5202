//! How a supervisor carries out orders about its children: one at a time, begun at once, never waited for.
//!
//! In: [`Errand`]s from its node's tray. Out: an answer to who ordered, and children on their way down or up. A child
//! that is seen off by an order does so as a slot's state ([`Leaving`]), so its siblings work on meanwhile.

use std::time::Duration;

use super::Supervisor;
use crate::clock;
use crate::supervisors::kernel::control::{Action, ChildErrand, Errand};
use crate::supervisors::kernel::journal::EventKind;
use crate::supervisors::kernel::probe::Drain;
use crate::supervisors::kernel::slot::{Leaving, Then, Turn};
use crate::supervisors::kernel::snapshot::ChildState;

impl Supervisor {
    pub(super) fn on_errand(&mut self, errand: Errand) {
        match errand {
            Errand::Reform => self.reform(),
            Errand::Do(ChildErrand { child, action, signed, reply }) => {
                // Nobody may be waiting any more.
                let _ = reply.send(self.carry_out(&child, action, signed));
            }
        }
    }

    fn carry_out(
        &mut self,
        child: &str,
        action: Action,
        signed: Option<(String, String)>,
    ) -> Result<(), String> {
        let known = self.roster.find(child);
        let child = known.ok_or_else(|| String::from("is gone"))?;
        self.may(child, action)?;
        let node = self.roster[child].node.clone();
        if let Some((who, why)) = signed {
            tracing::info!(child = node.path(), %action, who, why, "ordered");
            node.note(EventKind::Action { action, who, why });
        }
        node.set_held(action == Action::Drain);
        match action {
            Action::Restart | Action::Resume => self.bring_back(child),
            Action::Drain => self.take_down(child),
            Action::Release => {
                self.brain.pardon(child);
                self.plan(child, ChildState::Starting, Duration::ZERO, Turn::Alone);
            }
            // Needs no supervisor: nodes are paused directly.
            Action::Pause => {}
        }
        Ok(())
    }

    /// Whether the child is in a state for it.
    fn may(&self, child: usize, action: Action) -> Result<(), String> {
        let slot = &self.roster[child];
        let state = slot.node.state();
        match slot.run.as_ref().and_then(|run| run.leaving.as_ref()).map(|leaving| &leaving.then) {
            Some(Then::Forget) => return Err(String::from("is leaving, because nobody wants it any more")),
            Some(Then::Exit(_)) => {
                return Err(String::from("is being aborted, what follows is its policy's"));
            }
            Some(Then::Restart) if action == Action::Restart => {
                return Err(String::from("is being restarted already"));
            }
            Some(Then::Restart | Then::Hold) | None => {}
        }
        match action {
            Action::Drain if slot.node.is_held() => Err(String::from("is drained already")),
            Action::Resume if !slot.node.is_held() => Err(String::from("is neither paused nor drained")),
            Action::Release if !matches!(state, ChildState::Quarantined | ChildState::BackingOff) => Err(
                format!("is {}, and only what is quarantined or backing off can be released", state.as_str()),
            ),
            _ => Ok(()),
        }
    }

    fn bring_back(&mut self, child: usize) {
        if self.roster[child].run.is_some() {
            self.see_out(child, Then::Restart);
        } else {
            self.plan(child, ChildState::Starting, Duration::ZERO, Turn::Alone);
        }
    }

    fn take_down(&mut self, child: usize) {
        self.roster.edit(child).pending = None;
        if self.roster[child].run.is_some() {
            self.see_out(child, Then::Hold);
        } else {
            self.roster[child].node.enter(ChildState::Drained);
        }
    }

    /// Asks a running child to finish what it has in hand and remembers what follows; its siblings work on.
    pub(super) fn see_out(&mut self, child: usize, then: Then) {
        let mut slot = self.roster.edit(child);
        let patience = slot.is_worker().then_some(slot.policy().stop.drain);
        let node = slot.node.clone();
        let Some(run) = &mut slot.run else { return };
        if let Some(leaving) = &mut run.leaving {
            leaving.then = then;
            return;
        }
        run.probe.request_drain(Drain::Restart);
        let until = patience.map(|drain| clock::now() + drain);
        run.leaving = Some(Box::new(Leaving { until, aborted: false, then }));
        node.enter(ChildState::Draining);
        node.note(EventKind::Draining);
    }

    /// Takes up what a new policy says about which children there are.
    fn reform(&mut self) {
        self.adjust_replicas();
        self.fill();
    }
}
