//! The engine as its owner sees it: a spec in, a running process with URL and secret out; it ends with its owner at the latest.
//!
//! What may fail: [`EngineError`]. Each child has a thread that starts it and lives until it has ended: `PR_SET_PDEATHSIG`
//! follows the *thread* that forks, so a short-lived one would take the engine down with it.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{DEFAULT_CONNECTIONS, DEFAULT_MEMORY_LIMIT, EngineError, Ready, new_secret};

/// How to start an engine.
#[derive(Debug, Clone)]
pub struct EngineSpec {
    /// The Obtrace binary; `None` is the running one.
    pub executable: Option<PathBuf>,
    /// Folder of this Obtrace.
    pub data_dir: PathBuf,
    /// The library, where it is not in the usual places.
    pub library: Option<PathBuf>,
    /// Bytes the engine may use.
    pub memory_limit: u64,
    /// Statements that run at the same time.
    pub connections: usize,
    /// How long a start may take; many parts on disk take longer.
    pub ready_within: Duration,
}

/// Where a ready engine is.
#[derive(Clone, PartialEq, Eq)]
pub struct EngineEndpoint {
    /// Base URL, `http://127.0.0.1:PORT`.
    pub url: String,
    /// Password of the user [`super::USER`].
    pub secret: String,
}

/// A running engine process. Dropping it kills the process; [`EngineChild::stop`] ends it in order.
pub struct EngineChild {
    pid: u32,
    secret: String,
    stdin: Option<ChildStdin>,
    process: Arc<Mutex<Child>>,
    state: watch::Receiver<State>,
    last_lines: LastLines,
}

/// A hold on an engine process that outlives whoever started it: lets a successor end it.
#[derive(Debug, Clone)]
pub struct EngineGrip {
    process: Arc<Mutex<Child>>,
}

impl EngineGrip {
    /// Kills the process, if it still runs. Its owner thread reaps it.
    pub fn kill(&self) {
        // fails only when it has ended already
        let _ = self.process.lock().kill();
    }
}

/// The last lines of the child's stderr, for the error that says why it ended.
type LastLines = Arc<Mutex<VecDeque<String>>>;

const KEPT_LINES: usize = 5;
/// Longest line that is forwarded; the rest of it is dropped.
const LINE_BYTES: u64 = 8 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Starting,
    Ready(Ready),
    Ended(ExitStatus),
}

// === impl EngineSpec ===

impl EngineSpec {
    /// A spec with the defaults of the command line and 30 s to get ready.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            executable: None,
            data_dir: data_dir.into(),
            library: None,
            memory_limit: DEFAULT_MEMORY_LIMIT,
            connections: DEFAULT_CONNECTIONS,
            ready_within: Duration::from_secs(30),
        }
    }

    fn command(&self) -> Result<Command, EngineError> {
        let executable = match &self.executable {
            Some(path) => path.clone(),
            None => std::env::current_exe().map_err(|e| EngineError::Start(e.to_string()))?,
        };
        let mut command = Command::new(executable);
        command.arg("engine").arg("--data-dir").arg(&self.data_dir);
        command.arg("--memory-limit").arg(self.memory_limit.to_string());
        command.arg("--connections").arg(self.connections.to_string());
        command.arg("--watch-stdin").arg("--parent-pid").arg(std::process::id().to_string());
        if let Some(library) = &self.library {
            command.arg("--library").arg(library);
        }
        command.env("TZ", "UTC").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }
}

impl fmt::Debug for EngineEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineEndpoint({})", self.url)
    }
}

// === impl EngineChild ===

impl EngineChild {
    /// Starts an engine and waits until it is ready. The secret goes over its stdin, never into its arguments.
    ///
    /// # Errors
    /// [`EngineError::NotReady`] at the deadline, [`EngineError::Ended`] with its last words when it gave up (class
    /// `Config` when no restart can help); in both cases no process is left behind.
    pub async fn spawn(spec: EngineSpec) -> Result<Self, EngineError> {
        let ready_within = spec.ready_within;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("engine-owner".to_owned())
            .spawn(move || own(&spec, sender))
            .map_err(|e| EngineError::Start(e.to_string()))?;
        let gone = || EngineError::Start("its thread ended".to_owned());
        // forking takes milliseconds; the deadline covers a machine that has stopped answering
        let launched =
            timeout(ready_within, receiver).await.map_err(|_| EngineError::NotReady(ready_within))?;
        let mut child = launched.map_err(|_| gone())??;
        let begun = timeout(ready_within, child.state.wait_for(|state| *state != State::Starting)).await;
        let state = begun.map(|waited| waited.map(|state| state.clone()));
        match state {
            Err(_) => Err(EngineError::NotReady(ready_within)),
            Ok(Err(_)) => Err(gone()),
            Ok(Ok(State::Ended(status))) => Err(child.ended(status)),
            Ok(Ok(_)) => Ok(child),
        }
    }

    /// Where it is.
    pub fn endpoint(&self) -> Option<EngineEndpoint> {
        match &*self.state.borrow() {
            State::Ready(ready) => {
                Some(EngineEndpoint { url: ready.url.clone(), secret: self.secret.clone() })
            }
            _ => None,
        }
    }

    /// A hold on the process, for whoever comes after the owner of this.
    pub fn grip(&self) -> EngineGrip {
        EngineGrip { process: Arc::clone(&self.process) }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its exit status, once it has ended.
    pub fn try_wait(&self) -> Option<ExitStatus> {
        match &*self.state.borrow() {
            State::Ended(status) => Some(*status),
            _ => None,
        }
    }

    /// Resolves when it ends, with what it said last. Unbounded by nature: its watcher waits on it for as long as it runs.
    pub async fn ended_error(&self) -> EngineError {
        let mut state = self.state.clone();
        match state.wait_for(|state| matches!(state, State::Ended(_))).await.map(|s| s.clone()) {
            Ok(State::Ended(status)) => self.ended(status),
            _ => EngineError::Start("its thread ended".to_owned()),
        }
    }

    /// Ends it in order: closes its stdin, upon which it closes its connections; kills it at the deadline. True when it ended
    /// by itself.
    pub async fn stop(mut self, deadline: Duration) -> bool {
        drop(self.stdin.take());
        let mut state = self.state.clone();
        timeout(deadline, state.wait_for(|state| matches!(state, State::Ended(_)))).await.is_ok()
    }

    fn ended(&self, status: ExitStatus) -> EngineError {
        let last = self.last_lines.lock().back().cloned().unwrap_or_else(|| "it said nothing".to_owned());
        EngineError::Ended { status, last }
    }
}

impl Drop for EngineChild {
    fn drop(&mut self) {
        if self.try_wait().is_none() {
            // fails only when it has just ended by itself; its owner thread reaps it either way
            let _ = self.process.lock().kill();
        }
    }
}

impl fmt::Debug for EngineChild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineChild(pid {}, {:?})", self.pid, self.state.borrow())
    }
}

/// Body of the owner thread: start, hand the child over, wait for its end.
fn own(spec: &EngineSpec, sender: tokio::sync::oneshot::Sender<Result<EngineChild, EngineError>>) {
    let (state, receiver) = watch::channel(State::Starting);
    let state = Arc::new(state);
    let (child, readers) = match launch(spec, Arc::clone(&state), receiver) {
        Ok(launched) => launched,
        Err(error) => {
            let _ = sender.send(Err(error));
            return;
        }
    };
    let (pid, process) = (child.pid, Arc::clone(&child.process));
    // a caller that has gone away drops the child here, which kills it
    let _ = sender.send(Ok(child));
    let status = wait(pid, &process);
    for reader in readers {
        // its last words are in before its end is told; both pipes closed with it
        let _ = reader.join();
    }
    if let Ok(status) = status {
        state.send_replace(State::Ended(status));
    }
}

type Reader = std::thread::JoinHandle<()>;

fn launch(
    spec: &EngineSpec,
    state: Arc<watch::Sender<State>>,
    receiver: watch::Receiver<State>,
) -> Result<(EngineChild, Vec<Reader>), EngineError> {
    let start = |e: std::io::Error| EngineError::Start(e.to_string());
    let mut process = spec.command()?.spawn().map_err(start)?;
    let secret = new_secret();
    let (stdin, stdout, stderr) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
    let pid = process.id();
    let last_lines = LastLines::default();
    let mut child = EngineChild {
        pid,
        secret,
        stdin,
        process: Arc::new(Mutex::new(process)),
        state: receiver,
        last_lines: Arc::clone(&last_lines),
    };
    if let Some(stdin) = &mut child.stdin {
        // a child that ended at once is told by its exit status, not by this pipe
        let _ = writeln!(stdin, "{}", child.secret);
    }
    let mut readers = Vec::new();
    if let Some(stderr) = stderr {
        readers.push(thread("engine-log", move || forward(stderr, &last_lines))?);
    }
    if let Some(stdout) = stdout {
        readers.push(thread("engine-ready", move || read_ready(stdout, &state))?);
    }
    Ok((child, readers))
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<Reader, EngineError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|e| EngineError::Start(e.to_string()))
}

/// Waits without reaping first: only under the lock may the process id become free, else a kill could hit a stranger.
fn wait(pid: u32, process: &Mutex<Child>) -> std::io::Result<ExitStatus> {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    process.lock().wait()
}

fn read_ready(stdout: ChildStdout, state: &watch::Sender<State>) {
    let mut line = String::new();
    let read = BufReader::new(stdout.take(LINE_BYTES)).read_line(&mut line);
    if let (Ok(_), Ok(ready)) = (read, serde_json::from_str::<Ready>(&line)) {
        state.send_replace(State::Ready(ready));
    }
}

fn forward(stderr: ChildStderr, last_lines: &LastLines) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => note(String::from_utf8_lossy(&line).trim(), last_lines),
        }
    }
}

fn note(line: &str, last_lines: &LastLines) {
    if line.is_empty() {
        return;
    }
    match line.split_once(' ').map(|(level, _)| level) {
        Some("ERROR") => tracing::error!(target: "obtrace::engine", "{line}"),
        Some("WARN") => tracing::warn!(target: "obtrace::engine", "{line}"),
        _ => tracing::info!(target: "obtrace::engine", "{line}"),
    }
    let mut kept = last_lines.lock();
    if kept.len() == KEPT_LINES {
        kept.pop_front();
    }
    kept.push_back(line.to_owned());
}
