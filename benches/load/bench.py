"""Measures Obtrace as whole processes: idle and loaded memory, edge, end to end, acknowledgement, queries.

Prints a Markdown table. CPU is the servers' own (user + system, from /proc), so that a busy machine disturbs it little;
wall-clock rates are what this machine gave while it also ran the load generator. The peer is rotel (PyPI) into its
black hole, loaded by the same generator in turns with Obtrace; where it cannot be installed it is left out, and said.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.expanduser("~/.cache/obtrace/target"))
BINARY = os.path.join(TARGET, "release", "obtrace")
CACHE = os.environ.get("OBTRACE_CACHE", os.path.expanduser("~/.cache/obtrace"))
TICK = os.sysconf("SC_CLK_TCK")
ROWS = []


def row(what, value, beside=""):
    ROWS.append((what, value, beside))
    print(f"{what}: {value}{'   beside: ' + beside if beside else ''}", file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def cpu(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
    return 0.0


class Obtrace:
    """One instance on its own folder and ports."""

    def __init__(self, *sets):
        self.dir = tempfile.mkdtemp(prefix="obtrace-bench-")
        self.grpc, self.http, self.api = (f"127.0.0.1:{free_port()}" for _ in range(3))
        command = [BINARY, "dev", "--data-dir", self.dir, "--otlp-grpc", self.grpc, "--otlp-http", self.http]
        command += ["--http", self.api] + [word for s in sets for word in ("--set", s)]
        self.log = open(os.path.join(self.dir, "log.txt"), "w")
        self.child = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        deadline = time.time() + 60
        while time.time() < deadline:
            try:
                if urllib.request.urlopen(f"http://{self.api}/readyz", timeout=2).status == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"obtrace did not get ready, see {self.log.name}")

    @property
    def pid(self):
        return self.child.pid

    @property
    def engine(self):
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/children") as f:
                for pid in f.read().split():
                    return int(pid)
        return None

    def get(self, path, **query):
        url = f"http://{self.api}/api/v1{path}?{urllib.parse.urlencode(query)}"
        return json.load(urllib.request.urlopen(url, timeout=60))

    def stored(self):
        text = urllib.request.urlopen(f"http://{self.api}/metrics", timeout=10).read().decode()
        for line in text.splitlines():
            if line.startswith('obtrace_process_rows_total{signal="traces"}'):
                return int(float(line.split()[-1]))
        return 0

    def stop(self):
        self.child.terminate()
        self.child.wait(90)
        shutil.rmtree(self.dir, ignore_errors=True)


def load(endpoint, *args):
    command = [BINARY, "load", "--endpoint", f"http://{endpoint}", "--json", *args]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def saturate(endpoint, seconds):
    return load(endpoint, "--saturate", "--duration", f"{seconds}s", "--connections", "4", "--in-flight", "4")


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def idle():
    obtrace = Obtrace()
    time.sleep(8)
    main, engine = rss_mib(obtrace.pid), rss_mib(obtrace.engine)
    before = cpu(obtrace.pid), cpu(obtrace.engine)
    time.sleep(10)
    used = (cpu(obtrace.pid) - before[0]) / 10, (cpu(obtrace.engine) - before[1]) / 10
    row("idle memory, main + engine", f"{main:.0f} + {engine:.0f} MiB")
    row("idle CPU, main + engine", f"{used[0]:.2%} + {used[1]:.2%} of a core")
    obtrace.stop()


def rotel_binary():
    """Installs rotel into a folder of the cache, once."""
    home = os.path.join(CACHE, "peers", "rotel-0.0.1a15")
    if not os.path.isdir(home):
        command = [sys.executable, "-m", "pip", "install", "-q", "--pre", "--target", home, "rotel==0.0.1a15"]
        if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            shutil.rmtree(home, ignore_errors=True)
            return None
    binary = os.path.join(home, "rotel", "rotel-agent")
    probe = subprocess.run([binary, "--help"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return binary if probe.returncode == 0 else None


def rotel_edge(binary, seconds):
    grpc, http = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    command = [binary, "start", "--otlp-grpc-endpoint", grpc, "--otlp-http-endpoint", http]
    command += ["--otlp-grpc-max-recv-msg-size-mib", "64", "--exporter", "blackhole"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(2)
        before = cpu(child.pid)
        report = saturate(grpc, seconds)
        return report["accepted"] / max(cpu(child.pid) - before, 1e-9)
    finally:
        child.kill()
        child.wait()


def obtrace_edge(wire, seconds):
    """Receiving, decoding, encoding and the durable log, with the store away: what the edge alone costs."""
    obtrace = Obtrace("telemetry.url=http://127.0.0.1:9", f"ingest.wire_format={wire}")
    before = cpu(obtrace.pid)
    report = saturate(obtrace.grpc, seconds)
    rate = report["accepted"] / max(cpu(obtrace.pid) - before, 1e-9)
    obtrace.stop()
    return rate


def edge(rounds, seconds):
    rotel = rotel_binary()
    results = {"json": [], "otlp": [], "rotel": []}
    for _ in range(rounds):
        for wire in ("json", "otlp"):
            results[wire].append(obtrace_edge(wire, seconds))
        if rotel:
            results["rotel"].append(rotel_edge(rotel, seconds))
    beside = "rotel could not be installed"
    if rotel:
        peer = statistics.median(results["rotel"])
        beside = f"rotel → blackhole {peer / 1000:.0f}k (no log, no fsync, no checks)"
    for wire in ("json", "otlp"):
        value = f"{statistics.median(results[wire]) / 1000:.0f}k spans per CPU-second"
        row(f"edge into the durable log, wire format {wire}", value, beside)


def acknowledgement(seconds):
    obtrace = Obtrace()
    for rate in ("1000/s", "10000/s"):
        batch = "100" if rate == "1000/s" else "512"
        ms = load(obtrace.grpc, "--rate", rate, "--batch", batch, "--duration", f"{seconds}s")["ack_ms"]
        row(f"acknowledgement at {rate} spans, p50 / p99", f"{ms['p50']:.1f} / {ms['p99']:.1f} ms")
    obtrace.stop()


def end_to_end(wire, spans):
    obtrace = Obtrace(f"ingest.wire_format={wire}")
    engine = obtrace.engine
    time.sleep(3)
    before, begun = (cpu(obtrace.pid), cpu(engine)), time.time()
    run = f"bench-{wire}"
    report = load(obtrace.grpc, "--saturate", "--records", str(spans), "--connections", "4", "--run-id", run)
    while obtrace.stored() < report["accepted"] and time.time() < begun + 600:
        time.sleep(0.1)
    seconds = time.time() - begun
    used = cpu(obtrace.pid) - before[0], cpu(engine) - before[1]
    stored = obtrace.stored()
    row(f"end to end, {wire}: spans stored a second, generator on the same cores", f"{stored / seconds / 1000:.0f}k")
    row(f"end to end, {wire}: CPU-seconds for a million spans, main + engine",
        f"{used[0] / stored * 1e6:.1f} + {used[1] / stored * 1e6:.1f}")
    row(f"loaded memory, {wire}, main + engine", f"{rss_mib(obtrace.pid):.0f} + {rss_mib(engine):.0f} MiB")
    return obtrace


def sample(obtrace, times):
    """Spans from all over the run: a trace and a value for each ask, in old and new parts of the store alike."""
    def at(**query):
        return obtrace.get("/spans", limit=1, **query)["items"]

    newest = int(at()[0]["start_unix_nano"])
    reach, beyond = 0, 3600 * 10**9  # how long before the newest span the oldest lies
    while beyond - reach > 10**8:
        middle = (reach + beyond) // 2
        reach, beyond = (middle, beyond) if at(end=str(newest - middle)) else (reach, middle)
    return [s for n in range(times) for s in at(end=str(newest + 1000 - reach * n // times))]


def queries(obtrace, times):
    spans = sample(obtrace, times)
    ids = [s["trace_id"] for s in spans]
    services = sorted({s["service"] for s in spans})
    rare = [s["attributes"]["obtrace.load.batch"] for s in spans]
    asks = {
        "trace by id": lambda n: obtrace.get(f"/traces/{ids[n % len(ids)]}")["spans"],
        "newest 100 of a service": lambda n: obtrace.get(
            "/spans", service=services[n % len(services)], limit=100)["items"],
        "rare attribute value": lambda n: obtrace.get(
            "/spans", limit=100, **{"attr.obtrace.load.batch": rare[n * 7 % len(rare)]})["items"],
    }
    for name, ask in asks.items():
        ask(0)
        took = []
        for n in range(times):
            begun = time.perf_counter()
            found = ask(n)
            took.append((time.perf_counter() - begun) * 1000)
            assert found, f"{name} found nothing"
        row(f"{name}, p50 / p95 over HTTP", f"{percentile(took, 0.5):.0f} / {percentile(took, 0.95):.0f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short runs, to see that it works")
    args = parser.parse_args()
    if not os.path.exists(BINARY):
        raise SystemExit(f"{BINARY} is not there: cargo build --release")
    rounds, seconds, spans, times = (1, 4, 200_000, 10) if args.quick else (3, 10, 1_000_000, 100)
    idle()
    edge(rounds, seconds)
    acknowledgement(seconds)
    obtrace = end_to_end("otlp", spans)
    obtrace.stop()
    obtrace = end_to_end("json", spans)
    time.sleep(5)
    queries(obtrace, times)
    obtrace.stop()
    print("\n| what | figure | beside |\n|---|---|---|")
    for line in ROWS:
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
