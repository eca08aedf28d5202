//! The backends against their contracts: one suite a port, run for every implementation.

mod event_log;
mod event_log_embedded;
