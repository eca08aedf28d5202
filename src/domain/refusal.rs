//! How the edge answers: what was accepted, or why not, in terms that both OTLP transports can say.

use std::time::Duration;

/// What became of an export request that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accepted {
    /// Records that are on disk.
    pub accepted: u64,
    /// Records refused for good; the client must not send them again.
    pub rejected: u64,
    /// Why records were refused; set exactly when `rejected` is not 0.
    pub message: Option<String>,
}

/// Why a whole export request was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The payload cannot be understood. Not retryable.
    BadData(String),
    /// Over a size limit. Not retryable.
    TooLarge(String),
    /// No or a wrong key. Not retryable.
    Unauthenticated(String),
    /// A content type, encoding or method that is not offered. Not retryable.
    Unsupported(String),
    /// Obtrace cannot take it now. Retryable after the given time.
    Unavailable {
        /// What is the matter.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The tenant's plan allows no more for now. Retryable after the given time.
    OverQuota {
        /// Which limit was reached.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// A fault of Obtrace with this very request. Not retryable, since it would fail again.
    Internal(String),
}

impl Refusal {
    /// Refusal because a part of Obtrace is busy, restarting or down.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable { message: message.into(), retry_after: Duration::from_secs(1) }
    }

    /// The text for the client.
    pub fn message(&self) -> &str {
        match self {
            Self::BadData(m) | Self::TooLarge(m) | Self::Unauthenticated(m) => m,
            Self::Unsupported(m) | Self::Internal(m) | Self::Unavailable { message: m, .. } => m,
            Self::OverQuota { message: m, .. } => m,
        }
    }

    /// Code of the google.rpc.Status, which is the gRPC status as well.
    pub fn grpc_code(&self) -> i32 {
        match self {
            Self::BadData(_) | Self::Unsupported(_) => 3,
            // RESOURCE_EXHAUSTED is retryable with RetryInfo only, which goes with a quota and not with a size.
            Self::TooLarge(_) | Self::OverQuota { .. } => 8,
            Self::Unauthenticated(_) => 16,
            Self::Unavailable { .. } => 14,
            Self::Internal(_) => 13,
        }
    }

    /// HTTP status of the answer.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::BadData(_) => 400,
            Self::TooLarge(_) => 413,
            Self::Unauthenticated(_) => 401,
            Self::Unsupported(_) => 415,
            Self::Unavailable { .. } => 503,
            Self::OverQuota { .. } => 429,
            Self::Internal(_) => 500,
        }
    }

    /// When to try again, for the retryable ones.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } | Self::OverQuota { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }
}
