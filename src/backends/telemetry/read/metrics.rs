//! Metric queries: what the metric is first, then its points in the shape its aggregation needs, then one value per step and group.

use std::collections::BTreeMap;

use arrow_array::{Array, RecordBatch};

use super::cells::{DecodeError, Row, decode_all, float_at, int_at};
use super::{QueryError, Session};
use crate::backends::telemetry::queries::metrics::{self, MAX_ROWS};
use crate::domain::query::answer::{MetricRangeAnswer, Sample, Series};
use crate::domain::query::histogram::{Buckets, Distribution, Folded, HistogramPoint, Merged, fold};
use crate::domain::query::metrics::{Aggregation, MetricKind, Plan, default_aggregation, plan};
use crate::domain::query::request::MetricRangeQuery;
use crate::domain::query::time::{format_duration, format_rfc3339};

/// Per group, per step, the value.
type Values = BTreeMap<Vec<String>, BTreeMap<i64, Option<f64>>>;

impl Session<'_> {
    pub(super) async fn metric_range(
        &mut self,
        query: &MetricRangeQuery,
    ) -> Result<MetricRangeAnswer, QueryError> {
        let described = self.run(metrics::describe(self.scope, query)).await?;
        let described = decode_all(&described, |row| {
            Ok((row.int::<i64>("kind_number")?, row.int::<u8>("monotonic")? == 1, row.text("unit_text")?))
        })?;
        let found = described.into_iter().find_map(|(number, monotonic, unit)| {
            MetricKind::from_number(number).map(|kind| (kind, monotonic, unit))
        });
        let Some((kind, monotonic, unit)) = found else {
            return Ok(self.answer(query, None, String::new(), query.aggregation, Values::new()));
        };
        let aggregation = query.aggregation.unwrap_or_else(|| default_aggregation(kind, monotonic));
        let values = match plan(kind, monotonic, aggregation)? {
            Plan::Points => self.values(query, metrics::points(self.scope, query, kind, aggregation)).await?,
            Plan::Counter => {
                let growth = self.values(query, metrics::growth(self.scope, query)).await?;
                if aggregation == Aggregation::Rate { self.per_second(query, growth) } else { growth }
            }
            Plan::StatedQuantile => {
                let quantile = aggregation.quantile().unwrap_or(0.5);
                self.values(query, metrics::stated_quantile(self.scope, query, quantile)).await?
            }
            Plan::Distribution => self.distributions(query, kind, aggregation).await?,
        };
        Ok(self.answer(query, Some(kind), unit, Some(aggregation), values))
    }

    /// Rows that hold one finished value per step and group.
    async fn values(
        &mut self,
        query: &MetricRangeQuery,
        statement: crate::backends::telemetry::sql::Statement,
    ) -> Result<Values, QueryError> {
        let batches = self.run(statement).await?;
        bounded(&batches)?;
        let mut values = Values::new();
        for (group, step, value) in decode_all(&batches, |row| {
            Ok((group(row, query.by.len())?, row.int::<i64>("step_ns")?, row.float("result")?))
        })? {
            values.entry(group).or_default().insert(step, value);
        }
        Ok(values)
    }

    async fn distributions(
        &mut self,
        query: &MetricRangeQuery,
        kind: MetricKind,
        aggregation: Aggregation,
    ) -> Result<Values, QueryError> {
        let batches = self.run(metrics::distributions(self.scope, query, kind)).await?;
        bounded(&batches)?;
        let points = decode_all(&batches, |row| point(row, kind, query.by.len()))?;
        let folded: Folded = fold(points, query.range.start_ns, metrics::known_since(query));
        let values = folded.into_iter().map(|(group, steps)| {
            (group, steps.into_iter().map(|(step, merged)| (step, value_of(&merged, aggregation))).collect())
        });
        let values: Values = values.collect();
        Ok(if aggregation == Aggregation::Rate { self.per_second(query, values) } else { values })
    }

    /// Divides by the width of each step; the last one may be cut off by the end of the range or by the present.
    fn per_second(&self, query: &MetricRangeQuery, mut values: Values) -> Values {
        let end = query.range.end_ns.min(self.now_ns.max(query.range.start_ns));
        for (step, value) in values.values_mut().flatten() {
            let width = end.min(step.saturating_add(query.step_ns)).saturating_sub(*step).max(1);
            // Points of a clock that runs ahead lie beyond the present: their step counts whole.
            let width = if *step >= end { query.step_ns } else { width };
            *value = value.map(|v| v / (width as f64 / 1e9));
        }
        values
    }

    fn answer(
        &self,
        query: &MetricRangeQuery,
        kind: Option<MetricKind>,
        unit: String,
        aggregation: Option<Aggregation>,
        values: Values,
    ) -> MetricRangeAnswer {
        let truncated = values.len() > query.limit as usize;
        let labels: Vec<&str> = query.by.iter().map(|key| key.label()).collect();
        let series = values.into_iter().take(query.limit as usize).map(|(group, steps)| Series {
            group: labels.iter().map(|label| (*label).to_owned()).zip(group).collect(),
            points: steps
                .into_iter()
                .map(|(step, value)| Sample { unix_seconds: step as f64 / 1e9, value })
                .collect(),
        });
        MetricRangeAnswer {
            name: query.name.clone(),
            kind: kind.map(|kind| kind.name().to_owned()),
            unit,
            agg: aggregation.map(|aggregation| aggregation.name().to_owned()),
            step: format_duration(query.step_ns.unsigned_abs()),
            start: format_rfc3339(query.range.start_ns),
            end: format_rfc3339(query.range.end_ns),
            items: series.collect(),
            truncated,
            next_cursor: None,
            stats: self.stats,
        }
    }
}

fn bounded(batches: &[RecordBatch]) -> Result<(), QueryError> {
    if batches.iter().map(RecordBatch::num_rows).sum::<usize>() <= MAX_ROWS {
        return Ok(());
    }
    let words = "use a larger step, a shorter time range, or fewer keys in by";
    Err(QueryError::TooLarge(format!("the answer would be made of more than {MAX_ROWS} points: {words}")))
}

fn group(row: &Row<'_>, keys: usize) -> Result<Vec<String>, DecodeError> {
    (0..keys).map(|i| row.text(&format!("g{i}"))).collect()
}

fn value_of(merged: &Merged, aggregation: Aggregation) -> Option<f64> {
    let value = match aggregation {
        Aggregation::Avg => merged.sum.map(|sum| sum / merged.count as f64),
        Aggregation::Min => merged.min,
        Aggregation::Max => merged.max,
        Aggregation::Sum => merged.sum,
        Aggregation::Count | Aggregation::Rate | Aggregation::Increase => Some(merged.count as f64),
        Aggregation::Last => None,
        Aggregation::P50 | Aggregation::P90 | Aggregation::P95 | Aggregation::P99 => {
            aggregation.quantile().and_then(|q| merged.quantile(q))
        }
    };
    value.filter(|value| value.is_finite())
}

fn point(row: &Row<'_>, kind: MetricKind, keys: usize) -> Result<HistogramPoint, DecodeError> {
    let floats = |name| row.list(name, float_at);
    let counts =
        |name| row.list(name, |array: &dyn Array, at| int_at(array, at).and_then(|n| u64::try_from(n).ok()));
    let buckets = match kind {
        MetricKind::Histogram => {
            let (bounds, counts) = (floats("explicit_bounds")?, counts("buckets")?);
            // A histogram may come without buckets, and a broken one with too few: both still have count and sum.
            if counts.len() == bounds.len() + 1 {
                Buckets::Explicit { bounds, counts }
            } else {
                Buckets::None
            }
        }
        MetricKind::ExponentialHistogram => Buckets::Exponential {
            scale: row.int("scale")?,
            zero_count: row.int("zeros")?,
            positive: (row.int("positive_offset")?, counts("positives")?),
            negative: (row.int("negative_offset")?, counts("negatives")?),
        },
        _ => Buckets::None,
    };
    Ok(HistogramPoint {
        step_ns: row.int("step_ns")?,
        group: group(row, keys)?,
        series: row.int("series")?,
        start_ns: row.int("began_ns")?,
        last_ns: row.int("last_ns")?,
        cumulative: row.int::<u8>("cumulative")? == 1,
        data: Distribution {
            count: row.int("observations")?,
            sum: row.float("total")?,
            min: row.float("smallest")?,
            max: row.float("largest")?,
            buckets,
        },
    })
}
