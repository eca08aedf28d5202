//! How Obtrace observes itself: its metrics and its own log lines, and what of both goes into its own store.

pub mod exposition;
pub mod logging;
pub mod metrics;
pub mod own;
pub mod restarts;
pub mod tree_metrics;
