//! The store stage: adapter actors over the telemetry store and the engine process.

pub mod engine;
pub mod writer;
