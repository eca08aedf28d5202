//! Retention: settings of a topic and the time → whole segments removed, oldest first, never the active one.

use std::sync::Arc;

use super::TopicConfig;
use super::partition::Partition;
use super::segment::Segment;
use super::shared::Shared;
use crate::backends::event_log::LogError;

/// What a round of retention removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Segments removed.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Removes what the topics' settings give up at `now_ns`.
pub(super) fn enforce(shared: &Shared, now_ns: u64) -> Result<RetentionReport, LogError> {
    let mut report = RetentionReport::default();
    for topic in shared.topics.values() {
        let slots = topic.first_slot..topic.first_slot + topic.config.partitions as usize;
        for partition in &shared.partitions[slots] {
            enforce_on(partition, &topic.config, now_ns, &mut report)?;
        }
    }
    Ok(report)
}

fn enforce_on(
    partition: &Arc<Partition>,
    topic: &TopicConfig,
    now_ns: u64,
    report: &mut RetentionReport,
) -> Result<(), LogError> {
    while let Some((oldest, bytes)) = partition.oldest_sealed() {
        if !is_due(&oldest, bytes, topic, now_ns) {
            break;
        }
        // The file goes first: a segment that cannot be removed stays readable and is tried again the next time.
        let len = oldest.len();
        oldest.remove()?;
        partition.drop_oldest(oldest.base);
        report.segments += 1;
        report.bytes += len;
    }
    Ok(())
}

fn is_due(oldest: &Segment, bytes: u64, topic: &TopicConfig, now_ns: u64) -> bool {
    let age_ns = now_ns.saturating_sub(oldest.last_time_ns());
    let too_old = topic.retention_age.is_some_and(|limit| u128::from(age_ns) > limit.as_nanos());
    let too_much = topic.retention_bytes.is_some_and(|limit| bytes > limit);
    too_old || too_much
}
