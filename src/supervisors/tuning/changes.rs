//! What differs between two configurations, and how each difference takes effect on the tree.
//!
//! In: two loaded configurations. Out: one [`Change`] a key. Policies are compared as each node has them in the end, so
//! that a line in `supervision.defaults` shows every node that it reaches, and only those. Pure; nothing can fail.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::super::policies::{self, LANES, PATHS};
use crate::config::effect::Effect;
use crate::config::node::Source;
use crate::config::policy::DEFAULTS;
use crate::config::reference::{self, Reference};
use crate::config::schema::Setting;
use crate::config::tenant::KeyConfig;
use crate::config::{Config, Explained, Loaded};

/// What stands for a value that is not there.
pub const NOTHING: &str = "nothing";
const SECRET: &str = "(secret)";

/// One key that has another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key by its path; an API key by its name, a policy at the place that changed it.
    pub key: String,
    /// Value before, as TOML.
    pub old: String,
    /// Value after, as TOML.
    pub new: String,
    /// What sets it now.
    pub source: Source,
    /// How it takes effect.
    pub effect: Effect,
    /// The nodes whose policy it changes, or that it restarts.
    pub nodes: Vec<String>,
}

/// A change as the admin API tells it.
#[derive(Debug, Clone, Serialize)]
pub struct Told<'a> {
    key: &'a str,
    old: &'a str,
    new: &'a str,
    source: String,
    effect: String,
    nodes: &'a [String],
}

impl Change {
    /// The change for JSON.
    pub fn told(&self) -> Told<'_> {
        let Self { key, old, new, source, effect, nodes } = self;
        Told { key, old, new, source: source.to_string(), effect: effect.to_string(), nodes }
    }

    /// The nodes that have to be restarted for it, in start order.
    pub fn restarts(&self) -> Vec<&str> {
        match self.effect {
            Effect::Live | Effect::Process => Vec::new(),
            Effect::Restarts(nodes) => nodes.to_vec(),
            Effect::RestartsNode => self.nodes.iter().map(String::as_str).collect(),
        }
    }

    /// One line for people: `key  old -> new`, the effect, and where it is set.
    pub fn line(&self) -> String {
        let mut line = format!("{}: {} -> {}   {}", self.key, self.old, self.new, self.effect);
        if self.effect == Effect::RestartsNode {
            write!(line, " ({})", self.nodes.join(", ")).ok();
        }
        line
    }
}

/// Every difference from `old` to `new`: plain keys by path, then API keys, then policies in start order.
pub fn between(old: &Loaded, new: &Loaded) -> Vec<Change> {
    let mut changes = plain(old, new);
    changes.extend(api_keys(old, new));
    changes.extend(policies_of(old, new));
    changes
}

fn effect_of(path: &str) -> Effect {
    reference::find(path).and_then(|doc| doc.effect).unwrap_or(Effect::Process)
}

fn plain(old: &Loaded, new: &Loaded) -> Vec<Change> {
    let elsewhere = |path: &str| {
        path.starts_with("tenant.keys.")
            || path.starts_with("supervision.tree.")
            || path.starts_with(DEFAULTS)
    };
    let mut changes = Vec::new();
    for (path, after) in new.provenance.iter().filter(|(path, _)| !elsewhere(path)) {
        let Some(before) = old.provenance.explain(path).filter(|before| !before.same_value(after)) else {
            continue;
        };
        let effect = effect_of(path);
        let nodes = match effect {
            Effect::Restarts(nodes) => nodes.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        let (old, new) = shown(&before, after);
        changes.push(Change { key: path.to_owned(), old, new, source: after.source.clone(), effect, nodes });
    }
    changes
}

/// Both values; a secret that changed looks the same twice.
fn shown(before: &Explained, after: &Explained) -> (String, String) {
    match before.value == after.value {
        true => (SECRET.to_owned(), format!("another {SECRET}")),
        false => (before.value.clone(), after.value.clone()),
    }
}

/// API keys are told apart by name, so that one taken out of the middle is one change.
fn api_keys(old: &Loaded, new: &Loaded) -> Vec<Change> {
    let by_name = |config: &Config| -> BTreeMap<String, (usize, KeyConfig)> {
        config
            .tenant
            .keys
            .iter()
            .cloned()
            .enumerate()
            .map(|(at, key)| (key.name.clone(), (at, key)))
            .collect()
    };
    let (before, after) = (by_name(&old.config), by_name(&new.config));
    let told = |key: Option<&(usize, KeyConfig)>| match key {
        Some((_, key)) => summary(key),
        None => NOTHING.to_owned(),
    };
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut changes = Vec::new();
    for name in names {
        let (was, is) = (before.get(name), after.get(name));
        if was.map(|(_, key)| key) == is.map(|(_, key)| key) {
            continue;
        }
        let source = is.and_then(|(at, _)| new.provenance.explain(&format!("tenant.keys.{at}.name")));
        changes.push(Change {
            key: format!("tenant.keys {name:?}"),
            old: told(was),
            new: told(is),
            source: source.map_or(Source::Default, |found| found.source),
            effect: effect_of("tenant.keys.0.name"),
            nodes: Vec::new(),
        });
    }
    changes
}

fn summary(key: &KeyConfig) -> String {
    let mut text = [&key.tenant, &key.project, &key.app, &key.env].map(String::as_str).join("/");
    write!(text, " {:?}", key.hash).ok();
    if let Some(days) = key.retention_days {
        write!(text, " {days}d").ok();
    }
    if let Some(expires) = key.expires {
        write!(text, " until {}", crate::config::reader::Leaf::render(&expires)).ok();
    }
    text
}

/// Every policy key of a node as it holds in the end, as TOML.
pub fn node_values(config: &Config, path: &str) -> BTreeMap<String, String> {
    let mut out = Reference::default();
    policies::node(config, path).describe("", &[], &mut out);
    let unset = || String::from("unset");
    out.keys().iter().map(|(key, doc)| (key.clone(), doc.value.clone().unwrap_or_else(unset))).collect()
}

/// The path of a node's policy key in the configuration.
pub fn policy_path(node: &str, key: &str) -> String {
    if node.is_empty() { format!("supervision.tree.{key}") } else { format!("supervision.tree.{node}.{key}") }
}

fn policies_of(old: &Loaded, new: &Loaded) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for node in PATHS {
        let (before, after) = (node_values(&old.config, node), node_values(&new.config, node));
        for (key, value) in after.iter().filter(|(key, value)| before.get(*key) != Some(value)) {
            if key.starts_with("lane.") && !LANES.contains(&node) {
                // It is inherited where there is nothing to bound.
                continue;
            }
            let path = policy_path(node, key);
            let source =
                |of: &Loaded| of.provenance.explain(&path).map_or(Source::Default, |found| found.source);
            let (was, is) = (source(old), source(new));
            if was == Source::Default && is == Source::Default {
                // It follows from a plain key (a number of workers, say), which is told by its own name.
                continue;
            }
            let general = format!("{DEFAULTS}.{key}");
            let by_default = |of: &Loaded, source: &Source| {
                *source != Source::Default
                    && of.provenance.explain(&general).is_some_and(|found| found.source == *source)
            };
            // It came with a line in the defaults, or went with one.
            let shared = by_default(new, &is) || is == Source::Default && by_default(old, &was);
            let told = if shared { general.clone() } else { path };
            let from = before.get(key).cloned().unwrap_or_default();
            let name = if node.is_empty() { "root" } else { node }.to_owned();
            match changes.iter_mut().find(|c| c.key == told && c.old == from && c.new == *value) {
                Some(known) => known.nodes.push(name),
                None => changes.push(Change {
                    effect: effect_of(&told),
                    key: told,
                    old: from,
                    new: value.clone(),
                    source: is,
                    nodes: vec![name],
                }),
            }
        }
    }
    changes
}
