//! What the edge answers to an export: success or partial success, as protobuf or JSON; and back, for clients.

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;

use super::limits::OtlpLimits;
use super::{WireError, json, table};
use crate::domain::envelope::WireFormat;
use crate::domain::signal::Signal;

/// The records of a request that were not taken. Clients must not send them again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rejected {
    /// How many.
    pub records: i64,
    /// Why, for a person to read. May be set with no records: a warning.
    pub reason: String,
}

/// The body of a successful answer. Without rejections `partial_success` is left out, as OTLP demands.
pub fn encode(signal: Signal, format: WireFormat, rejected: Option<Rejected>) -> Vec<u8> {
    match signal {
        Signal::Traces => write(format, &traces(rejected)),
        Signal::Logs => write(format, &logs(rejected)),
        Signal::Metrics => write(format, &metrics(rejected)),
    }
}

/// The answer to a traces export, as the gRPC service returns it.
pub fn traces(rejected: Option<Rejected>) -> ExportTraceServiceResponse {
    let partial =
        |r: Rejected| ExportTracePartialSuccess { rejected_spans: r.records, error_message: r.reason };
    ExportTraceServiceResponse { partial_success: rejected.map(partial) }
}

/// The answer to a logs export, as the gRPC service returns it.
pub fn logs(rejected: Option<Rejected>) -> ExportLogsServiceResponse {
    let partial =
        |r: Rejected| ExportLogsPartialSuccess { rejected_log_records: r.records, error_message: r.reason };
    ExportLogsServiceResponse { partial_success: rejected.map(partial) }
}

/// The answer to a metrics export, as the gRPC service returns it.
pub fn metrics(rejected: Option<Rejected>) -> ExportMetricsServiceResponse {
    let partial = |r: Rejected| ExportMetricsPartialSuccess {
        rejected_data_points: r.records,
        error_message: r.reason,
    };
    ExportMetricsServiceResponse { partial_success: rejected.map(partial) }
}

fn write<M: Message + table::Table>(format: WireFormat, response: &M) -> Vec<u8> {
    match format {
        WireFormat::Otlp => response.encode_to_vec(),
        WireFormat::Json | WireFormat::Avro => {
            let mut out = Vec::new();
            table::write_message(response, &mut out);
            out
        }
    }
}

/// Reads the body of a successful answer: what was rejected, if anything was.
///
/// # Errors
/// [`WireError::Json`] or [`WireError::Protobuf`] for a body that is no such answer.
pub fn decode(signal: Signal, format: WireFormat, body: &[u8]) -> Result<Option<Rejected>, WireError> {
    let rejected = |records, reason| Rejected { records, reason };
    Ok(match signal {
        Signal::Traces => read::<ExportTraceServiceResponse>(format, body)?
            .partial_success
            .map(|p| rejected(p.rejected_spans, p.error_message)),
        Signal::Logs => read::<ExportLogsServiceResponse>(format, body)?
            .partial_success
            .map(|p| rejected(p.rejected_log_records, p.error_message)),
        Signal::Metrics => read::<ExportMetricsServiceResponse>(format, body)?
            .partial_success
            .map(|p| rejected(p.rejected_data_points, p.error_message)),
    })
}

fn read<M: Message + table::Table>(format: WireFormat, body: &[u8]) -> Result<M, WireError> {
    const NAME: &str = "export response";
    match format {
        WireFormat::Json | WireFormat::Avro => json::read(NAME, body, &OtlpLimits::default()),
        WireFormat::Otlp => {
            M::decode(body).map_err(|e| WireError::Protobuf { message: NAME, what: e.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_success_is_empty_in_both_formats() {
        for signal in Signal::ALL {
            assert_eq!(encode(signal, WireFormat::Json, None), b"{}");
            assert_eq!(encode(signal, WireFormat::Otlp, None), b"");
        }
    }

    #[test]
    fn rejections_come_back() {
        let rejected = Rejected { records: 3, reason: "quota \"used up\"".to_owned() };
        for signal in Signal::ALL {
            for format in [WireFormat::Json, WireFormat::Otlp] {
                let body = encode(signal, format, Some(rejected.clone()));
                assert_eq!(decode(signal, format, &body).unwrap(), Some(rejected.clone()));
            }
        }
        let body = encode(Signal::Logs, WireFormat::Json, Some(rejected));
        let expected = r#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"quota \"used up\""}}"#;
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }

    #[test]
    fn other_answers_are_refused() {
        assert!(decode(Signal::Traces, WireFormat::Json, b"<html>").is_err());
        assert!(decode(Signal::Traces, WireFormat::Otlp, b"<html>").is_err());
    }
}
