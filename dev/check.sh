#!/bin/sh
# Everything that is not a test of behaviour: format, lints, dependencies, documentation, generated files.
set -eu
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*" >&2; }

step format
cargo fmt --all --check

step "lints: the program, with the methods it must not call (clippy.toml)"
cargo clippy --locked --lib --bins -- -D warnings
step "lints: tests, benches and examples"
cargo clippy --locked --all-targets --features bench,chaos -- -D warnings -A clippy::disallowed_methods

step "dependencies: licences, bans, sources (deny.toml)"
if ! command -v cargo-deny >/dev/null 2>&1; then
    if [ -n "${OBTRACE_NO_DENY:-}" ]; then
        echo "cargo-deny is not installed and OBTRACE_NO_DENY is set: left out" >&2
    else
        echo "installing cargo-deny, once; it takes some minutes (OBTRACE_NO_DENY=1 leaves this step out)" >&2
        cargo install cargo-deny --locked
    fi
fi
if command -v cargo-deny >/dev/null 2>&1; then
    cargo deny --log-level error --all-features check --hide-inclusion-graph licenses bans sources
fi

step documentation
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet

step "config/reference.toml and the invariants of the sources"
cargo test --locked --quiet --test config --test tidy
