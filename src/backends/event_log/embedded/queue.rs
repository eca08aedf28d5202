//! The bounded queue between callers and the writer thread: operations in, batches out; refuses when full or closed.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::appender::AppendReply;
use super::frame::Body;
use super::groups::GroupKey;
use crate::backends::event_log::{Claim, Committed, LogError};

/// What an operation counts for beyond its bytes, so that many small ones are bounded too.
const OVERHEAD: usize = 256;

/// Where the answer to a claim goes.
pub(super) type ClaimReply = oneshot::Sender<Result<(Claim, Committed), LogError>>;

/// One request to the writer thread.
pub(super) enum Op {
    Append { slot: usize, body: Body, dedup: Option<u128>, reply: AppendReply },
    Claim { key: GroupKey, slot: usize, reply: ClaimReply },
    Commit { key: GroupKey, claim: Claim, position: Committed, reply: oneshot::Sender<Result<(), LogError>> },
}

/// When a group commit starts after its first operation came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupCommit {
    /// How long to gather. Zero commits as soon as the previous commit is done: what came in meanwhile is the batch.
    pub max_wait: Duration,
    /// Bytes that end the gathering, and the most one commit takes.
    pub max_bytes: usize,
}

impl Default for GroupCommit {
    fn default() -> Self {
        Self { max_wait: Duration::ZERO, max_bytes: 16 * 1024 * 1024 }
    }
}

/// The queue. Bytes count until the batch they went into is synced.
pub(super) struct Queue {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ops: VecDeque<Op>,
    waiting_bytes: usize,
    bytes: usize,
    closed: bool,
    ended: bool,
}

impl Op {
    fn size(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Append { body, .. } => body.len(),
                Self::Claim { key, .. } => key.size(),
                Self::Commit { key, position, .. } => key.size() + position.metadata.len(),
            }
    }
}

impl Queue {
    /// A queue for `limit` bytes; one larger operation passes when nothing else waits.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Puts an operation in.
    ///
    /// # Errors
    /// [`LogError::Full`] and [`LogError::Closed`].
    pub(super) fn push(&self, op: Op) -> Result<(), LogError> {
        let size = op.size();
        let mut state = self.state.lock();
        if state.closed {
            return Err(LogError::Closed);
        }
        if state.bytes > 0 && state.bytes + size > self.limit {
            return Err(LogError::Full);
        }
        state.bytes += size;
        state.waiting_bytes += size;
        state.ops.push_back(op);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// The next batch and its bytes; `None` when the queue is closed and empty.
    pub(super) fn next(&self, commit: &GroupCommit) -> Option<(Vec<Op>, usize)> {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |s| s.ops.is_empty() && !s.closed);
        if !commit.max_wait.is_zero() {
            let gathering = |s: &mut State| s.waiting_bytes < commit.max_bytes && !s.closed;
            self.changed.wait_while_for(&mut state, gathering, commit.max_wait);
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < commit.max_bytes || batch.is_empty() {
            let Some(op) = state.ops.pop_front() else { break };
            bytes += op.size();
            batch.push(op);
        }
        state.waiting_bytes -= bytes;
        (!batch.is_empty()).then_some((batch, bytes))
    }

    /// Gives the bytes of a synced batch back.
    pub(super) fn release(&self, bytes: usize) {
        self.state.lock().bytes -= bytes;
    }

    /// Bytes waiting or being written.
    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Refuses from now on; the writer drains what is there and ends.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Whether the queue refuses.
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// The writer has ended: what is still there is dropped, which answers `Closed`.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.ended = true;
        let left = std::mem::take(&mut state.ops);
        drop(state);
        drop(left);
        self.changed.notify_all();
    }

    /// Waits until the writer has ended; false when `deadline` passes first.
    pub(super) fn wait_ended(&self, deadline: Duration) -> bool {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |s| !s.ended, deadline);
        state.ended
    }
}
