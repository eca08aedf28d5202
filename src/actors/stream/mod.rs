//! The stream stage: the producer that appends to the event log, and one consumer per partition.

pub mod consumer;
pub mod producer;
pub mod retention;
pub mod self_telemetry;
