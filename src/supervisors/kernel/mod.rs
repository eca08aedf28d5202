//! The supervision kernel: launches actors over actix, watches how they end, and restarts, escalates or drains them.
//!
//! It knows no stage. What a stage hands in are [`spec::ChildSpec`]s; what it gets back are [`port::Port`]s and
//! [`child_ref::ChildRef`]s that stay valid while the actors behind them come and go.

pub mod apart;
pub mod backoff;
pub mod black_box;
pub mod brain;
pub mod breaker;
mod budget;
pub mod chaos;
pub mod child_ref;
pub mod control;
pub mod events;
pub mod exit;
pub mod generation;
pub mod group;
pub mod journal;
pub mod lane;
pub mod launch;
pub mod liveness;
pub mod meter;
pub mod node;
pub mod panics;
pub mod policy;
pub mod pools;
pub mod port;
pub mod probe;
pub mod seat;
mod signal;
mod slot;
pub mod snapshot;
pub mod spec;
pub mod supervisor;
pub mod tree;
pub mod watchdog;
pub mod window;
