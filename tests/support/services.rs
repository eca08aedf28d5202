//! Real services for tests by `dev/services/run`: a name in → its addresses out, of one that is shared by all tests or
//! of one of the test's own that it may kill; fails with the script's words when it cannot be installed or started.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What the script prints: `OBTRACE_TEST_KAFKA` → `127.0.0.1:32100`.
pub type Lines = BTreeMap<String, String>;

/// Postgres, as superuser: `postgres://postgres@127.0.0.1:P/postgres`.
pub fn postgres() -> String {
    shared("postgres", "OBTRACE_TEST_POSTGRES")
}

/// Redis: `redis://127.0.0.1:P`.
pub fn redis() -> String {
    shared("redis", "OBTRACE_TEST_REDIS")
}

/// One Kafka broker, in clear: `127.0.0.1:P`. Topics are not made by themselves.
pub fn kafka() -> String {
    shared("kafka", "OBTRACE_TEST_KAFKA")
}

/// An S3 server with a bucket.
pub fn s3() -> S3 {
    S3::of(|key| shared("s3", key))
}

/// Three Kafka brokers that ask for a client certificate.
pub fn kafka_cluster() -> KafkaCluster {
    KafkaCluster::of(|key| shared("kafka-cluster", key))
}

/// A ClickHouse server, where this machine has one; most have only the engine.
pub fn clickhouse() -> Option<String> {
    let there = std::env::var_os("OBTRACE_CLICKHOUSE_URL").is_some() || on_the_path("clickhouse");
    there.then(|| shared("clickhouse", "OBTRACE_TEST_CLICKHOUSE"))
}

/// Where the S3 server is and how to come in.
#[derive(Debug, Clone)]
pub struct S3 {
    /// `http://127.0.0.1:P`.
    pub endpoint: String,
    pub key: String,
    pub secret: String,
    /// A bucket that is there.
    pub bucket: String,
}

impl S3 {
    fn of(line: impl Fn(&str) -> String) -> Self {
        Self {
            endpoint: line("OBTRACE_TEST_S3_ENDPOINT"),
            key: line("OBTRACE_TEST_S3_KEY"),
            secret: line("OBTRACE_TEST_S3_SECRET"),
            bucket: line("OBTRACE_TEST_S3_BUCKET"),
        }
    }
}

/// Where the three brokers are, and the PEM files that a client needs.
#[derive(Debug, Clone)]
pub struct KafkaCluster {
    /// `127.0.0.1:P,127.0.0.1:Q,127.0.0.1:R`.
    pub brokers: String,
    /// The authority that signed the brokers.
    pub ca: PathBuf,
    /// The client's certificate and its key.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl KafkaCluster {
    fn of(line: impl Fn(&str) -> String) -> Self {
        Self {
            brokers: line("OBTRACE_TEST_KAFKA_CLUSTER"),
            ca: line("OBTRACE_TEST_KAFKA_CA").into(),
            certificate: line("OBTRACE_TEST_KAFKA_CERT").into(),
            key: line("OBTRACE_TEST_KAFKA_KEY").into(),
        }
    }
}

/// A line of a shared service, which is started when it does not run. What the environment says goes first: `make test`
/// says it, and so can a person who has the service elsewhere.
pub fn shared(service: &str, key: &str) -> String {
    static LINES: Mutex<Lines> = Mutex::new(Lines::new());
    if let Ok(given) = std::env::var(key) {
        return given;
    }
    let mut lines = locked(&LINES);
    if !lines.contains_key(key) {
        script(None, &["up", service]);
        lines.extend(read(&script(None, &["env", service])));
    }
    lines.get(key).unwrap_or_else(|| panic!("{service} has no line {key}: {lines:?}")).clone()
}

/// A service of this test alone, with its own folder and ports: to be killed, stopped or starved. Ends when dropped, and
/// also when the test's process ends without that.
pub struct Private {
    service: String,
    folder: PathBuf,
    lines: Lines,
    _own: Option<tempfile::TempDir>,
}

impl Private {
    /// Starts one in a folder that is deleted afterwards.
    pub fn start(service: &str) -> Self {
        let (folder, own) = folder();
        Self::begin(service, folder, Some(own))
    }

    /// Starts one in a folder of which `prepare` has the service's own before that starts.
    pub fn prepared(service: &str, prepare: impl FnOnce(&Path)) -> Self {
        let (folder, own) = folder();
        let inner = folder.join(service);
        std::fs::create_dir_all(&inner).expect("the service's folder");
        prepare(&inner);
        Self::begin(service, folder, Some(own))
    }

    /// Starts one whose data lie in this folder, such as a small file system that fills up.
    pub fn start_in(service: &str, folder: &Path) -> Self {
        Self::begin(service, folder.to_owned(), None)
    }

    fn begin(service: &str, folder: PathBuf, own: Option<tempfile::TempDir>) -> Self {
        let mut this = Self { service: service.to_owned(), folder, lines: Lines::new(), _own: own };
        this.start_again();
        this
    }

    /// Starts those of its processes that do not run, on the same folder and ports, and waits until it serves.
    pub fn start_again(&mut self) {
        script(Some(&self.folder), &["up", &self.service]);
        self.lines = read(&script(Some(&self.folder), &["env", &self.service]));
    }

    /// A line of it, such as `OBTRACE_TEST_REDIS`.
    pub fn line(&self, key: &str) -> String {
        let found = self.lines.get(key);
        found.unwrap_or_else(|| panic!("{} has no line {key}: {:?}", self.service, self.lines)).clone()
    }

    /// As S3.
    pub fn s3(&self) -> S3 {
        S3::of(|key| self.line(key))
    }

    /// As three brokers.
    pub fn kafka_cluster(&self) -> KafkaCluster {
        KafkaCluster::of(|key| self.line(key))
    }

    /// Process id of a part: `redis`, `postgres`, `broker`, `weed`, or `broker-1` to `broker-3` of a cluster.
    pub fn pid(&self, part: &str) -> u32 {
        let file = self.folder.join(&self.service).join(format!("{part}.pid"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        text.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a process id")
    }

    /// Sends a part a signal; of Postgres, whose children work on without their parent, to all of its processes.
    pub fn signal(&self, part: &str, signal: Signal) {
        let pid = i32::try_from(self.pid(part)).expect("a pid");
        // Postgres' backends lead process groups of their own: they are found as its children.
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        kill(Pid::from_raw(pid), signal).expect("it runs");
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            // One that has just ended is as good.
            kill(Pid::from_raw(child), signal).ok();
        }
    }

    /// kill -9 of a part.
    pub fn kill9(&self, part: &str) {
        self.signal(part, Signal::SIGKILL);
    }

    /// SIGSTOP: it holds its connections and answers nothing.
    pub fn freeze(&self, part: &str) {
        self.signal(part, Signal::SIGSTOP);
    }

    /// Goes on after [`Private::freeze`].
    pub fn thaw(&self, part: &str) {
        self.signal(part, Signal::SIGCONT);
    }

    /// Calls the script for this set of services and returns what it printed.
    pub fn script(&self, args: &[&str]) -> String {
        script(Some(&self.folder), args)
    }

    /// Stops all of it in an orderly way, and keeps its data.
    pub fn stop(&self) {
        script(Some(&self.folder), &["down", &self.service]);
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // In a test that fails already, its own message matters more.
        run(Some(&self.folder), &["wipe", &self.service]).ok();
    }
}

/// A folder for a service, deleted with the second value.
fn folder() -> (PathBuf, tempfile::TempDir) {
    let own = tempfile::Builder::new().prefix("obtrace-service-").tempdir().expect("a folder");
    // Postgres runs as another user than root and must pass.
    std::fs::set_permissions(own.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).expect("mode");
    (own.path().to_owned(), own)
}

/// Calls the script, which must succeed, and returns what it printed.
pub fn script(folder: Option<&Path>, args: &[&str]) -> String {
    run(folder, args).unwrap_or_else(|why| panic!("dev/services/run {}: {why}", args.join(" ")))
}

fn run(folder: Option<&Path>, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/dev/services/run"));
    command.args(args);
    // What is shared lives as long as the whole test run, when that says who it is.
    if folder.is_some() || std::env::var_os("OBTRACE_SERVICES_OWNER").is_none() {
        command.env("OBTRACE_SERVICES_OWNER", std::process::id().to_string());
    }
    if let Some(folder) = folder {
        command.env("OBTRACE_SERVICES_DIR", folder).env("OBTRACE_SERVICES_THROWAWAY", "1");
    }
    let output = command.output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// Parses what `run env` prints.
pub fn read(text: &str) -> Lines {
    text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn on_the_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that failed under the lock has left nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
