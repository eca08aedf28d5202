//! The store stage: adapter actors over the telemetry store, the engine process, state, blobs and cache.

pub mod adapter;
pub mod blobs;
pub mod cache;
pub mod engine;
pub mod janitor;
pub mod selfcheck;
pub mod state;
pub mod writer;
