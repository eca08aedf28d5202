//! How the points of a metric become one value per step: aggregation and kind in → the way to compute it; senseless pairs are refused.

use super::failure::BadParameter;

/// Most keys of one `by` list.
const MOST_GROUP_KEYS: usize = 8;

/// How the points of one step and group become one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aggregation {
    /// Mean of the points; of a histogram, sum by count.
    Avg,
    /// Smallest value.
    Min,
    /// Largest value.
    Max,
    /// Gauges and running totals: each series' newest value, added up. Deltas and histograms: what was added in the step.
    Sum,
    /// Number of points; of a histogram, number of observations.
    Count,
    /// Newest value.
    Last,
    /// Growth of a counter per second.
    Rate,
    /// Growth of a counter.
    Increase,
    /// Median.
    P50,
    /// 90th percentile.
    P90,
    /// 95th percentile.
    P95,
    /// 99th percentile.
    P99,
}

impl Aggregation {
    /// Every aggregation by the name that `agg` takes.
    pub const NAMES: [(&'static str, Self); 12] = [
        ("avg", Self::Avg),
        ("min", Self::Min),
        ("max", Self::Max),
        ("sum", Self::Sum),
        ("count", Self::Count),
        ("last", Self::Last),
        ("rate", Self::Rate),
        ("increase", Self::Increase),
        ("p50", Self::P50),
        ("p90", Self::P90),
        ("p95", Self::P95),
        ("p99", Self::P99),
    ];

    /// The name that `agg` takes.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, each)| *each == self).map_or("", |(name, _)| name)
    }

    /// The quantile, 0 to 1, for the percentile aggregations.
    pub fn quantile(self) -> Option<f64> {
        match self {
            Self::P50 => Some(0.5),
            Self::P90 => Some(0.9),
            Self::P95 => Some(0.95),
            Self::P99 => Some(0.99),
            _ => None,
        }
    }
}

/// What the series of an answer are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GroupKey {
    /// The service name.
    Service,
    /// A point attribute, or where the point has none of that key, a resource attribute.
    Attribute(String),
}

impl GroupKey {
    /// Reads a comma list such as `service,http.method`; `attr.` before a key is allowed and needed for an attribute called `service`.
    ///
    /// # Errors
    /// [`BadParameter`] for `by`: an empty or doubled key, or more than eight.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, BadParameter> {
        let mut keys: Vec<Self> = Vec::new();
        if text.trim().is_empty() {
            return Ok(keys);
        }
        for part in text.split(',').map(str::trim) {
            let key = match part.strip_prefix("attr.") {
                Some(key) => Self::Attribute(key.to_owned()),
                None if part == "service" => Self::Service,
                None => Self::Attribute(part.to_owned()),
            };
            if key.label().is_empty() || keys.contains(&key) {
                return Err(BadParameter::new("by", format!("{text:?} holds an empty or doubled key")));
            }
            keys.push(key);
        }
        if keys.len() > MOST_GROUP_KEYS {
            return Err(BadParameter::new("by", format!("has more than {MOST_GROUP_KEYS} keys")));
        }
        Ok(keys)
    }

    /// The name of the key in the answer.
    pub fn label(&self) -> &str {
        match self {
            Self::Service => "service",
            Self::Attribute(key) if key == "service" => "attr.service",
            Self::Attribute(key) => key,
        }
    }
}

/// Kind of a metric, numbered as the store numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MetricKind {
    /// A value that goes up and down.
    Gauge = 1,
    /// A sum, running or in deltas.
    Sum = 2,
    /// Counts in explicit buckets.
    Histogram = 3,
    /// Counts in exponential buckets.
    ExponentialHistogram = 4,
    /// Quantiles computed by the client.
    Summary = 5,
}

impl MetricKind {
    /// The kind of a number in the store.
    pub fn from_number(number: i64) -> Option<Self> {
        [Self::Gauge, Self::Sum, Self::Histogram, Self::ExponentialHistogram, Self::Summary]
            .into_iter()
            .find(|kind| *kind as i64 == number)
    }

    /// Name as answers give it and as the store's enum spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Sum => "sum",
            Self::Histogram => "histogram",
            Self::ExponentialHistogram => "exponential_histogram",
            Self::Summary => "summary",
        }
    }
}

/// How an aggregation over a kind is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// One function over the values of the points.
    Points,
    /// Growth per series, resets counted as a new start.
    Counter,
    /// Distributions, merged over series and steps.
    Distribution,
    /// The quantile a summary states itself.
    StatedQuantile,
}

/// The aggregation that shows a metric as what it is, for queries that name none.
pub fn default_aggregation(kind: MetricKind, monotonic: bool) -> Aggregation {
    match kind {
        MetricKind::Sum if monotonic => Aggregation::Rate,
        MetricKind::Gauge | MetricKind::Sum => Aggregation::Avg,
        MetricKind::Histogram | MetricKind::ExponentialHistogram | MetricKind::Summary => Aggregation::P95,
    }
}

/// How to compute `aggregation` over a metric of `kind`.
///
/// # Errors
/// [`BadParameter`] for `agg` where the pair has no meaning, such as the rate of a gauge.
pub fn plan(kind: MetricKind, monotonic: bool, aggregation: Aggregation) -> Result<Plan, BadParameter> {
    use Aggregation::{Increase, Last, Max, Min, Rate};
    let refuse = |why: &str| Err(BadParameter::new("agg", format!("{} {why}", aggregation.name())));
    match (kind, aggregation) {
        (MetricKind::Sum, Rate | Increase) if monotonic => Ok(Plan::Counter),
        (MetricKind::Gauge | MetricKind::Sum, Rate | Increase) => {
            refuse("needs a metric that only grows, and this one goes up and down: use avg, min, max or last")
        }
        (MetricKind::Gauge | MetricKind::Sum, _) => Ok(Plan::Points),
        (_, Last) => refuse("has no meaning for a distribution: use avg, count or a percentile"),
        (MetricKind::Summary, Min | Max) => {
            refuse("is not part of a summary: use avg, count or a percentile")
        }
        (MetricKind::Summary, agg) if agg.quantile().is_some() => Ok(Plan::StatedQuantile),
        _ => Ok(Plan::Distribution),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_default_that_can_be_planned() {
        for number in 1..=5 {
            let kind = MetricKind::from_number(number).unwrap();
            for monotonic in [true, false] {
                assert!(plan(kind, monotonic, default_aggregation(kind, monotonic)).is_ok());
            }
        }
        assert_eq!(MetricKind::from_number(0), None);
        assert_eq!(MetricKind::from_number(6), None);
    }

    #[test]
    fn senseless_pairs_are_refused() {
        for (kind, monotonic, agg) in [
            (MetricKind::Gauge, false, Aggregation::Rate),
            (MetricKind::Sum, false, Aggregation::Increase),
            (MetricKind::Histogram, false, Aggregation::Last),
            (MetricKind::Summary, false, Aggregation::Max),
        ] {
            let err = plan(kind, monotonic, agg).unwrap_err();
            assert!(err.detail.starts_with(agg.name()), "{}", err.detail);
        }
    }

    #[test]
    fn reads_group_keys() {
        let keys = GroupKey::parse_list("service, http.method,attr.service").unwrap();
        let attribute = |key: &str| GroupKey::Attribute(key.into());
        assert_eq!(keys, [GroupKey::Service, attribute("http.method"), attribute("service")]);
        assert_eq!(GroupKey::parse_list("").unwrap(), []);
        for bad in ["a,,b", "a,a", "attr.", "a,b,c,d,e,f,g,h,i"] {
            assert!(GroupKey::parse_list(bad).is_err(), "{bad}");
        }
    }
}
