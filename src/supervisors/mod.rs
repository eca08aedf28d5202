//! The supervision tree of Obtrace: what runs, under whom, in which order.
//!
//! [`tree`] is the whole of it. Children start from top to bottom, each when the one before it is ready, and drain from
//! bottom to top: listeners bind last and close first, stores outlive everything that writes to them.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use crate::backends::blobs::BlobStore;
use crate::backends::event_log::EventLog;
use crate::backends::plans::PlanSource;
use crate::backends::state::StateStore;
use crate::backends::telemetry::client::TelemetryClient;
use crate::config::Config;
use crate::config::live::LiveConfig;
use crate::domain::admin::AdminAccess;
use crate::domain::auth::{KeyLog, KeyTable};
use crate::domain::usage::Meter;
use crate::domain::versions::VersionLog;
use crate::messages::serve::ReloadConfig;
use crate::telemetry::metrics::Metrics;
use backends::Shared;
use kernel::lane::Lane;
use kernel::policy::Policy;
use kernel::spec::ChildSpec;
use kernel::tree::SharedView;
use tuning::reload::Origin;

pub mod access;
pub mod backends;
pub mod ingest;
pub mod kernel;
pub mod log;
pub mod policies;
pub mod process;
pub mod roles;
pub mod serve;
pub mod store;
pub mod stream;
pub mod tenant;
pub mod tuning;

/// Threads of the runtime of the I/O clients.
pub const IO_THREADS: usize = 2;

/// What the tree is wired from: the configuration and the clients that live as long as the process.
#[derive(Clone)]
pub struct Parts {
    /// The configuration, which a reload replaces: children read it when they are launched, or as they work.
    pub live: LiveConfig,
    /// The event log.
    pub log: Arc<dyn EventLog>,
    /// The telemetry store; it has no address until its schema is up to date.
    pub telemetry: Arc<TelemetryClient>,
    /// The state store.
    pub state: Arc<dyn StateStore>,
    /// The blob store.
    pub blobs: Arc<dyn BlobStore>,
    /// Cache, rates and locks.
    pub shared: Shared,
    /// Id of this process among those that share a state store or a cache.
    pub node: Arc<str>,
    /// Which tenant has which plan.
    pub plans: Arc<dyn PlanSource>,
    /// What tenants used of this process.
    pub meter: Meter,
    /// Which versions of services came into this process.
    pub versions: VersionLog,
    /// When keys were last used.
    pub key_log: KeyLog,
    /// All API keys.
    pub keys: Arc<ArcSwap<KeyTable>>,
    /// Where it comes from, to be read anew.
    pub origin: Arc<Origin>,
    /// Reloads that are asked for; the reloader reads them.
    pub reloads: Lane<ReloadConfig>,
    /// Who may look at the process itself and steer it.
    pub admin: Arc<ArcSwap<AdminAccess>>,
    /// The metrics of the process.
    pub metrics: Metrics,
    /// The multi-thread runtime of the I/O clients.
    pub io: Handle,
    /// The tree itself, for the admin API; set once it runs.
    pub view: SharedView,
}

impl Parts {
    /// The policy of the node at `path`: what config sets, over what the code holds right for it.
    pub fn policy(&self, path: &str) -> Policy {
        policies::resolve(&self.config(), path)
    }

    /// The configuration as of now.
    pub fn config(&self) -> Arc<Config> {
        self.live.now()
    }
}

/// Folder of the crash records.
pub fn black_boxes(config: &Config) -> PathBuf {
    config.data_dir.join(&config.supervision.black_box.dir)
}

/// The tree of this process: of the whole tree, what its roles say.
pub fn tree(parts: &Parts) -> ChildSpec {
    let config = parts.config();
    whole(parts).only("", &|path| roles::runs(&config, path))
}

/// The whole tree.
fn whole(parts: &Parts) -> ChildSpec {
    let (store, stores) = store::subtree(parts);
    let (tenant, gate) = tenant::subtree(parts, &stores);
    let state = stores.state.clone();
    let (broker_out, stream::BrokerPorts { producer, letters }) = stream::broker_out(parts);
    let (process, process_port) = process::subtree(parts, stores.rows, producer.clone());
    let stream_in = stream::stream_in(parts, &process_port);
    let serve = serve::subtree(parts, gate.clone(), letters, state);
    let ingest = ingest::subtree(parts, producer, gate);
    ChildSpec::supervisor(
        "root",
        parts.policy(""),
        vec![store, tenant, broker_out, process, stream_in, serve, ingest],
    )
}

/// What is left for whoever looks into a tree whose root gave up (`on_root_limit = "halt"`): the API alone. What it would
/// ask of the rest goes unanswered.
pub fn inspection(parts: &Parts) -> ChildSpec {
    // The lane of the tree that ended is closed for good.
    let reloads = kernel::lane::Lane::new("serve.reloader", parts.policy("serve.reloader").lane);
    let parts = &Parts { reloads, ..parts.clone() };
    let (_, stores) = store::subtree(parts);
    let (_, gate) = tenant::subtree(parts, &stores);
    let (_, stream::BrokerPorts { letters, .. }) = stream::broker_out(parts);
    ChildSpec::supervisor("root", parts.policy(""), vec![serve::subtree(parts, gate, letters, stores.state)])
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parts")
    }
}
