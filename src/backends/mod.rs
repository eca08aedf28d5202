//! The clients behind the adapter actors. They know `domain` and what they talk to; there is no actor in here.

pub mod blobs;
pub mod cache;
pub mod event_log;
pub mod fault;
pub mod plans;
pub mod state;
pub mod telemetry;
