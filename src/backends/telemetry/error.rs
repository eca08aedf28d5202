//! What can go wrong with the store, and what kind of failure it is: by the exception's code, never by its HTTP status.

use std::time::Duration;

use super::codes;
use super::read::{Bound, StoreFailure};
use crate::domain::failure::{Classified, FailureClass};

/// Longest part of an exception's text that is kept, in bytes. The rest tends to be the statement.
const TEXT_BYTES: usize = 600;

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TelemetryError {
    /// The embedded engine has not started yet.
    #[error("telemetry store has no address yet, its engine is starting")]
    NoEndpoint,
    /// An address this build cannot use.
    #[error("telemetry.url {url:?} cannot be used: {reason}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// TLS cannot be used as configured.
    #[error("telemetry store: {0}")]
    Tls(String),
    /// No connection, or one that broke.
    #[error("telemetry store cannot be reached: {0}")]
    Unreachable(String),
    /// All connections stayed in use until the deadline.
    #[error("telemetry store is busy, no connection was free within {0:?}")]
    Busy(Duration),
    /// No answer in time. An insert may or may not have happened: repeat it with the same token.
    #[error("telemetry store did not answer {what} within {after:?}")]
    Deadline {
        /// What was asked.
        what: &'static str,
        /// How long it had.
        after: Duration,
    },
    /// The store answered with an exception.
    #[error("telemetry store refused with code {code}: {text}")]
    Exception {
        /// ClickHouse's number of the exception.
        code: i32,
        /// Its text, shortened.
        text: String,
    },
    /// The answer is larger than the caller takes.
    #[error("telemetry store answered more than {limit} bytes")]
    ResultTooLarge {
        /// Most bytes the caller takes.
        limit: u64,
    },
    /// Rows could not be written as an Arrow stream, an answer could not be read as one, or a name is no name.
    #[error("telemetry store exchange is malformed: {0}")]
    Malformed(String),
}

impl TelemetryError {
    /// The store found files of its own that are not as they were written: checksums, sizes, marks, missing files.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Exception { code: 40 | 226 | 228 | 246, .. })
    }
}

impl Classified for TelemetryError {
    fn class(&self) -> FailureClass {
        match self {
            Self::NoEndpoint | Self::Unreachable(_) | Self::Deadline { .. } => FailureClass::Dependency,
            Self::Address { .. } | Self::Tls(_) => FailureClass::Config,
            Self::Busy(_) | Self::ResultTooLarge { .. } => FailureClass::Overload,
            Self::Exception { code, .. } => codes::class_of(*code),
            Self::Malformed(_) => FailureClass::Bug,
        }
    }
}

impl TelemetryError {
    /// Whether another node of the same store may well answer.
    pub(super) fn is_of_the_node(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Deadline { .. } => true,
            Self::Exception { code, .. } => codes::is_of_the_node(*code),
            _ => false,
        }
    }
}

impl From<clickhouse::error::Error> for TelemetryError {
    fn from(error: clickhouse::error::Error) -> Self {
        use clickhouse::error::Error;
        match error {
            Error::BadResponse(text) => exception(&text),
            Error::Network(source) => Self::Unreachable(chain(source.as_ref())),
            other => Self::Unreachable(chain(&other)),
        }
    }
}

impl From<arrow_schema::ArrowError> for TelemetryError {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<TelemetryError> for StoreFailure {
    fn from(error: TelemetryError) -> Self {
        let text = error.to_string();
        match &error {
            TelemetryError::Busy(_) => Self::Overloaded(text),
            TelemetryError::Deadline { .. } => Self::TimedOut(text),
            TelemetryError::ResultTooLarge { .. } => Self::TooLarge(Bound::AnswerBytes, text),
            TelemetryError::Malformed(_) => Self::Refused(text),
            TelemetryError::Exception { code, text: said } => match code {
                159 => Self::TimedOut(text),
                158 => Self::TooLarge(Bound::Rows, text),
                307 => Self::TooLarge(Bound::Bytes, text),
                396 if said.contains("max bytes") => Self::TooLarge(Bound::AnswerBytes, text),
                396 => Self::TooLarge(Bound::Answer, text),
                // One statement's own bound, or that of the whole store.
                241 if said.contains("Query memory limit") => Self::TooLarge(Bound::Memory, text),
                201 | 202 | 241 | 252 => Self::Overloaded(text),
                // No database, table or column yet, or no way in: the migrations or the operator are on it.
                16 | 60 | 81 | 192..=195 | 516 => Self::Down(text),
                _ if error.class() == FailureClass::Dependency => Self::Down(text),
                _ => Self::Refused(text),
            },
            TelemetryError::NoEndpoint
            | TelemetryError::Address { .. }
            | TelemetryError::Tls(_)
            | TelemetryError::Unreachable(_) => Self::Down(text),
        }
    }
}

/// An answer that is no success: ClickHouse's exception, or whatever stood between.
fn exception(text: &str) -> TelemetryError {
    match code_of(text) {
        Some(code) => TelemetryError::Exception { code, text: shorten(text) },
        None => TelemetryError::Unreachable(shorten(text)),
    }
}

/// The number in `Code: 60. DB::Exception: …`.
fn code_of(text: &str) -> Option<i32> {
    let rest = text.trim_start().strip_prefix("Code: ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
    digits.parse().ok()
}

fn shorten(text: &str) -> String {
    let text = text.trim();
    if text.len() <= TEXT_BYTES {
        return text.to_owned();
    }
    let end = (0..=TEXT_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

/// An error with its causes, since the outermost often says no more than "client error".
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    // Many errors repeat their cause in their own text.
    texts.dedup_by(|next, previous| previous.ends_with(next.as_str()));
    shorten(&texts.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_decides_the_class() {
        let class = |text: &str| exception(text).class();
        assert_eq!(class("Code: 117. DB::Exception: bad (INCORRECT_DATA)"), FailureClass::Poison);
        assert_eq!(class("Code: 60. DB::Exception: no table (UNKNOWN_TABLE)"), FailureClass::Config);
        assert_eq!(class("Code: 516. DB::Exception: no (AUTHENTICATION_FAILED)"), FailureClass::Config);
        assert_eq!(class("Code: 252. DB::Exception: parts (TOO_MANY_PARTS)"), FailureClass::Overload);
        assert_eq!(class("Code: 241. DB::Exception: memory"), FailureClass::Overload);
        assert_eq!(class("Code: 159. DB::Exception: time"), FailureClass::Dependency);
        assert_eq!(class("Code: 243"), FailureClass::Dependency);
        assert_eq!(class("Code: 987654. DB::Exception: of tomorrow"), FailureClass::Dependency);
        assert_eq!(class("502 Bad Gateway"), FailureClass::Dependency);
    }

    #[test]
    fn a_query_learns_what_it_can_do_about_it() {
        let failure = |text: &str| StoreFailure::from(exception(text));
        assert!(matches!(failure("Code: 60. x"), StoreFailure::Down(_)));
        assert!(matches!(failure("Code: 202. x"), StoreFailure::Overloaded(_)));
        assert!(matches!(failure("Code: 241. Query memory limit exceeded"), StoreFailure::TooLarge(..)));
        assert!(matches!(failure("Code: 241. (total) memory limit exceeded"), StoreFailure::Overloaded(_)));
        assert!(matches!(failure("Code: 159. x"), StoreFailure::TimedOut(_)));
        assert!(matches!(failure("Code: 62. x"), StoreFailure::Refused(_)));
        assert!(matches!(failure("no code"), StoreFailure::Down(_)));
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let TelemetryError::Exception { text, .. } = exception(&format!("Code: 62. {}", "ä".repeat(1000)))
        else {
            panic!("an exception");
        };
        assert!(text.len() <= TEXT_BYTES + '…'.len_utf8() && text.ends_with('…'));
    }
}
