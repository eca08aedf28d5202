//! Messages to the stream stage: appends to the event log, questions to the dead letters.

use crate::backends::event_log::{Appended, LogError, Record};
use crate::domain::dead_letters::{LetterAnswer, LetterAsk, LettersError};
use crate::supervisors::kernel::lane::Cargo;
use crate::supervisors::kernel::port::Reply;

/// ingest, process → producer · at least once · ≤ the log's record limit · idempotent by `dedup`.
///
/// Append one record and answer when it is durable.
#[derive(Debug)]
pub struct AppendRecord {
    /// Topic.
    pub topic: &'static str,
    /// Partition.
    pub partition: u32,
    /// The record.
    pub record: Record,
    /// Key by which a repeat is recognised.
    pub dedup: Option<u128>,
    /// Answered once the record is durable.
    pub reply: Reply<Result<Appended, LogError>>,
}

impl Cargo for AppendRecord {
    fn weight(&self) -> usize {
        self.record.size()
    }

    fn describe(&self) -> String {
        format!("AppendRecord({}-{}, {} bytes)", self.topic, self.partition, self.record.size())
    }

    fn poisoned(&self, _attempts: u32) {
        // The producer failed again and again on it: for the sender the log is not there.
        self.reply.send(Err(LogError::Closed));
    }
}

/// serve → letter desk · at least once · a few KiB · idempotent: a replay by its number, the others only read.
///
/// List, show or replay dead letters.
#[derive(Debug)]
pub struct AskLetters {
    /// The question.
    pub ask: LetterAsk,
    /// The answer.
    pub reply: Reply<Result<LetterAnswer, LettersError>>,
}

impl Cargo for AskLetters {
    fn weight(&self) -> usize {
        1024
    }

    fn poisoned(&self, attempts: u32) {
        let why = format!("the letter desk failed {attempts} times on this question: send a bug report");
        self.reply.send(Err(LettersError::Unavailable(why)));
    }
}
