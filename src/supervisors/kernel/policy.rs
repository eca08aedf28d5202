//! The policy of one node of the tree: what an operator may tune. The shape of the tree is code, this is config.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Which siblings share a child's fate when it has to be restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Only the child itself.
    #[default]
    OneForOne,
    /// All children of the supervisor.
    OneForAll,
    /// The child and every sibling that was started after it.
    RestForOne,
}

/// When a child that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Always.
    #[default]
    Permanent,
    /// Only after an abnormal end.
    Transient,
    /// Never.
    Temporary,
}

/// What happens when the restart intensity is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum OnLimit {
    /// The supervisor stops its children and fails itself.
    #[default]
    Escalate,
    /// Only the child is put aside and probed again later (dynamic groups).
    Quarantine,
}

/// Whose restarts are counted together against the intensity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum IntensityPer {
    /// All children of the supervisor spend one budget.
    #[default]
    Supervisor,
    /// Each child has a budget of its own.
    Child,
}

/// What a full lane does to its senders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// The sender waits, at most until its own deadline.
    #[default]
    Wait,
    /// The newest message is refused at once.
    ShedNewest,
}

/// How long to wait before a restart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BackoffPolicy {
    /// Wait before the first restart.
    pub min: Duration,
    /// Ceiling of the wait.
    pub max: Duration,
    /// Growth per restart.
    pub factor: f64,
    /// Share (0 to 1) by which a wait may be shortened at random.
    pub jitter: f64,
    /// A child that ran this long starts again from `min`.
    pub reset_after: Duration,
}

/// How a child is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartPolicy {
    /// The next sibling waits at most this long for `ready`; then the start has failed.
    pub timeout: Duration,
}

/// How a child is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopPolicy {
    /// Time to finish what is in hand.
    pub drain: Duration,
    /// Time for an aborted child to be gone.
    pub kill: Duration,
}

/// Bounds of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanePolicy {
    /// Most messages resident (queued and in hand).
    pub capacity: usize,
    /// Most bytes resident.
    pub bytes: usize,
    /// What a full lane does.
    pub overflow: Overflow,
    /// Deliveries of one message before it takes the poison path.
    pub max_attempts: u32,
    /// Messages one actor may have in hand at a time.
    pub credits: usize,
}

/// When the dependency of an adapter counts as down, see [`Breaker`](super::breaker::Breaker).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures in a row that open the breaker.
    pub open_after: u32,
    /// Time between two probes while it is open.
    pub probe_every: Duration,
}

/// Cool-down of a quarantined child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantinePolicy {
    /// Time until the child is tried again.
    pub cool_down: Duration,
}

/// Everything an operator can set for one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Fate sharing among the children of this supervisor.
    pub strategy: Strategy,
    /// When this child is restarted.
    pub restart: Restart,
    /// Restarts tolerated in any sliding window of `period`; one more is the limit.
    pub intensity: u32,
    /// Length of the sliding window.
    pub period: Duration,
    /// Whose restarts count together.
    pub intensity_per: IntensityPer,
    /// What passing the limit does.
    pub on_limit: OnLimit,
    /// Wait before a restart.
    pub backoff: BackoffPolicy,
    /// Start rules.
    pub start: StartPolicy,
    /// Stop rules.
    pub stop: StopPolicy,
    /// Capacity of the control mailbox.
    pub control_capacity: usize,
    /// Bounds of the data lane.
    pub lane: LanePolicy,
    /// Name of the arbiter pool the child runs on.
    pub pool: String,
    /// How many incarnations of this worker run side by side.
    pub replicas: usize,
    /// Most children of a dynamic group.
    pub max_children: usize,
    /// Cool-down when `on_limit` is quarantine.
    pub quarantine: QuarantinePolicy,
    /// When an adapter's dependency counts as down.
    pub breaker: BreakerPolicy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            strategy: Strategy::OneForOne,
            restart: Restart::Permanent,
            intensity: 5,
            period: Duration::from_secs(30),
            intensity_per: IntensityPer::Supervisor,
            on_limit: OnLimit::Escalate,
            backoff: BackoffPolicy {
                min: Duration::from_millis(200),
                max: Duration::from_secs(30),
                factor: 2.0,
                jitter: 0.25,
                reset_after: Duration::from_secs(60),
            },
            start: StartPolicy { timeout: Duration::from_secs(10) },
            stop: StopPolicy { drain: Duration::from_secs(10), kill: Duration::from_secs(2) },
            control_capacity: 64,
            lane: LanePolicy {
                capacity: 256,
                bytes: 64 << 20,
                overflow: Overflow::Wait,
                max_attempts: 3,
                credits: 1,
            },
            pool: String::from("default"),
            replicas: 1,
            max_children: 512,
            quarantine: QuarantinePolicy { cool_down: Duration::from_secs(300) },
            breaker: BreakerPolicy { open_after: 5, probe_every: Duration::from_secs(2) },
        }
    }
}
