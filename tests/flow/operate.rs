//! What operators do: the doctor on this machine, and beside a process that runs.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Obtrace, Options};

const WITHIN: Duration = Duration::from_secs(30);

fn doctor(arguments: &[&str]) -> (i32, Vec<Value>) {
    let (status, out) = Obtrace::run(&[&["doctor", "--json"], arguments].concat(), WITHIN);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    (status.code().unwrap(), report["findings"].as_array().unwrap().clone())
}

/// Grade and words of the finding about `what`.
fn finding<'f>(findings: &'f [Value], what: &str) -> (&'f str, &'f str, &'f str) {
    let found = findings.iter().find(|finding| finding["what"] == what);
    let found = found.unwrap_or_else(|| panic!("nothing about {what}: {findings:#?}"));
    let word = |key: &str| found[key].as_str().unwrap_or_default();
    (word("grade"), word("found"), word("advice"))
}

#[test]
fn the_doctor_names_what_keeps_obtrace_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, address) = (held.local_addr().unwrap().port(), held.local_addr().unwrap().to_string());
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let (code, findings) = doctor(&["--data-dir", data, "--http", &address, "--set", "process.linger=1ms"]);
    assert_eq!(code, 1);
    let (grade, found, advice) = finding(&findings, &format!("port {port}"));
    assert_eq!(grade, "fail");
    assert!(found.contains(&format!("process {}", std::process::id())), "{found}");
    assert!(advice.contains("serve.http"), "{advice}");
    assert_eq!(finding(&findings, "data folder").0, "ok");
    assert!(!std::path::Path::new(data).exists(), "looking makes nothing");
    for what in ["clocks", "memory", "open files", "fsync", "disk", "event log"] {
        assert_ne!(finding(&findings, what).0, "fail", "{findings:#?}");
    }
    let (code, findings) = doctor(&["--data-dir", data, "--set", "process.lingr=1ms"]);
    let (grade, found, _) = finding(&findings, "configuration");
    assert_eq!((code, grade), (1, "fail"));
    assert!(found.contains("did you mean linger"), "{found}");
}

#[test]
fn the_doctor_knows_a_running_process_by_its_folder_its_ports_and_its_tree() {
    let dir = tempfile::tempdir().unwrap();
    let token = "a-token-of-some-length";
    let env = vec![("OBTRACE_ADMIN_TOKEN".to_owned(), token.to_owned())];
    let mut obtrace = Obtrace::start(dir.path(), Options { env, ..Options::default() });
    let (data, api) = (dir.path().to_str().unwrap(), obtrace.api.clone());
    let http = api.trim_start_matches("http://");
    let (_, findings) = doctor(&["--data-dir", data, "--http", http, "--api", &api, "--token", token]);
    let pid = format!("process {}", obtrace.pid());
    assert!(finding(&findings, "owner").1.contains(&pid), "{findings:#?}");
    let port = format!("port {}", http.rsplit(':').next().unwrap());
    let (grade, found, _) = finding(&findings, &port);
    assert!(grade == "ok" && found.contains(&pid), "{found}");
    assert_eq!(finding(&findings, "ready").0, "ok");
    assert!(finding(&findings, "tree").1.contains("nodes"));
    assert_eq!(finding(&findings, "event log").0, "ok");
    let (_, findings) = doctor(&["--data-dir", data, "--http", http, "--token", "another-one-entirely"]);
    let (grade, found, _) = finding(&findings, "tree");
    assert!(grade == "warn" && found.contains("401"), "{found}");
    assert!(obtrace.stop().success());
    let (code, findings) = doctor(&["--data-dir", data, "--http", http, "--api", &api]);
    let (grade, found, _) = finding(&findings, "running");
    assert_eq!((code, grade), (1, "fail"), "{found}");
    assert!(finding(&findings, "owner").1.contains("no process"), "{findings:#?}");
}
