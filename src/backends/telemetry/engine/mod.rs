//! The embedded ClickHouse engine: a process of its own (`obtrace engine`) that loads the engine as a library and serves the
//! part of ClickHouse's HTTP interface Obtrace uses; and [`EngineChild`], with which the main process starts and ends it.
//!
//! In: command line and a secret on stdin. Out: an HTTP endpoint on loopback, announced by one line on stdout. What may fail:
//! [`EngineError`]. A crash in the library ends this process and nothing else; its owner starts it again.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::ffi::Library;
use self::lifecycle::{Folder, Streams};
use self::pool::{Pool, Threads};
use self::server::Front;
use crate::domain::failure::{Classified, FailureClass};

mod body;
pub mod child;
mod exception;
mod ffi;
mod lifecycle;
pub mod locate;
mod pool;
mod request;
mod server;
pub(super) mod sql;

pub use child::{EngineChild, EngineEndpoint, EngineGrip, EngineSpec};
pub use locate::find_library;

/// The database the engine's user owns; requests that name none run in it.
pub const DATABASE: &str = "obtrace";
/// The engine's user; its password is the secret.
pub const USER: &str = "default";
/// Default of `--memory-limit`, bytes.
pub const DEFAULT_MEMORY_LIMIT: u64 = 2 << 30;
/// Default of `--connections`.
pub const DEFAULT_CONNECTIONS: usize = 4;
/// Exit code for what no restart can mend (`EX_CONFIG`): folder owned by another process, library missing.
pub const EXIT_CONFIG: u8 = 78;
/// Exit code for everything else that keeps the engine from starting (`EX_SOFTWARE`).
const EXIT_FAILED: u8 = 70;
/// Largest request body, bytes.
const MAX_BODY_BYTES: usize = 512 << 20;

/// Command line of `obtrace engine`.
#[derive(Debug, Clone, clap::Args)]
pub struct EngineArgs {
    /// Folder of this Obtrace; the engine keeps its data in `engine/` below it.
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Where to listen; port 0 takes a free one, named in the ready line.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The engine library (else OBTRACE_ENGINE_LIBRARY, ~/.cache/obtrace/engine/libchdb.so, ../lib/obtrace/libchdb.so).
    #[arg(long)]
    pub library: Option<PathBuf>,
    /// Memory the engine may use, bytes; a query over it fails with MEMORY_LIMIT_EXCEEDED.
    #[arg(long, default_value_t = DEFAULT_MEMORY_LIMIT)]
    pub memory_limit: u64,
    /// Statements that run at the same time (1 to 64).
    #[arg(long, default_value_t = DEFAULT_CONNECTIONS)]
    pub connections: usize,
    /// Read the secret from the first line of stdin, and end when stdin closes.
    #[arg(long)]
    pub watch_stdin: bool,
    /// Process that started this one: have the kernel end this one with it.
    #[arg(long)]
    pub parent_pid: Option<i32>,
}

/// The line the engine prints when it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Base URL.
    pub url: String,
    /// Process id.
    pub pid: u32,
    /// Made by the engine and told here only when it was started by hand, without `--watch-stdin`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub secret: Option<String>,
}

/// Why the engine does not run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No library in any of the places.
    #[error(
        "the engine library libchdb.so is missing (looked at {}); fetch it with `make engine`, point OBTRACE_ENGINE_LIBRARY at it, or set telemetry.url to a ClickHouse server",
        looked.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    LibraryMissing {
        /// Where it was looked for, in order.
        looked: Vec<PathBuf>,
    },
    /// The library is there but cannot be used.
    #[error("the engine library {} cannot be loaded: {reason}; fetch it anew with `make engine`", path.display())]
    LibraryBroken {
        /// The file.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// The folder has an owner.
    #[error("the engine folder {} is in use by {owner}; stop that process or give this one another data folder", folder.display())]
    Owned {
        /// The folder.
        folder: PathBuf,
        /// Process and start time, as its lock file says.
        owner: String,
    },
    /// The folder cannot be written.
    #[error("the engine folder {} cannot be used: {source}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The parent ended before the engine was up.
    #[error("the process that started the engine is gone")]
    Orphaned,
    /// Anything else that keeps it from starting.
    #[error("the engine does not start: {0}")]
    Start(String),
    /// It did not get ready in time; it was killed.
    #[error("the engine was not ready within {0:?}")]
    NotReady(std::time::Duration),
    /// It ended.
    #[error("the engine ended with {status}: {last}")]
    Ended {
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The last line it wrote.
        last: String,
    },
}

impl Classified for EngineError {
    fn class(&self) -> FailureClass {
        match self {
            Self::LibraryMissing { .. } | Self::LibraryBroken { .. } | Self::Owned { .. } => {
                FailureClass::Config
            }
            Self::Ended { status, .. } if status.code() == Some(i32::from(EXIT_CONFIG)) => {
                FailureClass::Config
            }
            _ => FailureClass::Dependency,
        }
    }
}

impl EngineError {
    fn exit_code(&self) -> u8 {
        if self.class() == FailureClass::Config { EXIT_CONFIG } else { EXIT_FAILED }
    }
}

/// Runs the engine until it is told to stop: by SIGTERM, by its stdin closing, or with its parent.
pub fn run(args: EngineArgs) -> ExitCode {
    lifecycle::keep_stderr();
    // the parent forwards these lines; it adds the time
    let filter = tracing_subscriber::EnvFilter::new("info,actix_server=warn");
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_ansi(false)
        .without_time()
        .try_init();
    match start(&args) {
        Ok(engine) => engine.serve(),
        Err(error) => {
            tracing::error!("{error}");
            // exit handlers of a library that is half up may crash
            lifecycle::exit_now(i32::from(error.exit_code()))
        }
    }
}

struct Engine {
    listener: TcpListener,
    front: Front,
    threads: Threads,
    ready: Ready,
    stdout: std::fs::File,
    stop: (watch::Sender<bool>, watch::Receiver<bool>),
    _folder: Folder,
}

fn start(args: &EngineArgs) -> Result<Engine, EngineError> {
    let fail = |e: std::io::Error| EngineError::Start(e.to_string());
    lifecycle::quiet_signals();
    lifecycle::bind_to_parent(args.parent_pid)?;
    lifecycle::volunteer_for_oom();
    let Streams { stdin, stdout } = Streams::take().map_err(fail)?;
    let stop = watch::channel(false);
    let secret =
        if args.watch_stdin { lifecycle::watch_parent(stdin, stop.0.clone())? } else { new_secret() };
    let path = find_library(args.library.as_deref())?;
    let folder = Folder::open(&args.data_dir)?;
    let arguments = folder.configure(args.memory_limit)?;
    let listener = TcpListener::bind(args.listen)
        .map_err(|e| EngineError::Start(format!("cannot listen on {}: {e}", args.listen)))?;
    let url = format!("http://{}", listener.local_addr().map_err(fail)?);
    let library = Library::load(&path).map_err(|reason| EngineError::LibraryBroken { path, reason })?;
    let (pool, threads) = Pool::start(&library, arguments.clone(), args.connections.clamp(1, 64))
        .map_err(EngineError::Start)?;
    library
        .connect(&arguments)
        .and_then(|mut c| c.execute(&format!("CREATE DATABASE IF NOT EXISTS {DATABASE}")))
        .map_err(|e| EngineError::Start(e.to_string()))?;
    let shown = (!args.watch_stdin).then(|| secret.clone());
    let ready = Ready { url, pid: std::process::id(), secret: shown };
    let front = Front { pool, secret, max_body_bytes: MAX_BODY_BYTES };
    Ok(Engine { listener, front, threads, ready, stdout, stop, _folder: folder })
}

impl Engine {
    /// Serves until the stop signal, then ends the process: first the requests, then the threads with their connections, then
    /// the engine; whatever takes longer than the limit is cut off.
    fn serve(self) -> ExitCode {
        let Self { listener, front, threads, ready, mut stdout, stop, _folder } = self;
        let pool = front.pool.clone();
        let served = actix_web::rt::System::new().block_on(async move {
            let server = server::serve(listener, front)?;
            let handle = server.handle();
            actix_web::rt::spawn(async move {
                stopped(stop).await;
                tracing::info!("stopping");
                pool.cancel_all();
                drop(pool);
                handle.stop(true).await;
            });
            let line = serde_json::to_string(&ready)?;
            // nobody reads it when the parent has just died; the watch ends the process then
            let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
            drop(stdout);
            server.await
        });
        let code = match &served {
            Ok(()) => 0,
            Err(error) => {
                tracing::error!(%error, "the front failed");
                i32::from(EXIT_FAILED)
            }
        };
        if !threads.join(lifecycle::STOP_LIMIT) {
            tracing::warn!("statements still run at the stop, they are cut off");
        }
        lifecycle::exit_now(code)
    }
}

async fn stopped((sender, mut receiver): (watch::Sender<bool>, watch::Receiver<bool>)) {
    let closed = receiver.wait_for(|stop| *stop);
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, "SIGTERM is not handled");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        _ = closed => {}
        () = terminated => {}
    }
    drop(sender);
    // from here on the process has a bounded time to live, whichever way it was told
    let _ = std::thread::Builder::new().name("stop-limit".to_owned()).spawn(lifecycle::end_soon);
}

/// A new random secret: 32 bytes in hex.
pub(crate) fn new_secret() -> String {
    rand::rng().random::<[u8; 32]>().iter().map(|b| format!("{b:02x}")).collect()
}
