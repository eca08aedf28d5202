//! Bytes ⇄ messages: compression, OTLP protobuf, OTLP/JSON, Avro, record headers. Pure functions over byte slices; whatever
//! is wrong with the input is a [`WireError`], never a panic and never unbounded memory.
//!
//! ```text
//! body ─ compress ─► protobuf ─┐            ┌─ protobuf ─► Payload
//!                    json ─────┴─ convert ──┴─ json ─────►   (worker)
//!                                 (edge)    envelope: header ⇄ record headers
//! ```

pub mod avro;
pub mod compress;
pub mod envelope;
mod fault;
mod items;
pub mod json;
pub mod letter;
pub mod limits;
pub mod protobuf;
pub mod resources;
pub mod response;
mod schema;
pub mod status;
mod table;
mod value;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;

use self::limits::OtlpLimits;
use crate::domain::envelope::WireFormat;
use crate::domain::failure::{Classified, FailureClass};
use crate::domain::signal::Signal;

/// What is wrong with bytes that came in. All of it is poison: the same bytes fail again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A content encoding that is not served.
    #[error("content-encoding {found:?} is not supported, send identity, gzip or zstd")]
    Encoding {
        /// What the client named.
        found: String,
    },
    /// A compressed body that cannot be undone.
    #[error("the {encoding} body is damaged: {what}")]
    Damaged {
        /// `gzip` or `zstd`.
        encoding: &'static str,
        /// What the decoder says.
        what: String,
    },
    /// A body that is too large once decompressed.
    #[error("the body is larger than {limit} bytes once decompressed, send smaller batches")]
    BodyTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// A body that grows too much when decompressed.
    #[error("the {encoding} body decompresses to more than {limit} times its size")]
    Ratio {
        /// `gzip` or `zstd`.
        encoding: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Not the OTLP/JSON that was expected.
    #[error("not OTLP/JSON {message}: line {line} column {column}: {what}")]
    Json {
        /// The signal, or the name of the message.
        message: &'static str,
        /// Line from 1.
        line: usize,
        /// Column from 1, in bytes.
        column: usize,
        /// Path and what is wrong there.
        what: String,
    },
    /// Not the OTLP protobuf that was expected.
    #[error("not OTLP protobuf {message}: {what}")]
    Protobuf {
        /// The signal, or the name of the message.
        message: &'static str,
        /// Path and what is wrong there.
        what: String,
    },
    /// Not the OTLP in Avro that was expected.
    #[error("not OTLP in Avro, {message}: {what}")]
    Avro {
        /// The signal.
        message: &'static str,
        /// Path and what is wrong there.
        what: String,
    },
    /// Well-formed so far, but over a limit of [`OtlpLimits`].
    #[error("the request is over a limit: {what}")]
    Limit {
        /// Path, what was found, and the limit.
        what: String,
    },
    /// A record header that is missing or cannot be read.
    #[error("record header {name}: {what}")]
    Header {
        /// Name of the header.
        name: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// A record written by a newer version.
    #[error(
        "the record has envelope version {found}, this build reads up to {supported}: upgrade this process, then replay the record from the dead letters"
    )]
    SchemaVersion {
        /// Version in the record.
        found: u16,
        /// Latest version that can be read.
        supported: u16,
    },
}

impl WireError {
    /// Whether the answer is "too large" (HTTP 413, gRPC `RESOURCE_EXHAUSTED`) and not "malformed" (400,
    /// `INVALID_ARGUMENT`). Neither is to be retried.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::BodyTooLarge { .. } | Self::Ratio { .. } | Self::Limit { .. })
    }
}

impl Classified for WireError {
    fn class(&self) -> FailureClass {
        FailureClass::Poison
    }
}

/// A decoded export request.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// Spans.
    Traces(ExportTraceServiceRequest),
    /// Log records.
    Logs(ExportLogsServiceRequest),
    /// Metric data points.
    Metrics(ExportMetricsServiceRequest),
}

impl Payload {
    /// The signal of this request.
    pub fn signal(&self) -> Signal {
        match self {
            Self::Traces(_) => Signal::Traces,
            Self::Logs(_) => Signal::Logs,
            Self::Metrics(_) => Signal::Metrics,
        }
    }

    /// Number of spans, log records or data points.
    pub fn count(&self) -> usize {
        match self {
            Self::Traces(request) => {
                request.resource_spans.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len()).sum()
            }
            Self::Logs(request) => {
                request.resource_logs.iter().flat_map(|r| &r.scope_logs).map(|s| s.log_records.len()).sum()
            }
            Self::Metrics(request) => {
                let scopes = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics);
                scopes.flat_map(|s| &s.metrics).map(data_points).sum()
            }
        }
    }

    /// Decodes a request of `signal` in `format`.
    ///
    /// # Errors
    /// [`WireError::Json`], [`WireError::Protobuf`], [`WireError::Avro`] or [`WireError::Limit`].
    pub fn decode(
        signal: Signal,
        format: WireFormat,
        bytes: &[u8],
        limits: &OtlpLimits,
    ) -> Result<Self, WireError> {
        match format {
            WireFormat::Json => json::decode(signal, bytes, limits),
            WireFormat::Otlp => protobuf::decode(signal, bytes, limits),
            WireFormat::Avro => avro::decode(signal, bytes, limits),
        }
    }

    /// Encodes the request in `format`.
    pub fn encode(&self, format: WireFormat) -> Vec<u8> {
        match format {
            WireFormat::Json => json::encode(self),
            WireFormat::Otlp => protobuf::encode(self),
            WireFormat::Avro => avro::encode(self),
        }
    }
}

fn data_points(metric: &Metric) -> usize {
    match &metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
        Some(Data::Summary(summary)) => summary.data_points.len(),
        None => 0,
    }
}

/// Checks a request as a client sent it and turns it into the format that the log is to hold, by the cheapest way:
/// protobuf is never decoded on it, JSON that stays JSON is passed on as it is. Returns the payload and its record
/// count.
///
/// # Errors
/// [`WireError::Json`], [`WireError::Protobuf`], [`WireError::Avro`] or [`WireError::Limit`].
pub fn convert(
    signal: Signal,
    sent: WireFormat,
    kept: WireFormat,
    body: &Bytes,
    limits: &OtlpLimits,
) -> Result<(Bytes, u32), WireError> {
    match (sent, kept) {
        (WireFormat::Otlp, WireFormat::Otlp) => {
            protobuf::walk(signal, body, limits).map(|walked| (body.clone(), walked.records))
        }
        (WireFormat::Otlp, WireFormat::Json) => {
            protobuf::to_json(signal, body, limits).map(|(json, walked)| (Bytes::from(json), walked.records))
        }
        (sent, kept) => {
            let payload = Payload::decode(signal, sent, body, limits)?;
            let records = u32::try_from(payload.count()).unwrap_or(u32::MAX);
            let kept = if sent == kept { body.clone() } else { Bytes::from(payload.encode(kept)) };
            Ok((kept, records))
        }
    }
}
