#!/bin/sh
# Brings the tools that the tests of deploy/ need, outside of the clone, and prints where: HELM=… KUBECONFORM=…
# DEPLOY_CHECK=… SCHEMAS=… lines. Pinned: by version here, by checksum through Go's sum database and pip's hash.
# Does nothing where they are there already; safe to run twice at once. Needs go, and says so where there is none.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
base="${OBTRACE_CACHE:-$HOME/.cache/obtrace}/deploy"

helm=v3.22.0
kubeconform=v0.8.0
keda=v2.21.0
schemas=1.37.0
schemas_hash=sha256:85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9
# The oldest and the newest Kubernetes that the chart is checked against.
kubernetes="v1.27.0 v1.37.0"

if ! command -v go >/dev/null 2>&1; then
    echo "deploy: there is no go here; it builds the tools that check deploy/ (helm, kubeconform): https://go.dev" >&2
    exit 69
fi

mkdir -p "$base"
exec 9>"$base/.lock"
flock -w 1500 9

tools="$base/tools-$(cat "$0" "$here/go.mod" "$here/go.sum" "$here/main.go" | sha256sum | cut -c1-16)"
if [ ! -e "$tools/.complete" ]; then
    echo "deploy: building helm $helm, kubeconform $kubeconform and deploy-check, once; this takes some minutes" >&2
    rm -rf "$tools"
    mkdir -p "$tools/schemas"
    export GOBIN="$tools" CGO_ENABLED=0 GOFLAGS=-buildvcs=false
    go install -trimpath -ldflags '-s -w' "github.com/yannh/kubeconform/cmd/kubeconform@$kubeconform" 2>"$base/build.log" &&
        go install -trimpath -ldflags '-s -w' "helm.sh/helm/v3/cmd/helm@$helm" 2>>"$base/build.log" &&
        (cd "$here" && go build -trimpath -mod=readonly -o "$tools/deploy-check" .) 2>>"$base/build.log" ||
        { tail -n 20 "$base/build.log" >&2; exit 1; }

    # Kubernetes' own schemas come in a Python package, those of KEDA's resources in its Go module.
    work=$(mktemp -d "$base/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    echo "kubernetes-validate==$schemas --hash=$schemas_hash" >"$work/wanted.txt"
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --require-hashes --dest "$work" \
        --requirement "$work/wanted.txt" >&2
    python3 -m zipfile -e "$work"/kubernetes_validate-*.whl "$work/wheel"
    for version in $kubernetes; do
        mv "$work/wheel/kubernetes_validate/kubernetes-json-schema/$version-local-strict" "$tools/schemas/$version"
    done
    # Each has a name by which only a server would find what it refers to; as files they lie beside each other.
    python3 - "$tools"/schemas/v*/*.json <<'PY'
import json, sys
for name in sys.argv[1:]:
    with open(name) as file:
        schema = json.load(file)
    if isinstance(schema, dict):
        schema.pop("$id", None)
    with open(name, "w") as file:
        file.write(json.dumps(schema).replace('"/api/_definitions.json', '"_definitions.json'))
PY
    module=$(cd "$work" && go mod download -json "github.com/kedacore/keda/v2@$keda" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])')
    mkdir "$tools/schemas/keda.sh"
    "$tools/deploy-check" schema "$tools/schemas/keda.sh" "$module/config/crd/bases/keda.sh_scaledobjects.yaml" \
        "$module/config/crd/bases/keda.sh_triggerauthentications.yaml"
    touch "$tools/.complete"
fi

echo "HELM=$tools/helm"
echo "KUBECONFORM=$tools/kubeconform"
echo "DEPLOY_CHECK=$tools/deploy-check"
echo "SCHEMAS=$tools/schemas"
