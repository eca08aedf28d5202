//! The signals Obtrace takes in, and the topic each travels on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Prefix of every topic name.
pub const TOPIC_PREFIX: &str = "obtrace.";
/// Topic of records that always fail, kept with reason and attempts.
pub const DLQ_TOPIC: &str = "obtrace.dlq";
/// Topics of the retry ladder, one a rung. Each has one partition for each signal, in the order of [`Signal::ALL`].
pub const RETRY_TOPICS: [&str; 2] = ["obtrace.retry.1m", "obtrace.retry.10m"];
/// Topic of what was replayed out of the dead letters: which, when, by whom.
pub const REPLAYS_TOPIC: &str = "obtrace.dlq.replays";

/// One of the OpenTelemetry signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
    /// Metric data points.
    Metrics,
}

impl Signal {
    /// All signals, in the order in which they are listed everywhere.
    pub const ALL: [Signal; 3] = [Signal::Traces, Signal::Logs, Signal::Metrics];

    /// Lower-case name: `traces`, `logs`, `metrics`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        }
    }

    /// The topic of this signal in the event log.
    pub fn topic(self) -> &'static str {
        match self {
            Self::Traces => "obtrace.traces",
            Self::Logs => "obtrace.logs",
            Self::Metrics => "obtrace.metrics",
        }
    }

    /// Its place in [`Signal::ALL`], which is its partition in topics that hold all signals.
    pub fn number(self) -> u32 {
        match self {
            Self::Traces => 0,
            Self::Logs => 1,
            Self::Metrics => 2,
        }
    }

    /// The signal of a name given by [`Signal::as_str`].
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == name)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
