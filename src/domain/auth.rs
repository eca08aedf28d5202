//! Who may send and query: API keys, known by their SHA-256 only, and the dev rule for loopback clients.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::scope::Scope;

/// SHA-256 of a key. Keys carry enough entropy that a slow hash would add nothing.
pub type KeyHash = [u8; 32];

/// What a key gives its holder.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// Whose data the holder writes and reads.
    pub scope: Scope,
    /// Retention stamped on what comes in with this key, in days.
    pub retention_days: u16,
    /// Unix seconds after which the key is refused.
    pub expires_at: Option<u64>,
    /// Name of the key; none for the loopback rule.
    pub key: Option<Arc<str>>,
}

/// When keys were last used, as this process saw it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct KeyLog {
    uses: Arc<RwLock<HashMap<Arc<str>, AtomicU64>>>,
}

impl KeyLog {
    /// Notes a use.
    pub fn touch(&self, name: &Arc<str>, now_s: u64) {
        if let Some(last) = self.uses.read().get(name) {
            last.fetch_max(now_s, Ordering::Relaxed);
            return;
        }
        self.uses.write().entry(name.clone()).or_default().fetch_max(now_s, Ordering::Relaxed);
    }

    /// The last use of every key that was used, in Unix seconds.
    pub fn all(&self) -> Vec<(Arc<str>, u64)> {
        let read = |(name, last): (&Arc<str>, &AtomicU64)| (name.clone(), last.load(Ordering::Relaxed));
        self.uses.read().iter().map(read).collect()
    }
}

/// Why a request was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No key came with it.
    #[error("no API key: send `authorization: Bearer <key>` or `x-api-key: <key>`")]
    Missing,
    /// The key is not known.
    #[error("the API key is not known here: check that it is complete and was not revoked")]
    Unknown,
    /// The key was valid once.
    #[error("the API key has expired: make a new one")]
    Expired,
}

/// All keys, and what a client without one gets.
#[derive(Debug, Clone, Default)]
pub struct KeyTable {
    keys: HashMap<[u8; 8], Vec<(KeyHash, Grant)>>,
    loopback: Option<Grant>,
}

impl KeyTable {
    /// A table of `keys`. `loopback` is what a loopback client without a key gets: `None` outside dev mode.
    pub fn new(keys: impl IntoIterator<Item = (KeyHash, Grant)>, loopback: Option<Grant>) -> Self {
        let mut table = Self { keys: HashMap::new(), loopback };
        for (hash, grant) in keys {
            table.keys.entry(bucket(&hash)).or_default().push((hash, grant));
        }
        table
    }

    /// What each key gives, in no order.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.keys.values().flatten().map(|(_, grant)| grant)
    }

    /// What a request with this key (if any) from this peer may do, at `now_s` Unix seconds.
    ///
    /// # Errors
    /// [`Denied`], with what to do in its text.
    pub fn admit(&self, key: Option<&str>, peer: Option<IpAddr>, now_s: u64) -> Result<Grant, Denied> {
        let Some(key) = key.map(str::trim).filter(|key| !key.is_empty()) else {
            let loopback = self.loopback.as_ref().filter(|_| peer.is_some_and(is_loopback));
            return loopback.cloned().ok_or(Denied::Missing);
        };
        let hash = hash_key(key);
        let grant = self
            .keys
            .get(&bucket(&hash))
            .and_then(|candidates| candidates.iter().find(|(known, _)| bool::from(known.ct_eq(&hash))))
            .map(|(_, grant)| grant)
            .ok_or(Denied::Unknown)?;
        if grant.expires_at.is_some_and(|at| at <= now_s) {
            return Err(Denied::Expired);
        }
        Ok(grant.clone())
    }
}

/// The key out of `authorization` (scheme `Bearer`, any case) or else `x-api-key`.
pub fn key_from_headers<'a>(authorization: Option<&'a str>, x_api_key: Option<&'a str>) -> Option<&'a str> {
    let bearer = authorization.and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key)
    });
    bearer.or(x_api_key)
}

/// SHA-256 of a key as it is stored.
pub fn hash_key(key: &str) -> KeyHash {
    Sha256::digest(key.as_bytes()).into()
}

/// The bucket is picked by the hash's own first bytes: it tells nothing of a key that the hash does not.
fn bucket(hash: &KeyHash) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    first
}

/// Whether an address is this machine's own.
pub fn is_loopback(peer: IpAddr) -> bool {
    match peer {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(tenant: &str, expires_at: Option<u64>) -> Grant {
        let scope = Scope::new(tenant, "p", "", "").unwrap();
        Grant { scope, retention_days: 7, expires_at, key: Some(tenant.into()) }
    }

    fn table() -> KeyTable {
        let keys = [(hash_key("k1"), grant("one", None)), (hash_key("k2"), grant("two", Some(100)))];
        KeyTable::new(keys, Some(grant("default", None)))
    }

    #[test]
    fn a_key_leads_to_its_own_tenant_only() {
        let tenant = |key| table().admit(Some(key), None, 50).map(|g| g.scope.tenant.to_string());
        assert_eq!(tenant("k1"), Ok("one".into()));
        assert_eq!(tenant("k2"), Ok("two".into()));
        assert_eq!(tenant("k3"), Err(Denied::Unknown));
        assert_eq!(table().admit(Some("k2"), None, 100).unwrap_err(), Denied::Expired);
    }

    #[test]
    fn only_a_loopback_client_without_a_key_gets_the_dev_tenant() {
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let remote: IpAddr = "10.0.0.1".parse().unwrap();
        assert!(table().admit(None, Some(local), 0).is_ok());
        assert!(table().admit(Some("  "), Some(mapped), 0).is_ok());
        assert_eq!(table().admit(None, Some(remote), 0).unwrap_err(), Denied::Missing);
        assert_eq!(table().admit(None, None, 0).unwrap_err(), Denied::Missing);
        assert_eq!(table().admit(Some("wrong"), Some(local), 0).unwrap_err(), Denied::Unknown);
        assert_eq!(KeyTable::default().admit(None, Some(local), 0).unwrap_err(), Denied::Missing);
    }

    #[test]
    fn headers_are_read_by_scheme() {
        assert_eq!(key_from_headers(Some("Bearer a"), Some("b")), Some("a"));
        assert_eq!(key_from_headers(Some("bEaReR a"), None), Some("a"));
        assert_eq!(key_from_headers(Some("Basic a"), Some("b")), Some("b"));
        assert_eq!(key_from_headers(None, None), None);
    }
}
