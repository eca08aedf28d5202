//! What is refused, and in which words: the place, the key, what was expected, what was found.

use obtrace::config::{Config, Flag, LoadArgs};
use obtrace::domain::failure::{Classified, FailureClass};

/// The errors of a file's text, `F` standing for its path.
fn errors(text: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.toml");
    std::fs::write(&path, text).unwrap();
    errors_of(&LoadArgs { files: vec![path.clone()], ..LoadArgs::default() })
        .into_iter()
        .map(|error| error.replace(&path.display().to_string(), "F"))
        .collect()
}

fn errors_of(args: &LoadArgs) -> Vec<String> {
    let errors = Config::load(args).err().map(|e| e.0).unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn one_fault_gives_one_clear_error() {
    let cases = [
        ("[ingest]\nmax_bdoy = \"1MiB\"", "F:2: unknown key ingest.max_bdoy, did you mean max_body?"),
        ("[ingst]\nmax_body = \"1MiB\"", "F:1: unknown key ingst, did you mean ingest?"),
        (
            "[telemetry.engine]\ncolour = 1",
            "F:2: unknown key telemetry.engine.colour, known here: library, memory_limit, connections, start_timeout, stop_timeout",
        ),
        (
            "[store.state]\nbackend = \"postgres\"\nurl = \"postgres://h/d\"\nconnect_timeout = \"6s\"",
            "F:4: store.state.connect_timeout does not fit: connect_timeout is 6s, and a call has 5s (timeout) in all",
        ),
        (
            "[store.cache]\nbackend = \"redis\"\nurl = \"redis://h\"\ntimeout = \"100ms\"",
            "F:4: store.cache.timeout does not fit: connect_timeout is 400ms, and a call has 100ms (timeout) in all",
        ),
        ("ingest = 5", "F:1: ingest: expected a table, found the number 5"),
        (
            "[ingest]\nmax_body = \"64 apples\"",
            "F:2: ingest.max_body: expected a size such as \"64MiB\", found \"64 apples\" (unknown unit \"apples\", use B, KiB, MiB, GiB or TiB)",
        ),
        (
            "[ingest]\nack_timeout = 5",
            "F:2: ingest.ack_timeout: expected a duration such as \"200ms\", \"1m30s\" or \"7d\", found the number 5 (it needs quotes and a unit: \"5s\" or \"5ms\")",
        ),
        (
            "[ingest]\ndev_loopback = \"true\"",
            "F:2: ingest.dev_loopback: expected true or false, found \"true\"",
        ),
        (
            "[ingest]\nretention_days = 70000",
            "F:2: ingest.retention_days: expected a whole number from 0 to 65535, found the number 70000",
        ),
        (
            "[ingest]\nretention_days = \"30\"",
            "F:2: ingest.retention_days: expected a whole number from 0 to 65535, found \"30\"",
        ),
        (
            "[ingest]\nwire_format = \"xml\"",
            "F:2: ingest.wire_format: expected one of \"json\" \"otlp\" \"avro\", found \"xml\"",
        ),
        (
            "[ingest]\ncors_origins = [\n  \"a\",\n  1,\n]",
            "F:4: ingest.cors_origins: expected text in quotes, found the number 1",
        ),
        (
            "[serve]\nhttp = \"localhost:1\"",
            "F:2: serve.http: expected an address with port such as \"127.0.0.1:4317\" or \"[::]:4317\", found \"localhost:1\" (write 127.0.0.1 for localhost)",
        ),
        (
            "[telemetry]\nurl = \"http://u:p@h\"",
            "F:2: telemetry.url: expected an address such as \"http://127.0.0.1:8123\", found \"http://***@h\" (put user and password into their own keys)",
        ),
        (
            "[telemetry.engine]\nlibrary = \"\"\nmemory_limit = \"1MiB\"",
            "F:3: telemetry.engine.memory_limit must be at least 256MiB: the engine needs about 200MiB to stand",
        ),
        (
            "[serve]\nhttp = \"127.0.0.1:4318\"",
            "F:2: serve.http does not fit: serve.http and ingest.otlp_http are both 127.0.0.1:4318",
        ),
        (
            "[stream]\nmax_record_bytes = \"901MiB\"\nqueue_bytes = \"1GiB\"\nbackend = \"kafka\"\nkafka.brokers = [\"k:9092\"]",
            "F:2: stream.max_record_bytes must be at most 900MiB with backend = \"kafka\": its clients take no more",
        ),
        (
            "[stream]\ncompression = \"lz\"",
            "F:2: stream.compression: expected one of \"lz4\" \"none\", found \"lz\" (did you mean \"lz4\"?)",
        ),
        (
            "[stream]\nqueue_bytes = \"1MiB\"",
            "F:2: stream.queue_bytes does not fit: queue_bytes (1MiB) must hold one record of max_record_bytes (96MiB)",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(errors(text), [expected], "{text}");
    }
}

#[test]
fn roles_that_would_each_keep_a_log_or_an_engine_are_refused() {
    let url = "[telemetry]\nurl = \"http://ch:8123\"";
    let cases = [
        (
            "roles = [\"edge\"]".to_owned(),
            "F:1: roles: expected one of \"ingest-edge\" \"worker-otlp\" \"query-gateway\", found \"edge\"",
        ),
        (
            "roles = [\"incident-engine\"]".to_owned(),
            "F:1: roles: expected one of \"ingest-edge\" \"worker-otlp\" \"query-gateway\", found \"incident-engine\" (this build does not have that role yet)",
        ),
        (
            "roles = []".to_owned(),
            "F:1: roles must name a role, or be left out for all of them: ingest-edge, worker-otlp, query-gateway",
        ),
        (
            "roles = [\"ingest-edge\", \"worker-otlp\", \"query-gateway\", \"worker-otlp\"]".to_owned(),
            "F:1: roles names worker-otlp twice",
        ),
        (
            format!("roles = [\"ingest-edge\"]\n{url}"),
            "F:1: roles leaves out worker-otlp, but the event log is in data_dir, where no other process gets at it: set stream.backend to \"kafka\", or run ingest-edge, worker-otlp in one process",
        ),
        (
            format!("roles = [\"query-gateway\"]\n{url}"),
            "F:1: roles leaves out ingest-edge, worker-otlp, but the event log is in data_dir, where no other process gets at it: set stream.backend to \"kafka\", or run ingest-edge, worker-otlp in one process",
        ),
        (
            "roles = [\"worker-otlp\", \"ingest-edge\"]".to_owned(),
            "F:1: roles leaves out query-gateway, but the telemetry store is the embedded engine, where no other process gets at it: set telemetry.url to a ClickHouse server, or run worker-otlp, query-gateway in one process",
        ),
        (format!("roles = [\"worker-otlp\", \"ingest-edge\"]\n{url}"), ""),
    ];
    for (text, expected) in cases {
        let expected: Vec<&str> = [expected].into_iter().filter(|e| !e.is_empty()).collect();
        assert_eq!(errors(&text)[..], expected[..], "{text}");
    }
    let flags = vec![Flag::new("--roles", "roles", "worker-otlp,ingest-edge, worker-replay")];
    let found = errors_of(&LoadArgs { flags, ..LoadArgs::default() });
    assert!(found.len() == 1 && found[0].starts_with("flag --roles: roles: "), "{found:?}");
    let env = vec![("OBTRACE_ROLES".into(), "ingest-edge".into())];
    let found = errors_of(&LoadArgs { env, ..LoadArgs::default() });
    assert!(
        found.len() == 1 && found[0].starts_with("environment OBTRACE_ROLES: roles leaves out"),
        "{found:?}"
    );
}

#[test]
fn telemetry_settings_that_do_not_fit_are_refused() {
    let cases = [
        (
            "more_urls = [\"http://b:8123\"]\nurl = \"http://a:8123\"",
            "F:2: telemetry.more_urls needs telemetry.url and telemetry.cluster.name: servers that are no cluster do not know of each other's blocks",
        ),
        (
            "reader = { user = \"r\" }",
            "F:2: telemetry.reader.user needs telemetry.url: the embedded engine has one user, held to one tenant a query",
        ),
        (
            "url = \"http://a:8123\"\nreader = { user = \"default\" }",
            "F:3: telemetry.reader.user must be another user than telemetry.user, which writes",
        ),
        (
            "cluster = { name = \"c\" }",
            "F:2: telemetry.cluster.name needs telemetry.url: the embedded engine is no cluster",
        ),
        (
            "url = \"http://a:8123\"\ncluster = { name = \"c\", keeper_path = \"/tables/{table}\" }",
            "F:3: telemetry.cluster.keeper_path must begin with / and have {shard} in it, else all shards are replicas of one",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(errors(&format!("[telemetry]\n{text}")), [expected], "{text}");
    }
}

#[test]
fn api_keys_are_checked_and_never_quoted() {
    let hash = format!("sha256:{}", "ab".repeat(32));
    let cases = [
        (
            "name = \"a\"\nhash = \"my-real-key\"\ntenant = \"t\"",
            "F:3: tenant.keys.0.hash: expected \"sha256:\" and 64 hex digits, found something else (make it with: printf %s \"$KEY\" | sha256sum)",
        ),
        (
            &format!("hash = \"{hash}\"\ntenant = \"t\""),
            "F:2: tenant.keys.0.hash belongs to a key without a name: give it one",
        ),
        (
            &format!("name = \"a\"\nhash = \"{hash}\""),
            "F:1: tenant.keys.0.tenant is wrong: tenant \"\" is not a valid name",
        ),
        (
            &format!("name = \"a\"\nhash = \"{hash}\"\ntenant = \"a/b\""),
            "F:4: tenant.keys.0.tenant is wrong: tenant \"a/b\" is not a valid name",
        ),
        (
            &format!("name = \"a\"\nhash = \"{hash}\"\ntenant = \"t\"\nexpires = \"soon\""),
            "F:5: tenant.keys.0.expires: expected a time such as",
        ),
    ];
    for (text, expected) in cases {
        let found = errors(&format!("[[tenant.keys]]\n{text}"));
        assert!(found[0].starts_with(expected), "{text}\n{found:?}");
        assert!(found.iter().all(|error| !error.contains("my-real-key")));
    }
    let twice = format!("[[tenant.keys]]\nname = \"a\"\nhash = \"{hash}\"\ntenant = \"t\"\n").repeat(2);
    assert_eq!(
        errors(&twice),
        [
            "F:6: tenant.keys.1.name is \"a\" like that of keys.0",
            "F:7: tenant.keys.1.hash is the same as that of keys.0"
        ]
    );
}

#[test]
fn all_faults_of_all_layers_are_shown_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good.toml");
    std::fs::write(&good, "[ingest]\nmax_bdoy = 1\nretention_days = 0\n").unwrap();
    let broken = dir.path().join("broken.toml");
    std::fs::write(&broken, "[ingest\n").unwrap();
    let args = LoadArgs {
        texts: Vec::new(),
        profile: Some("prod".into()),
        files: vec![good, broken, dir.path().join("missing.toml")],
        env: vec![
            ("OBTRACE__SERV__HTTP".into(), "x".into()),
            ("OBTRACE__SERVE".into(), "x".into()),
            ("OBTRACE__A____B".into(), "x".into()),
            ("WIRE_FORMAT".into(), "xml".into()),
        ],
        flags: vec![Flag::new("--otlp-grpc", "ingest.otlp_grpc", "4317")],
    };
    let found = errors_of(&args);
    let expected = [
        "profile prod: there is no such profile, there are: dev, cluster",
        "broken.toml:1: not valid TOML",
        "missing.toml: cannot be read",
        "environment OBTRACE__A____B: \"a..b\" is not the name of a key",
        "good.toml:2: unknown key ingest.max_bdoy, did you mean max_body?",
        "flag --otlp-grpc: ingest.otlp_grpc: expected an address",
        "environment WIRE_FORMAT: ingest.wire_format: expected one of",
        "good.toml:3: ingest.retention_days must be at least 1",
        "environment OBTRACE__SERVE: serve: expected a table, found \"x\", set its keys one by one (OBTRACE__SERVE__HTTP)",
        "environment OBTRACE__SERV__HTTP: unknown key serv, did you mean serve?",
    ];
    for part in expected {
        assert_eq!(found.iter().filter(|error| error.contains(part)).count(), 1, "{part}\n{found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    let errors = Config::load(&args).unwrap_err();
    assert_eq!(errors.class(), FailureClass::Config);
    assert!(errors.to_string().starts_with("the configuration has 10 errors\n  profile prod: "), "{errors}");
}

#[test]
fn a_set_flag_without_a_value_is_refused() {
    assert_eq!(Flag::assignment("serve.http").unwrap_err(), "expected key.path=value, found \"serve.http\"");
    assert!(Flag::assignment("=5").is_err());
    assert_eq!(Flag::assignment("a.b=c=d").unwrap().value, "c=d");
}
