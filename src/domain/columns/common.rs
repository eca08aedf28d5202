//! The columns all tables share: scope, times, resource, scope of instrumentation and attributes of a record.
//!
//! A builder calls [`Common::request`], then [`Common::resource`] and [`Common::scope`] as they begin, then
//! [`Common::push`] for every record. What repeats is encoded once and copied.

use std::mem;
use std::sync::Arc;

use arrow_array::types::{ArrowPrimitiveType, TimestampMillisecondType, TimestampNanosecondType};
use arrow_array::types::{UInt8Type, UInt16Type, UInt32Type};
use arrow_array::{Array, ArrayRef, PrimitiveArray, RecordBatch};
use arrow_array::{TimestampMillisecondArray, TimestampNanosecondArray};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{Field, Schema};
use opentelemetry_proto::tonic::common::v1::{EntityRef, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::parts::{Dict, Entries, Fixed, Map};
use super::{AppendOutcome, BlockFull, MAX_COLUMN_BYTES, Rejected, Unfit, value};
use crate::domain::envelope::Header;

/// Seconds of a `ts_bucket`.
const BUCKET_SECONDS: i64 = 300;
/// The latest time of a record: `ts_bucket` and the expiry are 32-bit seconds.
const LATEST_RECORD_NS: u64 = u32::MAX as u64 * 1_000_000_000;
/// The latest time of anything else: a `DateTime64(9)`.
const LATEST_NS: u64 = i64::MAX as u64;
/// The service of a resource without `service.name`, as the OpenTelemetry conventions have it.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// Where `ts` of a row came from; the numbers are stored as `ts_source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeSource {
    Own = 0,
    Observed = 1,
    Received = 2,
}

/// The time a row is filed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowTime {
    pub nanos: i64,
    pub source: TimeSource,
}

/// Columns that every table has.
pub(super) struct Common {
    tenant: Dict,
    project: Dict,
    app: Dict,
    env: Dict,
    retention_days: Vec<u16>,
    ts_bucket: Vec<u32>,
    ts: Vec<i64>,
    ts_source: Vec<u8>,
    received_at: Vec<i64>,
    batch_id: Fixed<16>,
    service: Dict,
    resource_attributes: Map,
    resource_types: Dict,
    resource_schema_url: Dict,
    resource_dropped: Vec<u32>,
    resource_entities: Dict,
    scope_name: Dict,
    scope_version: Dict,
    scope_attributes: Map,
    scope_types: Dict,
    scope_schema_url: Dict,
    scope_dropped: Vec<u32>,
    attributes: Map,
    attribute_types: Dict,
    dropped_attributes: Vec<u32>,
    current: Current,
    types: String,
}

/// What the rows being added have in common: numbers of dictionary words and encoded attributes.
#[derive(Default)]
struct Current {
    tenant: i32,
    project: i32,
    app: i32,
    env: i32,
    retention_days: u16,
    received_ns: i64,
    batch_id: [u8; 16],
    service: i32,
    resource: Entries,
    resource_types: i32,
    resource_schema_url: i32,
    resource_dropped: u32,
    resource_entities: i32,
    scope_name: i32,
    scope_version: i32,
    scope: Entries,
    scope_types: i32,
    scope_schema_url: i32,
    scope_dropped: u32,
}

impl Common {
    pub(super) fn new() -> Self {
        Self {
            tenant: Dict::new(),
            project: Dict::new(),
            app: Dict::new(),
            env: Dict::new(),
            retention_days: Vec::new(),
            ts_bucket: Vec::new(),
            ts: Vec::new(),
            ts_source: Vec::new(),
            received_at: Vec::new(),
            batch_id: Fixed::new(),
            service: Dict::new(),
            resource_attributes: Map::new(),
            resource_types: Dict::new(),
            resource_schema_url: Dict::new(),
            resource_dropped: Vec::new(),
            resource_entities: Dict::new(),
            scope_name: Dict::new(),
            scope_version: Dict::new(),
            scope_attributes: Map::new(),
            scope_types: Dict::new(),
            scope_schema_url: Dict::new(),
            scope_dropped: Vec::new(),
            attributes: Map::new(),
            attribute_types: Dict::new(),
            dropped_attributes: Vec::new(),
            current: Current::default(),
            types: String::new(),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.ts.len()
    }

    /// Bytes of attribute text so far: what grows without a bound by the record count.
    pub(super) fn bytes(&self) -> usize {
        self.resource_attributes.bytes() + self.scope_attributes.bytes() + self.attributes.bytes()
    }

    /// Begins the rows of a request.
    pub(super) fn request(&mut self, header: &Header) {
        let current = &mut self.current;
        current.tenant = self.tenant.intern(&header.scope.tenant);
        current.project = self.project.intern(&header.scope.project);
        current.app = self.app.intern(&header.scope.app);
        current.env = self.env.intern(&header.scope.env);
        current.retention_days = header.retention_days;
        current.received_ns = i64::try_from(header.received_at_ns).unwrap_or(i64::MAX);
        current.batch_id = header.batch_id.into_bytes();
    }

    /// Begins the rows of a resource.
    pub(super) fn resource(&mut self, resource: Option<&Resource>, schema_url: &str) {
        let attributes = resource.map_or(&[][..], |resource| &resource.attributes);
        let current = &mut self.current;
        self.resource_attributes.encode(attributes, &mut current.resource);
        current.resource_types = self.resource_types.intern(current.resource.types());
        current.resource_schema_url = self.resource_schema_url.intern(schema_url);
        current.resource_dropped = resource.map_or(0, |resource| resource.dropped_attributes_count);
        let entities = resource.map_or(String::new(), |resource| entities(&resource.entity_refs));
        current.resource_entities = self.resource_entities.intern(&entities);
        current.service = self.service.intern(&service_name(attributes));
    }

    /// Begins the rows of an instrumentation scope.
    pub(super) fn scope(&mut self, scope: Option<&InstrumentationScope>, schema_url: &str) {
        let current = &mut self.current;
        self.scope_attributes.encode(scope.map_or(&[][..], |scope| &scope.attributes), &mut current.scope);
        current.scope_types = self.scope_types.intern(current.scope.types());
        current.scope_name = self.scope_name.intern(scope.map_or("", |scope| &scope.name));
        current.scope_version = self.scope_version.intern(scope.map_or("", |scope| &scope.version));
        current.scope_schema_url = self.scope_schema_url.intern(schema_url);
        current.scope_dropped = scope.map_or(0, |scope| scope.dropped_attributes_count);
    }

    /// Hash of the scope, resource and instrumentation scope of the current rows, for the series of a metric.
    pub(super) fn identity(&self, header: &Header) -> u64 {
        let current = &self.current;
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        for text in [&header.scope.project, &header.scope.app, &header.scope.env] {
            hasher.update(text.as_bytes());
            hasher.update(&[0]);
        }
        for number in [current.resource.sum(), current.scope.sum()] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.digest()
    }

    /// Bytes a row of the current resource and scope takes before its own attributes.
    pub(super) fn repeated_bytes(&self) -> usize {
        self.current.resource.row_bytes() + self.current.scope.row_bytes()
    }

    /// The time a row is filed under: its own, else the observed one, else when the batch was received.
    pub(super) fn row_time(&self, field: &'static str, own: u64, observed: u64) -> Result<RowTime, Unfit> {
        let (nanos, source) = match (own, observed) {
            (0, 0) => {
                return Ok(RowTime { nanos: self.current.received_ns, source: TimeSource::Received });
            }
            (0, observed) => (observed, TimeSource::Observed),
            (own, _) => (own, TimeSource::Own),
        };
        if nanos > LATEST_RECORD_NS {
            return Err(Unfit::Time { field, nanos, latest: LATEST_RECORD_NS });
        }
        Ok(RowTime { nanos: nanos.cast_signed(), source })
    }

    /// Adds a row. Returns the hash of its attributes as a set.
    pub(super) fn push(&mut self, time: RowTime, attributes: &[KeyValue], dropped: u32) -> u64 {
        let current = &self.current;
        self.tenant.push_id(current.tenant);
        self.project.push_id(current.project);
        self.app.push_id(current.app);
        self.env.push_id(current.env);
        self.retention_days.push(current.retention_days);
        let seconds = time.nanos.div_euclid(1_000_000_000);
        let bucket = seconds - seconds.rem_euclid(BUCKET_SECONDS);
        self.ts_bucket.push(u32::try_from(bucket).unwrap_or(0));
        self.ts.push(time.nanos);
        self.ts_source.push(time.source as u8);
        self.received_at.push(current.received_ns / 1_000_000);
        self.batch_id.push(&current.batch_id);
        self.service.push_id(current.service);
        self.resource_attributes.push_entries(&current.resource);
        self.resource_types.push_id(current.resource_types);
        self.resource_schema_url.push_id(current.resource_schema_url);
        self.resource_dropped.push(current.resource_dropped);
        self.resource_entities.push_id(current.resource_entities);
        self.scope_name.push_id(current.scope_name);
        self.scope_version.push_id(current.scope_version);
        self.scope_attributes.push_entries(&current.scope);
        self.scope_types.push_id(current.scope_types);
        self.scope_schema_url.push_id(current.scope_schema_url);
        self.scope_dropped.push(current.scope_dropped);
        let sum = self.attributes.push(attributes, &mut self.types);
        self.attribute_types.push(&self.types);
        self.dropped_attributes.push(dropped);
        sum
    }

    /// Hands the columns over and begins anew.
    pub(super) fn finish(&mut self) -> Batch {
        let mut done = mem::replace(self, Self::new());
        let mut batch = Batch::default();
        batch.put("tenant", done.tenant.finish());
        batch.put("project", done.project.finish());
        batch.put("app", done.app.finish());
        batch.put("env", done.env.finish());
        batch.put("retention_days", primitive::<UInt16Type>(&mut done.retention_days));
        batch.put("ts_bucket", primitive::<UInt32Type>(&mut done.ts_bucket));
        batch.put("ts", nanos(&mut done.ts));
        batch.put("ts_source", primitive::<UInt8Type>(&mut done.ts_source));
        batch.put("received_at", millis(&mut done.received_at));
        batch.put("batch_id", done.batch_id.finish());
        batch.put("service", done.service.finish());
        batch.put("resource_attributes", done.resource_attributes.finish());
        batch.put("resource_types", done.resource_types.finish());
        batch.put("resource_schema_url", done.resource_schema_url.finish());
        batch.put("resource_dropped", primitive::<UInt32Type>(&mut done.resource_dropped));
        batch.put("resource_entities", done.resource_entities.finish());
        batch.put("scope_name", done.scope_name.finish());
        batch.put("scope_version", done.scope_version.finish());
        batch.put("scope_attributes", done.scope_attributes.finish());
        batch.put("scope_types", done.scope_types.finish());
        batch.put("scope_schema_url", done.scope_schema_url.finish());
        batch.put("scope_dropped", primitive::<UInt32Type>(&mut done.scope_dropped));
        batch.put("attributes", done.attributes.finish());
        batch.put("attribute_types", done.attribute_types.finish());
        batch.put("dropped_attributes", primitive::<UInt32Type>(&mut done.dropped_attributes));
        batch
    }
}

// === what is left out ===

/// Refuses a request for which the block has no room left. An empty block takes any request, and refuses what is too much
/// record by record.
pub(super) fn room(rows: usize, held: usize, needed: usize) -> Result<(), BlockFull> {
    if rows > 0 && held.saturating_add(needed) > MAX_COLUMN_BYTES {
        return Err(BlockFull { held, needed });
    }
    Ok(())
}

/// Bytes that `rows` repetitions of these attributes take, estimated from their encoded size.
pub(super) fn repeated(attributes: &[KeyValue], rows: usize) -> usize {
    attributes.iter().map(Message::encoded_len).sum::<usize>().saturating_mul(rows)
}

/// Notes what became of the next record of a request.
pub(super) fn note(outcome: &mut AppendOutcome, result: Result<(), Unfit>) {
    match result {
        Ok(()) => outcome.stored += 1,
        Err(reason) => {
            let index = outcome.stored + u32::try_from(outcome.rejected.len()).unwrap_or(u32::MAX);
            outcome.rejected.push(Rejected { index, reason });
        }
    }
}

/// Checks an id's length.
pub(super) fn check_id<const N: usize>(field: &'static str, id: &[u8]) -> Result<(), Unfit> {
    if Fixed::<N>::fits(id) { Ok(()) } else { Err(Unfit::IdLength { field, actual: id.len(), expected: N }) }
}

/// Checks a time that is not the record's own.
pub(super) fn check_time(field: &'static str, nanos: u64) -> Result<i64, Unfit> {
    i64::try_from(nanos).map_err(|_| Unfit::Time { field, nanos, latest: LATEST_NS })
}

/// Checks an enum value that is kept in a byte.
pub(super) fn check_enum(field: &'static str, value: i32) -> Result<u8, Unfit> {
    u8::try_from(value).map_err(|_| Unfit::Enum { field, value })
}

// === the batch ===

/// Named columns on their way to a `RecordBatch`.
#[derive(Default)]
pub(super) struct Batch {
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl Batch {
    pub(super) fn put(&mut self, name: &str, array: ArrayRef) {
        self.fields.push(Field::new(name, array.data_type().clone(), false));
        self.arrays.push(array);
    }

    pub(super) fn put_nullable(&mut self, name: &str, array: ArrayRef) {
        self.fields.push(Field::new(name, array.data_type().clone(), true));
        self.arrays.push(array);
    }

    /// # Panics
    /// Where columns differ in length: a builder forgot one, which every test of it shows.
    pub(super) fn build(self) -> RecordBatch {
        RecordBatch::try_new(Arc::new(Schema::new(self.fields)), self.arrays)
            .expect("every row has an entry in every column")
    }
}

/// A column of numbers.
pub(super) fn primitive<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(mem::take(values)), None))
}

/// A column of times in nanoseconds.
pub(super) fn nanos(values: &mut Vec<i64>) -> ArrayRef {
    let values: TimestampNanosecondArray =
        PrimitiveArray::<TimestampNanosecondType>::new(ScalarBuffer::from(mem::take(values)), None);
    Arc::new(values.with_timezone("UTC"))
}

fn millis(values: &mut Vec<i64>) -> ArrayRef {
    let values: TimestampMillisecondArray =
        PrimitiveArray::<TimestampMillisecondType>::new(ScalarBuffer::from(mem::take(values)), None);
    Arc::new(values.with_timezone("UTC"))
}

// === resource ===

/// The text of `service.name`, the first where there are several.
fn service_name(attributes: &[KeyValue]) -> String {
    let mut text = Vec::new();
    if let Some(found) = attributes.iter().find(|attribute| attribute.key == "service.name") {
        value::write_text(&mut text, found.value.as_ref());
    }
    match String::from_utf8(text) {
        Ok(name) if !name.is_empty() => name,
        _ => UNKNOWN_SERVICE.to_owned(),
    }
}

/// Entity references as OTLP/JSON, empty where there are none.
fn entities(references: &[EntityRef]) -> String {
    if references.is_empty() {
        return String::new();
    }
    let list = references.iter().map(|entity| {
        serde_json::json!({
            "schemaUrl": entity.schema_url,
            "type": entity.r#type,
            "idKeys": entity.id_keys,
            "descriptionKeys": entity.description_keys,
        })
    });
    serde_json::Value::Array(list.collect()).to_string()
}
