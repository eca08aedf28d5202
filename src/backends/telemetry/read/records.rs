//! Rows of the store as answers: one row in → span, log record, trace summary, metric, service or operation out; a row of another shape is
//! a [`DecodeError`].

use super::cells::bytes_at;
use super::cells::{DecodeError, Row, fixed, int_at, map_at, text_at};
use crate::domain::query::answer::{
    InstrumentationScope, LogRecord, MetricInfo, OperationSummary, Origin, Red, Resource, ServiceSummary,
    Span, SpanEvent, SpanLink, Status, Time, TraceSummary,
};
use crate::domain::query::attributes::{self, Attributes};
use crate::domain::query::hex;
use crate::domain::query::logs_lang::LEVELS;
use crate::domain::query::metrics::MetricKind;
use crate::domain::query::request::{KINDS, STATUSES};
use crate::domain::query::time::format_rfc3339;

/// A whole span.
pub fn span(row: &Row<'_>) -> Result<Span, DecodeError> {
    let (start, end) = (Time::new(row.int("ts_ns")?), Time::new(row.int("end_ns")?));
    Ok(Span {
        trace_id: hex::encode(&row.fixed::<16>("trace_id")?),
        span_id: hex::encode(&row.fixed::<8>("span_id")?),
        parent_span_id: present(&row.fixed::<8>("parent_span_id")?),
        service: row.text("service")?,
        name: row.text("name")?,
        kind: kind_name(row.int("kind")?),
        start_time: start.time,
        start_unix_nano: start.unix_nano,
        end_time: end.time,
        end_unix_nano: end.unix_nano,
        duration_ns: row.int("duration_ns")?,
        status: Status { code: status_name(row.int("status_code")?), message: row.text("status_message")? },
        trace_state: row.text("trace_state")?,
        flags: row.int("flags")?,
        attributes: attributes_of(row, "attributes", "attribute_types", "dropped_attributes")?,
        events: events(row)?,
        dropped_events_count: row.int("dropped_events")?,
        links: links(row)?,
        dropped_links_count: row.int("dropped_links")?,
        origin: origin(row)?,
    })
}

/// A whole log record.
pub fn log(row: &Row<'_>) -> Result<LogRecord, DecodeError> {
    let observed: i64 = row.int("observed_ns")?;
    let observed = (observed != 0).then(|| Time::new(observed));
    let severity: u8 = row.int("severity_number")?;
    let letter = row.text("body_type")?.chars().next().unwrap_or('s');
    let (body, note) = attributes::plain(&row.text("body")?, letter);
    Ok(LogRecord {
        time: Time::new(row.int("ts_ns")?),
        observed_time: observed.as_ref().map(|t| t.time.clone()),
        observed_unix_nano: observed.map(|t| t.unix_nano),
        service: row.text("service")?,
        level: level_name(severity),
        severity_number: severity,
        severity_text: row.text("severity_text")?,
        body,
        body_type: note.map(str::to_owned),
        event_name: row.text("event_name")?,
        trace_id: present(&row.fixed::<16>("trace_id")?),
        span_id: present(&row.fixed::<8>("span_id")?),
        flags: row.int("flags")?,
        attributes: attributes_of(row, "attributes", "attribute_types", "dropped_attributes")?,
        origin: origin(row)?,
    })
}

/// A trace in a list, with its id as bytes.
pub fn trace_summary(row: &Row<'_>) -> Result<([u8; 16], TraceSummary), DecodeError> {
    let id = row.fixed::<16>("trace_id")?;
    let (start, latest): (i64, i64) = (row.int("start_ns")?, row.int("latest_ns")?);
    let has_root = row.int::<u64>("roots")? > 0;
    let from = if has_root { ("root_service", "root_name") } else { ("first_service", "first_name") };
    let time = Time::new(start);
    let summary = TraceSummary {
        trace_id: hex::encode(&id),
        root_service: row.text(from.0)?,
        root_operation: row.text(from.1)?,
        has_root,
        start_time: time.time,
        start_unix_nano: time.unix_nano,
        duration_ns: u64::try_from(latest.saturating_sub(start)).unwrap_or(0),
        span_count: row.int("span_count")?,
        error_count: row.int("error_count")?,
        services: row.list("services", |array, at| text_at(array, at).map(std::borrow::Cow::into_owned))?,
    };
    Ok((id, summary))
}

/// A metric in the list of metrics.
pub fn metric(row: &Row<'_>) -> Result<MetricInfo, DecodeError> {
    let kind = MetricKind::from_number(row.int("kind_number")?);
    let temporality = match row.int::<u8>("temporality")? {
        1 => "delta",
        2 => "cumulative",
        _ => "unspecified",
    };
    Ok(MetricInfo {
        name: row.text("item")?,
        unit: row.text("unit_text")?,
        kind: kind.map_or("unknown", MetricKind::name).to_owned(),
        temporality: temporality.to_owned(),
        is_monotonic: row.int::<u8>("monotonic")? == 1,
        description: row.text("about")?,
        last_seen: format_rfc3339(row.int("last_ns")?),
    })
}

/// A service in the list of services, over a range of `seconds`.
pub fn service(row: &Row<'_>, seconds: f64) -> Result<ServiceSummary, DecodeError> {
    Ok(ServiceSummary {
        service: row.text("item")?,
        red: red(row, seconds)?,
        span_count: row.int("span_count")?,
        last_seen: format_rfc3339(row.int("last_ns")?),
    })
}

/// An operation of a service, over a range of `seconds`.
pub fn operation(row: &Row<'_>, seconds: f64) -> Result<OperationSummary, DecodeError> {
    Ok(OperationSummary {
        operation: row.text("item")?,
        kind: kind_name(row.int("kind")?),
        red: red(row, seconds)?,
        last_seen: format_rfc3339(row.int("last_ns")?),
    })
}

fn red(row: &Row<'_>, seconds: f64) -> Result<Red, DecodeError> {
    let (requests, errors): (u64, u64) = (row.int("requests")?, row.int("errors")?);
    let quantiles = row.list("quantiles", super::cells::float_at)?;
    let millis = |at: usize| {
        let nanos = quantiles.get(at).copied().filter(|q| q.is_finite() && requests > 0);
        nanos.map(|q| q / 1e6)
    };
    Ok(Red {
        requests,
        rate: requests as f64 / seconds.max(1e-9),
        errors,
        error_ratio: if requests == 0 { 0.0 } else { errors as f64 / requests as f64 },
        p50_ms: millis(0),
        p95_ms: millis(1),
        p99_ms: millis(2),
    })
}

fn origin(row: &Row<'_>) -> Result<Origin, DecodeError> {
    Ok(Origin {
        project: row.text("project")?,
        app: row.text("app")?,
        env: row.text("env")?,
        received_at: format_rfc3339(row.int::<i64>("received_ms")?.saturating_mul(1_000_000)),
        retention_days: row.int("retention_days")?,
        resource: Resource {
            attributes: attributes_of(row, "resource_attributes", "resource_types", "resource_dropped")?,
            schema_url: row.text("resource_schema_url")?,
        },
        scope: InstrumentationScope {
            name: row.text("scope_name")?,
            version: row.text("scope_version")?,
            attributes: attributes_of(row, "scope_attributes", "scope_types", "scope_dropped")?,
            schema_url: row.text("scope_schema_url")?,
        },
    })
}

fn attributes_of(row: &Row<'_>, map: &str, types: &str, dropped: &str) -> Result<Attributes, DecodeError> {
    Ok(build(&row.map(map)?, &row.text(types)?, row.int(dropped)?))
}

fn build(entries: &[(String, String)], types: &str, dropped: u32) -> Attributes {
    Attributes::from_entries(entries.iter().map(|(k, v)| (k.as_str(), v.as_str())), types, dropped)
}

fn events(row: &Row<'_>) -> Result<Vec<SpanEvent>, DecodeError> {
    let times = row.list("events_ns", |a, i| int_at(a, i).and_then(|t| i64::try_from(t).ok()))?;
    let names = texts(row, "events_name")?;
    let sets = attribute_sets(row, "events_attributes", "events_types", "events_dropped")?;
    same_length("events", &[times.len(), names.len(), sets.len()])?;
    let parts = times.into_iter().zip(names).zip(sets);
    Ok(parts
        .map(|((time, name), attributes)| SpanEvent { time: Time::new(time), name, attributes })
        .collect())
}

fn links(row: &Row<'_>) -> Result<Vec<SpanLink>, DecodeError> {
    let traces = row.list("links_trace_id", |a, i| bytes_at(a, i).and_then(fixed::<16>))?;
    let spans = row.list("links_span_id", |a, i| bytes_at(a, i).and_then(fixed::<8>))?;
    let states = texts(row, "links_trace_state")?;
    let flags = row.list("links_flags", |a, i| int_at(a, i).and_then(|f| u32::try_from(f).ok()))?;
    let sets = attribute_sets(row, "links_attributes", "links_types", "links_dropped")?;
    same_length("links", &[traces.len(), spans.len(), states.len(), flags.len(), sets.len()])?;
    let parts = traces.iter().zip(&spans).zip(states).zip(flags).zip(sets);
    Ok(parts
        .map(|((((trace, span), trace_state), flags), attributes)| SpanLink {
            trace_id: hex::encode(trace),
            span_id: hex::encode(span),
            trace_state,
            flags,
            attributes,
        })
        .collect())
}

/// The attributes of all events or links of a span.
fn attribute_sets(
    row: &Row<'_>,
    maps: &str,
    types: &str,
    dropped: &str,
) -> Result<Vec<Attributes>, DecodeError> {
    let (maps, types) = (row.list(maps, map_at)?, texts(row, types)?);
    let dropped = row.list(dropped, |a, i| int_at(a, i).and_then(|d| u32::try_from(d).ok()))?;
    same_length("attributes", &[maps.len(), types.len(), dropped.len()])?;
    Ok(maps
        .iter()
        .zip(&types)
        .zip(dropped)
        .map(|((map, types), dropped)| build(map, types, dropped))
        .collect())
}

fn texts(row: &Row<'_>, name: &str) -> Result<Vec<String>, DecodeError> {
    row.list(name, |array, at| text_at(array, at).map(std::borrow::Cow::into_owned))
}

fn same_length(what: &str, lengths: &[usize]) -> Result<(), DecodeError> {
    if lengths.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(());
    }
    Err(DecodeError { column: what.to_owned(), why: format!("has parts of different lengths: {lengths:?}") })
}

/// The id as hex; `None` for all zeros.
fn present(id: &[u8]) -> Option<String> {
    id.iter().any(|byte| *byte != 0).then(|| hex::encode(id))
}

fn kind_name(number: u8) -> String {
    KINDS
        .iter()
        .find(|(_, kind)| *kind == number)
        .map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

fn status_name(number: u8) -> String {
    let found = STATUSES.iter().find(|(_, status)| *status as u8 == number);
    found.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

fn level_name(severity: u8) -> Option<String> {
    let found = LEVELS.iter().rev().find(|(_, low)| severity >= *low);
    found.map(|(name, _)| (*name).to_owned())
}
