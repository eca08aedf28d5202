//! The stream stage: the producer that appends to the event log, one consumer per partition, and the desk of
//! the dead letters.

pub mod consumer;
pub mod letters;
pub mod membership;
pub mod producer;
pub mod retention;
pub mod self_telemetry;
