"""End to end: spans in over gRPC until all of them are stored, Obtrace (synced log and engine) beside Jaeger in turns.

Wall time is with the generator on the same cores. Stored is what the servers' own counters say, held against what the
generator was promised; a run of Obtrace is also asked back span by span over the API.
"""

import time

from candidates import Jaeger, Obtrace
from load import SHAPE, beside, in_turns, load, spread
from processes import Failed, log


def candidates(here, plan):
    """Name → (how to start it, how many spans it gets)."""
    spans = plan["spans"]
    starts = {"obtrace json": (lambda: Obtrace("json"), spans), "obtrace otlp": (lambda: Obtrace("otlp"), spans)}
    if here.path("jaeger"):
        jaeger, few = here.path("jaeger"), plan["badger_spans"]
        starts["jaeger memory"] = (lambda: Jaeger(jaeger, "memory", spans), spans)
        # Badger stores a tenth of what the others do in a second: it gets fewer spans.
        starts["jaeger badger"] = (lambda: Jaeger(jaeger, "badger", few), few)
    return starts


def fill(server, spans, run, *args):
    """Sends `spans` spans and waits until all that were promised are stored. The figures of it."""
    time.sleep(2)
    before, begun = server.cpu(), time.monotonic()
    report = load(server, "--saturate", "--records", str(spans), "--run-id", run, *SHAPE, *args)
    deadline = time.monotonic() + 300
    while (stored := server.stored()) < report["accepted"]:
        if time.monotonic() > deadline:
            raise Failed(f"{server.process.name}: {report['accepted']} spans acknowledged, {stored} stored after 300 s")
        time.sleep(0.05)
    seconds = time.monotonic() - begun
    used = [after - earlier for after, earlier in zip(server.cpu(), before)]
    return {
        "acknowledged": report["accepted"],
        "stored": stored,
        "stored_per_second": stored / seconds,
        "cpu_seconds_per_million": [cpu / stored * 1e6 for cpu in used],
        "spans_per_cpu_second": stored / max(sum(used), 0.01),
        "rss_mib": server.rss(),
        "peak_rss_mib": server.peak_rss(),
    }


def verify(server, spans):
    """Sends a run of its own and asks the API for every span of it: fails when one is missing, doubled or altered."""
    report = load(server, "--saturate", "--records", str(spans), *SHAPE, "--verify", "--api", f"http://{server.api}")
    (verdict,) = report["verified"]
    wrong = {key: verdict[key] for key in ("missing", "doubled", "stray", "altered") if verdict[key]}
    if wrong:
        raise Failed(f"of {spans} spans acknowledged and asked for, {wrong}")
    return report["accepted"]


def once(start, spans, n, to_verify):
    with start() as server:
        figure = fill(server, spans, f"bench-{n}")
        if isinstance(server, Jaeger):
            figure["failed"] = server.failed()
        elif n == 0:
            figure["verified"] = verify(server, to_verify)
        return figure


def measure(here, plan):
    def one(n, name, candidate):
        start, spans = candidate
        figure = once(start, spans, n, plan["verify_spans"])
        log(f"store, round {n + 1}: {name}: {figure['spans_per_cpu_second'] / 1000:.0f}k spans per CPU-second, "
            f"{figure['stored_per_second'] / 1000:.0f}k stored a second, of {spans}")
        return figure

    runs, notes = in_turns(candidates(here, plan), plan["store_rounds"], one)
    return {"runs": runs, "summary": {name: summed(figures) for name, figures in runs.items()},
            "ratios": beside(runs, "spans_per_cpu_second"), "notes": notes}


def summed(figures):
    """Medians over the rounds of one candidate; of main and engine each where there are two."""
    column = lambda key: [figure[key] for figure in figures]
    each = lambda key: [spread(list(one)) for one in zip(*column(key))]
    return {
        "verified": sum(figure.get("verified", 0) for figure in figures),
        "acknowledged": sum(column("acknowledged")),
        "stored": sum(column("stored")),
        "spans": figures[0]["acknowledged"],
        **{key: spread(column(key)) for key in ("stored_per_second", "spans_per_cpu_second")},
        **{key: each(key) for key in ("cpu_seconds_per_million", "rss_mib", "peak_rss_mib")},
    }
