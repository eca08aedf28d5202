//! A pull parser over JSON text: asks for what the table of a message expects and says where it found something else.

use std::borrow::Cow;

use super::scan::plain_len;
use crate::wire::fault::{Fault, shorten};
use crate::wire::limits::Budget;

/// Unknown members may nest this deep; deeper is an attack, not a newer schema.
const MAX_SKIP_DEPTH: u32 = 64;

/// A position in a JSON text, and the account that what is read is charged to.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    pub(crate) budget: Budget<'a>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str, budget: Budget<'a>) -> Self {
        Self { text, at: 0, budget }
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is not white space, not yet taken.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.byte() {
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// An error at this place: `expected <wanted>, found …`.
    #[cold]
    pub(crate) fn expected(&mut self, wanted: &str) -> Fault {
        let found = match self.peek() {
            None => "the end of the text".to_owned(),
            Some(b'{') => "an object".to_owned(),
            Some(b'[') => "a list".to_owned(),
            Some(b'"') => "a string".to_owned(),
            Some(b't' | b'f') => "a boolean".to_owned(),
            Some(b'n') => "null".to_owned(),
            Some(b'-' | b'0'..=b'9') => "a number".to_owned(),
            Some(_) => format!("{:?}", self.text[self.at..].chars().next().unwrap_or_default()),
        };
        Fault::malformed(format!("expected {wanted}, found {found}")).at(self.at)
    }

    /// An error at this place in other words.
    #[cold]
    pub(crate) fn malformed(&self, what: impl Into<String>) -> Fault {
        Fault::malformed(what).at(self.at)
    }

    /// Notes this place in a fault that has none yet.
    pub(crate) fn here<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| fault.at(self.at))
    }

    /// Takes an opening bracket.
    #[inline]
    pub(crate) fn open(&mut self, bracket: u8, wanted: &str) -> Result<(), Fault> {
        if self.peek() != Some(bracket) {
            return Err(self.expected(wanted));
        }
        self.at += 1;
        Ok(())
    }

    /// Goes to the next element or member: false when `closing` was there instead, which is then taken.
    #[inline]
    pub(crate) fn next(&mut self, first: &mut bool, closing: u8) -> Result<bool, Fault> {
        let next = self.peek();
        if next == Some(closing) {
            self.at += 1;
            return Ok(false);
        }
        if !std::mem::take(first) {
            if next != Some(b',') {
                return Err(self.expected(if closing == b'}' { "',' or '}'" } else { "',' or ']'" }));
            }
            self.at += 1;
        }
        Ok(true)
    }

    /// The next key of an object, with its colon; `None` at the end of the object.
    #[inline]
    pub(crate) fn key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>, Fault> {
        if !self.next(first, b'}')? {
            return Ok(None);
        }
        let key = self.string("a key")?;
        self.open(b':', "':'")?;
        Ok(Some(key))
    }

    /// Takes `null` if it stands here.
    #[inline]
    pub(crate) fn take_null(&mut self) -> Result<bool, Fault> {
        if self.peek() != Some(b'n') {
            return Ok(false);
        }
        self.word("null").map(|()| true)
    }

    fn word(&mut self, word: &str) -> Result<(), Fault> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.malformed(format!("expected {word}")));
        }
        self.at += word.len();
        Ok(())
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, Fault> {
        match self.peek() {
            Some(b't') => self.word("true").map(|()| true),
            Some(b'f') => self.word("false").map(|()| false),
            _ => Err(self.expected("a boolean")),
        }
    }

    /// A string, borrowed from the text where nothing in it is escaped.
    #[inline]
    pub(crate) fn string(&mut self, wanted: &str) -> Result<Cow<'a, str>, Fault> {
        self.open(b'"', wanted)?;
        let start = self.at;
        self.at += plain_len(&self.text.as_bytes()[start..]);
        if self.byte() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(&self.text[start..self.at - 1]));
        }
        self.escaped_string(start).map(Cow::Owned)
    }

    fn escaped_string(&mut self, start: usize) -> Result<String, Fault> {
        let mut value = self.text[start..self.at].to_owned();
        loop {
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(value);
                }
                Some(b'\\') => value.push(self.escape()?),
                Some(_) => return Err(self.malformed("a control character in a string must be escaped")),
                None => return Err(self.malformed("a string is cut off")),
            }
            let plain = self.at;
            self.at += plain_len(&self.text.as_bytes()[plain..]);
            value.push_str(&self.text[plain..self.at]);
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let escaped = self.text.as_bytes().get(self.at + 1).copied();
        let value = match escaped {
            Some(b'u') => return self.unicode_escape(),
            Some(b @ (b'"' | b'\\' | b'/')) => char::from(b),
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            _ => return Err(self.malformed("an unknown escape in a string")),
        };
        self.at += 2;
        Ok(value)
    }

    /// `\uXXXX`, or two of them for a surrogate pair. A half pair becomes U+FFFD: one bad character from a client's
    /// string cutter must not cost it the batch.
    fn unicode_escape(&mut self) -> Result<char, Fault> {
        let unit = self.hex4(self.at)?;
        self.at += 6;
        if (0xd800..0xdc00).contains(&unit) && self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            let low = self.hex4(self.at)?;
            if (0xdc00..0xe000).contains(&low) {
                self.at += 6;
                let pair = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(pair).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
        }
        Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&self, at: usize) -> Result<u32, Fault> {
        let digits = self.text.as_bytes().get(at + 2..at + 6).unwrap_or_default();
        let value = digits.iter().try_fold(0, |value, b| Some(value << 4 | char::from(*b).to_digit(16)?));
        match value {
            Some(value) if digits.len() == 4 => Ok(value),
            _ => Err(self.malformed("expected four hex digits after \\u")),
        }
    }

    /// A number, or a string that is to hold one: its text.
    #[inline]
    pub(crate) fn number(&mut self, wanted: &str) -> Result<Cow<'a, str>, Fault> {
        match self.peek() {
            Some(b'"') => self.string(wanted),
            Some(b'-' | b'0'..=b'9') => {
                let len = number_len(&self.text.as_bytes()[self.at..]);
                let Some(len) = len else { return Err(self.malformed("a number is cut off or malformed")) };
                self.at += len;
                Ok(Cow::Borrowed(&self.text[self.at - len..self.at]))
            }
            _ => Err(self.expected(wanted)),
        }
    }

    /// Passes over a value that nobody knows, whatever it is.
    pub(crate) fn skip(&mut self) -> Result<(), Fault> {
        self.skip_at(0)
    }

    fn skip_at(&mut self, depth: u32) -> Result<(), Fault> {
        if depth == MAX_SKIP_DEPTH {
            return Err(Fault::limit("an unknown member is nested deeper than 64 levels").at(self.at));
        }
        let mut first = true;
        match self.peek() {
            Some(b'{') => {
                self.at += 1;
                while self.key(&mut first)?.is_some() {
                    self.skip_at(depth + 1)?;
                }
            }
            Some(b'[') => {
                self.at += 1;
                while self.next(&mut first, b']')? {
                    self.skip_at(depth + 1)?;
                }
            }
            Some(b'"') => _ = self.string("a string")?,
            Some(b't' | b'f') => _ = self.boolean()?,
            Some(b'n') => self.word("null")?,
            _ => _ = self.number("a value")?,
        }
        Ok(())
    }

    /// Checks that nothing but white space follows.
    pub(crate) fn finish(&mut self) -> Result<(), Fault> {
        if self.peek().is_some() { Err(self.expected("the end of the text")) } else { Ok(()) }
    }
}

/// Length of the JSON number that `bytes` begins with.
fn number_len(bytes: &[u8]) -> Option<usize> {
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && bytes[at] == b'0') {
        return None;
    }
    at += whole;
    if bytes.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        at += 1 + fraction;
        if fraction == 0 {
            return None;
        }
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at);
        at += exponent;
        if exponent == 0 {
            return None;
        }
    }
    Some(at)
}

/// An unsigned integer; also in the forms `1e3` and `1.0`, which some writers of JSON make of whole numbers.
#[inline]
pub(crate) fn parse_u64(text: &str) -> Result<u64, Fault> {
    if text.len() < 20 && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(text.bytes().fold(0, |value, b| value * 10 + u64::from(b - b'0')));
    }
    parse_whole(text)
        .and_then(|v| u64::try_from(v).ok())
        .ok_or_else(|| not_in("an unsigned 64-bit integer", text))
}

/// A signed integer, see [`parse_u64`].
#[inline]
pub(crate) fn parse_i64(text: &str) -> Result<i64, Fault> {
    parse_whole(text).and_then(|v| i64::try_from(v).ok()).ok_or_else(|| not_in("a 64-bit integer", text))
}

fn parse_whole(text: &str) -> Option<i128> {
    if number_len(text.as_bytes()) != Some(text.len()) {
        return None;
    }
    if let Ok(value) = text.parse::<i64>() {
        return Some(value.into());
    }
    if let Ok(value) = text.parse::<u64>() {
        return Some(value.into());
    }
    let value: f64 = text.parse().ok()?;
    (value.fract() == 0.0 && value.abs() < 2e19).then_some(value as i128)
}

/// A double, also one of the texts `NaN`, `Infinity`, `-Infinity`.
pub(crate) fn parse_f64(text: &str) -> Result<f64, Fault> {
    match text {
        "NaN" => return Ok(f64::NAN),
        "Infinity" => return Ok(f64::INFINITY),
        "-Infinity" => return Ok(f64::NEG_INFINITY),
        _ => {}
    }
    let value = if number_len(text.as_bytes()) == Some(text.len()) { text.parse().ok() } else { None };
    value.filter(|v: &f64| v.is_finite()).ok_or_else(|| not_in("a double", text))
}

#[cold]
pub(crate) fn not_in(wanted: &str, text: &str) -> Fault {
    Fault::malformed(format!("expected {wanted}, found {:?}", shorten(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::limits::OtlpLimits;

    fn reading<T>(text: &str, read: impl FnOnce(&mut Reader<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let limits = OtlpLimits::default();
        let mut reader = Reader::new(text, Budget::new(&limits));
        let value = read(&mut reader)?;
        reader.finish().map(|()| value)
    }

    #[test]
    fn strings_read_as_serde_json_reads_them() {
        let samples = [
            r#""""#,
            r#""plain""#,
            r#" "a\"b\\c\/\b\f\n\r\t" "#,
            r#""\u0041\u00e9\ud83e\udd80""#,
            r#""🦀 and \u0000""#,
        ];
        for sample in samples {
            let ours = reading(sample, |r| Ok(r.string("a string")?.into_owned())).unwrap();
            assert_eq!(ours, serde_json::from_str::<String>(sample).unwrap());
        }
        for bad in ["\"", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"a\nb\"", "\"\\", "x"] {
            assert!(reading(bad, |r| Ok(r.string("a string")?.into_owned())).is_err(), "{bad}");
        }
        for (half, expected) in
            [(r#""\ud83ex""#, "\u{fffd}x"), (r#""\udd80""#, "\u{fffd}"), (r#""\ud83e\n""#, "\u{fffd}\n")]
        {
            assert_eq!(reading(half, |r| Ok(r.string("a string")?.into_owned())).unwrap(), expected);
        }
    }

    #[test]
    fn skipping_takes_exactly_what_is_json() {
        let samples =
            ["{}", "[]", r#"{"a":[1,-2.5e+3,true,false,null,"x",{}]}"#, "0", "-0.1E7", " [ [ ] , { } ] "];
        for sample in samples {
            assert!(reading(sample, |r| r.skip()).is_ok(), "{sample}");
        }
        let bad = [
            "", "{", "[1,]", "[,1]", "{\"a\"}", "{\"a\":}", "{a:1}", "01", "1.", ".5", "1e", "+1", "-",
            "tru", "nul", "[1 2]", "{} {}", "NaN",
        ];
        for sample in bad {
            assert!(reading(sample, |r| r.skip()).is_err(), "{sample}");
            assert!(serde_json::from_str::<serde_json::Value>(sample).is_err(), "{sample}");
        }
        assert!(reading(&"[".repeat(100_000), |r| r.skip()).unwrap_err().text().contains("64 levels"));
    }

    #[test]
    fn numbers_of_all_spellings() {
        assert_eq!(parse_u64("18446744073709551615").unwrap(), u64::MAX);
        assert_eq!(parse_u64("1e3").unwrap(), 1000);
        assert_eq!(parse_u64("12.0").unwrap(), 12);
        assert_eq!(parse_i64("-9223372036854775808").unwrap(), i64::MIN);
        for bad in
            ["", "-1", "1.5", "18446744073709551616", "+1", "0x1", " 1", "1e30", "00000000000000000000001"]
        {
            assert!(parse_u64(bad).is_err(), "{bad}");
        }
        assert!(parse_i64("9223372036854775808").is_err());
        assert!(parse_f64("NaN").unwrap().is_nan());
        assert_eq!(parse_f64("-Infinity").unwrap(), f64::NEG_INFINITY);
        assert_eq!(parse_f64("2.5e-3").unwrap(), 0.0025);
        for bad in ["nan", "inf", "infinity", "1e999", "", ".5", "1."] {
            assert!(parse_f64(bad).is_err(), "{bad}");
        }
    }
}
