//! The writer thread's side of one partition: queued records → frames in the active segment → durable, or none of them.
//!
//! A round is stage* → write → (sync) → settle or fail. A failure cuts the active file back to its durable length, so that
//! nothing unacknowledged stays and the next round starts clean; while even that fails, the partition refuses and tries again.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::frame::{Body, HEAD_LEN, Head};
use super::partition::Partition;
use super::segment::{FILE_HEADER_LEN, Segment};
use super::shared::Shared;
use crate::backends::event_log::dedup::Seen;
use crate::backends::event_log::{Appended, LogError, Offset};

/// Where the answer to an append goes.
pub(super) type AppendReply = oneshot::Sender<Result<Appended, LogError>>;

/// Writes one partition.
pub(super) struct Appender {
    partition: Arc<Partition>,
    active: Arc<Segment>,
    file: Arc<File>,
    /// Bytes in the active file, durable or not.
    written: u64,
    /// Offset of the next record.
    next: Offset,
    seen: Seen,
    /// Records of this round, the first `written_records` of them in the file.
    staged: VecDeque<Staged>,
    written_records: usize,
    /// Repeats of records of this round.
    repeats: Vec<(Offset, AppendReply)>,
    /// The file may hold more than its durable bytes: cut before writing.
    dirty: bool,
}

struct Staged {
    head: Head,
    body: Body,
    reply: AppendReply,
}

impl Appender {
    /// An appender at the end of `partition`, whose active segment is `active`.
    pub(super) fn new(partition: Arc<Partition>, active: Arc<Segment>, file: Arc<File>, seen: Seen) -> Self {
        let (_, next) = partition.bounds();
        let written = active.len();
        Self {
            partition,
            active,
            file,
            written,
            next,
            seen,
            staged: VecDeque::new(),
            written_records: 0,
            repeats: Vec::new(),
            dirty: false,
        }
    }

    /// Gives the record its offset, or finds that it is a repeat.
    pub(super) fn stage(
        &mut self,
        shared: &Shared,
        body: Body,
        dedup: Option<u128>,
        now_ns: u64,
        reply: AppendReply,
    ) {
        let first = dedup.filter(|key| *key != 0).and_then(|key| self.seen.find(key, now_ns));
        if let Some(offset) = first {
            shared.counters.duplicates.fetch_add(1, Ordering::Relaxed);
            self.repeats.push((offset, reply));
            return;
        }
        let head = Head::of(&body, self.next, now_ns, dedup);
        if head.dedup != 0 {
            self.seen.insert(head.dedup, self.next, now_ns);
        }
        self.next += 1;
        self.staged.push_back(Staged { head, body, reply });
    }

    /// Whether this round has something to do here.
    pub(super) fn is_staged(&self) -> bool {
        !self.staged.is_empty() || !self.repeats.is_empty()
    }

    /// Writes what is staged. Returns the file to sync before [`Appender::settle`], if there is one; a full segment is
    /// synced, settled and followed by a new one on the way.
    pub(super) fn write(&mut self, shared: &Shared) -> io::Result<Option<Arc<File>>> {
        if self.staged.is_empty() {
            return Ok(None);
        }
        if self.dirty {
            self.cut_back()?;
        }
        while self.written_records < self.staged.len() {
            let fitting = self.fitting(shared.config.segment_bytes);
            if fitting > 0 {
                self.write_frames(fitting, shared.salt)?;
                continue;
            }
            if self.written_records > 0 {
                shared.sync(&self.file)?;
                self.settle(shared);
            }
            self.roll()?;
        }
        Ok(Some(Arc::clone(&self.file)))
    }

    /// The written records are on disk: readers may see them, their senders are told.
    pub(super) fn settle(&mut self, shared: &Shared) {
        let mut pos = self.active.len();
        let mut replies = Vec::with_capacity(self.written_records);
        for Staged { head, reply, .. } in self.staged.drain(..self.written_records) {
            self.active.note(&head, pos);
            pos += head.frame_len();
            shared.counters.bytes.fetch_add(head.frame_len(), Ordering::Relaxed);
            replies.push((head.offset, reply));
        }
        self.written_records = 0;
        shared.counters.appends.fetch_add(replies.len() as u64, Ordering::Relaxed);
        if let Some((last, _)) = replies.last() {
            self.partition.publish(last + 1);
        }
        for (offset, reply) in replies {
            let _ = reply.send(Ok(Appended { offset, duplicate: false })); // the sender may have given up waiting
        }
        self.settle_repeats();
    }

    fn settle_repeats(&mut self) {
        let (_, end) = self.partition.bounds();
        for (offset, reply) in self.repeats.extract_if(.., |(offset, _)| *offset < end) {
            let _ = reply.send(Ok(Appended { offset, duplicate: true }));
        }
    }

    /// The round failed at the disk: what was not settled is taken back and answered with `error`.
    pub(super) fn fail(&mut self, shared: &Shared, error: io::Error) {
        self.settle_repeats();
        let (_, end) = self.partition.bounds();
        self.next = end;
        self.seen.forget_from(end);
        self.written_records = 0;
        self.dirty = true;
        let cut = self.cut_back();
        tracing::warn!(
            topic = self.partition.topic, partition = self.partition.number, %error, records = self.staged.len(),
            cut = cut.is_ok(), "append failed, the unwritten tail is cut back"
        );
        let error = LogError::from(error);
        let replies =
            self.staged.drain(..).map(|s| s.reply).chain(self.repeats.drain(..).map(|(_, reply)| reply));
        for reply in replies {
            shared.counters.failed.fetch_add(1, Ordering::Relaxed);
            let _ = reply.send(Err(error.clone()));
        }
    }

    /// Ends the partition's writing: the active segment gets its index on disk.
    pub(super) fn seal(&self) {
        self.active.seal(self.partition.bounds().1);
    }

    // After a failed sync the kernel may have dropped the dirty pages and still show them to readers of this handle, so
    // the file is cut to what was durable before, and opened anew.
    fn cut_back(&mut self) -> io::Result<()> {
        let file = Arc::new(super::segment::open_file(&self.active.path, false)?);
        self.active.cut(&file, self.active.len())?;
        self.active.attach(Arc::clone(&file));
        self.file = file;
        self.written = self.active.len();
        self.dirty = false;
        Ok(())
    }

    // How many of the unwritten records go into the active segment; an empty segment takes at least one.
    fn fitting(&self, segment_bytes: u64) -> usize {
        let mut room = segment_bytes.saturating_sub(self.written);
        let mut count = 0;
        for staged in self.staged.iter().skip(self.written_records) {
            let len = staged.head.frame_len();
            let first_of_segment = count == 0 && self.written == FILE_HEADER_LEN;
            if len > room && !first_of_segment {
                break;
            }
            room = room.saturating_sub(len);
            count += 1;
        }
        count
    }

    fn write_frames(&mut self, count: usize, salt: u32) -> io::Result<()> {
        let frames: Vec<&Staged> = self.staged.iter().skip(self.written_records).take(count).collect();
        let heads: Vec<[u8; HEAD_LEN]> = frames.iter().map(|f| f.head.encode(salt)).collect();
        let mut slices = Vec::with_capacity(count * 3);
        for (frame, head) in frames.iter().zip(&heads) {
            slices.push(IoSlice::new(head));
            slices.extend(frame.body.pieces().map(IoSlice::new));
        }
        write_all(&self.file, &mut slices)?;
        self.written += frames.iter().map(|f| f.head.frame_len()).sum::<u64>();
        self.written_records += count;
        Ok(())
    }

    fn roll(&mut self) -> io::Result<()> {
        let (_, end) = self.partition.bounds();
        let fresh = Arc::new(Segment::create(&self.partition.dir, end)?);
        self.file = fresh.handle()?;
        self.partition.push(Arc::clone(&fresh));
        let full = std::mem::replace(&mut self.active, fresh);
        full.seal(end);
        self.written = FILE_HEADER_LEN;
        Ok(())
    }
}

fn write_all(mut file: &File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut slices, n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
