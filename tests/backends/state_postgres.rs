//! State in Postgres beyond the contract: the wall between tenants, migrations, and a database that is away or slow.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use obtrace::backends::state::migrate::{self, Place, STEPS};
use obtrace::backends::state::postgres::{PgSettings, PgState};
use obtrace::backends::state::statements::{self, Statement, Who};
use obtrace::backends::state::{KeyUse, StateStore};
use obtrace::domain::deploy::{Deploy, DeployQuery};
use obtrace::domain::failure::FailureClass;
use obtrace::domain::usage::{Day, Usage, UsageRow};
use obtrace::domain::versions::VersionSeen;
use tokio::runtime::Handle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Transaction};

use crate::pg::{self, Database};
use crate::proxy::{Mode, Proxy};
use crate::services::{self, Private};

fn state(settings: &PgSettings) -> PgState {
    PgState::new(settings, Handle::current()).expect("settings")
}

async fn database() -> Database {
    Database::fresh(&services::postgres()).await
}

fn marker() -> Deploy {
    Deploy { service: "cart".into(), version: "1".into(), at_ms: 10, who: "ci".into() }
}

fn version() -> VersionSeen {
    VersionSeen { tenant: "a".into(), service: "cart".into(), version: "1".into(), at_ms: 10 }
}

fn total(tenant: &str) -> UsageRow {
    let usage = Usage { spans: 1, bytes: 1, ..Usage::default() };
    UsageRow { tenant: tenant.into(), day: Day(1), source: "p".into(), usage }
}

// === the wall ===

/// Tables with a tenant column that row-level security does not hold, as the catalogue knows them.
async fn unprotected(admin: &Client) -> Vec<String> {
    let rows = admin
        .query(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped \
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND NOT ( \
               c.relrowsecurity AND c.relforcerowsecurity AND EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = c.oid \
                 AND p.polwithcheck IS NOT NULL AND p.polroles = ARRAY['obtrace_app'::regrole::oid])) ORDER BY 1",
            &[],
        )
        .await
        .expect("catalogue");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn every_table_with_a_tenant_column_is_behind_the_wall() {
    let database = database().await;
    let admin = pg::connect(&database.admin_url()).await;
    assert_eq!(unprotected(&admin).await, [""; 0]);
    let open_to_books = "SELECT count(*) FROM pg_policy p JOIN pg_roles r ON r.oid = ANY (p.polroles) \
        WHERE r.rolname = 'obtrace_books' AND (p.polcmd NOT IN ('r', 'd') OR p.polwithcheck IS NOT NULL)";
    assert_eq!(
        admin.query_one(open_to_books, &[]).await.unwrap().get::<_, i64>(0),
        0,
        "the books write nothing"
    );

    // The look at the catalogue finds each way to forget it.
    admin.batch_execute("SET search_path = obtrace; CREATE TABLE forgotten (tenant text)").await.unwrap();
    assert_eq!(unprotected(&admin).await, ["obtrace.forgotten"].map(|t| t.trim_start_matches("obtrace.")));
    admin.batch_execute("ALTER TABLE forgotten ENABLE ROW LEVEL SECURITY").await.unwrap();
    assert_eq!(unprotected(&admin).await.len(), 1, "not forced: its owner sees all");
    admin.batch_execute("ALTER TABLE forgotten FORCE ROW LEVEL SECURITY").await.unwrap();
    assert_eq!(unprotected(&admin).await.len(), 1, "no policy checks what is written");
    admin
        .batch_execute(
            "CREATE POLICY own ON forgotten TO obtrace_app USING (tenant = 'a') WITH CHECK (tenant = 'a')",
        )
        .await
        .unwrap();
    assert!(unprotected(&admin).await.is_empty());
    admin.batch_execute("CREATE VIEW past AS SELECT tenant FROM usage").await.unwrap();
    assert_eq!(unprotected(&admin).await, ["past"], "a view reads with the rights of its owner");
}

/// Begins a transaction as a process does.
async fn begin<'c>(client: &'c mut Client, role: &str, tenant: Option<&str>) -> Transaction<'c> {
    let tx = client.transaction().await.expect("begin");
    tx.batch_execute(&format!("SET LOCAL ROLE {role}; SET LOCAL search_path = obtrace")).await.expect("role");
    if let Some(tenant) = tenant {
        tx.execute("SELECT set_config('obtrace.tenant', $1, true)", &[&tenant]).await.expect("tenant");
    }
    tx
}

/// Runs a statement with values that would meet a row of tenant `a`; how many rows it saw or touched, or the SQLSTATE.
async fn meets(tx: &Transaction<'_>, statement: Statement) -> Result<u64, String> {
    let run = async {
        let prepared = tx.prepare(statement.text).await?;
        let texts = ["a", "cart", "1", "ci", "p"];
        let mut text = texts.iter();
        // Times and days: all of them, whichever side of the comparison.
        let numbers: Vec<i64> =
            (0..prepared.params().len() as i64).map(|n| if n == 2 { 0 } else { 100 }).collect();
        let values: Vec<&(dyn ToSql + Sync)> = prepared
            .params()
            .iter()
            .zip(&numbers)
            .map(|(ty, number)| match *ty {
                Type::TEXT => text.next().expect("enough texts") as &(dyn ToSql + Sync),
                _ => number as &(dyn ToSql + Sync),
            })
            .collect();
        // Days are compared for equality: the row of the test is of day 1.
        let day: &(dyn ToSql + Sync) = &1_i64;
        let values = if statement == statements::READ_USAGE { vec![day] } else { values };
        tx.execute(&prepared, &values).await
    };
    run.await.map_err(|error: tokio_postgres::Error| {
        error.code().map_or(error.to_string(), |c| c.code().to_owned())
    })
}

#[tokio::test]
async fn every_statement_as_a_foreign_tenant_meets_nothing() {
    let database = database().await;
    let store = state(&database.settings("obtrace_app"));
    store.put_usage(vec![total("a")]).await.unwrap();
    store.put_deploy("a", marker()).await.unwrap();
    store.note_versions(vec![version()]).await.unwrap();
    let mut client = pg::connect(&database.url("obtrace_app")).await;
    let denied = |result: &Result<u64, String>| matches!(result, Ok(0)) || result == &Err("42501".into());
    for (name, statement) in statements::ALL.iter().filter(|(_, statement)| statement.who != Who::Process) {
        for tenant in [Some("b"), Some(""), Some("A"), Some("a%"), None] {
            let tx = begin(&mut client, "obtrace_app", tenant).await;
            let met = meets(&tx, *statement).await;
            assert!(denied(&met), "{name} as {tenant:?}: {met:?}");
            tx.rollback().await.unwrap();
        }
        // The same values do meet the row of their own tenant, so that the above says something.
        let role = if statement.who == Who::Books { "obtrace_books" } else { "obtrace_app" };
        let tx = begin(&mut client, role, Some("a")).await;
        let met = meets(&tx, *statement).await;
        assert!(met.is_ok() && (met != Ok(0) || *name == "put_deploy"), "{name} as its own tenant: {met:?}");
        tx.rollback().await.unwrap();
    }
    // Tables of the process have no rows of tenants to see.
    for (name, statement) in statements::ALL.iter().filter(|(_, statement)| statement.who == Who::Process) {
        assert!(
            !["usage ", "deploys ", "versions "].iter().any(|table| statement.text.contains(table)),
            "{name}"
        );
    }
    assert_eq!(store.usage(Day(1)).await.unwrap(), [total("a")], "nothing was changed");
}

#[tokio::test]
async fn the_keeper_of_the_books_reads_usage_removes_what_is_old_and_no_more() {
    let database = database().await;
    let store = state(&database.settings("obtrace_app"));
    store.put_usage(vec![total("a"), total("b")]).await.unwrap();
    store.put_deploy("a", marker()).await.unwrap();
    store.note_versions(vec![version()]).await.unwrap();
    let mut client = pg::connect(&database.url("obtrace_app")).await;
    for text in [
        "INSERT INTO usage VALUES ('a', 1, 'x', 1, 1, 1, 1)",
        "UPDATE usage SET spans = 0",
        "SELECT service FROM deploys",
        "UPDATE deploys SET who = 'x'",
        "SELECT service FROM versions",
        "UPDATE versions SET changed = 1",
        "SELECT name FROM key_uses",
        "CREATE TABLE mine (x int)",
        "DROP TABLE usage",
        "ALTER TABLE usage NO FORCE ROW LEVEL SECURITY",
        "SET LOCAL ROLE obtrace_owner",
    ] {
        for role in ["obtrace_books", "obtrace_app"] {
            let tx = begin(&mut client, role, None).await;
            let result = tx.execute(text, &[]).await;
            let seen = result.as_ref().map_err(|error| error.code().map(|code| code.code().to_owned()));
            // What the app role may do, it does to no row: no tenant has been announced.
            let harmless = seen == Err(Some("42501".into()))
                || (role == "obtrace_app" && seen.is_ok_and(|rows| *rows == 0));
            assert!(harmless, "{text} as {role}: {result:?}");
            tx.rollback().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_transaction_leaves_no_tenant_behind_on_its_connection() {
    let database = database().await;
    let store = state(&PgSettings { pool: 1, ..database.settings("obtrace_app") });
    store.put_deploy("a", marker()).await.unwrap();
    let admin = pg::connect(&database.admin_url()).await;
    let pid = "SELECT pid FROM pg_stat_activity WHERE application_name = 'obtrace' AND datname = current_database()";
    let before: i32 = admin.query_one(pid, &[]).await.unwrap().get(0);
    let query = DeployQuery { service: None, from_ms: 0, until_ms: 99, after: None, most: 9 };
    assert!(store.deploys("b", query).await.unwrap().is_empty());
    assert_eq!(
        admin.query_one(pid, &[]).await.unwrap().get::<_, i32>(0),
        before,
        "it was the same connection"
    );
}

#[tokio::test]
async fn a_login_that_the_wall_does_not_bind_is_refused() {
    let database = database().await;
    for settings in [pg::settings(&database.admin_url()), database.settings("obtrace_migrate")] {
        let fault = state(&settings).check().await.unwrap_err();
        assert_eq!(fault.class, FailureClass::Config, "{fault}");
        assert!(fault.what.contains("log in as obtrace_app"), "{fault}");
    }
}

// === migrations ===

#[tokio::test]
async fn a_plan_says_what_is_to_come_and_of_many_who_migrate_one_applies() {
    let database = Database::bare(&services::postgres()).await;
    let place = database.place();
    let plan = migrate::plan(&place).await.unwrap();
    assert_eq!(plan.pending().count(), STEPS.len(), "{plan:?}");
    assert!(plan.store.starts_with("postgres t_"), "{plan:?}");
    let fault = state(&database.settings("obtrace_app")).check().await.unwrap_err();
    assert_eq!(fault.class, FailureClass::Config);
    assert!(fault.what.contains("obtrace migrate"), "{fault}");

    let runs = (0..4).map(|_| {
        let place = place.clone();
        tokio::spawn(async move { migrate::migrate(&place).await })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap().expect("all are well");
    }
    assert_eq!(migrate::plan(&place).await.unwrap().pending().count(), 0);
    state(&database.settings("obtrace_app")).check().await.expect("it works now");
    let owner =
        "SELECT count(*) FROM pg_tables WHERE schemaname = 'obtrace' AND tableowner <> 'obtrace_owner'";
    let admin = pg::connect(&database.admin_url()).await;
    assert_eq!(admin.query_one(owner, &[]).await.unwrap().get::<_, i64>(0), 0, "one role owns all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_make_roles_and_is_no_superuser_sets_a_database_up() {
    let server = Private::start("postgres");
    let database = Database::managed(&server.line("OBTRACE_TEST_POSTGRES")).await;
    migrate::migrate(&database.place()).await.expect("the schema");
    let store = state(&database.settings("obtrace_app"));
    store.check().await.expect("it works");
    store.put_usage(vec![total("a")]).await.unwrap();
    assert_eq!(store.usage(Day(1)).await.unwrap(), [total("a")]);
    let admin = pg::connect(&database.admin_url()).await;
    let rights = "SELECT pg_has_role('manager', 'obtrace_owner', 'USAGE')";
    assert!(!admin.query_one(rights, &[]).await.unwrap().get::<_, bool>(0), "the manager owns nothing of it");
}

#[tokio::test]
async fn another_text_is_refused_and_a_newer_schema_only_by_who_would_change_it() {
    let database = database().await;
    let admin = pg::connect(&database.admin_url()).await;
    let noted = "INSERT INTO obtrace.schema_migrations VALUES (99, 'later', 'x')";
    admin.batch_execute(noted).await.unwrap();
    state(&database.settings("obtrace_app")).check().await.expect("old and new run side by side");
    let fault = migrate::migrate(&database.place()).await.unwrap_err();
    assert!(fault.class == FailureClass::Config && fault.what.contains("newer obtrace"), "{fault}");
    admin
        .batch_execute("DELETE FROM obtrace.schema_migrations WHERE version = 99; UPDATE obtrace.schema_migrations SET checksum = 'x' WHERE version = 1")
        .await
        .unwrap();
    for fault in [
        migrate::migrate(&database.place()).await.unwrap_err(),
        state(&database.settings("obtrace_app")).check().await.unwrap_err(),
    ] {
        assert!(fault.class == FailureClass::Config && fault.what.contains("another text"), "{fault}");
    }
}

#[tokio::test]
async fn both_dialects_have_the_same_tables_and_columns_and_take_every_statement() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("state.db");
    let place = Place::Sqlite(file.clone());
    assert_eq!(migrate::plan(&place).await.unwrap().pending().count(), STEPS.len());
    assert!(!file.exists(), "a plan changes nothing");
    migrate::migrate(&place).await.unwrap();
    assert_eq!(migrate::plan(&place).await.unwrap().pending().count(), 0);

    let lite = rusqlite::Connection::open(&file).unwrap();
    let columns = "SELECT m.name || '.' || c.name FROM sqlite_schema m, pragma_table_info(m.name) c WHERE m.type = 'table'";
    let mut read = lite.prepare(columns).unwrap();
    let of_sqlite: BTreeSet<String> =
        read.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let database = database().await;
    let mut client = pg::connect(&database.url("obtrace_app")).await;
    let admin = pg::connect(&database.admin_url()).await;
    let columns = "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'obtrace'";
    let of_postgres = admin.query(columns, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(of_sqlite, of_postgres);
    for (name, statement) in statements::ALL {
        let parameters = lite.prepare(statement.text).map(|found| found.parameter_count());
        let role = if statement.who == Who::Books { "obtrace_books" } else { "obtrace_app" };
        let tx = begin(&mut client, role, Some("a")).await;
        let prepared = tx.prepare(statement.text).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(
            parameters.unwrap_or_else(|error| panic!("{name}: {error}")),
            prepared.params().len(),
            "{name}"
        );
    }
}

// === a database that is away, slow or in dispute ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_is_a_dependency_that_is_down_and_comes_back() {
    let database = database().await;
    let proxy = Proxy::start(&database.host());
    let short = Duration::from_secs(2);
    let url = proxy.in_front_of(&database.url("obtrace_app"));
    let store = state(&PgSettings { timeout: short, connect_timeout: short, ..pg::settings(&url) });
    proxy.set(Mode::Reset);
    let fault = store.check().await.unwrap_err();
    assert_eq!(fault.class, FailureClass::Dependency, "down from the start: {fault}");
    proxy.set(Mode::Pass);
    store.check().await.expect("it is there now");
    for mode in [Mode::Reset, Mode::HalfOpen] {
        proxy.set(mode);
        for _ in 0..3 {
            let begun = Instant::now();
            let fault = store.check().await.unwrap_err();
            assert_eq!(fault.class, FailureClass::Dependency, "{mode:?}: {fault}");
            assert!(begun.elapsed() < short * 2, "{mode:?}: a deadline holds");
        }
        proxy.set(Mode::Pass);
        let back = async { while store.check().await.is_err() {} };
        tokio::time::timeout(Duration::from_secs(20), back).await.expect("it is back");
    }
    proxy.set(Mode::Latency(Duration::from_millis(20)));
    store.check().await.expect("slow is not down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waits_for_a_lock_ends_by_its_deadline_and_frees_its_connection() {
    let database = database().await;
    let store =
        state(&PgSettings { pool: 1, timeout: Duration::from_secs(1), ..database.settings("obtrace_app") });
    store.check().await.unwrap();
    let mut admin = pg::connect(&database.admin_url()).await;
    let lock = admin.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE obtrace.usage").await.unwrap();
    let fault = store.put_usage(vec![total("a")]).await.unwrap_err();
    assert!(fault.is_passing(), "{fault}");
    lock.rollback().await.unwrap();
    let back = async { while store.put_usage(vec![total("a")]).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), back).await.expect("the one connection is free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gets_no_connection_of_the_pool_hears_that_it_is_used_up() {
    let database = database().await;
    let store =
        state(&PgSettings { pool: 1, timeout: Duration::from_secs(2), ..database.settings("obtrace_app") });
    store.check().await.unwrap();
    let mut admin = pg::connect(&database.admin_url()).await;
    let lock = admin.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE obtrace.usage").await.unwrap();
    let first = tokio::spawn({
        let store = store.clone();
        async move { store.put_usage(vec![total("a")]).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let fault = store.check().await.unwrap_err();
    assert_eq!(fault.class, FailureClass::Overload, "{fault}");
    assert!(fault.what.contains("store.state.pool"), "{fault}");
    first.await.unwrap().expect_err("the lock was held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_a_deadlock_is_tried_again() {
    let database = database().await;
    let store = state(&database.settings("obtrace_app"));
    let used = |name: &str| KeyUse { name: name.into(), last_used_s: 5 };
    store.touch_keys(vec![used("a"), used("b")]).await.unwrap();
    let mut other = pg::connect(&database.url("obtrace_app")).await;
    let tx = begin(&mut other, "obtrace_app", None).await;
    tx.batch_execute("UPDATE key_uses SET last_used_s = 9 WHERE name = 'b'").await.unwrap();
    let again = {
        let store = store.clone();
        let uses = ["a", "b"].map(|name| KeyUse { name: name.into(), last_used_s: 7 });
        tokio::spawn(async move { store.touch_keys(uses.into()).await })
    };
    // It holds `a` and waits for `b`; who has waited longer when the ring closes loses.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let closed = tx.batch_execute("UPDATE key_uses SET last_used_s = 9 WHERE name = 'a'").await;
    closed.expect("the other one lost");
    tx.commit().await.unwrap();
    again.await.unwrap().expect("and was tried again");
    let uses = store.key_uses().await.unwrap();
    assert!(uses.iter().all(|used| used.last_used_s == 9), "{uses:?}");
    let admin = pg::connect(&database.admin_url()).await;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let counted = async {
        while admin.query_one(deadlocks, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), counted).await.expect("there was one");
}

#[tokio::test]
async fn a_wrong_password_is_for_the_operator() {
    let server = Private::start("postgres");
    let admin = server.line("OBTRACE_TEST_POSTGRES");
    let making = "CREATE ROLE obtrace_scram LOGIN PASSWORD 'right-word'";
    pg::connect(&admin).await.batch_execute(making).await.unwrap();
    let with = |word: &str| admin.replacen("postgres@", &format!("obtrace_scram:{word}@"), 1);
    pg::connect(&with("right-word")).await.batch_execute("SELECT 1").await.expect("the right one");
    let fault = state(&pg::settings(&with("secret-word"))).check().await.unwrap_err();
    assert_eq!(fault.class, FailureClass::Config, "{fault}");
    assert!(fault.what.contains("see to user and password"), "{fault}");
    assert!(!fault.what.contains("secret-word"), "{fault}");
}

#[tokio::test]
async fn a_wrong_database_or_url_is_for_the_operator() {
    let database = database().await;
    let good = database.url("obtrace_app");
    let elsewhere = format!("{}_not_there", good);
    let fault = state(&pg::settings(&elsewhere)).check().await.unwrap_err();
    assert_eq!(fault.class, FailureClass::Config, "{fault}");
    for url in ["", "http://x", "postgres://u:secret-word@h:notaport/d"] {
        let fault = PgState::new(&pg::settings(url), Handle::current()).unwrap_err();
        assert_eq!(fault.class, FailureClass::Config, "{url}: {fault}");
        assert!(!fault.what.contains("secret-word"), "{fault}");
    }
    assert!(!format!("{:?}", pg::settings(&good)).contains("test@"), "no password in Debug");
}
