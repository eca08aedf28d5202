//! What librdkafka's clients tell by themselves: their log lines and errors in, our log lines and the state of the brokers
//! out. Cannot fail.

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

    /// They answered.
    pub(super) fn clear(&self) {
        *self.0.lock() = State::default();
    }

    pub(super) fn get(&self) -> Option<String> {
        let state = self.0.lock();
        state.refused.clone().or_else(|| state.away.clone())
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
