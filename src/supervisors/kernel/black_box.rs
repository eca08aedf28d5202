//! The black box: one record on disk for each crash, for whoever looks into it afterwards.
//!
//! In: an abnormal exit, as its supervisor saw it. Out: a JSON file in the folder, of which the newest stay. Files are
//! written by a thread of its own behind a bounded queue: a slow disk costs records, which is said, never a restart.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
        let (queue, records) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name(String::from("black-box"));
        thread.spawn(move || write_all(&dir, keep.max(1), &records))?;
        Ok(Self { inner: Some(Arc::new(Inner { queue, provenance, written: AtomicU64::new(0) })) })
    }

    /// Writes a crash down. Returns the file's name, if it will be written.
    pub(super) fn record(&self, node: &Node, reason: &ExitReason, held: Option<Held>) -> Option<String> {
        let inner = self.inner.as_ref()?;
        let at_unix_ns = clock::unix_nanos();
        let number = inner.written.fetch_add(1, Ordering::Relaxed) % 10_000;
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
            policy: (inner.provenance)(node.path()),
        };
        match inner.queue.try_send((name.clone(), record)) {
            Ok(()) => Some(name),
            Err(_) => {
                tracing::warn!(child = node.path(), "no record of this crash: the disk does not keep up");
                None
            }
        }
    }
}

impl std::fmt::Debug for BlackBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.inner.is_some() { "BlackBox(on)" } else { "BlackBox(off)" })
    }
}

/// Writes what comes, until nobody can send any more.
fn write_all(dir: &Path, keep: usize, records: &Receiver<(String, Record)>) {
    while let Ok((name, record)) = records.recv() {
        let written = write(dir, &name, &record).and_then(|()| prune(dir, keep));
        if let Err(error) = written {
            tracing::warn!(folder = %dir.display(), name, %error, "the record of a crash cannot be written");
        }
    }
}

/// Writes the file whole or not at all.
fn write(dir: &Path, name: &str, record: &Record) -> io::Result<()> {
    let draft = dir.join(format!(".{name}.new"));
    let mut file = fs::File::create(&draft)?;
    file.write_all(&serde_json::to_vec_pretty(record)?)?;
    file.sync_data()?;
    fs::rename(draft, dir.join(name))
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

    #[test]
    fn a_name_does_not_lead_out_of_the_folder() {
        assert!(is_name("1795703765476-0001-process.otlp.1.json"));
        for bad in ["", ".json", "../1.json", "1/../../x.json", ".1.json.new", "1.txt", "1%2f.json"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
