//! One layer of configuration as a tree of values that remember where they were set; TOML or text in, merged tree out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use toml_edit::{Document, Item, TableLike, Value};

use super::error::ConfigError;

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it: the built-in default holds.
    Default,
    /// A line (from 1) of a file; line 0 stands for the file as a whole.
    File {
        /// The file as it was named, or `profile NAME` for a built-in one.
        file: Arc<str>,
        /// The line.
        line: usize,
    },
    /// An environment variable.
    Env(Arc<str>),
    /// A command-line flag.
    Flag(Arc<str>),
}

impl Source {
    /// True for sources that only know text: numbers, booleans and lists are then read from it.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Env(_) | Self::Flag(_))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line: 0 } => f.write_str(file),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A value as it was written. Dates are kept as text.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// Text, or anything from an environment variable or flag.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A list, `[a, b]` or `[[tables]]`.
    List(Vec<Node>),
    /// A table.
    Table(Table),
}

/// The keys of a table, in the order of the alphabet.
pub type Table = BTreeMap<String, Node>;

/// A value with its source.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub raw: Raw,
    /// Where it was set. For a table: where it was first opened.
    pub source: Source,
}

impl fmt::Display for Raw {
    /// What was found, for "expected …, found …"; long text is cut.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) if text.chars().count() > 60 => {
                write!(f, "{:?}…", text.chars().take(60).collect::<String>())
            }
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(n) => write!(f, "the number {n}"),
            Self::Float(n) => write!(f, "the number {n}"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::List(_) => f.write_str("a list"),
            Self::Table(_) => f.write_str("a table"),
        }
    }
}

impl Node {
    /// An empty table that nobody opened.
    pub fn empty() -> Self {
        Self { raw: Raw::Table(Table::new()), source: Source::Default }
    }

    /// Reads a TOML file's text; `file` is how errors and provenance name it.
    ///
    /// # Errors
    /// The first syntax error, with its line.
    pub fn parse_toml(file: &str, text: &str) -> Result<Self, ConfigError> {
        let file: Arc<str> = Arc::from(file);
        let lines = Lines::of(text);
        let document = Document::parse(text).map_err(|e| ConfigError {
            at: Source::File { file: file.clone(), line: e.span().map_or(0, |s| lines.line(s.start)) },
            message: format!("not valid TOML: {}", e.message().replace('\n', ", ")),
        })?;
        let origin = |at: usize| Source::File { file: file.clone(), line: lines.line(at) };
        Ok(from_table(document.as_table(), origin(0), &origin))
    }

    /// Reads one TOML value (a list of tables, say) that stands in an environment variable or flag.
    pub(super) fn parse_value(text: &str, source: &Source) -> Option<Self> {
        let document = Document::parse(format!("value = {text}")).ok()?;
        let origin = |_| source.clone();
        document.as_table().get("value").map(|item| from_item(item, source.clone(), &origin))
    }

    /// Lays `over` on top: tables are merged key by key, everything else is replaced.
    pub fn overlay(&mut self, over: Self) {
        match (&mut self.raw, over.raw) {
            (Raw::Table(base), Raw::Table(table)) => {
                if self.source == Source::Default {
                    self.source = over.source;
                }
                for (key, node) in table {
                    match base.get_mut(&key) {
                        Some(existing) => existing.overlay(node),
                        None => {
                            base.insert(key, node);
                        }
                    }
                }
            }
            (raw, new) => {
                *raw = new;
                self.source = over.source;
            }
        }
    }

    /// A tree that holds nothing but `text` at the dotted `path`.
    pub fn at_path<'a>(path: impl DoubleEndedIterator<Item = &'a str>, text: &str, source: &Source) -> Self {
        let leaf = Self { raw: Raw::Text(text.to_owned()), source: source.clone() };
        path.rev().fold(leaf, |inner, key| Self {
            raw: Raw::Table(Table::from([(key.to_owned(), inner)])),
            source: source.clone(),
        })
    }

    /// The keys, if this is a table.
    pub fn as_table(&self) -> Option<&Table> {
        match &self.raw {
            Raw::Table(table) => Some(table),
            _ => None,
        }
    }
}

/// Byte position → line number.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i).collect())
    }

    fn line(&self, at: usize) -> usize {
        self.0.partition_point(|newline| *newline < at) + 1
    }
}

fn from_table(table: &dyn TableLike, source: Source, origin: &dyn Fn(usize) -> Source) -> Node {
    let keys = table.iter().map(|(key, item)| {
        // The line of the key, not of the value: a list may begin below. Tables know their header's line.
        let span = table.get_key_value(key).and_then(|(k, _)| k.span()).or_else(|| item.span());
        let at = span.map_or_else(|| source.clone(), |span| origin(span.start));
        (key.to_owned(), from_item(item, at, origin))
    });
    Node { raw: Raw::Table(keys.collect()), source: source.clone() }
}

fn from_item(item: &Item, source: Source, origin: &dyn Fn(usize) -> Source) -> Node {
    match item {
        Item::Value(value) => from_value(value, source, origin),
        Item::Table(table) => from_table(table, source, origin),
        Item::ArrayOfTables(tables) => {
            let each = tables.iter().map(|table| {
                let at = table.span().map_or_else(|| source.clone(), |span| origin(span.start));
                from_table(table, at, origin)
            });
            Node { raw: Raw::List(each.collect()), source: source.clone() }
        }
        // The parser never yields it; an empty table is what a missing item means.
        Item::None => Node { raw: Raw::Table(Table::new()), source },
    }
}

fn from_value(value: &Value, source: Source, origin: &dyn Fn(usize) -> Source) -> Node {
    let raw = match value {
        Value::String(text) => Raw::Text(text.value().clone()),
        Value::Integer(n) => Raw::Integer(*n.value()),
        Value::Float(n) => Raw::Float(*n.value()),
        Value::Boolean(b) => Raw::Bool(*b.value()),
        Value::Datetime(at) => Raw::Text(at.value().to_string()),
        Value::InlineTable(table) => return from_table(table, source, origin),
        Value::Array(array) => Raw::List(
            array
                .iter()
                .map(|v| {
                    let at = v.span().map_or_else(|| source.clone(), |span| origin(span.start));
                    from_value(v, at, origin)
                })
                .collect(),
        ),
    };
    Node { raw, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Node {
        Node::parse_toml("f.toml", text).unwrap()
    }

    fn line_of(node: &Node, path: &str) -> String {
        let found = path.split('.').fold(node, |node, key| &node.as_table().unwrap()[key]);
        found.source.to_string()
    }

    #[test]
    fn every_value_knows_its_line() {
        let node = parse(
            "a = 1\n\n[b]\nc = [\n  1,\n]\nd = { e = 2 }\n[b.f.g]\nh = 3\n[[k]]\nl = 1\n[[k]]\nl = 2\n",
        );
        for (path, line) in
            [("a", 1), ("b", 3), ("b.c", 4), ("b.d", 7), ("b.d.e", 7), ("b.f.g", 8), ("b.f.g.h", 9)]
        {
            assert_eq!(line_of(&node, path), format!("f.toml:{line}"), "{path}");
        }
        let Raw::List(items) = &node.as_table().unwrap()["k"].raw else { panic!("a list of tables") };
        assert_eq!(
            items.iter().map(|n| n.source.to_string()).collect::<Vec<_>>(),
            ["f.toml:10", "f.toml:12"]
        );
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let error = Node::parse_toml("f.toml", "a = 1\nb = = 2\n").unwrap_err();
        assert!(error.to_string().starts_with("f.toml:2: not valid TOML: "), "{error}");
    }

    #[test]
    fn an_overlay_merges_tables_and_replaces_the_rest() {
        let mut base = parse("a = 1\nl = [1, 2]\n[t]\nx = 1\ny = 2\n");
        base.overlay(Node::parse_toml("g.toml", "l = [3]\n[t]\ny = 5\n[u]\nz = 1\n").unwrap());
        for (path, at) in [
            ("a", "f.toml:1"),
            ("l", "g.toml:1"),
            ("t.x", "f.toml:4"),
            ("t.y", "g.toml:3"),
            ("u.z", "g.toml:5"),
        ] {
            assert_eq!(line_of(&base, path), at, "{path}");
        }
    }
}
