//! The rules: a repository in, one line for each breach out, with file, line and what to do instead.

use std::collections::BTreeSet;

use crate::files::{File, Repo};
use crate::lexer::{paths, words};

/// Files longer than this are split.
pub const MAX_LINES: usize = 700;

/// The only files that may hold `unsafe`; each block says why it is sound.
pub const UNSAFE_MODULES: [&str; 2] =
    ["src/backends/telemetry/engine/ffi.rs", "src/backends/telemetry/engine/lifecycle.rs"];

/// Crates and modules of std that do I/O, wait or tell the time.
const IMPURE_CRATES: [&str; 12] = [
    "tokio",
    "actix",
    "actix_rt",
    "actix_web",
    "tonic",
    "reqwest",
    "clickhouse",
    "nix",
    "libc",
    "libloading",
    "rusqlite",
    "rand",
];
const IMPURE_STD: [&str; 5] = ["fs", "process", "thread", "env", "os"];
const IMPURE_TYPES: [&str; 10] = [
    "Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "File",
    "Command",
    "stdin",
    "stdout",
    "stderr",
];

/// `file:line: what`, for each line of the code that ships for which `breach` finds something.
fn by_line(file: &File, breach: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let lines = file.code.lines().enumerate();
    lines
        .filter_map(|(i, line)| breach(line).map(|what| format!("{}:{}: {what}", file.path, i + 1)))
        .collect()
}

/// Imports of `crate::…` in `file` that `refuse` objects to.
fn imports(file: &File, refuse: impl Fn(&[&str]) -> bool) -> Vec<String> {
    let found = paths(&file.code, "crate").into_iter().chain(climbs(file));
    found
        .filter(|(_, path)| refuse(path))
        .map(|(line, path)| format!("{}:{line}: must not know crate::{}", file.path, path.join("::")))
        .collect()
}

/// Paths by `super::`, as paths from the crate's root.
fn climbs(file: &File) -> Vec<(usize, Vec<&str>)> {
    let inner = file.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let module: Vec<&str> = inner.split('/').collect();
    let found = paths(&file.code, "super");
    found
        .into_iter()
        .map(|(line, path)| {
            let more = path.iter().take_while(|part| **part == "super").count();
            let stays = module.len().saturating_sub(1 + more);
            (line, [&module[..stays], &path[more..]].concat())
        })
        .collect()
}

pub fn domain_is_pure(repo: &Repo) -> Vec<String> {
    let mut out = Vec::new();
    for file in repo.below("src/domain/").filter(|file| file.is_rust() && !file.is_test()) {
        out.extend(imports(file, |path| path.first().is_some_and(|first| *first != "domain")));
        out.extend(by_line(file, |line| {
            let word = IMPURE_CRATES.iter().find(|word| names_crate(line, word))?;
            Some(format!("domain must not use {word}"))
        }));
        for (line, path) in paths(&file.code, "std") {
            let impure = path.iter().any(|part| IMPURE_TYPES.contains(part));
            if impure || path.first().is_some_and(|first| IMPURE_STD.contains(first)) {
                out.push(format!("{}:{line}: domain must not use std::{}", file.path, path.join("::")));
            }
        }
    }
    out
}

pub fn actors_never_import_actors(repo: &Repo) -> Vec<String> {
    let actors = repo.below("src/actors/").filter(|file| file.is_rust() && !file.is_test());
    actors
        .flat_map(|file| {
            let stage = file.path.split('/').nth(2).unwrap_or_default().trim_end_matches(".rs");
            imports(file, |path| match path {
                // src/actors/mod.rs names the stages, it has none itself.
                ["actors", other, ..] => stage != "mod" && *other != stage,
                ["supervisors", below, ..] => *below != "kernel",
                _ => false,
            })
        })
        .collect()
}

pub fn kernel_knows_no_stage(repo: &Repo) -> Vec<String> {
    let kernel = repo.below("src/supervisors/kernel/").filter(|file| file.is_rust() && !file.is_test());
    kernel
        .flat_map(|file| {
            imports(file, |path| match path {
                ["actors" | "messages" | "backends" | "wire" | "tools", ..] => true,
                ["supervisors", below, ..] => *below != "kernel",
                _ => false,
            })
        })
        .collect()
}

pub fn backends_know_no_actors(repo: &Repo) -> Vec<String> {
    let backends = repo.below("src/backends/").filter(|file| file.is_rust() && !file.is_test());
    backends
        .flat_map(|file| {
            let mut out = imports(file, |path| {
                path.first().is_some_and(|first| ["actors", "messages", "supervisors"].contains(first))
            });
            out.extend(by_line(file, |line| {
                names_crate(line, "actix").then(|| "a backend must not know actix".to_owned())
            }));
            out
        })
        .collect()
}

pub fn no_unbounded_sending(repo: &Repo) -> Vec<String> {
    let banned = [
        ("do_send", "it passes the bound and hides a dead receiver: use a Port"),
        ("SyncArbiter", "its queue is unbounded and its dead threads are not replaced"),
        ("SystemService", "registries hand out dead addresses: wire by constructor"),
        ("ArbiterService", "registries hand out dead addresses: wire by constructor"),
    ];
    let check = |line: &str| {
        let (word, why) = banned.iter().find(|(word, _)| has_word(line, word))?;
        Some(format!("{word}: {why}"))
    };
    repo.shipped().flat_map(|file| by_line(file, check)).collect()
}

pub fn every_queue_is_bounded(repo: &Repo) -> Vec<String> {
    let check = |line: &str| {
        let unbounded = words(line).find(|word| ["unbounded", "unbounded_channel"].contains(word));
        let open = unbounded.is_some() || has_open_channel(line);
        open.then(|| "an unbounded queue: give it a bound and a rule for overflow".to_owned())
    };
    let mut out: Vec<String> = repo.shipped().flat_map(|file| by_line(file, check)).collect();
    for file in repo.shipped() {
        let std = paths(&file.code, "std")
            .into_iter()
            .filter(|(_, path)| path.as_slice() == ["sync", "mpsc", "channel"]);
        // Calls by the full path have been found by their line.
        let imported = std.filter(|_| file.code.contains("use std::"));
        out.extend(
            imported.map(|(line, _)| {
                format!("{}:{line}: std's channel has no bound: use sync_channel", file.path)
            }),
        );
    }
    out
}

/// `mpsc::channel()` or `mpsc::channel::<T>()`: std's, which takes no bound.
fn has_open_channel(line: &str) -> bool {
    line.match_indices("mpsc::channel").any(|(at, found)| {
        let rest = &line[at + found.len()..];
        let rest = match rest.strip_prefix("::<") {
            Some(generic) => behind_generic(generic),
            None => rest,
        };
        rest.starts_with("()")
    })
}

fn behind_generic(text: &str) -> &str {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[at + 1..];
        }
    }
    ""
}

pub fn nothing_unfinished(repo: &Repo) -> Vec<String> {
    // Put together here so that this file keeps its own rule.
    let macros = [concat!("to", "do!"), concat!("unimpl", "emented!"), concat!("db", "g!(")];
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let skipped = concat!("#[ign", "ore");
    let mut out = Vec::new();
    for file in repo.files.iter().filter(|file| file.is_rust()) {
        for (i, line) in file.text.lines().enumerate() {
            let comment = line.split_once("//").map_or("", |(_, comment)| comment);
            let comment = if line.trim_start().starts_with(['*', '/']) { line } else { comment };
            let unfinished = macros.iter().find(|name| line.contains(*name));
            let marked = marks.iter().find(|mark| has_word(comment, mark));
            // A test may have a child process of its own binary; it is no test by itself.
            let ignored = (line.contains(skipped) && !line.contains("\"the child of ")).then_some(&skipped);
            if let Some(what) = unfinished.or(marked).or(ignored) {
                out.push(format!(
                    "{}:{}: {what} is unfinished work: do it or leave it out",
                    file.path,
                    i + 1
                ));
            }
        }
    }
    out
}

pub fn every_file_opens_with_a_sentence(repo: &Repo) -> Vec<String> {
    let opens = |file: &&File| {
        let first = file.text.lines().next().unwrap_or_default();
        // A script shown as an example may need its first line.
        first.strip_prefix("//! ").is_some_and(|sentence| sentence.trim().len() > 3)
    };
    let rust = repo.files.iter().filter(|file| file.is_rust());
    rust.filter(|file| !opens(file))
        .map(|file| format!("{}:1: must open with `//!` and one sentence on what it does", file.path))
        .collect()
}

pub fn time_comes_from_the_clock(repo: &Repo) -> Vec<String> {
    let clocks =
        ["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now", "Utc::now", "Local::now"];
    let check = |line: &str| {
        let found = clocks.iter().find(|clock| line.contains(*clock))?;
        Some(format!("{found}: time comes from crate::clock, which tests can stop"))
    };
    repo.shipped().filter(|file| file.path != "src/clock.rs").flat_map(|file| by_line(file, check)).collect()
}

pub fn no_file_is_too_long(repo: &Repo) -> Vec<String> {
    let rust = repo.files.iter().filter(|file| file.is_rust());
    rust.map(|file| (file, file.text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(file, lines)| format!("{}: {lines} lines, split it (at most {MAX_LINES})", file.path))
        .collect()
}

pub fn every_file_is_reached(repo: &Repo) -> Vec<String> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<String> = ["src/lib.rs", "src/main.rs"].map(str::to_owned).to_vec();
    let manifest = repo.files.iter().find(|file| file.path == "Cargo.toml");
    let declared = manifest.iter().flat_map(|file| file.text.lines()).filter_map(|line| {
        let value = line.trim().strip_prefix("path")?.trim_start().strip_prefix('=')?;
        Some(value.trim().trim_matches('"').to_owned())
    });
    open.extend(declared);
    while let Some(path) = open.pop() {
        let Some(file) = repo.files.iter().find(|file| file.path == path) else { continue };
        if reached.insert(path) {
            open.extend(modules_of(file));
        }
    }
    let ours = repo.files.iter().filter(|file| {
        // Cargo finds examples by itself.
        file.is_rust() && (file.path.starts_with("src/") || file.path.starts_with("tests/"))
    });
    ours.filter(|file| !reached.contains(&file.path))
        .map(|file| format!("{}: no binary has it, it is never compiled: declare it with `mod`", file.path))
        .collect()
}

/// The files that the `mod` declarations of `file` may stand for.
fn modules_of(file: &File) -> Vec<String> {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let name = file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
    let is_root = ["mod", "lib", "main"].contains(&name) || folder == "tests";
    let below = if is_root { folder.to_owned() } else { format!("{folder}/{name}") };
    let mut out = Vec::new();
    let mut at_path = None;
    for line in file.text.lines().map(str::trim) {
        if let Some(path) = line.strip_prefix("#[path = \"").and_then(|rest| rest.split('"').next()) {
            at_path = Some(normal(&format!("{folder}/{path}")));
            continue;
        }
        let line = line.strip_prefix("#[cfg(test)] ").unwrap_or(line);
        let item = ["pub(crate) ", "pub(super) ", "pub "]
            .iter()
            .find_map(|vis| line.strip_prefix(vis))
            .unwrap_or(line);
        let Some(module) = item.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) else {
            continue;
        };
        match at_path.take() {
            Some(path) => out.push(path),
            None => out.extend([format!("{below}/{module}.rs"), format!("{below}/{module}/mod.rs")]),
        }
    }
    out
}

/// Resolves `..` in a path.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

pub fn a_panic_unwinds(repo: &Repo) -> Vec<String> {
    let settings =
        repo.files.iter().filter(|file| file.path == "Cargo.toml" || file.path.starts_with(".cargo/"));
    settings
        .flat_map(|file| file.text.lines().enumerate().map(move |(i, line)| (file, i + 1, line)))
        .filter(|(_, _, line)| {
            let setting = line.split('#').next().unwrap_or_default();
            let plain: String =
                setting.chars().filter(|c| !c.is_whitespace() && !"\"'".contains(*c)).collect();
            plain.contains("panic=abort")
        })
        .map(|(file, line, _)| format!("{}:{line}: supervision needs panics that unwind", file.path))
        .collect()
}

pub fn nothing_of_one_machine(repo: &Repo) -> Vec<String> {
    // Put together here so that this file keeps its own rule.
    let marks = [
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("PRIVATE", " KEY-----"),
        concat!("AK", "IA"),
    ];
    let mut out = Vec::new();
    for file in &repo.files {
        for (i, line) in file.text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| line.contains(*mark)) {
                out.push(format!("{}:{}: {mark} belongs to one machine or one person", file.path, i + 1));
            }
            let resolved = file.path.ends_with("package-lock.json") && line.contains("\"resolved\"");
            if resolved && !line.contains("https://registry.npmjs.org/") {
                out.push(format!(
                    "{}:{}: a lock file must name the public registry or none",
                    file.path,
                    i + 1
                ));
            }
        }
    }
    out
}

pub fn unsafe_is_named(repo: &Repo) -> Vec<String> {
    let mut out = Vec::new();
    for file in repo.shipped() {
        let text: Vec<&str> = file.text.lines().collect();
        for (i, _) in file.code.lines().enumerate().filter(|(_, line)| has_word(line, "unsafe")) {
            // The reason stands in the comment lines right above, or in the `# Safety` of the documentation.
            let above = text[..i].iter().rev().take(12).take_while(|line| !line.trim().is_empty());
            let reasoned =
                above.chain([&text[i]]).any(|line| line.contains("SAFETY") || line.contains("# Safety"));
            // A type such as `unsafe extern "C" fn(…)` does nothing by itself.
            let declares = text[i].contains("unsafe extern");
            if !UNSAFE_MODULES.contains(&file.path.as_str()) {
                out.push(format!(
                    "{}:{}: unsafe belongs into {}",
                    file.path,
                    i + 1,
                    UNSAFE_MODULES.join(", ")
                ));
            } else if !reasoned && !declares {
                out.push(format!("{}:{}: unsafe without a SAFETY comment above it", file.path, i + 1));
            }
        }
    }
    out
}

/// Whether a path on the line begins with this crate: `tonic::…`, but not `opentelemetry_proto::tonic::…`.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = line[..at].bytes().last();
        !before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
    })
}

fn has_word(line: &str, wanted: &str) -> bool {
    words(line).any(|word| word == wanted)
}
