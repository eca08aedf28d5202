//! The search language of `q`: `timeout "payment failed" service:cart level>=error attr.k=v -word` in → a list of terms that must all hold.
//!
//! Errors carry the column (in characters, from 1) at which reading stopped.

use super::failure::BadParameter;

/// A parsed `q`: every term must hold. Empty matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct LogFilter {
    /// The terms, in the order in which they were written.
    pub terms: Vec<LogTerm>,
}

impl LogFilter {
    /// True where only records of one service can match.
    pub fn names_a_service(&self) -> bool {
        self.terms.iter().any(|term| !term.negated && matches!(term.test, LogTest::Service(_)))
    }
}

/// One term, possibly negated with a leading `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogTerm {
    /// True for `-term`: records for which the test holds are left out.
    pub negated: bool,
    /// What is tested.
    pub test: LogTest,
}

/// What a term tests of a log record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LogTest {
    /// The body holds this text, letter case ignored.
    Text(String),
    /// The service name is exactly this.
    Service(String),
    /// The severity lies in this range of OTLP severity numbers, ends included.
    Severity {
        /// Lowest severity number.
        from: u8,
        /// Highest severity number.
        to: u8,
    },
    /// A log or resource attribute of this key has this value, compared as text.
    Attribute {
        /// Attribute key.
        key: String,
        /// Attribute value as text.
        value: String,
    },
    /// The record belongs to this trace.
    Trace([u8; 16]),
}

/// The severity names of OTLP with the first number of each band of four.
pub const LEVELS: [(&str, u8); 6] =
    [("trace", 1), ("debug", 5), ("info", 9), ("warn", 13), ("error", 17), ("fatal", 21)];

const LONGEST_QUERY: usize = 4096;
const MOST_TERMS: usize = 64;

/// Reads the value of `q`.
///
/// # Errors
/// [`BadParameter`] for `q` with the column, for an unclosed quote, an unknown field or level, a comparison without a value, and
/// for more than 4096 bytes or 64 terms.
pub fn parse(text: &str) -> Result<LogFilter, BadParameter> {
    if text.len() > LONGEST_QUERY {
        return Err(BadParameter::new("q", format!("is longer than {LONGEST_QUERY} bytes")));
    }
    let mut reader = Reader { chars: text.chars().collect(), at: 0 };
    let mut filter = LogFilter::default();
    while let Some(term) = reader.term()? {
        filter.terms.push(term);
        if filter.terms.len() > MOST_TERMS {
            return Err(BadParameter::new("q", format!("has more than {MOST_TERMS} terms")));
        }
    }
    Ok(filter)
}

struct Reader {
    chars: Vec<char>,
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn refuse<T>(&self, at: usize, why: impl std::fmt::Display) -> Result<T, BadParameter> {
        Err(BadParameter::new("q", format!("column {}: {why}", at + 1)))
    }

    fn term(&mut self) -> Result<Option<LogTerm>, BadParameter> {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        let Some(first) = self.peek() else { return Ok(None) };
        let start = self.at;
        let negated = first == '-' && self.chars.get(self.at + 1).is_some_and(|c| !c.is_whitespace());
        self.at += usize::from(negated);
        if self.peek() == Some('"') {
            let text = self.quoted()?;
            return self.text_term(start, negated, text);
        }
        let field_at = self.at;
        let word = self.take_while(|c| !c.is_whitespace() && !matches!(c, ':' | '=' | '<' | '>' | '"' | '!'));
        match (word.as_str(), self.peek()) {
            ("service" | "level" | "trace_id", Some(':' | '=' | '<' | '>' | '!')) => {
                self.field(&word, field_at, negated).map(Some)
            }
            (name, Some(':' | '=' | '!')) if name.starts_with("attr.") => {
                self.attribute(&word, negated).map(Some)
            }
            ("attr.", Some('"')) => self.attribute(&word, negated).map(Some),
            (name, Some(':')) if known_field_near(name).is_some() => {
                let near = known_field_near(name).unwrap_or_default();
                self.refuse(
                    field_at,
                    format!("unknown field {name:?}, did you mean {near:?}? quote it to search for the text"),
                )
            }
            // Anything else is a word: `http://x`, `a=b` and `12:30` are searched for as they stand.
            _ => {
                let rest = self.take_while(|c| !c.is_whitespace());
                self.text_term(start, negated, word + &rest)
            }
        }
    }

    fn text_term(&self, start: usize, negated: bool, text: String) -> Result<Option<LogTerm>, BadParameter> {
        if text.is_empty() {
            return self.refuse(start, "an empty text matches everything: write the words to search for");
        }
        Ok(Some(LogTerm { negated, test: LogTest::Text(text) }))
    }

    /// `service:x`, `trace_id:hex`, `level:x` and `level>=x`, after the field's name.
    fn field(&mut self, name: &str, field_at: usize, negated: bool) -> Result<LogTerm, BadParameter> {
        let operator_at = self.at;
        let operator = self.take_while(|c| matches!(c, ':' | '=' | '<' | '>' | '!'));
        let value_at = self.at;
        let value = self.value()?;
        if value.is_empty() {
            return self.refuse(value_at, format!("{name}{operator} needs a value right after it"));
        }
        let inverted = negated != (operator == "!=");
        let test = match (name, operator.as_str()) {
            ("service", ":" | "=" | "!=") => LogTest::Service(value),
            ("trace_id", ":" | "=" | "!=") => match super::hex::decode_fixed::<16>(&value) {
                Some(id) => LogTest::Trace(id),
                None => return self.refuse(value_at, "a trace id has 32 hex digits"),
            },
            ("level", operator) => match severity_range(operator, &value) {
                Ok((from, to)) => LogTest::Severity { from, to },
                Err(why) => return self.refuse(field_at, why),
            },
            _ => {
                return self.refuse(operator_at, format!("{name} knows only ':' and '!=', not {operator:?}"));
            }
        };
        Ok(LogTerm { negated: inverted, test })
    }

    /// `attr.KEY=VALUE` and `attr.KEY!=VALUE`; key and value may be quoted.
    fn attribute(&mut self, word: &str, negated: bool) -> Result<LogTerm, BadParameter> {
        let quoted_key = word == "attr." && self.peek() == Some('"');
        let key = if quoted_key { self.quoted()? } else { word["attr.".len()..].to_owned() };
        let operator_at = self.at;
        let operator = self.take_while(|c| matches!(c, ':' | '=' | '!'));
        if key.is_empty() {
            return self.refuse(operator_at, "attr. needs a key: attr.KEY=VALUE");
        }
        if !matches!(operator.as_str(), "=" | "!=" | ":") {
            return self.refuse(operator_at, format!("attributes know '=' and '!=', not {operator:?}"));
        }
        let value = self.value()?;
        Ok(LogTerm { negated: negated != (operator == "!="), test: LogTest::Attribute { key, value } })
    }

    fn value(&mut self) -> Result<String, BadParameter> {
        if self.peek() == Some('"') { self.quoted() } else { Ok(self.take_while(|c| !c.is_whitespace())) }
    }

    /// A text in double quotes; `\"` and `\\` stand for themselves.
    fn quoted(&mut self) -> Result<String, BadParameter> {
        let open = self.at;
        self.at += 1;
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                '"' => return Ok(text),
                '\\' if matches!(self.peek(), Some('"' | '\\')) => {
                    text.extend(self.peek());
                    self.at += 1;
                }
                other => text.push(other),
            }
        }
        self.refuse(open, "this quote is never closed")
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while self.peek().is_some_and(&keep) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }
}

/// A field name one typing slip away from `name`, so that `servce:x` is not silently searched as text.
fn known_field_near(name: &str) -> Option<&'static str> {
    ["service", "level", "trace_id"].into_iter().find(|known| strsim::osa_distance(known, name) == 1)
}

/// The band of severity numbers that an operator and a level name stand for.
fn severity_range(operator: &str, level: &str) -> Result<(u8, u8), String> {
    let wanted = level.to_ascii_lowercase();
    let wanted = if wanted == "warning" { "warn" } else { wanted.as_str() };
    let names = || LEVELS.map(|(name, _)| name).join(", ");
    let low = LEVELS.iter().find(|(name, _)| *name == wanted).map(|(_, number)| *number);
    let low = low.ok_or_else(|| format!("unknown level {level:?}, use one of {}", names()))?;
    match operator {
        ":" | "=" | "!=" => Ok((low, low + 3)),
        ">=" => Ok((low, 24)),
        ">" if low < 21 => Ok((low + 4, 24)),
        "<=" => Ok((1, low + 3)),
        "<" if low > 1 => Ok((1, low - 1)),
        ">" | "<" => {
            Err(format!("no level lies {} {level}", if operator == ">" { "above" } else { "below" }))
        }
        other => Err(format!("level knows ':', '>=', '>', '<=', '<' and '!=', not {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (bool, LogTest) {
        let filter = parse(text).unwrap();
        assert_eq!(filter.terms.len(), 1, "{text}: {filter:?}");
        (filter.terms[0].negated, filter.terms[0].test.clone())
    }

    fn attribute(key: &str, value: &str) -> LogTest {
        LogTest::Attribute { key: key.into(), value: value.into() }
    }

    #[test]
    fn reads_every_kind_of_term() {
        let text = |t: &str| LogTest::Text(t.into());
        for (q, want) in [
            ("timeout", (false, text("timeout"))),
            ("-timeout", (true, text("timeout"))),
            ("\"payment failed\"", (false, text("payment failed"))),
            (r#""say \"hi\" \\ now""#, (false, text(r#"say "hi" \ now"#))),
            ("http://x/y?a=b", (false, text("http://x/y?a=b"))),
            ("12:30", (false, text("12:30"))),
            ("a=b", (false, text("a=b"))),
            ("service:cart", (false, LogTest::Service("cart".into()))),
            ("-service:\"my cart\"", (true, LogTest::Service("my cart".into()))),
            ("service!=cart", (true, LogTest::Service("cart".into()))),
            ("level:warn", (false, LogTest::Severity { from: 13, to: 16 })),
            ("level>=ERROR", (false, LogTest::Severity { from: 17, to: 24 })),
            ("level>warning", (false, LogTest::Severity { from: 17, to: 24 })),
            ("level<=info", (false, LogTest::Severity { from: 1, to: 12 })),
            ("level<info", (false, LogTest::Severity { from: 1, to: 8 })),
            ("attr.http.method=GET", (false, attribute("http.method", "GET"))),
            ("attr.http.method!=GET", (true, attribute("http.method", "GET"))),
            ("-attr.k!=v", (false, attribute("k", "v"))),
            ("attr.\"odd key\"=\"a b\"", (false, attribute("odd key", "a b"))),
            ("attr.k=a=b", (false, attribute("k", "a=b"))),
            ("attr.k=", (false, attribute("k", ""))),
            (
                "trace_id:0102030405060708090a0b0c0d0e0f10",
                (false, LogTest::Trace(std::array::from_fn(|i| i as u8 + 1))),
            ),
        ] {
            assert_eq!(one(q), want, "{q}");
        }
    }

    #[test]
    fn terms_are_joined_by_and_in_order() {
        let filter = parse("  service:cart  level>=error \"timed out\"\t-dev ").unwrap();
        assert_eq!(filter.terms.len(), 4);
        assert!(filter.terms[3].negated);
        assert_eq!(parse("   ").unwrap(), LogFilter::default());
        assert_eq!(one("-"), (false, LogTest::Text("-".into())));
    }

    #[test]
    fn errors_name_q_and_the_column() {
        for (q, column) in [
            ("abc \"open", 5),
            ("level>=loud", 1),
            ("x level~", 0),
            ("service: cart", 9),
            ("level>fatal", 1),
            ("ok servce:cart", 4),
            ("attr.=x", 6),
            ("service>x", 8),
            ("\"\"", 1),
            ("trace_id:12", 10),
        ] {
            match parse(q) {
                Ok(filter) => assert_eq!(column, 0, "{q} was read as {filter:?}"),
                Err(err) => {
                    assert_eq!(err.parameter, "q");
                    assert!(err.detail.starts_with(&format!("column {column}:")), "{q}: {}", err.detail);
                }
            }
        }
    }

    #[test]
    fn refuses_what_is_too_long() {
        assert!(parse(&"x".repeat(LONGEST_QUERY + 1)).is_err());
        assert!(parse(&"x ".repeat(MOST_TERMS + 1)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_keeps_quoted_text(text in "\\PC{0,60}") {
            let _ = parse(&text);
            let quoted = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            if !text.is_empty() {
                proptest::prop_assert_eq!(one(&quoted).1, LogTest::Text(text));
            }
        }
    }
}
