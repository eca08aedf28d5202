//! SQL over spans: search in two steps (which times, then whole rows), traces that match, trace by id, trace summaries.

use crate::backends::telemetry::sql::{Select, Statement, Table};
use crate::domain::query::cursor::Position;
use crate::domain::query::request::SpanFilter;
use crate::domain::query::time::TimeRange;
use crate::domain::scope::Scope;

/// Most spans of one trace in an answer.
pub const MAX_TRACE_SPANS: usize = 50_000;

/// True for a span without a parent.
pub(super) const IS_ROOT: &str = "parent_span_id = toFixedString('', 8)";

/// Tells spans of one time apart.
const TIE: &str = "cityHash64(trace_id, span_id, batch_id, name, end_ts)";

/// Columns that every span and log record has.
pub(super) const COMMON: &str = "project, app, env, service, retention_days, toUnixTimestamp64Nano(ts) AS ts_ns, \
     toUnixTimestamp64Milli(received_at) AS received_ms, trace_id, span_id, flags, attributes, attribute_types, dropped_attributes, \
     resource_attributes, resource_types, resource_schema_url, resource_dropped, \
     scope_name, scope_version, scope_attributes, scope_types, scope_schema_url, scope_dropped";

const SPAN: &str = "parent_span_id, name, kind, toUnixTimestamp64Nano(end_ts) AS end_ns, duration_ns, status_code, status_message, \
     trace_state, arrayMap(t -> toUnixTimestamp64Nano(t), events_ts) AS events_ns, events_name, events_attributes, events_types, \
     events_dropped, dropped_events, links_trace_id, links_span_id, links_trace_state, links_flags, links_attributes, links_types, \
     links_dropped, dropped_links";

/// Times of the newest matching spans of a slice, newest first: column `ts_ns`. Reads the filter columns only.
pub fn probe(scope: &Scope, filter: &SpanFilter, slice: TimeRange, need: usize) -> Statement {
    let mut select = Select::from(scope, Table::Spans);
    select.column("toUnixTimestamp64Nano(ts) AS ts_ns").between(slice.start_ns, slice.end_ns);
    matching(&mut select, filter);
    select.tail(format!("ORDER BY ts_bucket DESC, ts DESC LIMIT {need}"));
    select.build()
}

/// Matching spans of a range, whole, newest first, from `after` on (that position itself included).
pub fn rows(
    scope: &Scope,
    filter: &SpanFilter,
    range: TimeRange,
    after: Option<&Position>,
    need: usize,
) -> Statement {
    let mut select = Select::from(scope, Table::Spans);
    select.column(COMMON).column(SPAN).column(format!("{TIE} AS tie")).between(range.start_ns, range.end_ns);
    matching(&mut select, filter);
    let service = SpanFilter { service: filter.service.clone(), ..SpanFilter::default() };
    newest_first(&mut select, TIE, after, need, Within::of(filter.service.is_some(), *filter == service));
    select.build()
}

/// True where the key (a service) or the index over attributes leads to the rows, so that looking at their times first saves nothing.
pub fn is_narrow(filter: &SpanFilter) -> bool {
    filter.service.is_some() || filter.attributes.iter().any(|attribute| !attribute.negated)
}

/// How far the rows of a list lie together in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    /// Anywhere in the time range.
    Anywhere,
    /// Among the rows of one service.
    Service,
    /// They are the rows of one service.
    ServiceOnly,
}

impl Within {
    /// What a filter says: whether it names a service, and whether it says nothing else.
    pub(super) fn of(service: bool, only: bool) -> Self {
        match (service, only) {
            (false, _) => Self::Anywhere,
            (true, false) => Self::Service,
            (true, true) => Self::ServiceOnly,
        }
    }
}

/// Orders by time and tie, newest first, and starts at `after`. Within one service that is the order of the table, which is then read
/// from its newest end and no further than needed; the bucket is time cut short, it only says so.
pub(super) fn newest_first(
    select: &mut Select,
    tie: &str,
    after: Option<&Position>,
    need: usize,
    within: Within,
) {
    if let Some(after) = after {
        let hash = <[u8; 8]>::try_from(after.key.as_slice()).map_or(0, u64::from_be_bytes);
        let (ts, hash) = (select.bind("Int64", after.ts_ns), select.bind("UInt64", hash));
        let at = format!("fromUnixTimestamp64Nano({ts}, 'UTC')");
        select.filter(format!("(ts < {at} OR (ts = {at} AND {tie} <= {hash}))"));
    }
    let bucket = if within == Within::Anywhere { "" } else { "ts_bucket DESC, " };
    if within != Within::Anywhere {
        // Reading ahead of what is needed costs a seventh of such a statement, blocks of a granule another eighth; where more is
        // filtered than the service, small blocks would cost more than they save.
        select.setting("read_in_order_use_buffering", "0");
    }
    if within == Within::ServiceOnly {
        select.setting("max_block_size", "1024");
    }
    select.tail(format!("ORDER BY {bucket}ts DESC, tie DESC LIMIT {need}"));
}

/// Traces with matching spans in a slice, by their newest matching span: columns `trace_id`, `newest_ns`. Only traces after `after`.
pub fn traces(
    scope: &Scope,
    filter: &SpanFilter,
    slice: TimeRange,
    after: Option<&Position>,
    need: usize,
) -> Statement {
    let mut select = newest_match(scope, filter, slice);
    select.tail("GROUP BY trace_id");
    if let Some(after) = after {
        let place = place(&mut select, after);
        select.tail(format!("HAVING (newest_ns, trace_id) < {place}"));
    }
    select.tail(format!("ORDER BY newest_ns DESC, trace_id DESC LIMIT {need}"));
    select.build()
}

/// Which of `ids` have a matching span at or before `after` in the order of the list, and so stood on an earlier page.
pub fn traces_shown(
    scope: &Scope,
    filter: &SpanFilter,
    range: TimeRange,
    after: &Position,
    ids: &[[u8; 16]],
) -> Statement {
    let mut select = newest_match(scope, filter, TimeRange { start_ns: after.ts_ns, end_ns: range.end_ns });
    select.traces(ids).tail("GROUP BY trace_id");
    let place = place(&mut select, after);
    select.tail(format!("HAVING (newest_ns, trace_id) >= {place} LIMIT {}", ids.len()));
    select.build()
}

fn newest_match(scope: &Scope, filter: &SpanFilter, slice: TimeRange) -> Select {
    let mut select = Select::from(scope, Table::Spans);
    select
        .column("trace_id")
        .column("toUnixTimestamp64Nano(max(ts)) AS newest_ns")
        .between(slice.start_ns, slice.end_ns);
    matching(&mut select, filter);
    select
}

fn place(select: &mut Select, after: &Position) -> String {
    let (ts, id) = (
        select.bind("Int64", after.ts_ns),
        select.bind("String", crate::domain::query::hex::encode(&after.key)),
    );
    format!("({ts}, toFixedString(unhex({id}), 16))")
}

/// Where in time these traces lie: columns `min_ns`, `max_ns`, `found`.
pub fn trace_times(scope: &Scope, ids: &[[u8; 16]]) -> Statement {
    let mut select = Select::from(scope, Table::TraceIndex);
    select
        .column("toUnixTimestamp64Nano(min(min_ts)) AS min_ns")
        .column("toUnixTimestamp64Nano(max(max_ts)) AS max_ns")
        .column("count() AS found")
        .traces(ids);
    select.build()
}

/// All spans of a trace by start time, one more than [`MAX_TRACE_SPANS`] at most.
pub fn trace(scope: &Scope, trace_id: [u8; 16], range: TimeRange) -> Statement {
    let mut select = Select::from(scope, Table::Spans);
    select.column(COMMON).column(SPAN).between(range.start_ns, range.end_ns).traces(&[trace_id]);
    select.tail(format!("ORDER BY ts, span_id LIMIT {}", MAX_TRACE_SPANS + 1));
    select.build()
}

/// One row a trace: root, start, end, counts, services.
pub fn summaries(scope: &Scope, ids: &[[u8; 16]], range: TimeRange) -> Statement {
    let mut select = Select::from(scope, Table::Spans);
    select
        .column("trace_id")
        .column("toUnixTimestamp64Nano(min(ts)) AS start_ns")
        .column("toUnixTimestamp64Nano(max(greatest(ts, end_ts))) AS latest_ns")
        .column("count() AS span_count")
        .column("countIf(status_code = 2) AS error_count")
        .column("arraySort(groupUniqArray(1000)(toString(service))) AS services")
        .column(format!("countIf({IS_ROOT}) AS roots"))
        .column(format!("argMinIf(toString(service), ts, {IS_ROOT}) AS root_service"))
        .column(format!("argMinIf(toString(name), ts, {IS_ROOT}) AS root_name"))
        .column("argMin(toString(service), ts) AS first_service")
        .column("argMin(toString(name), ts) AS first_name")
        .between(range.start_ns, range.end_ns)
        .traces(ids);
    select.tail("GROUP BY trace_id");
    select.build()
}

fn matching(select: &mut Select, filter: &SpanFilter) {
    for (column, value) in [("service", &filter.service), ("name", &filter.operation)] {
        if let Some(value) = value {
            let bound = select.bind("String", value);
            select.filter(format!("{column} = {bound}"));
        }
    }
    for (comparison, value) in [(">=", filter.min_duration_ns), ("<=", filter.max_duration_ns)] {
        if let Some(value) = value {
            let bound = select.bind("UInt64", value);
            select.filter(format!("duration_ns {comparison} {bound}"));
        }
    }
    for (column, value) in [("status_code", filter.status.map(|s| s as u8)), ("kind", filter.kind)] {
        if let Some(value) = value {
            let bound = select.bind("UInt8", value);
            select.filter(format!("{column} = {bound}"));
        }
    }
    for attribute in &filter.attributes {
        select.attribute(attribute);
    }
}
