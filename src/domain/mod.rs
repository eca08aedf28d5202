//! The pure rules of Obtrace: no actix, no tokio, no I/O, no clock. Everything here can be tested by calling it.

pub mod envelope;
pub mod failure;
pub mod query;
pub mod scope;
pub mod signal;
