//! Brings the layers together: defaults < profile < files < environment < flags. Every value remembers who set it.
//!
//! The environment: `OBTRACE__SECTION__KEY=value`, levels parted by two underscores, upper case; see [`WELL_KNOWN`] for
//! the few names without that form. All problems of all layers are found in one go.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::{ConfigError, ConfigErrors};
use super::node::{Node, Source};
use super::reader::Reader;
use super::schema::Setting;
use super::{Config, Loaded, Provenance};

/// Prefix of the environment variables that set a key.
pub const ENV_PREFIX: &str = "OBTRACE__";

/// Environment variables with a name of their own, and the key they set. The prefixed form holds against them.
pub const WELL_KNOWN: [(&str, &str); 6] = [
    ("WIRE_FORMAT", "ingest.wire_format"),
    ("OBTRACE_LOG", "log"),
    ("OBTRACE_DATA_DIR", "data_dir"),
    ("OBTRACE_ROLES", "roles"),
    ("OBTRACE_ADMIN_TOKEN", "serve.admin_token"),
    ("OBTRACE_ENGINE_LIBRARY", "telemetry.engine.library"),
];

/// Built-in profiles by name: settings for a purpose, below every file.
pub const PROFILES: [(&str, &str); 2] = [
    ("dev", include_str!("../../config/profiles/dev.toml")),
    ("cluster", include_str!("../../config/profiles/cluster.toml")),
];

/// A key set on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The flag as typed: `--http`, `--set`.
    pub flag: String,
    /// Dotted path of the key it sets.
    pub path: String,
    /// The value as typed.
    pub value: String,
}

impl Flag {
    /// A flag that stands for one key.
    pub fn new(flag: &str, path: &str, value: impl Into<String>) -> Self {
        Self { flag: flag.to_owned(), path: path.to_owned(), value: value.into() }
    }

    /// The argument of `--set key.path=value`.
    ///
    /// # Errors
    /// What is expected, when there is no `=` in it.
    pub fn assignment(argument: &str) -> Result<Self, String> {
        match argument.split_once('=') {
            Some((path, value)) if !path.trim().is_empty() => {
                Ok(Self::new("--set", path.trim(), value.trim()))
            }
            _ => Err(format!("expected key.path=value, found {argument:?}")),
        }
    }
}

/// What a configuration is made from.
#[derive(Debug, Clone, Default)]
pub struct LoadArgs {
    /// Name of a built-in profile (see [`PROFILES`]).
    pub profile: Option<String>,
    /// Files, the later one on top.
    pub files: Vec<PathBuf>,
    /// Text to be read like a file on top of the files: what to call it, and the TOML.
    pub texts: Vec<(String, String)>,
    /// Environment variables (name, value); those that are not ours are passed over.
    pub env: Vec<(String, String)>,
    /// Flags, the later one on top.
    pub flags: Vec<Flag>,
}

impl LoadArgs {
    /// Takes the process's environment.
    #[must_use]
    pub fn with_process_env(mut self) -> Self {
        let ours =
            |name: &str| name.starts_with(ENV_PREFIX) || WELL_KNOWN.iter().any(|(known, _)| *known == name);
        let vars = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| ours(name))?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        self.env.extend(vars);
        self
    }
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// Every problem of every layer: unreadable files, unknown keys, wrong types, values that do not fit together.
    pub fn load(args: &LoadArgs) -> Result<Loaded, ConfigErrors> {
        let (tree, mut errors) = gather(args);
        let mut reader = Reader::default();
        let config = Self::read(Some(&tree), Self::default(), &mut reader);
        let (found, values) = reader.finish();
        errors.extend(found);
        if errors.is_empty() {
            Ok(Loaded { config, provenance: Provenance::new(values) })
        } else {
            Err(ConfigErrors(errors))
        }
    }
}

/// All layers, laid on top of each other.
fn gather(args: &LoadArgs) -> (Node, Vec<ConfigError>) {
    let mut tree = Node::empty();
    let mut errors = Vec::new();
    let texts = args.texts.iter().map(|(name, text)| Node::parse_toml(name, text));
    let texts = profile_layer(args).into_iter().chain(args.files.iter().map(file_layer)).chain(texts);
    let pairs = env_layer(&args.env).into_iter().chain(args.flags.iter().map(flag_layer));
    for layer in texts.chain(pairs) {
        match layer {
            Ok(node) => tree.overlay(node),
            Err(error) => errors.push(error),
        }
    }
    (tree, errors)
}

fn profile_layer(args: &LoadArgs) -> Option<Result<Node, ConfigError>> {
    let name = args.profile.as_deref()?;
    let label = format!("profile {name}");
    let Some((_, text)) = PROFILES.iter().find(|(known, _)| *known == name) else {
        let known = PROFILES.map(|(known, _)| known).join(", ");
        let at = Source::File { file: Arc::from(label), line: 0 };
        return Some(Err(ConfigError {
            at,
            message: format!("there is no such profile, there are: {known}"),
        }));
    };
    Some(Node::parse_toml(&label, text))
}

fn file_layer(path: &PathBuf) -> Result<Node, ConfigError> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Node::parse_toml(&name, &text),
        Err(error) => Err(ConfigError {
            at: Source::File { file: Arc::from(name), line: 0 },
            message: format!("cannot be read: {error}"),
        }),
    }
}

/// The environment in an order of its own: well-known names first, then by name, so that the outcome does not hang on
/// the order in which the variables were set.
fn env_layer(env: &[(String, String)]) -> Vec<Result<Node, ConfigError>> {
    let mut known: Vec<_> = Vec::new();
    for (name, path) in WELL_KNOWN {
        known.extend(env.iter().filter(|(n, _)| n == name).map(|(n, v)| (n, path.to_owned(), v)));
    }
    let mut prefixed: Vec<_> = env
        .iter()
        .filter_map(|(name, value)| {
            let rest = name.strip_prefix(ENV_PREFIX)?;
            Some((name, rest.to_ascii_lowercase().replace("__", "."), value))
        })
        .collect();
    prefixed.sort();
    known.extend(prefixed);
    known
        .into_iter()
        .map(|(name, path, value)| set(&path, value, Source::Env(Arc::from(name.as_str()))))
        .collect()
}

fn flag_layer(flag: &Flag) -> Result<Node, ConfigError> {
    set(&flag.path, &flag.value, Source::Flag(Arc::from(flag.flag.as_str())))
}

fn set(path: &str, value: &str, at: Source) -> Result<Node, ConfigError> {
    if path.split('.').any(str::is_empty) {
        let message = format!("{path:?} is not the name of a key, expected for example serve.http");
        return Err(ConfigError { at, message });
    }
    Ok(Node::at_path(path.split('.'), value, &at))
}
