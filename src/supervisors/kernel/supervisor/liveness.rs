//! How a supervisor finds out that a child has stalled, and what it does about it.
//!
//! In: a look at a child's probe, when it is due. Out: nothing, or the child fenced, its leases taken back with blame, and
//! its incarnation aborted; the end of it is an exit for the reason `Stalled`, which restarts it by its policy.

use tokio::time::Instant;

use super::Supervisor;
use crate::supervisors::kernel::exit::ExitReason;
use crate::supervisors::kernel::journal::EventKind;
use crate::supervisors::kernel::liveness::{Look, Sight};
use crate::supervisors::kernel::slot::{Leaving, Then};

impl Supervisor {
    /// Looks after one child that is up to its own devices.
    pub(super) fn look_after(&mut self, child: usize, now: Instant) {
        let mut slot = self.roster.edit(child);
        let (node, policy) = (slot.node.clone(), slot.policy());
        let Some(run) = &mut slot.run else { return };
        let probe = &run.probe;
        let seen =
            Sight { progressed: probe.progressed(), has_work: probe.has_work(), waiting: probe.is_waiting() };
        let quiet = match run.liveness.look(&policy.liveness, seen, now - self.born) {
            Look::Again(after) => return run.look_at = after.map(|after| now + after),
            Look::Stalled(quiet) => quiet,
        };
        let path = node.path();
        tracing::error!(child = path, without_progress = ?quiet, "stalled with work in hand, aborting it");
        let for_ms = u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX);
        node.note(EventKind::Stalled { for_ms });
        // Noted before its leases are taken away.
        run.probe.fell_with(|| node.held_by(&run.probe));
        node.generations.advance();
        node.revoke_leases(true);
        run.abort.abort();
        let until = Some(now + policy.stop.kill);
        run.leaving = Some(Box::new(Leaving { until, aborted: true, then: Then::Exit(ExitReason::Stalled) }));
    }
}
