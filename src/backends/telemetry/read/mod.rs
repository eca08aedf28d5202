//! Runs the questions of the gateway: a typed request and its scope in → SQL to the store, its Arrow rows decoded, the answer out.
//!
//! What may fail: the store ([`StoreFailure`]), the deadline, and a row of unexpected shape; all become a [`QueryError`].

mod bounds;
mod cells;
mod lists;
mod metrics;
mod records;
mod walk;

use std::time::Duration;

use arrow_array::RecordBatch;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

pub use self::bounds::{Bound, QueryLimits};
pub use self::cells::DecodeError;
use super::sql::Statement;
use crate::clock;
use crate::domain::query::answer::Stats;
pub use crate::domain::query::failure::QueryError;
use crate::domain::query::{QueryAnswer, QueryRequest};
use crate::domain::scope::Scope;

/// What the store answers to one statement.
#[derive(Debug, Clone, Default)]
pub struct QueryResult {
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// Rows the store read.
    pub rows_read: u64,
    /// Bytes the store read, uncompressed.
    pub bytes_read: u64,
    /// Time it took in the store.
    pub elapsed: Duration,
}

/// Why the store did not answer, as far as a query cares.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreFailure {
    /// Not reachable, starting, or its schema is not there yet.
    #[error("store down: {0}")]
    Down(String),
    /// Too many statements at once.
    #[error("store overloaded: {0}")]
    Overloaded(String),
    /// The time limit passed.
    #[error("store too slow: {0}")]
    TimedOut(String),
    /// A bound of [`QueryLimits`] was reached.
    #[error("query too large: {1}")]
    TooLarge(Bound, String),
    /// The store refused the statement.
    #[error("store refused the statement: {0}")]
    Refused(String),
}

impl From<StoreFailure> for QueryError {
    fn from(failure: StoreFailure) -> Self {
        let retry_after = Duration::from_secs(1);
        match failure {
            StoreFailure::Down(reason) => Self::Unavailable { reason, retry_after },
            StoreFailure::Overloaded(_) => Self::Overloaded { retry_after },
            StoreFailure::TimedOut(_) => Self::Timeout,
            StoreFailure::TooLarge(bound, what) => QueryLimits::default().too_large(bound, &what),
            StoreFailure::Refused(text) => Self::Internal(text),
        }
    }
}

impl From<DecodeError> for QueryError {
    fn from(error: DecodeError) -> Self {
        Self::Internal(error.to_string())
    }
}

/// Something that runs statements: the client of the store, or a stand-in in tests.
pub trait SqlRunner: Send + Sync {
    /// Runs one statement and returns its rows in Arrow form (`FORMAT ArrowStream`), within `deadline`.
    fn run(
        &self,
        statement: Statement,
        limits: QueryLimits,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<QueryResult, StoreFailure>>;
}

/// Answers `request` in `scope` within `deadline` and `limits`. `now_ns` is the wall time in Unix nanoseconds.
///
/// # Errors
/// [`QueryError`]; [`QueryError::Timeout`] when the deadline passes between or during statements.
pub async fn execute(
    runner: &dyn SqlRunner,
    scope: &Scope,
    request: QueryRequest,
    now_ns: u64,
    deadline: Duration,
    limits: QueryLimits,
) -> Result<QueryAnswer, QueryError> {
    let now_ns = i64::try_from(now_ns).unwrap_or(i64::MAX);
    let mut session =
        Session { runner, scope, now_ns, ends: clock::now() + deadline, limits, stats: Stats::default() };
    match request {
        QueryRequest::Trace(query) => session.trace(&query).await.map(QueryAnswer::Trace),
        QueryRequest::Traces(query) => session.traces(&query).await.map(QueryAnswer::Traces),
        QueryRequest::Spans(query) => session.spans(&query).await.map(QueryAnswer::Spans),
        QueryRequest::Logs(query) => session.logs(&query).await.map(QueryAnswer::Logs),
        QueryRequest::Metrics(query) => session.metric_list(&query).await.map(QueryAnswer::Metrics),
        QueryRequest::MetricRange(query) => session.metric_range(&query).await.map(QueryAnswer::MetricRange),
        QueryRequest::Services(query) => session.services(&query).await.map(QueryAnswer::Services),
        QueryRequest::Operations(query) => session.operations(&query).await.map(QueryAnswer::Operations),
    }
}

/// One question on its way: its scope, its deadline, and what it has cost so far.
struct Session<'a> {
    runner: &'a dyn SqlRunner,
    scope: &'a Scope,
    now_ns: i64,
    ends: Instant,
    limits: QueryLimits,
    stats: Stats,
}

impl Session<'_> {
    /// Runs one statement within what is left of the deadline.
    async fn run(&mut self, statement: Statement) -> Result<Vec<RecordBatch>, QueryError> {
        let left = self.ends.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Err(QueryError::Timeout);
        }
        let run = self.runner.run(statement, self.limits.clone(), left);
        let result = tokio::time::timeout_at(self.ends, run).await.map_err(|_| QueryError::Timeout)?;
        let result = result.map_err(|failure| match failure {
            StoreFailure::TooLarge(bound, what) => self.limits.too_large(bound, &what),
            other => other.into(),
        })?;
        self.stats.rows_read += result.rows_read;
        self.stats.bytes_read += result.bytes_read;
        self.stats.elapsed_ms += (result.elapsed.as_secs_f64() * 1e6).round() / 1e3;
        Ok(result.batches)
    }
}

#[cfg(test)]
mod tests;
