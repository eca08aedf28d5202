//! The serve stage (`query-gateway`): the HTTP API and the handlers that run queries.

pub mod deploys;
pub mod http;
pub mod listener;
pub mod query;
pub mod reloader;
pub mod turnstile;
