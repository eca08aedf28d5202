#!/bin/bash
# Records docs/session.md: one terminal session in which parts of a running Obtrace are broken one after the other.
# Needs a build with the fault points: `cargo build --features chaos`. Each step is also a test; the page says which.
set -eu
cd "$(dirname "$0")/.."

obtrace="${CARGO_TARGET_DIR:-${OBTRACE_CACHE:-$HOME/.cache/obtrace}/target}/debug/obtrace"
page="${1:-docs/session.md}"
room=$(mktemp -d)
config="$room/obtrace.toml"
grpc=127.0.0.1:24317 http=127.0.0.1:24318 api=127.0.0.1:28080
export OBTRACE_API="http://$api" NO_COLOR=1

trap 'kill ${server:-} ${load:-} 2>/dev/null || true; rm -rf "$room"' EXIT

say() { printf '\n%s\n' "$*" >>"$page"; }
# Shows a command and what it printed; machine paths and ports read as a user would have them.
show() {
    printf '\n```console\n$ %s\n' "$1" >>"$page"
    { eval "$2" 2>&1 || true; } | sed -e "s#$room/##g" -e "s#$obtrace#obtrace#g" -e 's/[[:space:]]*$//' |
        cut -c1-160 >>"$page"
    printf '```\n' >>"$page"
}
until_ok() { for _ in $(seq 300); do if eval "$1" >/dev/null 2>&1; then return 0; fi; sleep 0.2; done; echo "never: $1" >&2; exit 1; }

start() {
    OBTRACE_CHAOS="$1" OBTRACE_CHAOS_POISON=planted-poison "$obtrace" dev --data-dir "$room/data" --config "$config" \
        --otlp-grpc $grpc --otlp-http $http --http $api >"$room/out" 2>"$room/err" &
    server=$!
    until_ok "curl -fs http://$api/readyz"
}

cat >"$config" <<'TOML'
[process]
retry = { first = "2s", second = "4s" }

[supervision.watchdog]
condemn_after = "3s"

[supervision.tree.process.otlp.lane]
capacity = 64
TOML

cat >"$page" <<'MD'
# A session: breaking a running Obtrace

Recorded by `dev/session.sh` with a build that has the fault points (`cargo build --features chaos`), on two shared
cores. Behind each step stands the test that holds it.
MD

say "## Load is running"
start "worker.before=stall@60*1"
"$obtrace" load --endpoint "http://$grpc" --rate 3000/s --batch 100 --duration 75s --journal "$room/journal" \
    --verify --api "http://$api" --verify-timeout 120s >"$room/load" 2>&1 &
load=$!
say "\`obtrace load --rate 3000/s --verify\` sends traces in the background; it will ask for every acknowledged record in the end."
sleep 6
show "obtrace top --once" "'$obtrace' top --once"

say "## One poison record"
say "A span that makes the worker panic, among four good ones (\`tests/flow/poison.rs\`)."
body='{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"poisoned"}}]},"scopeSpans":[{"spans":['
now=$(date +%s)000000000
for n in 1 2 3 4 5; do
    name="good-$n"; [ $n = 3 ] && name="planted-poison"
    body="$body{\"traceId\":\"0000000000000000000000000000abcd\",\"spanId\":\"000000000000000$n\",\"name\":\"$name\",\"kind\":1,\"startTimeUnixNano\":\"$now\",\"endTimeUnixNano\":\"$now\"},"
done
body="${body%,}]}]}]}"
show "curl http://127.0.0.1:24318/v1/traces -d @five-spans.json" \
    "curl -s -w ' %{http_code}\n' http://$http/v1/traces -H 'content-type: application/json' -d '$body'"
until_ok "'$obtrace' dlq list | grep -q poison"
show "obtrace dlq list" "'$obtrace' dlq list"
id=$("$obtrace" dlq list --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["items"][0]["id"])')
show "obtrace dlq show $id" "'$obtrace' dlq show $id"
say "All else is stored:"
show "curl '…/api/v1/spans?service=poisoned' | jq '.items[].name'" \
    "curl -s 'http://$api/api/v1/spans?service=poisoned' | python3 -c 'import json,sys; [print(s[\"name\"]) for s in json.load(sys.stdin)[\"items\"]]'"

say "## A thread that blocks"
say "One worker blocks its thread for half a minute. The watchdog gives the thread up and starts its children on another (\`tests/supervision/watchdog.rs\`)."
until_ok "curl -s 'http://$api/admin/events?follow=false' | grep -q condemned"
show "curl '…/admin/events?follow=false' | grep -E 'condemned|stalled|launched'" \
    "curl -s 'http://$api/admin/events?follow=false' | python3 -c 'import json,sys
e=json.load(sys.stdin); e=e[\"items\"] if isinstance(e,dict) else e
at=[i for i,x in enumerate(e) if x[\"event\"]==\"condemned\"][-1]
[print(json.dumps({k:v for k,v in x.items() if k not in (\"at_unix_ns\",)})) for x in e[at:at+8]]'"
show "obtrace tree" "'$obtrace' tree"

say "## A lane is halved while it works"
sed -i 's/^capacity = 64/capacity = 32/' "$config"
show "sed -i 's/capacity = 64/capacity = 32/' obtrace.toml && kill -HUP \$(pidof obtrace)" \
    "kill -HUP $server; sleep 2; grep -a 'reload\|configuration' '$room/err' | tail -3 | sed 's/^[^ ]* *//'"
show "obtrace tree | grep -A2 otlp" "'$obtrace' tree --all | grep -A2 otlp"

say "## A bad configuration"
say "It is refused as a whole, with file and line; the old one runs on (\`tests/flow/reload.rs\`)."
sed -i 's/^capacity = 32/capcity = 16/' "$config"
show "sed -i 's/capacity/capcity/' obtrace.toml && curl -X POST …/admin/config/reload" \
    "curl -s -X POST http://$api/admin/config/reload | python3 -m json.tool"
sed -i 's/^capcity = 16/capacity = 32/' "$config"

say "## SIGTERM under load"
kill -TERM $server; code=0; wait $server || code=$?
show "kill -TERM \$(pidof obtrace); wait; echo \$?" "echo $code; grep -a 'stopp' '$room/err' | tail -2 | sed 's/^[^ ]* *//'"
say "And on again on the same folder. The load generator had kept sending; now it asks for every record it had an acknowledgement for:"
start ""
wait $load && verdict=0 || verdict=$?
show "wait %load; echo \$?" "tail -8 '$room/load'; echo $verdict"
kill -TERM $server; wait $server
