//! The data lane of a child: a bounded queue that its supervisor owns, read by the actor as a stream of leases.
//!
//! In: messages from [`Port`]s. Out: [`Lease`]s to the incarnation that runs now. Because queue and permits do not belong
//! to the actor, both survive its crash: a lease that is dropped without an acknowledgement goes back to its old place in
//! the queue with one attempt more, and after `max_attempts` takes the message's poison path.
//!
//! `books` holds what is queued and what is leased, `inbox` hands out, `lease` is what is handed out, `stats` the figures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::policy::LanePolicy;
use super::port::Port;
use super::probe::Probe;

mod books;
mod inbox;
mod lease;
mod stats;

pub(super) use books::Shared;
pub use inbox::Inbox;
pub use lease::Lease;
pub use stats::LaneStats;

/// What may travel in a lane. Messages are immutable: the lane keeps its own reference for redelivery.
pub trait Cargo: Send + Sync + 'static {
    /// Bytes this message counts for in the lane's byte bound.
    fn weight(&self) -> usize;

    /// Called when the message was delivered `attempts` times and no incarnation acknowledged it: tell whoever waits
    /// for it. Must not block; runs wherever the last lease was dropped, perhaps while a panic unwinds.
    fn poisoned(&self, attempts: u32);

    /// As [`poisoned`](Cargo::poisoned), where the operator had such messages dropped (`lane.poison = "drop"`): it is gone, and
    /// nobody shall look into it any further. By default whoever waits is told the same.
    fn dropped(&self, attempts: u32) {
        self.poisoned(attempts);
    }

    /// What it is, for the record of a crash: where it came from, how much it is. Never a part of its content.
    fn describe(&self) -> String {
        let name = std::any::type_name::<Self>();
        format!("{}, {} bytes", name.rsplit("::").next().unwrap_or(name), self.weight())
    }
}

/// A bounded lane. Clones are handles of the same lane.
///
/// ```
/// use std::time::Duration;
/// use futures_util::StreamExt;
/// use obtrace::supervisors::kernel::lane::{Cargo, Lane};
/// use obtrace::supervisors::kernel::policy::Policy;
/// use obtrace::supervisors::kernel::probe::Probe;
///
/// struct Batch(&'static str);
///
/// impl Cargo for Batch {
///     fn weight(&self) -> usize {
///         self.0.len()
///     }
///     fn poisoned(&self, attempts: u32) {
///         eprintln!("{} failed {attempts} times", self.0);
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let lane = Lane::new("process.otlp", Policy::default().lane);
/// lane.port().send(Batch("spans"), Duration::from_secs(1)).await.unwrap();
///
/// // In a tree the supervisor gives the inbox to each incarnation; this one crashes with the batch in hand …
/// let mut inbox = lane.inbox(Probe::detached());
/// let lease = inbox.next().await.unwrap();
/// drop((lease, inbox));
///
/// // … so the next one gets it again.
/// let mut inbox = lane.inbox(Probe::detached());
/// let lease = inbox.next().await.unwrap();
/// assert_eq!((lease.0, lease.attempts()), ("spans", 1));
/// assert!(lease.ack());
/// # });
/// ```
pub struct Lane<M: Cargo> {
    pub(super) shared: Arc<Shared<M>>,
}

/// What the kernel can ask of a lane without knowing what travels in it.
pub trait LaneView: Send + Sync {
    /// Fill and counters.
    fn stats(&self) -> LaneStats;
    /// Lets nothing more in; what is queued is still handed out.
    fn close(&self);
    /// Takes every lease of an incarnation that is no longer the current one of its child back into the queue; its later
    /// acknowledgements count for nothing. With `blame` each message that had not [passed](Lease::passed) has one attempt
    /// more on its count. Returns how many.
    fn revoke(&self, blame: bool) -> usize;
    /// Moves the bounds and rules, while messages are in it: what is over a smaller bound drains down, nothing is dropped.
    fn resize(&self, policy: LanePolicy);
    /// Has every inbox look again whether it may hand out.
    fn wake(&self);
    /// What the incarnation of `holder` has in hand here.
    fn held_by(&self, holder: &Probe) -> Option<Held>;
}

/// What an incarnation has in hand.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Held {
    /// The lane it came from.
    pub lane: String,
    /// The message, in its own words ([`Cargo::describe`]): one that failed before, or else the newest.
    pub message: String,
    /// Deliveries of it that failed before this one.
    pub attempts: u32,
    /// How many messages are in hand.
    pub leases: usize,
}

impl Held {
    /// True when its holder's crash is not the first one over this message.
    pub fn is_suspect(&self) -> bool {
        self.attempts > 0
    }
}

impl<M: Cargo> Lane<M> {
    /// An empty open lane. Bounds below one message or one KiB are raised to that.
    pub fn new(name: impl Into<Arc<str>>, policy: LanePolicy) -> Self {
        Self { shared: Arc::new(Shared::new(name.into(), policy)) }
    }

    /// A sender into this lane.
    pub fn port(&self) -> Port<M> {
        Port::new(self.shared.clone())
    }

    /// The receiving end for one incarnation. It hands out at most `credits` leases at a time.
    pub fn inbox(&self, probe: Probe) -> Inbox<M> {
        Inbox::new(self.shared.clone(), probe)
    }
}

impl<M: Cargo> Clone for Lane<M> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<M: Cargo> std::fmt::Debug for Lane<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lane({:?})", self.stats())
    }
}

impl<M: Cargo> LaneView for Lane<M> {
    fn stats(&self) -> LaneStats {
        self.shared.stats()
    }

    fn close(&self) {
        self.shared.close();
    }

    fn revoke(&self, blame: bool) -> usize {
        self.shared.revoke(blame)
    }

    fn resize(&self, policy: LanePolicy) {
        self.shared.resize(policy);
    }

    fn wake(&self) {
        self.shared.wake_all();
    }

    fn held_by(&self, holder: &Probe) -> Option<Held> {
        let (message, attempts, leases) = self.shared.held_by(holder)?;
        Some(Held { lane: self.shared.name.to_string(), message: described(&*message), attempts, leases })
    }
}

/// A message's own words. They are foreign code, and asked for while a panic unwinds.
fn described<M: Cargo>(message: &M) -> String {
    catch_unwind(AssertUnwindSafe(|| message.describe()))
        .unwrap_or_else(|_| String::from("(its description panicked)"))
}
