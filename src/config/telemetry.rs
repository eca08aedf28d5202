//! `[telemetry]`: the ClickHouse that keeps spans, logs and metrics, a server or the embedded engine.

use std::path::PathBuf;
use std::time::Duration;

use super::effect::Effect::{Live, Restarts};
use super::reader::{Leaf, Reader};
use super::schema::{Validate, config_struct, leaf_setting};
use super::secret::Secret;
use super::units::ByteSize;

config_struct! {
    /// The telemetry store.
    pub struct TelemetryConfig {
        /// A ClickHouse server's HTTP interface. When it is set no engine is started; nothing else changes.
        url: Option<HttpUrl> = None => Restarts(&["store.engine"]),
        /// Further nodes of the same cluster, which needs telemetry.cluster.name. A call goes to one that is well; an insert
        /// stays with its node while that one is.
        more_urls: Vec<HttpUrl> = Vec::new() => Restarts(&["store.engine"]),
        /// Certificates of authorities to trust for https, beside those of the system: a PEM file.
        ca_file: Option<PathBuf> = None,
        /// Database of the tables. Made if it is missing.
        database: String = "obtrace".into(),
        /// User at the server. The embedded engine has its own.
        user: String = "default".into() => Restarts(&["store.engine"]),
        /// Password at the server. Better given as OBTRACE__TELEMETRY__PASSWORD than in a file.
        password: Secret = Secret::default() => Restarts(&["store.engine"]),
        /// Connections to the store at once.
        max_connections: u32 = 8,
        /// Longest wait for a connection.
        connect_timeout: Duration = Duration::from_secs(5),
        /// Longest wait for an insert. It is then retried as the same block, which the store keeps once.
        insert_timeout: Duration = Duration::from_secs(60) => Live,
        /// Days that a ClickHouse server keeps its own logs (system.query_log and the like), set by `obtrace migrate` where
        /// they would be kept for ever. 0 leaves them alone.
        system_log_days: u16 = 14,
        /// The user who asks.
        reader: ReaderConfig = ReaderConfig::default() => Restarts(&["store.engine"]),
        /// A cluster behind the address: shards of replicas.
        cluster: ClusterConfig = ClusterConfig::default(),
        /// The embedded engine: a child process that loads ClickHouse as a library.
        engine: EngineConfig = EngineConfig::default() => Restarts(&["store.engine"]),
    }
}

config_struct! {
    /// A user of a ClickHouse server who may only read, and sees one tenant a query by row policies. `obtrace migrate` makes
    /// both. The embedded engine has the same wall by itself.
    pub struct ReaderConfig {
        /// Its name. Unset: telemetry.user asks too, and the tenant filter of each query is the only wall.
        user: Option<String> = None,
        /// Its password. Better given as OBTRACE__TELEMETRY__READER__PASSWORD than in a file.
        password: Secret = Secret::default(),
    }
}

config_struct! {
    /// A ClickHouse cluster. Its tables are TABLE_local on every node, replicated in a shard, and TABLE over all shards.
    pub struct ClusterConfig {
        /// Its name in remote_servers of the servers. Unset: one server.
        name: Option<String> = None,
        /// Path of a table in Keeper. The servers fill in {shard}; {database} and {table} are those of the table.
        keeper_path: String = "/clickhouse/tables/{shard}/{database}/{table}".into(),
        /// Name of a replica. The servers fill in {replica}.
        replica: String = "{replica}".into(),
        /// Replicas that must have an insert before it is acknowledged. 0 and 1: the one that took it, others follow.
        insert_quorum: u32 = 0,
        /// How long a shard remembers inserts, and so for how long a block may be retried without being stored twice.
        remember: Duration = Duration::from_secs(7 * 24 * 3600),
    }
}

config_struct! {
    /// The embedded engine.
    pub struct EngineConfig {
        /// Path of libchdb.so. Unset: the cache that `make engine` fills, then lib/obtrace beside the program.
        library: Option<PathBuf> = None,
        /// Memory of the engine. Queries above it fail, inserts wait.
        memory_limit: ByteSize = ByteSize::gib(2),
        /// Queries and inserts at once; the engine runs one on each connection.
        connections: u32 = 4,
        /// Longest wait for the engine to answer after its start.
        start_timeout: Duration = Duration::from_secs(30),
        /// Time it gets to end by itself.
        stop_timeout: Duration = Duration::from_secs(10) => Live,
    }
}

/// An `http://` or `https://` address without credentials in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl(String);

impl HttpUrl {
    /// The address without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Leaf for HttpUrl {
    const EXPECTED: &'static str = "an address such as \"http://127.0.0.1:8123\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_end_matches('/');
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        match rest {
            None => Err("it must begin with http:// or https://".into()),
            Some(rest) if rest.contains('@') => Err("put user and password into their own keys".into()),
            Some(rest) if rest.contains(['?', '#', ' ']) => Err("it must be an address and no more".into()),
            Some("") => Err("it names no host".into()),
            Some(rest) if rest.starts_with([':', '/']) => Err("it names no host".into()),
            Some(_) => Ok(Self(text.to_owned())),
        }
    }

    fn render(&self) -> String {
        super::schema::toml_text(&self.0)
    }
}

leaf_setting!(HttpUrl);

impl Validate for TelemetryConfig {
    fn validate(&self, at: &mut Reader) {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if self.database.is_empty() || !self.database.chars().all(plain) {
            at.refuse(&["database"], "must be a name of a-z, A-Z, 0-9 and '_'");
        }
        if self.url.is_none() && self.cluster.name.is_some() {
            at.refuse(&["cluster.name"], "needs telemetry.url: the embedded engine is no cluster");
        }
        if !self.more_urls.is_empty() && self.cluster.name.is_none() {
            at.refuse(
                &["more_urls"],
                "needs telemetry.url and telemetry.cluster.name: servers that are no cluster do not know of each other's blocks",
            );
        }
        if self.reader.user.is_some() && self.url.is_none() {
            at.refuse(
                &["reader.user"],
                "needs telemetry.url: the embedded engine has one user, held to one tenant a query",
            );
        }
        if self.reader.user.as_ref() == Some(&self.user) {
            at.refuse(&["reader.user", "user"], "must be another user than telemetry.user, which writes");
        }
        if self.max_connections == 0 {
            at.refuse(&["max_connections"], "must be at least 1");
        }
        for (key, value) in
            [("connect_timeout", self.connect_timeout), ("insert_timeout", self.insert_timeout)]
        {
            if value.is_zero() {
                at.refuse(&[key], "must be more than 0");
            }
        }
    }
}

impl Validate for ReaderConfig {}

impl Validate for ClusterConfig {
    fn validate(&self, at: &mut Reader) {
        if self.name.as_ref().is_some_and(|name| name.contains(['\'', '\\', '`', '"'])) {
            at.refuse(&["name"], "must be a name without quotes");
        }
        if !self.keeper_path.starts_with('/') || !self.keeper_path.contains("{shard}") {
            at.refuse(
                &["keeper_path"],
                "must begin with / and have {shard} in it, else all shards are replicas of one",
            );
        }
        if self.replica.is_empty() {
            at.refuse(&["replica"], "must name the replica, such as \"{replica}\"");
        }
        if self.remember < Duration::from_secs(3600) {
            at.refuse(&["remember"], "must be at least 1h: longer than a store may be down");
        }
    }
}

impl Validate for EngineConfig {
    fn validate(&self, at: &mut Reader) {
        if self.memory_limit < ByteSize::mib(256) {
            at.refuse(&["memory_limit"], "must be at least 256MiB: the engine needs about 200MiB to stand");
        }
        if !(2..=64).contains(&self.connections) {
            at.refuse(&["connections"], "must be from 2 (an insert and a query) to 64");
        }
        for (key, value) in [("start_timeout", self.start_timeout), ("stop_timeout", self.stop_timeout)] {
            if value.is_zero() {
                at.refuse(&[key], "must be more than 0");
            }
        }
    }
}
