//! One segment file of a partition: header, frames, a sparse index in memory and beside it on disk.
//!
//! In: the byte ranges the writer has made durable. Out: where to start reading for an offset. May fail with I/O errors;
//! a sidecar index that does not check out is only a hint lost, the segment is walked instead.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::frame::Head;
use super::walk::{Found, Walker};

/// Bytes of a file's header: magic, version, reserved, base offset, checksum.
pub(super) const FILE_HEADER_LEN: u64 = 28;
/// Version of the file format this build writes and reads.
pub(super) const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"OBTRLOG\n";
const INDEX_MAGIC: &[u8; 8] = b"OBTRIDX\n";
const INDEX_EVERY: u64 = 64 * 1024;
const HEAD_READ_AHEAD: u64 = 4 * 1024;

/// A segment: the active one keeps its file open, sealed ones are opened by each read.
pub(super) struct Segment {
    /// Offset of the first record.
    pub base: u64,
    /// Where the file is.
    pub path: PathBuf,
    file: RwLock<Option<Arc<File>>>,
    len: AtomicU64,
    last_time_ns: AtomicU64,
    index: RwLock<Vec<(u64, u64)>>,
}

/// What a walk through a segment found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Walked {
    /// One past the last record.
    pub end: u64,
    /// End of the last sound frame.
    pub sound_len: u64,
    /// Bytes after it that are no frame: a torn tail.
    pub torn_bytes: u64,
    /// Damaged places with sound frames after them.
    pub corrupt: u64,
}

/// The 20-digit file name of a segment.
pub(super) fn file_name(base: u64) -> String {
    format!("{base:020}.log")
}

/// Writes the file header for a file whose first offset is `base`.
pub(super) fn file_header(base: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(FILE_HEADER_LEN as usize);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&base.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Whether the file header of a file whose first offset is `base` is sound.
///
/// # Errors
/// `InvalidData` for a sound header of another format version; I/O errors.
pub(super) fn check_header(file: &File, base: u64) -> io::Result<bool> {
    let mut header = [0; FILE_HEADER_LEN as usize];
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        other => other?,
    }
    let (content, crc) = header.split_at(header.len() - 4);
    if !content.starts_with(MAGIC) || crc32fast::hash(content).to_le_bytes() != crc {
        return Ok(false);
    }
    if content[8..12] != FORMAT_VERSION.to_le_bytes() {
        let what =
            format!("a file of another format version than {FORMAT_VERSION}; use the build that wrote it");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(content[12..20] == base.to_le_bytes())
}

/// Makes a directory's entries durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates a file of frames (header written, file and directory synced); what is left of a failed try is removed.
pub(super) fn create_file(path: &Path, base: u64) -> io::Result<File> {
    let made = (|| {
        let mut file = open_file(path, true)?;
        file.write_all(&file_header(base))?;
        file.sync_all()?;
        sync_dir(path.parent().unwrap_or(Path::new(".")))?;
        Ok(file)
    })();
    if made.is_err() {
        let _ = fs::remove_file(path); // the error that counts is already on its way
    }
    made
}

/// Opens a file of frames for appending and reading; with `fresh`, an older file of that name is emptied.
pub(super) fn open_file(path: &Path, fresh: bool) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    if fresh {
        file.set_len(0)?;
    }
    Ok(file)
}

// === impl Segment ===

impl Segment {
    /// A segment over a file that is already there; nothing of it is known yet but its length.
    pub(super) fn sealed(path: PathBuf, base: u64, len: u64) -> Self {
        Self {
            base,
            path,
            file: RwLock::new(None),
            len: AtomicU64::new(len),
            last_time_ns: AtomicU64::new(0),
            index: RwLock::new(Vec::new()),
        }
    }

    /// Creates the file of a new, empty, active segment.
    pub(super) fn create(dir: &Path, base: u64) -> io::Result<Self> {
        let path = dir.join(file_name(base));
        let file = create_file(&path, base)?;
        let segment = Self::sealed(path, base, FILE_HEADER_LEN);
        segment.attach(Arc::new(file));
        Ok(segment)
    }

    /// Keeps `file` open for this segment: it is the active one.
    pub(super) fn attach(&self, file: Arc<File>) {
        *self.file.write() = Some(file);
    }

    /// Ends the active time of this segment: its index goes to disk, its file is closed. The index is a hint, so a
    /// failure to write it costs a walk at the next open and nothing else.
    pub(super) fn seal(&self, end: u64) {
        if let Err(error) = self.save_index(end) {
            tracing::debug!(%error, segment = %self.path.display(), "segment index not written");
        }
        *self.file.write() = None;
    }

    /// A handle to read from.
    pub(super) fn handle(&self) -> io::Result<Arc<File>> {
        match self.file.read().as_ref() {
            Some(file) => Ok(Arc::clone(file)),
            None => File::open(&self.path).map(Arc::new),
        }
    }

    /// Durable bytes.
    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Append time of the last record, Unix nanoseconds; 0 for none.
    pub(super) fn last_time_ns(&self) -> u64 {
        self.last_time_ns.load(Ordering::Relaxed)
    }

    /// Takes note of a frame at `pos` that is on disk now.
    pub(super) fn note(&self, head: &Head, pos: u64) {
        let mut index = self.index.write();
        if index.last().is_none_or(|(_, last)| pos - last >= INDEX_EVERY) {
            index.push((head.offset, pos));
        }
        drop(index);
        self.last_time_ns.fetch_max(head.time_ns, Ordering::Relaxed);
        self.len.store(pos + head.frame_len(), Ordering::Release);
    }

    /// Where to start walking to find `offset`.
    pub(super) fn position_of(&self, offset: u64) -> u64 {
        let index = self.index.read();
        let after = index.partition_point(|(first, _)| *first <= offset);
        after.checked_sub(1).map_or(FILE_HEADER_LEN, |i| index[i].1)
    }

    /// Walks the whole file and rebuilds the index: by heads alone, or (`bodies`) with every checksum.
    pub(super) fn rebuild(&self, file: &File, salt: u32, bodies: bool) -> io::Result<Walked> {
        let limit = self.len();
        let ahead = if bodies { INDEX_EVERY * 4 } else { HEAD_READ_AHEAD };
        let mut walker = Walker::new(file, salt, FILE_HEADER_LEN, limit, ahead);
        let mut walked = Walked { end: self.base, sound_len: FILE_HEADER_LEN, ..Walked::default() };
        self.index.write().clear();
        loop {
            let head = match walker.look()? {
                Found::End => break,
                Found::Frame(head) if !bodies || walker.body(&head)?.is_some() => head,
                _ => match walker.resync()? {
                    None => break,
                    Some(head) => {
                        walked.corrupt += 1;
                        head
                    }
                },
            };
            self.note(&head, walker.position());
            walker.step(&head);
            walked.end = head.offset + 1;
            walked.sound_len = walker.position();
        }
        self.len.store(limit, Ordering::Release);
        walked.torn_bytes = limit.saturating_sub(walked.sound_len); // less than a header is damage without a tail
        Ok(walked)
    }

    /// Cuts what is behind `len`.
    pub(super) fn cut(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)?;
        file.sync_all()?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    /// Removes the segment's files.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let _ = fs::remove_file(self.index_path()); // a stray index is found out by its length
        Ok(())
    }

    fn index_path(&self) -> PathBuf {
        self.path.with_extension("idx")
    }

    fn save_index(&self, end: u64) -> io::Result<()> {
        let index = self.index.read();
        let mut out = Vec::with_capacity(40 + index.len() * 16);
        out.extend_from_slice(INDEX_MAGIC);
        for number in [self.len(), end, self.last_time_ns()] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for (offset, pos) in index.iter() {
            out.extend_from_slice(&offset.to_le_bytes());
            out.extend_from_slice(&pos.to_le_bytes());
        }
        drop(index);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        let fresh = self.path.with_extension("idx.tmp");
        fs::write(&fresh, out)?;
        fs::rename(fresh, self.index_path())
    }

    /// Takes the index beside the file if it was written for exactly this length, and returns the segment's end.
    pub(super) fn load_index(&self) -> Option<u64> {
        let bytes = fs::read(self.index_path()).ok()?;
        let (content, crc) = bytes.split_last_chunk::<4>()?;
        let entries = content.strip_prefix(INDEX_MAGIC)?;
        let (numbers, odd) = entries.as_chunks::<8>();
        let numbers: Vec<u64> = numbers.iter().map(|n| u64::from_le_bytes(*n)).collect();
        let [len, end, last_time_ns, index @ ..] = numbers.as_slice() else { return None };
        if crc32fast::hash(content) != u32::from_le_bytes(*crc) || *len != self.len() || !odd.is_empty() {
            return None;
        }
        *self.index.write() = index.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        self.last_time_ns.store(*last_time_ns, Ordering::Relaxed);
        Some(*end)
    }
}
