//! Membership of a consumer group: keeps the dynamic group of consumers equal to the partitions that are this process's.
//!
//! In: the set of partitions that the log shows, as it changes. Out: members of the group wanted and wanted no longer. A
//! partition that went away and came back is another assignment: its consumer is replaced, for its claim is void. On the
//! way down the consumers drain first, then the group is left, so that others need not wait until they miss us. What may
//! fail: the group cannot be joined, which is tried again; a log in trouble gives no partitions.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{ActorContext, AsyncContext};
use parking_lot::Mutex;

use crate::backends::event_log::{Assigned, EventLog};
use crate::domain::failure::FailureClass;
use crate::supervisors::kernel::probe::{Drain, Probe};
use crate::supervisors::kernel::seat::{Seated, Worker};
use crate::supervisors::kernel::spec::{ChildSpec, Group};

/// How long the group is asked for leave. Shorter than the drain of this actor.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// A log that ends the group while it is being closed, ends it when we are told to drain, or about then.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);

/// Makes the consumer of a topic's partition; `None` where nothing is to be read there.
pub type MakeConsumer = dyn Fn(&str, u32) -> Option<ChildSpec> + Send + Sync;

/// What the actor needs.
#[derive(Clone)]
pub struct MembershipDeps {
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// Consumer group.
    pub group: &'static str,
    /// Where the consumers live.
    pub consumers: Group,
    /// Makes them.
    pub make: Arc<MakeConsumer>,
    /// Which of them are wanted, and for which assignment; outlives the actor.
    pub wanted: Arc<Mutex<BTreeMap<String, u64>>>,
}

/// The actor.
pub struct Membership {
    deps: MembershipDeps,
}

impl Membership {
    /// A membership of the group that `deps` names.
    pub fn new(deps: MembershipDeps) -> Self {
        Self { deps }
    }
}

impl Worker for Membership {
    fn started(&mut self, probe: &Probe, ctx: &mut Seated<Self>) {
        probe.ready();
        let (follow, probe) = (follow(self.deps.clone(), probe.clone()), probe.clone());
        ctx.spawn(wrap_future(follow).map(move |end, _, ctx: &mut Seated<Self>| {
            if let Err(why) = end {
                probe.fail(FailureClass::Dependency, why);
            }
            ctx.stop();
        }));
    }

    /// The loop sees the request itself, and leaves the group.
    fn drain(&mut self, _probe: &Probe, _reads_lane: bool, _ctx: &mut Seated<Self>) {}
}

/// Follows the group until it is time to drain.
///
/// # Errors
/// The log gives nothing of the group any more, and is not being closed.
async fn follow(deps: MembershipDeps, probe: Probe) -> Result<(), &'static str> {
    // A log that is this process's alone has nobody to share with.
    let Some(mut assigned) = deps.log.assigned(deps.group) else { return Ok(()) };
    loop {
        let now = assigned.borrow_and_update().clone();
        probe.gauge("partitions", now.len() as f64);
        deps.reconcile(&now);
        probe.progress();
        tokio::select! {
            biased;
            drain = probe.drained() => {
                if drain == Drain::Shutdown {
                    // In the midst of a rebalance the brokers hear nobody out until the slowest member has answered.
                    let left = tokio::time::timeout(LEAVE_WITHIN, deps.log.leave(deps.group)).await;
                    if left.is_err() {
                        tracing::warn!(group = deps.group, "went without leave: the group waits until it misses us");
                    }
                }
                return Ok(());
            }
            changed = assigned.changed() => if changed.is_err() {
                let drained = tokio::time::timeout(DRAIN_WITHIN, probe.drained()).await;
                return drained.map(drop).map_err(|_| "the group cannot be joined");
            },
        }
    }
}

impl MembershipDeps {
    /// Makes the consumers those of `assigned`.
    fn reconcile(&self, assigned: &Assigned) {
        let mut wanted = self.wanted.lock();
        let specs: BTreeMap<String, (u64, ChildSpec)> = assigned
            .iter()
            .filter_map(|((topic, partition), number)| {
                let spec = (self.make)(topic, *partition)?;
                Some((spec.name.to_string(), (*number, spec)))
            })
            .collect();
        wanted.retain(|name, number| {
            let stays = specs.get(name).is_some_and(|(now, _)| now == number);
            if !stays {
                self.consumers.unwant(name);
            }
            stays
        });
        for (name, (number, spec)) in specs {
            if let Entry::Vacant(vacant) = wanted.entry(name) {
                self.consumers.want(spec);
                vacant.insert(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use tokio::sync::watch;

    use super::*;
    use crate::supervisors::kernel::policy::Policy;
    use crate::supervisors::kernel::pools::{INLINE, Pools};
    use crate::supervisors::kernel::tree::Tree;

    struct Idle;
    impl Worker for Idle {}

    /// A log that does nothing but show what is assigned, after its group could not be joined so many times.
    #[derive(Default)]
    struct NoLog {
        refuses: AtomicU32,
        shown: watch::Sender<Assigned>,
    }

    fn deps(log: NoLog) -> MembershipDeps {
        let make = |topic: &str, partition: u32| {
            let name = format!("{topic}-{partition}");
            (topic != "strange").then(|| ChildSpec::worker(name, Policy::default(), |_| Idle).build())
        };
        MembershipDeps {
            log: Arc::new(log),
            group: "g",
            consumers: Group::default(),
            make: Arc::new(make),
            wanted: Arc::default(),
        }
    }

    fn assigned(places: &[(&str, u32, u64)]) -> Assigned {
        places.iter().map(|(topic, partition, number)| (((*topic).to_owned(), *partition), *number)).collect()
    }

    #[test]
    fn consumers_come_and_go_with_their_partitions() {
        let deps = deps(NoLog::default());
        deps.reconcile(&assigned(&[("t", 0, 1), ("t", 1, 2), ("strange", 0, 3)]));
        assert_eq!(deps.consumers.names(), ["t-0", "t-1"]);
        deps.reconcile(&assigned(&[("t", 1, 2)]));
        assert_eq!(deps.consumers.names(), ["t-1"]);
        deps.reconcile(&assigned(&[("t", 1, 4)]));
        assert_eq!(*deps.wanted.lock(), BTreeMap::from([("t-1".to_owned(), 4)]), "it is replaced");
        deps.reconcile(&assigned(&[]));
        assert!(deps.consumers.names().is_empty());
    }

    #[test]
    fn a_group_that_cannot_be_joined_is_tried_again_and_costs_no_restarts() {
        let runtime = || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
            runtime.expect("a runtime can be built")
        };
        actix::System::with_tokio_rt(runtime).block_on(async {
            let log = NoLog { refuses: AtomicU32::new(20), ..NoLog::default() };
            log.shown.send_replace(assigned(&[("t", 0, 1)]));
            let deps = deps(log);
            let group = deps.consumers.clone();
            let policy = Policy { pool: INLINE.to_owned(), intensity: 2, ..Policy::default() };
            let members =
                ChildSpec::worker("members", policy.clone(), move |_| Membership::new(deps.clone()));
            let root = ChildSpec::supervisor("root", policy, vec![members.build()]);
            let tree = Tree::start(&root, Pools::new([].into()));
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert!(group.names().is_empty());
            let restarts =
                |tree: &Tree| tree.view().snapshot().root.find("members").map(|node| node.restarts);
            assert!(restarts(&tree) >= Some(1), "it is tried again");
            tokio::time::sleep(Duration::from_secs(3600)).await;
            assert_eq!((restarts(&tree), group.names()), (Some(20), vec!["t-0".to_owned()]));
            tree.stop(Duration::from_secs(5)).await;
        });
    }

    mod no_log {
        use std::sync::atomic::Ordering;

        use futures_util::future::BoxFuture;
        use tokio::sync::watch;

        use super::NoLog;
        use crate::backends::event_log::*;

        fn never<T: Send + 'static>() -> BoxFuture<'static, Result<T, LogError>> {
            Box::pin(std::future::ready(Err(LogError::Closed)))
        }

        impl EventLog for NoLog {
            fn assigned(&self, _: &str) -> Option<watch::Receiver<Assigned>> {
                let refuses =
                    self.refuses.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
                Some(if refuses.is_ok() { watch::channel(Assigned::new()).1 } else { self.shown.subscribe() })
            }
            fn partitions(&self, _: &str) -> Option<u32> {
                None
            }
            fn append(
                &self,
                _: &str,
                _: u32,
                _: Record,
                _: Option<u128>,
            ) -> BoxFuture<'static, Result<Appended, LogError>> {
                never()
            }
            fn read(
                &self,
                _: &str,
                _: u32,
                _: Offset,
                _: usize,
                _: usize,
            ) -> BoxFuture<'static, Result<Vec<StoredRecord>, LogError>> {
                never()
            }
            fn wait_for(&self, _: &str, _: u32, _: Offset) -> BoxFuture<'static, Result<(), LogError>> {
                never()
            }
            fn bounds(&self, _: &str, _: u32) -> Result<(Offset, Offset), LogError> {
                Err(LogError::Closed)
            }
            fn claim(
                &self,
                _: &str,
                _: &str,
                _: u32,
            ) -> BoxFuture<'static, Result<(Claim, Committed), LogError>> {
                never()
            }
            fn commit(
                &self,
                _: &str,
                _: &str,
                _: u32,
                _: Claim,
                _: Committed,
            ) -> BoxFuture<'static, Result<(), LogError>> {
                never()
            }
            fn committed(&self, _: &str, _: &str, _: u32) -> Result<Option<Committed>, LogError> {
                Err(LogError::Closed)
            }
        }
    }
}
