//! The telemetry port: ClickHouse over HTTP, a server of its own or the embedded engine.

pub mod client;
pub mod engine;
mod error;
pub mod migrate;
pub mod queries;
pub mod read;
pub mod schema;
pub mod sql;
