//! `obtrace migrate`: looking changes nothing, doing it lets a process that waits for its schema go on.

use std::time::{Duration, Instant};

use obtrace::backends::telemetry::engine::{EngineChild, EngineSpec};

use crate::support::{Obtrace, Options, binary, block_on};

const WITHIN: Duration = Duration::from_secs(60);

/// Exit code and what was said.
fn migrate(args: &[&str]) -> (i32, String) {
    let (status, text) = Obtrace::run(&[&["migrate"], args].concat(), WITHIN);
    (status.code().unwrap_or(-1), text)
}

#[test]
fn a_process_waits_for_the_schema_of_a_server_until_somebody_migrates() {
    let dir = tempfile::tempdir().expect("tempdir");
    let spec = EngineSpec {
        executable: Some(binary().into()),
        ready_within: WITHIN,
        ..EngineSpec::new(dir.path().join("store"))
    };
    let child = block_on(EngineChild::spawn(spec)).expect("the engine starts");
    let endpoint = child.endpoint().expect("it is ready");
    let (data, config) = (dir.path().join("data"), dir.path().join("f.toml"));
    let text = format!(
        "data_dir = {:?}\nmigrate_on_start = false\n[telemetry]\nurl = {:?}\npassword = {:?}\n",
        data.display().to_string(),
        endpoint.url,
        endpoint.secret
    );
    std::fs::write(&config, text).expect("written");
    let with = ["--config", config.to_str().expect("utf-8")];

    let (code, plan) = migrate(&[&["--plan"], &with[..]].concat());
    assert_eq!(code, 1, "{plan}");
    assert!(plan.contains("version 0 of 1") && plan.contains("to do  V1 telemetry, 5 statements"), "{plan}");
    assert!(plan.contains("CREATE TABLE IF NOT EXISTS spans") && !plan.contains("LowCardinality"), "{plan}");
    let (code, sql) = migrate(&[&["--plan", "--sql"], &with[..]].concat());
    assert!(code == 1 && sql.contains("LowCardinality"), "a look changes nothing: {sql}");

    let mut obtrace =
        Obtrace::start(&data, Options { config: vec![config.display().to_string()], ..Options::default() });
    let engine = |obtrace: &Obtrace| {
        let (_, tree) = obtrace.get("/admin/tree");
        let store = &tree["root"]["children"][0];
        (store["children"][0]["state"].clone(), store["children"][0].to_string())
    };
    let until = Instant::now() + WITHIN;
    while !engine(&obtrace).1.contains("V1 telemetry is missing, run `obtrace migrate`") {
        assert!(Instant::now() < until, "{:?}", engine(&obtrace));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(engine(&obtrace).0, "degraded");
    assert_eq!(obtrace.get("/api/v1/services").0, 503);

    let (code, done) = migrate(&with);
    assert!(
        code == 0 && done.contains("doing  V1 telemetry") && done.ends_with("nothing is left to do\n"),
        "{done}"
    );
    obtrace.eventually("/api/v1/services", WITHIN, |_| true);
    let (code, plan) = migrate(&[&["--plan"], &with[..]].concat());
    assert!(code == 0 && plan.contains("version 1 of 1"), "{plan}");
    assert!(obtrace.stop().success());
}

#[test]
fn the_engine_of_a_data_folder_is_migrated_too_and_a_plan_makes_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let data = dir.path().join("data");
    let with = ["--data-dir", data.to_str().expect("utf-8")];
    let (code, plan) = migrate(&[&["--plan"], &with[..]].concat());
    assert!(code == 1 && plan.contains("to do  V1 telemetry"), "{plan}");
    assert!(!data.exists(), "nothing was made");
    let (code, done) = migrate(&with);
    assert!(code == 0 && done.contains("doing  V1 telemetry"), "{done}");
    let (code, plan) = migrate(&[&["--plan"], &with[..]].concat());
    assert!(code == 0 && plan.contains("version 1 of 1"), "{plan}");
    let mut obtrace = Obtrace::start(&data, Options::default());
    let (code, _) = migrate(&[&["--plan"], &with[..]].concat());
    assert_eq!(code, 78, "the folder has an owner");
    assert!(obtrace.stop().success());
}

#[test]
fn a_store_that_is_away_is_said_so() {
    let (code, _) = migrate(&["--plan", "--set", "telemetry.url=http://127.0.0.1:1"]);
    assert_eq!(code, 69);
    let (code, _) = migrate(&["--plan", "--set", "telemetry.url=nowhere"]);
    assert_eq!(code, 78);
}
