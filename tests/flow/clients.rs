//! The official SDK clients of Python and Node against a real Obtrace: what each of them says it sent comes back over the API.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Obtrace, Options, wait};

/// Installing the clients takes the network and half a minute the first time.
const INSTALL_WITHIN: Duration = Duration::from_secs(300);
const SEND_WITHIN: Duration = Duration::from_secs(60);
const VISIBLE_WITHIN: Duration = Duration::from_secs(20);

/// A client: what runs it, with which script, and the protocols it speaks.
struct Client {
    name: &'static str,
    program: PathBuf,
    script: PathBuf,
    env: Vec<(String, PathBuf)>,
    protocols: &'static [&'static str],
}

#[test]
fn python_sends_over_grpc_and_http_plain_and_gzipped() {
    all_ways(&python());
}

#[test]
fn node_sends_over_grpc_http_and_json_plain_and_gzipped() {
    all_ways(&node());
}

/// What both of them send to `edge` is found at `gateway`.
pub(crate) fn meet(edge: &Obtrace, gateway: &Obtrace) {
    for client in [python(), node()] {
        ways(&client, edge, gateway);
    }
}

fn python() -> Client {
    let (python, _) = install();
    let script = clients().join("python/send.py");
    Client { name: "python", program: python, script, env: vec![], protocols: &["grpc", "http"] }
}

fn node() -> Client {
    let (_, modules) = install();
    let env = vec![("NODE_CLIENT_MODULES".to_owned(), modules)];
    let script = clients().join("node/send.mjs");
    let protocols = &["grpc", "http", "http-json"];
    Client { name: "node", program: PathBuf::from("node"), script, env, protocols }
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Runs `setup.sh`, which does nothing once the clients are there; the interpreter and the modules folder it names.
fn install() -> (PathBuf, PathBuf) {
    let output = output_of(Command::new("sh").arg(clients().join("setup.sh")), INSTALL_WITHIN);
    let named = |key: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        PathBuf::from(line.unwrap_or_else(|| panic!("setup.sh names no {key}: {output}")))
    };
    (named("PYTHON"), named("NODE_MODULES_DIR"))
}

/// One Obtrace, every protocol of the client, with and without compression.
fn all_ways(client: &Client) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let obtrace = Obtrace::start(dir.path(), Options::default());
    ways(client, &obtrace, &obtrace);
}

fn ways(client: &Client, edge: &Obtrace, gateway: &Obtrace) {
    for protocol in client.protocols {
        for compression in ["none", "gzip"] {
            let run = format!("{}-{protocol}-{compression}", client.name);
            let sent = send(client, edge, protocol, compression, &run);
            traces_come_back(gateway, &run, &sent);
            logs_come_back(gateway, &run, &sent);
            metrics_come_back(gateway, &run, &sent);
        }
    }
}

/// Runs the script; what it says it sent.
fn send(client: &Client, obtrace: &Obtrace, protocol: &str, compression: &str, run: &str) -> Value {
    let endpoint = if protocol == "grpc" { &obtrace.grpc } else { &obtrace.http };
    let mut command = Command::new(&client.program);
    command.arg(&client.script).args(["--endpoint", endpoint, "--protocol", protocol]);
    command.args(["--compression", compression, "--run-id", run]);
    command.envs(client.env.iter().map(|(key, value)| (key, value)));
    let output = output_of(&mut command, SEND_WITHIN);
    serde_json::from_str(&output).unwrap_or_else(|e| panic!("{run} printed no JSON ({e}): {output}"))
}

fn output_of(command: &mut Command, within: Duration) -> String {
    let mut child: Child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    let stdout = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || std::io::read_to_string(stdout));
    let status = wait(&mut child, within).unwrap_or_else(|| panic!("{command:?} does not end"));
    let output = reader.join().expect("reader").expect("utf-8");
    assert!(status.success(), "{command:?}: {status}, printed {output}");
    output
}

fn list<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().unwrap_or_else(|| panic!("no list {key:?} in {value:#}"))
}

/// Both traces, each with exactly the spans that were sent.
fn traces_come_back(obtrace: &Obtrace, run: &str, sent: &Value) {
    let spans = list(sent, "spans");
    assert_eq!(spans.len(), 3, "{run}");
    for span in spans {
        let trace_id = span["trace_id"].as_str().expect("trace id");
        let expected = spans.iter().filter(|other| other["trace_id"] == span["trace_id"]).count();
        let there = |answer: &Value| answer["spans"].as_array().is_some_and(|found| found.len() >= expected);
        let answer = obtrace.eventually(&format!("/api/v1/traces/{trace_id}"), VISIBLE_WITHIN, there);
        let found = list(&answer, "spans");
        assert_eq!(found.len(), expected, "{run}: more spans than were sent: {answer:#}");
        let stored = found.iter().find(|stored| stored["span_id"] == span["span_id"]);
        same_span(
            run,
            span,
            stored.unwrap_or_else(|| panic!("{run}: no span {:?} in {answer:#}", span["span_id"])),
        );
        assert_eq!(stored.map(|stored| &stored["service"]), Some(&sent["service"]), "{run}");
    }
}

fn same_span(run: &str, sent: &Value, stored: &Value) {
    for key in ["name", "trace_id", "span_id", "parent_span_id", "kind", "start_unix_nano", "end_unix_nano"] {
        assert_eq!(stored[key], sent[key], "{run}: {key} of {stored:#}");
    }
    assert_eq!(stored["status"]["code"], sent["status"], "{run}: status of {stored:#}");
    let (before, after) = (&sent["attributes"], &stored["attributes"]);
    let keys = |value: &Value| value.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>());
    assert_eq!(keys(after), keys(before), "{run}: attributes of {stored:#}");
    for (key, value) in before.as_object().expect("attributes") {
        assert!(same_value(value, &after[key]), "{run}: attribute {key} is {}, sent was {value}", after[key]);
    }
    let names = |list: &Value| -> Vec<Value> {
        list.as_array().into_iter().flatten().map(|event| event["name"].clone()).collect()
    };
    assert_eq!(Value::Array(names(&stored["events"])), sent["events"], "{run}: events of {stored:#}");
    let linked: Vec<_> = list(stored, "links").iter().map(|link| link["span_id"].clone()).collect();
    assert_eq!(Value::Array(linked), sent["links"], "{run}: links of {stored:#}");
}

/// Integers beyond 53 bits come back as text, and named so beside the attributes.
fn same_value(sent: &Value, stored: &Value) -> bool {
    let large = sent.as_i64().is_some_and(|number| number.unsigned_abs() > 1 << 53);
    if large { stored.as_str() == Some(&sent.to_string()) } else { stored == sent }
}

/// Each log record once, with its severity, within the trace.
fn logs_come_back(obtrace: &Obtrace, run: &str, sent: &Value) {
    let logs = list(sent, "logs");
    let there = |answer: &Value| answer["items"].as_array().is_some_and(|items| items.len() >= logs.len());
    let answer =
        obtrace.eventually(&format!("/api/v1/logs?q=attr.client.run%3D{run}"), VISIBLE_WITHIN, there);
    let items = list(&answer, "items");
    assert_eq!(items.len(), logs.len(), "{run}: more log records than were sent: {answer:#}");
    let root = list(sent, "spans").iter().find(|span| span["name"] == "root").expect("root span");
    for log in logs {
        let stored = items.iter().find(|item| item["body"] == log["body"]);
        let stored = stored.unwrap_or_else(|| panic!("{run}: no log {:?} in {answer:#}", log["body"]));
        for key in ["severity_number", "severity_text"] {
            assert_eq!(stored[key], log[key], "{run}: {key} of {stored:#}");
        }
        for key in ["trace_id", "span_id"] {
            assert_eq!(stored[key], root[key], "{run}: {key} of {stored:#}");
        }
        assert_eq!(stored["attributes"]["whole"], 7, "{run}: {stored:#}");
    }
}

/// Every metric with its kind and value: the newest value of gauges and sums, the observations of distributions.
fn metrics_come_back(obtrace: &Obtrace, run: &str, sent: &Value) {
    for metric in list(sent, "metrics") {
        let (name, kind) = (metric["name"].as_str().expect("name"), metric["type"].as_str().expect("type"));
        let agg = if kind.contains("histogram") { "count" } else { "last" };
        let path = format!("/api/v1/metrics/query?name={name}&agg={agg}&step=1h&attr.client.run={run}");
        let there = |answer: &Value| answer["items"].as_array().is_some_and(|items| !items.is_empty());
        let answer = obtrace.eventually(&path, VISIBLE_WITHIN, there);
        assert_eq!(answer["type"], metric["type"], "{run}: {name} in {answer:#}");
        let points: Vec<f64> = list(&answer, "items")
            .iter()
            .flat_map(|series| list(series, "points"))
            .filter_map(|point| point["value"].as_f64())
            .collect();
        let expected = metric["value"].as_f64().expect("value");
        assert_eq!(points, [expected], "{run}: {name} in {answer:#}");
    }
}
