//! The log's folder: its format file, its lock and its topics; refuses what it cannot own or understand, in clear words.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::Path;

use super::TopicConfig;
use super::recover::create_dirs;
use super::segment::{FORMAT_VERSION, sync_dir};
use crate::backends::event_log::LogError;

const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";
/// Folder of the consumer groups' journal.
pub(super) const GROUPS_DIR: &str = "groups";

/// The right to a folder; goes with the process at the latest.
pub(super) struct Lock(File);

impl Lock {
    /// Gives the folder free. Closing the file would not do: a child process being started may hold a copy for a moment.
    pub(super) fn release(&self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "event log lock not given back, it goes with the process");
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.release();
    }
}

/// Creates and locks `dir`.
pub(super) fn lock(dir: &Path) -> Result<Lock, LogError> {
    fs::create_dir_all(dir).map_err(|e| refuse(dir, format!("the folder cannot be created: {e}")))?;
    let path = dir.join(LOCK_FILE);
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).read(true).open(&path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&path).unwrap_or_default();
            let what = format!("it is in use by process {}; stop it or use another data folder", pid.trim());
            return Err(refuse(dir, what));
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Lock(file))
}

/// Checks the format file, or writes one into an empty folder, and returns the log's salt.
pub(super) fn salt(dir: &Path) -> Result<u32, LogError> {
    match fs::read_to_string(dir.join(FORMAT_FILE)) {
        Ok(text) => parse_format(&text).map_err(|what| refuse(dir, what)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create_format(dir),
        Err(error) => Err(refuse(dir, format!("the file {FORMAT_FILE} cannot be read: {error}"))),
    }
}

fn parse_format(text: &str) -> Result<u32, String> {
    let mut words = text.split_whitespace();
    let (name, version) = (words.next(), words.next());
    if name != Some("obtrace-event-log") {
        return Err(format!("the file {FORMAT_FILE} is not that of an event log; use another data folder"));
    }
    if version != Some(FORMAT_VERSION.to_string().as_str()) {
        let version = version.unwrap_or("without a number");
        return Err(format!(
            "it has format version {version}, this build knows {FORMAT_VERSION}; use the build that wrote it"
        ));
    }
    words
        .next()
        .and_then(|word| word.strip_prefix("salt="))
        .and_then(|hex| u32::from_str_radix(hex, 16).ok())
        .ok_or_else(|| format!("the file {FORMAT_FILE} is damaged; restore it from a copy"))
}

fn create_format(dir: &Path) -> Result<u32, LogError> {
    let strangers = fs::read_dir(dir)?.filter_map(Result::ok).any(|e| e.path().is_dir());
    if strangers {
        let what =
            format!("it holds folders but no {FORMAT_FILE} file; use an empty folder or restore the file");
        return Err(refuse(dir, what));
    }
    let salt: u32 = rand::random();
    let fresh = dir.join("FORMAT.tmp");
    let mut file = File::create(&fresh)?;
    writeln!(file, "obtrace-event-log {FORMAT_VERSION} salt={salt:08x}")?;
    file.sync_all()?;
    fs::rename(&fresh, dir.join(FORMAT_FILE))?;
    sync_dir(dir)?;
    Ok(salt)
}

/// Makes the folders of all topics, and returns the topics on disk that are not configured.
pub(super) fn topics(dir: &Path, topics: &[TopicConfig]) -> Result<Vec<String>, LogError> {
    for topic in topics {
        check(dir, topic)?;
        create_dirs(dir, &topic.name, topic.partitions)?;
    }
    let mut unknown = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && name != GROUPS_DIR && topics.iter().all(|t| t.name != name) {
            unknown.push(name);
        }
    }
    Ok(unknown)
}

fn check(dir: &Path, topic: &TopicConfig) -> Result<(), LogError> {
    let TopicConfig { name, partitions, .. } = topic;
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || !name.chars().all(word) || name.starts_with('.') || name == GROUPS_DIR {
        return Err(refuse(dir, format!("{name:?} is no topic name; use letters, digits, '.', '-' and '_'")));
    }
    if *partitions == 0 {
        return Err(refuse(dir, format!("topic {name} has no partitions; give it at least one")));
    }
    let on_disk = fs::read_dir(dir.join(name)).map_or(0, |entries| {
        let numbers = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
        numbers.map(|n| n.saturating_add(1)).max().unwrap_or(0)
    });
    if on_disk > *partitions {
        let what = format!(
            "topic {name} has {on_disk} partitions on disk and {partitions} in the settings; a topic cannot shrink"
        );
        return Err(refuse(dir, what));
    }
    Ok(())
}

pub(super) fn refuse(dir: &Path, what: String) -> LogError {
    LogError::Open { dir: dir.display().to_string(), what }
}
