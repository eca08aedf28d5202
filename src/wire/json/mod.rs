//! OTLP/JSON: text ⇄ export requests, by the proto3 JSON mapping with OTLP's own rules. Bad text is a [`WireError`].
//!
//! Read leniently: ids as hex in either case, enums by number or name, lowerCamelCase or proto names, 64-bit integers
//! and doubles as number or text, `null` for any member, unknown members ignored, of repeated members the last stands.

pub(crate) mod reader;
mod scan;
pub(crate) mod writer;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

use self::reader::Reader;
use super::fault::{Cause, Fault};
use super::limits::{Budget, OtlpLimits};
use super::table::{self, Table};
use super::{Payload, WireError};
use crate::domain::signal::Signal;

/// Reads an export request of `signal`.
///
/// # Errors
/// [`WireError::Json`] with path, line and column; [`WireError::Limit`] for a request over `limits`.
pub fn decode(signal: Signal, text: &[u8], limits: &OtlpLimits) -> Result<Payload, WireError> {
    Ok(match signal {
        Signal::Traces => Payload::Traces(read::<ExportTraceServiceRequest>("traces", text, limits)?),
        Signal::Logs => Payload::Logs(read::<ExportLogsServiceRequest>("logs", text, limits)?),
        Signal::Metrics => Payload::Metrics(read::<ExportMetricsServiceRequest>("metrics", text, limits)?),
    })
}

/// Writes an export request. 64-bit integers become texts, enums numbers, ids hex; defaults are left out.
pub fn encode(payload: &Payload) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 << 10);
    match payload {
        Payload::Traces(request) => table::write_message(request, &mut out),
        Payload::Logs(request) => table::write_message(request, &mut out),
        Payload::Metrics(request) => table::write_message(request, &mut out),
    }
    out
}

/// Reads any message that has a table; `what` names it in the error.
pub(super) fn read<M: Table>(what: &'static str, text: &[u8], limits: &OtlpLimits) -> Result<M, WireError> {
    let utf8 = std::str::from_utf8(text).map_err(|e| {
        let fault = Fault::malformed("the text is not utf-8").at(e.valid_up_to());
        explain(what, &text[..e.valid_up_to()], &fault)
    })?;
    let mut reader = Reader::new(utf8, Budget::new(limits));
    let message = table::read_message(&mut reader);
    message.and_then(|m| reader.finish().map(|()| m)).map_err(|fault| explain(what, text, &fault))
}

fn explain(what: &'static str, text: &[u8], fault: &Fault) -> WireError {
    if fault.cause() == Cause::Limit {
        return WireError::Limit { what: fault.text() };
    }
    let before = &text[..fault.offset().unwrap_or_default().min(text.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    WireError::Json { message: what, line, column, what: fault.text() }
}
