//! What librdkafka's clients tell by themselves: their log lines and errors in, our log lines and the state of the brokers
//! out. Cannot fail.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What stands in the way at the moment. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    away: Option<String>,
    /// Why a broker did not let us in; says more than that none can be reached then.
    refused: Option<String>,
    /// Why a group gives this process nothing. That brokers answer other questions says nothing about it.
    groups: BTreeMap<String, String>,
}

impl Trouble {
    /// The brokers cannot be reached, or something is not right there.
    pub(super) fn set(&self, what: impl Into<String>) {
        self.0.lock().away = Some(what.into());
    }

    /// A broker does not let us in.
    pub(super) fn refuse(&self, why: impl Into<String>) {
        self.0.lock().refused = Some(why.into());
    }

    /// This process gets no partitions of `group`.
    pub(super) fn group(&self, group: &str, why: impl Into<String>) {
        let why = why.into();
        let before = self.0.lock().groups.insert(group.to_owned(), why.clone());
        // A member tries again every second and hears the same.
        if before.as_ref() != Some(&why) {
            tracing::error!(group, why, "no partitions of the group");
        }
    }

    /// The group gave what this process gets of it.
    pub(super) fn joined(&self, group: &str) {
        self.0.lock().groups.remove(group);
    }

    /// They answered.
    pub(super) fn clear(&self) {
        let mut state = self.0.lock();
        state.refused = None;
        state.away = None;
    }

    pub(super) fn get(&self) -> Option<String> {
        let state = self.0.lock();
        let group = || state.groups.iter().next().map(|(group, why)| format!("group {group}: {why}"));
        state.refused.clone().or_else(group).or_else(|| state.away.clone())
    }
}

/// The context of clients that need no more than that.
#[derive(Clone)]
pub(super) struct Ears {
    pub(super) trouble: Trouble,
}

impl Ears {
    /// Notes an error that concerns the client as a whole.
    pub(super) fn hear(&self, error: &KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.trouble.set("no broker can be reached"),
            Some(
                code @ (RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SSL
                | RDKafkaErrorCode::SaslAuthenticationFailed),
            ) => self.trouble.refuse(format!("{code}: {reason}")),
            _ => {}
        }
        tracing::debug!(%error, reason, "a client of the event log's brokers");
    }
}

/// Writes a line of librdkafka into our log. It is loud about brokers that are away, which the tree shows as a state.
pub(super) fn write_line(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, "librdkafka: {line}");
        }
        _ if facility == "FAIL" || facility == "ERROR" => tracing::debug!(facility, "librdkafka: {line}"),
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(facility, "librdkafka: {line}"),
        _ => tracing::debug!(facility, "librdkafka: {line}"),
    }
}

impl ClientContext for Ears {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        write_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.hear(&error, reason);
    }
}

impl ConsumerContext for Ears {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_that_answer_do_not_mend_a_group() {
        let trouble = Trouble::default();
        trouble.set("away");
        trouble.group("g", "not allowed");
        trouble.clear();
        assert_eq!(trouble.get().as_deref(), Some("group g: not allowed"));
        trouble.joined("other");
        assert!(trouble.get().is_some());
        trouble.joined("g");
        assert_eq!(trouble.get(), None);
    }
}
