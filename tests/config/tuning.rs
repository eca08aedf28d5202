//! `obtrace config check | explain | diff | lint` as an operator sees them, and the rules behind them.

use std::path::{Path, PathBuf};
use std::process::Command;

use obtrace::config::effect::Effect;
use obtrace::config::{Flag, LoadArgs, Loaded, reference};
use obtrace::supervisors::tuning;
use obtrace::supervisors::tuning::changes::{self, Change};
use obtrace::supervisors::tuning::lint::{self, Line, Verdict};
use obtrace::supervisors::tuning::machine::Machine;

/// A machine on which the defaults are at ease.
const ROOMY: Machine = Machine { memory: Some(16 << 30), cores: 4 };

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn load(&self, text: &str) -> Loaded {
        let files = vec![self.put("f.toml", text)];
        tuning::load(&LoadArgs { files, ..LoadArgs::default() }).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// Runs `obtrace config …` in the folder of the files. Exit code, standard output, standard error.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_obtrace"));
        command.arg("config").args(args).current_dir(self.0.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OBTRACE_")) {
            command.env_remove(name);
        }
        let output = command.env_remove("WIRE_FORMAT").output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }
}

fn rule<'a>(lines: &'a [Line], name: &str) -> &'a Line {
    lines.iter().find(|line| line.name == name).unwrap_or_else(|| panic!("no rule {name}"))
}

/// The profile of a cluster holds for every role, alone and together, and its numbers fit.
#[test]
fn the_cluster_profile_is_right_for_each_role() {
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/profiles/cluster.toml");
    let profile = profile.to_str().unwrap();
    for roles in ["ingest-edge", "worker-otlp", "query-gateway", "ingest-edge,worker-otlp,query-gateway"] {
        let (code, out, err) = Files::new().run(&["check", profile, "--roles", roles]);
        assert_eq!(code, 0, "{roles}: {out}{err}");
        let files = vec![PathBuf::from(profile)];
        let flags = vec![Flag::new("--roles", "roles", roles)];
        let loaded = tuning::load(&LoadArgs { files, flags, ..LoadArgs::default() }).unwrap();
        let failing: Vec<String> = lint::lint(&loaded, ROOMY)
            .iter()
            .filter(|line| line.verdict == Verdict::Fail)
            .map(ToString::to_string)
            .collect();
        assert!(failing.is_empty(), "{roles}: {failing:#?}");
    }
}

#[test]
fn every_key_says_what_a_change_needs() {
    let without: Vec<&String> =
        reference::manual().iter().filter(|(_, doc)| doc.effect.is_none()).map(|(path, _)| path).collect();
    assert!(without.is_empty(), "no effect stands beside {without:?}, nor beside a section around them");
    assert!(reference::manual().len() > 80);
    for (path, node) in
        [("supervision.tree.store.writer.lane.bytes", "store.writer"), ("supervision.tree.a.pool", "a")]
    {
        assert_eq!(reference::split_node(path).map(|(node, _)| node), Some(node), "{path}");
    }
    // A key names nodes that are there.
    for (path, doc) in reference::manual() {
        if let Some(Effect::Restarts(nodes)) = doc.effect {
            for node in nodes {
                assert!(
                    obtrace::supervisors::policies::PATHS.contains(node),
                    "{path} restarts {node}, which is no node"
                );
            }
        }
    }
}

fn changes_of(old: &str, new: &str) -> Vec<Change> {
    let (a, b) = (Files::new(), Files::new());
    changes::between(&a.load(old), &b.load(new))
}

#[test]
fn a_change_names_its_effect_and_the_nodes_it_reaches() {
    let found = changes_of(
        "[ingest]\notlp_http = \"127.0.0.1:4318\"\n[supervision.tree.store]\nintensity = 5\n",
        "log = \"debug\"\ndata_dir = \"d\"\n[ingest]\notlp_http = \"127.0.0.1:4399\"\n[supervision.tree.store.writer]\nlane = { capacity = 32 }\n",
    );
    let told: Vec<(&str, &str, &str, String, Vec<&str>)> = found
        .iter()
        .map(|c| (c.key.as_str(), c.old.as_str(), c.new.as_str(), c.effect.to_string(), c.restarts()))
        .collect();
    let expected = [
        ("data_dir", "\"data\"", "\"d\"", "restarts the process", vec![]),
        (
            "ingest.otlp_http",
            "\"127.0.0.1:4318\"",
            "\"127.0.0.1:4399\"",
            "restarts ingest.http",
            vec!["ingest.http"],
        ),
        ("log", "\"info\"", "\"debug\"", "live", vec![]),
        ("supervision.tree.store.writer.lane.capacity", "64", "32", "live", vec![]),
    ];
    for (found, (key, old, new, effect, restarts)) in told.iter().zip(expected) {
        assert_eq!(*found, (key, old, new, effect.to_owned(), restarts));
    }
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(found[3].source.to_string().ends_with("f.toml:6"), "{}", found[3].source);
}

#[test]
fn a_default_shows_the_nodes_that_it_reaches_and_no_others() {
    let found = changes_of(
        "[supervision.tree.store.writer]\nintensity = 9\n",
        "[supervision.defaults]\nintensity = 7\n[supervision.tree.store.writer]\nintensity = 9\n",
    );
    // The root has a number of its own in code, which a default of the file replaces as well.
    let keys: Vec<&str> = found.iter().map(|c| c.key.as_str()).collect();
    assert_eq!(keys, ["supervision.defaults.intensity"; 2], "{found:#?}");
    let nodes: Vec<&String> = found.iter().flat_map(|c| &c.nodes).collect();
    assert!(
        nodes.iter().any(|node| *node == "ingest.http") && nodes.iter().any(|node| *node == "root"),
        "{nodes:?}"
    );
    assert!(nodes.iter().all(|node| *node != "store.writer"), "{nodes:?}");
}

#[test]
fn api_keys_are_compared_by_name_and_secrets_without_showing_them() {
    let key = |name: &str, c: &str| {
        format!("[[tenant.keys]]\nname = \"{name}\"\nhash = \"sha256:{}\"\ntenant = \"t\"\n", c.repeat(64))
    };
    let found = changes_of(
        &format!("[telemetry]\npassword = \"one\"\n{}{}", key("a", "a"), key("b", "b")),
        &format!("[telemetry]\npassword = \"two\"\n{}", key("b", "b")),
    );
    let told: Vec<String> = found.iter().map(Change::line).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].starts_with("telemetry.password: (secret) -> another (secret)   restarts store.engine"),
        "{told:?}"
    );
    assert!(
        told[1].starts_with("tenant.keys \"a\": t/default// ") && told[1].contains("-> nothing   live"),
        "{told:?}"
    );
    let same = changes_of("[telemetry]\npassword = \"one\"\n", "\n[telemetry]\npassword = \"one\"\n");
    assert_eq!(same, [], "a value that only moved to another line is no change");
}

#[test]
fn the_defaults_fail_no_rule_and_each_rule_can_fail_or_warn() {
    let files = Files::new();
    let good = lint::lint(&files.load(""), ROOMY);
    assert!(good.iter().all(|line| line.verdict < Verdict::Fail), "{}", lint::table(&good));
    let cases: [(&str, &str, Verdict, &str, &str); 12] = [
        (
            "[supervision.defaults]\nintensity = 0\n",
            "restarts",
            Verdict::Warn,
            "= 1 crashes",
            "F:2 supervision",
        ),
        ("[supervision.defaults]\nintensity = 99\n", "restarts", Verdict::Warn, "100 × ", "F:2 supervision"),
        (
            "[supervision.tree.store.writer]\nbackoff = { min = \"30s\", max = \"1m\" }\n",
            "backoff",
            Verdict::Warn,
            "store.writer: 6 crashes",
            "F:2 supervision.tree.store.writer.backoff.min",
        ),
        (
            "[supervision]\nshutdown_budget = \"20s\"\n[supervision.tree.process.otlp]\nstop = { drain = \"30s\" }\n",
            "shutdown",
            Verdict::Fail,
            "budget 20s",
            "F:4 supervision.tree.process.otlp.stop.drain",
        ),
        (
            "[supervision]\nshutdown_budget = \"10m\"\n",
            "shutdown",
            Verdict::Ok,
            "budget 10m",
            "supervision.tree.",
        ),
        (
            "[supervision]\nlame_duck = \"40s\"\n",
            "lame duck",
            Verdict::Warn,
            "40s of a budget of 45s",
            "F:2 supervision.lame_duck",
        ),
        (
            "[supervision.tree.ingest.receiver]\nlane = { bytes = \"20GiB\" }\n",
            "memory",
            Verdict::Fail,
            "of 16GiB",
            "F:2 supervision.tree.ingest.receiver.lane.bytes",
        ),
        (
            "[supervision.pools.process]\nthreads = 64\n",
            "threads",
            Verdict::Warn,
            "process 64 work",
            "F:2 supervision.pools.process.threads",
        ),
        (
            "[supervision.tree.store.writer]\nlane = { bytes = \"1MiB\" }\n",
            "blocks",
            Verdict::Warn,
            "store.writer holds 1MiB of blocks up to 32MiB",
            "F:2",
        ),
        (
            "[telemetry]\ninsert_timeout = \"5m\"\n",
            "stalls",
            Verdict::Warn,
            "store.writer may wait 5m, stalled after 2m",
            "F:2 telemetry.insert_timeout",
        ),
        (
            "[supervision.tree.store.writer]\nbreaker = { probe_every = \"2m\" }\n",
            "breaker",
            Verdict::Warn,
            "probes every 2m",
            "F:2",
        ),
        (
            "[ingest]\nack_timeout = \"30s\"\n",
            "requests",
            Verdict::Warn,
            "up to 30s, SDKs 10s",
            "F:2 ingest.ack_timeout",
        ),
    ];
    for (text, name, verdict, sum, place) in cases {
        let lines = lint::lint(&files.load(text), ROOMY);
        let line = rule(&lines, name);
        let at = line.place.replace(&files.0.path().join("f.toml").display().to_string(), "F");
        assert_eq!(line.verdict, verdict, "{text}\n{line}");
        assert!(line.sum.contains(sum) && at.contains(place), "{text}\n{line}\n{at}");
        assert_eq!(line.advice.is_empty(), verdict == Verdict::Ok, "{line}");
    }
    let engine = "[telemetry.engine]\nstop_timeout = \"10s\"\n[supervision.tree.store.engine]\nstop = { drain = \"5s\" }\n";
    assert_eq!(rule(&lint::lint(&files.load(engine), ROOMY), "engine").verdict, Verdict::Warn);
}

#[test]
fn a_small_machine_is_told_from_a_large_one() {
    let files = Files::new();
    let loaded = files.load("");
    let on = |gib: u64| {
        rule(&lint::lint(&loaded, Machine { memory: Some(gib << 30), cores: 2 }), "memory").clone()
    };
    assert_eq!(on(1).verdict, Verdict::Fail);
    assert_eq!(on(4).verdict, Verdict::Warn, "{}", on(4));
    assert_eq!(on(16).verdict, Verdict::Ok);
    assert!(
        on(16).sum.contains("+ engine 2GiB = ") && on(16).place.ends_with("telemetry.engine.memory_limit"),
        "{}",
        on(16)
    );
    let unknown = lint::lint(&loaded, Machine { memory: None, cores: 2 });
    assert_eq!(rule(&unknown, "memory").verdict, Verdict::Ok);
}

#[test]
fn check_is_one_line_when_all_is_well_and_all_values_when_asked() {
    let files = Files::new();
    files.put("good.toml", "[process]\nlinger = \"1s\"\nblock_rows = 10\n");
    let (code, out, _) = files.run(&["check", "good.toml", "--set", "serve.deadline=5s"]);
    assert_eq!((code, out.lines().count()), (0, 1), "{out}");
    assert!(out.starts_with("ok   ") && out.contains(" keys, 3 set   flags (1), good.toml (2)"), "{out}");
    let (_, all, _) = files.run(&["check", "good.toml", "--all"]);
    assert!(all.contains("process.linger = \"1s\"   # good.toml:2\n") && all.lines().count() > 80, "{all}");
    files.put("bad.toml", "[process]\nlingr = \"1s\"\n");
    let (code, out, err) = files.run(&["check", "bad.toml"]);
    assert_eq!((code, out.as_str()), (78, ""));
    assert!(err.contains("bad.toml:2: unknown key process.lingr, did you mean linger?"), "{err}");
}

#[test]
fn explain_tells_value_default_source_effect_and_inheritance() {
    let files = Files::new();
    files.put("f.toml", "[process]\nlinger = \"1s\"\n[supervision.defaults]\nlane = { capacity = 99 }\n[supervision.tree.store.writer]\nlane = { capacity = 12 }\n");
    let explain = |key: &str| files.run(&["explain", key, "--config", "f.toml"]);
    let (code, out, _) = explain("process.linger");
    assert_eq!(code, 0);
    for part in [
        "process.linger = \"1s\"",
        "A block is inserted at the latest",
        "f.toml:2",
        "default   \"300ms\"",
        "a change  live",
    ] {
        assert!(out.contains(part), "{part}\n{out}");
    }
    let (_, out, _) = explain("supervision.tree.store.writer.lane.capacity");
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in [
        &[">", "supervision.tree.store.writer", "12", "f.toml:6"][..],
        &["supervision.tree.store", "-"],
        &["supervision.defaults", "99", "f.toml:4"],
        &["built", "in", "for", "store.writer", "64"],
    ] {
        assert!(rows.iter().any(|found| found == row), "{row:?}\n{out}");
    }
    let (_, out, _) = explain("supervision.tree.ingest.http.intensity");
    assert!(out.contains("> built in for ingest.http"), "{out}");
    let (_, out, _) = explain("process");
    assert!(out.starts_with("[process]\n") && out.contains("linger") && out.contains("f.toml:2"), "{out}");
    let (_, out, _) = explain("supervision.tree.store.writer");
    assert!(out.contains("lane.capacity") && out.contains("f.toml:6") && out.contains("built in"), "{out}");
    let (code, _, err) = explain("process.lingr");
    assert_eq!((code, err.trim()), (1, "there is no key process.lingr, did you mean process.linger?"));
}

#[test]
fn diff_and_lint_end_with_codes_that_scripts_can_use() {
    let files = Files::new();
    files.put("a.toml", "[process]\nlinger = \"1s\"\n");
    files.put("b.toml", "[process]\nlinger = \"2s\"\n[serve]\nhttp = \"127.0.0.1:9\"\n");
    assert_eq!(files.run(&["diff", "a.toml", "a.toml"]), (0, "no difference\n".into(), String::new()));
    let (code, out, _) = files.run(&["diff", "a.toml", "b.toml"]);
    assert_eq!(code, 1);
    for part in [
        "\"1s\" -> \"2s\"",
        "restarts serve.http",
        "b.toml:2",
        "2 changed: 1 live, a reload restarts serve.http",
    ] {
        assert!(out.contains(part), "{part}\n{out}");
    }
    files.put("huge.toml", "[supervision.tree.ingest.receiver]\nlane = { bytes = \"100TiB\" }\n");
    let (code, out, _) = files.run(&["lint", "huge.toml"]);
    assert!(
        code == 1 && out.contains("FAIL  huge.toml:2 supervision.tree.ingest.receiver.lane.bytes"),
        "{code} {out}"
    );
    let (code, out, _) = files.run(&["lint", "a.toml", "--set", "supervision.shutdown_budget=20m"]);
    assert!(code == 0 && out.lines().count() >= 11, "{code} {out}");
    let unread = |args: &[&str]| files.run(args).0;
    assert_eq!(unread(&["lint", "missing.toml"]), 78);
    assert_eq!(unread(&["diff", "a.toml", "missing.toml"]), 78);
}

#[test]
fn serve_does_not_start_with_numbers_that_cannot_work() {
    let files = Files::new();
    files.put(
        "huge.toml",
        "data_dir = \"d\"\n[supervision.tree.ingest.receiver]\nlane = { bytes = \"100TiB\" }\n",
    );
    let output = Command::new(env!("CARGO_BIN_EXE_obtrace"))
        .args(["serve", "--config", "huge.toml"])
        .current_dir(files.0.path())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{err}");
    assert!(err.contains("FAIL memory: ") && err.contains("huge.toml:3") && err.contains("--force"), "{err}");
    assert!(!Path::new(&files.0.path().join("d")).exists(), "nothing was opened");
}

#[test]
fn a_slip_in_the_log_filter_is_refused() {
    for (text, why) in
        [("ifno", "\"ifno\" is no level, did you mean info?"), ("info,[", "log is no filter of log lines")]
    {
        let flags = vec![Flag::new("--set", "log", text)];
        let errors = tuning::load(&LoadArgs { flags, ..LoadArgs::default() }).unwrap_err().to_string();
        assert!(errors.contains(why), "{errors}");
    }
    let flags = vec![Flag::new("--set", "log", "warn,obtrace::wire=debug")];
    assert!(tuning::load(&LoadArgs { flags, ..LoadArgs::default() }).is_ok());
}

#[test]
fn the_example_tunings_load_and_fit_the_machines_they_are_for() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tuning");
    let machines = [("laptop.toml", 2), ("edge.toml", 8), ("throughput.toml", 32)];
    for (name, gib) in machines {
        let files = vec![folder.join(name)];
        let loaded = tuning::load(&LoadArgs { files, ..LoadArgs::default() })
            .unwrap_or_else(|errors| panic!("{errors}"));
        let lines = lint::lint(&loaded, Machine { memory: Some(gib << 30), cores: 4 });
        let bad: Vec<&Line> = lines.iter().filter(|line| line.verdict > Verdict::Ok).collect();
        assert!(bad.is_empty(), "{name}\n{}", lint::table(&lines));
    }
    let there = std::fs::read_dir(&folder)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|ext| ext == "toml"));
    assert_eq!(there.count(), machines.len(), "every tuning is in this test");
}

/// A key that nobody reads would promise what nobody keeps. Somewhere outside of the configuration, its lint and the
/// command line, each must be taken as `section.key` (or by one of the names that stand for a section there).
#[test]
fn every_key_is_read_by_somebody() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut code, mut folders) = (String::new(), vec![root.clone()]);
    let passed_over = ["config", "cli/config", "cli/config.rs", "tools", "supervisors/tuning/lint.rs"]
        .map(|path| root.join(path));
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()) {
            if passed_over.contains(&path) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                code.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    // Read by a method of the section: which origins are allowed, which tenant has which plan.
    let by_method = [
        ("roles", "config.has_role"),
        ("ingest.cors_origins", "allows_origin"),
        ("process.retry.first", "retry.waits"),
        ("process.retry.second", "retry.waits"),
        ("tenant.default_plan", "tenant.tenant_plans"),
        ("tenant.keys.*.plan", "tenant.plan_of"),
    ];
    let read = |path: &str| {
        let mut parts = path.rsplit('.');
        let key = parts.next().unwrap_or_default();
        let section = match parts.next() {
            None => "config",
            Some("defaults") => "node",
            Some("*") => "key",
            Some(_) if path.starts_with("supervision.pools.") => "pool",
            Some(_) if path.starts_with("tenant.plans.") => "limits",
            Some(section) => section,
        };
        if path.starts_with("tenant.plans.") && key == "retention_days" {
            return code.contains("limits.retention(");
        }
        let method = by_method.iter().find(|(known, _)| *known == path).map(|(_, method)| *method);
        let wanted = method.map_or_else(|| format!("{section}.{key}"), str::to_owned);
        let whole =
            |at: usize| !code[at + wanted.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        code.match_indices(&wanted).any(|(at, _)| whole(at))
    };
    let keys = reference::manual().keys().map(String::as_str);
    let unread: Vec<&str> = keys.filter(|path| !read(path)).collect();
    assert!(unread.is_empty(), "nobody reads {unread:?}");
}
