#!/bin/sh
# Installs the pinned SDK clients outside of the clone and prints where: PYTHON=… and NODE_MODULES_DIR=… lines.
# Does nothing where the folder for these lock files is there already; safe to run twice at once.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
base="${OBTRACE_CACHE:-$HOME/.cache/obtrace}/clients"
mkdir -p "$base"

hash_of() { cat "$@" | sha256sum | cut -c1-16; }

python_dir="$base/python-$(hash_of "$here/python/requirements.txt")"
node_dir="$base/node-$(hash_of "$here/node/package.json" "$here/node/package-lock.json")"

exec 9>"$base/.lock"
flock 9

# A venv knows its own path, so it is made in place; the mark is written last, and a folder without it is made anew.
if [ ! -e "$python_dir/.complete" ]; then
    rm -rf "$python_dir"
    python3 -m venv "$python_dir" >&2
    "$python_dir/bin/pip" install --quiet --disable-pip-version-check --no-deps \
        --requirement "$here/python/requirements.txt" >&2
    touch "$python_dir/.complete"
fi

if [ ! -e "$node_dir/.complete" ]; then
    rm -rf "$node_dir"
    mkdir -p "$node_dir"
    cp "$here/node/package.json" "$here/node/package-lock.json" "$here/node/.npmrc" "$node_dir/"
    (cd "$node_dir" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
    touch "$node_dir/.complete"
fi

echo "PYTHON=$python_dir/bin/python"
echo "NODE_MODULES_DIR=$node_dir"
