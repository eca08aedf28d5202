//! How a process ends, and what it says about it: the lame duck, and the exit codes 0, 75 and 78.

use std::time::{Duration, Instant};

use crate::support::{Obtrace, Options, get};

fn with(set: &[&str]) -> Options {
    Options { set: set.iter().map(|set| (*set).to_owned()).collect(), ..Options::default() }
}

#[test]
fn a_lame_duck_is_not_ready_but_answers_and_a_second_signal_cuts_it_short() {
    let dir = tempfile::tempdir().unwrap();
    // Far longer than the test takes, so that only the second signal can explain its end.
    let options = with(&["supervision.lame_duck=10m", "supervision.shutdown_budget=20m"]);
    let mut obtrace = Obtrace::start(dir.path(), options);
    assert!(obtrace.signal(libc::SIGTERM));
    let until = Instant::now() + Duration::from_secs(30);
    let body = loop {
        let (status, body) = get(&format!("{}/readyz", obtrace.api));
        if status == 503 {
            break body;
        }
        assert!(Instant::now() < until, "still ready after the signal: {status} {body}");
    };
    assert!(body.contains("about to stop"), "{body}");
    assert_eq!(get(&format!("{}/livez", obtrace.api)).0, 200);
    assert!(obtrace.is_alive());
    let status = obtrace.stop();
    assert_eq!(status.code(), Some(0), "stopped in order");
}

#[test]
fn without_a_lame_duck_the_drain_starts_at_once_and_ends_with_0() {
    let dir = tempfile::tempdir().unwrap();
    let mut obtrace = Obtrace::start(dir.path(), Options::default());
    assert_eq!(obtrace.stop().code(), Some(0));
}

#[test]
fn a_budget_that_runs_out_ends_with_75() {
    let dir = tempfile::tempdir().unwrap();
    let mut obtrace = Obtrace::start(dir.path(), with(&["supervision.shutdown_budget=1ms"]));
    assert_eq!(obtrace.stop().code(), Some(75));
}

#[test]
fn a_port_that_is_taken_ends_with_78() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let http = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let args = ["dev", "--data-dir", dir.path().to_str().unwrap(), "--http", &http];
    let (status, _) = Obtrace::run(
        &[&args[..], &["--otlp-grpc", "127.0.0.1:0", "--otlp-http", "127.0.0.1:0"]].concat(),
        Duration::from_secs(90),
    );
    assert_eq!(status.code(), Some(78));
}
