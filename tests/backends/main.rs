//! The backends against their contracts and against the real thing: one suite a port.

mod blobs;
mod cache;
mod engine;
mod event_log;
mod event_log_embedded;
mod query;
mod reach;
mod schema;
#[path = "../support/services.rs"]
mod services;
mod services_script;
mod state;
mod telemetry;
mod wall;
