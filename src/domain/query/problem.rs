//! RFC 9457 problem documents: a query error in → the body that every refused HTTP request gets.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::failure::QueryError;

/// Media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What every refused request answers, as `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Kind of problem, stable over releases: `urn:obtrace:problem:bad-parameter` and so on.
    #[serde(rename = "type")]
    #[schema(example = "urn:obtrace:problem:bad-parameter")]
    pub kind: String,
    /// The kind in words.
    #[schema(example = "Bad parameter")]
    pub title: String,
    /// The HTTP status, repeated.
    #[schema(example = 400)]
    pub status: u16,
    /// What happened here and what to do about it.
    pub detail: String,
    /// The path that was asked for.
    #[schema(example = "/api/v1/traces")]
    pub instance: String,
    /// The query parameter at fault, where one is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parameter: Option<String>,
    /// Seconds after which the same request may work, where waiting helps; also in `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_seconds: Option<u64>,
}

impl Problem {
    /// A problem of `status` with a slug such as `not-found`, a title and a detail.
    pub fn new(status: u16, slug: &str, title: &str, detail: impl Into<String>, instance: &str) -> Self {
        Self {
            kind: format!("urn:obtrace:problem:{slug}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            instance: instance.to_owned(),
            parameter: None,
            retry_after_seconds: None,
        }
    }

    /// The problem document of a query error at the path `instance`.
    pub fn of(error: &QueryError, instance: &str) -> Self {
        let (status, slug, title) = match error {
            QueryError::BadParameter(_) => (400, "bad-parameter", "Bad parameter"),
            QueryError::Unauthorized(_) => (401, "unauthorized", "Unauthorized"),
            QueryError::NotFound(_) => (404, "not-found", "Not found"),
            QueryError::TooLarge(_) => (422, "too-large", "Answer too large"),
            QueryError::Overloaded { .. } => (429, "overloaded", "Too many queries"),
            QueryError::Internal(_) => (500, "internal", "Internal error"),
            QueryError::Unavailable { .. } => (503, "store-unavailable", "Telemetry store unavailable"),
            QueryError::OverQuota { .. } => (429, "over-quota", "Over quota"),
            QueryError::StateAway { .. } => (503, "state-unavailable", "State store unavailable"),
            QueryError::Timeout => (504, "timeout", "Query timed out"),
        };
        let mut problem = Self::new(status, slug, title, error.to_string(), instance);
        match error {
            QueryError::BadParameter(bad) => problem.parameter = Some(bad.parameter.clone()),
            QueryError::Overloaded { retry_after }
            | QueryError::OverQuota { retry_after, .. }
            | QueryError::StateAway { retry_after, .. }
            | QueryError::Unavailable { retry_after, .. } => {
                problem.retry_after_seconds = Some(retry_after.as_secs().max(1));
            }
            _ => {}
        }
        problem
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::failure::BadParameter;
    use super::*;

    #[test]
    fn each_error_has_its_status_and_says_what_to_do() {
        let wait = Duration::from_millis(200);
        let cases = [
            (QueryError::BadParameter(BadParameter::new("limit", "too big")), 400, Some("limit"), None),
            (QueryError::Unauthorized("no key".into()), 401, None, None),
            (QueryError::NotFound("no such trace".into()), 404, None, None),
            (QueryError::TooLarge("narrow it".into()), 422, None, None),
            (QueryError::Overloaded { retry_after: wait }, 429, None, Some(1)),
            (QueryError::Internal("broken".into()), 500, None, None),
            (
                QueryError::Unavailable { reason: "refused".into(), retry_after: wait * 10 },
                503,
                None,
                Some(2),
            ),
            (QueryError::OverQuota { what: "a day".into(), retry_after: wait }, 429, None, Some(1)),
            (QueryError::StateAway { reason: "away".into(), retry_after: wait * 10 }, 503, None, Some(2)),
            (QueryError::Timeout, 504, None, None),
        ];
        for (error, status, parameter, retry) in cases {
            let problem = Problem::of(&error, "/api/v1/x");
            assert_eq!(problem.status, status);
            assert_eq!(problem.parameter.as_deref(), parameter);
            assert_eq!(problem.retry_after_seconds, retry);
            assert_eq!(problem.detail, error.to_string());
        }
    }

    #[test]
    fn the_document_has_the_members_of_rfc_9457() {
        let text = serde_json::to_value(Problem::new(404, "not-found", "Not found", "no", "/x")).unwrap();
        for member in ["type", "title", "status", "detail", "instance"] {
            assert!(text.get(member).is_some(), "{member}");
        }
        assert!(text.get("parameter").is_none());
    }
}
