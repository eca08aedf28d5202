//! Restarts by reason: the journal in, counters by path and reason out. Bounded like the tree's own metrics.

use std::collections::BTreeMap;

use super::exposition::{Family, Kind};
use super::tree_metrics;
use crate::supervisors::kernel::journal::{EventKind, Journal, TreeEvent};
use crate::supervisors::kernel::snapshot::TreeSnapshot;

/// Series that are kept apart; what comes after is counted under `other`.
const MOST_SERIES: usize = 1024;

/// Follows the journal from one look to the next.
#[derive(Debug, Default)]
pub struct Restarts {
    seq: u64,
    missed: u64,
    /// Why the last incarnation of a path ended, until the next is launched.
    ended: BTreeMap<String, String>,
    counts: BTreeMap<(String, String), u64>,
}

impl Restarts {
    /// Takes in what happened since the last time. What fell out of the ring meanwhile is counted as missed.
    pub fn follow(&mut self, journal: &Journal) {
        let (events, missed) = journal.after(self.seq);
        self.missed += missed;
        for event in events {
            self.seq = event.seq;
            self.take(event);
        }
    }

    fn take(&mut self, event: TreeEvent) {
        match event.kind {
            EventKind::Exited { reason, .. } => {
                // Members of passing groups end without another launch: what is forgotten is counted as unknown.
                if self.ended.len() >= MOST_SERIES {
                    self.ended.clear();
                }
                self.ended.insert(event.path, reason);
            }
            EventKind::Launched if event.generation > 1 => {
                let reason = self.ended.remove(&event.path).unwrap_or_else(|| "unknown".to_owned());
                let mut series = (event.path, reason);
                if self.counts.len() >= MOST_SERIES && !self.counts.contains_key(&series) {
                    series.0 = "other".to_owned();
                }
                *self.counts.entry(series).or_default() += 1;
            }
            // Down for good: its end leads to no restart.
            EventKind::Stopped => drop(self.ended.remove(&event.path)),
            _ => {}
        }
    }

    /// The counters; members of a large group are summed up as in the tree's other metrics.
    pub fn family(&self, snapshot: &TreeSnapshot) -> Family {
        let large = tree_metrics::large_groups(snapshot);
        let mut sums: BTreeMap<(String, &str), u64> = BTreeMap::new();
        for ((path, reason), n) in &self.counts {
            let group = large
                .iter()
                .find(|group| path.strip_prefix(**group).is_some_and(|rest| rest.starts_with('.')));
            let path = group.map_or_else(|| tree_metrics::named(path), |group| format!("{group}.*"));
            *sums.entry((path, reason.as_str())).or_default() += n;
        }
        let mut family =
            Family::new("obtrace_child_restarts", Kind::Counter, "Restarts by the reason of the end before");
        for ((path, reason), n) in sums {
            family.add(&[("path", &path), ("reason", reason)], n as f64);
        }
        if self.missed > 0 {
            family.add(&[("path", "unknown"), ("reason", "missed_events")], self.missed as f64);
        }
        family
    }
}
