//! `obtrace migrate`: looking changes nothing, doing it lets a process that waits for its schema go on.

use std::time::{Duration, Instant};

use crate::support::pg::Database;
use crate::support::store::Store;
use crate::support::{Obtrace, Options, block_on, services};

const WITHIN: Duration = Duration::from_secs(60);

/// Exit code and what was said.
fn migrate(args: &[&str]) -> (i32, String) {
    let (status, text) = Obtrace::run(&[&["migrate"], args].concat(), WITHIN);
    (status.code().unwrap_or(-1), text)
}

#[test]
fn a_process_waits_for_the_schema_of_a_server_until_somebody_migrates() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = Store::start(&dir.path().join("store"));
    let (data, config) = (dir.path().join("data"), dir.path().join("f.toml"));
    let text = format!(
        "data_dir = {:?}\nmigrate_on_start = false\n[telemetry]\nurl = {:?}\npassword = {:?}\n",
        data.display().to_string(),
        store.url(),
        store.secret()
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
    assert!(plan.contains("V2 deploys"), "{plan}");
    let (code, done) = migrate(&with);
    assert!(code == 0 && done.contains("doing  V1 telemetry") && done.contains("V2 deploys"), "{done}");
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

#[test]
fn state_in_postgres_is_migrated_by_its_owner_and_processes_wait_for_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let database = block_on(Database::bare(&services::postgres()));
    let file = dir.path().join("f.toml");
    let config = |role: &str| {
        let text = format!(
            "data_dir = {:?}\nmigrate_on_start = false\n[store.state]\nbackend = \"postgres\"\ntls = \"off\"\ncheck_every = \"200ms\"\nurl = {:?}\n\
             migrate_url = {:?}\n",
            dir.path().join("data").display().to_string(),
            database.url("obtrace_app"),
            database.url(role),
        );
        std::fs::write(&file, text).expect("written");
        ["--config".to_owned(), file.display().to_string()]
    };
    let run = |with: &[String], plan: &[&str]| {
        let with: Vec<&str> = with.iter().map(String::as_str).collect();
        migrate(&[plan, &with[..]].concat())
    };
    let with = config("obtrace_migrate");
    let (code, plan) = run(&with, &["--plan"]);
    assert!(code == 1 && plan.contains("V1 usage_and_keys") && plan.contains("V2 deploys"), "{plan}");
    let (code, _) = run(&config("obtrace_app"), &[]);
    assert_eq!(code, 78, "who is no owner may not");
    let with = {
        config("obtrace_migrate");
        with
    };
    let options = Options { config: vec![with[1].clone()], ..Options::default() };
    let mut obtrace = Obtrace::start(&dir.path().join("data"), options);
    let waits = |obtrace: &Obtrace| obtrace.get("/admin/tree").1.to_string().contains("run obtrace migrate");
    let until = Instant::now() + WITHIN;
    while !waits(&obtrace) {
        assert!(Instant::now() < until, "it says what it waits for");
        std::thread::sleep(Duration::from_millis(50));
    }
    // The engine of the folder belongs to the process that runs; state is migrated all the same.
    let (code, done) = run(&with, &[]);
    assert!(code == 78 && done.contains("V2 deploys"), "{done}");
    let until = Instant::now() + WITHIN;
    while waits(&obtrace) {
        assert!(Instant::now() < until, "it goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(obtrace.stop().success());
}
