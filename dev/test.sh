#!/bin/sh
# Runs the whole test suite and says at its end how many tests passed, over all binaries. Arguments go to cargo test.
set -eu

log=$(mktemp)
trap 'rm -f "$log" "$log.status"' EXIT

{
    status=0
    # tests/flow runs the examples as processes; a part of the tests alone would not build them.
    cargo build --locked --features chaos --examples 2>&1 || status=$?
    cargo test --locked --no-fail-fast --features chaos "$@" 2>&1 || status=$?
    echo "$status" >"$log.status"
} | tee "$log"

awk '
    /^test result:/ {
        binaries++
        for (i = 1; i < NF; i++) {
            if ($(i + 1) ~ /^passed;/) passed += $i
            if ($(i + 1) ~ /^failed;/) failed += $i
            if ($(i + 1) ~ /^ignored;/) ignored += $i
        }
    }
    END { printf "\n%d tests passed, %d failed, %d ignored, in %d binaries\n", passed, failed, ignored, binaries }
' "$log"
exit "$(cat "$log.status")"
