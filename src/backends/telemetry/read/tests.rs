//! Paging, deadlines and metric arithmetic over a stand-in store that answers from rows in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, Float64Array, Int8Array, Int64Array, RecordBatch, StringArray, UInt8Array, UInt64Array,
};
use futures_util::FutureExt;
use parking_lot::Mutex;

use super::*;
use crate::domain::failure::{Classified, FailureClass};
use crate::domain::query::answer::List;

const NOW: u64 = 1_700_000_000_000_000_000;
const MINUTE: i64 = 60_000_000_000;

type Answer = Box<dyn Fn(&Statement) -> Result<Vec<RecordBatch>, StoreFailure> + Send + Sync>;

/// Answers each statement by a function and keeps what it was asked.
struct Stand {
    answer: Answer,
    asked: Mutex<Vec<Statement>>,
}

impl Stand {
    fn new(
        answer: impl Fn(&Statement) -> Result<Vec<RecordBatch>, StoreFailure> + Send + Sync + 'static,
    ) -> Self {
        Self { answer: Box::new(answer), asked: Mutex::default() }
    }
}

impl SqlRunner for Stand {
    fn run(
        &self,
        statement: Statement,
        _: QueryLimits,
        _: Duration,
    ) -> BoxFuture<'_, Result<QueryResult, StoreFailure>> {
        let batches = (self.answer)(&statement);
        self.asked.lock().push(statement);
        let result = |batches| QueryResult {
            batches,
            rows_read: 10,
            bytes_read: 100,
            elapsed: Duration::from_millis(2),
        };
        async move { batches.map(result) }.boxed()
    }
}

async fn ask(stand: &Stand, path: &str, pairs: &[(&str, &str)]) -> Result<QueryAnswer, QueryError> {
    let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let now = i64::try_from(NOW).unwrap();
    let request = match path {
        "services" => QueryRequest::services(pairs, now)?,
        "metrics" => QueryRequest::metrics(pairs, now)?,
        "metrics/query" => QueryRequest::metric_range(pairs, now)?,
        id => QueryRequest::trace(id, pairs)?,
    };
    execute(stand, &Scope::dev_default(), request, NOW, Duration::from_secs(5), QueryLimits::default()).await
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn param<'a>(statement: &'a Statement, before: &str) -> Option<&'a str> {
    let at = statement.sql().find(before)? + before.len();
    let name = statement.sql()[at..].strip_prefix('{')?.split(':').next()?;
    statement.params().iter().find(|(param, _)| param == name).map(|(_, value)| value.as_str())
}

/// A list of metrics in which one name occurs with three units.
fn metric_rows(statement: &Statement) -> Vec<RecordBatch> {
    let all = [("a", "s"), ("b", "1"), ("b", "By"), ("b", "s"), ("c", "s")];
    let after = param(statement, "metric >= ").unwrap_or("").to_owned();
    let limit: usize = statement.sql().rsplit(' ').next().unwrap().parse().unwrap();
    let rows: Vec<_> = all.into_iter().filter(|(name, _)| *name >= after.as_str()).take(limit).collect();
    let texts = |pick: fn(&(&'static str, &'static str)) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(pick)))
    };
    vec![batch(vec![
        ("item", texts(|r| r.0)),
        ("unit_text", texts(|r| r.1)),
        ("kind_number", Arc::new(Int8Array::from(vec![1; rows.len()]))),
        ("temporality", Arc::new(UInt8Array::from(vec![0; rows.len()]))),
        ("monotonic", Arc::new(UInt8Array::from(vec![0; rows.len()]))),
        ("about", texts(|_| "")),
        ("last_ns", Arc::new(Int64Array::from(vec![5; rows.len()]))),
    ])]
}

#[tokio::test]
async fn pages_of_equal_names_neither_skip_nor_double() {
    for limit in ["1", "2", "3", "4", "5"] {
        let stand = Stand::new(|statement| Ok(metric_rows(statement)));
        let (mut seen, mut cursor, mut total) = (BTreeSet::new(), None::<String>, 0);
        loop {
            let mut pairs = vec![("limit", limit)];
            pairs.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let Ok(QueryAnswer::Metrics(List { items, next_cursor, .. })) =
                ask(&stand, "metrics", &pairs).await
            else {
                panic!("no list of metrics");
            };
            total += items.len();
            seen.extend(items.into_iter().map(|item| (item.name, item.unit)));
            cursor = next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!((total, seen.len()), (5, 5), "limit {limit}");
    }
}

#[tokio::test]
async fn an_unknown_trace_is_not_found_and_costs_one_statement() {
    let stand = Stand::new(|_| {
        Ok(vec![batch(vec![
            ("min_ns", Arc::new(Int64Array::from(vec![0]))),
            ("max_ns", Arc::new(Int64Array::from(vec![0]))),
            ("found", Arc::new(UInt64Array::from(vec![0]))),
        ])])
    });
    let err = ask(&stand, &"ab".repeat(16), &[]).await.unwrap_err();
    assert!(matches!(err, QueryError::NotFound(_)), "{err:?}");
    assert_eq!(stand.asked.lock().len(), 1);
}

#[tokio::test]
async fn failures_of_the_store_keep_their_class() {
    let cases: [(StoreFailure, FailureClass); 5] = [
        (StoreFailure::Down("x".into()), FailureClass::Dependency),
        (StoreFailure::Overloaded("x".into()), FailureClass::Overload),
        (StoreFailure::TimedOut("x".into()), FailureClass::Dependency),
        (StoreFailure::TooLarge(Bound::Answer, "x".into()), FailureClass::Poison),
        (StoreFailure::Refused("x".into()), FailureClass::Bug),
    ];
    for (failure, class) in cases {
        let stand = Stand::new(move |_| Err(failure.clone()));
        assert_eq!(ask(&stand, "services", &[]).await.unwrap_err().class(), class);
    }
}

struct Silent;

impl SqlRunner for Silent {
    fn run(
        &self,
        _: Statement,
        _: QueryLimits,
        _: Duration,
    ) -> BoxFuture<'_, Result<QueryResult, StoreFailure>> {
        std::future::pending().boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_ends_at_the_deadline() {
    let request = QueryRequest::services(vec![], 1).unwrap();
    let asked = execute(
        &Silent,
        &Scope::dev_default(),
        request,
        NOW,
        Duration::from_secs(30),
        QueryLimits::default(),
    )
    .await;
    assert_eq!(asked, Err(QueryError::Timeout));
}

#[tokio::test]
async fn a_row_of_another_shape_is_an_internal_error_that_names_the_column() {
    let stand = Stand::new(|_| Ok(vec![batch(vec![("item", Arc::new(StringArray::from(vec!["x"])))])]));
    let err = ask(&stand, "services", &[]).await.unwrap_err();
    assert!(err.to_string().contains("column requests"), "{err}");
}

/// A store with one metric: a description, then one value for each of two steps.
fn counter(statement: &Statement) -> Result<Vec<RecordBatch>, StoreFailure> {
    if statement.sql().contains("AS points") {
        return Ok(vec![batch(vec![
            ("kind_number", Arc::new(Int8Array::from(vec![2]))),
            ("monotonic", Arc::new(UInt8Array::from(vec![1]))),
            ("unit_text", Arc::new(StringArray::from(vec!["{request}"]))),
        ])]);
    }
    let last_step = i64::try_from(NOW).unwrap() / MINUTE * MINUTE;
    Ok(vec![batch(vec![
        ("step_ns", Arc::new(Int64Array::from(vec![last_step - MINUTE, last_step]))),
        ("g0", Arc::new(StringArray::from(vec!["cart", "cart"]))),
        ("result", Arc::new(Float64Array::from(vec![Some(120.0), Some(20.0)]))),
    ])])
}

#[tokio::test]
async fn a_counter_shows_its_rate_and_the_running_step_counts_as_far_as_it_has_come() {
    let pairs = [("name", "requests"), ("step", "60s"), ("by", "service")];
    let stand = Stand::new(counter);
    let Ok(QueryAnswer::MetricRange(answer)) = ask(&stand, "metrics/query", &pairs).await else { panic!() };
    assert_eq!(
        (answer.agg.as_deref(), answer.kind.as_deref(), answer.step.as_str()),
        (Some("rate"), Some("sum"), "1m")
    );
    assert_eq!(answer.items[0].group["service"], "cart");
    // 1_700_000_000 lies 20 s into its minute.
    let values: Vec<_> = answer.items[0].points.iter().map(|p| p.value).collect();
    assert_eq!(values, [Some(2.0), Some(1.0)]);
    assert_eq!(answer.stats, Stats { rows_read: 20, bytes_read: 200, elapsed_ms: 4.0 });
}

#[tokio::test]
async fn an_aggregation_without_meaning_is_refused_by_name() {
    let gauge = Stand::new(|_| {
        Ok(vec![batch(vec![
            ("kind_number", Arc::new(Int8Array::from(vec![1]))),
            ("monotonic", Arc::new(UInt8Array::from(vec![0]))),
            ("unit_text", Arc::new(StringArray::from(vec!["1"]))),
        ])])
    });
    let err = ask(&gauge, "metrics/query", &[("name", "m"), ("agg", "rate")]).await.unwrap_err();
    assert!(matches!(err, QueryError::BadParameter(ref bad) if bad.parameter == "agg"), "{err:?}");
}

#[tokio::test]
async fn a_metric_without_points_has_an_empty_answer() {
    let stand = Stand::new(|_| Ok(vec![]));
    let Ok(QueryAnswer::MetricRange(answer)) = ask(&stand, "metrics/query", &[("name", "m")]).await else {
        panic!()
    };
    assert_eq!((answer.kind, answer.items.len()), (None, 0));
}
