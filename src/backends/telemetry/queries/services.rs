//! SQL for rate, errors and durations, per service and per operation, straight from the spans.

use super::spans::IS_ROOT;
use crate::backends::telemetry::sql::{Select, Statement, Table};
use crate::domain::query::request::{OperationQuery, Page, ServiceQuery};
use crate::domain::scope::Scope;

/// Services by name from the cursor's name on; requests are entry spans: server and consumer spans, and roots of any kind.
pub fn services(scope: &Scope, query: &ServiceQuery) -> Statement {
    let entry = format!("(kind IN (2, 5) OR {IS_ROOT})");
    let mut select = Select::from(scope, Table::Spans);
    select
        .column("toString(service) AS item")
        .column(format!("countIf({entry}) AS requests"))
        .column(format!("countIf({entry} AND status_code = 2) AS errors"))
        .column(format!("quantilesTDigestIf(0.5, 0.95, 0.99)(duration_ns, {entry}) AS quantiles"))
        .column("count() AS span_count")
        .column("toUnixTimestamp64Nano(max(ts)) AS last_ns");
    page(&mut select, "service", &query.page);
    select.tail(format!("GROUP BY service ORDER BY service LIMIT {}", need(&query.page)));
    select.build()
}

/// Operations of a service by name and kind, from the cursor's name on; every span counts as a request.
pub fn operations(scope: &Scope, query: &OperationQuery) -> Statement {
    let mut select = Select::from(scope, Table::Spans);
    select
        .column("toString(name) AS item")
        .column("kind")
        .column("count() AS requests")
        .column("countIf(status_code = 2) AS errors")
        .column("quantilesTDigest(0.5, 0.95, 0.99)(duration_ns) AS quantiles")
        .column("toUnixTimestamp64Nano(max(ts)) AS last_ns");
    let service = select.bind("String", &query.service);
    select.filter(format!("service = {service}"));
    page(&mut select, "name", &query.page);
    select.tail(format!("GROUP BY name, kind ORDER BY name, kind LIMIT {}", need(&query.page)));
    select.build()
}

/// The part of a list ordered by `column` that a page asks for.
pub(super) fn page(select: &mut Select, column: &str, page: &Page) {
    select.between(page.range.start_ns, page.range.end_ns);
    if let Some(after) = &page.after {
        let name = select.bind("String", String::from_utf8_lossy(&after.key));
        select.filter(format!("{column} >= {name}"));
    }
}

/// Rows to read for a page ordered by name: the page, those skipped at its start, and one that tells whether there is more.
pub(super) fn need(page: &Page) -> usize {
    page.limit as usize + 1 + page.after.as_ref().map_or(0, |after| after.skip as usize)
}
