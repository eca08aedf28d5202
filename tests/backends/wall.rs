//! The second wall between tenants, below the SQL: what a query may see hangs on whom it is asked for, not on its text.
//!
//! On the embedded engine, and on a ClickHouse server where `OBTRACE_CLICKHOUSE_URL` names one, with the users and row
//! policies that `obtrace migrate` makes; where none is there, that is said.

use std::collections::BTreeSet;
use std::time::Duration;

use arrow_array::cast::AsArray;
use obtrace::backends::telemetry::access::{self, Access};
use obtrace::backends::telemetry::client::{TelemetryClient, TelemetryError, TelemetrySettings};
use obtrace::backends::telemetry::read::QueryLimits;
use obtrace::backends::telemetry::schema::Layout;
use obtrace::backends::telemetry::sql::{Table, VIEWS};
use obtrace::backends::telemetry::{guard, migrate};
use obtrace::domain::failure::{Classified, FailureClass};

use crate::own_engine::Engine;

const PATIENCE: Duration = Duration::from_secs(60);

struct Store {
    engine: Engine,
    client: TelemetryClient,
}

/// Rows of two tenants in every table: one of `a`, three of `b`.
async fn fill(client: &TelemetryClient) {
    for table in ["spans", "logs", "metrics"] {
        let rows = ["a", "b", "b", "b"].map(|tenant| {
            let trace = if table == "metrics" { String::new() } else { tenant.repeat(16) };
            let trace = if trace.is_empty() { trace } else { format!(", \"trace_id\": \"{trace}\"") };
            format!("{{\"tenant\": \"{tenant}\", \"ts\": \"2026-11-26 12:00:00\", \"retention_days\": 9999{trace}}}")
        });
        let columns = if table == "metrics" { "" } else { ", trace_id" };
        let sql = format!(
            "INSERT INTO {table} (tenant, ts, retention_days{columns}) FORMAT JSONEachRow {}",
            rows.join("\n")
        );
        client.command(&sql).await.expect("filled");
    }
}

impl Store {
    async fn new() -> Self {
        let engine = Engine::with_schema().await;
        let client = engine.client();
        fill(&client).await;
        Self { engine, client }
    }

    /// A statement as somebody sends it who has the engine's secret and no Obtrace in between. Exception code and text.
    async fn raw(&self, tenant: Option<&str>, query: &[(&str, &str)], sql: &str) -> (Option<String>, String) {
        let http = reqwest::Client::new();
        let mut request =
            http.post(&self.engine.endpoint.url).query(query).timeout(PATIENCE).body(sql.to_owned());
        request = request.header("X-ClickHouse-Key", &self.engine.endpoint.secret);
        if let Some(tenant) = tenant {
            request = request.header(guard::TENANT_HEADER, tenant);
        }
        let answer = request.send().await.expect("an answer");
        let code = answer.headers().get("x-clickhouse-exception-code");
        let code = code.and_then(|code| code.to_str().ok()).map(str::to_owned);
        (code, answer.text().await.expect("text").trim().to_owned())
    }
}

/// The tenants whose rows a table shows.
async fn tenants(client: &TelemetryClient, tenant: Option<&str>, table: &str) -> BTreeSet<String> {
    let (sql, limits) = (format!("SELECT toString(tenant) FROM {table}"), QueryLimits::default());
    let result = match tenant {
        Some(tenant) => client.query_for(tenant, &sql, &[], &[], limits, PATIENCE).await,
        None => client.query(&sql, &[], &[], limits, PATIENCE).await,
    };
    let batches = result.expect("an answer").batches;
    let names = batches.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten());
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_query_without_a_tenant_filter_still_sees_its_own_tenant_alone() {
    let store = Store::new().await;
    for table in Table::ALL.map(Table::name) {
        let (a, b) = (BTreeSet::from(["a".to_owned()]), BTreeSet::from(["b".to_owned()]));
        assert_eq!(tenants(&store.client, Some("a"), table).await, a, "{table}");
        assert_eq!(tenants(&store.client, Some("b"), table).await, b, "{table}");
        assert!(tenants(&store.client, Some("c"), table).await.is_empty(), "{table}");
        assert!(
            tenants(&store.client, None, table).await.is_empty(),
            "{table}: nobody's rows without a tenant"
        );
    }
}

/// A table that comes later must not be forgotten: every one with a tenant stands behind the wall.
#[tokio::test]
async fn every_table_with_a_tenant_stands_behind_the_wall() {
    let store = Store::new().await;
    let sql = "SELECT DISTINCT table FROM system.columns WHERE database = 'obtrace' AND name = 'tenant'";
    let result = store.client.query(sql, &[], &[], QueryLimits::default(), PATIENCE).await.expect("tables");
    let found: BTreeSet<String> = result
        .batches
        .iter()
        .flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned))
        .collect();
    let known = Table::ALL.map(Table::name).into_iter().chain(VIEWS);
    assert_eq!(found, known.map(str::to_owned).collect());
    for view in VIEWS {
        let seen = tenants(&store.client, Some("a"), view).await;
        assert!(seen.iter().all(|tenant| tenant == "a"), "{view}: {seen:?}");
        assert!(
            tenants(&store.client, None, view).await.is_empty(),
            "{view}: nobody's rows without a tenant"
        );
    }
}

/// What query text may try to see another tenant, each of which the bare engine would have let it.
const TRICKS: [&str; 16] = [
    "SELECT count() FROM spans SETTINGS log_comment = 'b'",
    "SELECT count() FROM (SELECT * FROM spans SETTINGS log_comment = 'b')",
    "SELECT count() FROM view(SELECT * FROM spans SETTINGS `log_comment` = 'b')",
    "WITH x AS (SELECT * FROM spans /**/ settings \"log_comment\" = 'b') SELECT count() FROM x",
    "(SELECT count() FROM spans SETTINGS SQL_tenant_id = 'b') UNION ALL SELECT 1",
    "SELECT * FROM mergeTreeIndex('obtrace', 'spans')",
    "SELECT sum(rows) FROM system.parts WHERE table = 'spans'",
    "SELECT query FROM `system`.processes",
    "EXPLAIN SELECT 1",
    "SET log_comment = 'b'",
    "SELECT sum(rows) FROM `sys\\x74em`.parts WHERE table = 'spans'",
    "SELECT sum(rows) FROM merge('system', '^parts$') WHERE table = 'spans'",
    "SELECT count() FROM (SELECT * FROM spans SETTINGS\u{a0}log_comment = 'b')",
    "SELECT count() FROM (SELECT 1 FROM spans // '\nSETTINGS log_comment = 'b') -- '",
    "SELECT count() FROM (SELECT 1 FROM spans /* /* */ ' */ SETTINGS log_comment = 'b') -- '",
    "SELECT count() AS x$y$ FROM (SELECT * FROM spans SETTINGS log_comment = 'b') -- $y$",
];

#[tokio::test]
async fn query_text_cannot_change_whom_it_is_asked_for() {
    let store = Store::new().await;
    for sql in TRICKS {
        let refused = store.client.query_for("a", sql, &[], &[], QueryLimits::default(), PATIENCE).await;
        assert!(
            matches!(refused, Err(TelemetryError::Malformed(_))),
            "the client refuses {sql}: {refused:?}"
        );
        let (code, text) = store.raw(Some("a"), &[], sql).await;
        assert_eq!(code.as_deref(), Some("497"), "the engine refuses {sql}: {text}");
    }
    // Nor can the rest of the request.
    let count = "SELECT count() FROM spans";
    assert_eq!(store.raw(Some("a"), &[], count).await, (None, "1".into()));
    assert_eq!(store.raw(None, &[("SQL_tenant_id", "b")], count).await, (None, "3".into()));
    assert_eq!(
        store.raw(Some("a"), &[("SQL_tenant_id", "b")], count).await,
        (None, "1".into()),
        "the header holds against the URL"
    );
    assert_eq!(store.raw(Some("a"), &[("log_comment", "b")], count).await.0.as_deref(), Some("497"));
    assert_eq!(store.raw(None, &[("log_comment", "b")], count).await.0.as_deref(), Some("497"));
    let (code, text) = store.raw(None, &[], "SELECT count() FROM spans SETTINGS `log_comment` = 'b'").await;
    assert_eq!(code.as_deref(), Some("497"), "{text}");
    // Nobody is every tenant but an insert, and that reads nothing.
    for everybody in ["*", "", "a' OR '1"] {
        let (code, text) = store.raw(Some(everybody), &[], count).await;
        assert_eq!(code.as_deref(), Some("497"), "{everybody}: {text}");
    }
    let copy = "INSERT INTO logs (tenant, ts, retention_days) SELECT 'z', ts, 1 FROM spans";
    assert_eq!(store.raw(None, &[], copy).await, (None, String::new()));
    assert_eq!(store.raw(Some("z"), &[], "SELECT count() FROM logs").await, (None, "0".into()));
    // A tenant's request changes nothing, whatever it says of readonly.
    for sql in ["TRUNCATE TABLE spans", "INSERT INTO spans (tenant) VALUES ('b')"] {
        let (code, text) = store.raw(Some("a"), &[("readonly", "0")], sql).await;
        assert_eq!(code.as_deref(), Some("497"), "{sql}: {text}");
    }
    let fine = "SELECT count() FROM spans WHERE name != 'SETTINGS log_comment' -- system.parts";
    assert_eq!(store.raw(Some("a"), &[], fine).await, (None, "1".into()));
    assert_eq!(
        TelemetryError::Malformed(String::new()).class(),
        FailureClass::Bug,
        "a fault of Obtrace, not of the caller"
    );
}

/// The same wall on a real server: its users, its row policies, its `SQL_tenant_id`. `OBTRACE_CLICKHOUSE_USER` and
/// `OBTRACE_CLICKHOUSE_PASSWORD` are of somebody who may make databases, users and policies.
#[tokio::test]
async fn a_server_holds_its_reader_to_one_tenant() {
    let Ok(url) = std::env::var("OBTRACE_CLICKHOUSE_URL") else {
        println!(
            "NOT RUN: OBTRACE_CLICKHOUSE_URL names no ClickHouse server, its users and row policies are not tested"
        );
        return;
    };
    let var = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let tag = uuid::Uuid::now_v7().simple().to_string();
    let reader = (format!("reader_{tag}"), format!("secret-{tag}"));
    let settings = TelemetrySettings {
        url: Some(url),
        user: var("OBTRACE_CLICKHOUSE_USER", "default"),
        password: var("OBTRACE_CLICKHOUSE_PASSWORD", ""),
        database: format!("obtrace_wall_{tag}"),
        ..TelemetrySettings::default()
    };
    let admin = TelemetryClient::new(settings.clone()).expect("settings");
    let access = Access { reader: Some(reader.clone()), log_days: 0 };
    migrate::run(&admin, &Layout::Single).await.expect("the schema is made");
    assert_eq!(access::run(&admin, &Layout::Single, &access).await.expect("made").len(), 1);
    assert_eq!(access::plan(&admin, &Layout::Single, &access).await.expect("seen"), []);
    fill(&admin).await;
    let asks = TelemetryClient::new(TelemetrySettings { reader: Some(reader.clone()), ..settings.clone() });
    let asks = asks.expect("settings");
    for table in Table::ALL.map(Table::name) {
        assert_eq!(tenants(&asks, Some("a"), table).await, BTreeSet::from(["a".to_owned()]), "{table}");
        let sql = format!("SELECT count() FROM {table}");
        let without = asks.query(&sql, &[], &[], QueryLimits::default(), PATIENCE).await;
        assert!(without.is_err(), "{table}: the setting is asked for: {without:?}");
    }
    for sql in [format!("DROP DATABASE {}", settings.database), format!("DROP USER {}", reader.0)] {
        admin.command(&sql).await.expect("removed");
    }
}
