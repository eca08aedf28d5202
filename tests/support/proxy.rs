//! A TCP proxy in front of a real service: it passes bytes on, slowly, not at all, or cuts, as a test tells it.
//!
//! [`Proxy::set`] changes what happens to every connection, those that are open too. [`Proxy::on_request`] is for one
//! request alone: its answer gets lost, or something else is answered in place of the service. [`Proxy::heads`] tells what
//! was asked.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What the proxy does with connections and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Pass,
    /// Holds each piece back for so long, in both directions.
    Latency(Duration),
    /// Takes connections and bytes and passes nothing on: the peer is there and says nothing. What it holds back goes on
    /// its way when the mode changes.
    HalfOpen,
    /// Resets every connection, and each new one as soon as it is taken.
    Reset,
}

/// What becomes of one request.
#[derive(Debug, Clone)]
pub enum Instead {
    /// The service gets and does it; its answer is lost with the connection.
    LoseAnswer,
    /// The service never sees it; these bytes are the answer, and the connection is closed.
    Answer(Vec<u8>),
}

struct Rule {
    mark: Vec<u8>,
    instead: Instead,
    left: usize,
}

struct Shared {
    upstream: SocketAddr,
    mode: watch::Sender<Mode>,
    rules: Mutex<Vec<Rule>>,
    /// The heads of the requests of HTTP, once somebody wants them.
    heads: Mutex<Option<Vec<String>>>,
    accepted: AtomicUsize,
    refused: AtomicUsize,
    applied: AtomicUsize,
}

/// A proxy on a free port of loopback. It ends with its value.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Proxy {
    /// A proxy in front of `upstream`, such as `127.0.0.1:5432`.
    pub fn start(upstream: &str) -> Self {
        Self::between("127.0.0.1:0", upstream)
    }

    /// A proxy that listens at `listen` of loopback.
    pub fn between(listen: &str, upstream: &str) -> Self {
        let listen: SocketAddr = listen.parse().expect("host:port to listen at");
        let upstream: SocketAddr = upstream.parse().expect("host:port of the service");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on_elsewhere(TcpListener::bind(listen)).expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            upstream,
            mode: watch::Sender::new(Mode::Pass),
            rules: Mutex::default(),
            heads: Mutex::default(),
            accepted: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            applied: AtomicUsize::new(0),
        });
        runtime.spawn(accept(listener, shared.clone()));
        Self { addr, shared, runtime: Some(runtime) }
    }

    /// Where it listens, as `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }

    /// `url` with the proxy in place of the host and port in it.
    pub fn in_front_of(&self, url: &str) -> String {
        let upstream = self.shared.upstream.to_string();
        let local = upstream.replace("127.0.0.1", "localhost");
        assert!(url.contains(&upstream) || url.contains(&local), "{url} does not lead to {upstream}");
        url.replace(&upstream, &self.host()).replace(&local, &self.host())
    }

    /// Changes what happens, for open connections too.
    pub fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// The next `times` requests that have `mark` in their beginning get `instead`.
    pub fn on_request(&self, mark: &str, times: usize, instead: Instead) {
        self.shared.rules.lock().push(Rule { mark: mark.as_bytes().to_vec(), instead, left: times });
    }

    /// Keeps the heads of the requests of HTTP from now on.
    pub fn record(&self) {
        *self.shared.heads.lock() = Some(Vec::new());
    }

    /// The heads kept since [`Proxy::record`]: first line and headers, in the order in which they came.
    pub fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().clone().unwrap_or_default()
    }

    /// How many requests [`Proxy::on_request`] was applied to.
    pub fn applied(&self) -> usize {
        self.shared.applied.load(Ordering::SeqCst)
    }

    /// How many connections it has reset as soon as it took them.
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// How many connections it has taken.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runs something short on a runtime from a thread that may belong to another one.
trait BlockOnElsewhere {
    fn block_on_elsewhere<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T;
}

impl BlockOnElsewhere for Runtime {
    fn block_on_elsewhere<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (done, result) = std::sync::mpsc::sync_channel(1);
        self.spawn(async move { done.send(work.await).ok() });
        result.recv().expect("the runtime runs it")
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(serve(client, shared.clone()));
    }
}

/// How a connection ends.
enum End {
    Closed,
    Reset,
    Answer(Vec<u8>),
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let mut mode = shared.mode.subscribe();
    if *mode.borrow_and_update() == Mode::Reset {
        shared.refused.fetch_add(1, Ordering::SeqCst);
        return reset(client);
    }
    let Ok(mut server) = TcpStream::connect(shared.upstream).await else { return reset(client) };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let lose = AtomicBool::new(false);
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            end = up(from_client, to_server, &shared, &lose) => end,
            end = down(from_server, to_client, &shared, &lose) => end,
            end = cut(mode) => end,
        }
    };
    match end {
        End::Closed => {}
        End::Reset => {
            reset(server);
            reset(client);
        }
        End::Answer(bytes) => {
            client.write_all(&bytes).await.ok();
            client.shutdown().await.ok();
            // Reads what is left of the request: closing with unread bytes would reset the answer away.
            let mut rest = vec![0; 64 << 10];
            let drain = async { while client.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
            tokio::time::timeout(Duration::from_secs(2), drain).await.ok();
        }
    }
}

/// Closes with a reset instead of an end.
fn reset(stream: TcpStream) {
    stream.set_zero_linger().ok();
}

async fn cut(mut mode: watch::Receiver<Mode>) -> End {
    mode.wait_for(|mode| *mode == Mode::Reset).await.ok();
    End::Reset
}

async fn up(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    lose: &AtomicBool,
) -> End {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(read) if read > 0 => read,
            _ => {
                to.shutdown().await.ok();
                // The service may still have something to say.
                return std::future::pending().await;
            }
        };
        shared.note_head(&buffer[..read]);
        match shared.rule_for(&buffer[..read]) {
            Some(Instead::Answer(bytes)) => return End::Answer(bytes),
            Some(Instead::LoseAnswer) => lose.store(true, Ordering::SeqCst),
            None => {}
        }
        shared.hold().await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return End::Closed;
        }
    }
}

async fn down(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    lose: &AtomicBool,
) -> End {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(read) if read > 0 => read,
            Ok(_) => return End::Closed,
            Err(_) => return End::Reset,
        };
        if lose.load(Ordering::SeqCst) && !buffer[..read].starts_with(b"HTTP/1.1 100") {
            return End::Reset;
        }
        shared.hold().await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return End::Closed;
        }
    }
}

impl Shared {
    /// Waits as the mode wants it.
    async fn hold(&self) {
        let mut mode = self.mode.subscribe();
        let now = *mode.borrow_and_update();
        match now {
            Mode::Latency(time) => tokio::time::sleep(time).await,
            Mode::HalfOpen => drop(mode.wait_for(|mode| *mode != Mode::HalfOpen).await),
            Mode::Pass | Mode::Reset => {}
        }
    }

    /// A client writes the head of a request in one piece, and no request before the answer to the last one.
    fn note_head(&self, bytes: &[u8]) {
        let mut heads = self.heads.lock();
        let Some(heads) = heads.as_mut() else { return };
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let head = end.and_then(|end| std::str::from_utf8(&bytes[..end]).ok());
        let is_head = |head: &&str| head.lines().next().is_some_and(|line| line.ends_with(" HTTP/1.1"));
        heads.extend(head.filter(is_head).map(str::to_owned));
    }

    fn rule_for(&self, bytes: &[u8]) -> Option<Instead> {
        let mut rules = self.rules.lock();
        let has = |mark: &[u8]| bytes.windows(mark.len()).any(|window| window == mark);
        let rule = rules.iter_mut().find(|rule| rule.left > 0 && has(&rule.mark))?;
        rule.left -= 1;
        self.applied.fetch_add(1, Ordering::SeqCst);
        Some(rule.instead.clone())
    }
}
