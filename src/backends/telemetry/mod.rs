//! The telemetry port: ClickHouse over HTTP, a server of its own or the embedded engine.

pub mod engine;
pub mod queries;
pub mod read;
pub mod sql;
