//! A small look at statement text: tells whether it is an insert with data, where its data begin, and what must be refused.
//!
//! In: query text, perhaps with data behind it. Out: [`Statement`]. It knows quotes and comments, not the grammar; whatever
//! it does not understand goes to the engine's own parser as it is.

use super::exception::{Exception, codes};

/// What the front has to know of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// `INSERT … FORMAT F`, data outside the statement.
    Insert {
        /// The INSERT without its FORMAT clause.
        head: Vec<u8>,
        /// Name of the format.
        format: String,
        /// Where the data begin in the text (its length when nothing follows).
        data_at: usize,
    },
    /// Anything else, `INSERT … VALUES` and `INSERT … SELECT` included.
    Other {
        /// The output format the text asks for, if it names one.
        format: Option<String>,
    },
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A keyword, a bare name or a number.
    Word,
    /// An opening bracket.
    Open,
    /// A closing bracket.
    Close,
    /// A quoted text or name, quotes included.
    Quoted,
    /// Anything else.
    Mark(u8),
}

/// A token and its place in the text.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Where it begins.
    pub start: usize,
    /// Where the next begins at the earliest.
    pub end: usize,
}

/// Looks at a statement.
///
/// # Errors
/// `INTO OUTFILE` and `FROM INFILE` are refused: the engine runs them with the rights of its process, past all grants.
pub fn inspect(text: &[u8]) -> Result<Statement, Exception> {
    let mut previous: Option<Token> = None;
    let mut depth = 0_i32;
    let mut insert = None;
    let mut selects = false;
    let mut format = None;
    let mut settings = false;
    for token in Tokens::of(text) {
        let is = |word: &str| {
            token.kind == Kind::Word && text[token.start..token.end].eq_ignore_ascii_case(word.as_bytes())
        };
        let after = |word: &str| {
            previous.is_some_and(|p| {
                p.kind == Kind::Word && text[p.start..p.end].eq_ignore_ascii_case(word.as_bytes())
            })
        };
        if insert.is_none() && token.kind != Kind::Open {
            insert = Some(is("insert"));
        }
        refuse_files(is("outfile") && after("into"), is("infile") && after("from"))?;
        depth += i32::from(token.kind == Kind::Open) - i32::from(token.kind == Kind::Close);
        let inserting = insert == Some(true);
        // an output format is only one when nothing but SETTINGS or a semicolon follows; else it was an alias
        settings |= is("settings");
        if format.is_some() && !settings && token.kind != Kind::Mark(b';') {
            format = None;
        }
        if inserting && depth == 0 && !selects && is("values") {
            return Ok(Statement::Other { format: None });
        }
        selects |= inserting && (is("select") || is("with") || is("watch")) && !after("partition");
        if depth == 0 && token.kind == Kind::Word && after("format") {
            let name = String::from_utf8_lossy(&text[token.start..token.end]).into_owned();
            if inserting && !selects {
                let cut = previous.map_or(token.start, |p| p.start);
                return Ok(Statement::Insert {
                    head: text[..cut].to_vec(),
                    format: name,
                    data_at: data_start(text, token.end),
                });
            }
            format = Some(name);
        }
        previous = Some(token);
    }
    Ok(Statement::Other { format })
}

/// A string literal in ClickHouse's syntax.
pub fn literal(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('\'');
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '\0' => out.push_str("\\0"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// A quoted identifier in ClickHouse's syntax.
pub fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

fn refuse_files(outfile: bool, infile: bool) -> Result<(), Exception> {
    if outfile || infile {
        let clause = if outfile { "INTO OUTFILE" } else { "FROM INFILE" };
        return Err(Exception::new(
            codes::ACCESS_DENIED,
            format_args!("{clause} is not allowed over this interface"),
        ));
    }
    Ok(())
}

/// ClickHouse's rule: blanks after the format name, then at most one line break, belong to the statement.
fn data_start(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(|b| matches!(b, b' ' | b'\t' | 0x0c)) {
        at += 1;
    }
    if text.get(at) == Some(&b'\r') {
        at += 1;
    }
    if text.get(at) == Some(&b'\n') {
        at += 1;
    }
    at
}

/// Cuts text into words, quoted things, brackets and other marks; drops blanks and comments.
pub struct Tokens<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Tokens<'t> {
    /// The tokens of a text.
    pub fn of(text: &'t [u8]) -> Self {
        Self { text, at: 0 }
    }
}

impl Tokens<'_> {
    fn skip_blanks_and_comments(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let skip = match rest {
                [b, ..] if b.is_ascii_whitespace() || *b == 0x0b => 1,
                [b'-', b'-', ..] | [b'/', b'/', ..] | [b'#', b' ' | b'!', ..] => {
                    find(rest, b"\n").unwrap_or(rest.len())
                }
                [b'/', b'*', ..] => comment_length(rest),
                _ => return,
            };
            self.at += skip;
        }
    }

    /// End of a quoted run that starts at `self.at`; backslash and a doubled quote both escape.
    fn quoted_end(&self, quote: u8) -> usize {
        let mut at = self.at + 1;
        while at < self.text.len() {
            match self.text[at] {
                b'\\' => at += 2,
                b if b == quote && self.text.get(at + 1) == Some(&quote) => at += 2,
                b if b == quote => return at + 1,
                _ => at += 1,
            }
        }
        self.text.len()
    }

    /// `$tag$ … $tag$`: the end of it, or `None` when this `$` does not open one.
    fn heredoc_end(&self) -> Option<usize> {
        let rest = &self.text[self.at..];
        let tag = 2 + rest[1..].iter().position(|b| *b == b'$')?;
        let inner = &rest[1..tag - 1];
        if !inner.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_') {
            return None;
        }
        let close = find(&rest[tag..], &rest[..tag])?;
        Some(self.at + tag + close + tag)
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip_blanks_and_comments();
        let start = self.at;
        let first = *self.text.get(start)?;
        let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80;
        let (kind, end) = match first {
            b'\'' | b'"' | b'`' => (Kind::Quoted, self.quoted_end(first)),
            b'$' => match self.heredoc_end() {
                Some(end) => (Kind::Quoted, end),
                None => (Kind::Mark(first), start + 1),
            },
            b'(' | b'[' | b'{' => (Kind::Open, start + 1),
            b')' | b']' | b'}' => (Kind::Close, start + 1),
            b if word(&b) => {
                // A `$` within a word opens nothing.
                let ends = |b: &u8| !word(b) && *b != b'$';
                let length = self.text[start..].iter().position(ends).unwrap_or(self.text.len() - start);
                (Kind::Word, start + length)
            }
            b => (Kind::Mark(b), start + 1),
        };
        self.at = end.min(self.text.len());
        Some(Token { kind, start, end: self.at })
    }
}

/// Length of the comment that the text begins with, with those that stand in it.
fn comment_length(text: &[u8]) -> usize {
    let (mut at, mut depth) = (2, 1);
    while depth > 0 && at < text.len() {
        match &text[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    at
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(text: &str) -> (String, String, String) {
        match inspect(text.as_bytes()).expect("accepted") {
            Statement::Insert { head, format, data_at } => {
                (String::from_utf8(head).expect("text"), format, text[data_at..].to_owned())
            }
            other => panic!("not an insert with data: {other:?}"),
        }
    }

    fn other(text: &str) -> Option<String> {
        match inspect(text.as_bytes()).expect("accepted") {
            Statement::Other { format } => format,
            insert => panic!("an insert: {insert:?}"),
        }
    }

    #[test]
    fn finds_head_format_and_data_of_an_insert() {
        let (head, format, data) = insert("INSERT INTO t (a, b) SETTINGS x = 'FORMAT y' FORMAT CSV\n1,2\n");
        assert_eq!(
            (head.as_str(), format.as_str(), data.as_str()),
            ("INSERT INTO t (a, b) SETTINGS x = 'FORMAT y' ", "CSV", "1,2\n")
        );
        assert_eq!(insert("insert into `format` format JSONEachRow {}").2, "{}");
        assert_eq!(insert("/* insert */ -- x\n insert into t(`a`,`b`) FORMAT RowBinary").1, "RowBinary");
    }

    #[test]
    fn only_one_line_break_belongs_to_the_statement() {
        assert_eq!(insert("insert into t format CSV \r\n\n1").2, "\n1");
        assert_eq!(insert("insert into t format CSV\t1").2, "1");
    }

    #[test]
    fn leaves_values_and_selects_to_the_engine() {
        assert_eq!(other("insert into t values ('x format CSV'), (2) "), None);
        assert_eq!(other("insert into t select 1 format CSV"), Some("CSV".into()));
        assert_eq!(other("select 1 -- format x\n Format JSON"), Some("JSON".into()));
        assert_eq!(other("select 1 as format from t"), None);
        assert_eq!(other("select 1 format JSON settings max_threads = 1;"), Some("JSON".into()));
        assert_eq!(other("select formatDateTime(now(), '%f') as format, 'format CSV'"), None);
    }

    #[test]
    fn refuses_files_but_not_their_mention() {
        for text in [
            "select 1 into outfile 'x'",
            "SELECT 1 INTO /* */ -- y\n OUTFILE $$x$$",
            "insert into t from infile 'x' format CSV",
        ] {
            assert_eq!(inspect(text.as_bytes()).expect_err("refused").code, codes::ACCESS_DENIED, "{text}");
        }
        assert_eq!(other("select 'into outfile', `into outfile`, \"from\" -- into outfile 'x'"), None);
    }

    #[test]
    fn survives_open_quotes_and_comments() {
        for text in
            ["select '", "select \"a\\", "/* x", "$a$ x", "$", "insert", "insert into t format", "\u{e4}"]
        {
            assert!(inspect(text.as_bytes()).is_ok(), "{text}");
        }
    }

    #[test]
    fn escapes_literals_and_identifiers() {
        assert_eq!(literal("a'b\\c\n"), r"'a\'b\\c\n'");
        assert_eq!(identifier("a`b"), r"`a\`b`");
    }
}
