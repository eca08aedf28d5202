//! The engine's threads: jobs over a bounded channel in, complete results or exceptions out, each within its deadline.
//!
//! Every job runs on a connection of its own, opened for it (0.25 ms): a session without leftovers of earlier settings,
//! databases or temporary tables. One more thread keeps the connection that holds the engine up, and cancels by `KILL QUERY`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::exception::{Exception, codes};
use super::ffi::{Connection, Library, Param, Stats};
use super::request::Request;
use super::sql::identifier;
use crate::clock;

/// Jobs that may wait for a thread; more are refused once their deadline passes.
const QUEUE: usize = 64;
/// Cancel orders that may wait.
const CANCEL_QUEUE: usize = 256;
/// ClickHouse's parsers and planner recurse: the usual 2 MiB are too few.
const STACK: usize = 8 << 20;
/// The largest result that is handed out, bytes.
pub const MAX_RESULT_BYTES: usize = 512 << 20;

/// A piece of an insert's data.
#[derive(Debug)]
pub enum Piece {
    /// Bytes in the insert's format.
    Data(Bytes),
    /// All data were sent: commit. A channel that closes without it cancels the insert.
    End,
}

/// What a job does.
#[derive(Debug)]
pub enum Work {
    /// Runs a statement, its inline data included.
    Query {
        /// The text.
        text: Vec<u8>,
        /// Output format where the text names none.
        format: String,
    },
    /// Streams data into an insert.
    Insert {
        /// The INSERT without FORMAT.
        head: Vec<u8>,
        /// Format of the data.
        format: String,
        /// The data.
        data: mpsc::Receiver<Piece>,
    },
}

/// One statement with its session.
#[derive(Debug)]
pub struct Job {
    /// Settings, database and parameters.
    pub request: Request,
    /// Refuse writes, as ClickHouse does for GET.
    pub read_only: bool,
    /// What to run.
    pub work: Work,
    /// When nobody waits for it any more.
    pub deadline: Instant,
}

/// The result of a job.
#[derive(Debug)]
pub struct Output {
    /// The formatted result; empty for writes.
    pub body: Bytes,
    /// What was read and written.
    pub stats: Stats,
}

/// The way to the engine's threads. Cloned freely; the threads end when the last clone is gone.
#[derive(Clone)]
pub struct Pool {
    jobs: mpsc::Sender<Task>,
    cancels: mpsc::Sender<Cancel>,
    numbers: Arc<AtomicU64>,
}

/// The threads of a pool, for an orderly end.
pub struct Threads {
    finished: std::sync::mpsc::Receiver<()>,
    workers: Vec<thread::JoinHandle<()>>,
}

struct Task {
    job: Job,
    marker: String,
    reply: oneshot::Sender<Result<Output, Exception>>,
}

enum Cancel {
    One(String),
    All,
}

/// Cancels the statement in the engine when the waiting side goes away before its answer.
struct CancelOnDrop<'p> {
    pool: &'p Pool,
    marker: Option<String>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(marker) = self.marker.take() {
            // a full queue means hundreds of cancels wait already; max_execution_time ends the statement then
            let _ = self.pool.cancels.try_send(Cancel::One(marker));
        }
    }
}

// === impl Pool ===

impl Pool {
    /// Starts the engine and `workers` threads.
    ///
    /// # Errors
    /// When the engine refuses to start, or the system gives no threads.
    pub fn start(
        library: &Arc<Library>,
        arguments: Vec<String>,
        workers: usize,
    ) -> Result<(Self, Threads), String> {
        let arguments = Arc::new(arguments);
        let keeper = library.connect(&arguments).map_err(|e| e.to_string())?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (cancels, orders) = mpsc::channel(CANCEL_QUEUE);
        let (done, finished) = std::sync::mpsc::sync_channel::<()>(1);
        let queue = Arc::new(Mutex::new(queue));
        let mut handles = Vec::new();
        for number in 0..workers {
            let (library, arguments, queue) =
                (Arc::clone(library), Arc::clone(&arguments), Arc::clone(&queue));
            let done = done.clone();
            let body = move || {
                work(&library, &arguments, &queue);
                drop(done);
            };
            handles.push(spawn(format!("engine-{number}"), body)?);
        }
        handles.push(spawn("engine-keeper".to_owned(), move || {
            keep(keeper, orders);
            drop(done);
        })?);
        Ok((Self { jobs, cancels, numbers: Arc::default() }, Threads { finished, workers: handles }))
    }

    /// Runs a job to its end or its deadline, whichever is first; in the latter case it is cancelled in the engine.
    ///
    /// # Errors
    /// ClickHouse's exception, `TIMEOUT_EXCEEDED` at the deadline, `TOO_MANY_SIMULTANEOUS_QUERIES` when no thread came free.
    pub async fn run(&self, job: Job) -> Result<Output, Exception> {
        let deadline = job.deadline;
        let marker = format!("q{}", self.numbers.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        let permit = match timeout_at(deadline, self.jobs.reserve()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(Exception::new(codes::NETWORK_ERROR, "the engine is shutting down")),
            Err(_) => {
                return Err(Exception::new(
                    codes::TOO_MANY_SIMULTANEOUS_QUERIES,
                    "no engine thread came free in time",
                ));
            }
        };
        permit.send(Task { job, marker: marker.clone(), reply });
        let mut guard = CancelOnDrop { pool: self, marker: Some(marker) };
        let result = timeout_at(deadline, answer).await;
        if result.is_ok() {
            guard.marker = None;
        }
        match result {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                Err(Exception::new(codes::QUERY_WAS_CANCELLED, "the statement was dropped unanswered"))
            }
            Err(_) => Err(Exception::new(
                codes::TIMEOUT_EXCEEDED,
                "Timeout exceeded: the statement was cancelled at its deadline",
            )),
        }
    }

    /// Cancels whatever runs; used at shutdown.
    pub fn cancel_all(&self) {
        let _ = self.cancels.try_send(Cancel::All);
    }
}

// === impl Threads ===

impl Threads {
    /// Waits until every thread has closed its connection; all [`Pool`] clones must be gone. False at the deadline.
    pub fn join(self, deadline: Duration) -> bool {
        // no thread ever sends: the channel reports "disconnected" when the last of them has ended
        let ended =
            self.finished.recv_timeout(deadline) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected);
        if ended {
            for worker in self.workers {
                let _ = worker.join();
            }
        }
        ended
    }
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>, String> {
    thread::Builder::new()
        .name(name)
        .stack_size(STACK)
        .spawn(body)
        .map_err(|e| format!("no thread for the engine: {e}"))
}

fn work(library: &Arc<Library>, arguments: &[String], queue: &Mutex<mpsc::Receiver<Task>>) {
    loop {
        // the lock is held while waiting: the other threads wait for the lock instead, which comes to the same
        let Some(task) = queue.lock().blocking_recv() else { return };
        if task.reply.is_closed() || task.job.deadline <= clock::now() {
            continue;
        }
        let Task { job, marker, reply } = task;
        let result = catch_unwind(AssertUnwindSafe(|| perform(library, arguments, job, &marker)));
        let result = result
            .unwrap_or_else(|_| Err(Exception::new(codes::LOGICAL_ERROR, "the engine thread panicked")));
        let _ = reply.send(result);
    }
}

fn perform(
    library: &Arc<Library>,
    arguments: &[String],
    job: Job,
    marker: &str,
) -> Result<Output, Exception> {
    let Job { request, read_only, work, .. } = job;
    let mut connection = library.connect(arguments)?;
    let database = request.database.as_deref().unwrap_or(super::DATABASE);
    connection.execute(&format!("USE {}", identifier(database)))?;
    connection.execute(&request.set_statement(read_only, marker))?;
    match work {
        Work::Query { text, format } => query(&mut connection, &text, &format, &request.params),
        Work::Insert { head, format, data } => insert(&mut connection, &head, &format, &request.params, data),
    }
}

fn query(
    connection: &mut Connection,
    text: &[u8],
    format: &str,
    params: &[Param],
) -> Result<Output, Exception> {
    check(connection, text)?;
    let (body, stats) = connection.query(text, format, params)?;
    if body.len() > MAX_RESULT_BYTES {
        return Err(Exception::new(
            codes::TOO_LARGE,
            format_args!("the result of {} bytes is over the limit of {MAX_RESULT_BYTES}", body.len()),
        ));
    }
    Ok(Output { body, stats })
}

/// Refuses what the grants cannot: several statements in one text, and statements that reach past the databases. The engine's
/// client side runs `INTO OUTFILE` with the rights of the process. Text that does not parse goes on, for its own error.
fn check(connection: &mut Connection, text: &[u8]) -> Result<(), Exception> {
    let classified = connection.classify(text);
    if classified.statements > 1 {
        return Err(Exception::new(codes::SYNTAX_ERROR, "Multi-statements are not allowed"));
    }
    if classified.control {
        return Err(Exception::new(
            codes::ACCESS_DENIED,
            "this kind of statement (session control, SYSTEM, BACKUP, KILL, files, table functions as targets) is not allowed over this interface",
        ));
    }
    if classified.statements == 0 && text.iter().all(u8::is_ascii_whitespace) {
        return Err(Exception::new(codes::SYNTAX_ERROR, "Syntax error: Empty query"));
    }
    Ok(())
}

fn insert(
    connection: &mut Connection,
    head: &[u8],
    format: &str,
    params: &[Param],
    mut data: mpsc::Receiver<Piece>,
) -> Result<Output, Exception> {
    let mut stream = connection.insert(head, format, params)?;
    loop {
        match data.blocking_recv() {
            Some(Piece::Data(bytes)) => stream.append(&bytes)?,
            Some(Piece::End) => break,
            None => {
                return Err(Exception::new(
                    codes::QUERY_WAS_CANCELLED,
                    "the data broke off, nothing was committed",
                ));
            }
        }
    }
    let stats = stream.finish()?;
    Ok(Output { body: Bytes::new(), stats })
}

/// Holds the first connection, and with it the engine, until every [`Pool`] is gone; carries out cancels meanwhile.
fn keep(mut connection: Connection, mut orders: mpsc::Receiver<Cancel>) {
    while let Some(order) = orders.blocking_recv() {
        let condition = match order {
            Cancel::One(marker) => format!("Settings['chdb_client_name'] = '{marker}'"),
            Cancel::All => "Settings['chdb_client_name'] != ''".to_owned(),
        };
        if let Err(error) = connection.execute(&format!("KILL QUERY WHERE {condition} ASYNC")) {
            tracing::warn!(%error, "a statement could not be cancelled");
        }
    }
}
