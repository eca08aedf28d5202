"""What is measured: Obtrace, its edge over a counting log, and the peers, each as a running server with an address to load.

All of them take OTLP over gRPC at `.grpc`; `.pids` are the processes whose CPU and memory count.
"""

import glob
import json
import os
import re
import string
import urllib.parse
import urllib.request

import peers
from processes import HERE, TARGET, Failed, Process, answers, cpu, folder, free_addresses, peak_rss, remove, rss

BINARY = os.path.join(TARGET, "release", "obtrace")
EDGE_SINK = os.path.join(TARGET, "release", "obtrace-edge-sink")
# The edge is measured with a key on every request; peers that know no keys do not look at it.
KEY = "obt_bench_0123456789abcdefghijklmnop"


class Server:
    """A candidate that is up."""

    process = None
    folder = None
    key = None

    @property
    def pids(self):
        return [self.process.pid]

    def cpu(self):
        return [cpu(pid) for pid in self.pids]

    def rss(self):
        return [rss(pid) for pid in self.pids]

    def peak_rss(self):
        return [peak_rss(pid) for pid in self.pids]

    def stop(self):
        self.process.stop()
        if self.folder:
            remove(self.folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Obtrace(Server):
    """`obtrace dev` on its own folder: main process and engine."""

    def __init__(self, wire, store=True):
        self.folder = folder("obtrace")
        self.grpc, http, self.api = free_addresses(3)
        command = [BINARY, "dev", "--data-dir", self.folder, "--otlp-grpc", self.grpc, "--otlp-http", http]
        command += ["--http", self.api, "--set", f"ingest.wire_format={wire}"]
        # A store that nobody answers for: what is taken in stays in the log.
        command += [] if store else ["--set", "telemetry.url=http://127.0.0.1:9"]
        self.process = Process(f"obtrace-{wire}", command, stop_within=90)
        self.store = store
        ready = lambda: urllib.request.urlopen(f"http://{self.api}/readyz", timeout=2).status == 200
        self.process.wait_until("readiness", ready if store else answers(self.grpc), 120)
        self.engine = self._engine() if store else None

    def _engine(self):
        main = self.process.pid
        for path in glob.glob(f"/proc/{main}/task/*/children"):
            with open(path) as f:
                for pid in f.read().split():
                    return int(pid)
        raise Failed(f"obtrace runs without its engine, see {self.process.said}")

    @property
    def pids(self):
        return [self.process.pid] + ([self.engine] if self.engine else [])

    def get(self, path, **query):
        url = f"http://{self.api}/api/v1{path}?{urllib.parse.urlencode(query)}"
        return json.load(urllib.request.urlopen(url, timeout=60))

    def stored(self):
        return int(metric(f"http://{self.api}/metrics", r'obtrace_process_rows_total\{signal="traces"'))


class EdgeSink(Server):
    """The edge alone, over a log that counts."""

    key = KEY

    def __init__(self, wire):
        (self.grpc,) = free_addresses(1)
        command = [EDGE_SINK, "--otlp-grpc", self.grpc, "--wire-format", wire, "--key", KEY]
        self.process = Process(f"edge-sink-{wire}", command)
        self.process.wait_until("readiness", answers(self.grpc))

    def counted(self):
        """Stops it and tells what arrived: batches, records, bytes."""
        self.process.stop()
        with open(self.process.said) as f:
            lines = f.read().strip().splitlines()
        try:
            return json.loads(lines[-1])
        except (ValueError, IndexError):
            raise Failed(f"the edge sink did not say what it counted: {self.process.last_words()}") from None


class Rotel(Server):
    """rotel into its black hole: no checks."""

    key = KEY

    def __init__(self, binary):
        self.grpc, http = free_addresses(2)
        command = [binary, "start", "--otlp-grpc-endpoint", self.grpc, "--otlp-http-endpoint", http]
        command += ["--otlp-grpc-max-recv-msg-size-mib", "64", "--exporter", "blackhole"]
        better = peers.jemalloc(binary)
        env = {**os.environ, "LD_PRELOAD": better} if better else None
        self.allocator = "jemalloc" if better else "glibc's allocator"
        self.process = Process("rotel", command, stop_within=5, env=env)
        self.process.wait_until("listener", answers(self.grpc))


class Configured(Server):
    """A peer that reads a configuration of ours, filled in."""

    def start(self, name, binary, config, **values):
        self.folder = folder(name)
        with open(os.path.join(HERE, "peers", config)) as f:
            text = string.Template(f.read()).substitute(grpc=self.grpc, folder=self.folder, **values)
        path = os.path.join(self.folder, "config.yaml")
        with open(path, "w") as f:
            f.write(text)
        self.process = Process(name, [binary, "--config", path], stop_within=20)
        self.process.wait_until("listener", answers(self.grpc))


class Collector(Configured):
    """The OpenTelemetry Collector into nothing; `checked` with a token, redaction and an attribute."""

    key = KEY

    def __init__(self, binary, checked=False):
        (self.grpc,) = free_addresses(1)
        kind = "checked" if checked else "nop"
        self.start(f"collector-{kind}", binary, f"collector-{kind}.yaml", **({"key": KEY} if checked else {}))


class Jaeger(Configured):
    """Jaeger v2 with `store` memory or badger; its queries are answered at `.api`."""

    def __init__(self, binary, store, spans):
        self.grpc, self.api, query_grpc, self.metrics = free_addresses(4)
        values = {"http": self.api, "query_grpc": query_grpc, "metrics_port": self.metrics.rsplit(":", 1)[1]}
        if store == "memory":
            values["traces"] = spans  # there are fewer traces than spans, so none is pushed out
        self.start(f"jaeger-{store}", binary, f"jaeger-{store}.yaml", **values)
        self.process.wait_until("query API", answers(self.api))

    def stored(self):
        return int(metric(f"http://{self.metrics}/metrics", r"(otelcol_)?exporter_sent_spans"))

    def failed(self):
        return int(metric(f"http://{self.metrics}/metrics", r"(otelcol_)?exporter_send_failed_spans"))


def metric(url, name):
    """The sum of a Prometheus metric's series whose lines match `name`; 0 before there is one."""
    text = urllib.request.urlopen(url, timeout=10).read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if re.match(name, line))


class Here:
    """Which peers can be had on this machine; installed where they are not, before anything is measured."""

    def __init__(self, without=(), sections=()):
        self.paths, self.reasons = peers.all_there(without, sections)

    def path(self, name):
        return self.paths.get(name)
