#!/bin/sh
# Runs the whole test suite and says at its end how many tests passed, over all binaries. Arguments go to cargo test.
# The real services are started before it (for a part of the tests: those that it asks for) and end with it, except
# those that ran already.
set -eu

log=$(mktemp)
export OBTRACE_SERVICES_OWNER=$$
trap 'rm -f "$log" "$log.status"; dev/services/run release $$' EXIT
trap 'exit 130' INT TERM

if [ $# -eq 0 ]; then
    dev/services/run up --cluster
fi

{
    status=0
    # tests/flow runs the examples as processes; a part of the tests alone would not build them.
    cargo build --locked --features chaos --examples 2>&1 || status=$?
    cargo test --locked --no-fail-fast --features chaos "$@" 2>&1 || status=$?
    echo "$status" >"$log.status"
} | tee "$log"

# What failed, once more where it is found: the end of a log is what is kept and read.
awk '
    /^---- .* stdout ----$/ { shown = 40; print "" }
    /^failures:$/ { shown = 0 }
    shown > 0 { shown--; print substr($0, 1, 600) }
' "$log"

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
