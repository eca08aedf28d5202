# Redis from Debian's package: one port in clear, one with TLS, every write on disk before its answer.

packages() { if ! has redis-server; then echo redis-server redis-tools; fi; }
fetch() { :; }
parts() { echo redis; }
stop_signal() { echo KILL; }

launch() {
    local port tls_port
    port=$(port main) tls_port=$(port tls)
    certificates
    mkdir -p "$dir/data"
    spawn redis redis-server --bind 127.0.0.1 --port "$port" --dir "$dir/data" --save "" --daemonize no \
        --appendonly yes --appendfsync always --tls-port "$tls_port" --tls-auth-clients no \
        --tls-ca-cert-file "$tls/ca.pem" --tls-cert-file "$tls/server.crt" --tls-key-file "$tls/server.key"
}

ready() { [ "$(timeout 2 redis-cli -h 127.0.0.1 -p "$(port main)" ping 2>/dev/null)" = PONG ]; }

lines() {
    echo "OBTRACE_TEST_REDIS=redis://127.0.0.1:$(port main)"
    echo "OBTRACE_TEST_REDIS_TLS=rediss://127.0.0.1:$(port tls)"
    echo "OBTRACE_TEST_REDIS_CA=$tls/ca.pem"
}
