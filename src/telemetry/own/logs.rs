//! Own log lines: a layer under the subscriber in, log records of OTLP out.

use std::fmt;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::{Pocket, any, resource, scope, text};
use crate::clock;

/// Lines that wait for the next round.
const MOST: usize = 1024;
/// Longest text of a line or of one of its fields, in characters.
const MOST_TEXT: usize = 2048;

/// Lines on their way.
pub static LINES: Pocket<LogRecord> = Pocket::new(MOST);

/// Takes every line from `info` up.
#[derive(Debug)]
pub struct OwnLines;

impl<S: Subscriber> Layer<S> for OwnLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        if *meta.level() > Level::INFO || !LINES.is_open() {
            return;
        }
        LINES.put(|| {
            let mut fields = Fields::default();
            event.record(&mut fields);
            let (severity, name) = severity(*meta.level());
            fields.attributes.push(text("code.namespace", meta.target()));
            LogRecord {
                time_unix_nano: clock::unix_nanos(),
                observed_time_unix_nano: clock::unix_nanos(),
                severity_number: severity,
                severity_text: name.to_owned(),
                body: any(Value::StringValue(fields.message)),
                attributes: fields.attributes,
                ..LogRecord::default()
            }
        });
    }
}

fn severity(level: Level) -> (i32, &'static str) {
    match level {
        Level::ERROR => (17, "ERROR"),
        Level::WARN => (13, "WARN"),
        _ => (9, "INFO"),
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    attributes: Vec<KeyValue>,
}

impl Fields {
    fn take(&mut self, field: &Field, value: String) {
        let value: String = value.chars().take(MOST_TEXT).collect();
        match field.name() {
            "message" => self.message = value,
            name => self.attributes.push(text(name, &value)),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }
}

/// The lines as an export request.
pub fn request(lines: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records: lines, ..ScopeLogs::default() }];
    let resource = Some(resource());
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn lines_from_info_up_are_taken_with_their_fields() {
        LINES.open(1000);
        let subscriber = tracing_subscriber::registry().with(OwnLines);
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("too fine");
            tracing::warn!(child = "store.writer", attempts = 3, "it failed");
        });
        let lines = LINES.empty();
        LINES.open(0);
        // Other tests of this process may log as well.
        let line = lines.iter().find(|line| line.severity_text == "WARN").unwrap();
        assert_eq!(line.body, any(Value::StringValue("it failed".into())));
        assert!(line.attributes.contains(&text("child", "store.writer")));
        assert!(line.attributes.contains(&text("attempts", "3")));
        assert!(!format!("{lines:?}").contains("too fine"));
    }
}
