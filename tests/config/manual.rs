//! `config/reference.toml` is what the types say; every file in `config/` loads.

use std::path::{Path, PathBuf};

use obtrace::config::{Config, LoadArgs, reference};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn load(path: PathBuf) -> Config {
    Config::load(&LoadArgs { files: vec![path], ..LoadArgs::default() })
        .unwrap_or_else(|e| panic!("{e}"))
        .config
}

#[test]
fn the_reference_is_what_the_types_say() {
    let path = root().join("config/reference.toml");
    let expected = reference::render();
    if std::env::var_os("OBTRACE_BLESS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "config/reference.toml is out of date: OBTRACE_BLESS=1 cargo test --test config"
    );
}

#[test]
fn the_reference_loads_and_is_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("reference.toml");
    std::fs::write(&path, reference::render()).unwrap();
    let loaded = load(path);
    // The supervision tables are kept as written; what they come to must be the same.
    assert_eq!(loaded.supervision.node("root"), Config::default().supervision.node("root"));
    let supervision = Config::default().supervision;
    assert_eq!(Config { supervision, ..loaded }, Config::default());
}

#[test]
fn the_examples_in_the_reference_load_too() {
    // Sections that are comments as a whole: strip the mark and they must be read without an unknown key.
    let text = reference::render();
    let examples: Vec<&str> = text.split("\n\n").filter(|part| part.contains("\n# [")).collect();
    assert!(examples.len() >= 2, "the reference lost its examples");
    let lines = examples.iter().flat_map(|part| part.lines()).filter_map(|line| line.strip_prefix("# "));
    let wanted = |line: &&str| {
        line.starts_with("[supervision") || (line.contains(" = ") && !line.contains("sha256sum"))
    };
    let tree: Vec<&str> =
        lines.skip_while(|line| !line.starts_with("[supervision.tree]")).filter(wanted).collect();
    assert!(tree.len() >= 5, "{tree:?}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.toml");
    std::fs::write(&path, tree.join("\n")).unwrap();
    let supervision = load(path).supervision;
    assert_eq!(supervision.node("root").intensity, 3);
}

#[test]
fn the_files_that_come_along_load() {
    load(root().join("config/obtrace.toml"));
    let dev = Config::load(&LoadArgs { profile: Some("dev".into()), ..LoadArgs::default() }).unwrap();
    assert!(dev.config.ingest.dev_loopback);
    for entry in std::fs::read_dir(root().join("config/profiles")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let args = LoadArgs { profile: Some(name.clone()), ..LoadArgs::default() };
        assert!(Config::load(&args).is_ok(), "profile {name} is not built in");
    }
}
