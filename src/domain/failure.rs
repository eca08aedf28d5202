//! What kind of failure something is. The class, not the place it happened in, decides what the supervisor does.

use std::fmt;

/// The class of a failure; every stage's error type maps onto one (see ARCHITECTURE.md, "Failure classes").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// A panic or a broken invariant: restart with backoff, spends restart intensity.
    Bug,
    /// This input always fails: isolate it, put it in the dead letters, go on.
    Poison,
    /// Something outside is down or slow: no restart, wait, retry, report `Degraded`.
    Dependency,
    /// A bound was reached: shed or wait; the sender is told.
    Overload,
    /// The configuration or the schema is wrong: no restart can help, escalate at once.
    Config,
    /// A stale generation tried to act: it ends quietly, its successor has taken over.
    Fenced,
}

impl FailureClass {
    /// The lower-case name used in metrics, logs and the dead letters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bug => "bug",
            Self::Poison => "poison",
            Self::Dependency => "dependency",
            Self::Overload => "overload",
            Self::Config => "config",
            Self::Fenced => "fenced",
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Implemented by every stage's error type, so that whoever handles the error can act on its class.
pub trait Classified {
    /// The class of this failure.
    fn class(&self) -> FailureClass;
}
