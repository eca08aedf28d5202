//! `[supervision]`: partial tables in, one resolved policy for each node of the tree out. Shape is code, policy is config.
//!
//! The nearest table wins: `[supervision.tree.a.b]` > `[supervision.tree.a]` > `[supervision.defaults]` > the code's own
//! default for that node. `[supervision.tree]` itself is the root's table and is not inherited, nor are `replicas` and
//! `max_children`, which speak of one node.

use std::path::PathBuf;
use std::time::Duration;

use super::effect::Effect::{Live, Process};
use super::error::{ConfigError, suggest};
use super::node::{Node, Raw, Source, Table};
use super::policy::{DEFAULTS, NodePolicy};
use super::reader::Reader;
use super::reference::Reference;
use super::schema::{Setting, Validate, config_enum, config_struct};

const TREE: &str = "supervision.tree";

config_enum! {
    /// Whose event loop the threads of a pool run.
    pub enum PoolRuntime {
        /// Each its own.
        Own = "own",
        /// That of the I/O clients.
        Io = "io",
    }
}

config_enum! {
    /// What the process does when the root's budget of restarts is spent.
    pub enum OnRootLimit {
        /// Drain and exit with code 70.
        Exit = "exit",
        /// Stay up, not ready, for inspection.
        Halt = "halt",
    }
}

config_struct! {
    /// The supervision tree's policy.
    pub struct SupervisionConfig {
        /// When the root's budget of restarts is spent: "exit" (code 70, after a drain) or "halt" (stay up, not ready).
        on_root_limit: OnRootLimit = OnRootLimit::Exit => Live,
        /// Longest time from the signal to the end of the process. What has not ended by then is aborted and named.
        shutdown_budget: Duration = Duration::from_secs(45) => Live,
        /// How long /readyz fails before the listeners close, so that a balancer can turn away.
        lame_duck: Duration = Duration::from_secs(5) => Live,
        /// The record of each crash.
        black_box: BlackBoxConfig = BlackBoxConfig::default() => Process,
        /// How blocked threads are found and given up.
        watchdog: WatchdogConfig = WatchdogConfig::default() => Process,
        /// Named pools of threads that actors run on.
        pools: Pools = Pools::default() => Process,
        /// Policy of every node, inherited downwards; the nearest table wins.
        defaults: DefaultPolicy = DefaultPolicy::default() => Live,
        /// One table a node, named by its path in the tree (`obtrace tree` lists them), with any key of
        /// supervision.defaults. [supervision.tree] is the root.
        tree: PolicyTree = PolicyTree::default() => Live,
    }
}

config_struct! {
    /// Where crashes are written down.
    pub struct BlackBoxConfig {
        /// Folder, under the data folder unless absolute.
        dir: PathBuf = PathBuf::from("blackbox"),
        /// Records kept; the oldest go first.
        keep: u32 = 50,
    }
}

config_struct! {
    /// The watchdog: a thread of its own that looks at all threads that actors run on.
    pub struct WatchdogConfig {
        /// How often each thread shows that it still turns.
        beat_every: Duration = Duration::from_millis(500),
        /// A thread that shows nothing for this long, with work on it, is given up: its children start again on another.
        /// A process or a machine that slept is not meant, that is noticed.
        condemn_after: Duration = Duration::from_secs(10),
        /// This many threads given up within `per`, and the root fails (exit code 70).
        max_condemned: u32 = 3,
        /// Length of the sliding window of `max_condemned`.
        per: Duration = Duration::from_secs(3600),
    }
}

config_struct! {
    /// The pools: shape is code, so their names are fixed.
    pub struct Pools {
        /// Listeners: they read requests and write answers.
        edge: PoolConfig = PoolConfig::default(),
        /// Receivers: they decode requests and encode batches.
        ingest: PoolConfig = PoolConfig { threads: 0, ..PoolConfig::default() },
        /// Workers: they turn blocks into rows.
        process: PoolConfig = PoolConfig { threads: 0, ..PoolConfig::default() },
        /// Partition consumers and the log.
        stream: PoolConfig = PoolConfig::default(),
        /// Queries and the API.
        serve: PoolConfig = PoolConfig::default(),
        /// Adapters of the stores.
        store: PoolConfig = PoolConfig::default(),
    }
}

impl Pools {
    /// The pools with their names, in the order in which their threads start.
    pub fn all(&self) -> [(&'static str, &PoolConfig); 6] {
        [
            ("edge", &self.edge),
            ("ingest", &self.ingest),
            ("process", &self.process),
            ("stream", &self.stream),
            ("serve", &self.serve),
            ("store", &self.store),
        ]
    }
}

config_struct! {
    /// A pool.
    pub struct PoolConfig {
        /// Threads. 0 = one for each core.
        threads: u32 = 1,
        /// "own": each thread has an event loop of its own. "io": they share that of the I/O clients, so that what their
        /// actors detach, and their sockets and timers, are driven by its threads; the actors stay on theirs.
        runtime: PoolRuntime = PoolRuntime::Own,
    }
}

/// `[supervision.defaults]`, kept as it was written so that it can be laid over a node's own default.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DefaultPolicy(Option<Node>);

/// `[supervision.tree]` as it was written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PolicyTree(Option<Node>);

impl Setting for DefaultPolicy {
    const TABLE: bool = true;

    fn read(node: Option<&Node>, _default: Self, at: &mut Reader) -> Self {
        // Read for what is wrong in it and for the provenance that the tree inherits.
        NodePolicy::read(node, NodePolicy::default(), at);
        Self(node.cloned())
    }

    fn describe(&self, key: &str, docs: &[&str], out: &mut Reference) {
        NodePolicy::default().describe(key, docs, out);
    }
}

impl Setting for PolicyTree {
    const TABLE: bool = true;

    fn read(node: Option<&Node>, default: Self, at: &mut Reader) -> Self {
        match node {
            Some(node) if node.as_table().is_none() => {
                at.wrong(&node.source, "a table", &node.raw.to_string(), "");
                default
            }
            node => Self(node.cloned()),
        }
    }

    fn describe(&self, _key: &str, docs: &[&str], out: &mut Reference) {
        let example = "[supervision.tree]\nstrategy = \"rest_for_one\"\nintensity = 3\n\n\
            [supervision.tree.store.telemetry]\nlane = { capacity = 64, bytes = \"256MiB\" }\nstop = { drain = \"20s\" }";
        out.example(docs, example);
    }
}

impl Validate for SupervisionConfig {
    fn validate(&self, at: &mut Reader) {
        if self.shutdown_budget <= self.lame_duck {
            at.refuse(
                &["shutdown_budget", "lame_duck"],
                "does not fit: shutdown_budget must be above lame_duck",
            );
        }
        let base = self.over_defaults(NodePolicy::default(), &mut Reader::default());
        at.within("tree", |at| self.check_node(self.tree.0.as_ref(), None, &base, at));
    }
}

impl Validate for BlackBoxConfig {
    fn validate(&self, at: &mut Reader) {
        if self.keep == 0 {
            at.refuse(&["keep"], "must be at least 1");
        }
    }
}

impl Validate for WatchdogConfig {
    fn validate(&self, at: &mut Reader) {
        if self.beat_every < Duration::from_millis(10) {
            at.refuse(&["beat_every"], "must be at least 10ms");
        }
        if self.condemn_after < self.beat_every * 4 {
            at.refuse(
                &["condemn_after", "beat_every"],
                "does not fit: condemn_after must be at least four times beat_every",
            );
        }
        if self.max_condemned == 0 {
            at.refuse(&["max_condemned"], "must be at least 1");
        }
    }
}

impl Validate for Pools {}

impl Validate for PoolConfig {
    fn validate(&self, at: &mut Reader) {
        if self.threads > 256 {
            at.refuse(&["threads"], "must be at most 256");
        }
    }
}

impl SupervisionConfig {
    /// The policy of the node at `path` (`store.telemetry`; `root` or nothing for the root), over the general default.
    pub fn node(&self, path: &str) -> NodePolicy {
        self.node_over(path, NodePolicy::default())
    }

    /// The policy of the node at `path` over the code's own default for it: only keys that somebody set change it.
    pub fn node_over(&self, path: &str, code: NodePolicy) -> NodePolicy {
        self.resolve(path, code, &mut Reader::default())
    }

    /// Checks the tables against the tree's real shape: `known` has every path below the root.
    pub fn check_paths(&self, known: &[&str]) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if let Some(table) = self.tree.0.as_ref().and_then(Node::as_table) {
            unknown_paths("", table, known, &mut errors);
        }
        errors
    }

    /// [`Self::check_paths`], and each node's own default checked together with what the files make of it.
    pub fn check_nodes(&self, known: &[(&str, NodePolicy)]) -> Vec<ConfigError> {
        let paths: Vec<&str> = known.iter().map(|(path, _)| *path).collect();
        let mut errors = self.check_paths(&paths);
        for (path, code) in known {
            let mut at = Reader::default();
            self.resolve(path, code.clone(), &mut at);
            for error in at.finish().0 {
                // A fault in a table that several nodes inherit is said once.
                if !errors.contains(&error) {
                    errors.push(error);
                }
            }
        }
        errors
    }

    fn over_defaults(&self, code: NodePolicy, at: &mut Reader) -> NodePolicy {
        at.within_path(DEFAULTS, |at| NodePolicy::read(self.defaults.0.as_ref(), code, at))
    }

    fn resolve(&self, path: &str, code: NodePolicy, at: &mut Reader) -> NodePolicy {
        let base = self.over_defaults(code, at);
        let names = tree_names(path);
        let Some(root) = &self.tree.0 else { return base };
        if names.is_empty() {
            return at.within_path(TREE, |at| inherit(root, DEFAULTS, base, at));
        }
        let (mut node, mut policy, mut from, mut here) =
            (root, base.clone(), DEFAULTS.to_owned(), TREE.to_owned());
        for name in names {
            let Some(next) = node.as_table().and_then(|table| table.get(name)) else {
                return own_counts(policy, &base);
            };
            here = format!("{here}.{name}");
            policy = at.within_path(&here, |at| inherit(next, &from, own_counts(policy, &base), at));
            (node, from) = (next, here.clone());
        }
        policy
    }

    /// Reads every table of the tree once, for what is wrong in it and for provenance.
    fn check_node(&self, node: Option<&Node>, from: Option<&str>, inherited: &NodePolicy, at: &mut Reader) {
        let Some(table) = node.and_then(Node::as_table) else { return };
        let Some(node) = node else { return };
        let policy = inherit(node, from.unwrap_or(DEFAULTS), inherited.clone(), at);
        // The root's own table is not inherited: its children start from the defaults again.
        let (below, path) = match from {
            None => (inherited.clone(), DEFAULTS.to_owned()),
            Some(_) => (own_counts(policy, inherited), at.here()),
        };
        for (name, child) in children(table) {
            at.within(name, |at| self.check_node(Some(child), Some(&path), &below, at));
        }
    }
}

/// Reads the policy keys of a node's table over what it inherits from the table at `from`.
fn inherit(node: &Node, from: &str, inherited: NodePolicy, at: &mut Reader) -> NodePolicy {
    let own = own_part(node);
    at.inheriting(from, |at| NodePolicy::read(Some(&own), inherited, at))
}

fn own_counts(policy: NodePolicy, base: &NodePolicy) -> NodePolicy {
    NodePolicy { replicas: base.replicas, max_children: base.max_children, ..policy }
}

/// The table without its child tables. A plain value with an unknown name stays, to be refused as an unknown key.
fn own_part(node: &Node) -> Node {
    let Some(table) = node.as_table() else { return node.clone() };
    let own = table.iter().filter(|(key, value)| !is_child(key, value));
    Node {
        raw: Raw::Table(own.map(|(key, value)| (key.clone(), value.clone())).collect()),
        source: node.source.clone(),
    }
}

fn is_child(key: &str, value: &Node) -> bool {
    value.as_table().is_some() && !NodePolicy::KEYS.contains(&key)
}

fn children(table: &Table) -> impl Iterator<Item = (&String, &Node)> {
    table.iter().filter(|(key, value)| is_child(key, value))
}

fn unknown_paths(prefix: &str, table: &Table, known: &[&str], errors: &mut Vec<ConfigError>) {
    for (name, child) in children(table) {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let is_node =
            known.iter().any(|k| *k == path || k.strip_prefix(&path).is_some_and(|r| r.starts_with('.')));
        if is_node {
            unknown_paths(&path, child.as_table().unwrap_or(&Table::new()), known, errors);
        } else {
            errors.push(unknown_path(&path, name, &child.source, known));
        }
    }
}

fn unknown_path(path: &str, name: &str, at: &Source, known: &[&str]) -> ConfigError {
    // Either a node's path, or a section of a policy (`lane`) with a slip in its name.
    let sections = NodePolicy::KEYS.iter().copied();
    let hint = match (suggest(path, known.iter().copied()), suggest(name, sections)) {
        (Some(meant), _) => format!("did you mean {TREE}.{meant}?"),
        (None, Some(meant)) => format!("did you mean {meant}?"),
        (None, None) => "`obtrace tree` lists the nodes".to_owned(),
    };
    ConfigError { at: at.clone(), message: format!("{TREE}.{path} is no node of the tree, {hint}") }
}

/// The names of a tree path; the root has none.
pub(super) fn tree_names(path: &str) -> Vec<&str> {
    let path = path.strip_prefix("root").map_or(path, |rest| match rest.strip_prefix('.') {
        Some(below) => below,
        None if rest.is_empty() => "",
        None => path,
    });
    path.split('.').filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::policy::{OnLimit, Strategy};
    use crate::config::{Config, Flag, LoadArgs};

    fn read(text: &str) -> (SupervisionConfig, Vec<String>) {
        let node = Node::parse_toml("f.toml", text).unwrap();
        let mut at = Reader::default();
        let config = Config::read(Some(&node), Config::default(), &mut at);
        (config.supervision, at.finish().0.iter().map(ToString::to_string).collect())
    }

    fn good(text: &str) -> SupervisionConfig {
        let (config, errors) = read(text);
        assert_eq!(errors, Vec::<String>::new());
        config
    }

    #[test]
    fn the_nearest_table_wins() {
        let config = good(
            "[supervision.defaults]\nintensity = 7\nlane = { capacity = 10 }\n\
             [supervision.tree]\nstrategy = \"rest_for_one\"\nintensity = 3\n\
             [supervision.tree.store]\nreplicas = 4\nlane = { bytes = \"1MiB\" }\n\
             [supervision.tree.store.telemetry]\nlane = { capacity = 20 }\n",
        );
        let root = config.node("root");
        assert_eq!((root.strategy, root.intensity, root.lane.capacity), (Strategy::RestForOne, 3, 10));
        let store = config.node("store");
        assert_eq!((store.strategy, store.intensity, store.replicas), (Strategy::OneForOne, 7, 4));
        let telemetry = config.node("root.store.telemetry");
        assert_eq!((telemetry.lane.capacity, telemetry.lane.bytes.as_u64()), (20, 1 << 20));
        assert_eq!(telemetry.replicas, 1, "replicas speak of one node");
        let below = config.node("store.telemetry.writer");
        assert_eq!(below.lane, telemetry.lane, "a node without a table has its parent's");
        assert_eq!(config.node("serve").lane.capacity, 10);
    }

    #[test]
    fn only_what_somebody_set_changes_a_nodes_own_default() {
        let config =
            good("[supervision.defaults]\nintensity = 7\n[supervision.tree.a]\non_limit = \"escalate\"\n");
        let code = NodePolicy { on_limit: OnLimit::Quarantine, max_children: 9, ..NodePolicy::default() };
        let other = config.node_over("b", code.clone());
        assert_eq!((other.on_limit, other.max_children, other.intensity), (OnLimit::Quarantine, 9, 7));
        let a = config.node_over("a", code);
        assert_eq!((a.on_limit, a.max_children, a.intensity), (OnLimit::Escalate, 9, 7));
    }

    #[test]
    fn wrong_policies_are_refused_at_their_line() {
        let cases = [
            (
                "[supervision.defaults]\nbackoff = { min = \"9s\", max = \"1s\" }",
                "f.toml:2: supervision.defaults.backoff.min does not fit",
            ),
            (
                "[supervision.tree.a.backoff]\njitter = 1.5",
                "f.toml:2: supervision.tree.a.backoff.jitter must be from 0.0",
            ),
            (
                "[supervision.tree.a]\nlane = { capacity = 0 }",
                "f.toml:2: supervision.tree.a.lane.capacity must be at least 1",
            ),
            (
                "[supervision.tree.a]\nintensty = 1",
                "f.toml:2: unknown key supervision.tree.a.intensty, did you mean intensity?",
            ),
            (
                "[supervision.tree.a]\nlane = { capcity = 1 }",
                "f.toml:2: unknown key supervision.tree.a.lane.capcity, did you mean capacity?",
            ),
            ("[supervision.tree.a]\nstrategy = \"one_for_al\"", "(did you mean \"one_for_all\"?)"),
            (
                "[supervision.tree.a]\npool = \"ingst\"",
                "supervision.tree.a.pool names no pool: \"ingst\", did you mean ingest?",
            ),
            (
                "[supervision.tree.a]\nbackoff = { min = \"2m\" }",
                "f.toml:2: supervision.tree.a.backoff.min does not fit",
            ),
            (
                "[supervision.pools]\ningst = { threads = 1 }",
                "f.toml:2: unknown key supervision.pools.ingst, did you mean ingest?",
            ),
            (
                "[supervision.watchdog]\ncondemn_after = \"1s\"",
                "f.toml:2: supervision.watchdog.condemn_after does not fit",
            ),
            ("[supervision]\nlame_duck = \"50s\"", "f.toml:2: supervision.lame_duck does not fit"),
            ("[supervision]\ntree = 5", "f.toml:2: supervision.tree: expected a table, found the number 5"),
        ];
        for (text, expected) in cases {
            let (_, errors) = read(text);
            assert!(errors.len() == 1 && errors[0].contains(expected), "{text}\n{errors:?}");
        }
    }

    #[test]
    fn an_inherited_fault_is_said_once() {
        let (_, errors) = read(
            "[supervision.defaults.lane]\ncapacity = 0\n[supervision.tree.a]\nintensity = 1\n[supervision.tree.a.b]\nintensity = 2\n",
        );
        assert_eq!(errors, ["f.toml:2: supervision.defaults.lane.capacity must be at least 1"]);
    }

    #[test]
    fn a_node_that_is_not_in_the_tree_is_refused_with_a_suggestion() {
        let config = good(
            "[supervision.tree.store.telemtry]\nintensity = 1\n[supervision.tree.store.leen]\nintensity = 1\n[supervision.tree.stream_in]\nintensity = 1\n",
        );
        let known = ["store", "store.telemetry", "stream_in.consumers"];
        let errors: Vec<_> = config.check_paths(&known).iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(
            errors[0].starts_with("f.toml:3: supervision.tree.store.leen is no node of the tree"),
            "{}",
            errors[0]
        );
        assert_eq!(
            errors[1],
            "f.toml:1: supervision.tree.store.telemtry is no node of the tree, did you mean supervision.tree.store.telemetry?"
        );
    }

    #[test]
    fn a_nodes_own_default_is_checked_with_what_the_file_makes_of_it() {
        let config = good("[supervision.tree.a.backoff]\nmax = \"500ms\"\n");
        let mut code = NodePolicy::default();
        code.backoff.min = Duration::from_secs(1);
        let errors: Vec<_> = config.check_nodes(&[("a", code)]).iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with("f.toml:2: supervision.tree.a.backoff.max does not fit"), "{errors:?}");
    }

    #[test]
    fn the_environment_reaches_every_node() {
        let env = vec![(
            "OBTRACE__SUPERVISION__TREE__STORE__TELEMETRY__LANE__CAPACITY".to_owned(),
            "12".to_owned(),
        )];
        let flags = vec![Flag::new("--set", "supervision.tree.store.intensity", "2")];
        let loaded = Config::load(&LoadArgs { env, flags, ..LoadArgs::default() }).unwrap();
        let policy = loaded.config.supervision.node("store.telemetry");
        assert_eq!((policy.lane.capacity, policy.intensity), (12, 2));
    }
}
