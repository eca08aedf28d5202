//! Builds one trace as it happens: spans are opened and closed on a simulated clock, logs and measurements fall off on the way.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::otlp::{any, flag, text};
use super::services::Service;

/// The W3C sampled flag.
const SAMPLED: u32 = 1;
/// Nanoseconds of a millisecond.
pub(super) const MS: f64 = 1e6;

/// Severities the shop logs at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Debug = 5,
    Info = 9,
    Warn = 13,
    Error = 17,
}

/// A span under construction, by its place in the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At(usize);

/// One duration measured in the trace, for the metrics.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) service: Service,
    pub(super) what: What,
    pub(super) seconds: f64,
    pub(super) end_ns: u64,
    pub(super) trace_id: Vec<u8>,
    pub(super) span_id: Vec<u8>,
}

/// What a measurement is of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    /// A request answered: route and status code.
    Http(&'static str, i64),
    /// A database call: system and operation.
    Db(&'static str, &'static str),
    /// An order placed: its value.
    Order(f64),
}

/// A finished trace.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) spans: Vec<(Service, Span)>,
    pub(super) logs: Vec<(Service, LogRecord)>,
    pub(super) measured: Vec<Measured>,
}

/// Builds a trace. `now_ns` is the simulated time and moves with every step.
pub(super) struct Tracer<'a> {
    pub(super) rng: &'a mut StdRng,
    pub(super) now_ns: u64,
    trace_id: Vec<u8>,
    pub(super) trace: Trace,
}

impl<'a> Tracer<'a> {
    pub(super) fn new(rng: &'a mut StdRng, now_ns: u64) -> Self {
        let trace_id = id(rng, 16);
        Self { rng, now_ns, trace_id, trace: Trace::default() }
    }

    /// Lets time pass: a share of `mean` always, and a long tail.
    pub(super) fn work(&mut self, mean_ms: f64) {
        let spread = -(1.0 - self.rng.random::<f64>()).ln();
        self.now_ns += (mean_ms * MS * (0.4 + 0.6 * spread)) as u64 + 1_000;
    }

    /// Opens a span now.
    pub(super) fn open(
        &mut self,
        service: Service,
        parent: Option<At>,
        kind: SpanKind,
        name: &str,
        attributes: Vec<KeyValue>,
    ) -> At {
        let parent_span_id = parent.map(|At(p)| self.trace.spans[p].1.span_id.clone()).unwrap_or_default();
        let span = Span {
            trace_id: self.trace_id.clone(),
            span_id: id(self.rng, 8),
            parent_span_id,
            flags: SAMPLED,
            name: name.to_owned(),
            kind: kind as i32,
            start_time_unix_nano: self.now_ns,
            attributes,
            ..Default::default()
        };
        self.trace.spans.push((service, span));
        At(self.trace.spans.len() - 1)
    }

    /// Closes a span now.
    pub(super) fn close(&mut self, at: At) {
        self.now_ns += 1_000;
        let now = self.now_ns;
        self.span(at).end_time_unix_nano = now;
    }

    pub(super) fn add(&mut self, at: At, attribute: KeyValue) {
        self.span(at).attributes.push(attribute);
    }

    /// Adds an event now.
    pub(super) fn event(&mut self, at: At, name: &str, attributes: Vec<KeyValue>) {
        let event =
            Event { time_unix_nano: self.now_ns, name: name.to_owned(), attributes, ..Default::default() };
        self.span(at).events.push(event);
    }

    /// Marks a span as failed.
    pub(super) fn fail(&mut self, at: At, kind: &str, message: &str) {
        let span = self.span(at);
        span.status = Some(Status { code: StatusCode::Error as i32, message: message.to_owned() });
        span.attributes.push(text("error.type", kind));
    }

    /// Marks a span as failed by an exception.
    pub(super) fn throw(&mut self, at: At, kind: &str, message: &str, stack: &str) {
        self.fail(at, kind, message);
        let attributes = vec![
            text("exception.type", kind),
            text("exception.message", message),
            text("exception.stacktrace", stack),
            flag("exception.escaped", false),
        ];
        self.event(at, "exception", attributes);
    }

    /// Points from a span to one of another trace.
    pub(super) fn link(&mut self, at: At, trace_id: &[u8], span_id: &[u8]) {
        let link = Link {
            trace_id: trace_id.to_vec(),
            span_id: span_id.to_vec(),
            attributes: vec![text("messaging.link.kind", "producer")],
            flags: SAMPLED,
            ..Default::default()
        };
        self.span(at).links.push(link);
    }

    /// Logs now, within a span.
    pub(super) fn log(&mut self, at: At, level: Level, body: String, attributes: Vec<KeyValue>) {
        let (service, span) = &self.trace.spans[at.0];
        let record = LogRecord {
            time_unix_nano: self.now_ns,
            observed_time_unix_nano: self.now_ns + 50_000,
            severity_number: level as i32,
            severity_text: format!("{level:?}").to_uppercase(),
            body: Some(any(body)),
            attributes,
            flags: SAMPLED,
            trace_id: span.trace_id.clone(),
            span_id: span.span_id.clone(),
            ..Default::default()
        };
        self.trace.logs.push((*service, record));
    }

    /// Measures a span up to now.
    pub(super) fn measure(&mut self, at: At, what: What) {
        let (service, span) = &self.trace.spans[at.0];
        let end_ns = if span.end_time_unix_nano == 0 { self.now_ns } else { span.end_time_unix_nano };
        let seconds = end_ns.saturating_sub(span.start_time_unix_nano) as f64 / 1e9;
        self.trace.measured.push(Measured {
            service: *service,
            what,
            seconds,
            end_ns,
            trace_id: span.trace_id.clone(),
            span_id: span.span_id.clone(),
        });
    }

    /// Trace and span id of a span, for links from elsewhere.
    pub(super) fn ids(&self, at: At) -> (Vec<u8>, Vec<u8>) {
        (self.trace_id.clone(), self.trace.spans[at.0].1.span_id.clone())
    }

    fn span(&mut self, at: At) -> &mut Span {
        &mut self.trace.spans[at.0].1
    }
}

/// Random id of `len` bytes; all zeros means none, so the last bit is set.
fn id(rng: &mut StdRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    if let Some(last) = bytes.last_mut() {
        *last |= 1;
    }
    bytes
}
