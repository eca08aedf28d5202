//! Messages to the serve stage: queries to run.

use std::time::Duration;

use crate::domain::query::{QueryAnswer, QueryError, QueryRequest};
use crate::domain::scope::Scope;
use crate::supervisors::kernel::lane::Cargo;
use crate::supervisors::kernel::port::Reply;

/// http → query handler · at most once · a few hundred bytes · read-only.
///
/// Run a query in its scope; dropped when nobody waits for the answer any more.
pub struct RunQuery {
    /// Whose data is asked for.
    pub scope: Scope,
    /// The question.
    pub request: QueryRequest,
    /// Time the whole query may take.
    pub deadline: Duration,
    /// The answer.
    pub reply: Reply<Result<QueryAnswer, QueryError>>,
}

impl Cargo for RunQuery {
    fn weight(&self) -> usize {
        1024
    }

    fn poisoned(&self, _attempts: u32) {
        // Dropping the reply tells the HTTP side that the handler is gone: it answers 500.
    }
}

impl std::fmt::Debug for RunQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RunQuery({:?})", self.scope)
    }
}
