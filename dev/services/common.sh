# What the services share: folders, ports, processes, holders, certificates, installing. Sourced by `run`, which sets
# `here`; inside of `with NAME` also `name` and `dir`, and the functions of NAME.sh:
#   packages (prints what apt must bring) · fetch (what else must be there) · parts (its processes) · launch (starts
#   those that do not run) · ready (true when it serves) · lines (its addresses) · stop_signal

all="postgres redis kafka kafka-cluster s3 clickhouse"
base="${OBTRACE_CACHE:-$HOME/.cache/obtrace}/services"
lib="$base/lib"
root="${OBTRACE_SERVICES_DIR:-$base/data}"

die() { echo "services: $*" >&2; exit 1; }
say() { echo "services: $*" >&2; }

# === Installing ===

has() { command -v "$1" >/dev/null 2>&1; }

apt_install() {
    [ $# -gt 0 ] || return 0
    has apt-get || die "please install: $* (there is no apt-get here to do it)"
    local sudo=""
    if [ "$(id -u)" -ne 0 ]; then
        has sudo || die "please install as root: apt-get install $*"
        sudo=sudo
    fi
    say "installing $*"
    # Debian would make a Postgres cluster and start its services: refused while this installs, and only then.
    $sudo sh -s -- "$@" <<'SH' || die "apt could not install: $*"
set -eu
policy=/usr/sbin/policy-rc.d cluster=/etc/postgresql-common/createcluster.d/obtrace.conf made=""
trap 'rm -f $made' EXIT
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    made="$policy"
fi
mkdir -p "$(dirname $cluster)"
echo "create_main_cluster = false" >$cluster
made="$made $cluster"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" >&2
SH
}

# === Ports: free ones between those of the tests (below 32,000) and those of the kernel, kept from start to start ===

port() { # port NAME: prints it
    local file="$dir/port.$1" fixed
    fixed="OBTRACE_SERVICES_$(echo "$name" | tr 'a-z-' 'A-Z_')_PORT"
    if [ "$1" = main ] && [ -n "${!fixed:-}" ] && [ -z "${OBTRACE_SERVICES_THROWAWAY:-}" ]; then
        echo "${!fixed}" >"$file"
    elif [ ! -s "$file" ]; then
        python3 - "$root" >"$file.new" <<'PY'
import glob, random, socket, sys
# Those of the other services of this set may not be bound yet.
taken = {open(f).read().strip() for f in glob.glob(sys.argv[1] + "/*/port.*") if not f.endswith(".new")}
for _ in range(5000):
    port = random.randint(32100, 32760)
    if str(port) in taken:
        continue
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    break
else:
    sys.exit("no free port between 32100 and 32760")
PY
        mv "$file.new" "$file"
    fi
    cat "$file"
}

# === Processes: PART.pid holds the id and its start time, so that a reused id is not taken for ours ===

identity() { # identity PID: its start time; fails when it is gone
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # shellcheck disable=SC2086  # fields
    set -- ${stat##*) }
    [ "$1" != Z ] || return 1
    echo "${20}"
}

pid_of() { # pid_of PART: its id, when it runs
    local pid born
    [ -s "$dir/$1.pid" ] || return 1
    read -r pid born <"$dir/$1.pid"
    [ "$(identity "$pid")" = "$born" ] && echo "$pid"
}

spawn() { # spawn PART COMMAND...: in the background, unless it runs
    local part=$1 pid
    shift
    if pid_of "$part" >/dev/null; then return 0; fi
    setsid "$@" >>"$dir/$part.log" 2>&1 </dev/null 8>&- 9>&- &
    pid=$!
    disown
    echo "$pid $(identity "$pid")" >"$dir/$part.pid"
}

all_run() { local part; for part in $(parts); do pid_of "$part" >/dev/null || return 1; done; }

locked() { # the service's lock, for as long as this subshell lives
    mkdir -p "$dir"
    exec 9>"$root/.$name.lock"
    flock -w 180 9 || die "$name: another call has held its lock for 3 minutes"
}

# What a service of tests alone keeps from one run to the next: all of it, unless it says otherwise.
forget() { :; }

# Started for tests that share it, and nothing of it runs.
begins_anew() {
    local part
    if [ -z "${OBTRACE_SERVICES_OWNER:-}" ] || [ -n "${OBTRACE_SERVICES_THROWAWAY:-}" ] || [ -e "$dir/holders/keep" ]; then return 1; fi
    for part in $(parts); do if pid_of "$part" >/dev/null; then return 1; fi; done
}

bring_up() {
    locked
    hold
    if all_run && ready; then say "$name runs already"; return 0; fi
    if begins_anew; then forget; fi
    # Before all else: this call may be killed at any moment, and what it has started must not stay.
    if [ -n "${OBTRACE_SERVICES_OWNER:-}" ] && [ ! -e "$dir/holders/keep" ]; then spawn watch "$here/run" watch "$name"; fi
    local until=$((SECONDS + ${OBTRACE_SERVICES_DEADLINE:-180})) launches=0 began=$SECONDS
    until all_run && ready; do
        if ! all_run; then
            launches=$((launches + 1))
            # What is left of a killed one may hold the port or the data for a moment; another program may have taken
            # the port for good: the last tries take new ones.
            if [ $launches -gt 12 ]; then give_up "ended again and again while starting"; fi
            if [ $launches -gt 1 ]; then sleep 0.5; fi
            if [ $launches -gt 9 ]; then stop_all; rm -f "$dir"/port.*; fi
            launch || give_up "could not be started"
        fi
        if [ $SECONDS -ge $until ]; then give_up "was not ready in time"; fi
        sleep 0.1
    done
    say "$name is ready ($((SECONDS - began)) s)"
}

give_up() {
    say "$name $1; the end of its logs in $dir:"
    local part
    for part in $(parts); do tail -n 15 "$dir/$part.log" 2>/dev/null | sed "s/^/  $part: /" >&2 || true; done
    stop_all
    die "$name does not run"
}

# Who holds it holds its folder, and may start it again.
bring_down() { locked; rm -f "$dir/holders/keep"; stop_all; }

stop_all() {
    local part pid until signal
    signal=$(stop_signal)
    for part in $(parts); do
        # A process that was stopped (SIGSTOP) hears nothing but SIGKILL until it goes on.
        if pid=$(pid_of "$part"); then kill "-$signal" "$pid" 2>/dev/null || true; kill -CONT "$pid" 2>/dev/null || true; fi
    done
    for part in $(parts); do
        until=$((SECONDS + 10))
        while pid=$(pid_of "$part"); do
            if [ $SECONDS -ge $until ]; then kill -KILL "$pid" 2>/dev/null || true; fi
            if [ $SECONDS -ge $((until + 20)) ]; then die "$name: process $pid does not end"; fi
            sleep 0.05
        done
        rm -f "$dir/$part.pid"
    done
}

wipe() { bring_down; rm -rf "$dir"; }

status() {
    local part pids="" state=stopped
    for part in $(parts); do pids+=" $(pid_of "$part" || echo -)"; done
    if all_run; then if ready; then state=ready; else state="not ready"; fi; fi
    printf '%-14s %-10s pid%s  %s\n' "$name" "$state" "$pids" "$dir"
}

lines_if_running() { if all_run; then lines; fi; }

# === Holders: who needs it; the last one to go ends it ===

hold() {
    mkdir -p "$dir/holders"
    if [ -z "${OBTRACE_SERVICES_OWNER:-}" ]; then
        touch "$dir/holders/keep"
    else
        identity "$OBTRACE_SERVICES_OWNER" >"$dir/holders/$OBTRACE_SERVICES_OWNER" ||
            die "OBTRACE_SERVICES_OWNER: there is no process $OBTRACE_SERVICES_OWNER"
        if [ -n "${OBTRACE_SERVICES_THROWAWAY:-}" ]; then touch "$dir/throwaway"; fi
    fi
}

held() {
    local holder
    if [ -e "$dir/holders/keep" ]; then return 0; fi
    for holder in "$dir"/holders/*; do
        if [ -s "$holder" ] && [ "$(identity "${holder##*/}")" = "$(cat "$holder")" ]; then return 0; fi
        rm -f "$holder"
    done
    return 1
}

release() { # ends the hold of $owner
    locked
    [ -e "$dir/holders/$owner" ] || return 0
    rm -f "$dir/holders/$owner"
    held || end_unheld
}

end_unheld() {
    stop_all
    rm -rf "$dir/holders"
    if [ -e "$dir/throwaway" ]; then rm -rf "$dir"; rmdir --ignore-fail-on-non-empty "$root" 2>/dev/null || true; fi
}

watch_holders() { # until there is none; then the service ends
    local part seen="" line
    while [ -d "$dir" ]; do
        if [ -e "$dir/holders/keep" ]; then return 0; fi
        if ! held && (locked; ! held && end_unheld); then break; fi
        for part in $(parts); do
            line=$(cat "$dir/$part.pid" 2>/dev/null) || continue
            case "$seen" in *"$line"*) ;; *) seen+="$line"$'\n' ;; esac
        done
        sleep 1
    done
    # Where the folder went away under it, and with it what says which processes are ours, they are not to stay either.
    while read -r part line; do
        if [ -n "$part" ] && [ "$(identity "$part")" = "$line" ]; then kill -KILL "$part" 2>/dev/null || true; fi
    done <<<"$seen"
}

# === Certificates: one authority a set of services; server and client, each valid for loopback only ===

tls="$root/tls"
certificates() (
    exec 7>"$root/.tls.lock"
    flock -w 60 7
    if [ -e "$tls/complete" ] && openssl x509 -in "$tls/server.crt" -noout -checkend 86400 >/dev/null; then return 0; fi
    rm -rf "$tls"
    mkdir -p "$tls"
    cd "$tls"
    {
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=Obtrace test authority" \
            -keyout ca.key -out ca.pem
        for who in server client; do
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=obtrace-$who" \
                -keyout $who.key -out $who.csr
            printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n' >$who.ext
            openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 -extfile $who.ext -out $who.crt
        done
        cat server.key server.crt >server.pem
    } 2>openssl.log || { cat openssl.log >&2; die "openssl could not make the certificates"; }
    chmod 644 ca.pem server.crt client.crt
    touch complete
)
