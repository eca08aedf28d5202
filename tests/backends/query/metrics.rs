//! Metrics: every kind of point through every kind of aggregation, with resets, deltas and mixed bucket layouts.

use obtrace::domain::query::QueryError;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, Sum, Summary, SummaryDataPoint,
};
use serde_json::{Value, json};

use super::{NOW, SECOND, Store, field, kv, scope, text};

const MINUTE: u64 = 60 * SECOND;
/// A whole minute, ten of them before the end.
const START: u64 = (NOW / MINUTE - 10) * MINUTE;
const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;

fn metric(name: &str, data: Data) -> Metric {
    Metric {
        name: name.into(),
        unit: "ms".into(),
        description: "about".into(),
        data: Some(data),
        ..Default::default()
    }
}

/// A point `offset` seconds after [`START`] of the series of `route`; the series began at `begun` seconds.
fn number(offset: u64, value: Number, route: &str, begun: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: route_of(route),
        start_time_unix_nano: START + begun * SECOND,
        time_unix_nano: START + offset * SECOND,
        value: Some(value),
        ..Default::default()
    }
}

fn route_of(route: &str) -> Vec<KeyValue> {
    vec![kv("route", text(route))]
}

fn sum(points: Vec<NumberDataPoint>, temporality: i32) -> Data {
    Data::Sum(Sum { data_points: points, aggregation_temporality: temporality, is_monotonic: true })
}

/// Asks for one metric in steps of a minute from [`START`] on.
async fn ask(store: &Store, name: &str, agg: &str, by: &str) -> Result<Value, QueryError> {
    let (start, end) = (START.to_string(), (START + 10 * MINUTE).to_string());
    let pairs = [("name", name), ("agg", agg), ("by", by), ("step", "1m"), ("start", &start), ("end", &end)];
    store.ask(&scope("acme", "shop"), "metrics/query", &pairs).await
}

/// Per series the values by minute, `None` between them left out.
async fn values(store: &Store, name: &str, agg: &str, by: &str) -> Vec<Vec<(u64, f64)>> {
    let answer = ask(store, name, agg, by).await.expect("an answer");
    let series = answer["items"].as_array().expect("series").iter();
    let point = |point: &Value| {
        let minute = (point["unix_seconds"].as_f64().expect("a time") as u64 - START / SECOND) / 60;
        (minute, (point["value"].as_f64().expect("a value") * 1e6).round() / 1e6)
    };
    series.map(|series| series["points"].as_array().expect("points").iter().map(point).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn gauges_and_counters() {
    let store = Store::new().await;
    let mine = scope("acme", "shop");
    let double = Number::AsDouble;
    let int = Number::AsInt;
    let gauge = vec![
        number(0, double(1.0), "/a", 0),
        number(30, double(3.0), "/a", 0),
        number(30, int(10), "/b", 0),
        number(60, double(5.0), "/a", 0),
    ];
    // /a: a base, +10, a silent reset to 4; /b: begins in sight with 7, restarts with a new start and 2.
    let total = vec![
        number(1, int(100), "/a", 0),
        number(61, int(110), "/a", 0),
        number(121, int(4), "/a", 0),
        number(61, int(7), "/b", 60),
        number(121, int(9), "/b", 60),
        number(181, int(2), "/b", 170),
    ];
    let deltas = vec![number(1, int(5), "/a", 0), number(2, int(6), "/a", 1), number(61, int(7), "/a", 2)];
    let metrics = vec![
        metric("temp", Data::Gauge(Gauge { data_points: gauge })),
        metric("requests", sum(total, CUMULATIVE)),
        metric("deltas", sum(deltas, DELTA)),
    ];
    store.metrics(&mine, "cart", metrics).await;
    store
        .metrics(
            &scope("evil", "shop"),
            "cart",
            vec![metric("temp", Data::Gauge(Gauge { data_points: vec![number(1, double(1e9), "/a", 0)] }))],
        )
        .await;

    for (agg, want) in [
        ("avg", vec![(0, 14.0 / 3.0), (1, 5.0)]),
        ("min", vec![(0, 1.0), (1, 5.0)]),
        ("max", vec![(0, 10.0), (1, 5.0)]),
        ("count", vec![(0, 3.0), (1, 1.0)]),
        ("sum", vec![(0, 13.0), (1, 5.0)]),
        ("p50", vec![(0, 3.0), (1, 5.0)]),
        ("", vec![(0, 14.0 / 3.0), (1, 5.0)]),
    ] {
        let want: Vec<(u64, f64)> =
            want.into_iter().map(|(m, v): (u64, f64)| (m, (v * 1e6).round() / 1e6)).collect();
        assert_eq!(values(&store, "temp", agg, "").await, [want], "{agg}");
    }
    assert_eq!(values(&store, "temp", "last", "route").await, [vec![(0, 3.0), (1, 5.0)], vec![(0, 10.0)]]);
    let refused = ask(&store, "temp", "rate", "").await.unwrap_err();
    assert!(matches!(refused, QueryError::BadParameter(ref bad) if bad.parameter == "agg"), "{refused:?}");

    // The store has nothing from before the window, so the first point of a series that began in it counts whole.
    let increase = values(&store, "requests", "increase", "route").await;
    assert_eq!(increase, [vec![(0, 100.0), (1, 10.0), (2, 4.0)], vec![(1, 7.0), (2, 2.0), (3, 2.0)]]);
    let rate = values(&store, "requests", "", "").await;
    assert_eq!(rate, [vec![(0, 1.666_667), (1, 0.283_333), (2, 0.1), (3, 0.033_333)]]);
    assert_eq!(values(&store, "deltas", "increase", "").await, [vec![(0, 11.0), (1, 7.0)]]);
    assert_eq!(values(&store, "deltas", "sum", "").await, [vec![(0, 11.0), (1, 7.0)]]);

    let answer = ask(&store, "requests", "increase", "service,route").await.expect("an answer");
    assert_eq!(answer["items"][0]["group"], json!({"service": "cart", "route": "/a"}));
    assert_eq!(
        (&answer["type"], &answer["unit"], &answer["agg"]),
        (&json!("sum"), &json!("ms"), &json!("increase"))
    );
    assert_eq!(ask(&store, "nothing", "", "").await.expect("an answer")["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_older_than_the_window_does_not_jump_at_its_edge() {
    let store = Store::new().await;
    let mut old = number(1, Number::AsInt(1_000_000), "/a", 0);
    old.start_time_unix_nano = START - 24 * 60 * MINUTE;
    let mut next = number(61, Number::AsInt(1_000_006), "/a", 0);
    next.start_time_unix_nano = old.start_time_unix_nano;
    store
        .metrics(&scope("acme", "shop"), "cart", vec![metric("requests", sum(vec![old, next], CUMULATIVE))])
        .await;
    assert_eq!(values(&store, "requests", "increase", "").await, [vec![(0, 0.0), (1, 6.0)]]);
}

fn histogram(offset: u64, counts: &[u64], bounds: &[f64], route: &str) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: route_of(route),
        start_time_unix_nano: START,
        time_unix_nano: START + offset * SECOND,
        count: counts.iter().sum(),
        sum: Some(counts.iter().sum::<u64>() as f64 * 15.0),
        bucket_counts: counts.to_vec(),
        explicit_bounds: bounds.to_vec(),
        ..Default::default()
    }
}

fn exponential(offset: u64, scale: i32, first: i32, counts: &[u64]) -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        attributes: route_of("/a"),
        start_time_unix_nano: START,
        time_unix_nano: START + offset * SECOND,
        count: counts.iter().sum(),
        scale,
        positive: Some(Buckets { offset: first, bucket_counts: counts.to_vec() }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn histograms_give_quantiles_counts_and_rates() {
    let store = Store::new().await;
    let bounds = [10.0, 20.0];
    let running = vec![
        histogram(1, &[0, 60, 0], &bounds, "/a"),
        histogram(61, &[0, 60, 60], &bounds, "/a"),
        histogram(61, &[120, 0], &[5.0], "/b"),
    ];
    let deltas = vec![histogram(1, &[10, 0, 0], &bounds, "/a"), histogram(2, &[0, 0, 10], &bounds, "/a")];
    // Scale 0: the buckets are (1, 2], (2, 4], (4, 8]; the second point is coarser by one.
    let growing = vec![exponential(1, 0, 1, &[0, 10]), exponential(61, -1, 0, &[0, 30])];
    let quantile = |quantile, value| ValueAtQuantile { quantile, value };
    let stated = SummaryDataPoint {
        attributes: route_of("/a"),
        start_time_unix_nano: START,
        time_unix_nano: START + SECOND,
        count: 4,
        sum: 10.0,
        quantile_values: vec![quantile(0.5, 2.0), quantile(0.95, 9.0)],
        ..Default::default()
    };
    let metrics = vec![
        metric(
            "total",
            Data::Histogram(Histogram { data_points: running, aggregation_temporality: CUMULATIVE }),
        ),
        metric("delta", Data::Histogram(Histogram { data_points: deltas, aggregation_temporality: DELTA })),
        metric(
            "exp",
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: growing,
                aggregation_temporality: CUMULATIVE,
            }),
        ),
        metric("stated", Data::Summary(Summary { data_points: vec![stated] })),
    ];
    store.metrics(&scope("acme", "shop"), "cart", metrics).await;

    // Minute 1 of /a holds the sixty that came into the last bucket, whose end is its lower bound.
    assert_eq!(values(&store, "total", "p50", "route").await, [vec![(0, 15.0), (1, 20.0)], vec![(1, 2.5)]]);
    assert_eq!(values(&store, "total", "count", "").await, [vec![(0, 60.0), (1, 180.0)]]);
    assert_eq!(values(&store, "total", "rate", "").await, [vec![(0, 1.0), (1, 3.0)]]);
    assert_eq!(values(&store, "total", "avg", "").await, [vec![(0, 15.0), (1, 15.0)]]);
    assert_eq!(values(&store, "delta", "count", "").await, [vec![(0, 20.0)]]);
    assert_eq!(values(&store, "delta", "p99", "").await, [vec![(0, 20.0)]]);
    assert_eq!(values(&store, "exp", "increase", "").await, [vec![(0, 10.0), (1, 20.0)]]);
    let medians = values(&store, "exp", "p50", "").await;
    assert!((4.0..=8.0).contains(&medians[0][0].1) && (4.0..=16.0).contains(&medians[0][1].1), "{medians:?}");
    assert_eq!(values(&store, "stated", "p95", "").await, [vec![(0, 9.0)]]);
    assert_eq!(values(&store, "stated", "p99", "").await, Vec::<Vec<(u64, f64)>>::new());
    assert_eq!(values(&store, "stated", "avg", "").await, [vec![(0, 2.5)]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_metrics_has_types_and_units_and_stays_in_the_scope() {
    let store = Store::new().await;
    let gauge = |name: &str| {
        metric(name, Data::Gauge(Gauge { data_points: vec![number(0, Number::AsDouble(1.0), "/", 0)] }))
    };
    let counter = metric("http.requests", sum(vec![number(0, Number::AsInt(1), "/", 0)], CUMULATIVE));
    let seconds = Metric { unit: "s".into(), ..gauge("cpu") };
    store
        .metrics(&scope("acme", "shop"), "cart", vec![gauge("cpu"), seconds, gauge("http.size"), counter])
        .await;
    store.metrics(&scope("evil", "shop"), "cart", vec![gauge("secret")]).await;
    let list = store.all(&scope("acme", "shop"), "metrics", &[("limit", "1")]).await;
    assert_eq!(field(&list, "name"), ["cpu", "cpu", "http.requests", "http.size"]);
    assert_eq!(field(&list, "unit"), ["ms", "s", "ms", "ms"]);
    assert_eq!(
        (&list[2]["type"], &list[2]["temporality"], &list[2]["is_monotonic"]),
        (&json!("sum"), &json!("cumulative"), &json!(true))
    );
    assert_eq!(list[2]["description"], json!("about"));
    let prefixed =
        store.all(&scope("acme", "shop"), "metrics", &[("prefix", "http."), ("service", "cart")]).await;
    assert_eq!(prefixed.len(), 2);
}
