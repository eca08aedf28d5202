//! Reads the merged tree into typed sections: unknown keys and wrong types are collected with their place, not thrown.

use std::collections::BTreeMap;

use super::error::{ConfigError, suggest};
use super::node::{Node, Raw, Source, Table};
use super::policy::{DEFAULTS, OWN_KEYS};

/// A value as it holds, with where it was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The value as TOML; secrets are masked.
    pub value: String,
    /// Where it was set.
    pub source: Source,
    /// Of a secret: what tells it from another one, within this process only.
    secret: u64,
}

impl Explained {
    /// True when both are the same value, wherever it was set.
    pub fn same_value(&self, other: &Self) -> bool {
        self.value == other.value && self.secret == other.secret
    }
}

/// Walks the tree beside the typed sections; knows the path it stands at.
#[derive(Debug, Default)]
pub struct Reader {
    path: Vec<String>,
    errors: Vec<ConfigError>,
    values: BTreeMap<String, Explained>,
    tables: BTreeMap<String, Source>,
    inherit: Option<Inherit>,
}

/// While a partial table is read over inherited values: which path they came from.
#[derive(Debug)]
struct Inherit {
    /// Path parts of the table being read.
    depth: usize,
    /// Path that the values nobody set here come from; its own values have been read before.
    from: String,
}

/// What a walk gave: the problems, and every value by its path.
pub type Findings = (Vec<ConfigError>, BTreeMap<String, Explained>);

impl Reader {
    /// The dotted path of where the reader stands, with `key` behind it.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path.join(".")) }
    }

    /// The dotted path of where the reader stands.
    pub fn here(&self) -> String {
        self.path.join(".")
    }

    /// Runs `read` at a dotted path counted from the root, wherever the reader stands.
    pub fn within_path<T>(&mut self, path: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let new = path.split('.').map(str::to_owned).collect();
        let outer = std::mem::replace(&mut self.path, new);
        let out = read(self);
        self.path = outer;
        out
    }

    /// Runs `read` one level down, at `key`.
    pub fn within<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key.to_owned());
        let out = read(self);
        self.path.pop();
        out
    }

    /// Runs `read` for a partial table here; provenance of what it leaves out is taken from `from`.
    pub fn inheriting<T>(&mut self, from: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.inherit.replace(Inherit { depth: self.path.len(), from: from.to_owned() });
        let out = read(self);
        self.inherit = outer;
        out
    }

    /// The keys of `node`, having refused what is no table and every key that is not in `known`.
    pub fn table<'n>(&mut self, node: Option<&'n Node>, known: &[&str]) -> Option<&'n Table> {
        let node = node?;
        let Some(table) = node.as_table() else {
            let here = self.path.join(".");
            let hint = match &node.source {
                Source::Env(name) => format!(", set its keys one by one ({name}__{})", upper(known.first())),
                Source::Flag(_) => {
                    format!(", set its keys one by one ({here}.{})", known.first().unwrap_or(&""))
                }
                _ => String::new(),
            };
            self.fail(&node.source, format!("{here}: expected a table, found {}{hint}", node.raw));
            return None;
        };
        self.tables.insert(self.path.join("."), node.source.clone());
        for (key, value) in table.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            self.unknown(key, &value.source, known);
        }
        Some(table)
    }

    /// Refuses `key`, naming the known key that was probably meant.
    pub fn unknown(&mut self, key: &str, source: &Source, known: &[&str]) {
        let hint = match suggest(key, known.iter().copied()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("known here: {}", known.join(", ")),
        };
        self.fail(source, format!("unknown key {}, {hint}", self.path_of(key)));
    }

    /// Reports a value of the wrong type or form at the current path.
    pub fn wrong(&mut self, source: &Source, expected: &str, found: &str, why: &str) {
        let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
        self.fail(source, format!("{}: expected {expected}, found {found}{why}", self.path.join(".")));
    }

    /// Remembers a value that somebody set at the current path.
    pub fn note_set(&mut self, value: String, source: &Source) {
        self.values.insert(self.path.join("."), Explained { value, source: source.clone(), secret: 0 });
    }

    /// [`Self::note_set`] of a leaf, with what tells a secret from another one.
    fn note_leaf<T: Leaf>(&mut self, value: &T, source: &Source) {
        let found = Explained { value: value.render(), source: source.clone(), secret: value.fingerprint() };
        self.values.insert(self.path.join("."), found);
    }

    /// Remembers a value that nobody set at the current path: a default, or inherited.
    pub fn note_unset(&mut self, value: String) {
        let inherited = self.inherit.as_ref().and_then(|inherit| {
            let key = self.path[inherit.depth..].join(".");
            let from = if OWN_KEYS.contains(&key.as_str()) { DEFAULTS } else { &inherit.from };
            self.values.get(&format!("{from}.{key}")).map(|v| v.source.clone())
        });
        let source = inherited.unwrap_or(Source::Default);
        self.values.insert(self.path.join("."), Explained { value, source, secret: 0 });
    }

    /// Refuses a combination of values of the current section, at the place that set the first of `keys` that was set,
    /// else where the section was opened. `message` follows the full name of that key.
    pub fn refuse(&mut self, keys: &[&str], message: &str) {
        let mut known =
            keys.iter().filter_map(|key| Some((*key, self.values.get(&self.path_of(key))?.source.clone())));
        let set = known.find(|(_, source)| *source != Source::Default);
        let (key, source) = set.unwrap_or_else(|| {
            let opened = self.tables.get(&self.here()).cloned();
            (keys.first().copied().unwrap_or_default(), opened.unwrap_or(Source::Default))
        });
        self.fail(&source, format!("{} {message}", self.path_of(key)));
    }

    /// Adds a problem. One that inherits the same fault from the same place is not said twice.
    pub fn fail(&mut self, at: &Source, message: String) {
        let said = |error: &ConfigError| {
            self.inherit.is_some() && error.at == *at && tail(&error.message) == tail(&message)
        };
        if !self.errors.iter().any(said) {
            self.errors.push(ConfigError { at: at.clone(), message });
        }
    }

    /// Ends the walk.
    pub fn finish(self) -> Findings {
        (self.errors, self.values)
    }
}

/// A message without the path it begins with.
fn tail(message: &str) -> &str {
    message.split_once(' ').map_or(message, |(_, rest)| rest)
}

fn upper(key: Option<&&str>) -> String {
    key.map_or_else(String::new, |key| key.to_ascii_uppercase())
}

/// A value of one place, read from a file's own type or from the text of an environment variable or flag.
pub trait Leaf: Sized {
    /// What is expected, for messages: `a size such as "64MiB"`.
    const EXPECTED: &'static str;

    /// Secrets are not quoted in messages.
    const SECRET: bool = false;

    /// Reads the value from text.
    ///
    /// # Errors
    /// What is wrong with the text beyond not being what is expected; may be empty.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Reads the value from what a file holds; `text` says that the source only knows text.
    ///
    /// # Errors
    /// As [`Leaf::from_text`].
    fn from_raw(raw: &Raw, _text: bool) -> Result<Self, String> {
        match raw {
            Raw::Text(text) => Self::from_text(text),
            _ => Err(String::new()),
        }
    }

    /// The value as TOML.
    fn render(&self) -> String;

    /// Of a secret, which renders as a mask: a number that is another one for another secret, within this process.
    fn fingerprint(&self) -> u64 {
        0
    }
}

/// Reads a leaf, or reports and keeps the default.
pub fn read_leaf<T: Leaf>(node: Option<&Node>, default: T, at: &mut Reader) -> T {
    let Some(node) = node else {
        at.note_unset(default.render());
        return default;
    };
    match T::from_raw(&node.raw, node.source.is_text()) {
        Ok(value) => {
            at.note_leaf(&value, &node.source);
            value
        }
        Err(why) => {
            at.wrong(&node.source, T::EXPECTED, &quoted::<T>(&node.raw), &why);
            default
        }
    }
}

/// What was found, for messages: secrets, and the credentials of an address, are not shown.
pub fn quoted<T: Leaf>(raw: &Raw) -> String {
    match raw {
        _ if T::SECRET => "something else".to_owned(),
        Raw::Text(text) => match (text.find("://"), text.rfind('@')) {
            (Some(scheme), Some(at)) if scheme + 3 < at => {
                Raw::Text(format!("{}***{}", &text[..scheme + 3], &text[at..])).to_string()
            }
            _ => raw.to_string(),
        },
        raw => raw.to_string(),
    }
}
