//! The backends against their contracts and against the real thing: one suite a port.

mod engine;
mod event_log;
mod event_log_embedded;
mod query;
mod telemetry;
