//! How Obtrace observes itself: its metrics and its own log lines.

pub mod logging;
pub mod metrics;
