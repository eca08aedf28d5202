//! The configuration: layers in (defaults, profile, files, environment, flags), checked typed values with provenance out.
//!
//! One file a stage. A section is defined once, by `config_struct!`: struct, defaults, reader and manual come from it.

// Documentation of a key is the manual's text too, where an address is an address and `[table]` is a table.
#![allow(rustdoc::bare_urls, rustdoc::broken_intra_doc_links)]

pub mod effect;
pub mod error;
pub mod ingest;
pub mod kafka;
pub mod layers;
pub mod live;
pub mod node;
pub mod observe;
pub mod plan;
pub mod policy;
pub mod process;
pub mod provenance;
pub mod reader;
pub mod reference;
pub mod roles;
pub mod schema;
pub mod secret;
pub mod serve;
pub mod store;
pub mod stream;
pub mod supervision;
pub mod telemetry;
pub mod tenant;
pub mod units;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use error::{ConfigError, ConfigErrors};
pub use layers::{Flag, LoadArgs};
pub use provenance::Provenance;
pub use reader::Explained;

use effect::Effect::{Live, Process};
use ingest::IngestConfig;
use observe::ObserveConfig;
use process::ProcessConfig;
use reader::Reader;
use roles::Role;
use schema::{Validate, config_enum, config_struct};
use serve::ServeConfig;
use store::StoreConfig;
use stream::StreamConfig;
use supervision::SupervisionConfig;
use telemetry::TelemetryConfig;
use tenant::TenantConfig;

config_enum! {
    /// How Obtrace writes its own log.
    pub enum LogFormat {
        /// Lines for people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

config_struct! {
    /// Everything that can be configured.
    pub struct Config {
        /// Folder of all data: the log, the engine, crash records. One process at a time.
        data_dir: PathBuf = PathBuf::from("data") => Process,
        /// What this process does: "ingest-edge" takes OTLP in, "worker-otlp" stores it, "query-gateway" answers. Several
        /// processes need a log and a store that they share.
        roles: Vec<Role> = Role::ALL.to_vec() => Process,
        /// What Obtrace logs of itself, on stderr: "warn", "info", "debug", or by module: "info,obtrace::wire=debug".
        log: String = "info".into() => Live,
        /// Form of these lines: "text" or "json".
        log_format: LogFormat = LogFormat::Text => Process,
        /// Whether a start brings the schemas of the stores up to date. Unset: those in data_dir yes, others no: `obtrace
        /// migrate` does it once for all processes, which wait until it is done.
        migrate_on_start: Option<bool> = None => Process,
        /// Ingest: where OTLP comes in, how much of it at a time, and how it is stamped.
        ingest: IngestConfig = IngestConfig::default(),
        /// Stream: the durable log between the edge and the consumers.
        stream: StreamConfig = StreamConfig::default() => Process,
        /// Process: how consumers cut the log into blocks for the store.
        process: ProcessConfig = ProcessConfig::default() => Live,
        /// Telemetry: the ClickHouse that keeps spans, logs and metrics.
        telemetry: TelemetryConfig = TelemetryConfig::default() => Process,
        /// Store: state, blobs and cache.
        store: StoreConfig = StoreConfig::default() => Process,
        /// Serve: the REST API.
        serve: ServeConfig = ServeConfig::default() => Live,
        /// Observe: what Obtrace tells of itself.
        observe: ObserveConfig = ObserveConfig::default() => Live,
        /// Tenant: API keys, plans, and the gate that holds tenants to them.
        tenant: TenantConfig = TenantConfig::default() => Live,
        /// Supervision: how actors are restarted, started and stopped.
        supervision: SupervisionConfig = SupervisionConfig::default(),
    }
}

impl Config {
    /// The addresses that this process listens on, by their keys.
    pub fn listeners(&self) -> Vec<(&'static str, SocketAddr)> {
        let mut listeners = vec![("serve.http", self.serve.http)];
        if self.has_role(Role::IngestEdge) {
            listeners.insert(0, ("ingest.otlp_http", self.ingest.otlp_http));
            listeners.insert(0, ("ingest.otlp_grpc", self.ingest.otlp_grpc));
        }
        listeners
    }
}

impl Validate for Config {
    fn validate(&self, at: &mut Reader) {
        self.check_roles(at);
        let listeners = self.listeners();
        for (i, (key, address)) in listeners.iter().enumerate() {
            for (other, _) in listeners[..i].iter().filter(|(_, a)| a == address && a.port() != 0) {
                at.refuse(&[key, other], &format!("does not fit: {key} and {other} are both {address}"));
            }
        }
        if let Err(why) = check_filter(&self.log) {
            at.refuse(&["log"], &format!("is no filter of log lines: {why}"));
        }
    }
}

/// Checks a filter of log lines. A bare word that is no level would be taken for a module's name and let all of its
/// lines through, so it is refused as the slip that it is.
fn check_filter(filter: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in filter.split(',').map(str::trim).filter(|part| !part.is_empty() && !part.contains(['=', '[']))
    {
        if !LEVELS.contains(&part.to_ascii_lowercase().as_str()) {
            let meant = error::suggest(part, LEVELS).map_or_else(
                || format!("there are {}, or by module: {part}=debug", LEVELS.join(", ")),
                |meant| format!("did you mean {meant}?"),
            );
            return Err(format!("{part:?} is no level, {meant}"));
        }
    }
    tracing_subscriber::EnvFilter::try_new(filter).map(drop).map_err(|error| error.to_string())
}

/// A configuration that has been checked, and where each of its values comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Their sources.
    pub provenance: Provenance,
}

impl Loaded {
    /// The value at a dotted path with the place that set it; `None` when there is no such key.
    pub fn explain(&self, path: &str) -> Option<Explained> {
        self.provenance.explain(path)
    }
}
