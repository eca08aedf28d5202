//! ClickHouse's exceptions: the engine's error text in, code, clean text and the HTTP status ClickHouse maps it to out.

use std::fmt;

/// Exception codes the front raises itself; the numbers are ClickHouse's.
pub mod codes {
    /// `BAD_ARGUMENTS`.
    pub const BAD_ARGUMENTS: i32 = 36;
    /// `NOT_IMPLEMENTED`.
    pub const NOT_IMPLEMENTED: i32 = 48;
    /// `LOGICAL_ERROR`.
    pub const LOGICAL_ERROR: i32 = 49;
    /// `SYNTAX_ERROR`.
    pub const SYNTAX_ERROR: i32 = 62;
    /// `UNKNOWN_SETTING`.
    pub const UNKNOWN_SETTING: i32 = 115;
    /// `INCORRECT_DATA`.
    pub const INCORRECT_DATA: i32 = 117;
    /// `TIMEOUT_EXCEEDED`.
    pub const TIMEOUT_EXCEEDED: i32 = 159;
    /// `TOO_MANY_SIMULTANEOUS_QUERIES`.
    pub const TOO_MANY_SIMULTANEOUS_QUERIES: i32 = 202;
    /// `NETWORK_ERROR`.
    pub const NETWORK_ERROR: i32 = 210;
    /// `QUERY_WAS_CANCELLED`.
    pub const QUERY_WAS_CANCELLED: i32 = 394;
    /// `ACCESS_DENIED`.
    pub const ACCESS_DENIED: i32 = 497;
    /// `AUTHENTICATION_FAILED`.
    pub const AUTHENTICATION_FAILED: i32 = 516;
    /// `REQUEST_ENTITY_TOO_LARGE` has no code of its own in ClickHouse; `TOO_LARGE_SIZE_COMPRESSED` is the nearest.
    pub const TOO_LARGE: i32 = 131;
}

/// An exception with its code and its text after `DB::Exception: `, the name in brackets included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// ClickHouse's code.
    pub code: i32,
    /// Text without `Code: N. DB::Exception: `.
    pub text: String,
}

impl Exception {
    /// An exception of the front's own; adds ClickHouse's name for the code.
    pub fn new(code: i32, text: impl fmt::Display) -> Self {
        Self { code, text: format!("{text}. ({})", name(code)) }
    }

    /// Reads the engine's text. Re-thrown exceptions carry their prefix and suffix twice; one of each is kept.
    pub fn parse(raw: &str) -> Self {
        let mut code = None;
        let mut rest = raw.trim();
        let mut doubled = 0;
        while let Some((found, after)) = split_prefix(rest) {
            code = Some(found);
            rest = after;
            doubled += 1;
        }
        let mut text = strip_version(rest).to_owned();
        for _ in 1..doubled {
            if let Some(short) = strip_repeated_name(&text) {
                text = strip_version(&short).to_owned();
            }
        }
        Self { code: code.unwrap_or(codes::LOGICAL_ERROR), text }
    }

    /// The HTTP status ClickHouse answers this code with.
    pub fn http_status(&self) -> u16 {
        match self.code {
            194 => 401,
            192 | 193 | 497 | 512 | 516 => 403,
            // what the query text or the data is at fault for
            6 | 8 | 10 | 15 | 25 | 26 | 27 | 36 | 38 | 41 | 44 | 53 | 62 | 69 | 72 | 117 | 167 | 168
            | 223 | 376 | 427 | 441 | 675 | 676 => 400,
            46 | 47 | 50 | 56 | 60 | 63 | 73 | 78 | 81 | 115 | 177 | 336 | 511 => 404,
            codes::TIMEOUT_EXCEEDED => 408,
            381 => 411,
            codes::TOO_LARGE => 413,
            codes::NOT_IMPLEMENTED => 501,
            76 | 209 | 439 => 503,
            _ => 500,
        }
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code: {}. DB::Exception: {}", self.code, self.text)
    }
}

impl std::error::Error for Exception {}

/// `Code: 60. DB::Exception: rest` → (60, rest).
fn split_prefix(text: &str) -> Option<(i32, &str)> {
    let (number, rest) = text.strip_prefix("Code: ")?.split_once(". ")?;
    Some((number.parse().ok()?, rest.strip_prefix("DB::Exception: ")?))
}

/// Cuts ` (version 26.7.2.1)` and a full stop after it.
fn strip_version(text: &str) -> &str {
    let trimmed = text.trim_end().trim_end_matches('.');
    match trimmed.rfind(" (version ") {
        Some(at) if trimmed.ends_with(')') && !trimmed[at + 1..].contains(' ') => &trimmed[..at],
        Some(at)
            if trimmed.ends_with(')') && trimmed[at + 10..].trim_end_matches(')').split(' ').count() <= 3 =>
        {
            &trimmed[..at]
        }
        _ => text.trim_end(),
    }
}

/// `… (NAME) (version V). (NAME)` → `… (NAME) (version V)`.
fn strip_repeated_name(text: &str) -> Option<String> {
    let at = text.rfind(" (")?;
    let head = strip_version(text[..at].trim_end());
    head.ends_with(&text[at..]).then(|| head.to_owned())
}

fn name(code: i32) -> &'static str {
    match code {
        codes::BAD_ARGUMENTS => "BAD_ARGUMENTS",
        codes::NOT_IMPLEMENTED => "NOT_IMPLEMENTED",
        codes::SYNTAX_ERROR => "SYNTAX_ERROR",
        codes::UNKNOWN_SETTING => "UNKNOWN_SETTING",
        codes::INCORRECT_DATA => "INCORRECT_DATA",
        codes::TIMEOUT_EXCEEDED => "TIMEOUT_EXCEEDED",
        codes::TOO_MANY_SIMULTANEOUS_QUERIES => "TOO_MANY_SIMULTANEOUS_QUERIES",
        codes::NETWORK_ERROR => "NETWORK_ERROR",
        codes::QUERY_WAS_CANCELLED => "QUERY_WAS_CANCELLED",
        codes::ACCESS_DENIED => "ACCESS_DENIED",
        codes::AUTHENTICATION_FAILED => "AUTHENTICATION_FAILED",
        codes::TOO_LARGE => "TOO_LARGE_SIZE_COMPRESSED",
        _ => "LOGICAL_ERROR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_code_and_text() {
        let e = Exception::parse("Code: 60. DB::Exception: Table x does not exist. (UNKNOWN_TABLE)");
        assert_eq!((e.code, e.http_status()), (60, 404));
        assert_eq!(e.to_string(), "Code: 60. DB::Exception: Table x does not exist. (UNKNOWN_TABLE)");
    }

    #[test]
    fn keeps_one_prefix_and_one_name_of_a_rethrown_exception() {
        let once = "Code: 115. DB::Exception: Unknown setting 'nosuch'. (UNKNOWN_SETTING)";
        let twice = "Code: 115. DB::Exception: Code: 115. DB::Exception: Unknown setting 'nosuch'. (UNKNOWN_SETTING) (version 26.7.2.1). (UNKNOWN_SETTING)";
        let thrice = "Code: 73. DB::Exception: Code: 73. DB::Exception: Code: 73. DB::Exception: Unknown format Nope. (UNKNOWN_FORMAT) (version 26.7.2.1). (UNKNOWN_FORMAT) (version 26.7.2.1). (UNKNOWN_FORMAT)";
        assert_eq!(Exception::parse(twice).to_string(), once);
        assert_eq!(
            Exception::parse(thrice).to_string(),
            "Code: 73. DB::Exception: Unknown format Nope. (UNKNOWN_FORMAT)"
        );
    }

    #[test]
    fn cuts_the_version_and_survives_text_without_a_code() {
        let e = Exception::parse(
            "Code: 33. DB::Exception: Cannot read. (CANNOT_READ_ALL_DATA) (version 26.7.2.1)",
        );
        assert_eq!(e.text, "Cannot read. (CANNOT_READ_ALL_DATA)");
        assert_eq!(Exception::parse("boom").code, codes::LOGICAL_ERROR);
    }
}
