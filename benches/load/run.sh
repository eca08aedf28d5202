#!/bin/sh
# Whole-process figures of the release build, each beside a peer where one can be had: `make bench`.
set -eu
exec python3 "$(dirname "$0")/bench.py" "$@"
