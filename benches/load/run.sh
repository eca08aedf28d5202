#!/bin/sh
# Figures of the release build as whole processes, each beside peers in the same run: `make bench`.
#
#   run.sh                  all sections, sized for 15 minutes on 2 quiet cores once the peers are there
#   run.sh --quick          the same with short runs, to see that it works
#   run.sh edge store ...   only these: idle edge ack store queries; the other figures stay as they were
#   run.sh worker           the worker between Kafka and the engine (dev/services brings the broker): `make bench-worker`
#   run.sh peers            only installs the peers
#   run.sh readme           puts the table into README.md
set -eu
cd "$(dirname "$0")/../.."
export PYTHONDONTWRITEBYTECODE=1
exec python3 benches/load/main.py "$@"
