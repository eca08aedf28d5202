//! Log records as columns: one row a record.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::types::{UInt8Type, UInt32Type};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;

use super::common::{Common, check_enum, check_id, check_time, nanos, note, primitive, repeated, room};
use super::parts::{Dict, Fixed, Text};
use super::{AppendOutcome, BlockFull, MAX_COLUMN_BYTES, Unfit};
use crate::domain::envelope::Header;

/// Builds blocks of the `logs` table.
pub struct LogColumns {
    common: Common,
    observed_ts: Vec<i64>,
    trace_id: Fixed<16>,
    span_id: Fixed<8>,
    flags: Vec<u32>,
    severity_number: Vec<u8>,
    severity_text: Dict,
    body: Text,
    body_type: Dict,
    event_name: Dict,
}

impl Default for LogColumns {
    fn default() -> Self {
        Self::new()
    }
}

impl LogColumns {
    /// An empty block.
    pub fn new() -> Self {
        Self {
            common: Common::new(),
            observed_ts: Vec::new(),
            trace_id: Fixed::new(),
            span_id: Fixed::new(),
            flags: Vec::new(),
            severity_number: Vec::new(),
            severity_text: Dict::new(),
            body: Text::new(),
            body_type: Dict::new(),
            event_name: Dict::new(),
        }
    }

    /// Rows in the block.
    pub fn rows(&self) -> usize {
        self.common.rows()
    }

    /// Bytes of text in the block, roughly what it takes in memory.
    pub fn bytes(&self) -> usize {
        self.common.bytes() + self.body.bytes()
    }

    /// Adds the records of a request; those the table cannot hold are returned with the reason.
    ///
    /// # Errors
    /// [`BlockFull`], with nothing added, where the block has rows and no room for these.
    pub fn append(
        &mut self,
        request: &ExportLogsServiceRequest,
        header: &Header,
    ) -> Result<AppendOutcome, BlockFull> {
        room(self.rows(), self.bytes(), repeated_bytes(request).saturating_add(header.byte_count as usize))?;
        let mut outcome = AppendOutcome::default();
        self.common.request(header);
        for group in &request.resource_logs {
            self.common.resource(group.resource.as_ref(), &group.schema_url);
            for scope in &group.scope_logs {
                self.common.scope(scope.scope.as_ref(), &scope.schema_url);
                for record in &scope.log_records {
                    note(&mut outcome, self.record(record));
                }
            }
        }
        Ok(outcome)
    }

    /// Hands the block over and begins a new one.
    pub fn finish(&mut self) -> RecordBatch {
        let mut done = std::mem::take(self);
        let mut batch = done.common.finish();
        batch.put("observed_ts", nanos(&mut done.observed_ts));
        batch.put("trace_id", done.trace_id.finish());
        batch.put("span_id", done.span_id.finish());
        batch.put("flags", primitive::<UInt32Type>(&mut done.flags));
        batch.put("severity_number", primitive::<UInt8Type>(&mut done.severity_number));
        batch.put("severity_text", done.severity_text.finish());
        batch.put("body", Arc::new(done.body.finish()));
        batch.put("body_type", done.body_type.finish());
        batch.put("event_name", done.event_name.finish());
        batch.build()
    }

    fn record(&mut self, record: &LogRecord) -> Result<(), Unfit> {
        if self.bytes() + self.common.repeated_bytes() > MAX_COLUMN_BYTES {
            return Err(Unfit::TooLarge { limit: MAX_COLUMN_BYTES });
        }
        check_id::<16>("trace_id", &record.trace_id)?;
        check_id::<8>("span_id", &record.span_id)?;
        let severity = check_enum("severity_number", record.severity_number)?;
        let observed = check_time("observed_time_unix_nano", record.observed_time_unix_nano)?;
        let time =
            self.common.row_time("time_unix_nano", record.time_unix_nano, record.observed_time_unix_nano)?;
        // Nothing below can fail: a row is added whole or not at all.
        self.common.push(time, &record.attributes, record.dropped_attributes_count);
        self.observed_ts.push(observed);
        self.trace_id.push(&record.trace_id);
        self.span_id.push(&record.span_id);
        self.flags.push(record.flags);
        self.severity_number.push(severity);
        self.severity_text.push(&record.severity_text);
        let kind = self.body.push_value(record.body.as_ref());
        self.body_type.push(kind.as_str());
        self.event_name.push(&record.event_name);
        Ok(())
    }
}

fn repeated_bytes(request: &ExportLogsServiceRequest) -> usize {
    let mut bytes = 0usize;
    for group in &request.resource_logs {
        let rows = group.scope_logs.iter().map(|scope| scope.log_records.len()).sum();
        let resource = group.resource.as_ref();
        bytes = bytes.saturating_add(resource.map_or(0, |resource| repeated(&resource.attributes, rows)));
        for scope in &group.scope_logs {
            let rows = scope.log_records.len();
            bytes = bytes.saturating_add(scope.scope.as_ref().map_or(0, |s| repeated(&s.attributes, rows)));
        }
    }
    bytes
}
