//! What tenants used: records and bytes by UTC day, counted where they are acknowledged.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::signal::Signal;

const DAY_S: u64 = 86_400;

/// A UTC day, counted from 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Day(pub u32);

impl Day {
    /// The day of a time in Unix nanoseconds.
    pub fn of_nanos(unix_ns: u64) -> Self {
        Self(u32::try_from(unix_ns / 1_000_000_000 / DAY_S).unwrap_or(u32::MAX))
    }

    /// Unix seconds of the first second after it.
    pub fn ends_at_s(self) -> u64 {
        (u64::from(self.0) + 1) * DAY_S
    }
}

/// Records and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Spans.
    pub spans: u64,
    /// Log records.
    pub logs: u64,
    /// Metric points.
    pub points: u64,
    /// Bytes of the requests as sent.
    pub bytes: u64,
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            spans: self.spans.saturating_add(other.spans),
            logs: self.logs.saturating_add(other.logs),
            points: self.points.saturating_add(other.points),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// What one process counted for a tenant and a day, as a total: writing it twice is writing it once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// Tenant.
    pub tenant: Arc<str>,
    /// Day.
    pub day: Day,
    /// The process that counted, by an id of its own.
    pub source: Arc<str>,
    /// Its total so far.
    pub usage: Usage,
}

/// Counts what this process acknowledged. Cheap to clone; counting takes no lock that another tenant holds for long.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    tallies: Arc<RwLock<Tallies>>,
}

/// By tenant and day.
type Tallies = HashMap<(Arc<str>, Day), Arc<Tally>>;

#[derive(Debug, Default)]
struct Tally {
    spans: AtomicU64,
    logs: AtomicU64,
    points: AtomicU64,
    bytes: AtomicU64,
}

impl Meter {
    /// Counts an acknowledged request.
    pub fn count(&self, tenant: &Arc<str>, day: Day, signal: Signal, records: u64, bytes: u64) {
        let tally = self.tally(tenant, day);
        let counter = match signal {
            Signal::Traces => &tally.spans,
            Signal::Logs => &tally.logs,
            Signal::Metrics => &tally.points,
        };
        counter.fetch_add(records, Ordering::Relaxed);
        tally.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What this process counted for a tenant and day.
    pub fn usage(&self, tenant: &Arc<str>, day: Day) -> Usage {
        let key = (tenant.clone(), day);
        self.tallies.read().get(&key).map_or_else(Usage::default, |tally| tally.read())
    }

    /// Every total, to be written down under the name of this process.
    pub fn totals(&self, source: &Arc<str>) -> Vec<UsageRow> {
        let row = |((tenant, day), tally): (&(Arc<str>, Day), &Arc<Tally>)| UsageRow {
            tenant: tenant.clone(),
            day: *day,
            source: source.clone(),
            usage: tally.read(),
        };
        self.tallies.read().iter().map(row).collect()
    }

    /// Forgets days before `day`, whose totals have been written down.
    pub fn forget_before(&self, day: Day) {
        self.tallies.write().retain(|(_, of), _| *of >= day);
    }

    fn tally(&self, tenant: &Arc<str>, day: Day) -> Arc<Tally> {
        let key = (tenant.clone(), day);
        if let Some(tally) = self.tallies.read().get(&key) {
            return tally.clone();
        }
        self.tallies.write().entry(key).or_default().clone()
    }
}

impl Tally {
    fn read(&self) -> Usage {
        Usage {
            spans: self.spans.load(Ordering::Relaxed),
            logs: self.logs.load(Ordering::Relaxed),
            points: self.points.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_counts_by_tenant_day_and_signal() {
        let (meter, a, b): (Meter, Arc<str>, Arc<str>) = (Meter::default(), "a".into(), "b".into());
        meter.count(&a, Day(1), Signal::Traces, 3, 10);
        meter.count(&a, Day(1), Signal::Traces, 2, 5);
        meter.count(&a, Day(2), Signal::Logs, 7, 1);
        meter.count(&b, Day(1), Signal::Metrics, 1, 1);
        let spans = Usage { spans: 5, bytes: 15, ..Usage::default() };
        assert_eq!(meter.usage(&a, Day(1)), spans);
        assert_eq!(meter.usage(&b, Day(2)), Usage::default());
        assert_eq!(meter.totals(&"p".into()).len(), 3);
        meter.forget_before(Day(2));
        assert_eq!(meter.usage(&a, Day(1)), Usage::default());
        assert_eq!(meter.usage(&a, Day(2)).logs, 7);
    }

    #[test]
    fn days_are_utc_days() {
        assert_eq!(Day::of_nanos(86_400_000_000_000 - 1), Day(0));
        assert_eq!(Day::of_nanos(86_400_000_000_000), Day(1));
        assert_eq!(Day(1).ends_at_s(), 172_800);
    }
}
