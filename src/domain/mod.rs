//! The pure rules of Obtrace: no actix, no tokio, no I/O, no clock. Everything here can be tested by calling it.

pub mod admin;
pub mod auth;
pub mod block;
pub mod columns;
pub mod dead_letters;
pub mod deploy;
pub mod envelope;
pub mod failure;
pub mod gate;
pub mod offence;
pub mod plan;
pub mod query;
pub mod rate;
pub mod refusal;
pub mod reload;
pub mod scope;
pub mod sift;
pub mod signal;
pub mod usage;
pub mod versions;
