//! Answers where a value comes from: every path of a loaded configuration with its value and its source.

use std::collections::BTreeMap;
use std::fmt;

use super::effect::Effect;
use super::error::suggest;
use super::policy::{DEFAULTS, OWN_KEYS};
use super::reader::Explained;

const TREE: &str = "supervision.tree.";

/// Every value of a configuration by its dotted path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance(BTreeMap<String, Explained>);

impl Provenance {
    pub(super) fn new(values: BTreeMap<String, Explained>) -> Self {
        Self(values)
    }

    /// The value at `path` and its source. A node of the tree without a table of its own has what it inherits.
    pub fn explain(&self, path: &str) -> Option<Explained> {
        self.0.get(path).or_else(|| self.inherited(path)).cloned()
    }

    /// These sources, but those of `running` for what only a new process can take up.
    #[must_use]
    pub fn pin(mut self, running: &Self) -> Self {
        let waits =
            |path: &str| super::reference::find(path).and_then(|doc| doc.effect) == Some(Effect::Process);
        for (path, old) in running.0.iter().filter(|(path, _)| waits(path)) {
            self.0.insert(path.clone(), old.clone());
        }
        self
    }

    /// All values by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Explained)> {
        self.0.iter().map(|(path, value)| (path.as_str(), value))
    }

    /// The path that was probably meant where [`Provenance::explain`] knows none.
    pub fn suggest(&self, path: &str) -> Option<&str> {
        suggest(path, self.0.keys().map(String::as_str))
    }

    fn inherited(&self, path: &str) -> Option<&Explained> {
        let parts: Vec<&str> = path.strip_prefix(TREE)?.split('.').collect();
        // The key is the last part or the last two (`lane.capacity`); what stands before is the node.
        (1..=2.min(parts.len())).rev().find_map(|key_parts| {
            let (node, key) = parts.split_at(parts.len() - key_parts);
            let key = key.join(".");
            let fallback = self.0.get(&format!("{DEFAULTS}.{key}"))?;
            let own = OWN_KEYS.contains(&key.as_str());
            let ancestors = (1..=node.len()).rev().filter(|_| !own);
            let mut tables = ancestors.map(|n| format!("{TREE}{}.{key}", node[..n].join(".")));
            Some(tables.find_map(|table| self.0.get(&table)).unwrap_or(fallback))
        })
    }
}

impl fmt::Display for Provenance {
    /// One line a value: `path = value   # source`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|(path, found)| writeln!(f, "{path} = {}   # {}", found.value, found.source))
    }
}
