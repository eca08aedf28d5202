//! The clients behind the adapter actors. They know `domain` and what they talk to; there is no actor in here.

pub mod event_log;
pub mod telemetry;
