//! The invariants of ARCHITECTURE.md that a look at the sources can hold: one test each, and each rule is shown to bite.

mod files;
mod lexer;
mod rules;

use files::{File, Repo};

type Rule = fn(&Repo) -> Vec<String>;

/// The repository keeps the rule, and a repository with `planted` in it does not.
fn holds(rule: Rule, planted: &[(&str, &str)]) {
    let found = rule(&Repo::load());
    assert!(found.is_empty(), "\n  {}\n", found.join("\n  "));
    for (path, text) in planted {
        let repo = Repo { files: vec![File::new(path, text)] };
        assert!(!rule(&repo).is_empty(), "the rule lets this pass, in {path}:\n{text}");
    }
}

/// What looks like a breach to a hasty reader and is none.
fn passes(rule: Rule, harmless: &[(&str, &str)]) {
    for (path, text) in harmless {
        let found = rule(&Repo { files: vec![File::new(path, text)] });
        assert!(found.is_empty(), "the rule refuses this, in {path}:\n{text}\n{found:?}");
    }
}

#[test]
fn the_repository_is_really_read() {
    let repo = Repo::load();
    for path in
        ["src/lib.rs", "src/domain/scope.rs", "tests/tidy/main.rs", "Cargo.toml", "config/obtrace.toml"]
    {
        assert!(repo.files.iter().any(|file| file.path == path && !file.text.is_empty()), "{path}");
    }
}

#[test]
fn domain_is_pure() {
    let at = "src/domain/x.rs";
    holds(
        rules::domain_is_pure,
        &[
            (at, "use tokio::time::sleep;"),
            (at, "use actix::Actor;"),
            (at, "fn f() { std::fs::read(\"a\"); }"),
            (at, "use std::{fmt, net::TcpStream};"),
            (at, "use crate::{domain::scope, clock};"),
            (at, "fn f() -> u64 { crate::clock::unix_nanos() }"),
            (at, "use super::super::backends::event_log::Record;"),
        ],
    );
    passes(
        rules::domain_is_pure,
        &[
            (
                at,
                "// unlike tokio, this is std::fs free\nuse std::time::Duration; const A: &str = \"tokio::\";",
            ),
            (at, "#[cfg(test)]\nmod tests { use std::fs; }"),
            ("src/backends/x.rs", "use tokio::fs;"),
        ],
    );
}

#[test]
fn actors_never_import_actors() {
    let at = "src/actors/process/consumer.rs";
    holds(
        rules::actors_never_import_actors,
        &[
            (at, "use crate::actors::store::Writer;"),
            (at, "use crate::{actors::{store::Writer}, clock};"),
            (at, "use super::super::store::Writer;"),
            (at, "use crate::supervisors::process::specs;"),
        ],
    );
    passes(
        rules::actors_never_import_actors,
        &[
            (
                at,
                "use crate::actors::process::block::Block; use super::block; use crate::messages::store::StoreBatch;",
            ),
            (at, "use crate::supervisors::kernel::port::Port;"),
        ],
    );
}

#[test]
fn the_kernel_knows_no_stage() {
    let at = "src/supervisors/kernel/tree.rs";
    holds(
        rules::kernel_knows_no_stage,
        &[
            (at, "use crate::actors::store::Writer;"),
            (at, "use crate::messages::store::StoreBatch;"),
            (at, "use crate::supervisors::store::specs;"),
            (at, "use super::super::store;"),
        ],
    );
    passes(
        rules::kernel_knows_no_stage,
        &[(at, "use crate::supervisors::kernel::lane::Lane; use super::lane;")],
    );
}

#[test]
fn backends_know_no_actors() {
    let at = "src/backends/blobs/mod.rs";
    holds(
        rules::backends_know_no_actors,
        &[
            (at, "use crate::actors::store::Writer;"),
            (at, "use crate::messages::store::StoreBatch;"),
            (at, "use actix::Actor;"),
        ],
    );
    passes(rules::backends_know_no_actors, &[(at, "use actix_web::web; use crate::domain::scope::Scope;")]);
}

#[test]
fn no_message_is_sent_past_its_bound() {
    holds(
        rules::no_unbounded_sending,
        &[
            ("src/actors/x/a.rs", "fn f(a: Addr<A>) { a.do_send(M); }"),
            ("src/actors/x/a.rs", "use actix::SyncArbiter;"),
            ("src/actors/x/a.rs", "impl SystemService for A {}"),
        ],
    );
    passes(
        rules::no_unbounded_sending,
        &[("src/actors/x/a.rs", "//! no do_send here\nfn f() { port.try_send(m); }")],
    );
}

#[test]
fn every_queue_is_bounded() {
    let at = "src/actors/x/a.rs";
    holds(
        rules::every_queue_is_bounded,
        &[
            (at, "let (a, b) = tokio::sync::mpsc::unbounded_channel();"),
            (at, "let (a, b) = std::sync::mpsc::channel();"),
            (at, "let (a, b) = mpsc::channel::<u8>();"),
            (at, "let (a, b) = mpsc::channel::<Vec<Box<u8>>>();"),
            (at, "use std::sync::mpsc::{Sender, channel};"),
            (at, "let (a, b) = futures::channel::mpsc::unbounded();"),
            (at, "let (a, b) = crossbeam::channel::unbounded::<u8>();"),
        ],
    );
    passes(
        rules::every_queue_is_bounded,
        &[
            (at, "let (a, b) = mpsc::channel::<u8>(16); let (c, d) = tokio::sync::oneshot::channel();"),
            (at, "let (a, b) = mpsc::sync_channel(4);"),
        ],
    );
}

#[test]
fn nothing_is_left_unfinished() {
    holds(
        rules::nothing_unfinished,
        &[
            ("src/a.rs", concat!("fn f() { to", "do!() }")),
            ("src/a.rs", concat!("fn f() { unimpl", "emented!() }")),
            ("src/a.rs", concat!("// TO", "DO: later")),
            ("src/a.rs", concat!("/* FIX", "ME */")),
            ("tests/a.rs", concat!("#[ign", "ore]\nfn f() {}")),
            ("tests/a.rs", concat!("#[ign", "ore = \"slow\"]\nfn f() {}")),
        ],
    );
    let child = concat!("#[ign", "ore = \"the child of a_kill_loses_nothing\"]\nfn f() {}");
    passes(rules::nothing_unfinished, &[("tests/a.rs", child)]);
}

#[test]
fn every_file_opens_with_a_sentence() {
    holds(
        rules::every_file_opens_with_a_sentence,
        &[
            ("src/a.rs", "use std::fmt;\n//! Too late."),
            ("src/a.rs", "//!\n//! The first line is empty."),
            ("src/a.rs", ""),
        ],
    );
}

#[test]
fn time_comes_from_the_clock() {
    holds(
        rules::time_comes_from_the_clock,
        &[
            ("src/wire/a.rs", "let t = std::time::Instant::now();"),
            ("src/wire/a.rs", "let t = SystemTime::now();"),
            ("src/wire/a.rs", "let t = tokio::time::Instant::now();"),
            ("src/wire/a.rs", "let t = jiff::Timestamp::now();"),
        ],
    );
    passes(
        rules::time_comes_from_the_clock,
        &[
            ("src/clock.rs", "let t = SystemTime::now();"),
            ("src/wire/a.rs", "let t = crate::clock::now();"),
            ("src/wire/tests.rs", "let t = Instant::now();"),
            ("src/wire/a.rs", "#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }"),
        ],
    );
}

#[test]
fn no_file_is_too_long_to_read() {
    let long = "//! A sentence.\n".repeat(rules::MAX_LINES + 1);
    holds(rules::no_file_is_too_long, &[("src/a.rs", &long), ("tests/a.rs", &long)]);
}

#[test]
fn every_file_belongs_to_a_binary() {
    let orphan = Repo {
        files: vec![
            File::new("Cargo.toml", "[[test]]\nname = \"a\"\npath = \"tests/a/main.rs\"\n"),
            File::new("src/lib.rs", "pub mod x;"),
            File::new("src/x/mod.rs", "#[cfg(test)]\nmod tests;"),
            File::new("src/x/tests.rs", ""),
            File::new("src/x/lost.rs", ""),
            File::new(
                "tests/a/main.rs",
                "mod b;\n// mod lost;\n#[path = \"../support/mod.rs\"]\nmod support;",
            ),
            File::new("tests/a/b.rs", ""),
            File::new("tests/a/lost.rs", ""),
            File::new("tests/support/mod.rs", ""),
        ],
    };
    let found = rules::every_file_is_reached(&orphan);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("src/x/lost.rs") && found[1].starts_with("tests/a/lost.rs"), "{found:?}");
    holds(rules::every_file_is_reached, &[("tests/lonely.rs", "")]);
}

#[test]
fn a_panic_unwinds() {
    holds(
        rules::a_panic_unwinds,
        &[
            ("Cargo.toml", "[profile.release]\npanic = \"abort\""),
            ("Cargo.toml", "[profile.release]\npanic='abort'"),
            (".cargo/config.toml", "rustflags = [\"-C\", \"panic=abort\"]"),
        ],
    );
    passes(
        rules::a_panic_unwinds,
        &[("Cargo.toml", "# never panic = \"abort\"\n[profile.dev]\npanic = \"unwind\"")],
    );
}

#[test]
fn nothing_of_one_machine_is_in_here() {
    holds(
        rules::nothing_of_one_machine,
        &[
            ("README.md", concat!("see /ro", "ot/.cache")),
            ("src/a.rs", concat!("const A: &str = \"/wo", "rk/a\";")),
            ("dev/a.sh", concat!("cd /ho", "me/somebody")),
            ("config/a.toml", concat!("-----BEGIN PRI", "VATE KEY-----")),
            ("config/a.toml", concat!("key = \"AK", "IAABCDEFGHIJKLMNOP\"")),
            ("tests/clients/node/package-lock.json", "\"resolved\": \"https://npm.example.internal/a.tgz\""),
        ],
    );
    let public = "\"resolved\": \"https://registry.npmjs.org/a/-/a-1.0.0.tgz\"";
    passes(rules::nothing_of_one_machine, &[("tests/clients/node/package-lock.json", public)]);
}

#[test]
fn unsafe_stands_where_it_is_named() {
    holds(
        rules::unsafe_is_named,
        &[
            ("src/wire/a.rs", "fn f() { unsafe { g() } }"),
            ("src/wire/a.rs", "unsafe impl Send for A {}"),
            (rules::UNSAFE_MODULES[0], "fn f() { unsafe { g() } }"),
        ],
    );
    passes(
        rules::unsafe_is_named,
        &[
            ("src/wire/a.rs", "// unsafe\nfn f() { g(\"unsafe\") }"),
            (rules::UNSAFE_MODULES[0], "fn f() {\n    // SAFETY: g takes nothing.\n    unsafe { g() }\n}"),
        ],
    );
}
