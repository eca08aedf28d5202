//! `obtrace config check | explain | diff | lint`: what a configuration holds, who set it, what would change, and whether
//! its numbers fit together. Exit codes: 0, 1 (a `FAIL`, a difference, an unknown key), 78 (it cannot be read).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::remote::Remote;
use super::{ServeArgs, load_args};
use crate::boot;
use crate::config::node::Source;
use crate::config::policy::{DEFAULTS, OWN_KEYS};
use crate::config::{LoadArgs, Loaded, reference};
use crate::supervisors::policies::PATHS;
use crate::supervisors::tuning;
use crate::supervisors::tuning::changes::{self, Change, node_values};
use crate::supervisors::tuning::lint::{self, Verdict};
use crate::supervisors::tuning::machine::Machine;

mod running;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Checks files, environment and flags
    Check {
        #[command(flatten)]
        layers: Layers,
        /// Files to check, like --config
        #[arg(value_name = "FILE")]
        more: Vec<PathBuf>,
        /// Print every value with the place that set it
        #[arg(long)]
        all: bool,
    },
    /// Everything about one key: value, default, who set it, what it inherits, what a change needs
    Explain {
        /// The key, such as process.linger or supervision.tree.store.writer.lane.bytes; a section lists its keys
        #[arg(value_name = "KEY")]
        key: String,
        #[command(flatten)]
        layers: Layers,
    },
    /// What changes from one file to another, or from what runs (--api) to a file, and what each change needs
    Diff {
        /// OLD and NEW, or one file that would take the place of the running process's files
        #[arg(value_name = "FILE", num_args = 1..=2, required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Whether the numbers fit together: restarts, stop times, memory, threads, waits
    Lint {
        #[command(flatten)]
        layers: Layers,
        /// Files to look at, like --config
        #[arg(value_name = "FILE")]
        more: Vec<PathBuf>,
    },
}

/// The layers of the configuration that is looked at.
#[derive(Debug, Clone, Args)]
pub(super) struct Layers {
    #[command(flatten)]
    serve: ServeArgs,
    /// A built-in profile below the files; `obtrace dev` has "dev"
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
}

impl Layers {
    fn load(&self, more: &[PathBuf]) -> Result<(LoadArgs, Loaded), String> {
        let mut args = load_args(&self.serve, self.profile.as_deref())?;
        args.files.extend(more.iter().cloned());
        let loaded = tuning::load(&args).map_err(|errors| errors.to_string())?;
        Ok((args, loaded))
    }
}

/// What a command prints, and how it ends.
type Outcome = Result<(String, ExitCode), String>;

pub(super) fn run(command: &ConfigCommand) -> ExitCode {
    let outcome = match command {
        ConfigCommand::Check { layers, more, all } => check(layers, more, *all),
        ConfigCommand::Explain { key, layers } => explain(key, layers),
        ConfigCommand::Diff { files, remote } => diff(files, remote),
        ConfigCommand::Lint { layers, more } => lint(layers, more),
    };
    match outcome {
        Ok((text, code)) => {
            print!("{text}");
            code
        }
        Err(text) => {
            eprintln!("{text}");
            ExitCode::from(boot::EXIT_CONFIG)
        }
    }
}

fn check(layers: &Layers, more: &[PathBuf], all: bool) -> Outcome {
    let (_, loaded) = layers.load(more)?;
    let mut text = String::new();
    if all {
        write!(text, "{}", loaded.provenance).ok();
    }
    let mut set: BTreeMap<String, usize> = BTreeMap::new();
    let mut keys = 0;
    for (_, value) in loaded.provenance.iter() {
        keys += 1;
        if let Some(by) = layer(&value.source) {
            *set.entry(by).or_default() += 1;
        }
    }
    let total: usize = set.values().sum();
    let by = set.iter().map(|(by, n)| format!("{by} ({n})")).collect::<Vec<_>>().join(", ");
    let by = if by.is_empty() { "all at their defaults".to_owned() } else { by };
    writeln!(text, "ok   {keys} keys, {total} set   {by}").ok();
    Ok((text, ExitCode::SUCCESS))
}

/// The layer that a source belongs to; none for a default.
fn layer(source: &Source) -> Option<String> {
    match source {
        Source::Default => None,
        Source::File { file, .. } => Some(file.to_string()),
        Source::Env(_) => Some("environment".into()),
        Source::Flag(_) => Some("flags".into()),
    }
}

fn explain(key: &str, layers: &Layers) -> Outcome {
    let (_, loaded) = layers.load(&[])?;
    let text = if let Some(text) = explain_node_key(key, &loaded) {
        text
    } else if let (Some(found), Some(doc)) = (loaded.explain(key), reference::find(key)) {
        let default = doc.value.clone().unwrap_or_else(|| "unset".into());
        let rows = [
            ("value", found.value.clone(), found.source.to_string()),
            ("default", default, String::new()),
            ("a change", doc.effect.map_or_else(String::new, |effect| effect.to_string()), String::new()),
        ];
        format!("{key} = {}\n\n{}\n{}", found.value, wrapped(&doc.text), table(&rows))
    } else if let Some(text) = section(key, &loaded) {
        text
    } else {
        let hint = reference::suggest_key(key).map_or_else(
            || "`obtrace config check --all` lists all".to_owned(),
            |meant| format!("did you mean {meant}?"),
        );
        eprintln!("there is no key {key}, {hint}");
        return Ok((String::new(), ExitCode::FAILURE));
    };
    Ok((text, ExitCode::SUCCESS))
}

/// A policy key of one node: with the tables that it may come from, nearest first.
fn explain_node_key(path: &str, loaded: &Loaded) -> Option<String> {
    let (node, key) = reference::split_node(path).or_else(|| {
        // The root's own table has no node in its path.
        path.strip_prefix("supervision.tree.")
            .filter(|key| reference::find(&format!("{DEFAULTS}.{key}")).is_some())
            .map(|key| ("", key))
    })?;
    let node = PATHS.into_iter().find(|known| *known == node)?;
    let doc = reference::find(&format!("{DEFAULTS}.{key}"))?;
    let value = node_values(&loaded.config, node).remove(key)?;
    let built_in = node_values(&crate::config::Config::default(), node).remove(key).unwrap_or_default();
    let found = loaded.explain(path)?;
    let name = if node.is_empty() { "root" } else { node };
    let set_by =
        if found.source == Source::Default { "built in".to_owned() } else { found.source.to_string() };
    let rows = [
        ("value", value.clone(), set_by),
        ("default", built_in.clone(), format!("built in for {name}")),
        ("a change", doc.effect.map_or_else(String::new, |effect| effect.to_string()), String::new()),
    ];
    let mut text = format!("{path} = {value}\n\n{}\n{}", wrapped(&doc.text), table(&rows));
    text.push_str("\n  comes from the first of these that sets it\n");
    let mut first = true;
    for table in tables_of(node, key) {
        let own = own_value(loaded, &table, key);
        let mark = if own.is_some() && first { '>' } else { ' ' };
        first &= own.is_none();
        let (value, source) = own.unwrap_or_else(|| ("-".into(), String::new()));
        text.push_str(format!("  {mark} {table:<36} {value:<14} {source}").trim_end());
        text.push('\n');
    }
    let mark = if first { '>' } else { ' ' };
    writeln!(text, "  {mark} {:<36} {built_in}", format!("built in for {name}")).ok();
    Some(text)
}

/// The tables that a key of a node is looked up in, nearest first.
fn tables_of(node: &str, key: &str) -> Vec<String> {
    let names: Vec<&str> = node.split('.').filter(|name| !name.is_empty()).collect();
    let own =
        if names.is_empty() { "supervision.tree".to_owned() } else { format!("supervision.tree.{node}") };
    let above = (1..names.len()).rev().map(|n| format!("supervision.tree.{}", names[..n].join(".")));
    let mut tables = vec![own];
    if !OWN_KEYS.contains(&key) {
        tables.extend(above);
    }
    tables.push(DEFAULTS.to_owned());
    tables
}

/// The value that `table` itself sets. A table that is read knows all its keys, those that it inherits by the place that
/// set them above.
fn own_value(loaded: &Loaded, table: &str, key: &str) -> Option<(String, String)> {
    let found = loaded.explain(&format!("{table}.{key}"))?;
    if found.source == Source::Default {
        return None;
    }
    let above = match table.strip_prefix("supervision.tree.").map(|node| node.rsplit_once('.')) {
        Some(Some((parent, _))) if !OWN_KEYS.contains(&key) => format!("supervision.tree.{parent}.{key}"),
        _ if table == DEFAULTS => return Some((found.value, found.source.to_string())),
        _ => format!("{DEFAULTS}.{key}"),
    };
    let inherited = loaded.explain(&above).is_some_and(|above| above.source == found.source);
    (!inherited).then(|| (found.value, found.source.to_string()))
}

/// The keys of a section, or of a node of the tree.
fn section(path: &str, loaded: &Loaded) -> Option<String> {
    let mut rows: Vec<(String, String, String)> = Vec::new();
    let node = path.strip_prefix("supervision.tree").map(|node| node.trim_start_matches('.'));
    if let Some(node) = node.and_then(|node| PATHS.into_iter().find(|known| *known == node)) {
        for (key, value) in node_values(&loaded.config, node) {
            let source = loaded.explain(&changes::policy_path(node, &key)).map(|found| found.source);
            let source = source.filter(|source| *source != Source::Default);
            rows.push((
                key,
                value,
                source.map_or_else(|| "built in".to_owned(), |source| source.to_string()),
            ));
        }
    } else {
        let below = |key: &&str| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        for key in reference::manual().keys().map(String::as_str).filter(below) {
            if let Some(found) = loaded.explain(key) {
                rows.push((key[path.len() + 1..].to_owned(), found.value, found.source.to_string()));
            }
        }
    }
    let wide = |of: fn(&(String, String, String)) -> &str| {
        rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0)
    };
    let (keys, values) = (wide(|row| &row.0), wide(|row| &row.1).min(40));
    let mut text = format!("[{path}]\n");
    for (key, value, source) in &rows {
        writeln!(text, "  {key:<keys$}  {value:<values$}  {source}").ok();
    }
    (!rows.is_empty()).then_some(text)
}

fn diff(files: &[PathBuf], remote: &Remote) -> Outcome {
    let load = |files: &[PathBuf], texts: Vec<(String, String)>| {
        let args = LoadArgs { files: files.to_vec(), texts, ..LoadArgs::default() };
        tuning::load(&args).map_err(|errors| errors.to_string())
    };
    let changes = match files {
        [old, new] => changes::between(
            &load(std::slice::from_ref(old), Vec::new())?,
            &load(std::slice::from_ref(new), Vec::new())?,
        ),
        new => {
            let running =
                boot::run_client(remote.get("/admin/config")).map_err(|error| error.to_string())??;
            let part =
                |name: &str, of: fn(&str) -> bool| (name.to_owned(), running::toml(&running["values"], of));
            let before = load(&[], vec![part("running", |_| true)])?;
            // A file stands above a profile and below environment and flags, which the process keeps.
            let profile = running["profile"].as_str().map(str::to_owned);
            let texts = vec![part("running", running::stands_above_files)];
            let args = LoadArgs { profile, files: new.to_vec(), texts, ..LoadArgs::default() };
            let after = tuning::load(&args).map_err(|errors| errors.to_string())?;
            let mut changes = changes::between(&before, &after);
            changes.retain(|change| !running::is_secret(&change.key));
            changes
        }
    };
    let code = if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    Ok((told(&changes), code))
}

/// Changes for people: one line each, then what they come to.
fn told(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "no difference\n".into();
    }
    let wide =
        |of: fn(&Change) -> String| changes.iter().map(|c| of(c).chars().count()).max().unwrap_or(0).min(48);
    let value = |c: &Change| format!("{} -> {}", c.old, c.new);
    let (keys, values) = (wide(|c| c.key.clone()), wide(value));
    let mut text = String::new();
    for change in changes {
        let nodes = match change.nodes.len() {
            0 => String::new(),
            1..=4 => format!("  ({})", change.nodes.join(", ")),
            n => format!("  ({n} nodes)"),
        };
        let reaches = if change.key.starts_with(DEFAULTS)
            || change.effect == crate::config::effect::Effect::RestartsNode
        {
            nodes
        } else {
            String::new()
        };
        let row = format!("{:<keys$}  {:<values$}  {}{reaches}", change.key, value(change), change.effect);
        writeln!(text, "{:<width$}  {}", row, change.source, width = keys + values + 26).ok();
    }
    let mut restarts: Vec<&str> =
        PATHS.into_iter().filter(|path| changes.iter().any(|c| c.restarts().contains(path))).collect();
    restarts.dedup();
    let live = changes.iter().filter(|c| c.effect == crate::config::effect::Effect::Live).count();
    let process = changes.iter().filter(|c| c.effect == crate::config::effect::Effect::Process).count();
    write!(text, "\n{} changed: {live} live", changes.len()).ok();
    if !restarts.is_empty() {
        write!(text, ", a reload restarts {}", restarts.join(", ")).ok();
    }
    if process > 0 {
        write!(text, ", {process} once the process is restarted").ok();
    }
    text.push('\n');
    text
}

fn lint(layers: &Layers, more: &[PathBuf]) -> Outcome {
    let (_, loaded) = layers.load(more)?;
    let lines = lint::lint(&loaded, Machine::here());
    let fails = lines.iter().any(|line| line.verdict == Verdict::Fail);
    let code = if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    Ok((lint::table(&lines), code))
}

/// Label, value and source in columns.
fn table(rows: &[(&str, String, String)]) -> String {
    let values = rows.iter().map(|(_, value, _)| value.chars().count()).max().unwrap_or(0).min(40);
    rows.iter().fold(String::new(), |mut text, (label, value, source)| {
        text.push_str(format!("  {label:<9} {value:<values$}  {source}").trim_end());
        text.push('\n');
        text
    })
}

/// Text in lines of a readable length, set in by two.
fn wrapped(text: &str) -> String {
    let mut out = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if line.len() + word.len() > 90 {
            writeln!(out, "  {}", line.trim_end()).ok();
            line.clear();
        }
        line.push_str(word);
        line.push(' ');
    }
    writeln!(out, "  {}", line.trim_end()).ok();
    out
}
