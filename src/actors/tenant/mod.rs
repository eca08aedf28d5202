//! The tenant stage: projects what each tenant may do, and keeps the books on keys.

pub mod gate;
pub mod key_cache;
pub mod pace;
pub mod projector;
