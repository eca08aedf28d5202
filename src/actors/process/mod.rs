//! The process stage (`worker-otlp`): turns blocks of batches into rows.

pub mod letters;
pub mod otlp;
pub mod settle;
pub mod transform;
pub mod trial;
pub mod watch;
