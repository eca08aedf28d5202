//! The only way to make a query: a scope and a table in → SQL text with the tenant filter first, and its parameters; it cannot fail.
//!
//! Text from callers never becomes SQL. [`Select::bind`] turns a value into a `{name:Type}` placeholder and keeps the value apart.

use std::sync::Arc;

use crate::domain::query::params::AttributeMatch;
use crate::domain::scope::Scope;

/// Earliest time a `DateTime64(9)` column holds, Unix nanoseconds: 1900-01-01.
const EARLIEST_NS: i64 = -2_208_988_800_000_000_000;

/// A finished query. There is no other way to one than a [`Select`], and none to that without a [`Scope`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    tenant: Arc<str>,
    sql: String,
    params: Vec<(String, String)>,
    settings: Vec<(&'static str, &'static str)>,
}

impl Statement {
    /// Whose rows it asks for; the store is told, and shows no others.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// SQL with `{name:Type}` placeholders and without a `FORMAT` or `SETTINGS` clause.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Name and value of each placeholder. Values are in the form that `param_NAME` takes: backslash escapes already written.
    pub fn params(&self) -> &[(String, String)] {
        &self.params
    }

    /// Engine settings this query needs, by name and value.
    pub fn settings(&self) -> &[(&'static str, &'static str)] {
        &self.settings
    }
}

/// Views beside the tables; each has the column `tenant`. They fill tables and are not queried.
pub const VIEWS: [&str; 1] = ["trace_index_view"];

/// The tables that can be queried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Spans.
    Spans,
    /// Log records.
    Logs,
    /// Metric data points.
    Metrics,
    /// Trace id → time range; knows the tenant only.
    TraceIndex,
}

impl Table {
    /// All of them; each has the column `tenant`.
    pub const ALL: [Self; 4] = [Self::Spans, Self::Logs, Self::Metrics, Self::TraceIndex];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spans => "spans",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
            Self::TraceIndex => "trace_index",
        }
    }
}

/// A query being built.
#[derive(Debug, Clone)]
pub struct Select {
    tenant: Arc<str>,
    columns: Vec<String>,
    from: String,
    filters: Vec<String>,
    tail: String,
    params: Vec<(String, String)>,
    settings: Vec<(&'static str, &'static str)>,
}

impl Select {
    /// Starts a query over `table`. The tenant filter is there from the first moment and comes first; project, app and env follow where
    /// the scope names them.
    pub fn from(scope: &Scope, table: Table) -> Self {
        let mut select = Self {
            tenant: scope.tenant.clone(),
            columns: Vec::new(),
            from: table.name().to_owned(),
            filters: vec!["tenant = {tenant:String}".to_owned()],
            tail: String::new(),
            params: vec![("tenant".to_owned(), escape(&scope.tenant))],
            settings: Vec::new(),
        };
        if table != Table::TraceIndex {
            for (column, value) in [("project", &scope.project), ("app", &scope.app), ("env", &scope.env)] {
                if !value.is_empty() {
                    let bound = select.bind("String", value);
                    select.filter(format!("{column} = {bound}"));
                }
            }
        }
        select
    }

    /// A query over the rows of another one, which brings its filters and parameters along.
    pub fn around(mut inner: Self) -> Self {
        let params = std::mem::take(&mut inner.params);
        let settings = std::mem::take(&mut inner.settings);
        let (tenant, from) = (inner.tenant.clone(), format!("({})", inner.text()));
        Self { tenant, columns: Vec::new(), from, filters: Vec::new(), tail: String::new(), params, settings }
    }

    /// Has the engine run the query with a setting.
    pub fn setting(&mut self, name: &'static str, value: &'static str) -> &mut Self {
        if self.settings.iter().all(|(known, _)| *known != name) {
            self.settings.push((name, value));
        }
        self
    }

    /// Keeps `value` as a parameter of the ClickHouse type `kind` and gives the placeholder to write into the SQL.
    pub fn bind(&mut self, kind: &'static str, value: impl ToString) -> String {
        let name = format!("p{}", self.params.len());
        let placeholder = format!("{{{name}:{kind}}}");
        self.params.push((name, escape(&value.to_string())));
        placeholder
    }

    /// Adds an expression to select.
    pub fn column(&mut self, expression: impl Into<String>) -> &mut Self {
        self.columns.push(expression.into());
        self
    }

    /// Adds a predicate; all must hold.
    pub fn filter(&mut self, predicate: impl Into<String>) -> &mut Self {
        self.filters.push(predicate.into());
        self
    }

    /// What comes after `WHERE`: grouping, order, limit.
    pub fn tail(&mut self, tail: impl AsRef<str>) -> &mut Self {
        self.tail.push(' ');
        self.tail.push_str(tail.as_ref());
        self
    }

    /// Keeps to `from_ns <= ts < to_ns`, also on the time bucket that the primary key is ordered by.
    pub fn between(&mut self, from_ns: i64, to_ns: i64) -> &mut Self {
        let bucket = |ns: i64| ns.div_euclid(1_000_000_000).clamp(0, i64::from(u32::MAX));
        let first = bucket(from_ns);
        let (first, last) =
            (self.bind("Int64", first - first.rem_euclid(300)), self.bind("Int64", bucket(to_ns)));
        let from = self.bind("Int64", from_ns.max(EARLIEST_NS));
        let to = self.bind("Int64", to_ns.max(EARLIEST_NS));
        self.filter(format!("ts_bucket >= toDateTime({first}, 'UTC')"));
        self.filter(format!("ts_bucket <= toDateTime({last}, 'UTC')"));
        self.filter(format!("ts >= fromUnixTimestamp64Nano({from}, 'UTC')"));
        self.filter(format!("ts < fromUnixTimestamp64Nano({to}, 'UTC')"))
    }

    /// Keeps to records of which an attribute or resource attribute compares as asked.
    pub fn attribute(&mut self, wanted: &AttributeMatch) -> &mut Self {
        let predicate = self.attr_predicate(&wanted.key, &wanted.value);
        self.filter(if wanted.negated { format!("NOT ({predicate})") } else { predicate })
    }

    /// The one place that knows how `key = value` is indexed: a text index over the items `key=value` of both attribute maps.
    pub fn attr_predicate(&mut self, key: &str, value: &str) -> String {
        // With the direct read, a part whose index is not built yet (it is built by merges) fails with code 43, since the fallback
        // cannot rebuild the lambda of the index expression (seen with 26.7.3).
        self.setting("query_plan_direct_read_from_text_index", "0");
        let item = self.bind("String", format!("{key}={value}"));
        let (key, value) = (self.bind("String", key), self.bind("String", value));
        // The maps come first: where there is no index (a part is read before a merge has built it) looking one key up costs half of
        // writing all items out, and those are then written only for rows with this value. They also tell `a=b` = `c` from `a` = `b=c`.
        format!(
            "((attributes[{key}] = {value} OR resource_attributes[{key}] = {value}) AND has(attr_kv, {item}))"
        )
    }

    /// Keeps to these traces.
    pub fn traces(&mut self, ids: &[[u8; 16]]) -> &mut Self {
        let hex: Vec<String> = ids.iter().map(|id| crate::domain::query::hex::encode(id)).collect();
        let bound = self.bind("String", hex.join("."));
        if ids.len() == 1 {
            return self.filter(format!("trace_id = toFixedString(unhex({bound}), 16)"));
        }
        let list = format!("arrayJoin(splitByChar('.', {bound}))");
        self.filter(format!("trace_id IN (SELECT toFixedString(unhex({list}), 16))"))
    }

    fn text(&self) -> String {
        let mut sql = format!("SELECT {} FROM {}", self.columns.join(", "), self.from);
        if !self.filters.is_empty() {
            sql.push_str(" WHERE ");
            sql.push_str(&self.filters.join(" AND "));
        }
        sql.push_str(&self.tail);
        sql
    }

    /// The finished query.
    pub fn build(self) -> Statement {
        Statement {
            tenant: self.tenant.clone(),
            sql: self.text(),
            params: self.params,
            settings: self.settings,
        }
    }
}

/// A value in the form that query parameters are read in: tab-separated text with backslash escapes.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\t' => escaped.push_str("\\t"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\0' => escaped.push_str("\\0"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenant_filter_is_there_before_anything_else() {
        let scope = Scope::new("acme", "shop", "", "prod").unwrap();
        let mut select = Select::from(&scope, Table::Spans);
        select.column("1");
        let statement = select.build();
        assert_eq!(
            statement.sql(),
            "SELECT 1 FROM spans WHERE tenant = {tenant:String} AND project = {p1:String} AND env = {p2:String}"
        );
        let values: Vec<&str> = statement.params().iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["acme", "shop", "prod"]);
    }

    #[test]
    fn an_outer_query_keeps_the_filters_and_numbers_on() {
        let scope = Scope::dev_default();
        let mut inner = Select::from(&scope, Table::Metrics);
        inner.column("value");
        inner.attribute(&AttributeMatch { key: "k".into(), value: "v".into(), negated: true });
        let mut outer = Select::around(inner);
        let bound = outer.bind("Int64", 5);
        outer.column("sum(value)").filter(format!("value > {bound}"));
        let statement = outer.build();
        assert!(
            statement.sql().starts_with(
                "SELECT sum(value) FROM (SELECT value FROM metrics WHERE tenant = {tenant:String}"
            )
        );
        assert!(statement.sql().ends_with(") WHERE value > {p5:Int64}"), "{}", statement.sql());
        assert_eq!(statement.settings().len(), 1);
    }

    #[test]
    fn times_beyond_the_columns_are_clamped() {
        let mut select = Select::from(&Scope::dev_default(), Table::Logs);
        select.column("1").between(i64::MIN, i64::MAX);
        let values: Vec<String> =
            select.build().params()[2..].iter().map(|(_, value)| value.clone()).collect();
        assert_eq!(values, ["0", &u32::MAX.to_string(), &EARLIEST_NS.to_string(), &i64::MAX.to_string()]);
    }

    #[test]
    fn values_are_escaped_as_parameters_are_read() {
        assert_eq!(escape("a\\b\tc\nd'e\"\r\0"), "a\\\\b\\tc\\nd'e\"\\r\\0");
    }
}
