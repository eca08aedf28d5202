//! Spans as columns: one row a span, its events and links as parallel lists.

use arrow_array::RecordBatch;
use arrow_array::types::{UInt8Type, UInt32Type, UInt64Type};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use std::sync::Arc;

use super::common::{
    Batch, Common, RowTime, TimeSource, check_enum, check_id, check_time, nanos, note, primitive, repeated,
    room,
};
use super::parts::{Dict, Fixed, Lists, Map, Text, list};
use super::{AppendOutcome, BlockFull, MAX_COLUMN_BYTES, Unfit};
use crate::domain::envelope::Header;

/// Builds blocks of the `spans` table.
pub struct SpanColumns {
    common: Common,
    trace_id: Fixed<16>,
    span_id: Fixed<8>,
    parent_span_id: Fixed<8>,
    trace_state: Text,
    flags: Vec<u32>,
    name: Dict,
    kind: Vec<u8>,
    end_ts: Vec<i64>,
    duration_ns: Vec<u64>,
    status_code: Vec<u8>,
    status_message: Text,
    dropped_events: Vec<u32>,
    dropped_links: Vec<u32>,
    events: Events,
    links: Links,
}

struct Events {
    lists: Lists,
    ts: Vec<i64>,
    name: Dict,
    attributes: Map,
    types: Text,
    dropped: Vec<u32>,
    scratch: String,
}

struct Links {
    lists: Lists,
    trace_id: Fixed<16>,
    span_id: Fixed<8>,
    trace_state: Text,
    flags: Vec<u32>,
    attributes: Map,
    types: Text,
    dropped: Vec<u32>,
    scratch: String,
}

impl Default for SpanColumns {
    fn default() -> Self {
        Self::new()
    }
}

impl SpanColumns {
    /// An empty block.
    pub fn new() -> Self {
        Self {
            common: Common::new(),
            trace_id: Fixed::new(),
            span_id: Fixed::new(),
            parent_span_id: Fixed::new(),
            trace_state: Text::new(),
            flags: Vec::new(),
            name: Dict::new(),
            kind: Vec::new(),
            end_ts: Vec::new(),
            duration_ns: Vec::new(),
            status_code: Vec::new(),
            status_message: Text::new(),
            dropped_events: Vec::new(),
            dropped_links: Vec::new(),
            events: Events::new(),
            links: Links::new(),
        }
    }

    /// Rows in the block.
    pub fn rows(&self) -> usize {
        self.common.rows()
    }

    /// Bytes of text in the block, roughly what it takes in memory.
    pub fn bytes(&self) -> usize {
        self.common.bytes()
            + self.trace_state.bytes()
            + self.status_message.bytes()
            + self.events.attributes.bytes()
            + self.links.attributes.bytes()
            + self.links.trace_state.bytes()
    }

    /// Adds the spans of a request; those the table cannot hold are returned with the reason.
    ///
    /// # Errors
    /// [`BlockFull`], with nothing added, where the block has rows and no room for these.
    pub fn append(
        &mut self,
        request: &ExportTraceServiceRequest,
        header: &Header,
    ) -> Result<AppendOutcome, BlockFull> {
        room(self.rows(), self.bytes(), repeated_bytes(request).saturating_add(header.byte_count as usize))?;
        let mut outcome = AppendOutcome::default();
        self.common.request(header);
        for group in &request.resource_spans {
            self.common.resource(group.resource.as_ref(), &group.schema_url);
            for scope in &group.scope_spans {
                self.common.scope(scope.scope.as_ref(), &scope.schema_url);
                for span in &scope.spans {
                    note(&mut outcome, self.span(span));
                }
            }
        }
        Ok(outcome)
    }

    /// Hands the block over and begins a new one.
    pub fn finish(&mut self) -> RecordBatch {
        let mut done = std::mem::take(self);
        let mut batch = done.common.finish();
        batch.put("trace_id", done.trace_id.finish());
        batch.put("span_id", done.span_id.finish());
        batch.put("parent_span_id", done.parent_span_id.finish());
        batch.put("trace_state", Arc::new(done.trace_state.finish()));
        batch.put("flags", primitive::<UInt32Type>(&mut done.flags));
        batch.put("name", done.name.finish());
        batch.put("kind", primitive::<UInt8Type>(&mut done.kind));
        batch.put("end_ts", nanos(&mut done.end_ts));
        batch.put("duration_ns", primitive::<UInt64Type>(&mut done.duration_ns));
        batch.put("status_code", primitive::<UInt8Type>(&mut done.status_code));
        batch.put("status_message", Arc::new(done.status_message.finish()));
        done.events.finish(&mut batch);
        batch.put("dropped_events", primitive::<UInt32Type>(&mut done.dropped_events));
        done.links.finish(&mut batch);
        batch.put("dropped_links", primitive::<UInt32Type>(&mut done.dropped_links));
        batch.build()
    }

    fn span(&mut self, span: &Span) -> Result<(), Unfit> {
        let time = self.check(span)?;
        let end = check_time("end_time_unix_nano", span.end_time_unix_nano)?;
        let kind = check_enum("kind", span.kind)?;
        let code = check_enum("status.code", span.status.as_ref().map_or(0, |status| status.code))?;
        // Nothing below can fail: a row is added whole or not at all.
        self.common.push(time, &span.attributes, span.dropped_attributes_count);
        self.trace_id.push(&span.trace_id);
        self.span_id.push(&span.span_id);
        self.parent_span_id.push(&span.parent_span_id);
        self.trace_state.push(&span.trace_state);
        self.flags.push(span.flags);
        self.name.push(&span.name);
        self.kind.push(kind);
        self.end_ts.push(end);
        self.duration_ns.push(duration(time, span));
        self.status_code.push(code);
        self.status_message.push(span.status.as_ref().map_or("", |status| &status.message));
        self.events.push(&span.events);
        self.dropped_events.push(span.dropped_events_count);
        self.links.push(&span.links);
        self.dropped_links.push(span.dropped_links_count);
        Ok(())
    }

    /// Checks what could not be kept as it is; returns the time of the row.
    fn check(&self, span: &Span) -> Result<RowTime, Unfit> {
        if self.bytes() + self.common.repeated_bytes() > MAX_COLUMN_BYTES {
            return Err(Unfit::TooLarge { limit: MAX_COLUMN_BYTES });
        }
        check_id::<16>("trace_id", &span.trace_id)?;
        check_id::<8>("span_id", &span.span_id)?;
        check_id::<8>("parent_span_id", &span.parent_span_id)?;
        for link in &span.links {
            check_id::<16>("link.trace_id", &link.trace_id)?;
            check_id::<8>("link.span_id", &link.span_id)?;
        }
        for event in &span.events {
            check_time("event.time_unix_nano", event.time_unix_nano)?;
        }
        self.common.row_time("start_time_unix_nano", span.start_time_unix_nano, 0)
    }
}

/// How long the span took; 0 where its end lies before its start or its start is not known.
fn duration(time: RowTime, span: &Span) -> u64 {
    match time.source {
        TimeSource::Own => span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
        TimeSource::Observed | TimeSource::Received => 0,
    }
}

fn repeated_bytes(request: &ExportTraceServiceRequest) -> usize {
    let mut bytes = 0usize;
    for group in &request.resource_spans {
        let rows = group.scope_spans.iter().map(|scope| scope.spans.len()).sum();
        let resource = group.resource.as_ref();
        bytes = bytes.saturating_add(resource.map_or(0, |resource| repeated(&resource.attributes, rows)));
        for scope in &group.scope_spans {
            let rows = scope.spans.len();
            bytes = bytes.saturating_add(scope.scope.as_ref().map_or(0, |s| repeated(&s.attributes, rows)));
        }
    }
    bytes
}

// === impl Events ===

impl Events {
    fn new() -> Self {
        Self {
            lists: Lists::new(),
            ts: Vec::new(),
            name: Dict::new(),
            attributes: Map::new(),
            types: Text::new(),
            dropped: Vec::new(),
            scratch: String::new(),
        }
    }

    fn push(&mut self, events: &[Event]) {
        for event in events {
            self.ts.push(event.time_unix_nano.cast_signed());
            self.name.push(&event.name);
            self.attributes.push(&event.attributes, &mut self.scratch);
            self.types.push(&self.scratch);
            self.dropped.push(event.dropped_attributes_count);
        }
        self.lists.push(events.len());
    }

    fn finish(&mut self, batch: &mut Batch) {
        let at = self.lists.finish();
        batch.put("events_ts", list(&at, nanos(&mut self.ts), false));
        batch.put("events_name", list(&at, self.name.finish(), false));
        batch.put("events_attributes", list(&at, self.attributes.finish(), false));
        batch.put("events_types", list(&at, Arc::new(self.types.finish()), false));
        batch.put("events_dropped", list(&at, primitive::<UInt32Type>(&mut self.dropped), false));
    }
}

// === impl Links ===

impl Links {
    fn new() -> Self {
        Self {
            lists: Lists::new(),
            trace_id: Fixed::new(),
            span_id: Fixed::new(),
            trace_state: Text::new(),
            flags: Vec::new(),
            attributes: Map::new(),
            types: Text::new(),
            dropped: Vec::new(),
            scratch: String::new(),
        }
    }

    fn push(&mut self, links: &[Link]) {
        for link in links {
            self.trace_id.push(&link.trace_id);
            self.span_id.push(&link.span_id);
            self.trace_state.push(&link.trace_state);
            self.flags.push(link.flags);
            self.attributes.push(&link.attributes, &mut self.scratch);
            self.types.push(&self.scratch);
            self.dropped.push(link.dropped_attributes_count);
        }
        self.lists.push(links.len());
    }

    fn finish(&mut self, batch: &mut Batch) {
        let at = self.lists.finish();
        batch.put("links_trace_id", list(&at, self.trace_id.finish(), false));
        batch.put("links_span_id", list(&at, self.span_id.finish(), false));
        batch.put("links_trace_state", list(&at, Arc::new(self.trace_state.finish()), false));
        batch.put("links_flags", list(&at, primitive::<UInt32Type>(&mut self.flags), false));
        batch.put("links_attributes", list(&at, self.attributes.finish(), false));
        batch.put("links_types", list(&at, Arc::new(self.types.finish()), false));
        batch.put("links_dropped", list(&at, primitive::<UInt32Type>(&mut self.dropped), false));
    }
}
