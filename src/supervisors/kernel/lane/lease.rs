//! A message in an actor's hands: acknowledged when its work is done, and back in its lane when it is dropped instead.

use std::ops::Deref;
use std::sync::Arc;

use super::inbox::Reader;
use super::{Cargo, Lane, LaneView};
use crate::supervisors::kernel::generation::Generation;
use crate::supervisors::kernel::probe::Waiting;

/// A message in an actor's hands. [`ack`](Lease::ack) it when its work is done; dropping it brings it back.
///
/// It may outlive the actor it was given to, in work that was detached. Then [`is_current`](Lease::is_current) tells
/// whether that work still counts.
pub struct Lease<M: Cargo> {
    message: Arc<M>,
    attempts: u32,
    id: u64,
    reader: Arc<Reader<M>>,
    open: bool,
}

impl<M: Cargo> Lease<M> {
    pub(super) fn new(message: Arc<M>, attempts: u32, id: u64, reader: Arc<Reader<M>>) -> Self {
        reader.probe.work_begun();
        Self { message, attempts, id, reader, open: true }
    }

    /// The message itself was handled without a fault; the lease now only waits, for a disk or an answer. A later crash of
    /// its holder is then not this message's doing: it comes back without another attempt on its count.
    pub fn passed(&self) {
        self.reader.shared.passed(self.id);
    }

    /// Deliveries of this message that failed before this one.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The message, shared with the lane.
    pub fn message(&self) -> &Arc<M> {
        &self.message
    }

    /// The incarnation this lease was given to.
    pub fn generation(&self) -> &Generation {
        self.reader.probe.generation()
    }

    /// Declares that the work on this message waits for something outside, see
    /// [`Probe::wait`](crate::supervisors::kernel::probe::Probe::wait).
    pub fn wait(&self) -> Waiting {
        self.reader.probe.wait()
    }

    /// True as long as no later incarnation has taken over. Ask before writing anything outside, and again before
    /// acknowledging it: a zombie must not write.
    pub fn is_current(&self) -> bool {
        self.reader.probe.generation().is_current()
    }

    /// Its holder found out that it was replaced and acts no further: counts that, and lets go.
    pub fn fenced(mut self) {
        self.open = false;
        self.reader.shared.fenced(self.id, &self.reader);
    }

    /// The work is done. False when the lease had been revoked, so that the work of a zombie must not count.
    pub fn ack(mut self) -> bool {
        self.open = false;
        self.reader.shared.settle(self.id, &self.reader)
    }
}

impl<M: Cargo> Deref for Lease<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.message
    }
}

impl<M: Cargo> Drop for Lease<M> {
    fn drop(&mut self) {
        let (reader, probe) = (&self.reader, &self.reader.probe);
        if self.open {
            // Falls with its holder: what the supervisor is to know of it is noted while it is still in the books.
            if probe.is_over() || std::thread::panicking() {
                probe.fell_with(|| Lane { shared: reader.shared.clone() }.held_by(probe));
            }
            reader.shared.let_go(self.id, reader);
        }
        probe.work_done();
    }
}

impl<M: Cargo> std::fmt::Debug for Lease<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({}#{}, attempt {})", self.reader.shared.name, self.id, self.attempts + 1)
    }
}
