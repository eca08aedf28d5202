# Postgres from Debian's package, in a cluster of its own: the one that Debian may have made is not touched.
# It refuses root; started by root it runs as the user postgres.

server() { # the newest that is installed
    local newest
    newest=$(find /usr/lib/postgresql -maxdepth 3 -path '*/bin/postgres' 2>/dev/null | sort -V | tail -n 1)
    [ -n "$newest" ] && dirname "$newest"
}

packages() { if ! server >/dev/null; then echo postgresql; fi; }
fetch() { :; }
parts() { echo postgres; }
stop_signal() { echo INT; }

enterable() { "${user[@]}" sh -c 'cd "$1" 2>/dev/null' sh "$dir/own"; }

# The words before a command that make it run as somebody whom Postgres takes.
drop() {
    user=()
    if [ "$(id -u)" -ne 0 ]; then return 0; fi
    id postgres >/dev/null 2>&1 || die "postgres: there is no user postgres, though Debian's package makes one"
    user=(setpriv --reuid=postgres --regid=postgres --init-groups --reset-env)
    chown -R postgres: "$dir/own"
    if enterable; then return 0; fi
    # A folder above (such as /root) is closed to that user: it gets the right to pass, and is not root all the same.
    user+=(--inh-caps=+dac_override --ambient-caps=+dac_override)
    enterable ||
        die "postgres: its user may not enter $dir: name another place with OBTRACE_SERVICES_DIR or OBTRACE_CACHE"
}

launch() {
    local bin port user
    bin=$(server) port=$(port main)
    certificates
    mkdir -p "$dir/own"
    # Written at every start, so that data made by an older script come under what this one says.
    cp "$tls/server.crt" "$tls/server.key" "$tls/ca.pem" "$dir/own/"
    # Nobody needs a password or a certificate, but for the role and the database of these names: tests make them and
    # try wrong ones. Into that database a process gets by TLS alone, with a certificate of our authority whose CN it is.
    cat >"$dir/own/hba.conf" <<'HBA'
host    all           obtrace_scram               127.0.0.1/32 scram-sha-256
hostssl obtrace_certs obtrace_app,obtrace_migrate 127.0.0.1/32 cert
host    obtrace_certs obtrace_app,obtrace_migrate 127.0.0.1/32 reject
host    all           all                         127.0.0.1/32 trust
HBA
    chmod 600 "$dir/own/server.key"
    drop
    if [ ! -e "$dir/own/made" ]; then
        rm -rf "$dir/own/data"
        "${user[@]}" "$bin/initdb" -D "$dir/own/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync \
            >"$dir/initdb.log" 2>&1 || { tail -n 5 "$dir/initdb.log" >&2; return 1; }
        touch "$dir/own/made"
    fi
    # fsync stays on: tests kill it and ask what it kept. The socket's path may be too long: loopback only.
    spawn postgres ${user[@]+"${user[@]}"} "$bin/postgres" -D "$dir/own/data" -p "$port" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories= -c max_connections=200 -c shared_buffers=32MB -c log_min_messages=warning \
        -c "hba_file=$dir/own/hba.conf" \
        -c ssl=on -c "ssl_cert_file=$dir/own/server.crt" -c "ssl_key_file=$dir/own/server.key" \
        -c "ssl_ca_file=$dir/own/ca.pem"
}

ready() { "$(server)/pg_isready" -q -t 2 -h 127.0.0.1 -p "$(port main)"; }

lines() {
    echo "OBTRACE_TEST_POSTGRES=postgres://postgres@127.0.0.1:$(port main)/postgres"
    echo "OBTRACE_TEST_POSTGRES_CA=$tls/ca.pem"
}
