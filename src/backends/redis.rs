//! The way to Redis that cache, leases and locks share: a pool of connections, and what Redis says by what can be done.
//!
//! In: commands. Out: their answers. The deadline is that of [`Remote`], under which every call runs; a connection whose
//! call ended without an answer is not used again. What may fail: see [`fault_of`]; Redis may be away at the start and at
//! any time after.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError,
    ServerErrorKind, TlsCertificates,
};
use deadpool_redis::{Connection, Manager, Pool, PoolError, Runtime, TimeoutType, Timeouts};
use tokio::runtime::Handle;

use super::fault::PortFault;
use super::remote::Remote;
use crate::domain::failure::FailureClass;

/// How to reach Redis.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// `redis://user:password@host:port/db`, or `rediss://…` for TLS.
    pub url: String,
    /// First part of every key, so that several may share a server.
    pub prefix: String,
    /// Most connections.
    pub pool: usize,
    /// Longest wait for a connection to be made.
    pub connect_timeout: Duration,
    /// Longest that one call takes.
    pub timeout: Duration,
    /// For `rediss`: certificates of the authority that signed the server's, as a PEM file; those of the system where unset.
    pub ca: Option<PathBuf>,
}

impl fmt::Debug for RedisSettings {
    /// Without the URL: it has a password in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisSettings({}, pool {}, timeout {:?})", self.prefix, self.pool, self.timeout)
    }
}

/// Connections to Redis. Cheap to clone.
#[derive(Clone)]
pub struct RedisLink {
    pool: Pool,
    prefix: Arc<str>,
    timeout: Duration,
    io: Handle,
}

impl fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisLink({}, {:?})", self.prefix, self.pool.status())
    }
}

impl RedisLink {
    /// Connections on `io`, made at the first call.
    ///
    /// # Errors
    /// [`PortFault`] of class `Config`: a URL or a certificate that is no such thing.
    pub fn new(settings: &RedisSettings, io: Handle) -> Result<Self, PortFault> {
        let config = |what: String| PortFault::new("cache", FailureClass::Config, what);
        let manager = manager(settings).map_err(config)?;
        let timeouts = Timeouts {
            // Less than the call has: who gets no connection hears why.
            wait: Some(settings.timeout / 2),
            create: Some(settings.connect_timeout),
            recycle: Some(settings.timeout),
        };
        let pool = Pool::builder(manager).max_size(settings.pool).timeouts(timeouts).runtime(Runtime::Tokio1);
        let pool = pool.build().map_err(|error| config(error.to_string()))?;
        Ok(Self { pool, prefix: settings.prefix.as_str().into(), timeout: settings.timeout, io })
    }

    /// The key in Redis for a key of ours.
    pub fn key(&self, kind: &str, key: &str) -> String {
        format!("{}:{kind}:{key}", self.prefix)
    }

    /// Where and for how long the calls of `port` run.
    pub fn remote(&self, port: &'static str) -> Remote {
        Remote { port, io: self.io.clone(), deadline: self.timeout }
    }

    /// Runs one command or script of `port` on a connection of the pool, for a caller that bounds it by a time.
    ///
    /// # Errors
    /// [`PortFault`], by [`fault_of`].
    pub async fn run<T: FromRedisValue>(
        &self,
        port: &'static str,
        call: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, PortFault> {
        let connection = self.pool.get().await.map_err(|error| fault_of_pool(port, &error))?;
        let mut loan = Loan { connection: None, is_answered: false };
        let answer = call(loan.connection.insert(connection)).await;
        loan.is_answered = !answer.as_ref().is_err_and(RedisError::is_unrecoverable_error);
        answer.map_err(|error| fault_of(port, &error))
    }
}

/// A connection of the pool for one call. It goes back once an answer came, and else out of the pool: also where the call
/// is dropped, its answer may still come, and nobody else should get the connection meanwhile.
struct Loan {
    connection: Option<Connection>,
    is_answered: bool,
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take().filter(|_| !self.is_answered) {
            drop(Connection::take(connection));
        }
    }
}

fn manager(settings: &RedisSettings) -> Result<Manager, String> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(settings.connect_timeout))
        // The deadline of the call is the one.
        .set_response_timeout(None);
    // The parser's own words may quote the URL.
    let bad = |_| "store.cache.url is none of the form redis://USER:PASSWORD@HOST:PORT".to_owned();
    let info = settings.url.as_str().into_connection_info().map_err(bad)?;
    let Some(ca) = &settings.ca else {
        return Manager::new_with_config(info, config).map_err(bad);
    };
    let root = std::fs::read(ca).map_err(|error| format!("store.cache.tls_ca {}: {error}", ca.display()))?;
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(root) };
    let client = Client::build_with_tls(info, certificates);
    let client = client.map_err(|error| format!("store.cache.tls_ca {}: {error}", ca.display()))?;
    Manager::new_with_config(client.get_connection_info().clone(), config).map_err(bad)
}

/// What Redis says, by what can be done about it.
pub fn fault_of(port: &'static str, error: &RedisError) -> PortFault {
    let (class, advice) = class_of(error);
    PortFault::new(port, class, format!("{error} ({advice})"))
}

fn class_of(error: &RedisError) -> (FailureClass, &'static str) {
    let code = error.code().unwrap_or_default();
    if ["NOAUTH", "WRONGPASS", "NOPERM"].contains(&code)
        || code.is_empty() && error.kind() == ErrorKind::AuthenticationFailed
    {
        return (FailureClass::Config, "see to user, password and rights in store.cache.url");
    }
    match (error.kind(), code) {
        (_, "OOM") => (FailureClass::Overload, "Redis is full: give it more memory or a maxmemory-policy"),
        (ErrorKind::Io | ErrorKind::ClusterConnectionNotFound, _)
        | (_, "MISCONF" | "LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY") => {
            (FailureClass::Dependency, "see to Redis")
        }
        (ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported, _) => {
            (FailureClass::Config, "see to store.cache.url")
        }
        (
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::CrossSlot),
            _,
        ) => (FailureClass::Config, "a Redis Cluster is not supported: name one primary"),
        _ if error.is_timeout() || error.is_connection_dropped() => {
            (FailureClass::Dependency, "see to Redis")
        }
        _ => (FailureClass::Bug, "send a bug report"),
    }
}

fn fault_of_pool(port: &'static str, error: &PoolError) -> PortFault {
    match error {
        PoolError::Backend(error) => fault_of(port, error),
        PoolError::Timeout(TimeoutType::Wait) => {
            PortFault::new(port, FailureClass::Overload, "all connections of store.cache.pool are busy")
        }
        PoolError::Timeout(_) => {
            PortFault::new(port, FailureClass::Dependency, "no connection within store.cache.connect_timeout")
        }
        other => PortFault::new(port, FailureClass::Bug, other.to_string()),
    }
}
