#!/bin/sh
# Brings what the build and the tests need and the machine lacks, by apt. Changes nothing where all of it is there.
set -eu

missing=""
need() { # need COMMAND PACKAGE...
    command -v "$1" >/dev/null 2>&1 || { shift; missing="$missing $*"; }
}
need cc build-essential
need mold mold
need pkg-config pkg-config
need curl curl ca-certificates
need tar tar
need openssl openssl
need make make
need flock util-linux
need python3 python3
# librdkafka and the other clients' TLS are built against the system's OpenSSL.
pkg-config --exists openssl 2>/dev/null || missing="$missing libssl-dev"
pkg-config --exists zlib 2>/dev/null || missing="$missing zlib1g-dev"
# Debian splits venv from python3; without ensurepip a venv has no pip.
python3 -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"

if [ -n "$missing" ]; then
    command -v apt-get >/dev/null 2>&1 || {
        echo "setup: please install:$missing (there is no apt-get here to do it)" >&2
        exit 1
    }
    as_root=""
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || {
            echo "setup: please install as root: apt-get install$missing" >&2
            exit 1
        }
        as_root="sudo"
    fi
    echo "setup: installing$missing" >&2
    $as_root apt-get update -qq
    # shellcheck disable=SC2086  # a list of packages
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
fi

# rustup and Node are the user's own choice: said, not installed.
lacking=0
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
if ! command -v cargo >/dev/null 2>&1; then
    echo "setup: there is no cargo: install Rust $wanted or newer, see https://rustup.rs" >&2
    lacking=1
else
    found=$(rustc --version | cut -d' ' -f2)
    oldest=$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n1)
    if [ "$oldest" != "$wanted" ]; then
        echo "setup: Rust is $found, Obtrace needs $wanted or newer: rustup update stable" >&2
        lacking=1
    fi
fi
if ! command -v npm >/dev/null 2>&1; then
    echo "setup: there is no npm: install Node 20 or newer, it brings the engine library and the test clients" >&2
    lacking=1
fi
exit "$lacking"
