//! What an OTLP request may cost once decoded: limits and the running account that every codec charges against.

use super::fault::Fault;

/// Limits of one export request, checked while it is read and before memory is spent on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpLimits {
    /// Spans, log records or data points. Above it one request would fill several blocks of the store by itself.
    pub max_records: u32,
    /// Attributes in one list (of a record, event, link, resource, or one key-value list). SDKs stop at 128.
    pub max_attributes: usize,
    /// Bytes of one attribute key: keys become dictionary entries and index terms.
    pub max_key_bytes: usize,
    /// Bytes of one text or bytes value. Stack traces and request bodies fit; files do not belong in telemetry.
    pub max_value_bytes: usize,
    /// Levels of lists and key-value lists in a value. 30 is the most that stays within the 100 messages of nesting
    /// that protobuf decoders accept at the deepest place a value can stand (an exemplar of a data point).
    pub max_value_depth: u32,
    /// Memory of the decoded request in bytes: what two-byte empty messages are multiplied to is bounded by this (a
    /// growing list may take twice its part for a moment). A full body of 20 MiB of real telemetry takes 80 to 100 MiB.
    pub max_decoded_bytes: usize,
}

impl Default for OtlpLimits {
    fn default() -> Self {
        Self {
            max_records: 262_144,
            max_attributes: 2_048,
            max_key_bytes: 1_024,
            max_value_bytes: 1 << 20,
            max_value_depth: 30,
            max_decoded_bytes: 128 << 20,
        }
    }
}

/// What a message is to the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Part of another message; its size is charged where lists are read.
    Part,
    /// A span, log record or data point.
    Record,
    /// An attribute; their number is checked where lists are read.
    Attribute,
    /// A value, which may hold values.
    Value,
}

/// The account of one request against its limits.
#[derive(Debug, Clone)]
pub(crate) struct Budget<'a> {
    limits: &'a OtlpLimits,
    pub(crate) records: u32,
    pub(crate) bytes: usize,
    depth: u32,
}

impl<'a> Budget<'a> {
    pub(crate) fn new(limits: &'a OtlpLimits) -> Self {
        Self { limits, records: 0, bytes: 0, depth: 0 }
    }

    /// Charges decoded memory.
    #[inline]
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), Fault> {
        self.bytes += bytes;
        if self.bytes <= self.limits.max_decoded_bytes {
            return Ok(());
        }
        Err(Fault::limit(format!(
            "the request takes more than {} bytes once decoded: send smaller batches",
            self.limits.max_decoded_bytes
        )))
    }

    /// Checks the number of attributes in a list.
    #[inline]
    pub(crate) fn attributes(&self, count: usize) -> Result<(), Fault> {
        if count <= self.limits.max_attributes {
            return Ok(());
        }
        Err(Fault::limit(format!("more than {} attributes in one list", self.limits.max_attributes)))
    }

    /// Checks and charges a text or bytes value of `len` bytes.
    #[inline]
    pub(crate) fn value(&mut self, len: usize) -> Result<(), Fault> {
        if len <= self.limits.max_value_bytes {
            return self.charge(len);
        }
        Err(Fault::limit(format!("a value of {len} bytes, the limit is {}", self.limits.max_value_bytes)))
    }

    /// Checks and charges an attribute key of `len` bytes.
    #[inline]
    pub(crate) fn key(&mut self, len: usize) -> Result<(), Fault> {
        if len <= self.limits.max_key_bytes {
            return self.charge(len);
        }
        Err(Fault::limit(format!("a key of {len} bytes, the limit is {}", self.limits.max_key_bytes)))
    }

    /// Enters a message: counts records and levels of values. [`Budget::leave`] goes back up.
    #[inline]
    pub(crate) fn enter(&mut self, place: Place) -> Result<(), Fault> {
        match place {
            Place::Part | Place::Attribute => Ok(()),
            Place::Record => self.record(),
            Place::Value => self.deeper(),
        }
    }

    #[inline]
    pub(crate) fn leave(&mut self, place: Place) {
        if place == Place::Value {
            self.depth -= 1;
        }
    }

    fn record(&mut self) -> Result<(), Fault> {
        self.records += 1;
        if self.records <= self.limits.max_records {
            return Ok(());
        }
        Err(Fault::limit(format!(
            "more than {} records in one request: send smaller batches",
            self.limits.max_records
        )))
    }

    fn deeper(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth <= self.limits.max_value_depth {
            return Ok(());
        }
        Err(Fault::limit(format!("values nested deeper than {} levels", self.limits.max_value_depth)))
    }
}
