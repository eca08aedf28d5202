//! What can be asked of the dead letters, and what is answered: lists, one letter, a replay.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::failure::{Classified, FailureClass};
use super::offence::Cause;
use super::signal::Signal;

/// Most letters in one list, and in one step of a replay.
pub const MOST_LETTERS: usize = 1000;

/// Which letters are meant; what is not set does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LetterFilter {
    /// Of this tenant.
    pub tenant: Option<String>,
    /// Of this signal.
    pub signal: Option<Signal>,
    /// Of this class.
    pub class: Option<Cause>,
    /// Whose reason holds this text, whatever its case.
    pub reason: Option<String>,
}

/// What a list says of a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LetterInfo {
    /// Its number in the dead letters, by which it is named.
    pub id: u64,
    /// Tenant; empty where its record says none.
    pub tenant: String,
    /// Project.
    pub project: String,
    /// Signal.
    pub signal: Option<Signal>,
    /// Topic, partition and offset of the batch it was in, and its number there.
    pub source: String,
    /// Kind of the last failure.
    pub class: Option<Cause>,
    /// Text of the last failure.
    pub reason: String,
    /// Tries.
    pub attempts: u32,
    /// When it failed first, Unix nanoseconds.
    pub first_failed_ns: u64,
    /// When it failed last, Unix nanoseconds.
    pub last_failed_ns: u64,
    /// Bytes of its payload.
    pub size: usize,
    /// How often it was put back.
    pub replayed: u32,
    /// When it was put back last, Unix nanoseconds.
    pub replayed_at_ns: Option<u64>,
}

impl LetterFilter {
    /// Whether a letter is meant.
    pub fn takes(&self, letter: &LetterInfo) -> bool {
        let holds = |text: &String| letter.reason.to_lowercase().contains(&text.to_lowercase());
        self.tenant.as_ref().is_none_or(|tenant| *tenant == letter.tenant)
            && self.signal.is_none_or(|signal| Some(signal) == letter.signal)
            && self.class.is_none_or(|class| Some(class) == letter.class)
            && self.reason.as_ref().is_none_or(holds)
    }
}

/// A page of letters, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LetterPage {
    /// The letters. Fewer than asked for, also none, when looking through the others took long enough.
    pub items: Vec<LetterInfo>,
    /// Where to go on; absent at the end.
    pub next_cursor: Option<u64>,
}

/// A letter with all it holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LetterDetail {
    /// What a list says of it.
    #[serde(flatten)]
    pub info: LetterInfo,
    /// The headers of its record.
    pub headers: Vec<(String, String)>,
    /// Its payload as OTLP/JSON; absent when it cannot be read.
    pub payload: Option<serde_json::Value>,
    /// Why the payload cannot be read.
    pub unreadable: Option<String>,
}

/// What was put back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Replayed {
    /// The letters, as they are after it; after a dry run as they were before.
    pub items: Vec<LetterInfo>,
    /// Ids that name no letter, or one whose record does not say where it belongs.
    pub not_replayed: Vec<u64>,
    /// Where to go on, of a filter; absent at the end.
    pub next_cursor: Option<u64>,
    /// True when nothing was put back.
    pub dry_run: bool,
}

/// Which letters are to be put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These, at most [`MOST_LETTERS`].
    Ids(Vec<u64>),
    /// All that the filter takes, from this number down; at most [`MOST_LETTERS`] in one step.
    Matching(LetterFilter, Option<u64>),
}

/// A question to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LetterAsk {
    /// A page of letters below a number.
    List {
        /// Which.
        filter: LetterFilter,
        /// How many.
        limit: usize,
        /// Only those with a smaller number.
        before: Option<u64>,
    },
    /// One letter.
    Show(u64),
    /// Put letters back into their source topics.
    Replay {
        /// Which.
        what: Selection,
        /// Only say which ones.
        dry_run: bool,
        /// Who asks for it.
        who: String,
    },
}

/// The answer to a [`LetterAsk`], in the same order.
#[derive(Debug, Clone, PartialEq)]
pub enum LetterAnswer {
    /// To a list.
    Page(LetterPage),
    /// To a look at one.
    One(Box<LetterDetail>),
    /// To a replay.
    Replayed(Replayed),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LettersError {
    /// There is no letter of this number.
    NoSuchLetter(u64),
    /// The log cannot be read or written now.
    Unavailable(String),
}

impl fmt::Display for LettersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchLetter(id) => {
                write!(f, "there is no dead letter {id}: see GET /admin/dlq for those there are")
            }
            Self::Unavailable(why) => write!(f, "the dead letters cannot be reached: {why}"),
        }
    }
}

impl std::error::Error for LettersError {}

impl Classified for LettersError {
    fn class(&self) -> FailureClass {
        match self {
            Self::NoSuchLetter(_) => FailureClass::Poison,
            Self::Unavailable(_) => FailureClass::Dependency,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_what_fits_in_every_respect() {
        let letter = LetterInfo {
            id: 3,
            tenant: "acme".into(),
            project: "shop".into(),
            signal: Some(Signal::Logs),
            source: String::new(),
            class: Some(Cause::Panic),
            reason: "It Panics at x.rs".into(),
            attempts: 1,
            first_failed_ns: 0,
            last_failed_ns: 0,
            size: 1,
            replayed: 0,
            replayed_at_ns: None,
        };
        let filter = |text: &str| serde_json::from_str::<LetterFilter>(text).unwrap().takes(&letter);
        assert!(filter("{}"));
        assert!(filter(r#"{"tenant":"acme","signal":"logs","class":"panic","reason":"panics AT"}"#));
        for other in
            [r#"{"tenant":"a"}"#, r#"{"signal":"traces"}"#, r#"{"class":"hang"}"#, r#"{"reason":"hangs"}"#]
        {
            assert!(!filter(other), "{other}");
        }
        assert!(serde_json::from_str::<LetterFilter>(r#"{"tenent":"acme"}"#).is_err());
    }
}
