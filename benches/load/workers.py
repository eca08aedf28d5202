"""What stands on both sides of a worker, and the workers: a Kafka broker, the edge that fills it, the engine on its own,
Obtrace's worker and the OpenTelemetry Collector, each a process whose CPU can be read.
"""

import json
import os
import string
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

from candidates import BINARY, Server, metric
from processes import HERE, Failed, Process, answers, folder, free_addresses, remove

SERVICES = os.path.join(HERE, "..", "..", "dev", "services", "run")
# The tenant of `ingest.dev_loopback`: the engine shows a statement the rows of one tenant.
TENANT = "default"
# As clickhouseexporter v0.161.0 makes it.
COLLECTOR_TABLE = os.path.join(HERE, "peers", "collector-table.sql")


class Kafka:
    """One broker of our own, with an empty disk; it ends with us."""

    def __init__(self):
        self.folder = folder("kafka")
        self.env = {**os.environ, "OBTRACE_SERVICES_DIR": self.folder, "OBTRACE_SERVICES_OWNER": str(os.getpid()),
                    "OBTRACE_SERVICES_THROWAWAY": "1"}
        self.run("up", "kafka")
        lines = dict(line.split("=", 1) for line in self.run("env", "kafka").splitlines())
        self.address = lines["OBTRACE_TEST_KAFKA"]

    def run(self, *args):
        done = subprocess.run([SERVICES, *args], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=900)
        if done.returncode:
            raise Failed(f"dev/services/run {' '.join(args)}: {done.stderr.strip()[-400:]}")
        return done.stdout

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.run("wipe", "kafka")
        remove(self.folder)

    def settings(self, prefix):
        """Flags by which Obtrace uses this broker; topics and groups begin with `prefix`."""
        return ["--set", "stream.backend=kafka", "--set", f"stream.kafka.brokers={self.address}",
                "--set", f"stream.kafka.prefix={prefix}"]


class Engine(Server):
    """`obtrace engine` by itself: a ClickHouse for whoever has its secret."""

    def __init__(self, at=None):
        self.folder = None if at else folder("engine")
        (self.address,) = free_addresses(1)
        self.process = Process("engine", [BINARY, "engine", "--data-dir", at or self.folder, "--listen", self.address])
        self.process.wait_until("readiness", lambda: self.ready_line() is not None, 60)
        self.secret = self.ready_line()["secret"]
        # Some releases of ClickHouse make the database themselves; here it is made once.
        self.sql("create database if not exists obtrace")

    def ready_line(self):
        with open(self.process.said, errors="replace") as f:
            for line in f:
                if line.startswith("{"):
                    return json.loads(line)
        return None

    def sql(self, query, body=None, **settings):
        """Runs a statement, with data where there are any; its answer as bytes."""
        url = f"http://{self.address}/?{urllib.parse.urlencode({'query': query, **settings})}"
        headers = {"X-ClickHouse-Key": self.secret, **({"X-Obtrace-Tenant": TENANT} if query.startswith("select") else {})}
        request = urllib.request.Request(url, data=body if body is not None else b"", method="POST", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=180) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise Failed(f"the engine refused {query[:80]}: {error.read().decode(errors='replace')[:300]}") from error

    def count(self, table):
        return int(self.sql(f"select count() from obtrace.{table}"))


class Edge(Server):
    """`ingest-edge` alone, into Kafka."""

    def __init__(self, kafka, wire, prefix):
        self.folder = folder("edge")
        self.grpc, http, self.api = free_addresses(3)
        command = [BINARY, "serve", "--roles", "ingest-edge", "--data-dir", self.folder, "--otlp-grpc", self.grpc,
                   "--otlp-http", http, "--http", self.api, "--set", f"ingest.wire_format={wire}",
                   "--set", "ingest.dev_loopback=true", "--set", "observe.enabled=false", *kafka.settings(prefix)]
        self.process = Process(f"edge-{wire}", command, stop_within=90)
        self.process.wait_until("readiness", ready(self.api), 120)


class Worker(Server):
    """`worker-otlp` alone, from Kafka into an engine that is another process."""

    def __init__(self, kafka, engine, prefix):
        self.folder = folder("worker")
        self.api, grpc, http = free_addresses(3)
        common = ["--roles", "worker-otlp", "--data-dir", self.folder, "--http", self.api,
                  "--otlp-grpc", grpc, "--otlp-http", http,
                  "--set", f"telemetry.url=http://{engine.address}", "--set", f"telemetry.password={engine.secret}",
                  "--set", "serve.admin_loopback=true", "--set", "observe.enabled=false", *kafka.settings(prefix)]
        made = subprocess.run([BINARY, "migrate", *common], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=120)
        if made.returncode:
            raise Failed(f"obtrace migrate ended with {made.returncode}: {made.stdout.strip()[-400:]}")
        self.process = Process("worker", [BINARY, "serve", *common], stop_within=90)

    def stored(self, engine):
        return int(metric(f"http://{self.api}/metrics", r'obtrace_process_rows_total\{signal="traces"'))


class CollectorWorker(Server):
    """kafkareceiver → clickhouseexporter, into an engine that is another process."""

    def __init__(self, binary, kafka, engine, prefix, encoding):
        (relay,) = free_addresses(1)
        with open(COLLECTOR_TABLE) as f:
            engine.sql(f.read())
        self.relay = Process("greeting", [sys.executable, os.path.join(HERE, "greeting.py"), relay, engine.address],
                             stop_within=2)
        self.relay.wait_until("listener", answers(relay))
        self.folder = folder("collector")
        values = {"brokers": kafka.address, "topic": f"{prefix}obtrace.traces", "group": f"{prefix}collector",
                  "encoding": encoding, "engine": relay, "secret": engine.secret}
        with open(os.path.join(HERE, "peers", "collector-kafka.yaml")) as f:
            config = string.Template(f.read()).substitute(values)
        path = os.path.join(self.folder, "config.yaml")
        with open(path, "w") as f:
            f.write(config)
        self.process = Process("collector-kafka", [binary, "--config", path], stop_within=20)

    def stored(self, engine):
        return engine.count("otel_traces")

    def stop(self):
        super().stop()
        self.relay.stop()


def ready(api):
    return lambda: urllib.request.urlopen(f"http://{api}/readyz", timeout=2).status == 200


def knows_avro():
    """Whether this build writes Avro."""
    asked = subprocess.run([BINARY, "config", "explain", "ingest.wire_format", "--set", "ingest.wire_format=avro"],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    return asked.returncode == 0
