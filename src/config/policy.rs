//! The policy of one node of the supervision tree: when it is restarted, how it starts, stops, and what its lane holds.

use std::time::Duration;

use super::effect::Effect::RestartsNode;
use super::reader::Reader;
use super::schema::{Validate, config_enum, config_struct};
use super::units::ByteSize;

/// Path of the policy that every node inherits.
pub const DEFAULTS: &str = "supervision.defaults";

/// Keys that speak of one node only: taken from its own table or [`DEFAULTS`], never from a table in between.
pub const OWN_KEYS: [&str; 2] = ["replicas", "max_children"];

config_enum! {
    /// Which siblings are restarted with a child that failed.
    pub enum Strategy {
        /// Only the child.
        OneForOne = "one_for_one",
        /// All children.
        OneForAll = "one_for_all",
        /// The child and those started after it.
        RestForOne = "rest_for_one",
    }
}

config_enum! {
    /// After which ends a child is started again.
    pub enum Restart {
        /// After every end.
        Permanent = "permanent",
        /// After a failure.
        Transient = "transient",
        /// Never.
        Temporary = "temporary",
    }
}

config_enum! {
    /// Who has the budget of restarts.
    pub enum IntensityPer {
        /// All children together.
        Supervisor = "supervisor",
        /// Each child its own.
        Child = "child",
    }
}

config_enum! {
    /// What happens when the budget of restarts is spent.
    pub enum OnLimit {
        /// The supervisor stops its children and fails itself.
        Escalate = "escalate",
        /// The child is stopped, reported degraded and probed later.
        Quarantine = "quarantine",
    }
}

config_enum! {
    /// When the next sibling starts.
    pub enum Ready {
        /// When the child says that it is ready.
        Reported = "reported",
        /// As soon as it runs.
        Started = "started",
    }
}

config_enum! {
    /// What a full lane does with a new message.
    pub enum Overflow {
        /// The sender waits.
        Wait = "wait",
        /// The sender is told to come back.
        ShedNewest = "shed_newest",
    }
}

config_enum! {
    /// What becomes of a message that crashes whoever takes it.
    pub enum Poison {
        /// Its sender finds out what is wrong in it; the rest goes on.
        Isolate = "isolate",
        /// It is dropped, with an event and a count.
        Drop = "drop",
        /// It stays, and its supervisor fails.
        Escalate = "escalate",
    }
}

config_enum! {
    /// On which thread of its pool a child runs.
    pub enum Place {
        /// On the one with the fewest children.
        Spread = "spread",
        /// On the one its name falls on: the same partition on the same thread.
        ByKey = "by_key",
    }
}

config_struct! {
    /// Everything an operator can tune about a node. What a table leaves out is inherited.
    pub struct NodePolicy {
        /// Which children are restarted together: "one_for_one", "one_for_all" or "rest_for_one".
        strategy: Strategy = Strategy::OneForOne,
        /// After which ends it is started again: "permanent", "transient" (failures only) or "temporary" (never).
        restart: Restart = Restart::Permanent,
        /// Restarts tolerated in any `period`; one more and `on_limit` holds.
        intensity: u32 = 5,
        /// Length of the sliding window of `intensity`.
        period: Duration = Duration::from_secs(30),
        /// Whether children share the budget ("supervisor") or have one each ("child").
        intensity_per: IntensityPer = IntensityPer::Supervisor,
        /// When the budget is spent: "escalate" to the parent or "quarantine" the child.
        on_limit: OnLimit = OnLimit::Escalate,
        /// Named pool of threads it runs on. Unset: that of the parent.
        pool: Option<String> = None => RestartsNode,
        /// Thread within the pool: "spread" (the one with the fewest children) or "by_key" (the same name on the same thread).
        place: Place = Place::Spread => RestartsNode,
        /// How many of it run. Not inherited.
        replicas: u32 = 1,
        /// Most children of a dynamic group. Above it new ones are refused. Not inherited.
        max_children: u32 = 1024,
        /// Pauses between restarts.
        backoff: BackoffPolicy = BackoffPolicy::default(),
        /// How it starts.
        start: StartPolicy = StartPolicy::default(),
        /// How it ends.
        stop: StopPolicy = StopPolicy::default(),
        /// When it counts as stalled. Idle never does.
        liveness: LivenessPolicy = LivenessPolicy::default(),
        /// Its control mailbox.
        control: ControlPolicy = ControlPolicy::default() => RestartsNode,
        /// Its lane of data, which outlives its restarts.
        lane: LanePolicy = LanePolicy::default(),
        /// What happens to a quarantined child.
        quarantine: QuarantinePolicy = QuarantinePolicy::default(),
        /// Adapters: when a dependency counts as down.
        breaker: BreakerPolicy = BreakerPolicy::default(),
    }
}

config_struct! {
    /// `min · factorⁿ`, at most `max`, reduced by up to `jitter`.
    pub struct BackoffPolicy {
        /// First pause.
        min: Duration = Duration::from_millis(200),
        /// Longest pause.
        max: Duration = Duration::from_secs(30),
        /// Growth from restart to restart.
        factor: f64 = 2.0,
        /// Share of a pause that is random, 0 to 1, so that siblings do not come back all at once.
        jitter: f64 = 0.25,
        /// Time of running with work done after which the pause starts from `min` again.
        reset_after: Duration = Duration::from_secs(60),
    }
}

config_struct! {
    /// How a node starts.
    pub struct StartPolicy {
        /// The next sibling starts when this one has "reported" that it is ready, or as soon as it has "started".
        ready: Ready = Ready::Reported,
        /// Longest wait for that. Then the start has failed.
        timeout: Duration = Duration::from_secs(10),
        /// Members of a dynamic group, or replicas, that start at the same time.
        at_once: u32 = 16,
    }
}

config_struct! {
    /// How a node ends.
    pub struct StopPolicy {
        /// Time to finish what it has.
        drain: Duration = Duration::from_secs(10),
        /// Time to stop after that. Then it is aborted, counted and named.
        kill: Duration = Duration::from_secs(2),
    }
}

config_struct! {
    /// When a node counts as stalled.
    pub struct LivenessPolicy {
        /// Work at hand and no progress for this long. "0s" switches the detection off.
        stall_after: Duration = Duration::from_secs(15),
        /// The same inside a wait it has announced.
        wait_after: Duration = Duration::from_secs(120),
    }
}

config_struct! {
    /// The control mailbox.
    pub struct ControlPolicy {
        /// Messages.
        capacity: u32 = 64,
    }
}

config_struct! {
    /// The data lane.
    pub struct LanePolicy {
        /// Messages waiting or in work.
        capacity: u32 = 256,
        /// Bytes waiting or in work. One message always fits, however large.
        bytes: ByteSize = ByteSize::mib(64),
        /// When it is full: the sender must "wait", or the newest message is refused ("shed_newest").
        overflow: Overflow = Overflow::Wait,
        /// Deliveries of a message that ended in a crash before `poison` holds.
        max_attempts: u32 = 3,
        /// What becomes of it then. "isolate": its sender is told, and sees to it that what is wrong in it is found, put aside
        /// and the rest goes on. "drop": it is lost, with an event, a count and a line in the log. "escalate": it stays, and
        /// its supervisor fails for it, so that nothing is passed over; in the end that stops the process.
        poison: Poison = Poison::Isolate,
    }
}

config_struct! {
    /// A quarantined child.
    pub struct QuarantinePolicy {
        /// Pause before it is tried again.
        cool_down: Duration = Duration::from_secs(300),
        /// Good runs in a row after which it counts as well: each `backoff.reset_after` without a failure is one, and so is
        /// an end in order. Until then one more failure puts it back at once.
        probes: u32 = 1,
    }
}

config_struct! {
    /// The circuit breaker of an adapter.
    pub struct BreakerPolicy {
        /// Failures in a row after which the dependency counts as down.
        open_after: u32 = 5,
        /// Pause between tries while it is down.
        probe_every: Duration = Duration::from_secs(2),
    }
}

fn at_least_one(at: &mut Reader, key: &str, value: u32) {
    if value == 0 {
        at.refuse(&[key], "must be at least 1");
    }
}

fn more_than_zero(at: &mut Reader, key: &str, value: Duration) {
    if value.is_zero() {
        at.refuse(&[key], "must be more than 0");
    }
}

impl Validate for NodePolicy {
    fn validate(&self, at: &mut Reader) {
        more_than_zero(at, "period", self.period);
        at_least_one(at, "replicas", self.replicas);
        at_least_one(at, "max_children", self.max_children);
        let pools = super::supervision::Pools::KEYS;
        if let Some(pool) = self.pool.as_deref().filter(|pool| !pools.contains(pool)) {
            let meant = super::error::suggest(pool, pools.iter().copied());
            let hint = meant
                .map_or_else(|| format!("there are {}", pools.join(", ")), |m| format!("did you mean {m}?"));
            at.refuse(&["pool"], &format!("names no pool: {pool:?}, {hint}"));
        }
    }
}

impl Validate for BackoffPolicy {
    fn validate(&self, at: &mut Reader) {
        more_than_zero(at, "min", self.min);
        if self.min > self.max {
            at.refuse(&["min", "max"], "does not fit: min must not be above max");
        }
        if self.factor < 1.0 {
            at.refuse(&["factor"], "must be at least 1.0: pauses do not shrink");
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            at.refuse(&["jitter"], "must be from 0.0 to 1.0");
        }
    }
}

impl Validate for StartPolicy {
    fn validate(&self, at: &mut Reader) {
        more_than_zero(at, "timeout", self.timeout);
        at_least_one(at, "at_once", self.at_once);
    }
}

impl Validate for StopPolicy {}

impl Validate for LivenessPolicy {
    fn validate(&self, at: &mut Reader) {
        if self.wait_after < self.stall_after {
            at.refuse(
                &["wait_after", "stall_after"],
                "does not fit: wait_after must not be below stall_after",
            );
        }
    }
}

impl Validate for ControlPolicy {
    fn validate(&self, at: &mut Reader) {
        at_least_one(at, "capacity", self.capacity);
    }
}

impl Validate for LanePolicy {
    fn validate(&self, at: &mut Reader) {
        at_least_one(at, "capacity", self.capacity);
        at_least_one(at, "max_attempts", self.max_attempts);
        if self.bytes.as_u64() == 0 {
            at.refuse(&["bytes"], "must be more than 0");
        }
    }
}

impl Validate for QuarantinePolicy {
    fn validate(&self, at: &mut Reader) {
        more_than_zero(at, "cool_down", self.cool_down);
        at_least_one(at, "probes", self.probes);
    }
}

impl Validate for BreakerPolicy {
    fn validate(&self, at: &mut Reader) {
        at_least_one(at, "open_after", self.open_after);
        more_than_zero(at, "probe_every", self.probe_every);
    }
}
