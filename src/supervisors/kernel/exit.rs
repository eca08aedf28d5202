//! Why an incarnation of a child ended, and what class of failure that is.

use std::fmt;

use crate::domain::failure::FailureClass;

/// How one incarnation of a child came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// It finished what it had to do.
    Done,
    /// It stopped because its supervisor asked it to.
    Shutdown,
    /// It gave up, with a class and a text for the operator.
    Failed(FailureClass, String),
    /// Its code panicked.
    Panicked {
        /// The panic message.
        message: String,
        /// `file:line:column` of the panic, where known.
        location: String,
    },
    /// It held work and made no progress.
    Stalled,
    /// Its task was aborted.
    Killed,
    /// The thread it ran on was blocked by somebody else and had to be given up.
    Displaced,
    /// Its factory panicked, or it could not be launched.
    StartFailed(String),
    /// It did not report ready in time.
    StartTimeout,
}

impl ExitReason {
    /// The failure class, or `None` for an orderly end.
    pub fn class(&self) -> Option<FailureClass> {
        match self {
            Self::Done | Self::Shutdown => None,
            Self::Failed(class, _) => Some(*class),
            Self::Panicked { .. } | Self::Stalled | Self::Killed => Some(FailureClass::Bug),
            // What it depended on went away; the loss of the thread is counted where threads are.
            Self::Displaced => Some(FailureClass::Dependency),
            Self::StartFailed(_) | Self::StartTimeout => Some(FailureClass::Bug),
        }
    }

    /// The short name used as a metric label and in the tree.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Shutdown => "shutdown",
            Self::Failed(class, _) => class.as_str(),
            Self::Panicked { .. } => "panicked",
            Self::Stalled => "stalled",
            Self::Killed => "killed",
            Self::Displaced => "displaced",
            Self::StartFailed(_) => "start_failed",
            Self::StartTimeout => "start_timeout",
        }
    }

    /// True for an end that needs no restart of a `transient` child.
    pub fn is_normal(&self) -> bool {
        matches!(self, Self::Done | Self::Shutdown | Self::Failed(FailureClass::Fenced, _))
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(class, text) => write!(f, "{class}: {text}"),
            Self::Panicked { message, location } => write!(f, "panicked at {location}: {message}"),
            Self::StartFailed(text) => write!(f, "could not start: {text}"),
            other => f.write_str(other.label()),
        }
    }
}
