//! Distributions over time: histogram points of many series in → per group and step what was observed in it, with quantiles.
//!
//! Running totals are turned into what was added since the point before; a total that shrinks or starts anew counts from zero. Explicit and
//! exponential buckets both become intervals, so that series with other bounds or scales can be merged.

use std::collections::{BTreeMap, HashMap};

/// Buckets of one histogram point.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Buckets {
    /// Count and sum only, as a summary has them.
    #[default]
    None,
    /// `counts[i]` observations in `(bounds[i - 1], bounds[i]]`, one count more than bounds.
    Explicit {
        /// Upper bounds, ascending.
        bounds: Vec<f64>,
        /// Observations per bucket.
        counts: Vec<u64>,
    },
    /// Buckets whose bounds grow by the factor `2^(2^-scale)`.
    Exponential {
        /// Resolution.
        scale: i32,
        /// Observations so near to zero that they have no bucket.
        zero_count: u64,
        /// Index of the first positive bucket, and the counts from there on.
        positive: (i32, Vec<u64>),
        /// The same for negative values, by magnitude.
        negative: (i32, Vec<u64>),
    },
}

/// What was observed: count, sum, extremes and buckets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Distribution {
    /// Number of observations.
    pub count: u64,
    /// Their sum, where the client gave one.
    pub sum: Option<f64>,
    /// Smallest observation, where known.
    pub min: Option<f64>,
    /// Largest observation, where known.
    pub max: Option<f64>,
    /// How they are spread.
    pub buckets: Buckets,
}

/// The newest point of one series in one step, or all deltas of a group in one step added up.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramPoint {
    /// Start of the step, Unix nanoseconds.
    pub step_ns: i64,
    /// Values of the `by` keys.
    pub group: Vec<String>,
    /// Which series; without meaning for deltas.
    pub series: u64,
    /// When the running total began, Unix nanoseconds, 0 if unknown.
    pub start_ns: i64,
    /// Time of the point, Unix nanoseconds.
    pub last_ns: i64,
    /// True for a running total, false for deltas.
    pub cumulative: bool,
    /// What it holds.
    pub data: Distribution,
}

/// Everything observed in one step of one group.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Merged {
    /// Number of observations.
    pub count: u64,
    /// Their sum, where the client gave one.
    pub sum: Option<f64>,
    /// Smallest observation, where known. Of a running total it is the smallest since that began.
    pub min: Option<f64>,
    /// Largest observation, where known.
    pub max: Option<f64>,
    /// Observations per interval, keyed by the bits of its ends.
    intervals: HashMap<(u64, u64), u64>,
}

/// Per group, per step, what was observed.
pub type Folded = BTreeMap<Vec<String>, BTreeMap<i64, Merged>>;

/// Folds points into groups and steps. Points before `first_step_ns` only serve as the base of running totals. A total without a base
/// counts whole if it began at or after `known_since_ns` (all of its points were read), else it is the base of the next.
pub fn fold(mut points: Vec<HistogramPoint>, first_step_ns: i64, known_since_ns: i64) -> Folded {
    points.sort_by_key(|p| (p.cumulative, p.series, p.last_ns));
    let mut folded = Folded::new();
    let mut before: Option<HistogramPoint> = None;
    for point in points {
        let added = if point.cumulative {
            let base = before.as_ref().filter(|b| b.series == point.series);
            let added = added_since(&point, base, known_since_ns);
            before = Some(point.clone());
            added
        } else {
            Some(point.data.clone())
        };
        if let Some(added) = added.filter(|a| a.count > 0 && point.step_ns >= first_step_ns) {
            folded.entry(point.group).or_default().entry(point.step_ns).or_default().add(&added);
        }
    }
    folded
}

fn added_since(
    point: &HistogramPoint,
    base: Option<&HistogramPoint>,
    known_since_ns: i64,
) -> Option<Distribution> {
    match base {
        // A new start time alone is no reset: some clients move it with every point. It must lie after the point before.
        Some(base) if base.start_ns == point.start_ns || point.start_ns < base.last_ns => {
            Some(point.data.since(&base.data).unwrap_or_else(|| point.data.clone()))
        }
        Some(_) => Some(point.data.clone()),
        None if point.start_ns > 0 && point.start_ns >= known_since_ns => Some(point.data.clone()),
        None => None,
    }
}

impl Distribution {
    /// What this total holds beyond an earlier one of the same series; `None` when it cannot have grown out of it (a reset).
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let count = self.count.checked_sub(earlier.count)?;
        let sum = match (self.sum, earlier.sum) {
            (Some(now), Some(then)) => Some(now - then),
            (now, _) => now,
        };
        let buckets = match (&self.buckets, &earlier.buckets) {
            (Buckets::None, _) => Buckets::None,
            (Buckets::Explicit { bounds, counts }, Buckets::Explicit { bounds: old_bounds, counts: old }) => {
                if bounds != old_bounds || counts.len() != old.len() {
                    return None;
                }
                let counts = counts.iter().zip(old).map(|(now, then)| now.checked_sub(*then));
                Buckets::Explicit { bounds: bounds.clone(), counts: counts.collect::<Option<_>>()? }
            }
            (now @ Buckets::Exponential { .. }, then @ Buckets::Exponential { .. }) => {
                exponential_since(now, then)?
            }
            _ => return None,
        };
        Some(Self { count, sum, min: self.min, max: self.max, buckets })
    }

    /// Calls `each` with low end, high end and count of every bucket that holds something.
    fn intervals(&self, mut each: impl FnMut(f64, f64, u64)) {
        match &self.buckets {
            Buckets::None => {}
            Buckets::Explicit { bounds, counts } => {
                for (i, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                    let (low, high) = self.explicit_interval(bounds, i);
                    each(low, high, *count);
                }
            }
            Buckets::Exponential { scale, zero_count, positive, negative } => {
                if *zero_count > 0 {
                    each(0.0, 0.0, *zero_count);
                }
                for (i, count) in positive.1.iter().enumerate().filter(|(_, count)| **count > 0) {
                    let (low, high) = exponential_interval(*scale, positive.0, i);
                    each(low, high, *count);
                }
                for (i, count) in negative.1.iter().enumerate().filter(|(_, count)| **count > 0) {
                    let (low, high) = exponential_interval(*scale, negative.0, i);
                    each(-high, -low, *count);
                }
            }
        }
    }

    /// Ends of an explicit bucket; the open ends are closed by the known extremes, else by zero and by the last bound.
    fn explicit_interval(&self, bounds: &[f64], i: usize) -> (f64, f64) {
        let lowest = bounds.first().copied().unwrap_or(0.0);
        let highest = bounds.last().copied().unwrap_or(0.0);
        let low = match i.checked_sub(1).and_then(|i| bounds.get(i)) {
            Some(bound) => *bound,
            None => self.min.filter(|min| *min <= lowest).unwrap_or_else(|| lowest.min(0.0)),
        };
        let high = match bounds.get(i) {
            Some(bound) => *bound,
            None => self.max.filter(|max| *max >= highest).unwrap_or(highest),
        };
        (low, high.max(low))
    }
}

/// Ends of the exponential bucket at `offset + i`: `base^index` to `base^(index + 1)`, kept within what a float can hold.
fn exponential_interval(scale: i32, offset: i32, i: usize) -> (f64, f64) {
    let index = f64::from(offset) + i as f64;
    let width = f64::from(-scale).exp2();
    let bound = |index: f64| (index * width).clamp(-1074.0, 1023.999).exp2();
    (bound(index), bound(index + 1.0))
}

/// What an exponential histogram holds beyond an earlier one, which may have been finer.
fn exponential_since(now: &Buckets, then: &Buckets) -> Option<Buckets> {
    let (
        Buckets::Exponential { scale, zero_count, positive, negative },
        Buckets::Exponential {
            scale: old_scale,
            zero_count: old_zero,
            positive: old_positive,
            negative: old_negative,
        },
    ) = (now, then)
    else {
        return None;
    };
    let shift = u32::try_from(old_scale.checked_sub(*scale)?).ok()?;
    Some(Buckets::Exponential {
        scale: *scale,
        zero_count: zero_count.checked_sub(*old_zero)?,
        positive: side_since(positive, old_positive, shift)?,
        negative: side_since(negative, old_negative, shift)?,
    })
}

fn side_since(now: &(i32, Vec<u64>), then: &(i32, Vec<u64>), shift: u32) -> Option<(i32, Vec<u64>)> {
    let mut counts = now.1.clone();
    for (i, count) in then.1.iter().enumerate().filter(|(_, count)| **count > 0) {
        let index = (i64::from(then.0) + i as i64) >> shift.min(62);
        let slot = usize::try_from(index - i64::from(now.0)).ok()?;
        let held = counts.get_mut(slot)?;
        *held = held.checked_sub(*count)?;
    }
    Some((now.0, counts))
}

impl Merged {
    fn add(&mut self, more: &Distribution) {
        self.count += more.count;
        self.sum = pick(self.sum, more.sum, |a, b| a + b);
        self.min = pick(self.min, more.min, f64::min);
        self.max = pick(self.max, more.max, f64::max);
        more.intervals(|low, high, count| {
            *self.intervals.entry((low.to_bits(), high.to_bits())).or_default() += count;
        });
    }

    /// The value below which the share `q` (0 to 1) of the observations lies, even spread within a bucket assumed; `None` without buckets.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let intervals: Vec<(f64, f64, f64)> = self
            .intervals
            .iter()
            .map(|((l, h), n)| (f64::from_bits(*l), f64::from_bits(*h), *n as f64))
            .collect();
        let total: f64 = intervals.iter().map(|(_, _, n)| n).sum();
        let mut ends: Vec<f64> = intervals.iter().flat_map(|(low, high, _)| [*low, *high]).collect();
        ends.sort_by(f64::total_cmp);
        ends.dedup();
        let value = walk(&intervals, &ends, q * total)?;
        Some(value.clamp(
            self.min.unwrap_or(f64::MIN),
            self.max.unwrap_or(f64::MAX).max(self.min.unwrap_or(f64::MIN)),
        ))
    }
}

/// Walks the ends of the intervals in order until `wanted` observations lie below, then goes back the part that was too much.
fn walk(intervals: &[(f64, f64, f64)], ends: &[f64], wanted: f64) -> Option<f64> {
    let mut below = 0.0;
    let mut at = *ends.first()?;
    for &end in ends {
        let spread = intervals.iter().filter(|(low, high, _)| low < high && *low <= at && *high >= end);
        let between: f64 = spread.map(|(low, high, n)| n * (end - at) / (high - low)).sum();
        if between > 0.0 && below + between >= wanted {
            return Some(at + (end - at) * ((wanted - below) / between).clamp(0.0, 1.0));
        }
        below += between;
        at = end;
        below += intervals
            .iter()
            .filter(|(low, high, _)| low == high && *low == at)
            .map(|(_, _, n)| n)
            .sum::<f64>();
        if below >= wanted {
            return Some(at);
        }
    }
    Some(at)
}

fn pick(a: Option<f64>, b: Option<f64>, both: fn(f64, f64) -> f64) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(both(a, b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explicit(counts: &[u64]) -> Distribution {
        Distribution {
            count: counts.iter().sum(),
            sum: Some(counts.iter().sum::<u64>() as f64),
            buckets: Buckets::Explicit { bounds: vec![10.0, 20.0, 40.0], counts: counts.to_vec() },
            ..Distribution::default()
        }
    }

    fn exponential(scale: i32, offset: i32, counts: &[u64]) -> Distribution {
        Distribution {
            count: counts.iter().sum(),
            buckets: Buckets::Exponential {
                scale,
                zero_count: 0,
                positive: (offset, counts.to_vec()),
                negative: (0, vec![]),
            },
            ..Distribution::default()
        }
    }

    fn point(
        series: u64,
        step_ns: i64,
        start_ns: i64,
        cumulative: bool,
        data: Distribution,
    ) -> HistogramPoint {
        HistogramPoint { step_ns, group: vec![], series, start_ns, last_ns: step_ns + 1, cumulative, data }
    }

    fn counts(folded: &Folded) -> Vec<(i64, u64)> {
        folded.values().flatten().map(|(step, merged)| (*step, merged.count)).collect()
    }

    fn merged(parts: &[Distribution]) -> Merged {
        let mut merged = Merged::default();
        parts.iter().for_each(|part| merged.add(part));
        merged
    }

    #[test]
    fn quantiles_are_spread_evenly_within_a_bucket() {
        let all = merged(&[explicit(&[0, 100, 0, 0])]);
        for (q, want) in [(0.0, 10.0), (0.5, 15.0), (0.99, 19.9), (1.0, 20.0)] {
            assert!((all.quantile(q).unwrap() - want).abs() < 1e-9, "{q}: {:?}", all.quantile(q));
        }
        let two = merged(&[explicit(&[50, 0, 50, 0])]);
        assert!((two.quantile(0.75).unwrap() - 30.0).abs() < 1e-9);
        assert_eq!(merged(&[explicit(&[0, 0, 0, 5])]).quantile(0.5), Some(40.0));
        assert_eq!(Merged::default().quantile(0.5), None);
    }

    #[test]
    fn known_extremes_close_the_open_buckets() {
        let mut open = explicit(&[0, 0, 0, 10]);
        (open.min, open.max) = (Some(50.0), Some(60.0));
        let got = merged(&[open]).quantile(0.5).unwrap();
        assert!((50.0..=60.0).contains(&got), "{got}");
    }

    #[test]
    fn series_with_other_bounds_merge() {
        let other = Distribution {
            count: 100,
            buckets: Buckets::Explicit { bounds: vec![15.0, 25.0], counts: vec![0, 100, 0] },
            ..Distribution::default()
        };
        let got = merged(&[explicit(&[0, 100, 0, 0]), other]).quantile(0.5).unwrap();
        assert!((got - 17.5).abs() < 1e-9, "{got}");
    }

    #[test]
    fn exponential_buckets_give_quantiles_within_one_bucket() {
        // Scale 3: 1000 lies in bucket floor(log2(1000) * 8) = 79.
        let all = merged(&[exponential(3, 79, &[10])]);
        let got = all.quantile(0.5).unwrap();
        assert!((got / 1000.0 - 1.0).abs() < 0.1, "{got}");
        assert!(merged(&[exponential(20, i32::MAX, &[1])]).quantile(0.5).unwrap().is_finite());
    }

    #[test]
    fn a_finer_earlier_total_is_made_coarser_before_the_difference() {
        let earlier = exponential(1, 4, &[1, 2, 3, 4]);
        let later = exponential(0, 2, &[3 + 1, 7 + 5]);
        let added = later.since(&earlier).unwrap();
        assert_eq!(added.count, 6);
        assert_eq!(added.buckets, exponential(0, 2, &[1, 5]).buckets);
        assert_eq!(earlier.since(&later), None);
    }

    #[test]
    fn running_totals_count_what_was_added_and_survive_resets() {
        let points = vec![
            point(1, 0, 5, true, explicit(&[5, 0, 0, 0])),
            point(1, 60, 5, true, explicit(&[8, 1, 0, 0])),
            point(1, 120, 5, true, explicit(&[2, 0, 0, 0])),
            point(1, 180, 170, true, explicit(&[9, 0, 0, 0])),
        ];
        // The first point is only a base; then +4, a silent reset to 2, and a declared new start with 9.
        assert_eq!(counts(&fold(points, 60, 10)), [(60, 4), (120, 2), (180, 9)]);
    }

    #[test]
    fn a_series_that_began_in_sight_counts_from_its_first_point() {
        let fresh = point(1, 60, 50, true, explicit(&[3, 0, 0, 0]));
        assert_eq!(counts(&fold(vec![fresh.clone()], 0, 40)), [(60, 3)]);
        assert_eq!(counts(&fold(vec![fresh], 0, 55)), []);
    }

    #[test]
    fn deltas_add_up_and_do_not_mix_with_totals() {
        let points = vec![
            point(0, 60, 0, false, explicit(&[1, 0, 0, 0])),
            point(0, 60, 0, false, explicit(&[0, 2, 0, 0])),
            point(7, 60, 50, true, explicit(&[4, 0, 0, 0])),
        ];
        let folded = fold(points, 60, 40);
        assert_eq!(counts(&folded), [(60, 7)]);
        assert_eq!(folded[&vec![]][&60].sum, Some(7.0));
    }
}
