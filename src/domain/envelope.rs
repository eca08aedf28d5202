//! The envelope a batch travels in: a header that every stage can read without touching the payload, and the payload.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::scope::Scope;
use super::signal::Signal;

/// Version of the envelope header written by this build.
pub const SCHEMA_VERSION: u16 = 1;

/// How the payload of an envelope is encoded. Consumers read it from the header; a topic may hold all mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum WireFormat {
    /// OTLP/JSON, readable by any tool.
    #[default]
    Json,
    /// OTLP protobuf as the client sent it: the fast path.
    Otlp,
    /// Avro by the schemas in `proto/avro/`, each payload a container file that brings its schema along.
    Avro,
}

impl WireFormat {
    /// Lower-case name as used in config, environment and header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Otlp => "otlp",
            Self::Avro => "avro",
        }
    }
}

/// What travels as record headers: everything a stage needs to route, account for and retry a batch.
#[derive(Clone, PartialEq)]
pub struct Header {
    /// Version of this header, [`SCHEMA_VERSION`] when written here.
    pub schema_version: u16,
    /// Encoding of the payload.
    pub format: WireFormat,
    /// Whose data it is.
    pub scope: Scope,
    /// Which signal the payload holds.
    pub signal: Signal,
    /// Retention stamped at the edge, in days.
    pub retention_days: u16,
    /// When the edge took the batch, Unix nanoseconds.
    pub received_at_ns: u64,
    /// Identity of the batch, UUIDv7.
    pub batch_id: Uuid,
    /// 128-bit hash over tenant, signal and the request as sent, by which a client's resend is recognised.
    pub content_hash: u128,
    /// Records (spans, log records, data points) in the payload.
    pub record_count: u32,
    /// Payload bytes, uncompressed.
    pub byte_count: u32,
    /// How often delivery to the store was tried before; 0 for a fresh batch.
    pub attempts: u16,
    /// Why the last attempt failed, for retries and dead letters.
    pub last_error: Option<String>,
    /// W3C `traceparent` of the request that brought the batch, if it had one.
    pub trace_context: Option<String>,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Header({} {} {:?} {} records {} bytes, batch {}, attempts {})",
            self.signal,
            self.format.as_str(),
            self.scope,
            self.record_count,
            self.byte_count,
            self.batch_id,
            self.attempts
        )
    }
}

/// A batch on its way: header and payload. Cheap to clone.
#[derive(Clone, PartialEq)]
pub struct Envelope {
    /// Routing and accounting data.
    pub header: Header,
    /// Payload in `header.format`: one OTLP export request.
    pub payload: Bytes,
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Envelope({:?})", self.header)
    }
}
