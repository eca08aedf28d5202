//! `[serve]`: the REST API and what a single query may cost.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::effect::Effect::Restarts;
use super::reader::Reader;
use super::schema::{Validate, config_struct};
use super::secret::Secret;
use super::units::ByteSize;
use crate::domain::admin::SHORTEST_TOKEN;

config_struct! {
    /// The query gateway.
    pub struct ServeConfig {
        /// Address of the API, its manual (/api/docs), the health pages and Obtrace's own metrics. Port 0 takes a free one.
        http: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080)) => Restarts(&["serve.http"]),
        /// Longest time of a request. Then it is answered with 504 and the query is dropped.
        deadline: Duration = Duration::from_secs(30),
        /// Requests answered at once. Others wait, then are told to come back (429).
        max_in_flight: u32 = 64,
        /// Requests of one tenant answered at once where its plan says nothing. As many again wait; others are told to
        /// come back (429), so that one tenant cannot take every place.
        queries_per_tenant: u32 = 16,
        /// Token of operators: opens /admin and /metrics, for changes too. At least 16 characters. Better given as
        /// OBTRACE_ADMIN_TOKEN than in a file. Without one, only clients on the machine of `obtrace dev` are let in.
        admin_token: Secret = Secret::default(),
        /// File that holds the token, in place of admin_token.
        admin_token_file: Option<PathBuf> = None,
        /// Whether a client on this machine may look at /admin and /metrics without the token, and, while no token is
        /// set, steer as well. For `obtrace dev` only: behind a proxy on this machine everybody is such a client.
        admin_loopback: bool = false,
        /// Bounds of a single query.
        query: QueryConfig = QueryConfig::default(),
    }
}

config_struct! {
    /// What one query may ask for and cost.
    pub struct QueryConfig {
        /// Items of a page where the request names no limit.
        default_limit: u32 = 100,
        /// Most items of a page.
        max_limit: u32 = 10_000,
        /// Time range where the request names no start: from now back.
        default_range: Duration = Duration::from_secs(3600),
        /// Rows a query may read in the store before it is stopped. 0 = no bound.
        max_rows_to_read: u64 = 0,
        /// Memory a query may use in the store.
        max_memory: ByteSize = ByteSize::mib(512),
        /// Largest answer. Above it the request is refused: narrow the range or the limit.
        max_answer: ByteSize = ByteSize::mib(64),
    }
}

impl Validate for ServeConfig {
    fn validate(&self, at: &mut Reader) {
        if self.deadline.is_zero() {
            at.refuse(&["deadline"], "must be more than 0");
        }
        if self.max_in_flight == 0 {
            at.refuse(&["max_in_flight"], "must be at least 1");
        }
        if self.queries_per_tenant == 0 {
            at.refuse(&["queries_per_tenant"], "must be at least 1");
        }
        let token = self.admin_token.expose().trim();
        if !token.is_empty() && token.len() < SHORTEST_TOKEN {
            at.refuse(&["admin_token"], &format!("is too short: at least {SHORTEST_TOKEN} characters"));
        }
        if !token.is_empty() && self.admin_token_file.is_some() {
            at.refuse(&["admin_token_file", "admin_token"], "does not fit: admin_token is set as well");
        }
    }
}

impl Validate for QueryConfig {
    fn validate(&self, at: &mut Reader) {
        if self.default_limit == 0 {
            at.refuse(&["default_limit"], "must be at least 1");
        }
        if self.default_limit > self.max_limit {
            at.refuse(
                &["default_limit", "max_limit"],
                &format!(
                    "does not fit: default_limit ({}) must be at most max_limit ({})",
                    self.default_limit, self.max_limit
                ),
            );
        }
        if self.default_range.is_zero() {
            at.refuse(&["default_range"], "must be more than 0");
        }
        if self.max_memory < ByteSize::mib(16) {
            at.refuse(&["max_memory"], "must be at least 16MiB");
        }
        if self.max_answer < ByteSize::kib(64) {
            at.refuse(&["max_answer"], "must be at least 64KiB");
        }
    }
}
