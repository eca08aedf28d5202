//! The ClickHouse engine as a server of its own: it outlives the Obtrace under test, several processes may share it, it can
//! be killed and started again, and the way to it goes through a proxy that a test opens and closes.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::proxy::{Mode, Proxy};
use super::{Options, binary, block_on, free_ports};

/// The engine's password. It listens on loopback, and only while the test runs.
const SECRET: &str = "of-this-test";

/// The engine, and the way to it.
pub struct Store {
    /// What stands between Obtrace and the engine.
    pub link: Proxy,
    dir: PathBuf,
    direct: String,
    child: Option<Child>,
}

impl Store {
    /// Starts an engine on `dir` and waits until it serves; the way to it is open.
    pub fn start(dir: &Path) -> Self {
        let [port] = free_ports();
        let direct = format!("127.0.0.1:{port}");
        let mut this = Self { link: Proxy::start(&direct), dir: dir.to_owned(), direct, child: None };
        this.start_again();
        this
    }

    /// Where Obtrace finds it.
    pub fn url(&self) -> String {
        format!("http://{}", self.link.host())
    }

    /// The password.
    pub fn secret(&self) -> &'static str {
        SECRET
    }

    /// Options of an Obtrace that keeps its telemetry here.
    pub fn options(&self, set: &[&str]) -> Options {
        let mut set: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
        set.push(format!("telemetry.url={}", self.url()));
        let env = vec![("OBTRACE__TELEMETRY__PASSWORD".to_owned(), SECRET.to_owned())];
        Options { set, env, ..Options::default() }
    }

    /// Lets nobody in any more, and everybody out.
    pub fn close(&self) {
        self.link.set(Mode::Reset);
    }

    /// Lets everybody in again.
    pub fn open(&self) {
        self.link.set(Mode::Pass);
    }

    /// How many came to a closed door so far.
    pub fn refused(&self) -> u64 {
        self.link.refused() as u64
    }

    /// Runs a statement in the engine itself, past everything in between.
    pub fn sql(&self, text: &str) -> String {
        block_on(async {
            let url = format!("http://{}", self.direct);
            let request = reqwest::Client::new().post(url).header("X-ClickHouse-Key", SECRET);
            let answer = request.timeout(Duration::from_secs(30)).body(text.to_owned()).send().await;
            let answer = answer.expect("the engine answers");
            let (status, body) = (answer.status(), answer.text().await.expect("a body"));
            assert!(status.is_success(), "{text}: {body}");
            body.trim_end().to_owned()
        })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// kill -9.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// Starts it on the same folder and port after it was killed.
    pub fn start_again(&mut self) {
        let mut child = Command::new(binary())
            // It ends when its stdin closes, so also with a test process that is killed.
            .args(["engine", "--watch-stdin", "--listen", &self.direct, "--data-dir"])
            .arg(&self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn the engine");
        writeln!(child.stdin.as_mut().expect("piped"), "{SECRET}").expect("the secret is taken");
        let mut ready = String::new();
        // Ends with the process where that does not come up.
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("a line");
        assert!(ready.contains(&self.direct), "the engine does not come up: {ready:?}");
        self.child = Some(child);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
