//! The telemetry port: ClickHouse over HTTP, a server of its own or the embedded engine.

pub mod access;
pub mod client;
pub mod codes;
mod dial;
pub mod engine;
mod error;
pub mod guard;
pub mod migrate;
mod nodes;
pub mod queries;
pub mod read;
pub mod schema;
pub mod sql;
