//! A real Obtrace process for tests: start it on free ports, ask it, kill it, start it again on the same folder.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub mod bucket;
pub mod cluster;
pub mod disk;
pub mod links;
pub mod pg;
pub mod proxy;
pub mod services;

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

pub mod invariants;
pub mod load;
pub mod log;
pub mod store;
pub mod watch;

/// Time a process has to get ready; generous, since test machines are shared.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How to start it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `obtrace serve` and not `obtrace dev`.
    pub serve: bool,
    /// `--set` arguments.
    pub set: Vec<String>,
    /// Configuration files.
    pub config: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Where what it says on stderr is appended, instead of being shown.
    pub stderr: Option<PathBuf>,
}

/// A running Obtrace.
pub struct Obtrace {
    /// OTLP gRPC, `http://127.0.0.1:P`.
    pub grpc: String,
    /// OTLP HTTP, `http://127.0.0.1:P`.
    pub http: String,
    /// API, `http://127.0.0.1:P`.
    pub api: String,
    /// How it is started the next time.
    pub options: Options,
    /// Which process this is, from 1.
    pub lives: Arc<AtomicU64>,
    dir: PathBuf,
    child: Child,
}

impl Obtrace {
    /// Starts one on `dir` and free ports, and waits until it is ready.
    pub fn start(dir: &Path, options: Options) -> Self {
        let [grpc, http, api] = free_ports().map(|port| format!("http://127.0.0.1:{port}"));
        let child = spawn(dir, [&grpc, &http, &api], &options);
        let lives = Arc::new(AtomicU64::new(1));
        let mut this = Self { grpc, http, api, options, lives, dir: dir.to_owned(), child };
        this.wait_ready();
        this
    }

    /// Starts it again on the same folder and ports, after it was killed or stopped.
    pub fn restart(&mut self) {
        self.lives.fetch_add(1, Ordering::SeqCst);
        self.child = spawn(&self.dir, [&self.grpc, &self.http, &self.api], &self.options);
        self.wait_ready();
    }

    /// Starts it again; false when it ended before it was ready.
    pub fn try_restart(&mut self) -> bool {
        self.lives.fetch_add(1, Ordering::SeqCst);
        self.child = spawn(&self.dir, [&self.grpc, &self.http, &self.api], &self.options);
        let until = Instant::now() + READY_WITHIN;
        while self.is_alive() {
            if try_get(&format!("{}/readyz", self.api), None).is_some_and(|(status, _)| status == 200) {
                return true;
            }
            assert!(Instant::now() < until, "it is not ready after {READY_WITHIN:?}");
            sleep(Duration::from_millis(30));
        }
        false
    }

    /// Process id of the main process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Process id of its engine, if one runs.
    pub fn engine_pid(&self) -> Option<u32> {
        children_of(self.pid()).into_iter().find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("engine")
        })
    }

    /// kill -9 of the main process, and waits until it is gone.
    pub fn kill9(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// kill -9 of the engine. False when none runs at the moment.
    pub fn kill9_engine(&self) -> bool {
        self.engine_pid().is_some_and(|pid| kill(pid, libc::SIGKILL))
    }

    /// Sends the main process a signal.
    pub fn signal(&self, signal: i32) -> bool {
        kill(self.pid(), signal)
    }

    /// Sends the engine a signal. False when none runs at the moment.
    pub fn signal_engine(&self, signal: i32) -> bool {
        self.engine_pid().is_some_and(|pid| kill(pid, signal))
    }

    /// SIGTERM, and its exit status.
    pub fn stop(&mut self) -> ExitStatus {
        assert!(kill(self.pid(), libc::SIGTERM));
        wait(&mut self.child, Duration::from_secs(60)).expect("it ends after SIGTERM")
    }

    /// How it ended by itself, within this time.
    pub fn ended(&mut self, within: Duration) -> ExitStatus {
        wait(&mut self.child, within).expect("it ends by itself")
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("try_wait").is_none()
    }

    /// `GET` of an API path as JSON with its status.
    pub fn get(&self, path: &str) -> (u16, Value) {
        let (status, body) = get(&format!("{}{path}", self.api));
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// As [`Obtrace::get`], where it may be that nobody answers.
    pub fn try_get(&self, path: &str) -> Option<(u16, Value)> {
        self.try_get_as(path, None)
    }

    /// As [`Obtrace::try_get`], with an API key.
    pub fn try_get_as(&self, path: &str, key: Option<&str>) -> Option<(u16, Value)> {
        let (status, body) = try_get(&format!("{}{path}", self.api), key)?;
        Some((status, serde_json::from_str(&body).unwrap_or(Value::String(body))))
    }

    /// Gives a node of the tree an order.
    pub fn order(&self, path: &str, action: &str) {
        let url = format!("{}/admin/tree/{path}/{action}", self.api);
        let (status, _, body) = post(&url, &[], br#"{"who":"a test","why":"a row of the table"}"#.to_vec());
        assert_eq!(status, 202, "{action} {path}: {}", String::from_utf8_lossy(&body));
    }

    /// Asks until `good` says so of the answer; fails with the last answer after `within`.
    pub fn eventually(&self, path: &str, within: Duration, good: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + within;
        loop {
            let (status, answer) = self.get(path);
            if status == 200 && good(&answer) {
                return answer;
            }
            assert!(Instant::now() < until, "{path} did not become good: {status} {answer:#}");
            sleep(Duration::from_millis(100));
        }
    }

    /// As [`Obtrace::eventually`], where refusals are not the end of it.
    pub fn eventually_asked(&self, path: &str, within: Duration, good: impl Fn(&Value) -> bool) {
        let until = Instant::now() + within;
        let mut last = None;
        while !matches!(&last, Some((200, answer)) if good(answer)) {
            assert!(Instant::now() < until, "{path} did not become good: {last:?}");
            sleep(Duration::from_millis(200));
            last = self.try_get(path);
        }
    }

    /// Runs the binary with these arguments and returns its exit status and output.
    pub fn run(args: &[&str], within: Duration) -> (ExitStatus, String) {
        let mut child = Command::new(binary())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("spawn");
        let mut stdout = child.stdout.take().expect("piped");
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        });
        let status = wait(&mut child, within).expect("it ends in time");
        (status, reader.join().expect("reader").expect("utf-8"))
    }

    fn wait_ready(&mut self) {
        let until = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait().expect("try_wait") {
                panic!("it ended while starting: {status}");
            }
            if try_get(&format!("{}/readyz", self.api), None).is_some_and(|(status, _)| status == 200) {
                return;
            }
            assert!(Instant::now() < until, "it is not ready after {READY_WITHIN:?}");
            sleep(Duration::from_millis(30));
        }
    }
}

impl Drop for Obtrace {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A number from the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// The binary under test.
pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_obtrace")
}

/// Ports that are free. They lie below the range from which the kernel takes ports for outgoing connections, so that
/// nobody takes one by chance before its owner, killed and started again, binds it.
pub fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 20_000).expect("below 20,000");
    std::array::from_fn(|_| {
        loop {
            let port = 10_000 + (first - 10_000 + NEXT.fetch_add(1, Ordering::Relaxed)) % 22_000;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                break port;
            }
        }
    })
}

/// Waits for a child at most `within`; kills it then.
pub fn wait(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + within;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().expect("try_wait") {
            return Some(status);
        }
        sleep(Duration::from_millis(20));
    }
    child.kill().ok();
    None
}

/// `GET` with status and body; fails when nobody answers.
pub fn get(url: &str) -> (u16, String) {
    try_get(url, None).unwrap_or_else(|| panic!("{url} does not answer"))
}

/// `GET` of which nobody wants to know what came of it.
pub fn quietly_get(url: &str) {
    try_get(url, None);
}

/// `POST` with status, headers (lower-case names) and body.
pub fn post(url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, Vec<(String, String)>, Vec<u8>) {
    block_on(async {
        let mut request = client().post(url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        (status, headers, answer.bytes().await.expect("a body").to_vec())
    })
}

fn try_get(url: &str, key: Option<&str>) -> Option<(u16, String)> {
    block_on(async {
        let mut request = client().get(url);
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.text().await.ok()?))
    })
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(Duration::from_secs(40)).build().expect("client")
}

/// Runs a future to its end on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(future)
}

fn spawn(dir: &Path, [grpc, http, api]: [&String; 3], options: &Options) -> Child {
    let address = |url: &str| url.trim_start_matches("http://").to_owned();
    let mut command = Command::new(binary());
    command.arg(if options.serve { "serve" } else { "dev" }).arg("--data-dir").arg(dir);
    command.args(["--otlp-grpc", &address(grpc), "--otlp-http", &address(http), "--http", &address(api)]);
    for set in &options.set {
        command.args(["--set", set]);
    }
    for file in &options.config {
        command.args(["--config", file]);
    }
    command.envs(options.env.iter().cloned()).stdin(Stdio::null()).stdout(Stdio::null());
    if let Some(path) = &options.stderr {
        let file =
            std::fs::File::options().create(true).append(true).open(path).expect("the file for stderr");
        command.stderr(file);
    }
    command.spawn().expect("spawn obtrace")
}

/// Sends a process a signal.
pub fn kill(pid: u32, signal: i32) -> bool {
    let pid = i32::try_from(pid).expect("pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::try_from(signal).ok())
        .is_ok()
}

fn children_of(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// Waits until `good`; fails after `within`.
pub fn until(within: Duration, what: &str, mut good: impl FnMut() -> bool) {
    let ends = Instant::now() + within;
    while !good() {
        assert!(Instant::now() < ends, "{what} after {within:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
