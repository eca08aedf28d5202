//! Which layer holds, and what each value says of its origin.

use std::path::PathBuf;

use obtrace::config::ingest::IngestConfig;
use obtrace::config::units::ByteSize;
use obtrace::config::{Config, Flag, LoadArgs};
use obtrace::domain::envelope::WireFormat;

fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn nothing_given_is_the_default() {
    let loaded = Config::load(&LoadArgs::default()).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.explain("serve.http").unwrap().source.to_string(), "default");
    assert_eq!(loaded.explain("serve.http").unwrap().value, "\"127.0.0.1:8080\"");
}

#[test]
fn each_layer_holds_against_the_one_below_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let one =
        file(&dir, "one.toml", "[ingest]\nmax_body = \"1MiB\"\nretention_days = 1\ndev_loopback = false\n");
    let two = file(
        &dir,
        "two.toml",
        "\n[ingest]\nretention_days = 2\nack_timeout = \"2s\"\naccept_past = \"2d\"\n",
    );
    let args = LoadArgs {
        texts: Vec::new(),
        profile: Some("dev".into()),
        files: vec![one.clone(), two.clone()],
        env: env(&[
            ("OBTRACE__INGEST__ACK_TIMEOUT", "3s"),
            ("OBTRACE__INGEST__ACCEPT_PAST", "3d"),
            ("HOME", "/"),
        ]),
        flags: vec![Flag::assignment("ingest.accept_past = 4d").unwrap()],
    };
    let loaded = Config::load(&args).unwrap();
    let expected = [
        ("ingest.max_decompressed", "\"64MiB\"", "default".to_owned()),
        (
            "ingest.cors_origins",
            "[\"http://localhost:*\", \"http://127.0.0.1:*\"]",
            "profile dev:7".to_owned(),
        ),
        ("ingest.max_body", "\"1MiB\"", format!("{}:2", one.display())),
        ("ingest.dev_loopback", "false", format!("{}:4", one.display())),
        ("ingest.retention_days", "2", format!("{}:3", two.display())),
        ("ingest.ack_timeout", "\"3s\"", "environment OBTRACE__INGEST__ACK_TIMEOUT".to_owned()),
        ("ingest.accept_past", "\"4d\"", "flag --set".to_owned()),
    ];
    for (path, value, source) in expected {
        let found = loaded.explain(path).unwrap();
        assert_eq!((found.value.as_str(), found.source.to_string()), (value, source), "{path}");
    }
    assert_eq!(loaded.config.ingest.max_body, ByteSize::mib(1));
    assert!(!loaded.config.ingest.dev_loopback);
}

#[test]
fn the_well_known_names_stand_below_the_prefixed_ones() {
    let pairs = [("WIRE_FORMAT", "OTLP"), ("OBTRACE_DATA_DIR", "/d"), ("OBTRACE_ENGINE_LIBRARY", "/l.so")];
    let loaded = Config::load(&LoadArgs { env: env(&pairs), ..LoadArgs::default() }).unwrap();
    assert_eq!(loaded.config.ingest.wire_format, WireFormat::Otlp);
    assert_eq!(loaded.config.data_dir, PathBuf::from("/d"));
    assert_eq!(loaded.config.telemetry.engine.library, Some(PathBuf::from("/l.so")));
    assert_eq!(loaded.explain("ingest.wire_format").unwrap().source.to_string(), "environment WIRE_FORMAT");

    let both = [("OBTRACE__INGEST__WIRE_FORMAT", "json"), ("WIRE_FORMAT", "otlp")];
    let loaded = Config::load(&LoadArgs { env: env(&both), ..LoadArgs::default() }).unwrap();
    assert_eq!(loaded.config.ingest.wire_format, WireFormat::Json);
}

#[test]
fn text_from_outside_becomes_the_type_of_its_key() {
    let pairs = [
        ("OBTRACE__PROCESS__BLOCK_ROWS", "20_000"),
        ("OBTRACE__INGEST__DEV_LOOPBACK", "true"),
        ("OBTRACE__INGEST__CORS_ORIGINS", "https://a.example, https://b.example"),
        ("OBTRACE__SUPERVISION__DEFAULTS__BACKOFF__JITTER", "0.5"),
        ("OBTRACE__INGEST__MAX_BODY", "1048576"),
        ("OBTRACE__TELEMETRY__URL", ""),
    ];
    let dir = tempfile::tempdir().unwrap();
    let files = vec![file(&dir, "f.toml", "[telemetry]\nurl = \"http://ch:8123/\"\n")];
    let loaded =
        Config::load(&LoadArgs { env: env(&pairs), files: files.clone(), ..LoadArgs::default() }).unwrap();
    let IngestConfig { dev_loopback, cors_origins, max_body, .. } = &loaded.config.ingest;
    assert!(*dev_loopback);
    assert_eq!(*cors_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(*max_body, ByteSize::mib(1));
    assert_eq!(loaded.config.process.block_rows, 20_000);
    assert_eq!(loaded.config.supervision.node("root").backoff.jitter, 0.5);
    assert_eq!(loaded.config.telemetry.url, None, "empty text takes the file's value back");

    let loaded = Config::load(&LoadArgs { files, ..LoadArgs::default() }).unwrap();
    assert_eq!(loaded.config.telemetry.url.unwrap().as_str(), "http://ch:8123");
}

#[test]
fn a_secret_is_never_shown() {
    let pairs = [("OBTRACE__TELEMETRY__PASSWORD", "hunter2")];
    let loaded = Config::load(&LoadArgs { env: env(&pairs), ..LoadArgs::default() }).unwrap();
    assert_eq!(loaded.config.telemetry.password.expose(), "hunter2");
    assert_eq!(loaded.explain("telemetry.password").unwrap().value, "\"***\"");
    for shown in [format!("{:?}", loaded.config), loaded.provenance.to_string()] {
        assert!(!shown.contains("hunter2"));
    }
}

#[test]
fn api_keys_come_as_tables_or_as_one_variable() {
    let hash = obtrace::config::tenant::KeyHash::of("secret-1").to_string();
    let text = format!(
        "[[tenant.keys]]\nname = \"a\"\nhash = \"{hash}\"\ntenant = \"t1\"\nenv = \"prod\"\nexpires = 2030-01-31\nretention_days = 7\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let files = vec![file(&dir, "f.toml", &text)];
    let loaded = Config::load(&LoadArgs { files, ..LoadArgs::default() }).unwrap();
    let key = &loaded.config.tenant.keys[0];
    assert_eq!(format!("{:?}", key.scope().unwrap()), "t1/default//prod");
    assert_eq!(key.hash, obtrace::config::tenant::KeyHash::of("secret-1"));
    assert_eq!(key.expires.unwrap().unix_nanos(), 1_896_048_000_000_000_000);
    assert_eq!(key.retention_days, Some(7));
    assert!(loaded.explain("tenant.keys.0.tenant").unwrap().source.to_string().ends_with("f.toml:4"));

    let value = format!("[{{ name = \"b\", hash = \"{hash}\", tenant = \"t2\" }}]");
    let pairs = [("OBTRACE__TENANT__KEYS", value.as_str())];
    let loaded = Config::load(&LoadArgs { env: env(&pairs), ..LoadArgs::default() }).unwrap();
    assert_eq!(loaded.config.tenant.keys[0].tenant, "t2");
}

#[test]
fn a_node_says_where_it_inherits_from() {
    let text = "[supervision.defaults]\nlane = { capacity = 9 }\n[supervision.tree.a]\nintensity = 2\nreplicas = 3\n[supervision.tree.a.b]\nperiod = \"1m\"\n";
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "f.toml", text);
    let loaded = Config::load(&LoadArgs { files: vec![path.clone()], ..LoadArgs::default() }).unwrap();
    let cases = [
        ("supervision.tree.a.b.period", "\"1m\"", Some(7)),
        ("supervision.tree.a.b.intensity", "2", Some(4)),
        ("supervision.tree.a.b.lane.capacity", "9", Some(2)),
        ("supervision.tree.a.b.c.intensity", "2", Some(4)),
        ("supervision.tree.a.b.c.lane.capacity", "9", Some(2)),
        ("supervision.tree.a.replicas", "3", Some(5)),
        ("supervision.tree.a.b.replicas", "1", None),
        ("supervision.tree.x.replicas", "1", None),
        ("supervision.tree.x.stop.drain", "\"10s\"", None),
    ];
    for (key, value, line) in cases {
        let found = loaded.explain(key).unwrap_or_else(|| panic!("{key}"));
        let source = line.map_or_else(|| "default".to_owned(), |line| format!("{}:{line}", path.display()));
        assert_eq!((found.value.as_str(), found.source.to_string()), (value, source), "{key}");
    }
    assert_eq!(loaded.explain("serve.htp"), None);
    assert_eq!(loaded.provenance.suggest("serve.htp"), Some("serve.http"));
}
