//! What all threads see of a partition: its segments and its durable end, moved only by the writer and by retention.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::segment::Segment;
use crate::backends::event_log::{LogError, Offset};

/// Most segments one read goes through.
const SEGMENTS_PER_READ: usize = 4;

/// A partition of a topic.
pub(super) struct Partition {
    /// Topic it belongs to.
    pub topic: String,
    /// Number within the topic.
    pub number: u32,
    /// Folder of its segments.
    pub dir: PathBuf,
    view: RwLock<View>,
    tail: watch::Sender<Tail>,
}

struct View {
    segments: VecDeque<Arc<Segment>>,
    end: Offset,
}

#[derive(Clone, Copy)]
struct Tail {
    end: Offset,
    closed: bool,
}

/// A stretch of a read: a segment, its durable bytes and the offset after its last record.
pub(super) struct Stretch {
    pub segment: Arc<Segment>,
    pub limit: u64,
    pub end: Offset,
}

impl Partition {
    /// A partition of segments in order of their base offset, the last of them active.
    pub(super) fn new(
        topic: String,
        number: u32,
        dir: PathBuf,
        segments: VecDeque<Arc<Segment>>,
        end: Offset,
    ) -> Self {
        let tail = watch::Sender::new(Tail { end, closed: false });
        Self { topic, number, dir, view: RwLock::new(View { segments, end }), tail }
    }

    /// First offset still there and one past the last durable one.
    pub(super) fn bounds(&self) -> (Offset, Offset) {
        let view = self.view.read();
        (view.start(), view.end)
    }

    /// Bytes and number of segments.
    pub(super) fn size(&self) -> (u64, usize) {
        let view = self.view.read();
        (view.segments.iter().map(|s| s.len()).sum(), view.segments.len())
    }

    /// Moves the durable end: readers see the records, waiters wake.
    pub(super) fn publish(&self, end: Offset) {
        self.view.write().end = end;
        self.tail.send_modify(|tail| tail.end = end);
    }

    /// Wakes all waiters for good.
    pub(super) fn close(&self) {
        self.tail.send_modify(|tail| tail.closed = true);
    }

    /// Puts a new active segment behind the others.
    pub(super) fn push(&self, segment: Arc<Segment>) {
        self.view.write().segments.push_back(segment);
    }

    /// The oldest segment, unless it is the active one, and the bytes of all.
    pub(super) fn oldest_sealed(&self) -> Option<(Arc<Segment>, u64)> {
        let view = self.view.read();
        let oldest = (view.segments.len() > 1).then(|| view.segments.front().cloned()).flatten()?;
        Some((oldest, view.segments.iter().map(|s| s.len()).sum()))
    }

    /// Forgets the segment with this base if it is the oldest and not the active one.
    pub(super) fn drop_oldest(&self, base: Offset) {
        let mut view = self.view.write();
        if view.segments.len() > 1 && view.segments.front().is_some_and(|s| s.base == base) {
            view.segments.pop_front();
        }
    }

    /// Where to read for `from`; empty at the end.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] when retention has removed the offset.
    pub(super) fn plan(&self, from: Offset) -> Result<Vec<Stretch>, LogError> {
        let view = self.view.read();
        let start = view.start();
        if from < start {
            return Err(LogError::OutOfRange { offset: from, start });
        }
        if from >= view.end {
            return Ok(Vec::new());
        }
        let first = view.segments.partition_point(|s| s.base <= from).saturating_sub(1);
        let stretches =
            view.segments.iter().enumerate().skip(first).take(SEGMENTS_PER_READ).map(|(i, segment)| {
                Stretch {
                    segment: Arc::clone(segment),
                    limit: segment.len(),
                    end: view.segments.get(i + 1).map_or(view.end, |next| next.base),
                }
            });
        Ok(stretches.collect())
    }

    /// Resolves once the durable end is past `at`.
    ///
    /// # Errors
    /// [`LogError::Closed`] when the log closes first.
    pub(super) async fn wait_for(self: Arc<Self>, at: Offset) -> Result<(), LogError> {
        let mut tail = self.tail.subscribe();
        let reached =
            tail.wait_for(|tail| tail.closed || tail.end > at).await.map_err(|_| LogError::Closed)?;
        if reached.end > at { Ok(()) } else { Err(LogError::Closed) }
    }
}

impl View {
    fn start(&self) -> Offset {
        self.segments.front().map_or(self.end, |s| s.base)
    }
}
