"""Child processes and what they cost. In: a command. Out: a running process, its CPU seconds and memory from /proc.

Every process that is started here is ended when the program ends, however it ends short of kill -9; its log is kept.
"""

import atexit
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.environ.get("OBTRACE_CACHE") or os.path.expanduser("~/.cache/obtrace")
BENCH = os.path.join(CACHE, "bench")
LOGS = os.path.join(BENCH, "logs")
TARGET = os.environ.get("CARGO_TARGET_DIR") or os.path.join(CACHE, "target")
TICK = os.sysconf("SC_CLK_TCK")
RUNNING, FOLDERS = [], []
NUMBERS = itertools.count(1)


class Failed(Exception):
    """A measurement that could not be taken, and why."""


def log(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def free_addresses(count):
    """Addresses that are free together; somebody else may still take one before it is bound."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    finally:
        for s in sockets:
            s.close()


def folder(name):
    """An empty folder on the disk of the cache (a folder in memory would make every sync free)."""
    os.makedirs(BENCH, exist_ok=True)
    path = tempfile.mkdtemp(prefix=f"{name}-", dir=BENCH)
    FOLDERS.append(path)
    return path


def remove(path):
    shutil.rmtree(path, ignore_errors=True)
    if path in FOLDERS:
        FOLDERS.remove(path)


class Process:
    """A server that was started here."""

    def __init__(self, name, command, stop_within=60, env=None):
        os.makedirs(LOGS, exist_ok=True)
        self.name, self.stop_within = name, stop_within
        self.said = os.path.join(LOGS, f"{next(NUMBERS):03}-{name}.log")
        with open(self.said, "w") as out:
            # A session of its own: Ctrl-C on the terminal reaches it through us, in order.
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env,
                                          start_new_session=True)
        RUNNING.append(self)

    @property
    def pid(self):
        return self.child.pid

    def wait_until(self, what, ready, seconds=60):
        """Waits until `ready()` holds; when it ends before that, or the time is up, it is stopped and that is said."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                self.stop()
                raise Failed(f"{self.name} ended with {self.child.returncode} before {what}: {self.last_words()}")
            try:
                if ready():
                    return
            except OSError:
                pass
            time.sleep(0.05)
        self.stop()
        raise Failed(f"{self.name}: no {what} within {seconds} s, see {self.said}")

    def last_words(self):
        with open(self.said, errors="replace") as f:
            lines = f.read().strip().splitlines()
        return f"{lines[-1][:300] if lines else 'it said nothing'} (all of it in {self.said})"

    def stop(self):
        """Ends it in order, or by force when that takes too long."""
        if self in RUNNING:
            RUNNING.remove(self)
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(self.stop_within)
            except subprocess.TimeoutExpired:
                log(f"{self.name} did not end within {self.stop_within} s and was killed, see {self.said}")
                self.child.kill()
                self.child.wait()


def answers(address):
    """A check that something listens at `address`."""
    host, port = address.rsplit(":", 1)

    def ready():
        with socket.create_connection((host, int(port)), timeout=2):
            return True

    return ready


def cpu(pid):
    """CPU seconds of a process, user and system, ended threads included."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_mib(pid, field):
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    return 0.0


def rss(pid):
    """Resident memory now, MiB."""
    return memory_mib(pid, "VmRSS")


def peak_rss(pid):
    """The most that was ever resident, MiB."""
    return memory_mib(pid, "VmHWM")


def clean_up():
    for process in list(RUNNING):
        process.stop_within = min(process.stop_within, 20)
        process.stop()
    for path in list(FOLDERS):
        remove(path)


def prepare():
    """Clears what an earlier run left, and sees to it that this one leaves nothing running."""
    remove(LOGS)
    atexit.register(clean_up)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
