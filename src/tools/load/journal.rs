//! What became of every batch of a run: kept in memory and, when asked for, appended to a file another process can verify from.
//!
//! A line is written before a batch is first sent and after its fate is known, without fsync: it outlives a killed load
//! generator and a killed server, not a power cut. A torn last line is ignored.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::domain::signal::Signal;
use crate::tools::error::ToolError;

const MAGIC: &str = "obtrace-load-journal-1";

/// What is known of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged: every record must be there once.
    Accepted,
    /// Acknowledged but for this many records, nobody knows which.
    Partial(u64),
    /// Refused for good: none should be there.
    Refused,
    /// Sent without an answer, or never accepted in the end: each record may be there once.
    Unknown,
}

/// One batch of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Records in it.
    pub count: u64,
    /// Time of its first record, Unix nanoseconds.
    pub base_ns: u64,
    /// What became of it.
    pub fate: Fate,
}

/// What identifies a run; enough to recompute every id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInfo {
    /// Run id, the value of the run attribute.
    pub run: String,
    /// Seed of the ids.
    pub seed: u64,
    /// Records of a full batch: sequence = batch number × this + position.
    pub batch_size: u64,
}

/// All batches of a run by signal and number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Which run.
    pub info: RunInfo,
    /// Batches sent at least once.
    pub batches: BTreeMap<(Signal, u64), Batch>,
}

/// The ledger while the run goes on, with its file.
#[derive(Debug)]
pub struct Journal {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    file: Option<(PathBuf, File)>,
}

impl Journal {
    /// Starts a journal; with a path, in a new file.
    ///
    /// # Errors
    /// [`ToolError::Journal`] where the file exists already or cannot be made.
    pub fn create(info: RunInfo, path: Option<&Path>) -> Result<Self, ToolError> {
        let open = |path: &Path| {
            let mut file = File::options().append(true).create_new(true).open(path)?;
            writeln!(file, "{MAGIC} {} {} {}", info.run, info.seed, info.batch_size)?;
            Ok((path.to_owned(), file))
        };
        let file = path
            .map(|p| open(p).map_err(|source| ToolError::Journal { path: p.to_owned(), source }))
            .transpose()?;
        let ledger = Ledger { info, batches: BTreeMap::new() };
        Ok(Self { inner: Mutex::new(Inner { ledger, file }) })
    }

    /// Notes a batch before its first send; until its fate is known it counts as unknown.
    ///
    /// # Errors
    /// [`ToolError::Journal`] where the line cannot be written.
    pub fn intend(&self, signal: Signal, number: u64, count: u64, base_ns: u64) -> Result<(), ToolError> {
        let mut inner = self.inner.lock();
        inner.ledger.batches.insert((signal, number), Batch { count, base_ns, fate: Fate::Unknown });
        inner.write(&format!("I {signal} {number} {count} {base_ns}\n"))
    }

    /// Notes what became of a batch.
    ///
    /// # Errors
    /// [`ToolError::Journal`] where the line cannot be written.
    pub fn settle(&self, signal: Signal, number: u64, fate: Fate) -> Result<(), ToolError> {
        let mut inner = self.inner.lock();
        if let Some(batch) = inner.ledger.batches.get_mut(&(signal, number)) {
            batch.fate = fate;
        }
        inner.write(&match fate {
            Fate::Accepted => format!("A {signal} {number}\n"),
            Fate::Partial(rejected) => format!("P {signal} {number} {rejected}\n"),
            Fate::Refused => format!("R {signal} {number}\n"),
            Fate::Unknown => format!("U {signal} {number}\n"),
        })
    }

    /// The ledger as it stands.
    pub fn ledger(&self) -> Ledger {
        self.inner.lock().ledger.clone()
    }
}

impl Inner {
    /// One short write into the page cache; buffering here would lose lines with the process.
    fn write(&mut self, line: &str) -> Result<(), ToolError> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        file.write_all(line.as_bytes()).map_err(|source| ToolError::Journal { path: path.clone(), source })
    }
}

impl Ledger {
    /// Reads a journal file.
    ///
    /// # Errors
    /// [`ToolError::Journal`] where it cannot be read, [`ToolError::JournalFormat`] for a line that is none (a torn last one aside).
    pub fn read(path: &Path) -> Result<Self, ToolError> {
        let fail = |source| ToolError::Journal { path: path.to_owned(), source };
        let bad = |line: usize, reason: &str| ToolError::JournalFormat {
            path: path.to_owned(),
            line,
            reason: reason.to_owned(),
        };
        let mut reader = BufReader::new(File::open(path).map_err(fail)?);
        let mut line = String::new();
        reader.read_line(&mut line).map_err(fail)?;
        let info = parse_head(&line).ok_or_else(|| bad(1, "is no head of a load journal"))?;
        let mut ledger = Self { info, batches: BTreeMap::new() };
        for number in 2.. {
            line.clear();
            if reader.read_line(&mut line).map_err(fail)? == 0 || !line.ends_with('\n') {
                break;
            }
            ledger.apply(&line).ok_or_else(|| bad(number, "is no line of a load journal"))?;
        }
        Ok(ledger)
    }

    /// Signals that have batches.
    pub fn signals(&self) -> Vec<Signal> {
        Signal::ALL.into_iter().filter(|s| self.of(*s).next().is_some()).collect()
    }

    /// Batches of one signal by number.
    pub fn of(&self, signal: Signal) -> impl Iterator<Item = (u64, &Batch)> {
        self.batches.range((signal, 0)..=(signal, u64::MAX)).map(|((_, number), batch)| (*number, batch))
    }

    fn apply(&mut self, line: &str) -> Option<()> {
        let mut words = line.split_ascii_whitespace();
        let kind = words.next()?;
        let key = (Signal::parse(words.next()?)?, words.next()?.parse().ok()?);
        let mut number = || words.next()?.parse::<u64>().ok();
        let fate = match kind {
            "I" => {
                let batch = Batch { count: number()?, base_ns: number()?, fate: Fate::Unknown };
                self.batches.insert(key, batch);
                return Some(());
            }
            "A" => Fate::Accepted,
            "P" => Fate::Partial(number()?),
            "R" => Fate::Refused,
            "U" => Fate::Unknown,
            _ => return None,
        };
        self.batches.get_mut(&key)?.fate = fate;
        Some(())
    }
}

fn parse_head(line: &str) -> Option<RunInfo> {
    let mut words = line.split_ascii_whitespace();
    if words.next()? != MAGIC {
        return None;
    }
    let info = RunInfo {
        run: words.next()?.to_owned(),
        seed: words.next()?.parse().ok()?,
        batch_size: words.next()?.parse().ok()?,
    };
    (info.batch_size > 0).then_some(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> RunInfo {
        RunInfo { run: "r1".to_owned(), seed: 3, batch_size: 10 }
    }

    #[test]
    fn another_process_reads_what_this_one_knew_and_a_torn_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let journal = Journal::create(info(), Some(&path)).unwrap();
        for (number, fate) in
            [Fate::Accepted, Fate::Partial(2), Fate::Refused, Fate::Unknown].into_iter().enumerate()
        {
            journal.intend(Signal::Logs, number as u64, 10, 99).unwrap();
            journal.settle(Signal::Logs, number as u64, fate).unwrap();
        }
        journal.intend(Signal::Traces, 0, 7, 100).unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"A traces 0").unwrap();
        let read = Ledger::read(&path).unwrap();
        assert_eq!(read, journal.ledger());
        assert_eq!(read.batches[&(Signal::Traces, 0)].fate, Fate::Unknown);
        assert_eq!(read.signals(), [Signal::Traces, Signal::Logs]);
        assert_eq!(read.of(Signal::Logs).count(), 4);
    }

    #[test]
    fn refuses_what_is_no_journal_and_to_overwrite_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        std::fs::write(&path, "hello\n").unwrap();
        assert!(matches!(Ledger::read(&path), Err(ToolError::JournalFormat { line: 1, .. })));
        std::fs::write(&path, format!("{MAGIC} r 1 10\nA traces 5\n")).unwrap();
        assert!(matches!(Ledger::read(&path), Err(ToolError::JournalFormat { line: 2, .. })));
        assert!(matches!(Journal::create(info(), Some(&path)), Err(ToolError::Journal { .. })));
    }
}
