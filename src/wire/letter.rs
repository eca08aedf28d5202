//! What a record of the retry ladder or of the dead letters says about itself: headers in, [`Letter`] out, and back.
//!
//! A letter is an item that could not be stored, as an OTLP request of its own, with all headers of the batch it came in
//! and those named here. Its id is the place where it failed first; it stays the same on every rung and through replays,
//! and is the token it is stored under. Reading never fails: what is missing is empty.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::envelope::{MAX_LAST_ERROR, cut, names as envelope_names};
use crate::domain::offence::Cause;

/// Names of the headers.
pub mod names {
    /// Id of the letter: source topic, partition and offset, and the number of the item in the request.
    pub const LETTER: &str = "obtrace-letter";
    /// Topic, partition and offset of the record in which the item failed first.
    pub const SOURCE: &str = "obtrace-source";
    /// Kind of the last failure.
    pub const CLASS: &str = "obtrace-class";
    /// When it failed first, Unix nanoseconds.
    pub const FIRST_FAILED: &str = "obtrace-first-failed-ns";
    /// When it failed last, Unix nanoseconds.
    pub const LAST_FAILED: &str = "obtrace-last-failed-ns";
    /// When it is to be tried again, Unix nanoseconds; only on the retry ladder.
    pub const DUE: &str = "obtrace-due-ns";
    /// How often it was put back into its source topic.
    pub const REPLAY: &str = "obtrace-replay";
}

/// Headers of a record, name and value.
pub type Headers = [(String, Bytes)];

/// What the headers of a letter say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Letter {
    /// Its id.
    pub id: String,
    /// Where it failed first.
    pub source: String,
    /// Kind of the last failure.
    pub cause: Option<Cause>,
    /// Text of the last failure.
    pub reason: String,
    /// Tries so far.
    pub attempts: u32,
    /// When it failed first.
    pub first_failed_ns: u64,
    /// When it failed last.
    pub last_failed_ns: u64,
    /// When it is to be tried again; 0 in the dead letters.
    pub due_ns: u64,
    /// How often it was replayed.
    pub replay: u32,
}

impl Letter {
    /// The letter that a record with these headers is; `None` for a batch that never failed.
    pub fn of(headers: &Headers) -> Option<Self> {
        let number = |name| text_of(headers, name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let small = |name| u32::try_from(number(name)).unwrap_or(u32::MAX);
        let text = |name| text_of(headers, name).unwrap_or_default().to_owned();
        Some(Self {
            id: text_of(headers, names::LETTER)?.to_owned(),
            source: text(names::SOURCE),
            cause: text_of(headers, names::CLASS).and_then(Cause::parse),
            reason: text(envelope_names::LAST_ERROR),
            attempts: small(envelope_names::ATTEMPTS),
            first_failed_ns: number(names::FIRST_FAILED),
            last_failed_ns: number(names::LAST_FAILED),
            due_ns: number(names::DUE),
            replay: small(names::REPLAY),
        })
    }

    /// Writes this letter into the headers of its record, in place of what they said before.
    pub fn write(&self, headers: &mut Vec<(String, Bytes)>) {
        let class = self.cause.map(|cause| cause.as_str().to_owned()).unwrap_or_default();
        let numbered = |number: u64| if number == 0 { String::new() } else { number.to_string() };
        for (name, value) in [
            (names::LETTER, self.id.clone()),
            (names::SOURCE, self.source.clone()),
            (names::CLASS, class),
            (envelope_names::LAST_ERROR, cut(&self.reason, MAX_LAST_ERROR).to_owned()),
            (envelope_names::ATTEMPTS, numbered(u64::from(self.attempts))),
            (names::FIRST_FAILED, numbered(self.first_failed_ns)),
            (names::LAST_FAILED, numbered(self.last_failed_ns)),
            (names::DUE, numbered(self.due_ns)),
            (names::REPLAY, numbered(u64::from(self.replay))),
        ] {
            set(headers, name, value);
        }
    }
}

/// Id of the letter that a record with these headers is, which is also the token it is stored under.
pub fn letter_id(headers: &Headers) -> Option<&str> {
    text_of(headers, names::LETTER)
}

/// When a record is to be tried again, Unix nanoseconds; 0 where it does not say.
pub fn due_ns(headers: &Headers) -> u64 {
    text_of(headers, names::DUE).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The key by which putting the same thing aside twice is once.
pub fn dedup_key(text: &str) -> u128 {
    xxh3_128(text.as_bytes()).max(1)
}

/// The text of a header; the last one where there are several.
pub fn text_of<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    let found = headers.iter().rev().find(|(key, _)| key == name);
    found.and_then(|(_, value)| std::str::from_utf8(value).ok())
}

/// Sets a header; an empty value takes it out.
pub fn set(headers: &mut Vec<(String, Bytes)>, name: &str, value: String) {
    headers.retain(|(key, _)| key != name);
    if !value.is_empty() {
        headers.push((name.to_owned(), Bytes::from(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_comes_back_as_it_went_out() {
        let letter = Letter {
            id: "obtrace.logs-0-17.3".into(),
            source: "obtrace.logs-0-17".into(),
            cause: Some(Cause::Panic),
            reason: "it panics at x.rs:3".into(),
            attempts: 2,
            first_failed_ns: 5,
            last_failed_ns: 7,
            due_ns: 9,
            replay: 1,
        };
        let mut headers = vec![("other".to_owned(), Bytes::from_static(b"x"))];
        assert_eq!(Letter::of(&headers), None);
        letter.write(&mut headers);
        assert_eq!(Letter::of(&headers), Some(letter.clone()));
        let dead = Letter { due_ns: 0, attempts: 3, ..letter };
        dead.write(&mut headers);
        assert_eq!(Letter::of(&headers), Some(dead));
        assert_eq!(due_ns(&headers), 0);
        let names: std::collections::BTreeSet<_> = headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), headers.len(), "no header is there twice");
    }
}
