//! Every statement that can be built carries the tenant filter on every table it reads, and no text of a caller in its SQL.

use proptest::prelude::*;

use super::{logs, metrics, services, spans};
use crate::backends::telemetry::sql::Statement;
use crate::domain::query::cursor::Position;
use crate::domain::query::logs_lang::{LogFilter, LogTerm, LogTest};
use crate::domain::query::metrics::{Aggregation, GroupKey, MetricKind};
use crate::domain::query::params::AttributeMatch;
use crate::domain::query::request::{
    MetricListQuery, MetricRangeQuery, OperationQuery, Page, ServiceQuery, SpanFilter, SpanStatus,
};
use crate::domain::query::time::TimeRange;
use crate::domain::scope::Scope;

const RANGE: TimeRange = TimeRange { start_ns: 1_700_000_000_000_000_000, end_ns: 1_700_000_360_000_000_000 };

/// Every statement of every module, with `text` in every place that takes text from a caller.
fn all(scope: &Scope, text: &str) -> Vec<Statement> {
    let after = Position { ts_ns: 5, key: text.as_bytes().to_vec(), skip: 2 };
    let page = Page { range: RANGE, limit: 10, after: Some(after.clone()), fingerprint: 0 };
    let attribute = |negated| AttributeMatch { key: text.to_owned(), value: text.to_owned(), negated };
    let filter = SpanFilter {
        service: Some(text.to_owned()),
        operation: Some(text.to_owned()),
        min_duration_ns: Some(1),
        max_duration_ns: Some(2),
        status: Some(SpanStatus::Error),
        kind: Some(2),
        attributes: vec![attribute(false), attribute(true)],
    };
    let tests = [
        LogTest::Text(text.to_owned()),
        LogTest::Service(text.to_owned()),
        LogTest::Severity { from: 13, to: 24 },
        LogTest::Attribute { key: text.to_owned(), value: text.to_owned() },
        LogTest::Trace([7; 16]),
    ];
    let terms = tests
        .into_iter()
        .flat_map(|test| [true, false].map(|negated| LogTerm { negated, test: test.clone() }));
    let log_filter = LogFilter { terms: terms.collect() };
    let range_query = MetricRangeQuery {
        name: text.to_owned(),
        aggregation: None,
        step_ns: 60_000_000_000,
        by: vec![GroupKey::Service, GroupKey::Attribute(text.to_owned())],
        service: Some(text.to_owned()),
        attributes: vec![attribute(false)],
        range: RANGE,
        limit: 10,
    };
    let ids = [[1; 16], [2; 16]];
    let mut built = vec![
        spans::probe(scope, &filter, RANGE, 11),
        spans::rows(scope, &filter, RANGE, Some(&after), 11),
        spans::traces(scope, &filter, RANGE, Some(&after), 11),
        spans::traces_shown(scope, &filter, RANGE, &after, &ids),
        spans::trace_times(scope, &ids),
        spans::trace(scope, ids[0], RANGE),
        spans::summaries(scope, &ids, RANGE),
        logs::probe(scope, &log_filter, RANGE, 11),
        logs::rows(scope, &log_filter, RANGE, Some(&after), 11),
        services::services(scope, &ServiceQuery { page: page.clone() }),
        services::operations(scope, &OperationQuery { service: text.to_owned(), page: page.clone() }),
        metrics::list(
            scope,
            &MetricListQuery { prefix: Some(text.to_owned()), service: Some(text.to_owned()), page },
        ),
        metrics::describe(scope, &range_query),
        metrics::growth(scope, &range_query),
        metrics::stated_quantile(scope, &range_query, 0.5),
    ];
    for (_, aggregation) in Aggregation::NAMES {
        built.push(metrics::points(scope, &range_query, MetricKind::Gauge, aggregation));
    }
    for kind in [MetricKind::Histogram, MetricKind::ExponentialHistogram, MetricKind::Summary] {
        built.push(metrics::distributions(scope, &range_query, kind));
    }
    built
}

/// Each read of a table is followed by the tenant filter as its first condition.
fn every_read_is_scoped(sql: &str) -> bool {
    let mut reads = 0;
    for table in ["spans", "logs", "metrics", "trace_index"] {
        for (at, _) in sql.match_indices(&format!("FROM {table}")) {
            reads += 1;
            if !sql[at..].starts_with(&format!("FROM {table} WHERE tenant = {{tenant:String}}")) {
                return false;
            }
        }
    }
    reads > 0 && !sql.contains(" OR tenant") && reads == sql.matches("tenant = ").count()
}

proptest! {
    #[test]
    fn no_statement_lacks_the_tenant_and_none_holds_text_of_a_caller(text in "\\PC{0,40}|[';\\\\\"{}()\\-]{1,12}") {
        // A marker that no SQL of ours contains tells the caller's text from our own.
        let hostile = format!("ZQX' OR 1=1 -- {text} {{tenant:String}} /*");
        let scope = Scope::new("acme", "shop", "web", "prod").unwrap();
        for statement in all(&scope, &hostile) {
            prop_assert!(every_read_is_scoped(statement.sql()), "{}", statement.sql());
            prop_assert!(!statement.sql().contains("ZQX"), "{}", statement.sql());
            prop_assert!(!statement.sql().contains("acme"));
            let tenants: Vec<_> = statement.params().iter().filter(|(name, _)| name == "tenant").collect();
            prop_assert_eq!(tenants.len(), 1);
            prop_assert_eq!(tenants[0].1.as_str(), "acme");
        }
    }
}

#[test]
fn the_sql_does_not_depend_on_the_values() {
    let scope = Scope::dev_default();
    for (one, other) in all(&scope, "a=b c").iter().zip(all(&scope, "x=y'; z")) {
        assert_eq!(one.sql(), other.sql());
    }
}

#[test]
fn every_placeholder_has_one_value() {
    for statement in all(&Scope::dev_default(), "a=b") {
        for (name, _) in statement.params() {
            assert!(
                statement.sql().contains(&format!("{{{name}:")),
                "{name} is not used in {}",
                statement.sql()
            );
        }
        let used = statement.sql().matches(":String}").count();
        assert!(used >= statement.params().iter().filter(|(_, v)| v.contains("a=b")).count());
    }
}

#[test]
fn project_app_and_env_narrow_where_the_scope_names_them() {
    let scope = Scope::new("t", "p", "a", "e").unwrap();
    for statement in all(&scope, "x") {
        let narrowed = ["project = ", "app = ", "env = "].iter().all(|part| statement.sql().contains(part));
        assert_eq!(narrowed, !statement.sql().contains("FROM trace_index"), "{}", statement.sql());
    }
}
