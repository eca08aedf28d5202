"""The load: `obtrace load`, the same generator for every candidate. In: an address and a rate. Out: its report, checked.

Whatever was not acknowledged makes the measurement fail: a rate that hides refusals is no rate.
"""

import json
import statistics
import subprocess

from candidates import BINARY
from processes import Failed, log

# Four connections with four requests each keep two cores busy; more of them only makes the queues longer.
SHAPE = ["--connections", "4", "--in-flight", "4", "--batch", "512", "--attributes", "12"]


def load(server, *args, seconds=600):
    """Runs the generator against `server`; fails when a record was refused or lost on the way."""
    command = [BINARY, "load", "--endpoint", f"http://{server.grpc}", "--json", *args]
    if server.key:
        command += ["--api-key", server.key]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=seconds)
        report = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise Failed(f"the load on {server.process.name} gave no report: {error}") from error
    if report["accepted"] != report["sent"] or report["accepted"] == 0:
        raise Failed(f"{server.process.name} acknowledged {report['accepted']} of {report['sent']} records "
                     f"({report['error_messages']}), see {server.process.said}")
    return report


def saturate(server, seconds, *args):
    return load(server, "--saturate", "--duration", f"{seconds}s", *SHAPE, *args, seconds=seconds + 120)


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def spread(values):
    """Median with range, of one figure over the rounds."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def ratios(ours, theirs):
    """Our figure over theirs, round by round: what the machine did in a round, it did to both."""
    return spread([a / b for a, b in zip(ours, theirs)])


def in_turns(candidates, rounds, once):
    """Runs `once(n, name, candidate)` for every candidate in every round, A B C A B C. Name → what the rounds gave.

    A peer that fails is left out of all rounds, with a note that says why. If Obtrace fails, so does the section.
    """
    runs, notes = {name: [] for name in candidates}, []
    for n in range(rounds):
        for name in list(runs):
            try:
                runs[name].append(once(n, name, candidates[name]))
            except Failed as why:
                if name.startswith("obtrace"):
                    raise
                notes.append(f"{name} is left out: {why}")
                log(notes[-1])
                del runs[name]
    return runs, notes


def beside(runs, key):
    """Ratio of each of our candidates to each peer, in one figure."""
    column = lambda name: [run[key] for run in runs[name]]
    ours = [name for name in runs if name.startswith("obtrace")]
    peers = [name for name in runs if not name.startswith("obtrace")]
    return {f"{a} / {b}": ratios(column(a), column(b)) for a in ours for b in peers}
