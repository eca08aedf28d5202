//! Why a query could not be answered: each variant maps onto one HTTP status and one failure class.

use std::time::Duration;

use crate::domain::failure::{Classified, FailureClass};

/// A query parameter that cannot be used, with the reason in words a caller can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parameter {parameter}: {detail}")]
pub struct BadParameter {
    /// The parameter as the caller wrote it, such as `start` or `attr.http.method`.
    pub parameter: String,
    /// What is wrong with it and what would be right.
    pub detail: String,
}

impl BadParameter {
    /// Names the parameter and what is wrong with it.
    pub fn new(parameter: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { parameter: parameter.into(), detail: detail.into() }
    }
}

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// 400: the caller must change the request.
    #[error(transparent)]
    BadParameter(#[from] BadParameter),
    /// 401: no scope could be made from the credentials.
    #[error("not authorised: {0}")]
    Unauthorized(String),
    /// 404: the thing asked for by name does not exist in this scope.
    #[error("{0}")]
    NotFound(String),
    /// 422: the answer would be beyond the bounds of one query; a narrower question works.
    #[error("{0}")]
    TooLarge(String),
    /// 429: too many queries at once; the same question works later.
    #[error("too many queries at once: ask again in {} s", retry_after.as_secs().max(1))]
    Overloaded {
        /// How long to wait before the next try.
        retry_after: Duration,
    },
    /// 503: the store is down; the same question works once it is back.
    #[error("the telemetry store is not reachable: {reason}")]
    Unavailable {
        /// What was seen of the failure, without addresses or secrets.
        reason: String,
        /// How long to wait before the next try.
        retry_after: Duration,
    },
    /// 429: the tenant has had its share for now.
    #[error("{what}: try again in {} s", retry_after.as_secs().max(1))]
    OverQuota {
        /// What there was too much of.
        what: String,
        /// How long to wait before the next try.
        retry_after: Duration,
    },
    /// 503: the state store is down; the same request works once it is back, and does no harm twice.
    #[error("the state store is not reachable: {reason}; the same request may be sent again")]
    StateAway {
        /// What was seen of the failure, without addresses or secrets.
        reason: String,
        /// How long to wait before the next try.
        retry_after: Duration,
    },
    /// 504: no answer within the deadline.
    #[error("no answer in time: ask for a shorter time range or add a filter")]
    Timeout,
    /// 500: the query or the decoding of its answer is broken.
    #[error("the query failed inside Obtrace: {0}")]
    Internal(String),
}

impl Classified for QueryError {
    fn class(&self) -> FailureClass {
        match self {
            Self::BadParameter(_) | Self::Unauthorized(_) | Self::NotFound(_) | Self::TooLarge(_) => {
                FailureClass::Poison
            }
            Self::Overloaded { .. } | Self::OverQuota { .. } => FailureClass::Overload,
            Self::Unavailable { .. } | Self::StateAway { .. } | Self::Timeout => FailureClass::Dependency,
            Self::Internal(_) => FailureClass::Bug,
        }
    }
}
