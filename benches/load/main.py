"""`make bench`: takes the sections, writes figures.json and figures.md into the cache, prints the table.

A section that fails says why and leaves the others alone. What it measured before stays only until it is taken again.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time

import ack
import edge
import idle
import queries
import report
import store
import worker
from candidates import BINARY, EDGE_SINK, Here
from processes import BENCH, HERE, Failed, log, prepare

SECTIONS = {"idle": idle, "edge": edge, "ack": ack, "store": store, "queries": queries,
            "worker": worker}
# Taken only when they are named: they need services that must be installed first.
ON_DEMAND = ["worker"]
FIGURES = os.path.join(BENCH, "figures.json")
FULL = {
    "idle_settle": 8, "idle_seconds": 10,
    "edge_rounds": 5, "edge_seconds": 7,
    "ack_rounds": 3, "ack_seconds": 10,
    "store_rounds": 3, "spans": 1_000_000, "badger_spans": 100_000, "verify_spans": 100_000,
    "settle_seconds": 5, "times": 100,
    "worker_rounds": 3, "worker_spans": 500_000, "format_rows": 500_000, "format_rounds": 3,
}
QUICK = {
    "idle_settle": 3, "idle_seconds": 2,
    "edge_rounds": 1, "edge_seconds": 3,
    "ack_rounds": 1, "ack_seconds": 4,
    "store_rounds": 1, "spans": 200_000, "badger_spans": 30_000, "verify_spans": 20_000,
    "settle_seconds": 2, "times": 10,
    "worker_rounds": 1, "worker_spans": 200_000, "format_rows": 100_000, "format_rounds": 1,
}
# A section that takes longer is broken, not slow.
LONGEST = 1800


def take(name, here, plan, quick):
    """One section: its figures, or the reason why there are none."""
    about = {
        "when": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "commit": commit(), "quick": quick, "plan": plan,
        "load_before": os.getloadavg()[0], "cores": os.cpu_count(), "cpu": cpu_model(),
    }
    log(f"section {name}, with a load of {about['load_before']:.1f} on {about['cores']} cores before")
    begun = time.monotonic()
    signal.alarm(LONGEST)
    try:
        figures = SECTIONS[name].measure(here, plan)
    except (Failed, OSError) as why:
        log(f"section {name} failed: {why}")
        figures = {"failed": str(why)}
    finally:
        signal.alarm(0)
    about["took_seconds"] = time.monotonic() - begun
    log(f"section {name} took {about['took_seconds']:.0f} s")
    return {"about": about, **figures, "peers_missing": here.reasons}


def too_long(_number, _frame):
    raise Failed(f"it was not done after {LONGEST} s")


def commit():
    asked = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=HERE, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return asked.stdout.strip() or "unknown"


def cpu_model():
    with open("/proc/cpuinfo") as f:
        names = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    return names[0] if names else platform.machine()


def read_figures():
    try:
        with open(FIGURES) as f:
            return json.load(f)
    except (OSError, ValueError):
        return {}


def write(path, text):
    with open(path + ".new", "w") as f:
        f.write(text)
    os.replace(path + ".new", path)


def build_edge_sink():
    """The edge over a counting log is no part of the program, so `make build` does not make it."""
    command = ["cargo", "build", "--release", "--locked", "--features", "bench", "--bin", "obtrace-edge-sink"]
    try:
        built = subprocess.run(command, cwd=os.path.join(HERE, "..", ".."), timeout=1800).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        built = False
    if not built:
        log(f"{' '.join(command)} failed: the edge is measured into the durable log only")


def main():
    parser = argparse.ArgumentParser(prog="run.sh", description="Figures of whole processes beside peers.")
    parser.add_argument("what", nargs="*", help=f"sections to take: {', '.join(SECTIONS)} (default: all but worker); "
                        "or one of: peers (only installs them), table, readme (puts the table into README.md)")
    parser.add_argument("--quick", action="store_true", help="short runs, to see that it works")
    parser.add_argument("--no-build", action="store_true", help="do not build the edge over the counting log")
    parser.add_argument("--without", action="append", default=[], choices=["rotel", "collector", "jaeger", "collector-kafka"],
                        help="leave a peer out; may be given more than once")
    args = parser.parse_args()
    if not set(args.what) <= set(SECTIONS) and args.what not in (["peers"], ["table"], ["readme"]):
        parser.error(f"{' '.join(args.what)}: see --help for what there is")
    os.makedirs(BENCH, exist_ok=True)
    if args.what in (["table"], ["readme"]):
        table = report.table(read_figures())
        print(table)
        return report.into_readme(table) if args.what == ["readme"] else 0
    if args.what == ["peers"]:
        return 1 if Here(args.without).reasons else 0
    if not os.path.exists(BINARY):
        raise SystemExit(f"{BINARY} is not there: make build")
    prepare()
    signal.signal(signal.SIGALRM, too_long)
    sections = [name for name in SECTIONS if name in (args.what or set(SECTIONS) - set(ON_DEMAND))]
    if "edge" in sections and not args.no_build:
        build_edge_sink()
    here = Here(args.without, sections)
    failed = 0
    for name in sections:
        section = take(name, here, QUICK if args.quick else FULL, args.quick)
        failed += "failed" in section
        write(FIGURES, json.dumps({**read_figures(), name: section}, indent=1) + "\n")
    table = report.table(read_figures())
    write(os.path.join(BENCH, "figures.md"), table + "\n")
    log(f"kept in {FIGURES} and figures.md beside it; what the servers said is in {os.path.join(BENCH, 'logs')}")
    print("\n" + table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
