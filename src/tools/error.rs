//! Why a tool could not do its work: one error type for load, demo and their OTLP client.

use std::path::PathBuf;

use crate::domain::failure::{Classified, FailureClass};

/// Why a tool stopped. What a server answers to one export is an [`Outcome`](super::otlp_client::Outcome), not an error.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// A flag, or two flags together, make no sense.
    #[error("{flag}: {reason}")]
    Usage {
        /// The flag as typed.
        flag: &'static str,
        /// What is wrong and what to give instead.
        reason: String,
    },
    /// The endpoint is not a URL one can connect to.
    #[error("endpoint {endpoint:?} cannot be used: {reason}; give it as http://HOST:PORT")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The journal could not be written or read.
    #[error("journal {path:?}: {source}")]
    Journal {
        /// Path of the journal.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The journal was read, but this is no journal, or one of another kind.
    #[error("journal {path:?} line {line}: {reason}")]
    JournalFormat {
        /// Path of the journal.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The API did not answer a question of the verification.
    #[error("api {url}: {reason}")]
    Api {
        /// The URL asked.
        url: String,
        /// What came back.
        reason: String,
    },
    /// The server refused the data for good.
    #[error("{endpoint} refused {signal}: {reason}")]
    Refused {
        /// Where the data went.
        endpoint: String,
        /// `traces`, `logs` or `metrics`.
        signal: &'static str,
        /// The server's words.
        reason: String,
    },
    /// Something of the operating system failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Classified for ToolError {
    fn class(&self) -> FailureClass {
        match self {
            Self::Usage { .. } | Self::Endpoint { .. } => FailureClass::Config,
            Self::JournalFormat { .. } | Self::Refused { .. } => FailureClass::Poison,
            Self::Journal { .. } | Self::Api { .. } | Self::System { .. } => FailureClass::Dependency,
        }
    }
}
