//! The client of the telemetry store: Arrow rows in with a deduplication token, statements in and Arrow rows out.
//!
//! Stands on the `clickhouse` crate, which lets Arrow streams through in both directions, finds exceptions in the middle
//! of an answer and reads the summary; what it lacks is here: a bound on connections, a deadline on every call, several
//! nodes, and addresses that may change (the engine comes back on another port). What may fail: [`TelemetryError`].

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamEncoder;
use bytes::{Bytes, BytesMut};
use clickhouse::query::Query;
use clickhouse::{Client, Compression};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::uri::Scheme;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use super::dial::Dialer;
pub use super::error::TelemetryError;
use super::guard;
use super::nodes::{Node, Nodes};
use super::read::{QueryLimits, QueryResult, SqlRunner, StoreFailure};
use super::sql::Statement;
use crate::clock;

/// How long an unused connection is kept. Shorter than servers keep theirs, so that a request rarely meets a closing one.
const IDLE: Duration = Duration::from_secs(2);
/// How long a statement that only makes or changes tables may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(120);
/// Bytes from which a column is sent as a piece of its own instead of being copied together with its neighbours.
const OWN_PIECE: usize = 32 * 1024;
/// Rows and bytes of a block of one insert: larger than any call's, so that a call is one block and its token covers it.
const BLOCK_ROWS: &str = "1000000000";
const BLOCK_BYTES: &str = "4000000000";

/// What makes an insert one block that is dropped when repeated. That it is on disk when it is acknowledged is a setting of
/// the tables (`fsync_after_insert`, `fsync_part_directory`).
const INSERT_SETTINGS: &[(&str, &str)] = &[
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("min_insert_block_size_rows", BLOCK_ROWS),
    ("min_insert_block_size_bytes", BLOCK_BYTES),
    ("max_insert_block_size", BLOCK_ROWS),
    // Late data may touch any number of days.
    ("max_partitions_per_insert_block", "0"),
    // Merges build the indexes: measured, the total CPU is the same and the insert is answered sooner.
    ("materialize_skip_indexes_on_insert", "0"),
];

/// What an answer looks like, and that a statement changes nothing.
const QUERY_SETTINGS: &[(&str, &str)] = &[
    // Nothing that it says itself changes a setting.
    ("readonly", "1"),
    // The summary is then complete, and an exception comes with its status.
    ("wait_end_of_query", "1"),
    ("output_format_arrow_string_as_string", "1"),
    ("output_format_arrow_fixed_string_as_fixed_byte_array", "1"),
    ("output_format_arrow_compression_method", "none"),
    ("result_overflow_mode", "throw"),
];

/// Where the store is and how it may be used.
#[derive(Clone)]
pub struct TelemetrySettings {
    /// Base URL of ClickHouse's HTTP interface; `None` until an engine has started, see [`TelemetryClient::set_endpoint`].
    pub url: Option<String>,
    /// Further nodes of the same store.
    pub more_urls: Vec<String>,
    /// Authorities to trust beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// User who writes, and asks where there is no `reader`.
    pub user: String,
    /// Password, empty for none.
    pub password: String,
    /// User and password who asks, held to one tenant a query by row policies.
    pub reader: Option<(String, String)>,
    /// Database of the tables.
    pub database: String,
    /// Requests at once; more wait for a place within their deadline.
    pub max_connections: usize,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Whether tables are spread over shards, and how many replicas have an insert before it is acknowledged (0: one).
    pub cluster: Option<u32>,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            url: None,
            more_urls: Vec::new(),
            ca_file: None,
            user: "default".into(),
            password: String::new(),
            reader: None,
            database: "obtrace".into(),
            max_connections: 8,
            connect_timeout: Duration::from_secs(5),
            cluster: None,
        }
    }
}

impl std::fmt::Debug for TelemetrySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TelemetrySettings({:?} {:?}, database {:?})", self.url, self.more_urls, self.database)
    }
}

/// What an insert did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InsertStats {
    /// Rows sent. A repeated token has them acknowledged without being stored again.
    pub rows: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Time from the call to the answer.
    pub elapsed: Duration,
}

/// A client of the telemetry store. Shared by reference; its address may change at any time.
pub struct TelemetryClient {
    base: Client,
    database: String,
    cluster: Option<u32>,
    target: ArcSwapOption<Nodes>,
    places: Semaphore,
    /// What damage the store told of last.
    damage: watch::Sender<String>,
}

impl std::fmt::Debug for TelemetryClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "TelemetryClient(database {:?}, {} places free)",
            self.database,
            self.places.available_permits()
        )
    }
}

impl TelemetryClient {
    /// A client. Does not connect.
    ///
    /// # Errors
    /// [`TelemetryError::Address`] for a URL that cannot be one, [`TelemetryError::Tls`] for authorities that cannot be read,
    /// [`TelemetryError::Malformed`] for a database name other than letters, digits and `_`.
    pub fn new(settings: TelemetrySettings) -> Result<Self, TelemetryError> {
        let dialer = Dialer::new(settings.ca_file.as_deref(), settings.connect_timeout)?;
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(settings.max_connections)
            .build(dialer);
        let base = Client::with_http_client(http)
            .with_compression(Compression::None)
            .with_product_info("obtrace", env!("CARGO_PKG_VERSION"));
        identifier(&settings.database)?;
        let client = Self {
            base,
            database: settings.database.clone(),
            cluster: settings.cluster,
            target: ArcSwapOption::empty(),
            damage: watch::Sender::default(),
            places: Semaphore::new(settings.max_connections.max(1)),
        };
        for url in settings.url.iter().chain(&settings.more_urls) {
            check_address(url)?;
        }
        if settings.url.is_some() {
            client.open(&settings);
        }
        Ok(client)
    }

    /// The database of the tables.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Changes each time the store tells that its own data are damaged, to what it told.
    pub fn damage(&self) -> watch::Receiver<String> {
        self.damage.subscribe()
    }

    fn note(&self, error: TelemetryError) -> TelemetryError {
        if error.is_damage() {
            self.damage.send_replace(error.to_string());
        }
        error
    }

    /// Points at the nodes and users of `settings` from the next call on. Calls under way end where they began.
    pub fn open(&self, settings: &TelemetrySettings) {
        let login = |url: &String, user: &str, password: &str| {
            self.base.clone().with_url(url).with_user(user).with_password(password)
        };
        let node = |url: &String| {
            let writer = login(url, &settings.user, &settings.password);
            let reader = settings.reader.as_ref().map(|(user, password)| login(url, user, password));
            Node::new(url.clone(), writer.clone(), reader.unwrap_or(writer))
        };
        let nodes = settings.url.iter().chain(&settings.more_urls).map(node).collect();
        self.target.store(Some(Arc::new(Nodes::new(nodes, settings.reader.is_some()))));
    }

    /// [`Self::open`] for one node and one user.
    pub fn set_endpoint(&self, url: &str, user: &str, password: &str) {
        self.open(&TelemetrySettings {
            url: Some(url.to_owned()),
            user: user.to_owned(),
            password: password.to_owned(),
            ..TelemetrySettings::default()
        });
    }

    /// Stores rows as one block under a token: a block with the same token is stored once, however often it is sent.
    /// When this returns the rows are on disk.
    ///
    /// # Errors
    /// Any [`TelemetryError`]. After [`TelemetryError::Deadline`] and [`TelemetryError::Unreachable`] the rows may be stored
    /// or not: send them again under the same token.
    pub async fn insert(
        &self,
        table: &str,
        batches: &[RecordBatch],
        token: &str,
        deadline: Duration,
    ) -> Result<InsertStats, TelemetryError> {
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let Some(first) = batches.first().filter(|_| rows > 0) else { return Ok(InsertStats::default()) };
        let begun = clock::now();
        let until = begun + deadline;
        let names: Result<Vec<&str>, _> =
            first.schema_ref().fields().iter().map(|field| identifier(field.name())).collect();
        let (table, columns) = (identifier(table)?, names?.join(", "));
        let body = encode(batches)?;
        let bytes = body.iter().map(|piece| piece.len() as u64).sum();

        let (nodes, _place) = self.place(deadline, until).await?;
        let node = nodes.for_token(token).ok_or(TelemetryError::NoEndpoint)?;
        let client = self.inserting(&node.writer, token, deadline);
        let sql = format!("INSERT INTO {table} ({columns}) FORMAT ArrowStream");
        // The crate waits for the answer in a task of its own; its own timeouts end that task, ours would only leave it.
        let left = until.saturating_duration_since(clock::now());
        let mut insert = client.insert_formatted_with(sql).with_timeouts(Some(left), Some(left));
        let sent = async {
            for piece in body {
                insert.send(piece).await?;
            }
            insert.end().await
        };
        let late = || TelemetryError::Deadline { what: "an insert", after: deadline };
        let result = match timeout_at(until + IDLE, sent).await {
            Err(_) | Ok(Err(clickhouse::error::Error::TimedOut)) => Err(late()),
            Ok(Err(error)) => Err(self.note(error.into())),
            Ok(Ok(())) => Ok(InsertStats { rows, bytes, elapsed: clock::now() - begun }),
        };
        node.ended(&result);
        result
    }

    /// A client with the settings of an insert.
    fn inserting(&self, client: &Client, token: &str, deadline: Duration) -> Client {
        let mut client = client.clone().with_database(&self.database);
        for (name, value) in INSERT_SETTINGS {
            client.set_setting(*name, *value);
        }
        if let Some(quorum) = self.cluster {
            // The answer comes when every shard has its rows, on as many replicas as are asked for.
            client.set_setting("distributed_foreground_insert", "1");
            if quorum > 1 {
                client.set_setting("insert_quorum", quorum.to_string());
            }
        }
        client.set_setting("insert_deduplication_token", token);
        client.set_setting("max_execution_time", seconds(deadline));
        client
    }

    /// Runs a statement that reads and returns its rows. `params` are the values of `{name:Type}` placeholders, escaped as
    /// `param_name` takes them; `settings` are the statement's own. It sees no rows of telemetry: those are a tenant's.
    ///
    /// # Errors
    /// Any [`TelemetryError`]; [`TelemetryError::ResultTooLarge`] where the answer goes beyond `limits`.
    pub async fn query(
        &self,
        sql: &str,
        params: &[(String, String)],
        settings: &[(&str, &str)],
        limits: QueryLimits,
        deadline: Duration,
    ) -> Result<QueryResult, TelemetryError> {
        let database = Some(self.database.as_str());
        self.ask(&Ask { database, tenant: None, sql, params, settings, limits }, deadline).await
    }

    /// As [`Self::query`], of the server's own tables: also where the database of Obtrace is not made yet.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub(super) async fn query_system(
        &self,
        sql: &str,
        limits: QueryLimits,
        deadline: Duration,
    ) -> Result<QueryResult, TelemetryError> {
        let ask = Ask { database: None, tenant: None, sql, params: &[], settings: &[], limits };
        self.ask(&ask, deadline).await
    }

    /// As [`Self::query`], for a tenant: the store shows its rows and no others, whatever the statement says.
    ///
    /// # Errors
    /// As [`Self::query`]; [`TelemetryError::Malformed`] where the statement could lift the wall between tenants.
    pub async fn query_for(
        &self,
        tenant: &str,
        sql: &str,
        params: &[(String, String)],
        settings: &[(&str, &str)],
        limits: QueryLimits,
        deadline: Duration,
    ) -> Result<QueryResult, TelemetryError> {
        guard::check(sql.as_bytes()).map_err(TelemetryError::Malformed)?;
        let database = Some(self.database.as_str());
        self.ask(&Ask { database, tenant: Some(tenant), sql, params, settings, limits }, deadline).await
    }

    /// Asks the nodes in turn until one answers or the time is over; one that is silent may take all of it, and rests then.
    async fn ask(&self, ask: &Ask<'_>, deadline: Duration) -> Result<QueryResult, TelemetryError> {
        let begun = clock::now();
        let until = begun + deadline;
        let (nodes, _place) = self.place(deadline, until).await?;
        let mut last = TelemetryError::NoEndpoint;
        for node in nodes.for_query() {
            let query = ask.on(&node.reader, nodes.tenant_setting, deadline);
            let answer = timeout_at(until, collect(query, ask.limits.max_result_bytes)).await;
            let late = Err(TelemetryError::Deadline { what: "a query", after: deadline });
            let answer = answer.unwrap_or(late);
            node.ended(&answer);
            match answer {
                Ok((body, mut result)) => {
                    if result.elapsed.is_zero() {
                        result.elapsed = clock::now() - begun;
                    }
                    result.batches = decode(body)?;
                    return Ok(result);
                }
                Err(error) if error.is_of_the_node() && clock::now() < until => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Asks for nothing but an answer.
    ///
    /// # Errors
    /// Any [`TelemetryError`].
    pub async fn ping(&self, deadline: Duration) -> Result<(), TelemetryError> {
        self.execute("SELECT 1 FORMAT Null", None, deadline).await
    }

    /// Runs a statement that returns no rows, in the database of the tables.
    ///
    /// # Errors
    /// Any [`TelemetryError`].
    pub async fn command(&self, sql: &str) -> Result<(), TelemetryError> {
        self.execute(sql, Some(&self.database), COMMAND_DEADLINE).await
    }

    /// Makes the database of the tables where it is missing, with `clause` behind its name.
    ///
    /// # Errors
    /// Any [`TelemetryError`].
    pub async fn create_database(&self, clause: &str) -> Result<(), TelemetryError> {
        let sql = format!("CREATE DATABASE IF NOT EXISTS {}{clause}", self.database);
        self.execute(&sql, None, COMMAND_DEADLINE).await
    }

    async fn execute(
        &self,
        sql: &str,
        database: Option<&str>,
        deadline: Duration,
    ) -> Result<(), TelemetryError> {
        let until = clock::now() + deadline;
        let (nodes, _place) = self.place(deadline, until).await?;
        // Commands go to one node as long as it is well, so that what one makes the next one sees.
        let node = nodes.for_token("").ok_or(TelemetryError::NoEndpoint)?;
        let client = database.into_iter().fold(node.writer.clone(), Client::with_database);
        let query = client.query_raw(sql).with_setting("max_execution_time", seconds(deadline));
        let late = TelemetryError::Deadline { what: "a command", after: deadline };
        let done = match timeout_at(until, query.execute()).await {
            Err(_) => Err(late),
            Ok(done) => done.map_err(TelemetryError::from),
        };
        node.ended(&done);
        done
    }

    /// The nodes of this moment and a place among the connections.
    async fn place(
        &self,
        deadline: Duration,
        until: Instant,
    ) -> Result<(Arc<Nodes>, SemaphorePermit<'_>), TelemetryError> {
        let place = timeout_at(until, self.places.acquire()).await;
        // The semaphore is never closed, so the only failure is the time.
        let Ok(Ok(place)) = place else { return Err(TelemetryError::Busy(deadline)) };
        let nodes = self.target.load_full().ok_or(TelemetryError::NoEndpoint)?;
        Ok((nodes, place))
    }
}

impl SqlRunner for TelemetryClient {
    fn run(
        &self,
        statement: Statement,
        limits: QueryLimits,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<QueryResult, StoreFailure>> {
        async move {
            let (tenant, params, settings) = (statement.tenant(), statement.params(), statement.settings());
            let answer = self.query_for(tenant, statement.sql(), params, settings, limits, deadline).await;
            Ok(answer.map_err(|error| self.note(error))?)
        }
        .boxed()
    }
}

/// One question to the store.
struct Ask<'a> {
    /// Where names without a database are looked up; none is the user's own default.
    database: Option<&'a str>,
    tenant: Option<&'a str>,
    sql: &'a str,
    params: &'a [(String, String)],
    settings: &'a [(&'a str, &'a str)],
    limits: QueryLimits,
}

impl Ask<'_> {
    fn on(&self, client: &Client, tenant_setting: bool, deadline: Duration) -> Query {
        let mut client = self.database.into_iter().fold(client.clone(), Client::with_database);
        if let Some(tenant) = self.tenant {
            client = client.with_header(guard::TENANT_HEADER, tenant);
        }
        let mut query = client.query_raw(self.sql);
        if let Some(tenant) = self.tenant.filter(|_| tenant_setting) {
            query = query.with_setting(guard::TENANT_SETTING, tenant);
        }
        for (name, value) in QUERY_SETTINGS.iter().chain(self.settings) {
            query = query.with_setting(*name, *value);
        }
        for (name, value) in self.params {
            query = query.with_setting(format!("param_{name}"), value);
        }
        query
            .with_setting("max_execution_time", seconds(deadline))
            .with_setting("max_rows_to_read", self.limits.max_rows_to_read.to_string())
            .with_setting("max_bytes_to_read", self.limits.max_bytes_to_read.to_string())
            .with_setting("max_result_rows", self.limits.max_result_rows.to_string())
            .with_setting("max_memory_usage", self.limits.max_memory_bytes.to_string())
            .with_setting("max_result_bytes", self.limits.max_result_bytes.to_string())
    }
}

/// Reads an answer to its end, or to the point where it is too much.
async fn collect(query: Query, limit: u64) -> Result<(Vec<u8>, QueryResult), TelemetryError> {
    let mut cursor = query.fetch_bytes("ArrowStream")?;
    let mut body = Vec::new();
    while let Some(chunk) = cursor.next().await? {
        // What is on the wire is framed and padded, so a result at the store's own limit still passes.
        if (body.len() + chunk.len()) as u64 > limit.saturating_mul(2) {
            return Err(TelemetryError::ResultTooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    let mut result = QueryResult::default();
    if let Some(summary) = cursor.summary() {
        result.rows_read = summary.read_rows().unwrap_or(0);
        result.bytes_read = summary.read_bytes().unwrap_or(0);
        result.elapsed = Duration::from_nanos(summary.elapsed_ns().unwrap_or(0));
    }
    Ok((body, result))
}

/// An Arrow stream of batches with the same schema, in pieces.
fn encode(batches: &[RecordBatch]) -> Result<Vec<Bytes>, TelemetryError> {
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let mut stream = StreamEncoder::try_new(first.schema_ref())?;
    let mut pieces = Pieces::default();
    for batch in batches {
        pieces.put(stream.encode(batch)?);
    }
    pieces.put(stream.finish()?);
    Ok(pieces.end())
}

/// What is sent, in order: large buffers as they stand in the batches, uncopied, and small ones put together.
#[derive(Default)]
struct Pieces {
    done: Vec<Bytes>,
    small: BytesMut,
}

impl Pieces {
    fn put(&mut self, buffers: Vec<Buffer>) {
        for buffer in buffers {
            if buffer.len() < OWN_PIECE {
                self.small.extend_from_slice(&buffer);
            } else {
                self.close();
                self.done.push(Bytes::from_owner(buffer));
            }
        }
    }

    fn close(&mut self) {
        if !self.small.is_empty() {
            self.done.push(self.small.split().freeze());
        }
    }

    fn end(mut self) -> Vec<Bytes> {
        self.close();
        self.done
    }
}

fn decode(body: Vec<u8>) -> Result<Vec<RecordBatch>, TelemetryError> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    Ok(StreamReader::try_new(Cursor::new(body), None)?.collect::<Result<_, _>>()?)
}

/// Whole seconds, rounded up: 0 would mean without a limit.
fn seconds(deadline: Duration) -> String {
    deadline.as_secs().saturating_add(1).to_string()
}

/// A name that needs no quotes.
fn identifier(name: &str) -> Result<&str, TelemetryError> {
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if begins && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(name);
    }
    Err(TelemetryError::Malformed(format!("{name:?} is no name of a table, column or database")))
}

fn known_scheme(scheme: &Scheme) -> bool {
    [Scheme::HTTP, Scheme::HTTPS].contains(scheme)
}

fn check_address(url: &str) -> Result<(), TelemetryError> {
    let reason = match url.parse::<http::Uri>() {
        Ok(uri) if uri.scheme().is_some_and(known_scheme) && uri.host().is_some() => return Ok(()),
        _ => "write it as http://HOST:PORT or https://HOST:PORT",
    };
    Err(TelemetryError::Address { url: url.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::failure::{Classified, FailureClass};

    fn settings(url: Option<&str>) -> TelemetrySettings {
        TelemetrySettings {
            url: url.map(str::to_owned),
            password: "secret".into(),
            max_connections: 1,
            connect_timeout: Duration::from_millis(200),
            ..TelemetrySettings::default()
        }
    }

    #[test]
    fn addresses_and_names_are_checked_before_use() {
        assert!(TelemetryClient::new(settings(Some("https://store:8443"))).is_ok());
        for bad in ["store:8123", "ftp://x", "", "http://"] {
            let error = TelemetryClient::new(settings(Some(bad))).unwrap_err();
            assert_eq!(error.class(), FailureClass::Config, "{bad}: {error}");
        }
        let named = |database: &str| {
            TelemetryClient::new(TelemetrySettings { database: database.into(), ..settings(None) })
        };
        assert!(named("ob_trace1").is_ok());
        for bad in ["a b", "a`b", "", "1a", "a;drop"] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn small_and_large_columns_come_out_as_they_went_in() {
        use arrow_array::{ArrayRef, Int64Array, StringArray};
        let batch = |rows: i64| {
            let text: StringArray = (0..rows).map(|n| Some(format!("value {n}"))).collect();
            let columns: [(&str, ArrayRef); 2] =
                [("n", Arc::new(Int64Array::from_iter_values(0..rows))), ("text", Arc::new(text))];
            RecordBatch::try_from_iter(columns).unwrap()
        };
        let batches = [batch(3), batch(20_000), batch(0), batch(5)];
        let pieces = encode(&batches).unwrap();
        let owned = pieces.iter().filter(|piece| piece.len() >= OWN_PIECE).count();
        assert_eq!(owned, 3, "the two columns of the large batch, of which text has two buffers");
        assert!(pieces.len() <= 2 * owned + 1, "{} pieces", pieces.len());
        assert_eq!(decode(pieces.concat()).unwrap(), batches);
        assert!(encode(&[]).unwrap().is_empty());
    }

    #[test]
    fn secrets_do_not_show() {
        let client = TelemetryClient::new(settings(Some("http://127.0.0.1:1"))).unwrap();
        assert!(!format!("{client:?} {:?}", settings(None)).contains("secret"));
    }

    #[tokio::test]
    async fn a_store_that_is_not_there_is_a_dependency() {
        let client = TelemetryClient::new(settings(None)).unwrap();
        let deadline = Duration::from_secs(5);
        assert_eq!(client.ping(deadline).await, Err(TelemetryError::NoEndpoint));
        client.set_endpoint("http://127.0.0.1:1", "default", "");
        let error = client.ping(deadline).await.unwrap_err();
        assert!(matches!(error, TelemetryError::Unreachable(_)), "{error}");
        assert_eq!(error.class(), FailureClass::Dependency);
    }

    #[tokio::test]
    async fn a_silent_store_costs_no_more_than_the_deadline() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = TelemetryClient::new(settings(Some(&url))).unwrap();
        let short = Duration::from_millis(50);
        let (first, second) = tokio::join!(client.ping(short), client.ping(short));
        assert!(matches!(first, Err(TelemetryError::Deadline { .. })), "{first:?}");
        // There is one place, and the first call had it until both were late.
        assert!(
            matches!(second, Err(TelemetryError::Busy(_) | TelemetryError::Deadline { .. })),
            "{second:?}"
        );
    }
}
