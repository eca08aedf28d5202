//! Consumer groups: claims and commits → one journal file, synced with the appends of the same round.
//!
//! Decisions are taken by the writer thread alone, in the order of its queue, so a commit queued before a later claim
//! still counts and one queued after it is fenced. The journal is rewritten by rename when it is mostly old entries.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::oneshot;

use super::frame::{Body, Head, decode_body};
use super::queue::ClaimReply;
use super::segment::{FILE_HEADER_LEN, create_file, open_file, sync_dir};
use super::walk::{Found, Walker};
use crate::backends::event_log::{Claim, Committed, LogError, Offset, Record};

const COMPACT_FROM: u64 = 1024 * 1024;
const COMPACT_FACTOR: u64 = 4;
/// Disk space the journal holds in advance: consumers must be able to commit, and so to empty a full disk.
const RESERVED: i64 = 2 * 1024 * 1024;
const READ_AHEAD: u64 = 256 * 1024;

/// Whose position it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct GroupKey {
    pub group: String,
    pub topic: String,
    pub partition: u32,
}

impl GroupKey {
    pub(super) fn size(&self) -> usize {
        self.group.len() + self.topic.len() + 4
    }
}

/// The latest claim and the committed position, if there is one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub claim: u64,
    pub committed: Option<Committed>,
}

/// The durable state of all groups, for readers.
pub(super) type Table = Arc<RwLock<HashMap<GroupKey, Entry>>>;

/// The writer thread's side.
pub(super) struct Journal {
    path: PathBuf,
    salt: u32,
    file: Arc<File>,
    /// Durable bytes.
    len: u64,
    sequence: u64,
    table: Table,
    /// Entries of this round.
    staged: HashMap<GroupKey, Entry>,
    buffer: Vec<u8>,
    replies: Vec<Reply>,
    dirty: bool,
}

enum Reply {
    Claim(ClaimReply, Claim, Committed),
    Commit(oneshot::Sender<Result<(), LogError>>),
}

/// What opening the journal found.
pub(super) struct Opened {
    pub journal: Journal,
    pub table: Table,
    pub torn_bytes: u64,
    pub corrupt: u64,
}

impl Journal {
    /// Opens or creates the journal in `dir`: the last entry of each key counts, a torn tail is cut.
    pub(super) fn open(dir: &Path, salt: u32) -> io::Result<Opened> {
        fs::create_dir_all(dir)?;
        let path = dir.join("commits.journal");
        let _ = fs::remove_file(dir.join("commits.tmp")); // a compaction that did not end
        let fresh = !fs::metadata(&path).is_ok_and(|m| m.len() >= FILE_HEADER_LEN);
        let file = if fresh { create_file(&path, 0)? } else { open_file(&path, false)? };
        let before = file.metadata()?.len();
        let (entries, len, corrupt) = load(&file, salt, before)?;
        if len < before {
            file.set_len(len)?;
            file.sync_all()?;
        }
        reserve(&file);
        let table: Table = Arc::new(RwLock::new(entries));
        let journal = Self {
            path,
            salt,
            file: Arc::new(file),
            len,
            sequence: 0,
            table: Arc::clone(&table),
            staged: HashMap::new(),
            buffer: Vec::new(),
            replies: Vec::new(),
            dirty: false,
        };
        Ok(Opened { journal, table, torn_bytes: before - len, corrupt })
    }

    /// Stages a claim; `start` is where a group without a position begins.
    pub(super) fn stage_claim(&mut self, key: GroupKey, start: Offset, reply: ClaimReply) {
        let mut entry = self.current(&key).unwrap_or_default();
        entry.claim += 1;
        let position =
            entry.committed.clone().unwrap_or(Committed { offset: start, metadata: String::new() });
        self.replies.push(Reply::Claim(reply, Claim(entry.claim), position));
        self.put(key, entry);
    }

    /// Stages a commit, or refuses it at once when its claim is not the latest.
    pub(super) fn stage_commit(
        &mut self,
        key: GroupKey,
        claim: Claim,
        position: Committed,
        reply: oneshot::Sender<Result<(), LogError>>,
    ) {
        match self.current(&key) {
            Some(entry) if entry.claim == claim.0 => {
                self.replies.push(Reply::Commit(reply));
                self.put(key, Entry { claim: claim.0, committed: Some(position) });
            }
            _ => {
                let _ = reply.send(Err(LogError::Fenced)); // the sender may have given up waiting
            }
        }
    }

    /// Writes what is staged and returns the file to sync, if there is something.
    pub(super) fn write(&mut self) -> io::Result<Option<Arc<File>>> {
        if self.buffer.is_empty() {
            return Ok(None);
        }
        if self.dirty {
            self.cut_back()?;
        }
        (&*self.file).write_all(&self.buffer)?;
        Ok(Some(Arc::clone(&self.file)))
    }

    /// The staged entries are on disk. Returns how many operations were answered.
    pub(super) fn settle(&mut self) -> usize {
        self.len += self.buffer.len() as u64;
        self.buffer.clear();
        self.table.write().extend(self.staged.drain());
        let count = self.replies.len();
        for reply in self.replies.drain(..) {
            let _ = match reply {
                Reply::Claim(reply, claim, position) => reply.send(Ok((claim, position))).map_err(drop),
                Reply::Commit(reply) => reply.send(Ok(())).map_err(drop),
            };
        }
        count
    }

    /// The round failed: nothing of it counts. Returns how many operations were answered.
    pub(super) fn fail(&mut self, error: io::Error) -> usize {
        tracing::warn!(%error, operations = self.replies.len(), "group commits failed");
        self.buffer.clear();
        self.staged.clear();
        self.dirty = self.cut_back().is_err();
        let error = LogError::from(error);
        let count = self.replies.len();
        for reply in self.replies.drain(..) {
            let _ = match reply {
                Reply::Claim(reply, ..) => reply.send(Err(error.clone())).map_err(drop),
                Reply::Commit(reply) => reply.send(Err(error.clone())).map_err(drop),
            };
        }
        count
    }

    /// Rewrites the journal when it is large and mostly old; the old file stays in use if that fails.
    pub(super) fn compact_if_worth(&mut self) {
        let live: usize = self.table.read().iter().map(|(k, e)| entry_size(k, e)).sum();
        if self.len < COMPACT_FROM || self.len < COMPACT_FACTOR * live as u64 {
            return;
        }
        if let Err(error) = self.compact() {
            tracing::warn!(%error, "commit journal not rewritten, going on with the old one");
        }
    }

    fn compact(&mut self) -> io::Result<()> {
        let fresh = self.path.with_extension("tmp");
        let mut content = Vec::new();
        for (key, entry) in self.table.read().iter() {
            self.sequence += 1;
            encode(&mut content, key, entry, self.sequence, self.salt);
        }
        let mut file = create_file(&fresh, 0)?;
        reserve(&file);
        file.write_all(&content)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        // From here on the new file is the journal, whatever happens.
        self.file = Arc::new(file);
        self.len = FILE_HEADER_LEN + content.len() as u64;
        sync_dir(self.path.parent().unwrap_or(Path::new(".")))
    }

    fn current(&self, key: &GroupKey) -> Option<Entry> {
        self.staged.get(key).cloned().or_else(|| self.table.read().get(key).cloned())
    }

    fn put(&mut self, key: GroupKey, entry: Entry) {
        self.sequence += 1;
        encode(&mut self.buffer, &key, &entry, self.sequence, self.salt);
        self.staged.insert(key, entry);
    }

    fn cut_back(&mut self) -> io::Result<()> {
        let file = open_file(&self.path, false)?;
        file.set_len(self.len)?;
        file.sync_all()?;
        reserve(&file);
        self.file = Arc::new(file);
        self.dirty = false;
        Ok(())
    }
}

// Best effort: a file system without preallocation only loses the reserve.
fn reserve(file: &File) {
    use nix::fcntl::{FallocateFlags, fallocate};
    let _ = fallocate(file.as_fd(), FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, RESERVED);
}

fn load(file: &File, salt: u32, limit: u64) -> io::Result<(HashMap<GroupKey, Entry>, u64, u64)> {
    let mut walker = Walker::new(file, salt, FILE_HEADER_LEN, limit, READ_AHEAD);
    let mut entries = HashMap::new();
    let mut corrupt = 0;
    loop {
        let found = match walker.look()? {
            Found::End => break,
            Found::Frame(head) => walker.body(&head)?.map(|body| (head, body)),
            Found::Bad(_) => None,
        };
        let Some((head, body)) = found else {
            if walker.resync()?.is_none() {
                break;
            }
            corrupt += 1;
            continue;
        };
        match decode_body(&body).ok().and_then(|record| decode(&record)) {
            Some((key, entry)) => drop(entries.insert(key, entry)),
            None => corrupt += 1,
        }
        walker.step(&head);
    }
    Ok((entries, walker.position(), corrupt))
}

fn entry_size(key: &GroupKey, entry: &Entry) -> usize {
    160 + key.size() + entry.committed.as_ref().map_or(0, |c| c.metadata.len())
}

fn encode(out: &mut Vec<u8>, key: &GroupKey, entry: &Entry, sequence: u64, salt: u32) {
    let number = |n: u64| Bytes::copy_from_slice(&n.to_le_bytes());
    let mut headers = vec![
        ("group".to_owned(), Bytes::copy_from_slice(key.group.as_bytes())),
        ("partition".to_owned(), number(u64::from(key.partition))),
        ("claim".to_owned(), number(entry.claim)),
    ];
    if let Some(committed) = &entry.committed {
        headers.push(("offset".to_owned(), number(committed.offset)));
    }
    let metadata = entry.committed.as_ref().map_or("", |c| c.metadata.as_str());
    let record = Record {
        key: Bytes::copy_from_slice(key.topic.as_bytes()),
        headers,
        payload: Bytes::copy_from_slice(metadata.as_bytes()),
    };
    let body = Body::encode(&record, false, salt);
    out.extend_from_slice(&Head::of(&body, sequence, 0, None).encode(salt));
    body.pieces().iter().for_each(|piece| out.extend_from_slice(piece));
}

fn decode(record: &Record) -> Option<(GroupKey, Entry)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).ok();
    let field = |name: &str| record.headers.iter().find(|(k, _)| k == name).map(|(_, v)| v);
    let number = |name: &str| field(name)?.as_ref().try_into().ok().map(u64::from_le_bytes);
    let key = GroupKey {
        group: text(field("group")?)?,
        topic: text(&record.key)?,
        partition: u32::try_from(number("partition")?).ok()?,
    };
    let metadata = text(&record.payload)?;
    let committed = number("offset").map(|offset| Committed { offset, metadata });
    Some((key, Entry { claim: number("claim")?, committed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: u32) -> GroupKey {
        GroupKey { group: "g".into(), topic: "t".into(), partition }
    }

    fn commit(journal: &mut Journal, claim: u64, offset: Offset, metadata: String) -> Result<(), LogError> {
        let (reply, mut answer) = oneshot::channel();
        journal.stage_commit(key(0), Claim(claim), Committed { offset, metadata }, reply);
        journal.write().unwrap();
        journal.settle();
        answer.try_recv().unwrap()
    }

    #[test]
    fn a_journal_of_old_entries_is_rewritten_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = Journal::open(dir.path(), 7).unwrap();
        let (reply, _answer) = oneshot::channel();
        opened.journal.stage_claim(key(0), 5, reply);
        for offset in 0..400 {
            commit(&mut opened.journal, 1, offset, "m".repeat(4000)).unwrap();
            opened.journal.compact_if_worth();
        }
        assert!(opened.journal.len < COMPACT_FROM, "{} bytes", opened.journal.len);
        commit(&mut opened.journal, 1, 400, "last".into()).unwrap();
        let again = Journal::open(dir.path(), 7).unwrap();
        let expected =
            Entry { claim: 1, committed: Some(Committed { offset: 400, metadata: "last".into() }) };
        assert_eq!(again.table.read().get(&key(0)), Some(&expected));
        assert_eq!((again.torn_bytes, again.corrupt), (0, 0));
    }

    #[test]
    fn a_commit_staged_behind_a_claim_of_the_same_round_is_fenced() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), 7).unwrap().journal;
        let (first, mut first_answer) = oneshot::channel();
        let (second, mut second_answer) = oneshot::channel();
        journal.stage_claim(key(0), 0, first);
        let (kept, mut kept_answer) = oneshot::channel();
        journal.stage_commit(key(0), Claim(1), Committed { offset: 3, metadata: String::new() }, kept);
        journal.stage_claim(key(0), 0, second);
        assert!(matches!(commit(&mut journal, 1, 9, String::new()), Err(LogError::Fenced)));
        assert_eq!(first_answer.try_recv().unwrap().unwrap().0, Claim(1));
        kept_answer.try_recv().unwrap().unwrap();
        let (claim, position) = second_answer.try_recv().unwrap().unwrap();
        assert_eq!((claim, position.offset), (Claim(2), 3));
    }

    #[test]
    fn a_failed_round_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), 7).unwrap().journal;
        let (reply, mut answer) = oneshot::channel();
        journal.stage_claim(key(0), 0, reply);
        journal.write().unwrap();
        journal.fail(io::Error::other("disk"));
        assert!(matches!(answer.try_recv().unwrap(), Err(LogError::Io(_))));
        assert!(journal.table.read().is_empty());
        assert_eq!(fs::metadata(&journal.path).unwrap().len(), FILE_HEADER_LEN);
    }
}
