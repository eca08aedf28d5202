//! The stream stage: the producer that appends to the event log, one consumer for each partition that is this process's
//! and the membership that says which, the log's keeper, what tells of the process itself, and the desk of the dead letters.

pub mod consumer;
pub mod letters;
pub mod membership;
pub mod producer;
pub mod retention;
pub mod self_telemetry;
