"""Brings the peers into the cache: rotel by pip, the OpenTelemetry Collector and Jaeger by go. In: nothing. Out: the
path of each binary, or why it is not there (no go, no network). Installed once; what an installation said is kept.

What is fetched is pinned: by version here, by checksum through Go's sum database.
"""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from processes import CACHE, HERE, log

PEERS = os.path.join(CACHE, "peers")
ROTEL, COLLECTOR, JAEGER = "0.0.1a15", "v0.161.0", "v1.76.0"
# A cold build of the Collector or Jaeger takes 3 to 5 minutes on 2 quiet cores.
BUILD_TIMEOUT = 1500
LOCK_TIMEOUT = 600


class Missing(Exception):
    """Why a peer cannot be had here."""


def install(name, version, make):
    """The folder of a peer, made once by `make(folder, run)`; raises Missing with the reason."""
    folder = os.path.join(PEERS, f"{name}-{version}")
    done = os.path.join(folder, ".complete")
    os.makedirs(PEERS, exist_ok=True)
    with open(os.path.join(PEERS, f".{name}.lock"), "w") as lock:
        if os.path.exists(done):
            return folder
        wait_for_lock(lock, name)
        if os.path.exists(done):
            return folder
        log(f"installing {name} {version} into {folder}, once; this can take minutes")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        begun = time.time()
        with open(os.path.join(PEERS, f"{name}-install.log"), "w") as said:
            try:
                make(folder, lambda *command, **more: run(said, *command, **more))
            except (OSError, subprocess.SubprocessError) as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise Missing(f"{name} could not be installed ({error}), see {said.name}") from error
        with open(done, "w") as mark:
            mark.write(f"{time.time() - begun:.0f} s\n")
        log(f"{name} is there after {time.time() - begun:.0f} s")
        return folder


def wait_for_lock(lock, name):
    """Waits for another run that installs the same peer, but not for ever: it may hang."""
    deadline, told = time.monotonic() + LOCK_TIMEOUT, False
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Missing(f"{name} is left out: another run has been installing it for {LOCK_TIMEOUT} s") from None
            if not told:
                log(f"another run installs {name}; waiting up to {LOCK_TIMEOUT} s for it")
                told = True
            time.sleep(1)


def run(said, *command, stdout=None, **more):
    """Runs one step of an installation at low priority; its output goes to the log of it, or back where asked for.

    A step that takes too long is ended with all that it started: a compiler has children.
    """
    child = subprocess.Popen(["nice", "-n", "15", *command], stdin=subprocess.DEVNULL, stdout=stdout or said, stderr=said,
                             start_new_session=True, **more)
    try:
        answer, _ = child.communicate(timeout=BUILD_TIMEOUT)
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return answer


def go_env(folder):
    """The environment of a go build: no C compiler, nothing written outside of the cache but go's own caches."""
    return {**os.environ, "CGO_ENABLED": "0", "GOBIN": os.path.join(folder, "bin"), "GOFLAGS": "-buildvcs=false"}


def need_go(name):
    if not shutil.which("go"):
        raise Missing(f"{name} is left out: there is no go here to build it")


def rotel():
    """rotel's agent, from PyPI."""

    def make(folder, do):
        do(sys.executable, "-m", "pip", "install", "-q", "--pre", "--target", folder, f"rotel=={ROTEL}")
        do(os.path.join(folder, "rotel", "rotel-agent"), "--help")
        # With glibc's allocator its rate has two modes, far apart. A peer is measured at its best, where that can be had.
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            do("apt-get", "download", "libjemalloc2", cwd=folder)
            do("dpkg", "-x", *glob.glob(os.path.join(folder, "libjemalloc2*.deb")), os.path.join(folder, "jemalloc"))

    return os.path.join(install("rotel", ROTEL, make), "rotel", "rotel-agent")


def jemalloc(rotel_agent):
    """The library that was fetched for rotel, or one of the system's; None where there is none."""
    fetched = os.path.join(os.path.dirname(os.path.dirname(rotel_agent)), "jemalloc", "usr", "lib", "*")
    found = [path for lib in (fetched, "/usr/lib/*") for path in glob.glob(os.path.join(lib, "libjemalloc.so.2"))]
    return found[0] if found else None


def collector(name="collector", build="collector-build.yaml"):
    """The Collector, built by its own builder from a manifest of ours."""

    manifest = os.path.join(HERE, "peers", build)

    def make(folder, do):
        env = go_env(folder)
        do("go", "install", f"go.opentelemetry.io/collector/cmd/builder@{COLLECTOR}", env=env)
        do(os.path.join(folder, "bin", "builder"), "--config", manifest, "--skip-strict-versioning",
           cwd=folder, env=env)
        do(collector_in(folder), "components")
        shutil.rmtree(os.path.join(folder, "bin"), ignore_errors=True)

    need_go("the OpenTelemetry Collector")
    with open(manifest, "rb") as f:
        version = f"{COLLECTOR}-{hashlib.sha256(f.read()).hexdigest()[:8]}"
    return collector_in(install(name, version, make))


def collector_kafka():
    """The Collector with Kafka in and ClickHouse out, as the worker's peer."""
    return collector("collector-kafka", "collector-kafka-build.yaml")


def collector_in(folder):
    return os.path.join(folder, "out", "otelcol-peer")


def jaeger():
    """Jaeger v2, built from its module."""

    def make(folder, do):
        env, module = go_env(folder), f"github.com/jaegertracing/jaeger@{JAEGER}"
        answer = do("go", "mod", "download", "-json", module, cwd=folder, env=env, stdout=subprocess.PIPE)
        source = os.path.join(folder, "source")
        # The module cache is read-only; go builds in a copy of it.
        do("cp", "-r", json.loads(answer)["Dir"], source)
        do("chmod", "-R", "u+w", source)
        do("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", os.path.join(folder, "jaeger"), "./cmd/jaeger",
           cwd=source, env=env)
        shutil.rmtree(source, ignore_errors=True)
        do(os.path.join(folder, "jaeger"), "version")

    need_go("Jaeger")
    return os.path.join(install("jaeger", JAEGER, make), "jaeger")


# Name → how it is had, and the sections that need it; all but those of the worker where none are named.
ALL = {
    "rotel": (rotel, ["idle", "edge"]),
    "collector": (collector, ["idle", "edge", "ack"]),
    "jaeger": (jaeger, ["idle", "ack", "store", "queries"]),
    "collector-kafka": (collector_kafka, ["worker"]),
}


def all_there(without, sections):
    """Name → path of each peer of these sections that is there, and the reasons for those that are not."""
    there, reasons = {}, []
    for name, (find, needed_by) in ALL.items():
        if not any(section in needed_by for section in sections or ["idle", "store"]):
            continue
        try:
            if name in without:
                raise Missing(f"{name} is left out by --without")
            there[name] = find()
        except Missing as missing:
            reasons.append(str(missing))
            log(str(missing))
    return there, reasons
