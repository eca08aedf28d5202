//! `[store]`: state, blobs and cache, the stores beside the telemetry store. They live in the data folder.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::schema::{Validate, config_struct};
use super::units::ByteSize;

config_struct! {
    /// State, blobs and cache.
    pub struct StoreConfig {
        /// State: usage of tenants, last uses of keys. An SQLite file.
        state: StateConfig = StateConfig::default(),
        /// Blobs: whole objects, in a folder.
        blobs: BlobConfig = BlobConfig::default(),
        /// Cache: passing values, in memory.
        cache: CacheConfig = CacheConfig::default(),
    }
}

config_struct! {
    /// The state store.
    pub struct StateConfig {
        /// File, under the data folder unless absolute. Made if it is missing.
        file: PathBuf = PathBuf::from("state/state.db"),
        /// Longest wait for one call.
        timeout: Duration = Duration::from_secs(5),
        /// How often it is checked that the file can be written.
        check_every: Duration = Duration::from_secs(30),
    }
}

config_struct! {
    /// The blob store.
    pub struct BlobConfig {
        /// Folder, under the data folder unless absolute. Made if it is missing; one folder a tenant in it.
        dir: PathBuf = PathBuf::from("blobs"),
        /// Longest wait for one call.
        timeout: Duration = Duration::from_secs(30),
        /// How often it is checked that the folder can be written.
        check_every: Duration = Duration::from_secs(30),
    }
}

config_struct! {
    /// The cache.
    pub struct CacheConfig {
        /// Most bytes. When it is full, what was used least recently goes.
        max_bytes: ByteSize = ByteSize::mib(32),
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

impl Validate for StateConfig {
    fn validate(&self, at: &mut Reader) {
        above_zero(at, &[("timeout", self.timeout), ("check_every", self.check_every)]);
    }
}

impl Validate for BlobConfig {
    fn validate(&self, at: &mut Reader) {
        above_zero(at, &[("timeout", self.timeout), ("check_every", self.check_every)]);
    }
}

impl Validate for CacheConfig {
    fn validate(&self, at: &mut Reader) {
        above_zero(at, &[("timeout", self.timeout)]);
        if self.max_bytes < ByteSize::mib(1) {
            at.refuse(&["max_bytes"], "must be at least 1MiB");
        }
    }
}
