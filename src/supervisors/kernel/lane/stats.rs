//! Fill and counters of a lane: written at every hop, read by the tree, the metrics and the records of crashes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::books::UNIT;
use crate::supervisors::kernel::policy::LanePolicy;

/// Fill and counters of a lane, for the tree snapshot and metrics.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct LaneStats {
    /// Name of the lane, which is the path of the child that reads it.
    pub name: String,
    /// Messages waiting.
    pub queued: usize,
    /// Messages in an actor's hands.
    pub leased: usize,
    /// Most messages resident.
    pub capacity: usize,
    /// Bytes resident, rounded up to KiB a message.
    pub bytes: usize,
    /// Most bytes resident.
    pub capacity_bytes: usize,
    /// Most bytes that were resident so far as a message came in, since the bounds were last changed.
    pub peak_bytes: usize,
    /// Messages ever accepted.
    pub sent: u64,
    /// Messages acknowledged by their actor.
    pub acked: u64,
    /// Deliveries that ended without an acknowledgement.
    pub redelivered: u64,
    /// Messages that took the poison path.
    pub poisoned: u64,
    /// Messages that were dropped, because the lane's policy is to drop poison; they count as poisoned, too.
    pub dropped: u64,
    /// Messages refused because the lane was full.
    pub shed: u64,
    /// Times that an incarnation that had been replaced tried to acknowledge or to act.
    pub fenced: u64,
    /// Messages that were delivered at least once.
    pub waited: u64,
    /// How long these waited from being sent to their first delivery, summed up; in seconds where it is read as text.
    #[serde(rename = "waited_s", serialize_with = "seconds")]
    pub waited_for: Duration,
}

impl LaneStats {
    /// Takes those of another lane in: fills, bounds and counters are summed up.
    pub fn add(&mut self, other: &Self) {
        self.queued += other.queued;
        self.leased += other.leased;
        self.capacity += other.capacity;
        self.bytes += other.bytes;
        self.capacity_bytes += other.capacity_bytes;
        self.peak_bytes += other.peak_bytes;
        self.add_counts(other);
    }

    /// Takes what another lane has counted in, without what it holds and may hold.
    pub fn add_counts(&mut self, other: &Self) {
        self.sent += other.sent;
        self.acked += other.acked;
        self.redelivered += other.redelivered;
        self.poisoned += other.poisoned;
        self.dropped += other.dropped;
        self.shed += other.shed;
        self.fenced += other.fenced;
        self.waited += other.waited;
        self.waited_for += other.waited_for;
    }
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// What a lane counts.
#[derive(Default)]
pub(super) struct Counters {
    sent: AtomicU64,
    acked: AtomicU64,
    redelivered: AtomicU64,
    poisoned: AtomicU64,
    dropped: AtomicU64,
    shed: AtomicU64,
    fenced: AtomicU64,
    waited: AtomicU64,
    waited_ns: AtomicU64,
}

/// What can be counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    Sent,
    Acked,
    Redelivered,
    Poisoned,
    Dropped,
    Shed,
    Fenced,
}

impl Counters {
    pub(super) fn count(&self, what: Count) {
        let counter = match what {
            Count::Sent => &self.sent,
            Count::Acked => &self.acked,
            Count::Redelivered => &self.redelivered,
            Count::Poisoned => &self.poisoned,
            Count::Dropped => &self.dropped,
            Count::Shed => &self.shed,
            Count::Fenced => &self.fenced,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A message was delivered for the first time, so long after it was sent.
    pub(super) fn count_wait(&self, waited: Duration) {
        self.waited.fetch_add(1, Ordering::Relaxed);
        self.waited_ns.fetch_add(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The figures, with what the books know.
    pub(super) fn stats(
        &self,
        name: &str,
        policy: &LanePolicy,
        [queued, leased]: [usize; 2],
        [units, peak]: [u64; 2],
    ) -> LaneStats {
        LaneStats {
            name: name.to_owned(),
            queued,
            leased,
            capacity: policy.capacity,
            bytes: units as usize * UNIT,
            capacity_bytes: policy.bytes,
            peak_bytes: peak as usize * UNIT,
            sent: self.sent.load(Ordering::Relaxed),
            acked: self.acked.load(Ordering::Relaxed),
            redelivered: self.redelivered.load(Ordering::Relaxed),
            poisoned: self.poisoned.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            shed: self.shed.load(Ordering::Relaxed),
            fenced: self.fenced.load(Ordering::Relaxed),
            waited: self.waited.load(Ordering::Relaxed),
            waited_for: Duration::from_nanos(self.waited_ns.load(Ordering::Relaxed)),
        }
    }
}
