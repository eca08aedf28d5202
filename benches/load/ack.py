"""Acknowledgement: time from the intended send to the answer at fixed rates, Obtrace and the peers in turns.

Obtrace answers when the batch is synced to disk. The Collector and Jaeger answer before anything is on a disk.
"""

from candidates import Collector, Jaeger, Obtrace
from load import in_turns, load, spread
from processes import log

# Rate → spans of a batch: 20 requests a second in both.
RATES = {"1000/s": "50", "10000/s": "512"}


def candidates(here):
    starts = {"obtrace": lambda: Obtrace("json")}
    if here.path("collector"):
        starts["collector nop"] = lambda: Collector(here.path("collector"))
    if here.path("jaeger"):
        starts["jaeger badger"] = lambda: Jaeger(here.path("jaeger"), "badger", 0)
    return starts


def measure(here, plan):
    def one(n, name, start):
        with start() as server:
            load(server, "--rate", "1000/s", "--batch", "50", "--duration", "2s")
            figures = {}
            for rate, batch in RATES.items():
                duration = f"{plan['ack_seconds']}s"
                figures[rate] = load(server, "--rate", rate, "--batch", batch, "--duration", duration)["ack_ms"]
                ms = figures[rate]
                log(f"ack, round {n + 1}: {name} at {rate}: p50 {ms['p50']:.1f} ms, p99 {ms['p99']:.1f} ms")
            return figures

    runs, notes = in_turns(candidates(here), plan["ack_rounds"], one)
    summary = {name: {rate: {p: spread([figure[rate][p] for figure in figures]) for p in ("p50", "p99")}
                      for rate in RATES} for name, figures in runs.items()}
    return {"runs": runs, "summary": summary, "notes": notes}
