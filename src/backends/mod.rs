//! The clients behind the adapter actors. They know `domain` and what they talk to; there is no actor in here.

pub mod blobs;
pub mod cache;
pub mod event_log;
pub mod fault;
pub mod leases;
pub mod locks;
pub mod plans;
pub mod redis;
pub mod remote;
pub mod state;
pub mod telemetry;
