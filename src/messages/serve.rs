//! Messages to the serve stage: queries to run, and the configuration to be read anew.

use std::time::Duration;

use crate::domain::plan::Plan;
use crate::domain::query::{QueryAnswer, QueryError, QueryRequest};
use crate::domain::reload::{ReloadRefused, Reloaded};
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
    /// The plan of the tenant, where it is known: what the query may cost.
    pub plan: Option<Plan>,
    /// Time the whole query may take.
    pub deadline: Duration,
    /// The answer.
    pub reply: Reply<Result<QueryAnswer, QueryError>>,
}

impl Cargo for RunQuery {
    fn weight(&self) -> usize {
        1024
    }

    fn describe(&self) -> String {
        format!("{self:?}")
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

/// http or signal → reloader · at most once · a few bytes · a repeat finds nothing changed.
///
/// Read the configuration anew and apply it.
pub struct ReloadConfig {
    /// Who asks, for the log and the journal.
    pub who: String,
    /// What came of it.
    pub reply: Reply<Result<Reloaded, ReloadRefused>>,
}

impl Cargo for ReloadConfig {
    fn weight(&self) -> usize {
        256
    }

    fn poisoned(&self, _attempts: u32) {
        // Dropping the reply tells whoever asked; the configuration that held before still does.
    }
}

impl std::fmt::Debug for ReloadConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReloadConfig({})", self.who)
    }
}
