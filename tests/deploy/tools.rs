//! The tools of these tests: a command in → what it printed, or both its streams where it failed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// Exit code of the setup where there is no go.
const NO_GO: i32 = 69;

/// Paths of the tools, by name; `None` where this machine has no go.
pub fn tools() -> Option<&'static BTreeMap<String, String>> {
    static TOOLS: OnceLock<Option<BTreeMap<String, String>>> = OnceLock::new();
    TOOLS.get_or_init(set_up).as_ref()
}

fn set_up() -> Option<BTreeMap<String, String>> {
    let output = Command::new(path("dev/deploy/setup.sh")).output().expect("the setup runs");
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(NO_GO) {
        // Past the capture of a test that passes: it shows nothing, and somebody has to know.
        writeln!(std::io::stderr(), "deploy/ is not checked: {said}").ok();
        return None;
    }
    assert!(output.status.success(), "dev/deploy/setup.sh: {said}");
    let text = String::from_utf8(output.stdout).expect("utf-8");
    Some(text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect())
}

/// A file of the repository.
pub fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// Runs a command with this on its stdin.
pub fn feed(program: &str, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // Charts and plugins that a person has are no part of this.
        .env("HELM_CONFIG_HOME", "/nonexistent")
        .env("HELM_DATA_HOME", "/nonexistent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    // One that ends without reading says why itself.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).ok());
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("writer");
    output
}

/// As [`feed`]; it must succeed, and what it printed is the answer.
pub fn good(program: &str, args: &[&str], input: &str) -> String {
    let output = feed(program, args, input);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{program} {}: {}\n{out}\n{err}", args.join(" "), output.status);
    out
}

/// Asks this build of Obtrace whether it takes a configuration with these variables.
pub fn obtrace_takes(config: &str, env: &[(String, String)]) -> Result<(), String> {
    let file = tempfile::NamedTempFile::with_suffix(".toml").expect("a file");
    std::fs::write(file.path(), config).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_obtrace"))
        .args(["config", "check"])
        .arg(file.path())
        .envs(env.iter().cloned())
        .output()
        .expect("obtrace runs");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said) }
}

/// The one at this pointer, as text.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no text at {pointer} in {value:#}"))
}

/// The one at this pointer, as a number.
pub fn number(value: &Value, pointer: &str) -> i64 {
    let found = value.pointer(pointer).and_then(Value::as_i64);
    found.unwrap_or_else(|| panic!("no number at {pointer} in {value:#}"))
}

/// The one at this pointer, as a list; empty where it is not there.
pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
