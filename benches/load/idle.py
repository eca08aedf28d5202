"""Memory and CPU of what does nothing: Obtrace and the peers, up and left alone, one after the other."""

import time

from candidates import Collector, Jaeger, Obtrace, Rotel
from load import in_turns
from processes import log


def candidates(here):
    starts = {"obtrace": lambda: Obtrace("json")}
    if here.path("rotel"):
        starts["rotel"] = lambda: Rotel(here.path("rotel"))
    if here.path("collector"):
        starts["collector nop"] = lambda: Collector(here.path("collector"))
    if here.path("jaeger"):
        starts["jaeger memory"] = lambda: Jaeger(here.path("jaeger"), "memory", 1_000_000)
        starts["jaeger badger"] = lambda: Jaeger(here.path("jaeger"), "badger", 0)
    return starts


def measure(here, plan):
    def one(_n, name, start):
        with start() as server:
            time.sleep(plan["idle_settle"])
            before, begun = server.cpu(), time.monotonic()
            time.sleep(plan["idle_seconds"])
            share = [(now - was) / (time.monotonic() - begun) for now, was in zip(server.cpu(), before)]
            log(f"idle: {name}: {' + '.join(f'{mib:.0f}' for mib in server.rss())} MiB")
            return {"rss_mib": server.rss(), "cpu_share": share}

    runs, notes = in_turns(candidates(here), 1, one)
    return {"summary": {name: figures[0] for name, figures in runs.items()}, "notes": notes}
