//! What came of reading the configuration anew: each changed key with what was done about it, or why all was left as it was.

use serde::Serialize;
use utoipa::ToSchema;

/// One key that has another value, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ChangedKey {
    /// The key by its path.
    pub key: String,
    /// The value before, as TOML; secrets are masked.
    pub old: String,
    /// The value now.
    pub new: String,
    /// What sets it: file and line, environment variable or flag.
    pub source: String,
    /// What a change of it needs: `live`, `restarts NODE`, `restarts the process`.
    pub effect: String,
    /// Nodes of the tree that it reaches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// What was done: `applied`, `restarting NODE`, `pending`, or what went wrong.
    pub done: String,
}

/// A reload that was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reloaded {
    /// Every key that changed.
    pub changes: Vec<ChangedKey>,
    /// Keys whose new value holds only after a restart of the process, this reload's and earlier ones'.
    pub pending: Vec<ChangedKey>,
}

/// A reload that was refused: the configuration before it runs on, untouched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration was not reloaded, the one before runs on: {}", .errors.join("; "))]
pub struct ReloadRefused {
    /// Every reason, each with the place that set the value.
    pub errors: Vec<String>,
}

impl ReloadRefused {
    /// A refusal for one reason.
    pub fn because(why: impl Into<String>) -> Self {
        Self { errors: vec![why.into()] }
    }
}
