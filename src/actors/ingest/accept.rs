//! Turns one export request into the record that goes to the log: decompress, decode, sift, encode, wrap.
//!
//! A pure function of the request and the rules, so that the actor around it has nothing to get wrong.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use crate::backends::event_log::Record;
use crate::config::ingest::IngestConfig;
use crate::domain::block::partition_of;
use crate::domain::envelope::{Envelope, Header, SCHEMA_VERSION, WireFormat};
use crate::domain::refusal::Refusal;
use crate::domain::sift::{self, Sifted, TimeWindow};
use crate::messages::ingest::ReceiveExport;
use crate::wire::envelope::to_record_headers;
use crate::wire::limits::OtlpLimits;
use crate::wire::resources::ServiceVersion;
use crate::wire::{Payload, WireError, compress};

/// Most times its own size that a body may grow when decompressed: telemetry reaches 40, a bomb over 1,000.
const MAX_RATIO: usize = 200;

/// What the edge accepts and how it passes it on.
#[derive(Debug, Clone)]
pub struct AcceptRules {
    /// Encoding of payloads in the log.
    pub format: WireFormat,
    /// Most bytes of a decompressed body.
    pub max_decompressed: usize,
    /// Bounds of a request's content.
    pub limits: OtlpLimits,
    /// Oldest accepted record, where the retention is longer.
    pub accept_past: Duration,
    /// Furthest accepted lead of a client's clock.
    pub accept_future: Duration,
    /// Partitions of each topic.
    pub partitions: u32,
}

impl AcceptRules {
    /// The rules that `[ingest]` sets, for topics of so many partitions.
    pub fn new(ingest: &IngestConfig, partitions: u32) -> Self {
        Self {
            format: ingest.wire_format,
            max_decompressed: ingest.max_decompressed.as_usize(),
            limits: OtlpLimits::default(),
            accept_past: ingest.accept_past,
            accept_future: ingest.accept_future,
            partitions,
        }
    }
}

/// A request that may go to the log.
#[derive(Debug)]
pub struct Prepared {
    /// The record; `None` when nothing of the request was left (an empty request, or all of it refused).
    pub record: Option<(u32, Record)>,
    /// Key by which a resend is recognised.
    pub content_hash: u128,
    /// What was kept and what was refused.
    pub sifted: Sifted,
    /// Which versions of services sent what was kept.
    pub versions: Vec<ServiceVersion>,
}

/// Prepares one request.
///
/// # Errors
/// The [`Refusal`] for a body that is too large or cannot be understood.
pub fn prepare(request: &ReceiveExport, rules: &AcceptRules) -> Result<Prepared, Refusal> {
    let body = compress::decompress(request.encoding, &request.body, rules.max_decompressed, MAX_RATIO)
        .map_err(refusal_of)?;
    let mut payload = decode(request, &body, &rules.limits)?;
    let sifted = sift(&mut payload, &window(request, rules));
    let content_hash = content_hash(request, &body);
    if sifted.kept == 0 {
        return Ok(Prepared { record: None, content_hash, sifted, versions: Vec::new() });
    }
    let versions = payload.versions();
    let encoded = encode(request, body, &payload, &sifted, rules.format);
    let header = Header {
        schema_version: SCHEMA_VERSION,
        format: rules.format,
        scope: request.grant.scope.clone(),
        signal: request.signal,
        retention_days: request.grant.retention_days,
        received_at_ns: request.received_at_ns,
        batch_id: Uuid::now_v7(),
        content_hash,
        record_count: u32::try_from(sifted.kept).unwrap_or(u32::MAX),
        byte_count: u32::try_from(encoded.len()).unwrap_or(u32::MAX),
        attempts: 0,
        last_error: None,
        trace_context: request.trace_context.clone(),
    };
    let partition = partition_of(content_hash, rules.partitions);
    let record = to_record(&Envelope { header, payload: encoded });
    Ok(Prepared { record: Some((partition, record)), content_hash, sifted, versions })
}

/// An envelope as a record of the log.
pub fn to_record(envelope: &Envelope) -> Record {
    Record {
        key: Bytes::copy_from_slice(envelope.header.scope.tenant.as_bytes()),
        headers: to_record_headers(&envelope.header),
        payload: envelope.payload.clone(),
    }
}

fn decode(request: &ReceiveExport, body: &Bytes, limits: &OtlpLimits) -> Result<Payload, Refusal> {
    Payload::decode(request.signal, request.format, body, limits).map_err(refusal_of)
}

fn sift(payload: &mut Payload, window: &TimeWindow) -> Sifted {
    match payload {
        Payload::Traces(request) => sift::sift_traces(request, window),
        Payload::Logs(request) => sift::sift_logs(request, window),
        Payload::Metrics(request) => sift::sift_metrics(request, window),
    }
}

fn window(request: &ReceiveExport, rules: &AcceptRules) -> TimeWindow {
    let retention = Duration::from_secs(u64::from(request.grant.retention_days) * 86_400);
    TimeWindow {
        received_at_ns: request.received_at_ns,
        past: rules.accept_past.min(retention),
        future: rules.accept_future,
    }
}

/// The payload in the log's format. What came in that very format and lost nothing is passed on byte for byte.
fn encode(
    request: &ReceiveExport,
    body: Bytes,
    payload: &Payload,
    sifted: &Sifted,
    format: WireFormat,
) -> Bytes {
    if request.format == format && sifted.rejected == 0 { body } else { Bytes::from(payload.encode(format)) }
}

/// The same request of the same tenant has the same hash, however it was compressed.
fn content_hash(request: &ReceiveExport, body: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(request.grant.scope.tenant.as_bytes());
    hash.update(&[0, request.signal as u8, request.format as u8]);
    hash.update(body);
    // 0 means "no key" to the log.
    hash.digest128().max(1)
}

fn refusal_of(error: WireError) -> Refusal {
    let text = error.to_string();
    if error.is_too_large() { Refusal::TooLarge(text) } else { Refusal::BadData(text) }
}
