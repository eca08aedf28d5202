//! The examples as processes: each ends in time, in order, and prints what its opening lines promise.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Obtrace, Options, binary, wait};

const WITHIN: Duration = Duration::from_secs(60);

/// Runs an example, which `cargo test` built beside the binary, and returns what it printed.
fn example(name: &str, args: &[&str]) -> String {
    let path: PathBuf = PathBuf::from(binary()).with_file_name("examples").join(name);
    let mut command = Command::new(&path);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; build it with: cargo build --examples", path.display()));
    // A few lines: they fit into the pipe.
    let status = wait(&mut child, WITHIN).unwrap_or_else(|| panic!("{name} did not end in {WITHIN:?}"));
    let output = child.wait_with_output().expect("output");
    let text = String::from_utf8(output.stdout).expect("utf-8");
    assert!(status.success(), "{name}: {status}\n{text}");
    text
}

#[test]
fn minimal_tree_answers_across_a_crash() {
    let text = example("minimal_tree", &[]);
    let tree: serde_json::Value = serde_json::from_str(&text).expect("a snapshot");
    assert_eq!(tree["root"]["children"][0]["restarts"], 1, "{text}");
}

#[test]
fn poison_message_puts_one_aside_and_serves_the_rest() {
    let text = example("poison_message", &[]);
    assert!(text.contains("order 3: put aside after 2 attempts"), "{text}");
    assert_eq!(text.matches(": served").count(), 4, "{text}");
    assert!(text.contains("1 poisoned, 0 left"), "{text}");
}

#[test]
fn supervised_pipeline_loses_nothing_in_a_crash_and_fills_up_to_the_sender() {
    let text = example("supervised_pipeline", &[]);
    assert!(text.contains("restarts of square: 1"), "{text}");
    assert!(text.contains("sum of squares: 338350 (338350 expected)"), "{text}");
    assert!(text.contains("parse 4/4, square 4/4, sum 4/4"), "back-pressure reached the sender: {text}");
}

#[test]
fn send_otlp_is_found_again() {
    let dir = tempfile::tempdir().expect("tempdir");
    let obtrace = Obtrace::start(&dir.path().join("data"), Options::default());
    let text = example("send_otlp", &[&obtrace.grpc]);
    let trace = text.split("/api/v1/traces/").nth(1).expect("it says where to look").trim();
    let found = obtrace.eventually(&format!("/api/v1/traces/{trace}"), WITHIN, |answer| {
        answer["spans"].as_array().is_some_and(|spans| spans.len() == 1)
    });
    assert_eq!(found["spans"][0]["name"], "hello", "{found}");
}
