//! State in Postgres: a pool of connections, and a transaction a call that says under what it runs before anything else.
//!
//! In: calls from any thread. Out: answers once the transaction is committed. Each transaction takes a role, and where
//! its rows belong to a tenant it announces that tenant, for itself alone (`SET LOCAL`), so that no right and no row of one
//! call is left on a connection for the next. Named prepared statements are: a pooler in between has to keep them. Before
//! the first call the wall is looked at: a login that row-level security does not bind, or a schema that is not up to
//! date, is refused (`open::check`). What may fail: see `fault::fault_of`; the database may be down at the start and at any
//! time after.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use deadpool_postgres::{Client, Object, Pool, Transaction};
use futures_util::future::{BoxFuture, try_join_all};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Error, Row};

use super::statements::{self, Statement, Who};
use super::{Answer, KeyUse, PORT, StateStore, after, in_order, signed, unsigned};
use crate::backends::fault::PortFault;
use crate::backends::remote::Remote;
use crate::domain::deploy::{Deploy, DeployQuery};
use crate::domain::failure::FailureClass;
use crate::domain::usage::{Day, Usage, UsageRow};
use crate::domain::versions::VersionSeen;

mod fault;
mod last_words;
pub mod migrate;
mod open;
mod tls;

pub use fault::class_of;

/// Tries of a transaction that met another one.
const TRIES: u32 = 4;
/// Rows that are on their way to the server at once.
const PIPELINE: usize = 256;

/// How to reach a database.
#[derive(Clone, PartialEq, Eq)]
pub struct PgSettings {
    /// `postgres://user:password@host:port/database`; several hosts may be named, the one that takes writes is used.
    pub url: String,
    /// Most connections.
    pub pool: usize,
    /// Longest wait for a connection to be made.
    pub connect_timeout: Duration,
    /// Longest that one call takes; the server is told to give up by then too.
    pub timeout: Duration,
    /// TLS, or `None` for none at all.
    pub tls: Option<PgTls>,
}

/// What TLS to the database needs beyond the certificates of the system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PgTls {
    /// Certificates of the authority that signed the server's, as a PEM file; those of the system do not count then.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key, as PEM files.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for PgSettings {
    /// Without the URL: it has a password in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, timeout, tls, .. } = self;
        write!(f, "PgSettings(pool {pool}, timeout {timeout:?}, tls {tls:?})")
    }
}

/// State in a Postgres database. Cheap to clone.
#[derive(Clone)]
pub struct PgState {
    pool: Pool,
    remote: Remote,
    /// What every transaction says to the server after its role: where the tables are, and how long things may take.
    timeouts: Arc<str>,
    open: Arc<OnceCell<()>>,
    /// Brings the schema up to date first, as its owner.
    migrates: Option<Arc<PgSettings>>,
}

impl fmt::Debug for PgState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PgState({:?})", self.pool.status())
    }
}

/// What a transaction does. It may run several times: nothing holds until its commit.
type Work<T> = dyn for<'t> Fn(&'t Transaction<'_>) -> BoxFuture<'t, Result<T, Error>> + Send + Sync;

impl PgState {
    /// State in the database of `settings`, by connections on `io`. Connects at the first call.
    ///
    /// # Errors
    /// [`PortFault`] of class `Config`: a URL or a certificate that is no such thing.
    pub fn new(settings: &PgSettings, io: Handle) -> Result<Self, PortFault> {
        let limit = settings.timeout.as_millis().max(1);
        Ok(Self {
            pool: open::pool(settings)?,
            remote: Remote { port: PORT, io, deadline: settings.timeout },
            timeouts: format!(
                "SET LOCAL search_path = obtrace; SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}; \
                 SET LOCAL idle_in_transaction_session_timeout = {limit}"
            )
            .into(),
            open: Arc::default(),
            migrates: None,
        })
    }

    /// Has the first call bring the schema up to date, by a login that may. What takes longer than one call is for
    /// `obtrace migrate`.
    #[must_use]
    pub fn migrating(self, owner: PgSettings) -> Self {
        Self { migrates: Some(Arc::new(owner)), ..self }
    }

    /// What comes before the first call.
    async fn get_ready(&self) -> Result<(), PortFault> {
        if let Some(owner) = &self.migrates {
            migrate::run(owner).await?;
        }
        open::check(&self.pool).await
    }

    /// Runs a transaction under `who`.
    fn run<T, F>(&self, who: Who, work: F) -> Answer<T>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t Transaction<'_>) -> BoxFuture<'t, Result<T, Error>> + Send + Sync + 'static,
    {
        let this = self.clone();
        self.remote.run(async move {
            this.open.get_or_try_init(|| this.get_ready()).await?;
            let opening = this.opening(who);
            let mut tries = 1;
            loop {
                let error = match this.attempt(&opening, &work).await? {
                    Ok(value) => return Ok(value),
                    Err(error) => error,
                };
                if !fault::met_another(&error) || tries == TRIES {
                    return Err(fault::fault_of(&error));
                }
                tracing::debug!(tries, %error, "a transaction met another one and is tried again");
                tokio::time::sleep(Duration::from_millis(rand::random_range(1..20 * u64::from(tries)))).await;
                tries += 1;
            }
        })
    }

    /// One try: the outer error is no connection, the inner one what the database says.
    async fn attempt<T>(&self, opening: &str, work: &Work<T>) -> Result<Result<T, Error>, PortFault> {
        let mut client = self.pool.get().await.map_err(|error| fault::fault_of_pool(&error))?;
        let done = transact(&mut client, opening, work).await;
        if done.as_ref().is_err_and(fault::spoils_connection) {
            // It does not go back to the pool.
            drop(Object::take(client));
        }
        Ok(done)
    }

    fn opening(&self, who: Who) -> String {
        let role = match who {
            Who::Tenant | Who::Process => "obtrace_app",
            Who::Books => "obtrace_books",
        };
        format!("SET LOCAL ROLE {role}; {}", self.timeouts)
    }

    /// Runs one statement for each row, in one transaction, each tenant's under that tenant.
    fn put_by_tenant(&self, statement: Statement, tenants: ByTenant) -> Answer<()> {
        let tenants = Arc::new(tenants);
        self.run(statement.who, move |tx| {
            let tenants = tenants.clone();
            Box::pin(async move {
                for (tenant, rows) in &*tenants {
                    announce(tx, tenant).await?;
                    execute_all(tx, statement, rows).await?;
                }
                Ok(())
            })
        })
    }

    /// Runs one statement and gives the number of rows it touched.
    fn execute(&self, statement: Statement, values: Vec<Value>) -> Answer<u64> {
        self.run(statement.who, move |tx| {
            let values = values.clone();
            Box::pin(async move {
                let prepared = tx.prepare_cached(statement.text).await?;
                tx.execute(&prepared, &bound(&values)).await
            })
        })
    }

    /// Reads rows; each is turned into a `T`.
    fn read<T: Send + 'static>(
        &self,
        statement: Statement,
        tenant: Option<Arc<str>>,
        values: Vec<Value>,
        turn: impl Fn(&Row) -> Result<T, Error> + Send + Sync + Copy + 'static,
    ) -> Answer<Vec<T>> {
        self.run(statement.who, move |tx| {
            let (values, tenant) = (values.clone(), tenant.clone());
            Box::pin(async move {
                if let Some(tenant) = &tenant {
                    announce(tx, tenant).await?;
                }
                let prepared = tx.prepare_cached(statement.text).await?;
                let rows = tx.query(&prepared, &bound(&values)).await?;
                rows.iter().map(turn).collect()
            })
        })
    }
}

async fn transact<T>(client: &mut Client, opening: &str, work: &Work<T>) -> Result<T, Error> {
    // Dropped half-way, it is rolled back before the connection does anything else.
    let tx = client.transaction().await?;
    tx.batch_execute(opening).await?;
    let value = work(&tx).await?;
    tx.commit().await?;
    Ok(value)
}

/// Names the tenant whose rows the transaction sees and writes, until its end.
async fn announce(tx: &Transaction<'_>, tenant: &str) -> Result<(), Error> {
    let set = tx.prepare_cached("SELECT set_config('obtrace.tenant', $1, true)").await?;
    tx.execute(&set, &[&tenant]).await.map(drop)
}

/// A parameter.
#[derive(Debug, Clone)]
enum Value {
    Text(Arc<str>),
    Number(i64),
}

impl ToSql for Value {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Text(text) => (&**text).to_sql(ty, out),
            Self::Number(number) => number.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        <&str as ToSql>::accepts(ty) || <i64 as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

fn bound(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

fn text(row: &Row, column: usize) -> Result<Arc<str>, Error> {
    row.try_get::<_, String>(column).map(Arc::from)
}

fn number(row: &Row, column: usize) -> Result<u64, Error> {
    row.try_get::<_, i64>(column).map(unsigned)
}

/// Rows to write, tenant by tenant.
type ByTenant = BTreeMap<Arc<str>, Vec<Vec<Value>>>;

/// The totals of each tenant, in an order that two writers share, so that they do not wait for each other in a ring.
fn by_tenant(rows: Vec<UsageRow>) -> ByTenant {
    let mut rows = rows;
    rows.sort_by(|a, b| (a.day, &a.source).cmp(&(b.day, &b.source)));
    let mut tenants = ByTenant::new();
    for UsageRow { tenant, day, source, usage } in rows {
        let counters = [usage.spans, usage.logs, usage.points, usage.bytes].map(signed).map(Value::Number);
        let mut values =
            vec![Value::Text(tenant.clone()), Value::Number(i64::from(day.0)), Value::Text(source)];
        values.extend(counters);
        tenants.entry(tenant).or_default().push(values);
    }
    tenants
}

/// The versions of each tenant.
fn versions_by_tenant(seen: Vec<VersionSeen>) -> ByTenant {
    let mut tenants = ByTenant::new();
    for VersionSeen { tenant, service, version, at_ms } in in_order(seen) {
        let [of, service, version] = [tenant.clone(), service, version].map(Value::Text);
        let at = Value::Number(signed(at_ms));
        tenants.entry(tenant).or_default().push(vec![of, service, version, at.clone(), at]);
    }
    tenants
}

/// Executes a statement once for each row of values, without a round trip for each.
async fn execute_all(tx: &Transaction<'_>, statement: Statement, rows: &[Vec<Value>]) -> Result<(), Error> {
    let prepared = tx.prepare_cached(statement.text).await?;
    for rows in rows.chunks(PIPELINE) {
        try_join_all(rows.iter().map(async |values| tx.execute(&prepared, &bound(values)).await)).await?;
    }
    Ok(())
}

impl StateStore for PgState {
    fn put_usage(&self, rows: Vec<UsageRow>) -> Answer<()> {
        self.put_by_tenant(statements::PUT_USAGE, by_tenant(rows))
    }

    fn usage(&self, day: Day) -> Answer<Vec<UsageRow>> {
        let values = vec![Value::Number(i64::from(day.0))];
        self.read(statements::READ_USAGE, None, values, move |row| {
            let count = |column| number(row, column);
            let usage = Usage { spans: count(2)?, logs: count(3)?, points: count(4)?, bytes: count(5)? };
            Ok(UsageRow { tenant: text(row, 0)?, day, source: text(row, 1)?, usage })
        })
    }

    fn forget_usage_before(&self, day: Day) -> Answer<u64> {
        self.execute(statements::FORGET_USAGE, vec![Value::Number(i64::from(day.0))])
    }

    fn touch_keys(&self, uses: Vec<KeyUse>) -> Answer<()> {
        let mut uses = uses;
        uses.sort_by(|a, b| a.name.cmp(&b.name));
        let rows = uses
            .into_iter()
            .map(|used| vec![Value::Text(used.name), Value::Number(signed(used.last_used_s))]);
        let rows: Arc<[Vec<Value>]> = rows.collect();
        self.run(statements::TOUCH_KEY.who, move |tx| {
            let rows = rows.clone();
            Box::pin(async move { execute_all(tx, statements::TOUCH_KEY, &rows).await })
        })
    }

    fn key_uses(&self) -> Answer<Vec<KeyUse>> {
        self.read(statements::READ_KEY_USES, None, Vec::new(), |row| {
            Ok(KeyUse { name: text(row, 0)?, last_used_s: number(row, 1)? })
        })
    }

    fn put_deploy(&self, tenant: &str, deploy: Deploy) -> Answer<bool> {
        let tenant: Arc<str> = tenant.into();
        let Deploy { service, version, at_ms, who } = deploy;
        let [service, version, who] = [service, version, who].map(Value::Text);
        let at = Value::Number(signed(at_ms));
        let values: Arc<[Value]> = [Value::Text(tenant.clone()), service, version, at, who].into();
        self.run(statements::PUT_DEPLOY.who, move |tx| {
            let (tenant, values) = (tenant.clone(), values.clone());
            Box::pin(async move {
                announce(tx, &tenant).await?;
                let prepared = tx.prepare_cached(statements::PUT_DEPLOY.text).await?;
                tx.execute(&prepared, &bound(&values)).await.map(|rows| rows == 1)
            })
        })
    }

    fn note_versions(&self, seen: Vec<VersionSeen>) -> Answer<()> {
        self.put_by_tenant(statements::NOTE_VERSION, versions_by_tenant(seen))
    }

    fn deploys(&self, tenant: &str, query: DeployQuery) -> Answer<Vec<Deploy>> {
        let tenant: Arc<str> = tenant.into();
        let (after_ms, names) = after(&query);
        let mut values = vec![
            Value::Text(tenant.clone()),
            Value::Text(query.service.unwrap_or_default()),
            Value::Number(signed(query.from_ms)),
            Value::Number(signed(query.until_ms)),
            Value::Number(signed(after_ms)),
        ];
        values.extend(names.map(Value::Text));
        values.push(Value::Number(i64::from(query.most)));
        self.read(statements::READ_DEPLOYS, Some(tenant), values, |row| {
            let at_ms = number(row, 2)?;
            Ok(Deploy { service: text(row, 0)?, version: text(row, 1)?, at_ms, who: text(row, 3)? })
        })
    }

    fn forget_deploys_before(&self, at_ms: u64) -> Answer<u64> {
        self.execute(statements::FORGET_DEPLOYS, vec![Value::Number(signed(at_ms))])
    }

    fn forget_versions_before(&self, at_ms: u64) -> Answer<u64> {
        self.execute(statements::FORGET_VERSIONS, vec![Value::Number(signed(at_ms))])
    }

    fn check(&self) -> Answer<()> {
        let id: Arc<str> = uuid::Uuid::now_v7().to_string().into();
        let probe = self.run(Who::Process, move |tx| {
            let id = id.clone();
            Box::pin(async move {
                let mut rows = 0;
                for statement in statements::PROBE {
                    let prepared = tx.prepare_cached(statement.text).await?;
                    rows += tx.execute(&prepared, &[&&*id]).await?;
                }
                Ok(rows)
            })
        });
        Box::pin(async move {
            match probe.await? {
                3 => Ok(()),
                rows => {
                    let what = format!("a row just written was not there ({rows} of 3)");
                    Err(PortFault::new(PORT, FailureClass::Dependency, what))
                }
            }
        })
    }
}
