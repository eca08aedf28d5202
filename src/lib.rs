//! Obtrace: an observability backend. OpenTelemetry in, durable, stored and found again, on supervised actors.
//!
//! Imports point one way: `domain ← messages ← actors ← supervisors/<stage> ← boot`; see ARCHITECTURE.md.

pub mod actors;
pub mod backends;
pub mod boot;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod messages;
pub mod supervisors;
pub mod telemetry;
pub mod tools;
pub mod wire;
