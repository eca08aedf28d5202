//! Which backend stands behind each port: the configuration in, clients out, none of them connected yet.
//!
//! What may fail: a file or an address that is no such thing. A server that is down is no fault here.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::backends::blobs::BlobStore;
use crate::backends::blobs::folder::FolderBlobs;
use crate::backends::blobs::s3::{Encryption, S3Blobs, S3Settings};
use crate::backends::cache::Cache;
use crate::backends::cache::memory::MemoryCache;
use crate::backends::cache::redis::RedisCache;
use crate::backends::leases::Leases;
use crate::backends::leases::memory::MemoryLeases;
use crate::backends::leases::redis::RedisLeases;
use crate::backends::locks::Locks;
use crate::backends::locks::memory::MemoryLocks;
use crate::backends::locks::redis::RedisLocks;
use crate::backends::redis::{RedisLink, RedisSettings};
use crate::backends::state::StateStore;
use crate::backends::state::migrate::Place;
use crate::backends::state::postgres::{PgSettings, PgState, PgTls};
use crate::backends::state::sqlite::SqliteState;
use crate::config::Config;
use crate::config::secret::Secret;
use crate::config::store::{BlobBackend, CacheBackend, Sse, StateBackend, TlsMode};

/// What the cache server is for: passing values, rates and locks.
#[derive(Clone)]
pub struct Shared {
    /// Passing values.
    pub cache: Arc<dyn Cache>,
    /// Rates of tenants.
    pub leases: Arc<dyn Leases>,
    /// Locks by name.
    pub locks: Arc<dyn Locks>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

/// The state store.
///
/// # Errors
/// What is wrong with the configuration, or a thread that cannot be started.
pub fn state(config: &Config, io: &Handle) -> Result<Arc<dyn StateStore>, String> {
    match config.store.state.backend {
        StateBackend::Sqlite => {
            let state = SqliteState::new(&state_file(config)).map_err(|error| error.to_string())?;
            Ok(Arc::new(state))
        }
        StateBackend::Postgres => {
            let settings = postgres(config, &config.store.state.url);
            let state = PgState::new(&settings, io.clone()).map_err(|fault| fault.to_string())?;
            let owner = &config.store.state.migrate_url;
            // Without the owner's login it waits for `obtrace migrate`.
            let migrates = config.migrate_on_start == Some(true) && !owner.is_empty();
            Ok(Arc::new(if migrates { state.migrating(postgres(config, owner)) } else { state }))
        }
    }
}

/// Where the schema of the state store is brought up to date.
///
/// # Errors
/// Postgres without `store.state.migrate_url`.
pub fn state_place(config: &Config) -> Result<Place, String> {
    let url = &config.store.state.migrate_url;
    match config.store.state.backend {
        StateBackend::Sqlite => Ok(Place::Sqlite(state_file(config))),
        StateBackend::Postgres if url.is_empty() => {
            Err("store.state.migrate_url is not set: name the database as obtrace_migrate".to_owned())
        }
        StateBackend::Postgres => Ok(Place::Postgres(postgres(config, url))),
    }
}

/// The blob store.
///
/// # Errors
/// What is wrong with the configuration.
pub fn blobs(config: &Config, io: &Handle) -> Result<Arc<dyn BlobStore>, String> {
    let blobs = &config.store.blobs;
    match blobs.backend {
        BlobBackend::Folder => Ok(Arc::new(FolderBlobs::new(&config.data_dir.join(&blobs.dir)))),
        BlobBackend::S3 => {
            let settings = S3Settings {
                endpoint: blobs.endpoint.as_ref().map(|endpoint| endpoint.as_str().to_owned()),
                bucket: blobs.bucket.clone(),
                region: blobs.region.clone(),
                keys: (!blobs.access_key.is_empty())
                    .then(|| (blobs.access_key.clone(), blobs.secret_key.expose().to_owned())),
                encryption: match blobs.sse {
                    Sse::Bucket => Encryption::Bucket,
                    Sse::S3 => Encryption::S3,
                    Sse::Kms => Encryption::Kms(blobs.kms_key.clone()),
                },
                part_bytes: blobs.part_size.as_usize(),
                connect_timeout: blobs.connect_timeout,
                timeout: blobs.timeout,
                ca: blobs.tls_ca.clone(),
            };
            Ok(Arc::new(S3Blobs::new(&settings, io.clone()).map_err(|fault| fault.to_string())?))
        }
    }
}

/// Cache, rates and locks.
///
/// # Errors
/// What is wrong with the configuration.
pub fn shared(config: &Config, io: &Handle) -> Result<Shared, String> {
    let cache = &config.store.cache;
    if cache.backend == CacheBackend::Memory {
        return Ok(Shared {
            cache: Arc::new(MemoryCache::new(cache.max_bytes.as_u64())),
            leases: Arc::new(MemoryLeases::default()),
            locks: Arc::new(MemoryLocks::default()),
        });
    }
    let settings = RedisSettings {
        url: cache.url.expose().to_owned(),
        prefix: cache.prefix.clone(),
        pool: cache.pool as usize,
        connect_timeout: cache.connect_timeout,
        timeout: cache.timeout,
        ca: cache.tls_ca.clone(),
    };
    let link = RedisLink::new(&settings, io.clone()).map_err(|fault| fault.to_string())?;
    Ok(Shared {
        cache: Arc::new(RedisCache::new(link.clone(), cache.max_value.as_usize())),
        leases: Arc::new(RedisLeases::new(link.clone())),
        locks: Arc::new(RedisLocks::new(link)),
    })
}

fn state_file(config: &Config) -> PathBuf {
    config.data_dir.join(&config.store.state.file)
}

fn postgres(config: &Config, url: &Secret) -> PgSettings {
    let state = &config.store.state;
    PgSettings {
        url: url.expose().to_owned(),
        pool: state.pool as usize,
        connect_timeout: state.connect_timeout,
        timeout: state.timeout,
        tls: (state.tls == TlsMode::Verify).then(|| PgTls {
            ca: state.tls_ca.clone(),
            identity: state.tls_cert.clone().zip(state.tls_key.clone()),
        }),
    }
}
