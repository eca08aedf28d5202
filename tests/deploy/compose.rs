//! `deploy/compose.yaml`: valid as a whole, each role a service, nothing starts before what it needs.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::tools::{good, list, obtrace_takes, path, text, tools};

fn model() -> Option<Value> {
    let check = &tools()?["DEPLOY_CHECK"];
    let printed = good(check, &["compose", "deploy/compose.yaml"], "");
    Some(serde_json::from_str(&printed).expect("JSON"))
}

#[test]
fn it_is_valid_and_has_each_role_and_each_service() {
    let Some(model) = model() else { return };
    let services = model["services"].as_object().expect("services");
    for name in ["redpanda", "clickhouse", "postgres", "redis", "minio", "ollama", "migrate"] {
        assert!(services.contains_key(name), "there is no {name}");
    }
    for role in ["ingest-edge", "worker-otlp", "query-gateway"] {
        let command: Vec<&str> = list(&services[role], "/command").iter().filter_map(Value::as_str).collect();
        assert_eq!(command[..3], ["serve", "--roles", role], "{role}");
        let waits = text(&services[role], "/depends_on/migrate/condition");
        assert_eq!(waits, "service_completed_successfully", "{role} must wait for the migration");
        // The budget of 45 s and a reserve.
        assert_eq!(text(&services[role], "/stop_grace_period"), "1m0s", "{role}");
    }
}

#[test]
fn what_others_wait_for_has_a_check_or_an_end() {
    let Some(model) = model() else { return };
    let services = model["services"].as_object().expect("services");
    let mut waited_for = 0;
    for (name, service) in services {
        for (needed, how) in service["depends_on"].as_object().into_iter().flatten() {
            waited_for += 1;
            match text(how, "/condition") {
                "service_healthy" => {
                    assert!(
                        services[needed].get("healthcheck").is_some(),
                        "{name} waits for {needed} to be healthy"
                    );
                }
                "service_completed_successfully" => {
                    assert_ne!(services[needed]["restart"], "unless-stopped", "{needed} never ends");
                }
                other => panic!("{name} waits for {needed} by {other}, which does not mean that it serves"),
            }
        }
    }
    assert!(waited_for >= 8, "{waited_for} dependencies");
}

#[test]
fn no_image_floats_and_nothing_is_open_to_other_machines() {
    let Some(model) = model() else { return };
    for (name, service) in model["services"].as_object().expect("services") {
        let image = text(service, "/image");
        let built = service.get("build").is_some();
        assert!(
            built || image.contains(':') && !image.ends_with(":latest"),
            "{name}: {image} names no version"
        );
        for port in list(service, "/ports") {
            assert_eq!(text(port, "/host_ip"), "127.0.0.1", "{name}: {port}");
        }
    }
}

#[test]
fn this_build_takes_its_configuration() {
    let config = std::fs::read_to_string(path("deploy/compose/obtrace.toml")).expect("the file");
    let Some(model) = model() else { return };
    for role in ["ingest-edge", "worker-otlp", "query-gateway"] {
        let given = model["services"][role]["environment"].as_object().expect("variables").iter();
        let mut env: Vec<(String, String)> =
            given.map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned())).collect();
        env.push(("OBTRACE_ROLES".into(), role.into()));
        assert_eq!(obtrace_takes(&config, &env), Ok(()), "{role}");
    }
    assert!(obtrace_takes(&format!("{config}\n[sreve]\n"), &[]).is_err(), "a slip is found");
}

#[test]
fn the_tool_finds_what_is_wrong() {
    let Some(tools) = tools() else { return };
    let text = std::fs::read_to_string(path("deploy/compose.yaml")).expect("the file");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("compose.yaml");
    for (right, wrong) in [
        ("    healthcheck:", "    healthchek:"),
        ("redpanda: {condition: service_healthy}", "redpnada: {condition: service_healthy}"),
        ("stop_grace_period: 60s", "stop_grace_period: sixty"),
    ] {
        assert!(text.contains(right), "{right} is not in the file any more");
        std::fs::write(&file, text.replace(right, wrong)).expect("written");
        let output =
            crate::tools::feed(&tools["DEPLOY_CHECK"], &["compose", file.to_str().expect("utf-8")], "");
        assert!(!output.status.success(), "{wrong} was taken");
    }
}

/// First parts of the paths outside of `src/` that the sources below a folder include.
fn included(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            included(&entry, found);
            continue;
        }
        let text = std::fs::read_to_string(&entry).expect("a source");
        for rest in text.split("include_str!(\"").chain(text.split("include_bytes!(\"")).skip(1) {
            let inner = rest.trim_start_matches("../");
            let climbs = (rest.len() - inner.len()) / 3;
            let depth = entry.strip_prefix(path("src")).expect("below src").components().count();
            if climbs >= depth {
                found.extend(inner.split('/').next().map(str::to_owned));
            }
        }
    }
}

#[test]
fn the_image_has_what_the_build_reads() {
    let dockerfile = std::fs::read_to_string(path("deploy/Dockerfile")).expect("the file");
    let ignored = std::fs::read_to_string(path("deploy/Dockerfile.dockerignore")).expect("the file");
    let manifest = std::fs::read_to_string(path("Cargo.toml")).expect("the manifest");
    let copied: Vec<&str> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|rest| !rest.starts_with("--from"))
        .flat_map(|rest| rest.split(' ').take(rest.split(' ').count() - 1))
        .collect();
    // Cargo wants every target's file, even those it does not build.
    let targets = manifest.lines().filter_map(|line| line.strip_prefix("path = \"")?.split('/').next());
    for needed in targets.chain(["src", "config", "migrations", "Cargo.lock", ".cargo"]) {
        assert!(copied.contains(&needed), "the Dockerfile does not copy {needed}");
    }
    let mut read = BTreeSet::new();
    included(&path("src"), &mut read);
    assert!(read.contains("proto") && read.contains("migrations"), "{read:?}");
    for needed in &read {
        assert!(
            copied.contains(&needed.as_str()),
            "the Dockerfile does not copy {needed}, which the sources include"
        );
    }
    for part in copied {
        assert!(path(part).exists(), "{part} is not in the repository");
        assert!(ignored.lines().any(|line| line == format!("!{part}")), "{part} is left out of the context");
    }
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a version");
    assert!(
        dockerfile.contains(&format!("FROM rust:{}-", version.trim_matches('"'))),
        "another Rust than {version}"
    );
}
