//! A ClickHouse engine that outlives the Obtrace under test, and a door in front of it that a test opens and closes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use super::{Options, binary, block_on, free_ports};

/// The engine and its door.
pub struct Store {
    /// Base URL of the engine itself.
    pub direct: String,
    secret: String,
    door: Arc<Door>,
    port: u16,
    child: Child,
}

struct Door {
    open: AtomicBool,
    /// Connections that were turned away.
    refused: AtomicU64,
    guests: Mutex<Vec<TcpStream>>,
}

impl Store {
    /// Starts an engine on `dir`, behind an open door.
    pub fn start(dir: &Path) -> Self {
        let mut child = Command::new(binary())
            .args(["engine", "--data-dir"])
            .arg(dir)
            .args(["--parent-pid", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn the engine");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let of = |key: &str| ready[key].as_str().expect("the ready line is whole").to_owned();
        let (direct, secret) = (of("url"), of("secret"));
        let door = Door { open: AtomicBool::new(true), refused: AtomicU64::new(0), guests: Mutex::default() };
        let (door, [port]) = (Arc::new(door), free_ports());
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the door's port");
        let (keeps, behind) = (door.clone(), direct.trim_start_matches("http://").to_owned());
        std::thread::spawn(move || {
            listener.incoming().flatten().for_each(|guest| keeps.admit(guest, &behind))
        });
        Self { direct, secret, door, port, child }
    }

    /// Options of an Obtrace that keeps its telemetry here.
    pub fn options(&self, set: &[&str]) -> Options {
        let mut set: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
        set.push(format!("telemetry.url=http://127.0.0.1:{}", self.port));
        let env = vec![("OBTRACE__TELEMETRY__PASSWORD".to_owned(), self.secret.clone())];
        Options { set, env, ..Options::default() }
    }

    /// Lets nobody in any more, and everybody out.
    pub fn close(&self) {
        self.door.open.store(false, Ordering::SeqCst);
        for guest in self.door.guests.lock().drain(..) {
            guest.shutdown(Shutdown::Both).ok();
        }
    }

    /// Lets everybody in again.
    pub fn open(&self) {
        self.door.open.store(true, Ordering::SeqCst);
    }

    /// How many came to a closed door so far.
    pub fn refused(&self) -> u64 {
        self.door.refused.load(Ordering::SeqCst)
    }

    /// Runs a statement in the engine itself.
    pub fn sql(&self, text: &str) -> String {
        block_on(async {
            let request = reqwest::Client::new().post(&self.direct).header("X-ClickHouse-Key", &self.secret);
            let answer = request.timeout(Duration::from_secs(30)).body(text.to_owned()).send().await;
            let answer = answer.expect("the engine answers");
            let (status, body) = (answer.status(), answer.text().await.expect("a body"));
            assert!(status.is_success(), "{text}: {body}");
            body.trim_end().to_owned()
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Door {
    fn admit(&self, guest: TcpStream, behind: &str) {
        if !self.open.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            guest.shutdown(Shutdown::Both).ok();
            return;
        }
        let Ok(host) = TcpStream::connect(behind) else { return };
        for stream in [&guest, &host] {
            stream.set_nodelay(true).ok();
        }
        let both = || Some((guest.try_clone().ok()?, host.try_clone().ok()?));
        let (Some(there), Some(back), Ok(known)) = (both(), both(), guest.try_clone()) else { return };
        self.guests.lock().push(known);
        std::thread::spawn(move || carry(there.0, there.1));
        std::thread::spawn(move || carry(back.1, back.0));
    }
}

/// Carries bytes one way until either side is done.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    for stream in [&from, &to] {
        stream.shutdown(Shutdown::Both).ok();
    }
}
