//! The typed questions the gateway can ask: checked parameters in → one request out; the first bad parameter is named.

use std::fmt::Debug;

use xxhash_rust::xxh3::xxh3_64;

use super::bounds::Asked;
use super::cursor::{Cursor, Position};
use super::failure::BadParameter;
use super::hex;
use super::logs_lang::{self, LogFilter};
use super::metrics::{Aggregation, GroupKey};
use super::params::{AttributeMatch, Params};
use super::time::{HOUR, TimeRange, parse_duration};

/// Time range of the list of metrics when `start` is absent: names of metrics that report rarely belong to it.
pub const METRIC_LIST_RANGE: i64 = 24 * HOUR;
/// Most steps one series may have.
pub const MAX_STEPS: i64 = 11_000;

/// One question to the store. The scope is not part of it: it travels beside it and comes from the credentials alone.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryRequest {
    /// `GET /traces/{trace_id}`
    Trace(TraceByIdQuery),
    /// `GET /traces`
    Traces(TraceQuery),
    /// `GET /spans`
    Spans(SpanQuery),
    /// `GET /logs`
    Logs(LogQuery),
    /// `GET /metrics`
    Metrics(MetricListQuery),
    /// `GET /metrics/query`
    MetricRange(MetricRangeQuery),
    /// `GET /services`
    Services(ServiceQuery),
    /// `GET /services/{service}/operations`
    Operations(OperationQuery),
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Records of this time only.
    pub range: TimeRange,
    /// Most items on the page.
    pub limit: u32,
    /// Where the page before ended; `None` for the first page.
    pub after: Option<Position>,
    /// Hash of the query, for the cursor of the next page.
    pub fingerprint: u64,
}

impl Page {
    /// Reads `start`, `end`, `limit` and `cursor`. `query` is everything else that makes the list what it is.
    /// `width` is that of the range without a start, where the list has one of its own.
    ///
    /// # Errors
    /// [`BadParameter`] for the first of them that cannot be used.
    pub fn parse(
        params: &Params,
        asked: Asked,
        width: Option<i64>,
        query: &impl Debug,
    ) -> Result<Self, BadParameter> {
        let Asked { now_ns, bounds } = asked;
        let width = width.unwrap_or(bounds.default_range_ns);
        let fingerprint = xxh3_64(format!("{query:?}").as_bytes());
        let range = TimeRange::parse(params.get("start"), params.get("end"), now_ns, width)?;
        let limit = params.limit(&bounds)?;
        match params.get("cursor") {
            None => Ok(Self { range, limit, after: None, fingerprint }),
            Some(text) => {
                let cursor = Cursor::decode(text, fingerprint)?;
                if cursor.range.start_ns >= cursor.range.end_ns {
                    return Err(BadParameter::new(
                        "cursor",
                        "holds an empty time range: pass next_cursor as it was given",
                    ));
                }
                Ok(Self { range: cursor.range, limit, after: Some(cursor.position), fingerprint })
            }
        }
    }

    /// The text of `next_cursor` for a page that ended at `position`.
    pub fn next_cursor(&self, position: Position) -> String {
        Cursor { fingerprint: self.fingerprint, range: self.range, position }.encode()
    }
}

/// Status of a span, as OTLP numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpanStatus {
    /// Not set by the application.
    Unset = 0,
    /// Set to success.
    Ok = 1,
    /// Failed.
    Error = 2,
}

/// Names of span statuses, by number.
pub const STATUSES: [(&str, SpanStatus); 3] =
    [("unset", SpanStatus::Unset), ("ok", SpanStatus::Ok), ("error", SpanStatus::Error)];
/// Names of span kinds; the position is the OTLP number.
pub const KINDS: [(&str, u8); 6] =
    [("unspecified", 0), ("internal", 1), ("server", 2), ("client", 3), ("producer", 4), ("consumer", 5)];

/// What must hold for a span.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct SpanFilter {
    /// Service name, exact.
    pub service: Option<String>,
    /// Span name, exact.
    pub operation: Option<String>,
    /// Shortest duration, nanoseconds, included.
    pub min_duration_ns: Option<u64>,
    /// Longest duration, nanoseconds, included.
    pub max_duration_ns: Option<u64>,
    /// Status of the span.
    pub status: Option<SpanStatus>,
    /// Kind of the span, as OTLP numbers it.
    pub kind: Option<u8>,
    /// Attribute filters; all must hold.
    pub attributes: Vec<AttributeMatch>,
}

impl SpanFilter {
    const KNOWN: [&'static str; 6] =
        ["service", "operation", "min_duration", "max_duration", "status", "kind"];

    fn parse(params: &Params) -> Result<Self, BadParameter> {
        let duration = |name: &str| params.get(name).map(|text| parse_duration(name, text)).transpose();
        let filter = Self {
            service: params.text("service"),
            operation: params.text("operation"),
            min_duration_ns: duration("min_duration")?,
            max_duration_ns: duration("max_duration")?,
            status: params.choice("status", &STATUSES)?,
            kind: params.choice("kind", &KINDS)?,
            attributes: params.attributes()?,
        };
        if let (Some(min), Some(max)) = (filter.min_duration_ns, filter.max_duration_ns)
            && min > max
        {
            return Err(BadParameter::new("min_duration", "is longer than max_duration"));
        }
        Ok(filter)
    }
}

/// One trace, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceByIdQuery {
    /// The trace.
    pub trace_id: [u8; 16],
}

/// Traces with at least one matching span, newest matching span first.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceQuery {
    /// What must hold for at least one span of the trace.
    pub filter: SpanFilter,
    /// Which part of the list.
    pub page: Page,
}

/// Spans, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanQuery {
    /// What must hold for the span.
    pub filter: SpanFilter,
    /// Which part of the list.
    pub page: Page,
}

/// Log records, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct LogQuery {
    /// The parsed `q`.
    pub filter: LogFilter,
    /// Which part of the list.
    pub page: Page,
}

/// Metrics by name.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricListQuery {
    /// Only names that start with this.
    pub prefix: Option<String>,
    /// Only metrics of this service.
    pub service: Option<String>,
    /// Which part of the list.
    pub page: Page,
}

/// One metric over time, aggregated per step and group.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricRangeQuery {
    /// Metric name, exact.
    pub name: String,
    /// How the points of a step become one value; `None` leaves it to the kind of the metric.
    pub aggregation: Option<Aggregation>,
    /// Width of a step, nanoseconds.
    pub step_ns: i64,
    /// What the series are told apart by; empty for one series.
    pub by: Vec<GroupKey>,
    /// Only points of this service.
    pub service: Option<String>,
    /// Attribute filters; all must hold.
    pub attributes: Vec<AttributeMatch>,
    /// Time of the points; the start lies on a multiple of the step.
    pub range: TimeRange,
    /// Most series in the answer.
    pub limit: u32,
}

/// Rate, errors and durations of every service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceQuery {
    /// Which part of the list.
    pub page: Page,
}

/// Rate, errors and durations of every operation of one service.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationQuery {
    /// The service.
    pub service: String,
    /// Which part of the list.
    pub page: Page,
}

const PAGE: [&str; 4] = ["start", "end", "limit", "cursor"];

type Pairs = Vec<(String, String)>;

impl QueryRequest {
    /// What is asked for, in one word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Trace(_) => "trace",
            Self::Traces(_) => "traces",
            Self::Spans(_) => "spans",
            Self::Logs(_) => "logs",
            Self::Metrics(_) => "metrics",
            Self::MetricRange(_) => "metric_range",
            Self::Services(_) => "services",
            Self::Operations(_) => "operations",
        }
    }
}

impl QueryRequest {
    /// `GET /traces/{trace_id}`: 32 hex digits, no parameters.
    ///
    /// # Errors
    /// [`BadParameter`] for another id or for any parameter.
    pub fn trace(trace_id: &str, pairs: Pairs) -> Result<Self, BadParameter> {
        Params::new(pairs, &[], false)?;
        let id = hex::decode_fixed(trace_id).filter(|id| *id != [0; 16]);
        let id =
            id.ok_or_else(|| BadParameter::new("trace_id", "is not 32 hex digits (other than all zeros)"))?;
        Ok(Self::Trace(TraceByIdQuery { trace_id: id }))
    }

    /// `GET /traces`
    ///
    /// # Errors
    /// [`BadParameter`] for the first parameter that cannot be used; so do all constructors below.
    pub fn traces(pairs: Pairs, asked: impl Into<Asked>) -> Result<Self, BadParameter> {
        let (filter, page) = Self::span_filter("traces", pairs, asked.into())?;
        Ok(Self::Traces(TraceQuery { filter, page }))
    }

    /// `GET /spans`
    ///
    /// # Errors
    /// See [`QueryRequest::traces`].
    pub fn spans(pairs: Pairs, asked: impl Into<Asked>) -> Result<Self, BadParameter> {
        let (filter, page) = Self::span_filter("spans", pairs, asked.into())?;
        Ok(Self::Spans(SpanQuery { filter, page }))
    }

    fn span_filter(list: &str, pairs: Pairs, asked: Asked) -> Result<(SpanFilter, Page), BadParameter> {
        let params = Params::new(pairs, &[&SpanFilter::KNOWN[..], &PAGE].concat(), true)?;
        let filter = SpanFilter::parse(&params)?;
        let page = Page::parse(&params, asked, None, &(list, &filter))?;
        Ok((filter, page))
    }

    /// `GET /logs`
    ///
    /// # Errors
    /// See [`QueryRequest::traces`].
    pub fn logs(pairs: Pairs, asked: impl Into<Asked>) -> Result<Self, BadParameter> {
        let params = Params::new(pairs, &[&["q"][..], &PAGE].concat(), false)?;
        let filter = logs_lang::parse(params.get("q").unwrap_or_default())?;
        let page = Page::parse(&params, asked.into(), None, &("logs", &filter))?;
        Ok(Self::Logs(LogQuery { filter, page }))
    }

    /// `GET /metrics`
    ///
    /// # Errors
    /// See [`QueryRequest::traces`].
    pub fn metrics(pairs: Pairs, asked: impl Into<Asked>) -> Result<Self, BadParameter> {
        let params = Params::new(pairs, &[&["prefix", "service"][..], &PAGE].concat(), false)?;
        let (prefix, service) = (params.text("prefix"), params.text("service"));
        let page =
            Page::parse(&params, asked.into(), Some(METRIC_LIST_RANGE), &("metrics", &prefix, &service))?;
        Ok(Self::Metrics(MetricListQuery { prefix, service, page }))
    }

    /// `GET /metrics/query`
    ///
    /// # Errors
    /// See [`QueryRequest::traces`]; also without `name`, and when range and step make more than 11,000 steps.
    pub fn metric_range(pairs: Pairs, asked: impl Into<Asked>) -> Result<Self, BadParameter> {
        let known = ["name", "agg", "step", "by", "service", "start", "end", "limit"];
        let params = Params::new(pairs, &known, true)?;
        let name =
            params.text("name").ok_or_else(|| BadParameter::new("name", "is missing: name the metric"))?;
        let Asked { now_ns, bounds } = asked.into();
        let width = bounds.default_range_ns;
        let asked = TimeRange::parse(params.get("start"), params.get("end"), now_ns, width)?;
        let step_ns = match params.get("step") {
            Some(text) if text != "auto" => parse_step(text)?,
            _ => auto_step(asked.width()),
        };
        // A whole first step, so that its rate is not that of a part of it.
        let range = TimeRange { start_ns: asked.start_ns - asked.start_ns.rem_euclid(step_ns), ..asked };
        if range.width() / step_ns > MAX_STEPS {
            let detail = format!("makes more than {MAX_STEPS} steps of the time range: use a larger step");
            return Err(BadParameter::new("step", detail));
        }
        Ok(Self::MetricRange(MetricRangeQuery {
            name,
            aggregation: params.choice("agg", &Aggregation::NAMES)?,
            step_ns,
            by: GroupKey::parse_list(params.get("by").unwrap_or_default())?,
            service: params.text("service"),
            attributes: params.attributes()?,
            range,
            limit: params.limit(&bounds)?,
        }))
    }

    /// `GET /services`
    ///
    /// # Errors
    /// See [`QueryRequest::traces`].
    pub fn services(pairs: Pairs, asked: impl Into<Asked>) -> Result<Self, BadParameter> {
        let params = Params::new(pairs, &PAGE, false)?;
        Ok(Self::Services(ServiceQuery { page: Page::parse(&params, asked.into(), None, &"services")? }))
    }

    /// `GET /services/{service}/operations`
    ///
    /// # Errors
    /// See [`QueryRequest::traces`].
    pub fn operations(service: String, pairs: Pairs, asked: impl Into<Asked>) -> Result<Self, BadParameter> {
        let params = Params::new(pairs, &PAGE, false)?;
        let page = Page::parse(&params, asked.into(), None, &("operations", &service))?;
        Ok(Self::Operations(OperationQuery { service, page }))
    }
}

fn parse_step(text: &str) -> Result<i64, BadParameter> {
    // Prometheus clients write bare seconds.
    let with_unit =
        if text.bytes().all(|b| b.is_ascii_digit()) { format!("{text}s") } else { text.to_owned() };
    match i64::try_from(parse_duration("step", &with_unit)?) {
        Ok(step @ 1_000_000..) => Ok(step),
        _ => Err(BadParameter::new("step", "is shorter than 1ms or too long")),
    }
}

/// The first round step that cuts the range into at most 240 pieces.
pub fn auto_step(width_ns: i64) -> i64 {
    const SECONDS: [i64; 16] =
        [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200];
    let rounds = SECONDS.iter().map(|s| s * 1_000_000_000);
    let day = 24 * HOUR;
    rounds.into_iter().find(|step| width_ns / step <= 240).unwrap_or_else(|| (width_ns / 240 / day + 1) * day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000_000_000;

    fn pairs(given: &[(&str, &str)]) -> Pairs {
        given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_trace_query_takes_every_documented_parameter() {
        let request = QueryRequest::traces(
            pairs(&[
                ("service", "cart"),
                ("operation", "GET /x"),
                ("min_duration", "250ms"),
                ("max_duration", "1.5s"),
                ("status", "error"),
                ("kind", "server"),
                ("attr.http.status_code", "500"),
                ("start", "now-15m"),
                ("end", "now"),
                ("limit", "7"),
            ]),
            NOW,
        );
        let Ok(QueryRequest::Traces(query)) = request else { panic!("{request:?}") };
        assert_eq!(query.filter.min_duration_ns, Some(250_000_000));
        assert_eq!(query.filter.status, Some(SpanStatus::Error));
        assert_eq!(query.filter.kind, Some(2));
        assert_eq!(query.filter.attributes.len(), 1);
        assert_eq!((query.page.limit, query.page.range.width()), (7, HOUR / 4));
    }

    #[test]
    fn bad_parameters_are_named() {
        let id = "0".repeat(32);
        let cases: Vec<(Result<QueryRequest, BadParameter>, &str)> = vec![
            (QueryRequest::traces(pairs(&[("status", "bad")]), NOW), "status"),
            (
                QueryRequest::traces(pairs(&[("min_duration", "2s"), ("max_duration", "1s")]), NOW),
                "min_duration",
            ),
            (QueryRequest::spans(pairs(&[("cursor", "abc")]), NOW), "cursor"),
            (QueryRequest::logs(pairs(&[("q", "\"open")]), NOW), "q"),
            (QueryRequest::logs(pairs(&[("service", "x")]), NOW), "service"),
            (QueryRequest::metric_range(pairs(&[]), NOW), "name"),
            (QueryRequest::metric_range(pairs(&[("name", "m"), ("agg", "median")]), NOW), "agg"),
            (QueryRequest::metric_range(pairs(&[("name", "m"), ("step", "1ms")]), NOW), "step"),
            (QueryRequest::metric_range(pairs(&[("name", "m"), ("step", "0")]), NOW), "step"),
            (QueryRequest::metric_range(pairs(&[("name", "m"), ("by", "a,,b")]), NOW), "by"),
            (QueryRequest::trace(&id, vec![]), "trace_id"),
            (QueryRequest::trace("xyz", vec![]), "trace_id"),
            (QueryRequest::trace(&id, pairs(&[("limit", "1")])), "limit"),
        ];
        for (result, parameter) in cases {
            assert_eq!(result.unwrap_err().parameter, parameter);
        }
    }

    #[test]
    fn a_cursor_keeps_the_time_range_and_belongs_to_its_query() {
        let Ok(QueryRequest::Spans(first)) = QueryRequest::spans(pairs(&[("service", "a")]), NOW) else {
            panic!()
        };
        let cursor = first.page.next_cursor(Position { ts_ns: NOW - 5, key: vec![1], skip: 0 });
        let later = NOW + 10 * HOUR;
        let next =
            QueryRequest::spans(pairs(&[("service", "a"), ("cursor", &cursor), ("limit", "3")]), later);
        let Ok(QueryRequest::Spans(next)) = next else { panic!("{next:?}") };
        assert_eq!(next.page.range, first.page.range);
        assert_eq!(next.page.after.as_ref().map(|p| p.ts_ns), Some(NOW - 5));
        for other in [pairs(&[("service", "b"), ("cursor", &cursor)]), pairs(&[("cursor", &cursor)])] {
            assert_eq!(QueryRequest::spans(other, NOW).unwrap_err().parameter, "cursor");
        }
        assert!(QueryRequest::traces(pairs(&[("service", "a"), ("cursor", &cursor)]), NOW).is_err());
    }

    #[test]
    fn steps_are_chosen_and_the_start_lies_on_one() {
        assert_eq!(auto_step(HOUR), 15_000_000_000);
        assert_eq!(auto_step(24 * HOUR), 600_000_000_000);
        assert_eq!(auto_step(3650 * 24 * HOUR) % (24 * HOUR), 0);
        let request = QueryRequest::metric_range(
            pairs(&[("name", "m"), ("step", "60"), ("start", "now-90s")]),
            NOW + 7,
        );
        let Ok(QueryRequest::MetricRange(query)) = request else { panic!("{request:?}") };
        assert_eq!(query.range.start_ns % query.step_ns, 0);
        assert_eq!(query.step_ns, 60_000_000_000);
    }
}
