//! Opening what a former process left: folders → segments, ends and dedup windows; torn tails are cut, damage is counted.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::OpenReport;
use super::appender::Appender;
use super::partition::Partition;
use super::segment::{FILE_HEADER_LEN, Segment, Walked, check_header, create_file, open_file, sync_dir};
use super::walk::{Found, Walker};
use crate::backends::event_log::Offset;
use crate::backends::event_log::dedup::{DedupWindow, Seen};
use crate::clock;

const HEAD_READ_AHEAD: u64 = 4 * 1024;

/// How a partition is to be opened.
pub(super) struct Recovery<'a> {
    pub salt: u32,
    pub dedup: DedupWindow,
    /// Highest offset a group has committed. Offsets below it must not be given out again, whatever was lost.
    pub committed: Offset,
    pub report: &'a mut OpenReport,
}

impl Recovery<'_> {
    /// Opens or creates the partition in `dir`.
    pub(super) fn open(
        mut self,
        topic: &str,
        number: u32,
        dir: PathBuf,
    ) -> io::Result<(Arc<Partition>, Appender)> {
        fs::create_dir_all(&dir)?;
        let mut segments = self.find(&dir)?;
        let mut end = 0;
        let count = segments.len();
        for (i, segment) in segments.iter().enumerate() {
            end = self.load(segment, i + 1 == count)?;
        }
        let active = match segments.back() {
            Some(last) if end >= self.committed => Arc::clone(last),
            _ => {
                end = end.max(self.committed);
                let fresh = Arc::new(Segment::create(&dir, end)?);
                segments.push_back(Arc::clone(&fresh));
                fresh
            }
        };
        let file = Arc::new(open_file(&active.path, false)?);
        active.attach(Arc::clone(&file));
        self.report.segments += segments.len();
        let seen = self.rebuild_window(&segments, end)?;
        let partition = Arc::new(Partition::new(topic.to_owned(), number, dir, segments, end));
        let appender = Appender::new(Arc::clone(&partition), active, file, seen);
        Ok((partition, appender))
    }

    // The segment files in order. A last file without a whole header is a creation that was cut short.
    fn find(&mut self, dir: &Path) -> io::Result<VecDeque<Arc<Segment>>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let is_log = path.extension().is_some_and(|e| e == "log");
            let base = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse::<u64>().ok());
            if let (true, Some(base)) = (is_log, base) {
                found.push((base, fs::metadata(&path)?.len(), path));
            }
        }
        found.sort();
        if let Some((base, len, path)) = found.last()
            && *len < FILE_HEADER_LEN
        {
            self.report.torn_bytes += len;
            create_file(path, *base)?;
            let whole = (*base, FILE_HEADER_LEN, path.clone());
            found.pop();
            found.push(whole);
        }
        Ok(found.into_iter().map(|(base, len, path)| Arc::new(Segment::sealed(path, base, len))).collect())
    }

    // Brings a segment's index into memory and returns its end. Only the last one can have a torn tail, so only there
    // every checksum is looked at, unless it was closed cleanly.
    fn load(&mut self, segment: &Segment, last: bool) -> io::Result<Offset> {
        let file = open_file(&segment.path, false)?;
        let mut corrupt = u64::from(!check_header(&file, segment.base)?);
        let indexed = segment.load_index();
        let walked = match indexed {
            Some(end) => Walked { end, ..Walked::default() },
            None => segment.rebuild(&file, self.salt, last)?,
        };
        corrupt += walked.corrupt + u64::from(!last && walked.torn_bytes > 0);
        self.report.corrupt += corrupt;
        if corrupt > 0 {
            let segment = segment.path.display();
            tracing::warn!(%segment, places = corrupt, "damage in the middle of the log, readers pass it");
        }
        if last && walked.torn_bytes > 0 {
            tracing::warn!(segment = %segment.path.display(), bytes = walked.torn_bytes, "torn tail cut");
            segment.cut(&file, walked.sound_len)?;
            self.report.torn_bytes += walked.torn_bytes;
            self.report.torn_records += 1;
        }
        Ok(walked.end)
    }

    fn rebuild_window(&self, segments: &VecDeque<Arc<Segment>>, end: Offset) -> io::Result<Seen> {
        let mut seen = Seen::new(self.dedup);
        let age_ns = u64::try_from(self.dedup.age.as_nanos()).unwrap_or(u64::MAX);
        let oldest = clock::steady_nanos().saturating_sub(age_ns);
        let from = end.saturating_sub(self.dedup.records as u64);
        for (i, segment) in segments.iter().enumerate() {
            let after = segments.get(i + 1).map_or(end, |next| next.base);
            if after > from && segment.last_time_ns() >= oldest {
                self.remember(segment, from, &mut seen)?;
            }
        }
        Ok(seen)
    }

    fn remember(&self, segment: &Segment, from: Offset, seen: &mut Seen) -> io::Result<()> {
        let file = segment.handle()?;
        let start = segment.position_of(from);
        let mut walker = Walker::new(&file, self.salt, start, segment.len(), HEAD_READ_AHEAD);
        loop {
            match walker.look()? {
                Found::End => return Ok(()),
                Found::Frame(head) => {
                    if head.dedup != 0 && head.offset >= from {
                        seen.insert(head.dedup, head.offset, head.time_ns);
                    }
                    walker.step(&head);
                }
                Found::Bad(_) if walker.resync()?.is_none() => return Ok(()),
                Found::Bad(_) => {}
            }
        }
    }
}

/// Creates the folders of a log's partitions durably.
pub(super) fn create_dirs(root: &Path, topic: &str, partitions: u32) -> io::Result<()> {
    let dir = root.join(topic);
    for partition in 0..partitions {
        fs::create_dir_all(dir.join(partition.to_string()))?;
    }
    sync_dir(&dir)?;
    sync_dir(root)
}
