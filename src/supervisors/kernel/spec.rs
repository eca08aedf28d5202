//! What a stage hands to the kernel: the specification of its children.

use std::sync::Arc;

use futures_util::future::AbortHandle;

use super::child_ref::ChildRef;
pub use super::group::Group;
use super::lane::{Cargo, Lane, LaneView};
use super::launch::{Berth, Recipe, launch};
use super::policy::Policy;
use super::probe::Probe;
use super::seat::{Consume, Worker, attach_lane};

/// A child of a supervisor: a worker, a supervisor, or a dynamic group. Cheap to clone.
///
/// ```
/// use obtrace::supervisors::kernel::policy::{Policy, Strategy};
/// use obtrace::supervisors::kernel::seat::Worker;
/// use obtrace::supervisors::kernel::group::Group;
/// use obtrace::supervisors::kernel::spec::ChildSpec;
///
/// struct Clerk;
/// impl Worker for Clerk {}
///
/// let clerk = |name: String, policy: Policy| ChildSpec::worker(name, policy, |_probe| Clerk).build();
/// let counter = ChildSpec::replicated("counter", Policy { replicas: 3, ..Policy::default() }, clerk);
/// // Members of a group come and go while the tree runs.
/// let guests = Group::default();
/// guests.want(clerk("guest-1".into(), Policy::default()));
/// let shop = ChildSpec::supervisor(
///     "shop",
///     Policy { strategy: Strategy::RestForOne, ..Policy::default() },
///     vec![counter, ChildSpec::group("guests", Policy::default(), guests)],
/// );
/// assert_eq!(&*shop.name, "shop");
/// ```
#[derive(Clone)]
pub struct ChildSpec {
    /// Name within the parent; the path is made of these, joined by dots.
    pub name: Arc<str>,
    /// Its policy, which thousands of children may share.
    pub policy: Arc<Policy>,
    pub(super) kind: Kind,
}

#[derive(Clone)]
pub(super) enum Kind {
    Worker(Arc<dyn Launcher>),
    Supervisor(Arc<Vec<ChildSpec>>),
    Replicas(Arc<Make>),
    Group(Group),
}

/// Makes the replica of a name.
pub(super) type Make = dyn Fn(String, Policy) -> ChildSpec + Send + Sync;

/// Starts incarnations of one worker, whatever its type.
pub(super) trait Launcher: Send + Sync {
    fn launch(self: Arc<Self>, berth: Berth) -> AbortHandle;
    fn lanes(&self) -> &[Arc<dyn LaneView>];
}

impl ChildSpec {
    /// A supervisor over `children`, started in this order and stopped in the reverse one.
    pub fn supervisor(
        name: impl Into<Arc<str>>,
        policy: impl Into<Arc<Policy>>,
        children: Vec<ChildSpec>,
    ) -> Self {
        Self { name: name.into(), policy: policy.into(), kind: Kind::Supervisor(Arc::new(children)) }
    }

    /// Leaves out every node below this one whose path `keep` refuses, with all that is below it; `path` is this node's own.
    #[must_use]
    pub fn only(mut self, path: &str, keep: &dyn Fn(&str) -> bool) -> Self {
        if let Kind::Supervisor(children) = &self.kind {
            let below = |child: &Self| match path {
                "" => child.name.clone(),
                _ => Arc::from(format!("{path}.{}", child.name)),
            };
            let kept = children.iter().filter(|child| keep(&below(child)));
            self.kind = Kind::Supervisor(Arc::new(
                kept.map(|child| child.clone().only(&below(child), keep)).collect(),
            ));
        }
        self
    }

    /// A dynamic group: its members come and go by name while it runs.
    pub fn group(name: impl Into<Arc<str>>, policy: impl Into<Arc<Policy>>, group: Group) -> Self {
        Self { name: name.into(), policy: policy.into(), kind: Kind::Group(group) }
    }

    /// Starts the description of a worker made by `factory`, which runs on the worker's own thread.
    pub fn worker<W: Worker>(
        name: impl Into<Arc<str>>,
        policy: impl Into<Arc<Policy>>,
        factory: impl Fn(&Probe) -> W + Send + Sync + 'static,
    ) -> WorkerSpec<W> {
        WorkerSpec {
            name: name.into(),
            policy: policy.into(),
            recipe: Recipe {
                factory: Box::new(factory),
                attach: Vec::new(),
                known_as: None,
                lanes: Vec::new(),
            },
        }
    }

    /// `policy.replicas` workers side by side, made by `make`; a supervisor of that name stands over them. Their number
    /// may be changed while they run, so `make` lives as long as the tree.
    pub fn replicated(
        name: impl Into<Arc<str>>,
        policy: impl Into<Arc<Policy>>,
        make: impl Fn(String, Policy) -> ChildSpec + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), policy: policy.into(), kind: Kind::Replicas(Arc::new(make)) }
    }
}

impl std::fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.kind {
            Kind::Worker(_) => "worker",
            Kind::Supervisor(_) | Kind::Replicas(_) => "supervisor",
            Kind::Group(_) => "group",
        };
        write!(f, "ChildSpec({kind} {})", self.name)
    }
}

/// A worker being described.
pub struct WorkerSpec<W: Worker> {
    name: Arc<str>,
    policy: Arc<Policy>,
    recipe: Recipe<W>,
}

impl<W: Worker> WorkerSpec<W> {
    /// The worker reads this lane.
    #[must_use]
    pub fn reads<M: Cargo>(mut self, lane: &Lane<M>) -> Self
    where
        W: Consume<M>,
    {
        self.recipe.attach.push(attach_lane::<W, M>(lane));
        self.recipe.lanes.push(Arc::new(lane.clone()));
        self
    }

    /// The worker answers control messages through this reference.
    #[must_use]
    pub fn known_as(mut self, child_ref: &ChildRef<W>) -> Self {
        child_ref.bound(self.policy.control_capacity);
        self.recipe.known_as = Some(child_ref.clone());
        self
    }

    /// The finished specification.
    pub fn build(self) -> ChildSpec {
        ChildSpec { name: self.name, policy: self.policy, kind: Kind::Worker(Arc::new(self.recipe)) }
    }
}

impl<W: Worker> std::fmt::Debug for WorkerSpec<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WorkerSpec({})", self.name)
    }
}

impl<W: Worker> Launcher for Recipe<W> {
    fn launch(self: Arc<Self>, berth: Berth) -> AbortHandle {
        launch(self, berth)
    }

    fn lanes(&self) -> &[Arc<dyn LaneView>] {
        &self.lanes
    }
}
