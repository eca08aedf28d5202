//! The shop's metrics: measurements of finished traces in, one export a reporting interval out, with every kind of data point.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, Sum, Summary, SummaryDataPoint, exemplar, number_data_point,
};
use rand::RngExt;
use rand::rngs::StdRng;

use super::otlp::{int, text};
use super::services::Service;
use super::trace::{Measured, What};

/// Bounds of `http.server.request.duration` in seconds, as the semantic conventions advise.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Scale of the exponential histograms: eight buckets for a doubling.
const SCALE: i32 = 3;
/// Exemplars kept for a point and interval.
const EXEMPLARS: usize = 2;
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// Distribution of one HTTP route and status, since the start.
#[derive(Debug, Clone, Default)]
struct Route {
    counts: [u64; BOUNDS.len() + 1],
    sum: f64,
    min: f64,
    max: f64,
    exemplars: Vec<Exemplar>,
}

/// Durations of one database operation within the interval.
#[derive(Debug, Clone, Default)]
struct Db {
    seconds: Vec<f64>,
    exemplars: Vec<Exemplar>,
}

/// Everything measured so far.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    start_ns: u64,
    last_ns: u64,
    routes: BTreeMap<(Service, &'static str, i64), Route>,
    dbs: BTreeMap<(Service, &'static str, &'static str), Db>,
    orders: i64,
    revenue: f64,
    order_values: Vec<f64>,
}

impl Metrics {
    pub(super) fn new(start_ns: u64) -> Self {
        Self { start_ns, last_ns: start_ns, ..Self::default() }
    }

    /// Takes in what a finished trace measured.
    pub(super) fn record(&mut self, measured: &Measured) {
        match &measured.what {
            What::Http(route, status) => {
                let entry = self.routes.entry((measured.service, route, *status)).or_default();
                let bucket = BOUNDS.iter().take_while(|bound| measured.seconds > **bound).count();
                entry.counts[bucket] += 1;
                entry.min = if entry.sum == 0.0 { measured.seconds } else { entry.min.min(measured.seconds) };
                entry.max = entry.max.max(measured.seconds);
                entry.sum += measured.seconds;
                keep(&mut entry.exemplars, measured, measured.seconds);
            }
            What::Db(system, operation) => {
                let entry = self.dbs.entry((measured.service, system, operation)).or_default();
                entry.seconds.push(measured.seconds);
                keep(&mut entry.exemplars, measured, measured.seconds);
            }
            What::Order(value) => {
                self.orders += 1;
                self.revenue += value;
                self.order_values.push(*value);
            }
        }
    }

    /// The metrics of every service at `now_ns`; ends the interval of the delta points.
    pub(super) fn report(&mut self, rng: &mut StdRng, now_ns: u64) -> Vec<(Service, Vec<Metric>)> {
        let all = Service::ALL.into_iter().map(|service| {
            let mut metrics = self.process(rng, service, now_ns);
            metrics.extend(self.http(service, now_ns));
            metrics.extend(self.db(service, now_ns));
            if service == Service::Checkout {
                metrics.extend(self.business(now_ns));
            }
            (service, metrics)
        });
        let all = all.collect();
        self.last_ns = now_ns;
        all
    }

    /// Gauges and an up-down counter every process has.
    fn process(&self, rng: &mut StdRng, service: Service, now_ns: u64) -> Vec<Metric> {
        let minutes = (now_ns - self.start_ns) as f64 / 60e9;
        let load = 0.25 + 0.1 * (minutes + service as usize as f64).sin() + 0.05 * rng.random::<f64>();
        let memory = 120_000_000 + 9_000_000 * service as i64 + rng.random_range(0..4_000_000);
        let point = |value, attributes| self.number(value, now_ns, attributes);
        let in_flight = rng.random_range(0..9);
        vec![
            metric(
                "process.cpu.utilization",
                "1",
                "Share of the CPU time used.",
                Data::Gauge(Gauge {
                    data_points: vec![point(
                        number_data_point::Value::AsDouble(load),
                        vec![text("cpu.mode", "user")],
                    )],
                }),
            ),
            metric(
                "process.memory.usage",
                "By",
                "Physical memory in use.",
                Data::Gauge(Gauge {
                    data_points: vec![point(number_data_point::Value::AsInt(memory), vec![])],
                }),
            ),
            metric(
                "http.server.active_requests",
                "{request}",
                "Requests being served.",
                Data::Sum(Sum {
                    data_points: vec![point(number_data_point::Value::AsInt(in_flight), vec![])],
                    aggregation_temporality: CUMULATIVE,
                    is_monotonic: false,
                }),
            ),
        ]
    }

    fn http(&mut self, service: Service, now_ns: u64) -> Option<Metric> {
        let start_ns = self.start_ns;
        let routes = self.routes.iter_mut().filter(|((s, ..), _)| *s == service);
        let data_points: Vec<_> =
            routes.map(|((_, route, status), r)| r.point(route, *status, start_ns, now_ns)).collect();
        let data = Data::Histogram(Histogram { data_points, aggregation_temporality: CUMULATIVE });
        let any = matches!(&data, Data::Histogram(h) if !h.data_points.is_empty());
        any.then(|| metric("http.server.request.duration", "s", "Duration of HTTP server requests.", data))
    }

    fn db(&mut self, service: Service, now_ns: u64) -> Option<Metric> {
        let start_ns = self.last_ns;
        let used = self.dbs.iter_mut().filter(|((s, ..), db)| *s == service && !db.seconds.is_empty());
        let data_points: Vec<_> =
            used.map(|((_, system, operation), db)| db.point(system, operation, start_ns, now_ns)).collect();
        if data_points.is_empty() {
            return None;
        }
        let aggregation_temporality = AggregationTemporality::Delta as i32;
        let data = Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality });
        Some(metric("db.client.operation.duration", "s", "Duration of database client operations.", data))
    }

    /// Orders, revenue, and order values as a summary.
    fn business(&mut self, now_ns: u64) -> Vec<Metric> {
        let sum = |value| Sum {
            data_points: vec![self.number(value, now_ns, vec![text("shop.currency", "EUR")])],
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        };
        let orders = sum(number_data_point::Value::AsInt(self.orders));
        let revenue = sum(number_data_point::Value::AsDouble(self.revenue));
        let mut values = std::mem::take(&mut self.order_values);
        values.sort_by(f64::total_cmp);
        let at =
            |q: f64| values.get(((values.len().max(1) - 1) as f64 * q) as usize).copied().unwrap_or(f64::NAN);
        let quantile_values =
            [0.5, 0.9, 0.99].map(|quantile| ValueAtQuantile { quantile, value: at(quantile) }).to_vec();
        let summary = SummaryDataPoint {
            start_time_unix_nano: self.last_ns,
            time_unix_nano: now_ns,
            count: values.len() as u64,
            sum: values.iter().sum(),
            quantile_values: if values.is_empty() { vec![] } else { quantile_values },
            ..Default::default()
        };
        vec![
            metric("shop.orders", "{order}", "Orders placed.", Data::Sum(orders)),
            metric("shop.revenue", "EUR", "Value of the orders placed.", Data::Sum(revenue)),
            metric(
                "shop.order.value",
                "EUR",
                "Values of the orders of the last interval.",
                Data::Summary(Summary { data_points: vec![summary] }),
            ),
        ]
    }

    fn number(
        &self,
        value: number_data_point::Value,
        now_ns: u64,
        attributes: Vec<KeyValue>,
    ) -> NumberDataPoint {
        NumberDataPoint {
            start_time_unix_nano: self.start_ns,
            time_unix_nano: now_ns,
            value: Some(value),
            attributes,
            ..Default::default()
        }
    }
}

impl Route {
    fn point(&mut self, route: &str, status: i64, start_ns: u64, now_ns: u64) -> HistogramDataPoint {
        HistogramDataPoint {
            start_time_unix_nano: start_ns,
            time_unix_nano: now_ns,
            count: self.counts.iter().sum(),
            sum: Some(self.sum),
            min: Some(self.min),
            max: Some(self.max),
            bucket_counts: self.counts.to_vec(),
            explicit_bounds: BOUNDS.to_vec(),
            exemplars: std::mem::take(&mut self.exemplars),
            attributes: vec![text("http.route", route), int("http.response.status_code", status)],
            ..Default::default()
        }
    }
}

impl Db {
    fn point(
        &mut self,
        system: &str,
        operation: &str,
        start_ns: u64,
        now_ns: u64,
    ) -> ExponentialHistogramDataPoint {
        let seconds = std::mem::take(&mut self.seconds);
        ExponentialHistogramDataPoint {
            start_time_unix_nano: start_ns,
            time_unix_nano: now_ns,
            count: seconds.len() as u64,
            sum: Some(seconds.iter().sum()),
            min: seconds.iter().copied().reduce(f64::min),
            max: seconds.iter().copied().reduce(f64::max),
            scale: SCALE,
            positive: Some(buckets(&seconds)),
            exemplars: std::mem::take(&mut self.exemplars),
            attributes: vec![text("db.system.name", system), text("db.operation.name", operation)],
            ..Default::default()
        }
    }
}

/// Exponential buckets of positive values: bucket `i` holds (2^(i/8), 2^((i+1)/8)].
fn buckets(values: &[f64]) -> Buckets {
    let index = |v: &f64| (v.log2() * f64::from(1 << SCALE)).ceil() as i32 - 1;
    let offset = values.iter().map(index).min().unwrap_or(0);
    let last = values.iter().map(index).max().unwrap_or(-1);
    let mut bucket_counts = vec![0; usize::try_from(last - offset + 1).unwrap_or(0)];
    for place in values.iter().filter_map(|v| usize::try_from(index(v) - offset).ok()) {
        bucket_counts[place] += 1;
    }
    Buckets { offset, bucket_counts }
}

fn keep(exemplars: &mut Vec<Exemplar>, measured: &Measured, value: f64) {
    if exemplars.len() < EXEMPLARS {
        exemplars.push(Exemplar {
            time_unix_nano: measured.end_ns,
            trace_id: measured.trace_id.clone(),
            span_id: measured.span_id.clone(),
            value: Some(exemplar::Value::AsDouble(value)),
            ..Default::default()
        });
    }
}

fn metric(name: &str, unit: &str, description: &str, data: Data) -> Metric {
    Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description: description.to_owned(),
        data: Some(data),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_buckets_hold_their_values() {
        let values = [0.001, 0.001, 0.5, 1.0, 3.7];
        let made = buckets(&values);
        assert_eq!(made.bucket_counts.iter().sum::<u64>(), 5);
        for value in values {
            let held = made.bucket_counts.iter().enumerate().any(|(i, count)| {
                let edge = |n: i32| 2_f64.powf(f64::from(n) / 8.0);
                let index = made.offset + i as i32;
                *count > 0 && value > edge(index) * (1.0 - 1e-12) && value <= edge(index + 1) * (1.0 + 1e-12)
            });
            assert!(held, "{value}");
        }
    }
}
