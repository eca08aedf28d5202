//! The metrics text as `top` needs it: OpenMetrics in, sums of counters and a percentile of a histogram out. Pure.

use std::collections::BTreeMap;

/// Counters of one look at the process.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Readings {
    /// Records acknowledged to clients.
    pub(crate) ingested: f64,
    /// Records stored.
    pub(crate) stored: f64,
    /// Records put into the dead letters.
    pub(crate) dead: f64,
    /// Acknowledgements by upper bound of their time in seconds, each with all faster ones.
    pub(crate) acks: Vec<(f64, f64)>,
}

impl Readings {
    /// Reads what is known here out of a metrics text.
    pub(crate) fn of(text: &str) -> Self {
        let mut readings = Self::default();
        let mut acks: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        for (name, labels, value) in text.lines().filter_map(sample) {
            match name {
                "obtrace_ingest_records_total" if labels.contains("outcome=\"accepted\"") => {
                    readings.ingested += value;
                }
                "obtrace_process_rows_total" => readings.stored += value,
                "obtrace_process_dead_letters_total" => readings.dead += value,
                "obtrace_ingest_ack_seconds_bucket" => {
                    let bound = label(labels, "le").and_then(|le| match le {
                        "+Inf" => Some(f64::INFINITY),
                        number => number.parse().ok(),
                    });
                    if let Some(bound) = bound {
                        acks.entry(bound.to_bits()).or_insert((bound, 0.0)).1 += value;
                    }
                }
                _ => {}
            }
        }
        readings.acks = acks.into_values().collect();
        readings
    }

    /// The time under which `share` of the acknowledgements since `before` were, in seconds: the upper bound of the
    /// histogram's bucket, so never less than it was. `None` without any.
    pub(crate) fn ack_quantile(&self, before: &Self, share: f64) -> Option<f64> {
        let earlier = |bound: f64| before.acks.iter().find(|(b, _)| *b == bound).map_or(0.0, |(_, n)| *n);
        let since: Vec<(f64, f64)> =
            self.acks.iter().map(|(bound, n)| (*bound, n - earlier(*bound))).collect();
        let all = since.last().map(|(_, n)| *n).filter(|n| *n > 0.0)?;
        let (bound, _) = since.iter().find(|(_, n)| *n >= all * share)?;
        Some(*bound)
    }
}

/// Name, labels and value of a line, if it is a sample.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let line = line.split(" # ").next()?;
    let (series, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some((name, labels.trim_end_matches('}'), value.parse().ok()?))
}

fn label<'l>(labels: &'l str, name: &str) -> Option<&'l str> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE obtrace_ingest_records counter\n\
        obtrace_ingest_records_total{signal=\"traces\",outcome=\"accepted\"} 100\n\
        obtrace_ingest_records_total{signal=\"traces\",outcome=\"rejected\"} 7\n\
        obtrace_ingest_records_total{signal=\"logs\",outcome=\"accepted\"} 20\n\
        obtrace_process_rows_total{signal=\"traces\"} 90\n\
        obtrace_ingest_ack_seconds_bucket{le=\"0.01\",signal=\"traces\"} 50\n\
        obtrace_ingest_ack_seconds_bucket{le=\"0.1\",signal=\"traces\"} 99\n\
        obtrace_ingest_ack_seconds_bucket{le=\"+Inf\",signal=\"traces\"} 100\n# EOF\n";

    #[test]
    fn counters_are_summed_over_their_labels() {
        let readings = Readings::of(TEXT);
        assert_eq!((readings.ingested, readings.stored, readings.dead), (120.0, 90.0, 0.0));
        assert_eq!(readings.acks, [(0.01, 50.0), (0.1, 99.0), (f64::INFINITY, 100.0)]);
    }

    #[test]
    fn a_quantile_is_of_what_came_since() {
        let (now, none) = (Readings::of(TEXT), Readings::default());
        assert_eq!(now.ack_quantile(&none, 0.5), Some(0.01));
        assert_eq!(now.ack_quantile(&none, 0.99), Some(0.1));
        assert_eq!(now.ack_quantile(&none, 0.999), Some(f64::INFINITY));
        assert_eq!(now.ack_quantile(&now, 0.99), None);
        let before = Readings { acks: vec![(0.01, 0.0), (0.1, 49.0), (f64::INFINITY, 49.0)], ..none };
        assert_eq!(now.ack_quantile(&before, 0.5), Some(0.01));
    }
}
