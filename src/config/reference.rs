//! The manual of every key: the types go in, the text of `config/reference.toml` comes out. A test holds the file to it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::Config;
use super::effect::Effect;
use super::error::suggest;
use super::policy::DEFAULTS;
use super::schema::Setting;

/// What the manual says of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDoc {
    /// What it is for.
    pub text: String,
    /// Its value where it was described: the default, as TOML; `None` for one that is not set unless somebody sets it.
    pub value: Option<String>,
    /// How a change takes effect; `None` where neither the key nor a section around it says so, which a test refuses.
    pub effect: Option<Effect>,
}

/// Collects the manual while the sections describe themselves.
#[derive(Debug, Default)]
pub struct Reference {
    text: String,
    path: Vec<String>,
    effect: Option<Effect>,
    keys: BTreeMap<String, KeyDoc>,
}

const HEADER: &str = "\
# Every key of Obtrace with its meaning and its default. Generated from the types: `OBTRACE_BLESS=1 cargo test --test config`.
#
# A file needs only what differs from here. A value is looked up in this order, the first one holds:
#   1. flag                   --http 127.0.0.1:9090, or for any key  --set serve.http=127.0.0.1:9090
#   2. environment            OBTRACE__SERVE__HTTP=127.0.0.1:9090 (levels parted by two underscores; lists as a,b)
#   3. files                  --config F; the later file holds against the earlier
#   4. profile                what `obtrace dev` brings along (config/profiles/dev.toml)
#   5. the default            written here
# WIRE_FORMAT, OBTRACE_DATA_DIR and OBTRACE_ENGINE_LIBRARY stand for ingest.wire_format, data_dir and
# telemetry.engine.library, OBTRACE_LOG for log.
#
# Behind each key stands what a change needs to take effect, once a reload (SIGHUP, or POST /admin/config/reload) read it:
#   live                      nothing more
#   restarts NODE             that node of the supervision tree is restarted (`the node` is the one whose policy it is)
#   restarts the process      that Obtrace is started anew; until then it is pending
# `obtrace config check | explain KEY | diff OLD NEW | lint` tell what holds, who set it, and what would change.
";

impl Reference {
    /// A plain key with its default.
    pub fn key(&mut self, key: &str, docs: &[&str], default: &str) {
        self.docs(docs);
        let effect = self.effect_note();
        self.text.push_str(&format!("{key} = {default}{effect}\n"));
        self.note(key, docs, Some(default));
    }

    /// A key that is not set unless somebody sets it.
    pub fn unset(&mut self, key: &str, docs: &[&str], expected: &str) {
        self.docs(docs);
        let effect = self.effect.map_or_else(String::new, |effect| format!("; {effect}"));
        self.text.push_str(&format!("# {key} =   # not set; {expected}{effect}\n"));
        self.note(key, docs, None);
    }

    /// A section: its header, then what `body` writes.
    pub fn table(&mut self, key: &str, docs: &[&str], body: impl FnOnce(&mut Self)) {
        if key.is_empty() {
            return body(self);
        }
        self.path.push(key.to_owned());
        self.text.push('\n');
        self.docs(docs);
        self.text.push_str(&format!("[{}]\n", self.path.join(".")));
        body(self);
        self.path.pop();
    }

    /// What `body` describes takes effect as the first of `own` says, if there is one.
    pub fn effective(&mut self, own: &[Effect], body: impl FnOnce(&mut Self)) {
        let outer = self.effect;
        self.effect = own.first().copied().or(outer);
        body(self);
        self.effect = outer;
    }

    /// Takes over the keys of `other`, which describes each table of the list `key`.
    pub fn list_of(&mut self, key: &str, other: &Self) {
        let list =
            if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path.join(".")) };
        for (name, doc) in &other.keys {
            let effect = doc.effect.or(self.effect);
            self.keys.insert(format!("{list}.*.{name}"), KeyDoc { effect, ..doc.clone() });
        }
    }

    /// Every key described so far.
    pub fn keys(&self) -> &BTreeMap<String, KeyDoc> {
        &self.keys
    }

    /// Lines that are comments as a whole: an example of a table that has no default.
    pub fn example(&mut self, docs: &[&str], lines: &str) {
        self.text.push('\n');
        self.docs(docs);
        for line in lines.lines() {
            self.text.push_str(format!("# {line}").trim_end());
            self.text.push('\n');
        }
    }

    /// What has been written so far, by line.
    pub fn lines(&self) -> std::str::Lines<'_> {
        self.text.lines()
    }

    fn effect_note(&self) -> String {
        self.effect.map_or_else(String::new, |effect| format!("  # {effect}"))
    }

    fn note(&mut self, key: &str, docs: &[&str], value: Option<&str>) {
        let path =
            if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path.join(".")) };
        let text = docs.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
        self.keys.insert(path, KeyDoc { text, value: value.map(str::to_owned), effect: self.effect });
    }

    fn docs(&mut self, docs: &[&str]) {
        for line in docs {
            self.text.push_str(format!("#{line}").trim_end());
            self.text.push('\n');
        }
    }
}

/// The text of `config/reference.toml`.
pub fn render() -> String {
    format!("{HEADER}\n{}", described().text)
}

fn described() -> Reference {
    let mut out = Reference::default();
    Config::default().describe("", &[], &mut out);
    out
}

/// The manual of every key by its path; `*` stands for the number of a table in a list.
pub fn manual() -> &'static BTreeMap<String, KeyDoc> {
    static MANUAL: LazyLock<BTreeMap<String, KeyDoc>> = LazyLock::new(|| described().keys);
    &MANUAL
}

/// What the manual says of the key at `path`; for a node's policy, what it says of that key of every node.
pub fn find(path: &str) -> Option<&'static KeyDoc> {
    let numberless = |part: &str| {
        part.bytes().all(|b| b.is_ascii_digit()).then_some("*").map_or(part.to_owned(), str::to_owned)
    };
    let plain = path.split('.').map(numberless).collect::<Vec<_>>().join(".");
    manual()
        .get(&plain)
        .or_else(|| split_node(path).and_then(|(_, key)| manual().get(&format!("{DEFAULTS}.{key}"))))
}

/// The node and the key of a path below `supervision.tree`; the root's node is empty.
pub fn split_node(path: &str) -> Option<(&str, &str)> {
    let below = path.strip_prefix("supervision.tree.")?;
    let is_key = |key: &str| manual().contains_key(&format!("{DEFAULTS}.{key}"));
    let starts = std::iter::once(0).chain(below.match_indices('.').map(|(at, _)| at + 1));
    starts.map(|at| (below[..at].trim_end_matches('.'), &below[at..])).find(|(_, key)| is_key(key))
}

/// The key that was probably meant by `path`.
pub fn suggest_key(path: &str) -> Option<&'static str> {
    suggest(path, manual().keys().map(String::as_str))
}
