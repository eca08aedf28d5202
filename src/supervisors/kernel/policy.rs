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

impl Strategy {
    /// The name used in the tree and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneForOne => "one_for_one",
            Self::OneForAll => "one_for_all",
            Self::RestForOne => "rest_for_one",
        }
    }
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

/// What becomes of a message that was delivered `max_attempts` times and acknowledged by nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Poison {
    /// It leaves the lane and its sender is told, who sees to it that what is wrong in it is found and the rest goes on
    /// ([`Cargo::poisoned`](super::lane::Cargo::poisoned)).
    #[default]
    Isolate,
    /// It leaves the lane for good, with an event and a count ([`Cargo::dropped`](super::lane::Cargo::dropped)).
    Drop,
    /// It stays at the head of the lane, and the failure goes up: the supervisor stops its children and fails.
    Escalate,
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
    /// When the child counts as up.
    pub ready: Ready,
    /// How many members of a group, or replicas, may be on their way up at a time.
    pub at_once: usize,
}

/// When a child counts as up, so that the next sibling may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    /// When it has reported so.
    #[default]
    Reported,
    /// As soon as it was launched.
    Started,
}

/// Which thread of its pool a child runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The one with the fewest children; equals take turns.
    #[default]
    Spread,
    /// The one that its name falls on: the same name on the same thread.
    ByKey,
}

/// When a child that holds work counts as stalled, see [`Liveness`](super::liveness::Liveness).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LivenessPolicy {
    /// No progress for this long. Zero switches the detection off.
    pub stall_after: Duration,
    /// The same inside a declared wait.
    pub wait_after: Duration,
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
    /// What becomes of it then.
    pub poison: Poison,
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

/// What becomes of a quarantined child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantinePolicy {
    /// Time until the child is tried again.
    pub cool_down: Duration,
    /// Good runs in a row after which it counts as healthy again; until then, one more failure puts it back.
    pub probes: u32,
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
    /// Stall detection.
    pub liveness: LivenessPolicy,
    /// Capacity of the control mailbox.
    pub control_capacity: usize,
    /// Bounds of the data lane.
    pub lane: LanePolicy,
    /// Name of the arbiter pool the child runs on.
    pub pool: String,
    /// Which thread of the pool.
    pub place: Place,
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
            start: StartPolicy { timeout: Duration::from_secs(10), ready: Ready::Reported, at_once: 16 },
            stop: StopPolicy { drain: Duration::from_secs(10), kill: Duration::from_secs(2) },
            liveness: LivenessPolicy {
                stall_after: Duration::from_secs(15),
                wait_after: Duration::from_secs(120),
            },
            control_capacity: 64,
            lane: LanePolicy {
                capacity: 256,
                bytes: 64 << 20,
                overflow: Overflow::Wait,
                max_attempts: 3,
                poison: Poison::Isolate,
                credits: 1,
            },
            pool: String::from("default"),
            place: Place::Spread,
            replicas: 1,
            max_children: 512,
            quarantine: QuarantinePolicy { cool_down: Duration::from_secs(300), probes: 1 },
            breaker: BreakerPolicy { open_after: 5, probe_every: Duration::from_secs(2) },
        }
    }
}

/// What it takes for a changed key to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It holds at once, for what runs.
    Live,
    /// The child is restarted for it, which its senders do not notice.
    RestartsChild,
}

/// The keys in which two policies of one node differ, by their names in the configuration, and what each takes to hold.
pub fn changes(old: &Policy, new: &Policy) -> Vec<(&'static str, Effect)> {
    use Effect::{Live, RestartsChild};
    let differ = |key, effect, differs: bool| differs.then_some((key, effect));
    [
        differ("strategy", Live, old.strategy != new.strategy),
        differ("restart", Live, old.restart != new.restart),
        differ("intensity", Live, old.intensity != new.intensity),
        differ("period", Live, old.period != new.period),
        differ("intensity_per", Live, old.intensity_per != new.intensity_per),
        differ("on_limit", Live, old.on_limit != new.on_limit),
        differ("pool", RestartsChild, old.pool != new.pool),
        differ("place", RestartsChild, old.place != new.place),
        // Members come and go by themselves, the others work on.
        differ("replicas", Live, old.replicas != new.replicas),
        differ("max_children", Live, old.max_children != new.max_children),
        differ("backoff.min", Live, old.backoff.min != new.backoff.min),
        differ("backoff.max", Live, old.backoff.max != new.backoff.max),
        differ("backoff.factor", Live, old.backoff.factor.to_bits() != new.backoff.factor.to_bits()),
        differ("backoff.jitter", Live, old.backoff.jitter.to_bits() != new.backoff.jitter.to_bits()),
        differ("backoff.reset_after", Live, old.backoff.reset_after != new.backoff.reset_after),
        differ("start.timeout", Live, old.start.timeout != new.start.timeout),
        differ("start.ready", Live, old.start.ready != new.start.ready),
        differ("start.at_once", Live, old.start.at_once != new.start.at_once),
        differ("liveness.stall_after", Live, old.liveness.stall_after != new.liveness.stall_after),
        differ("liveness.wait_after", Live, old.liveness.wait_after != new.liveness.wait_after),
        differ("stop.drain", Live, old.stop.drain != new.stop.drain),
        differ("stop.kill", Live, old.stop.kill != new.stop.kill),
        differ("control.capacity", RestartsChild, old.control_capacity != new.control_capacity),
        differ("lane.capacity", Live, old.lane.capacity != new.lane.capacity),
        differ("lane.bytes", Live, old.lane.bytes != new.lane.bytes),
        differ("lane.overflow", Live, old.lane.overflow != new.lane.overflow),
        differ("lane.max_attempts", Live, old.lane.max_attempts != new.lane.max_attempts),
        differ("lane.poison", Live, old.lane.poison != new.lane.poison),
        differ("lane.credits", Live, old.lane.credits != new.lane.credits),
        differ("quarantine.cool_down", Live, old.quarantine.cool_down != new.quarantine.cool_down),
        differ("quarantine.probes", Live, old.quarantine.probes != new.quarantine.probes),
        differ("breaker.open_after", RestartsChild, old.breaker.open_after != new.breaker.open_after),
        differ("breaker.probe_every", RestartsChild, old.breaker.probe_every != new.breaker.probe_every),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_named_with_what_it_takes() {
        let old = Policy::default();
        assert_eq!(changes(&old, &old), []);
        let mut new = Policy { pool: String::from("edge"), intensity: 1, ..old.clone() };
        new.lane.capacity = 3;
        let expected =
            [("intensity", Effect::Live), ("pool", Effect::RestartsChild), ("lane.capacity", Effect::Live)];
        assert_eq!(changes(&old, &new), expected);
    }

    /// Nothing that an operator can set may be applied in silence: a policy in which every key differs names them all.
    #[test]
    fn every_key_is_compared() {
        let old = Policy::default();
        let second = Duration::from_secs(1);
        let new = Policy {
            strategy: Strategy::OneForAll,
            restart: Restart::Transient,
            intensity: 77,
            period: second,
            intensity_per: IntensityPer::Child,
            on_limit: OnLimit::Quarantine,
            backoff: BackoffPolicy {
                min: second,
                max: second,
                factor: 9.0,
                jitter: 0.9,
                reset_after: second,
            },
            start: StartPolicy { timeout: second, ready: Ready::Started, at_once: 77 },
            liveness: LivenessPolicy { stall_after: second, wait_after: second },
            place: Place::ByKey,
            stop: StopPolicy { drain: second, kill: second },
            control_capacity: 77,
            lane: LanePolicy {
                capacity: 77,
                bytes: 77,
                overflow: Overflow::ShedNewest,
                max_attempts: 77,
                poison: Poison::Drop,
                credits: 77,
            },
            pool: String::from("x"),
            replicas: 77,
            max_children: 77,
            quarantine: QuarantinePolicy { cool_down: second, probes: 77 },
            breaker: BreakerPolicy { open_after: 77, probe_every: Duration::from_secs(77) },
        };
        assert_eq!(changes(&old, &new).len(), 33);
    }
}
