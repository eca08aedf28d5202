//! `[store]`: state, blobs and cache, the stores beside the telemetry store: in the data folder, or in Postgres, S3 and
//! Redis.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::schema::{Validate, config_enum, config_struct};
use super::secret::Secret;
use super::telemetry::HttpUrl;
use super::units::ByteSize;

config_struct! {
    /// State, blobs and cache.
    pub struct StoreConfig {
        /// State: usage of tenants, last uses of keys, deploy markers. An SQLite file, or Postgres.
        state: StateConfig = StateConfig::default(),
        /// Blobs: whole objects, in a folder, or in a bucket of an S3 server.
        blobs: BlobConfig = BlobConfig::default(),
        /// Cache: passing values, rate limits and locks, in memory, or in Redis. Edges that share a tenant need Redis.
        cache: CacheConfig = CacheConfig::default(),
    }
}

config_enum! {
    /// Where state is kept.
    pub enum StateBackend {
        /// An SQLite file of this process alone.
        Sqlite = "sqlite",
        /// A Postgres database that processes share.
        Postgres = "postgres",
    }
}

config_enum! {
    /// Where objects are kept.
    pub enum BlobBackend {
        /// A local folder.
        Folder = "folder",
        /// A bucket of an S3 server.
        S3 = "s3",
    }
}

config_enum! {
    /// Where passing values are kept.
    pub enum CacheBackend {
        /// The memory of this process.
        Memory = "memory",
        /// A Redis that processes share.
        Redis = "redis",
    }
}

config_enum! {
    /// TLS to a server.
    pub enum TlsMode {
        /// Encrypted, and the server's certificate is checked.
        Verify = "verify",
        /// In clear: for a way that nobody else sees.
        Off = "off",
    }
}

config_enum! {
    /// Encryption that an S3 server is asked for.
    pub enum Sse {
        /// As the bucket is set up.
        Bucket = "bucket",
        /// By keys of the server (SSE-S3, AES256).
        S3 = "s3",
        /// By a key of its key service (SSE-KMS).
        Kms = "kms",
    }
}

config_struct! {
    /// The state store.
    pub struct StateConfig {
        /// "sqlite" or "postgres".
        backend: StateBackend = StateBackend::Sqlite,
        /// SQLite: file, under the data folder unless absolute. Made if it is missing.
        file: PathBuf = PathBuf::from("state/state.db"),
        /// Postgres: postgres://obtrace_app:PASSWORD@HOST:PORT/DATABASE. The roles come from migrations/postgres/roles.sql.
        /// Better given as OBTRACE__STORE__STATE__URL than in a file.
        url: Secret = Secret::default(),
        /// Postgres: the same database as obtrace_migrate. Only `obtrace migrate` needs it, and a start where
        /// migrate_on_start = true.
        migrate_url: Secret = Secret::default(),
        /// Postgres: most connections.
        pool: u32 = 8,
        /// Postgres: longest wait for a connection to be made. At most timeout.
        connect_timeout: Duration = Duration::from_secs(3),
        /// Postgres: "verify" encrypts and checks the server's certificate; "off" does neither.
        tls: TlsMode = TlsMode::Verify,
        /// Postgres: PEM file of the authority that signed the server's certificate. Unset: those of the system.
        tls_ca: Option<PathBuf> = None,
        /// Postgres: PEM file of our own certificate, then those of authorities in between, where the server asks for one.
        /// Its CN is the user in url, unless pg_ident.conf says otherwise; the user in migrate_url shows the same one.
        tls_cert: Option<PathBuf> = None,
        /// Postgres: PEM file of its key, without a passphrase. Certificates and keys are read at the start.
        tls_key: Option<PathBuf> = None,
        /// Longest wait for one call.
        timeout: Duration = Duration::from_secs(5),
        /// How often it is checked that the store takes writes.
        check_every: Duration = Duration::from_secs(30),
    }
}

config_struct! {
    /// The blob store.
    pub struct BlobConfig {
        /// "folder" or "s3".
        backend: BlobBackend = BlobBackend::Folder,
        /// Folder, under the data folder unless absolute. Made if it is missing; one folder a tenant in it.
        dir: PathBuf = PathBuf::from("blobs"),
        /// S3: address of the server, such as "https://minio.internal:9000". Unset: AWS.
        endpoint: Option<HttpUrl> = None,
        /// S3: a bucket that is Obtrace's own. It is not made.
        bucket: String = String::new(),
        /// S3: region.
        region: String = "us-east-1".into(),
        /// S3: access key. Empty: the role of the machine, or the usual AWS_ variables.
        access_key: String = String::new(),
        /// S3: its secret. Better given as OBTRACE__STORE__BLOBS__SECRET_KEY than in a file.
        secret_key: Secret = Secret::default(),
        /// S3: encryption at the server: "bucket" (as it is set up), "s3" or "kms".
        sse: Sse = Sse::Bucket,
        /// S3: the key for sse = "kms", by its id or ARN. Who writes needs kms:GenerateDataKey and kms:Decrypt for it.
        kms_key: String = String::new(),
        /// S3: a body of more than two parts of this size goes in parts.
        part_size: ByteSize = ByteSize::mib(8),
        /// S3: longest wait for a connection.
        connect_timeout: Duration = Duration::from_secs(5),
        /// S3: PEM file of the authority that signed the server's certificate, beside those of the system.
        tls_ca: Option<PathBuf> = None,
        /// Longest wait for one call, with all its tries.
        timeout: Duration = Duration::from_secs(30),
        /// How often it is checked that the store takes objects.
        check_every: Duration = Duration::from_secs(30),
        /// How often what writes that never ended left behind is removed; one process at a time does it.
        sweep_every: Duration = Duration::from_secs(3600),
        /// Age from which on such a write has never ended.
        sweep_after: Duration = Duration::from_secs(24 * 3600),
    }
}

config_struct! {
    /// The cache.
    pub struct CacheConfig {
        /// "memory" or "redis".
        backend: CacheBackend = CacheBackend::Memory,
        /// Memory: most bytes. When it is full, what was used least recently goes.
        max_bytes: ByteSize = ByteSize::mib(32),
        /// Redis: redis://USER:PASSWORD@HOST:PORT, or rediss:// for TLS. Better given as OBTRACE__STORE__CACHE__URL than in a
        /// file.
        url: Secret = Secret::default(),
        /// Redis: first part of every key, so that others may share the server.
        prefix: String = "obtrace".into(),
        /// Redis: most connections.
        pool: u32 = 8,
        /// Redis: longest wait for a connection to be made. At most timeout.
        connect_timeout: Duration = Duration::from_millis(400),
        /// Redis: PEM file of the authority that signed the server's certificate. Unset: those of the system.
        tls_ca: Option<PathBuf> = None,
        /// Redis: largest value.
        max_value: ByteSize = ByteSize::mib(1),
        /// Longest wait for one call.
        timeout: Duration = Duration::from_millis(500),
    }
}

fn above_zero(at: &mut Reader, keys: &[(&str, Duration)]) {
    for (key, _) in keys.iter().filter(|(_, value)| value.is_zero()) {
        at.refuse(&[key], "must be more than 0");
    }
}

impl Validate for StoreConfig {}

/// Refuses a secret that a backend needs and that is not there or is no such address. It is not quoted.
fn needs_url(at: &mut Reader, key: &str, url: &Secret, schemes: &[&str], backend: &str) {
    if !schemes.iter().any(|scheme| url.expose().starts_with(scheme)) {
        let what =
            format!("must be an address that begins with {}: backend is {backend:?}", schemes.join(" or "));
        at.refuse(&[key, "backend"], &what);
    }
}

/// A wait that is part of a call is no longer than the call.
fn within_a_call(at: &mut Reader, connect_timeout: Duration, timeout: Duration) {
    if connect_timeout > timeout {
        let what = format!(
            "does not fit: connect_timeout is {connect_timeout:?}, and a call has {timeout:?} (timeout) in all"
        );
        at.refuse(&["connect_timeout", "timeout"], &what);
    }
}

fn some_connections(at: &mut Reader, pool: u32) {
    if !(1..=1024).contains(&pool) {
        at.refuse(&["pool"], "must be from 1 to 1024");
    }
}

impl Validate for StateConfig {
    fn validate(&self, at: &mut Reader) {
        let times = [
            ("timeout", self.timeout),
            ("check_every", self.check_every),
            ("connect_timeout", self.connect_timeout),
        ];
        above_zero(at, &times);
        some_connections(at, self.pool);
        if self.backend == StateBackend::Postgres {
            let schemes = ["postgres://", "postgresql://"];
            needs_url(at, "url", &self.url, &schemes, "postgres");
            within_a_call(at, self.connect_timeout, self.timeout);
            if !self.migrate_url.is_empty() {
                needs_url(at, "migrate_url", &self.migrate_url, &schemes, "postgres");
            }
        }
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            at.refuse(&["tls_cert", "tls_key"], "needs the other one: tls_cert and tls_key stand together");
        }
    }
}

impl Validate for BlobConfig {
    fn validate(&self, at: &mut Reader) {
        let times = [
            ("timeout", self.timeout),
            ("check_every", self.check_every),
            ("connect_timeout", self.connect_timeout),
            ("sweep_every", self.sweep_every),
        ];
        above_zero(at, &times);
        if self.sweep_after < self.timeout {
            at.refuse(
                &["sweep_after"],
                "must be at least store.blobs.timeout: a write may still be under way",
            );
        }
        if self.part_size < ByteSize::mib(5) {
            at.refuse(&["part_size"], "must be at least 5MiB, which S3 asks for");
        }
        if self.backend == BlobBackend::S3 && self.bucket.is_empty() {
            at.refuse(&["bucket", "backend"], "must be set: backend is \"s3\"");
        }
        if self.access_key.is_empty() != self.secret_key.is_empty() {
            at.refuse(
                &["access_key", "secret_key"],
                "needs the other one: access_key and secret_key stand together",
            );
        }
        if (self.sse == Sse::Kms) == self.kms_key.is_empty() {
            at.refuse(&["kms_key", "sse"], "does not fit: kms_key goes with sse = \"kms\"");
        }
    }
}

impl Validate for CacheConfig {
    fn validate(&self, at: &mut Reader) {
        above_zero(at, &[("timeout", self.timeout), ("connect_timeout", self.connect_timeout)]);
        some_connections(at, self.pool);
        if self.max_bytes < ByteSize::mib(1) {
            at.refuse(&["max_bytes"], "must be at least 1MiB");
        }
        if self.max_value < ByteSize::kib(64) {
            at.refuse(&["max_value"], "must be at least 64KiB");
        }
        if self.prefix.is_empty()
            || !self.prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            at.refuse(&["prefix"], "must be a name of a-z, A-Z, 0-9, '-', '_' and '.'");
        }
        if self.backend == CacheBackend::Redis {
            needs_url(at, "url", &self.url, &["redis://", "rediss://"], "redis");
            within_a_call(at, self.connect_timeout, self.timeout);
        }
    }
}
