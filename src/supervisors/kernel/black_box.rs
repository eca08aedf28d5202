//! The black box: one record on disk for each crash, for whoever looks into it afterwards.
//!
//! In: an abnormal exit, as its supervisor saw it. Out: a JSON file in the folder, of which the newest stay. Files are
//! written by a thread of its own behind a bounded queue: a slow disk costs records, which is said, never a restart.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde::Serialize;

use super::exit::ExitReason;
use super::journal::TreeEvent;
use super::lane::{Held, LaneStats};
use super::node::Node;
use crate::clock;

/// Version of a record's JSON.
pub const RECORD_VERSION: u32 = 1;
/// Events of the journal that a record holds: the newest ones, of the whole tree.
const EVENTS: usize = 32;
/// Records that wait for the disk. A storm of crashes larger than this loses the later ones, not the first.
const QUEUE: usize = 64;
/// What the name of a record ends with while it is being written; it begins with a dot then.
const DRAFT: &str = ".new";

/// Says where the policy of the node at a path comes from, a line a value.
pub type Provenance = dyn Fn(&str) -> Vec<String> + Send + Sync;

/// Where crashes are written down. The default writes nothing. Cheap to clone.
#[derive(Clone, Default)]
pub struct BlackBox {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    queue: SyncSender<(String, Record)>,
    provenance: Box<Provenance>,
    written: AtomicU64,
    /// Records that are in the queue or on their way into it.
    waiting: Arc<AtomicUsize>,
}

/// One crash, as it stands in the file. Holds no message bodies: a message describes itself
/// ([`Cargo::describe`](super::lane::Cargo::describe)).
#[derive(Debug, Serialize)]
struct Record {
    version: u32,
    at_unix_ns: u64,
    path: String,
    generation: u64,
    /// [`ExitReason::label`].
    reason: String,
    class: Option<String>,
    detail: String,
    /// `file:line:column` of a panic.
    location: Option<String>,
    /// What it had in hand.
    held: Option<Held>,
    /// How full its lanes were.
    lanes: Vec<LaneStats>,
    /// The last events before it, oldest first.
    events: Vec<TreeEvent>,
    /// Where its policy comes from.
    policy: Vec<String>,
}

impl BlackBox {
    /// One that writes into `dir`, which it creates, and keeps the newest `keep` records there.
    ///
    /// # Errors
    /// The folder cannot be created, or the thread cannot be started.
    pub fn open(dir: PathBuf, keep: usize, provenance: Box<Provenance>) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        remove_drafts(&dir)?;
        let (inner, records) = Inner::new(provenance);
        let waiting = inner.waiting.clone();
        let thread = std::thread::Builder::new().name(String::from("black-box"));
        thread.spawn(move || write_all(&dir, keep.max(1), &records, &waiting))?;
        Ok(Self { inner: Some(Arc::new(inner)) })
    }

    /// Writes a crash down. Returns the file's name, if it will be written.
    pub(super) fn record(&self, node: &Node, reason: &ExitReason, held: Option<Held>) -> Option<String> {
        let inner = self.inner.as_ref()?;
        // In a storm of crashes a record is not even made that could not be written.
        let taken =
            inner.take_a_place().then(|| inner.record_of(node, reason, held)).and_then(|(name, record)| {
                let sent = inner.queue.try_send((name.clone(), record));
                sent.is_ok().then_some(name)
            });
        if taken.is_none() {
            tracing::warn!(child = node.path(), "no record of this crash: the disk does not keep up");
        }
        taken
    }
}

impl Inner {
    fn new(provenance: Box<Provenance>) -> (Self, Receiver<(String, Record)>) {
        let (queue, records) = sync_channel(QUEUE);
        (Self { queue, provenance, written: AtomicU64::new(0), waiting: Arc::default() }, records)
    }

    /// True where there is room in the queue for one more, which is then kept for it.
    fn take_a_place(&self) -> bool {
        let one_more = |waiting| (waiting < QUEUE).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
    }

    /// The record of a crash, and its file's name.
    fn record_of(&self, node: &Node, reason: &ExitReason, held: Option<Held>) -> (String, Record) {
        let at_unix_ns = clock::unix_nanos();
        let number = self.written.fetch_add(1, Ordering::Relaxed) % 10_000;
        // Sorted by name is sorted by time.
        let name = format!("{:013}-{number:04}-{}.json", at_unix_ns / 1_000_000, node.path());
        let record = Record {
            version: RECORD_VERSION,
            at_unix_ns,
            path: node.path().to_owned(),
            generation: node.generations.newest(),
            reason: reason.label().to_owned(),
            class: reason.class().map(|class| class.as_str().to_owned()),
            detail: reason.to_string(),
            location: match reason {
                ExitReason::Panicked { location, .. } => Some(location.clone()),
                _ => None,
            },
            held,
            lanes: node.lanes().iter().map(|lane| lane.stats()).collect(),
            events: node.journal().recent(EVENTS),
            policy: (self.provenance)(node.path()),
        };
        (name, record)
    }
}

impl std::fmt::Debug for BlackBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.inner.is_some() { "BlackBox(on)" } else { "BlackBox(off)" })
    }
}

/// Writes what comes, until nobody can send any more.
fn write_all(dir: &Path, keep: usize, records: &Receiver<(String, Record)>, waiting: &AtomicUsize) {
    while let Ok((name, record)) = records.recv() {
        waiting.fetch_sub(1, Ordering::AcqRel);
        let written = write(dir, &name, &record).and_then(|()| prune(dir, keep));
        if let Err(error) = written {
            tracing::warn!(folder = %dir.display(), name, %error, "the record of a crash cannot be written");
        }
    }
}

/// Writes the file whole or not at all.
fn write(dir: &Path, name: &str, record: &Record) -> io::Result<()> {
    let draft = dir.join(format!(".{name}{DRAFT}"));
    let written = write_draft(&draft, record).and_then(|()| fs::rename(&draft, dir.join(name)));
    if written.is_err() {
        // A disk that is full should not be filled with halves; what cannot be removed now is so at the next start.
        fs::remove_file(&draft).ok();
    }
    written
}

fn write_draft(draft: &Path, record: &Record) -> io::Result<()> {
    let mut file = fs::File::create(draft)?;
    file.write_all(&serde_json::to_vec_pretty(record)?)?;
    file.sync_data()
}

/// Removes what a former process was writing as it ended.
fn remove_drafts(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let name = name.strip_prefix('.').and_then(|name| name.strip_suffix(DRAFT));
        if name.is_some_and(is_name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes all but the newest `keep` records.
fn prune(dir: &Path, keep: usize) -> io::Result<()> {
    let names = list(dir)?;
    let old = names.len().saturating_sub(keep);
    names.into_iter().take(old).try_for_each(|name| fs::remove_file(dir.join(name)))
}

/// Names of the records in a folder, oldest first.
///
/// # Errors
/// The folder cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if is_name(&name) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// True for what may be the name of a record: nothing that leads out of the folder.
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.ends_with(".json") && name.bytes().all(plain) && name.as_bytes()[0].is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisors::kernel::policy::Policy;
    use crate::supervisors::kernel::spec::ChildSpec;

    const NAME: &str = "1795703765476-0001-process.otlp.1.json";

    fn node() -> Arc<Node> {
        Node::root(&ChildSpec::supervisor("root", Policy::default(), Vec::new()))
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_write_that_fails_leaves_no_draft() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, _records) = Inner::new(Box::new(|_| Vec::new()));
        let (_, record) = inner.record_of(&node(), &ExitReason::Stalled, None);
        // A file cannot take the place of a folder.
        fs::create_dir_all(dir.path().join(NAME).join("x")).unwrap();
        write(dir.path(), NAME, &record).unwrap_err();
        assert_eq!(names(dir.path()), [NAME]);
    }

    #[test]
    fn drafts_of_a_former_process_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in [&format!(".{NAME}.new"), NAME, ".notes.new", "1.json.new"] {
            fs::write(dir.path().join(name), "{}").unwrap();
        }
        BlackBox::open(dir.path().to_owned(), 10, Box::new(|_| Vec::new())).unwrap();
        assert_eq!(names(dir.path()), [".notes.new", "1.json.new", NAME]);
    }

    #[test]
    fn a_record_is_made_only_where_there_is_room_for_it() {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = made.clone();
        let (inner, records) = Inner::new(Box::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Vec::new()
        }));
        let (waiting, node) = (inner.waiting.clone(), node());
        let black_box = BlackBox { inner: Some(Arc::new(inner)) };
        let storm =
            || (0..2 * QUEUE).filter_map(|_| black_box.record(&node, &ExitReason::Stalled, None)).count();
        assert_eq!((storm(), made.load(Ordering::Relaxed)), (QUEUE, QUEUE));
        // The writer goes on, then comes the next storm.
        let dir = tempfile::tempdir().unwrap();
        let (_, record) = records.recv().unwrap();
        waiting.fetch_sub(1, Ordering::AcqRel);
        write(dir.path(), NAME, &record).unwrap();
        assert_eq!((storm(), made.load(Ordering::Relaxed)), (1, QUEUE + 1));
        drop(black_box);
        write_all(dir.path(), 3 * QUEUE, &records, &waiting);
        assert_eq!((names(dir.path()).len(), waiting.load(Ordering::Relaxed)), (QUEUE + 1, 0));
    }

    #[test]
    fn a_name_does_not_lead_out_of_the_folder() {
        assert!(is_name("1795703765476-0001-process.otlp.1.json"));
        for bad in ["", ".json", "../1.json", "1/../../x.json", ".1.json.new", "1.txt", "1%2f.json"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
