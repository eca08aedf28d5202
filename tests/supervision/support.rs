//! What the kernel's tests share: paused time, a trace, jobs, and a worker whose every step a test can script.

use std::sync::Arc;
use std::time::Duration;

use actix::{Message, System};
use obtrace::supervisors::kernel::child_ref::ChildRef;
use obtrace::supervisors::kernel::control::{self, Action, OrderError};
use obtrace::supervisors::kernel::journal::EventKind;
use obtrace::supervisors::kernel::lane::{Cargo, Lane, Lease};
use obtrace::supervisors::kernel::policy::{BackoffPolicy, LanePolicy, Policy, Strategy};
use obtrace::supervisors::kernel::pools::{INLINE, Pools};
use obtrace::supervisors::kernel::probe::Probe;
use obtrace::supervisors::kernel::seat::{Consume, Handle, Seated, Worker};
use obtrace::supervisors::kernel::snapshot::{ChildState, NodeSnapshot};
use obtrace::supervisors::kernel::spec::ChildSpec;
use obtrace::supervisors::kernel::tree::{StopReport, Tree, TreeView};
use parking_lot::Mutex;

/// Runs a test in an actix system whose clock stands still until everybody waits; hours then pass in no time.
pub(crate) fn paused<T>(test: impl Future<Output = T>) -> T {
    let runtime = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime can be built")
    };
    System::with_tokio_rt(runtime).block_on(test)
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Lets `time` pass; everything that can run until then has run.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// What happened, in order.
#[derive(Clone, Default, Debug)]
pub(crate) struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    pub(crate) fn add(&self, what: impl Into<String>) {
        self.0.lock().push(what.into());
    }

    /// All since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.0.lock().iter().filter(|line| *line == what).count()
    }
}

/// A message for lanes.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: u32,
    pub(crate) bytes: usize,
    pub(crate) trace: Trace,
}

impl Job {
    pub(crate) fn new(id: u32) -> Self {
        Self { id, bytes: 1, trace: Trace::default() }
    }

    pub(crate) fn traced(id: u32, trace: &Trace) -> Self {
        Self { id, bytes: 1, trace: trace.clone() }
    }
}

impl Cargo for Job {
    fn weight(&self) -> usize {
        self.bytes
    }

    fn poisoned(&self, attempts: u32) {
        self.trace.add(format!("poisoned {} after {attempts}", self.id));
    }

    fn dropped(&self, attempts: u32) {
        self.trace.add(format!("dropped {} after {attempts}", self.id));
    }
}

type Hook<T> = Option<Arc<dyn Fn(T) + Send + Sync>>;
type Start = Option<Arc<dyn Fn(&Probe, &mut Seated<Puppet>) + Send + Sync>>;
type Work = Option<Arc<dyn Fn(Lease<Job>, &mut Seated<Puppet>) + Send + Sync>>;
type Drain = Option<Arc<dyn Fn(&Probe, &mut Seated<Puppet>) + Send + Sync>>;

/// What a puppet does at each step; `None` is the well-behaved default.
#[derive(Clone, Default)]
pub(crate) struct Script {
    /// In its factory; the argument is its generation.
    pub(crate) factory: Hook<u64>,
    /// Instead of reporting ready.
    pub(crate) started: Start,
    /// Instead of acknowledging the lease.
    pub(crate) consume: Work,
    /// Instead of stopping when it reads no lane.
    pub(crate) drain: Drain,
    /// In its drop; the argument is its generation.
    pub(crate) dropped: Hook<u64>,
}

impl Script {
    pub(crate) fn factory(mut self, hook: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.factory = Some(Arc::new(hook));
        self
    }

    pub(crate) fn started(
        mut self,
        hook: impl Fn(&Probe, &mut Seated<Puppet>) + Send + Sync + 'static,
    ) -> Self {
        self.started = Some(Arc::new(hook));
        self
    }

    pub(crate) fn consume(
        mut self,
        hook: impl Fn(Lease<Job>, &mut Seated<Puppet>) + Send + Sync + 'static,
    ) -> Self {
        self.consume = Some(Arc::new(hook));
        self
    }

    pub(crate) fn drain(
        mut self,
        hook: impl Fn(&Probe, &mut Seated<Puppet>) + Send + Sync + 'static,
    ) -> Self {
        self.drain = Some(Arc::new(hook));
        self
    }

    /// Asked to finish up, it goes on for ever.
    pub(crate) fn never_drains(self) -> Self {
        self.drain(|_, ctx| {
            actix::AsyncContext::spawn(ctx, actix::fut::wrap_future(std::future::pending()));
        })
    }

    pub(crate) fn dropped(mut self, hook: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.dropped = Some(Arc::new(hook));
        self
    }
}

/// The scripted worker. Traces `+name` when it starts and `-name` when it is dropped.
pub(crate) struct Puppet {
    name: String,
    probe: Probe,
    trace: Trace,
    script: Script,
}

impl Worker for Puppet {
    fn started(&mut self, probe: &Probe, ctx: &mut Seated<Self>) {
        self.trace.add(format!("+{}", self.name));
        match &self.script.started {
            Some(hook) => hook(probe, ctx),
            None => probe.ready(),
        }
    }

    fn drain(&mut self, probe: &Probe, reads_lane: bool, ctx: &mut Seated<Self>) {
        match &self.script.drain {
            Some(hook) => hook(probe, ctx),
            None if !reads_lane => actix::ActorContext::stop(ctx),
            None => {}
        }
    }
}

impl Consume<Job> for Puppet {
    fn consume(&mut self, lease: Lease<Job>, ctx: &mut Seated<Self>) {
        self.trace.add(format!("{} got {}#{}", self.name, lease.id, lease.attempts() + 1));
        match &self.script.consume {
            Some(hook) => hook(lease, ctx),
            None => assert!(lease.ack()),
        }
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.trace.add(format!("-{}", self.name));
        if let Some(hook) = &self.script.dropped {
            hook(self.probe.generation().number());
        }
    }
}

/// Asks a puppet for its generation.
pub(crate) struct WhichQuery;

impl Message for WhichQuery {
    type Result = u64;
}

impl Handle<WhichQuery> for Puppet {
    type Result = u64;

    fn handle(&mut self, _: WhichQuery, _: &mut Seated<Self>) -> u64 {
        self.probe.generation().number()
    }
}

/// What a puppet can be told to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    Panic,
    Stop,
    Fail(obtrace::domain::failure::FailureClass),
    PanicInSpawned,
}

impl Message for Order {
    type Result = ();
}

impl Handle<Order> for Puppet {
    type Result = ();

    fn handle(&mut self, order: Order, ctx: &mut Seated<Self>) {
        use actix::{ActorContext, AsyncContext};
        match order {
            Order::Panic => panic!("told to"),
            Order::Stop => ctx.stop(),
            Order::Fail(class) => {
                self.probe.fail(class, "told to");
                ctx.stop();
            }
            Order::PanicInSpawned => {
                ctx.spawn(actix::fut::wrap_future(async { panic!("told to, in a spawned future") }));
            }
        }
    }
}

/// Everything about one puppet that a test keeps.
pub(crate) struct Cast {
    pub(crate) name: String,
    pub(crate) known: ChildRef<Puppet>,
}

impl Cast {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), known: ChildRef::default() }
    }

    pub(crate) fn plays(&self, policy: Policy, trace: &Trace, script: Script) -> ChildSpec {
        puppet(&self.name, policy, trace, script).known_as(&self.known).build()
    }

    /// Gives an order and lets it take effect.
    pub(crate) async fn told(&self, order: Order) {
        let _ = self.known.ask(order, ms(10)).await;
        pass(ms(1)).await;
    }

    pub(crate) async fn generation(&self) -> Option<u64> {
        self.known.ask(WhichQuery, ms(10)).await.ok()
    }
}

pub(crate) fn puppet(
    name: &str,
    policy: Policy,
    trace: &Trace,
    script: Script,
) -> obtrace::supervisors::kernel::spec::WorkerSpec<Puppet> {
    let (owned, trace) = (name.to_owned(), trace.clone());
    ChildSpec::worker(name, policy, move |probe| {
        if let Some(hook) = &script.factory {
            hook(probe.generation().number());
        }
        Puppet { name: owned.clone(), probe: probe.clone(), trace: trace.clone(), script: script.clone() }
    })
}

/// Inline, many restarts, backoff of 100 ms that doubles up to 1 s, no jitter.
pub(crate) fn policy() -> Policy {
    Policy {
        pool: INLINE.to_owned(),
        intensity: 20,
        period: Duration::from_secs(60),
        backoff: BackoffPolicy {
            min: ms(100),
            max: ms(1000),
            factor: 2.0,
            jitter: 0.0,
            reset_after: Duration::from_secs(60),
        },
        ..Policy::default()
    }
}

pub(crate) fn strategy(strategy: Strategy) -> Policy {
    Policy { strategy, ..policy() }
}

pub(crate) fn lane(name: &str) -> Lane<Job> {
    Lane::new(name, policy().lane)
}

pub(crate) fn bounds(capacity: usize, bytes: usize, max_attempts: u32) -> LanePolicy {
    LanePolicy { capacity, bytes, max_attempts, ..policy().lane }
}

/// An event in short: its name and what belongs to it.
pub(crate) fn shown(kind: &EventKind) -> String {
    let mut fields = serde_json::to_value(kind).expect("an event can be printed");
    let fields = fields.as_object_mut().expect("an event is an object");
    let name = fields.remove("event").expect("an event has a name");
    let mut out = name.as_str().expect("a name is a text").to_owned();
    for (_, value) in fields {
        out += &match value.as_str() {
            Some(text) => format!(" {text}"),
            None => format!(" {value}"),
        };
    }
    out
}

/// A tree under test. Dropping it with actors still at work fails the test.
pub(crate) struct Rig(Option<Tree>);

impl Rig {
    pub(crate) fn start(policy: Policy, children: Vec<ChildSpec>) -> Self {
        Self::over(policy, children, Pools::new([].into()))
    }

    pub(crate) fn over(policy: Policy, children: Vec<ChildSpec>, pools: Pools) -> Self {
        Self(Some(Tree::start(&ChildSpec::supervisor("root", policy, children), pools)))
    }

    pub(crate) async fn up(policy: Policy, children: Vec<ChildSpec>) -> Self {
        let mut rig = Self::start(policy, children);
        rig.tree().ready().await.expect("the tree comes up");
        rig
    }

    pub(crate) fn tree(&mut self) -> &mut Tree {
        self.0.as_mut().expect("the tree was not stopped yet")
    }

    pub(crate) fn node(&self, path: &str) -> NodeSnapshot {
        let tree = self.0.as_ref().expect("the tree was not stopped yet");
        tree.view().snapshot().root.find(path).unwrap_or_else(|| panic!("no node {path}")).clone()
    }

    pub(crate) fn state(&self, path: &str) -> ChildState {
        self.node(path).state
    }

    /// Gives an order; the answer is there within a second or not at all.
    pub(crate) async fn order(&self, path: &str, action: Action) -> Result<(), OrderError> {
        self.view().order(path, control::Order::new(action, "ann", "a test"), Duration::from_secs(1)).await
    }

    /// Applies a policy.
    pub(crate) async fn apply(&self, path: &str, policy: Policy) -> Result<(), OrderError> {
        self.view().order(path, control::Order::apply(policy, "ann", "a test"), Duration::from_secs(1)).await
    }

    pub(crate) fn view(&self) -> TreeView {
        self.0.as_ref().expect("the tree was not stopped yet").view()
    }

    /// What the journal says about a path, since event `after`; the kinds as they are printed, with their details.
    pub(crate) fn chronicle(&self, path: &str, after: u64) -> Vec<String> {
        let (events, missed) = self.view().journal().after(after);
        assert_eq!(missed, 0);
        events.into_iter().filter(|event| event.path == path).map(|event| shown(&event.kind)).collect()
    }

    pub(crate) async fn stop(mut self) -> StopReport {
        let tree = self.0.take().expect("the tree was not stopped yet");
        tree.stop(Duration::from_secs(120)).await
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(tree) = &self.0 {
            let busy = tree.view().snapshot().root.walk().into_iter().any(|node| {
                use ChildState::{Drained, Quarantined, Stopped};
                node.kind == "worker" && !matches!(node.state, Stopped | Quarantined | Drained)
            });
            assert!(!busy || std::thread::panicking(), "a test left its tree running");
        }
    }
}
