//! What a supervisor does when time has passed: a child is late with its start or its end, or has to be looked after, or
//! its thread was given up.
//!
//! In: children that are due. Out: aborted incarnations, those left behind on a blocked thread, and what follows on the
//! end of a child that was seen off. Only a lost thread is looked for among all children, and that is a rare event.

use std::time::Duration;

use tokio::time::Instant;

use super::Supervisor;
use crate::clock;
use crate::domain::failure::FailureClass;
use crate::supervisors::kernel::exit::ExitReason;
use crate::supervisors::kernel::journal::EventKind;
use crate::supervisors::kernel::slot::{Leaving, Then, Turn};
use crate::supervisors::kernel::snapshot::ChildState;

impl Supervisor {
    pub(super) async fn on_timer(&mut self) -> Result<(), ExitReason> {
        let now = clock::now();
        for child in self.roster.due(now) {
            if self.roster[child].patience().is_some_and(|until| until <= now) {
                self.lose_patience(child, now).await?;
            }
            if self.roster[child].look_at().is_some_and(|at| at <= now) {
                self.look_after(child, now);
            }
        }
        Ok(())
    }

    /// A child is late: with its start, with its draining, or, aborted already, with its end.
    async fn lose_patience(&mut self, child: usize, now: Instant) -> Result<(), ExitReason> {
        let leaving = self.roster[child].run.as_ref().and_then(|run| run.leaving.as_ref());
        if leaving.is_some_and(|leaving| leaving.aborted) {
            self.leave_behind(child, true);
            return self.after_leaving(child, None).await;
        }
        let mut slot = self.roster.edit(child);
        let kill = slot.policy().stop.kill;
        let node = slot.node.clone();
        let Some(run) = &mut slot.run else { return Ok(()) };
        match &mut run.leaving {
            Some(leaving) => {
                leaving.aborted = true;
                leaving.until = Some(now + kill);
                self.shared.ledger.forced(node.path().to_owned());
                node.note(EventKind::Forced);
            }
            None => {
                let then = Then::Exit(ExitReason::StartTimeout);
                let until = Some(now + kill);
                run.leaving = Some(Box::new(Leaving { until, aborted: true, then }));
            }
        }
        tracing::warn!(child = node.path(), "did not start or drain in time, aborting it");
        run.abort.abort();
        Ok(())
    }

    /// What follows on the end of a child that was seen off; `reason` is how it ended, where it said so itself.
    pub(super) async fn after_leaving(
        &mut self,
        child: usize,
        reason: Option<ExitReason>,
    ) -> Result<(), ExitReason> {
        let leaving = self.roster.edit(child).run.as_mut().and_then(|run| run.leaving.take());
        let then = match leaving.map(|leaving| leaving.then) {
            Some(Then::Exit(reason)) => return self.on_exit(child, reason).await,
            Some(then) => then,
            None => Then::Forget,
        };
        self.note_last(child, &reason.unwrap_or(ExitReason::Killed));
        self.roster.edit(child).run = None;
        match then {
            Then::Restart => self.plan(child, ChildState::Starting, Duration::ZERO, Turn::Alone),
            Then::Hold => self.roster[child].node.enter(ChildState::Drained),
            Then::Forget | Then::Exit(_) => {
                self.forget(child);
                self.fill();
            }
        }
        Ok(())
    }

    /// Starts children again elsewhere whose arbiter was found blocked. Only the one that blocks it is to blame.
    pub(super) async fn flee_condemned(&mut self) -> Result<(), ExitReason> {
        let condemned = self.condemned.borrow_and_update().clone();
        if let Some(why) = self.shared.pools.too_many_lost().filter(|_| self.node.path().is_empty()) {
            return Err(ExitReason::Failed(FailureClass::Bug, why));
        }
        for child in 0..self.roster.len() {
            let arbiter = self.roster[child].run.as_ref().and_then(|run| run.arbiter);
            if !arbiter.is_some_and(|arbiter| condemned.contains(&arbiter)) {
                continue;
            }
            let run = self.roster[child].run.as_ref();
            let blocks = run.is_some_and(|run| run.probe.is_in_poll());
            let leaving = run.is_some_and(|run| run.leaving.is_some());
            self.leave_behind(child, blocks);
            let reason = if blocks { ExitReason::Stalled } else { ExitReason::Displaced };
            match leaving {
                true => self.after_leaving(child, None).await?,
                false => self.on_exit(child, reason).await?,
            }
        }
        Ok(())
    }
}
