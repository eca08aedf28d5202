//! SQL over metric points: the list of metrics, what a metric is, and its points per step and group in the shape its aggregation needs.

use super::services::{need, page};
use crate::backends::telemetry::sql::{Select, Statement, Table};
use crate::domain::query::metrics::{Aggregation, GroupKey, MetricKind};
use crate::domain::query::request::{MetricListQuery, MetricRangeQuery};
use crate::domain::query::time::MINUTE;
use crate::domain::scope::Scope;

/// Most rows (steps times groups, or histogram points) that one metric query may return.
pub const MAX_ROWS: usize = 100_000;

/// The value of a gauge or sum point.
const VALUE: &str = "ifNull(toFloat64(int_value), value)";

/// Metrics by name, from the cursor's name on.
pub fn list(scope: &Scope, query: &MetricListQuery) -> Statement {
    let mut select = Select::from(scope, Table::Metrics);
    select
        .column("toString(metric) AS item")
        .column("toString(unit) AS unit_text")
        .column("toInt8(kind) AS kind_number")
        .column("temporality")
        .column("toUInt8(is_monotonic) AS monotonic")
        .column("toString(argMax(description, ts)) AS about")
        .column("toUnixTimestamp64Nano(max(ts)) AS last_ns");
    if let Some(prefix) = &query.prefix {
        let bound = select.bind("String", prefix);
        select.filter(format!("startsWith(metric, {bound})"));
    }
    of_service(&mut select, query.service.as_deref());
    page(&mut select, "metric", &query.page);
    let order = "metric, unit, kind_number, temporality, monotonic";
    select.tail(format!("GROUP BY {order} ORDER BY {order} LIMIT {}", need(&query.page)));
    select.build()
}

/// What the metric is, its commonest form first: columns `kind_number`, `monotonic`, `unit_text`.
pub fn describe(scope: &Scope, query: &MetricRangeQuery) -> Statement {
    let mut select = Select::from(scope, Table::Metrics);
    select
        .column("toInt8(kind) AS kind_number")
        .column("toUInt8(is_monotonic) AS monotonic")
        .column("toString(any(unit)) AS unit_text")
        .column("count() AS points");
    of_metric(&mut select, query, query.range.start_ns);
    select.tail("GROUP BY kind_number, monotonic ORDER BY points DESC, kind_number LIMIT 1");
    select.build()
}

/// One value per step and group, computed by the store: columns `step_ns`, `g0`…, `result`.
pub fn points(
    scope: &Scope,
    query: &MetricRangeQuery,
    kind: MetricKind,
    aggregation: Aggregation,
) -> Statement {
    let mut select = base(scope, query, kind, query.range.start_ns);
    select.filter("has_value");
    if aggregation == Aggregation::Sum {
        return sum_of_series(select, query);
    }
    let result = match aggregation {
        Aggregation::Min => format!("min({VALUE})"),
        Aggregation::Max => format!("max({VALUE})"),
        Aggregation::Count => "toFloat64(count())".to_owned(),
        Aggregation::Last => format!("argMax({VALUE}, ts)"),
        other => match other.quantile() {
            Some(q) => format!("quantileTDigest({q})({VALUE})"),
            None => format!("avg({VALUE})"),
        },
    };
    select.column(format!("{result} AS result"));
    grouped(&mut select, query);
    select.build()
}

/// Newest value of each series in the step (all of them for deltas), added up over the series.
fn sum_of_series(mut inner: Select, query: &MetricRangeQuery) -> Statement {
    inner.column(format!("if(temporality = 1, sum({VALUE}), argMax({VALUE}, ts)) AS held"));
    inner.tail(format!("GROUP BY step_ns{}, series_hash, temporality", group_names(query)));
    let mut outer = Select::around(inner);
    outer.column(format!("step_ns{}", group_names(query))).column("sum(held) AS result");
    grouped(&mut outer, query);
    outer.build()
}

/// Growth per step and group. A total that shrinks, or declares a start after the point before, counts from zero; a series' first point
/// counts whole if the series began within what was read, else it is only the base of the next.
pub fn growth(scope: &Scope, query: &MetricRangeQuery) -> Statement {
    let since = known_since(query);
    let mut inner = base(scope, query, MetricKind::Sum, since);
    inner
        .filter("has_value")
        .filter("is_monotonic")
        .column(format!("{VALUE} AS held"))
        .column("temporality")
        .column("toUnixTimestamp64Nano(start_ts) AS began_ns")
        .column(format!("lagInFrame({VALUE}) OVER series AS held_before"))
        .column("lagInFrame(toUnixTimestamp64Nano(ts)) OVER series AS before_ns")
        .column("row_number() OVER series AS nth")
        .tail("WINDOW series AS (PARTITION BY series_hash ORDER BY ts ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)");
    let mut outer = Select::around(inner);
    let (since, start) = (outer.bind("Int64", since), outer.bind("Int64", query.range.start_ns));
    outer
        .column(format!("step_ns{}", group_names(query)))
        .column(format!(
            "sum(multiIf(temporality = 1, held, nth = 1, if(began_ns > 0 AND began_ns >= {since}, held, 0.), \
             held < held_before OR began_ns >= before_ns, held, held - held_before)) AS result"
        ))
        .filter(format!("step_ns >= {start}"));
    grouped(&mut outer, query);
    outer.build()
}

/// The newest total of each series per step, and deltas added up per group and bucket layout; see [`crate::domain::query::histogram`].
pub fn distributions(scope: &Scope, query: &MetricRangeQuery, kind: MetricKind) -> Statement {
    let mut select = base(scope, query, kind, known_since(query));
    // A summary has no temporality; its count and sum are totals.
    let total = "(temporality = 2 OR kind = 'summary')";
    select
        .column(format!("toUInt8({total}) AS cumulative"))
        .column("if(cumulative, series_hash, 0) AS series")
        .column("if(cumulative, toUnixTimestamp64Nano(start_ts), 0) AS began_ns")
        .column("toUnixTimestamp64Nano(max(ts)) AS last_ns")
        .column("explicit_bounds, scale, positive_offset, negative_offset")
        .column("min(min) AS smallest, max(max) AS largest");
    for (column, alias, add) in [
        ("count", "observations", "sum"),
        ("sum", "total", "sum"),
        ("zero_count", "zeros", "sum"),
        ("bucket_counts", "buckets", "sumForEach"),
        ("positive_counts", "positives", "sumForEach"),
        ("negative_counts", "negatives", "sumForEach"),
    ] {
        select.column(format!("if(cumulative, argMax({column}, ts), {add}({column})) AS {alias}"));
    }
    let keys = "cumulative, series, began_ns, explicit_bounds, scale, positive_offset, negative_offset";
    select.tail(format!("GROUP BY step_ns{}, {keys} LIMIT {}", group_names(query), MAX_ROWS + 1));
    select.build()
}

/// The quantile that summaries state themselves, averaged over series.
pub fn stated_quantile(scope: &Scope, query: &MetricRangeQuery, quantile: f64) -> Statement {
    let mut select = base(scope, query, MetricKind::Summary, query.range.start_ns);
    let bound = select.bind("Float64", quantile);
    select
        .filter(format!("has(quantiles, {bound})"))
        .column(format!("avg(quantile_values[indexOf(quantiles, {bound})]) AS result"));
    grouped(&mut select, query);
    select.build()
}

/// From when on points are read as a base for running totals: a step, at least five minutes, before the first step.
pub fn known_since(query: &MetricRangeQuery) -> i64 {
    query.range.start_ns.saturating_sub(query.step_ns.max(5 * MINUTE))
}

/// Step and group columns over the points of the metric from `from_ns` on.
fn base(scope: &Scope, query: &MetricRangeQuery, kind: MetricKind, from_ns: i64) -> Select {
    let mut select = Select::from(scope, Table::Metrics);
    let step = select.bind("Int64", query.step_ns);
    select.column(format!("intDiv(toUnixTimestamp64Nano(ts), {step}) * {step} AS step_ns"));
    for (i, key) in query.by.iter().enumerate() {
        let value = match key {
            GroupKey::Service => "toString(service)".to_owned(),
            GroupKey::Attribute(key) => {
                let key = select.bind("String", key);
                format!("if(mapContains(attributes, {key}), attributes[{key}], resource_attributes[{key}])")
            }
        };
        select.column(format!("{value} AS g{i}"));
    }
    of_metric(&mut select, query, from_ns);
    select.filter(format!("kind = '{}'", kind.name()));
    select
}

fn of_metric(select: &mut Select, query: &MetricRangeQuery, from_ns: i64) {
    let name = select.bind("String", &query.name);
    select.filter(format!("metric = {name}"));
    of_service(select, query.service.as_deref());
    select.between(from_ns, query.range.end_ns);
    for attribute in &query.attributes {
        select.attribute(attribute);
    }
}

fn of_service(select: &mut Select, service: Option<&str>) {
    if let Some(service) = service {
        let bound = select.bind("String", service);
        select.filter(format!("service = {bound}"));
    }
}

/// `, g0, g1` for as many keys as the query groups by.
fn group_names(query: &MetricRangeQuery) -> String {
    (0..query.by.len()).map(|i| format!(", g{i}")).collect()
}

fn grouped(select: &mut Select, query: &MetricRangeQuery) {
    select.tail(format!("GROUP BY step_ns{} LIMIT {}", group_names(query), MAX_ROWS + 1));
}
