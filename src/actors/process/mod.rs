//! The process stage (`worker-otlp`): turns blocks of batches into rows.

pub mod otlp;
pub mod transform;
pub mod watch;
