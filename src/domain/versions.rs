//! Which versions of services came into this process: `service.name` and `service.version` of what was acknowledged in, what
//! is to be written down out. Cannot fail; what is more than its bounds is counted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::deploy::is_name;
use super::usage::Day;

/// Pairs of service and version that are noted of one tenant, by one process, in a day.
pub const MOST_VERSIONS: usize = 1_000;

const MS_NS: u64 = 1_000_000;

/// A version of a service that the telemetry named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSeen {
    /// Tenant.
    pub tenant: Arc<str>,
    /// `service.name`.
    pub service: Arc<str>,
    /// `service.version`.
    pub version: Arc<str>,
    /// When it came in, Unix milliseconds.
    pub at_ms: u64,
}

/// Which versions this process has seen, each to be written down once a day. Cheap to clone; its memory is bounded a tenant,
/// and tenants are those of the configuration.
#[derive(Debug, Clone, Default)]
pub struct VersionLog {
    tenants: Arc<RwLock<Tenants>>,
}

/// What was seen of each tenant.
type Tenants = HashMap<Arc<str>, Arc<Mutex<Seen>>>;

/// Of one tenant.
#[derive(Debug, Default)]
struct Seen {
    day: Option<Day>,
    /// Versions by service that were noted today.
    known: HashMap<Arc<str>, HashSet<Arc<str>>>,
    noted: usize,
    waiting: Vec<VersionSeen>,
    /// Versions that were more than is noted in a day.
    over: u64,
}

impl VersionLog {
    /// Notes that records of this version came in.
    pub fn see(&self, tenant: &Arc<str>, service: &str, version: &str, at_ms: u64) {
        if is_name(service) && is_name(version) {
            self.of(tenant).lock().see(tenant, service, version, at_ms);
        }
    }

    /// What is to be written down, at most `most` of it, and how many were too many to be noted since the last call.
    pub fn take(&self, most: usize) -> (Vec<VersionSeen>, u64) {
        let (mut taken, mut over) = (Vec::new(), 0);
        for seen in self.tenants.read().values() {
            let mut seen = seen.lock();
            let count = seen.waiting.len().min(most - taken.len());
            taken.extend(seen.waiting.drain(..count));
            over += std::mem::take(&mut seen.over);
        }
        (taken, over)
    }

    /// Takes back what could not be written.
    pub fn put_back(&self, rows: Vec<VersionSeen>) {
        for row in rows {
            let seen = self.of(&row.tenant);
            let mut seen = seen.lock();
            if seen.waiting.len() < MOST_VERSIONS {
                seen.waiting.push(row);
            } else {
                seen.over += 1;
            }
        }
    }

    fn of(&self, tenant: &Arc<str>) -> Arc<Mutex<Seen>> {
        if let Some(seen) = self.tenants.read().get(tenant) {
            return seen.clone();
        }
        self.tenants.write().entry(tenant.clone()).or_default().clone()
    }
}

impl Seen {
    fn see(&mut self, tenant: &Arc<str>, service: &str, version: &str, at_ms: u64) {
        let today = Day::of_nanos(at_ms.saturating_mul(MS_NS));
        // By the largest day: requests of before midnight may come late.
        if self.day.is_none_or(|day| day < today) {
            *self = Self {
                day: Some(today),
                waiting: std::mem::take(&mut self.waiting),
                over: self.over,
                ..Self::default()
            };
        }
        if self.known.get(service).is_some_and(|versions| versions.contains(version)) {
            return;
        }
        if self.noted >= MOST_VERSIONS || self.waiting.len() >= MOST_VERSIONS {
            self.over += 1;
            return;
        }
        self.noted += 1;
        let (service, version): (Arc<str>, Arc<str>) = (service.into(), version.into());
        self.known.entry(service.clone()).or_default().insert(version.clone());
        self.waiting.push(VersionSeen { tenant: tenant.clone(), service, version, at_ms });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_noted_once_a_day_and_a_tenant_fills_its_own_bound() {
        let (log, a, b): (VersionLog, Arc<str>, Arc<str>) = (VersionLog::default(), "a".into(), "b".into());
        let day = 86_400_000;
        for at in [5, 6, day - 1] {
            log.see(&a, "cart", "1", at);
        }
        log.see(&a, "cart", "2", 7);
        log.see(&b, "cart", "1", 8);
        log.see(&a, "", "1", 9);
        let (mut rows, over) = log.take(100);
        rows.sort_by_key(|row| row.at_ms);
        let seen: Vec<_> = rows.iter().map(|row| (&*row.tenant, &*row.version, row.at_ms)).collect();
        assert_eq!((seen, over), (vec![("a", "1", 5), ("a", "2", 7), ("b", "1", 8)], 0));
        log.put_back(rows);
        log.see(&a, "cart", "1", day);
        log.see(&a, "cart", "1", day - 1);
        assert_eq!(log.take(2).0.len(), 2, "not more than was asked for");
        assert_eq!(log.take(100).0.len(), 2, "the rest, and the first of the next day");
        for n in 0..MOST_VERSIONS + 5 {
            log.see(&b, "cart", &format!("build-{n}"), 2 * day);
        }
        log.see(&a, "cart", "3", 2 * day);
        let (rows, over) = log.take(usize::MAX);
        assert_eq!((rows.len(), over), (MOST_VERSIONS + 1, 5), "the other tenant is not touched");
    }
}
