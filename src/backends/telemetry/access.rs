//! What a ClickHouse server needs beside the tables: the user who may only read, the row policies that hold it to one
//! tenant a query, and an end to the server's own logs. Settings in, statements that are missing out.
//!
//! The embedded engine has its wall in its own configuration and keeps no logs. What may fail: the server, or rights
//! that the migrating user lacks.

use sha2::{Digest, Sha256};

use super::client::{TelemetryClient, TelemetryError};
use super::guard::TENANT_SETTING;
use super::migrate::{MigrateError, Step, texts};
use super::schema::{Layout, quoted};
use super::sql::Table;

/// Row policies of each table: everybody else sees what they saw, the reader its tenant, and no policy that comes later
/// widens that.
const POLICIES: [&str; 3] = ["obtrace_others", "obtrace_tenant", "obtrace_tenant_only"];

/// The server's own logs, with those that a changed configuration left behind (`query_log_0`).
const LOGS: &str = "match(name, '^(query_log|query_thread_log|query_views_log|part_log|trace_log|text_log|metric_log|error_log|\
latency_log|query_metric_log|asynchronous_metric_log|asynchronous_insert_log|processors_profile_log|session_log|\
opentelemetry_span_log|zookeeper_log|backup_log|blob_storage_log|background_schedule_pool_log)(_[0-9]+)?$')";

/// What a server is to have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// Name and password of the user who asks.
    pub reader: Option<(String, String)>,
    /// Days that the server keeps its own logs; 0 leaves them alone.
    pub log_days: u16,
}

/// What is missing of it.
///
/// # Errors
/// [`MigrateError::Store`] where the server cannot be asked.
pub async fn plan(
    client: &TelemetryClient,
    layout: &Layout,
    access: &Access,
) -> Result<Vec<Step>, MigrateError> {
    let mut steps = Vec::new();
    if let Some((user, password)) = &access.reader {
        let have = texts(client, &policies_there(client.database())).await?;
        let users =
            texts(client, &format!("SELECT name FROM system.users WHERE name = {}", quoted(user))).await?;
        let granted = texts(client, &grants_there(client.database(), user)).await?;
        let tables = Table::ALL.len() * layout.tables("").len();
        // The grants come last: without one of them, an earlier run was cut short.
        let whole = have.len() >= tables * POLICIES.len() && !users.is_empty() && granted.len() >= tables;
        if !whole {
            let statements = reader(layout, client.database(), user, password);
            steps.push(Step { name: format!("reader {user}"), statements });
        }
    }
    if access.log_days > 0 {
        let endless = format!(
            "SELECT name FROM system.tables WHERE database = 'system' AND engine LIKE '%MergeTree' AND {LOGS} \
             AND NOT create_table_query LIKE '% TTL %' ORDER BY name"
        );
        let statements: Vec<String> =
            texts(client, &endless).await?.iter().map(|log| expiry(layout, log, access.log_days)).collect();
        if !statements.is_empty() {
            steps.push(Step { name: "expiry of the server's own logs".into(), statements });
        }
    }
    Ok(steps)
}

/// Does what [`plan`] says.
///
/// # Errors
/// [`MigrateError::Access`] with the statement that failed.
pub async fn run(
    client: &TelemetryClient,
    layout: &Layout,
    access: &Access,
) -> Result<Vec<Step>, MigrateError> {
    let steps = plan(client, layout, access).await?;
    for step in &steps {
        for (index, sql) in step.statements.iter().enumerate() {
            let failed = |source: TelemetryError| MigrateError::Access {
                step: step.name.clone(),
                statement: index + 1,
                source,
            };
            client.command(sql).await.map_err(failed)?;
        }
        tracing::info!(step = step.name, "telemetry access applied");
    }
    Ok(steps)
}

/// Statements that make the reader and its walls; the rights come last, when the walls stand.
pub fn reader(layout: &Layout, database: &str, user: &str, password: &str) -> Vec<String> {
    let (on, user) = (layout.on_cluster(), quoted(user));
    let hash: String = Sha256::digest(password.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    let mut statements =
        vec![format!("CREATE USER IF NOT EXISTS {user}{on} IDENTIFIED WITH sha256_hash BY '{hash}'")];
    let tables: Vec<String> = Table::ALL.iter().flat_map(|table| layout.tables(table.name())).collect();
    let own = format!("tenant = getSetting('{TENANT_SETTING}')");
    for table in &tables {
        let [others, tenant, only] = POLICIES;
        let policy = |name: &str, rule: &str| {
            format!("CREATE ROW POLICY IF NOT EXISTS {name}{on} ON {database}.{table} {rule}")
        };
        statements.push(policy(others, &format!("USING 1 TO ALL EXCEPT {user}")));
        statements.push(policy(tenant, &format!("USING {own} TO {user}")));
        statements.push(policy(only, &format!("USING {own} AS RESTRICTIVE TO {user}")));
    }
    let grant = |table: &String| format!("GRANT{on} SELECT ON {database}.{table} TO {user}");
    statements.extend(tables.iter().map(grant));
    statements
}

fn policies_there(database: &str) -> String {
    let names = POLICIES.map(quoted).join(", ");
    format!(
        "SELECT name FROM system.row_policies WHERE database = {} AND short_name IN ({names})",
        quoted(database)
    )
}

fn grants_there(database: &str, user: &str) -> String {
    format!(
        "SELECT DISTINCT assumeNotNull(table) FROM system.grants WHERE user_name = {} AND access_type = 'SELECT' \
         AND database = {} AND table IS NOT NULL",
        quoted(user),
        quoted(database)
    )
}

fn expiry(layout: &Layout, log: &str, days: u16) -> String {
    format!(
        "ALTER TABLE IF EXISTS system.{log}{} MODIFY TTL event_date + INTERVAL {days} DAY",
        layout.on_cluster()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walls_stand_before_the_reader_may_read() {
        let statements = reader(&Layout::Single, "obtrace", "reader", "secret");
        assert_eq!(statements.len(), 1 + 4 * 3 + 4);
        assert!(
            statements.iter().all(|statement| !statement.contains("secret")),
            "the password is not in them"
        );
        assert_eq!(
            statements[2],
            "CREATE ROW POLICY IF NOT EXISTS obtrace_tenant ON obtrace.spans USING tenant = getSetting('SQL_tenant_id') TO 'reader'"
        );
        assert!(statements[13..].iter().all(|statement| statement.starts_with("GRANT SELECT ON obtrace.")));
        assert_eq!(
            expiry(&Layout::Single, "query_log", 14),
            "ALTER TABLE IF EXISTS system.query_log MODIFY TTL event_date + INTERVAL 14 DAY"
        );
    }
}
