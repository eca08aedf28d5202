//! OTLP protobuf: bytes ⇄ export requests, and bytes checked or turned into JSON without building the request.
//!
//! Whatever comes in is walked first. The walk refuses all that prost would refuse, and what would cost too much.

pub(crate) mod cursor;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use super::fault::{Cause, Fault};
use super::limits::{Budget, OtlpLimits};
use super::table;
use super::{Payload, WireError, json};
use crate::domain::signal::Signal;

/// What a walk found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// Spans, log records or data points.
    pub records: u32,
    /// About the memory that the decoded request takes, in bytes.
    pub decoded_bytes: usize,
}

/// Checks an export request of `signal` and counts its records, without building it. What passes here decodes.
///
/// # Errors
/// [`WireError::Protobuf`] with the path of what is malformed; [`WireError::Limit`] for a request over `limits`.
pub fn walk(signal: Signal, bytes: &[u8], limits: &OtlpLimits) -> Result<Walked, WireError> {
    let mut budget = Budget::new(limits);
    let walked = match signal {
        Signal::Traces => table::walk_message::<ExportTraceServiceRequest>(bytes, &mut budget),
        Signal::Logs => table::walk_message::<ExportLogsServiceRequest>(bytes, &mut budget),
        Signal::Metrics => table::walk_message::<ExportMetricsServiceRequest>(bytes, &mut budget),
    };
    walked.map_err(|fault| explain(signal, &fault))?;
    Ok(Walked { records: budget.records, decoded_bytes: budget.bytes })
}

/// Decodes an export request of `signal`, after a [`walk`].
///
/// # Errors
/// As [`walk`].
pub fn decode(signal: Signal, bytes: &[u8], limits: &OtlpLimits) -> Result<Payload, WireError> {
    walk(signal, bytes, limits)?;
    decode_walked(signal, bytes)
}

/// Encodes an export request.
pub fn encode(payload: &Payload) -> Vec<u8> {
    match payload {
        Payload::Traces(request) => request.encode_to_vec(),
        Payload::Logs(request) => request.encode_to_vec(),
        Payload::Metrics(request) => request.encode_to_vec(),
    }
}

/// Turns an export request into OTLP/JSON without building it, after a [`walk`]. Gives what [`json::encode`] of the
/// decoded request gives where fields come in the order of their tags, as SDKs write them.
///
/// # Errors
/// As [`walk`].
pub fn to_json(signal: Signal, bytes: &[u8], limits: &OtlpLimits) -> Result<(Vec<u8>, Walked), WireError> {
    let walked = walk(signal, bytes, limits)?;
    let mut out = Vec::with_capacity(bytes.len().saturating_mul(3));
    let written = match signal {
        Signal::Traces => table::transcode_message::<ExportTraceServiceRequest>(bytes, &mut out),
        Signal::Logs => table::transcode_message::<ExportLogsServiceRequest>(bytes, &mut out),
        Signal::Metrics => table::transcode_message::<ExportMetricsServiceRequest>(bytes, &mut out),
    };
    match written {
        Ok(()) => Ok((out, walked)),
        Err(fault) if fault.cause() == Cause::OutOfOrder => {
            Ok((json::encode(&decode_walked(signal, bytes)?), walked))
        }
        Err(fault) => Err(explain(signal, &fault)),
    }
}

fn decode_walked(signal: Signal, bytes: &[u8]) -> Result<Payload, WireError> {
    let decoded = match signal {
        Signal::Traces => ExportTraceServiceRequest::decode(bytes).map(Payload::Traces),
        Signal::Logs => ExportLogsServiceRequest::decode(bytes).map(Payload::Logs),
        Signal::Metrics => ExportMetricsServiceRequest::decode(bytes).map(Payload::Metrics),
    };
    decoded.map_err(|e| WireError::Protobuf { message: signal.as_str(), what: e.to_string() })
}

fn explain(signal: Signal, fault: &Fault) -> WireError {
    match fault.cause() {
        Cause::Limit => WireError::Limit { what: fault.text() },
        Cause::Malformed | Cause::OutOfOrder => {
            WireError::Protobuf { message: signal.as_str(), what: fault.text() }
        }
    }
}
