"""The ingest edge: spans for each CPU-second of the server, every candidate loaded in turns by the same generator.

Each round starts every candidate anew, loads it as fast as it takes, and counts its own CPU from /proc; the generator
runs on the same cores. What the generator says was taken is held against what the counting log says arrived.
"""

import os

from candidates import EDGE_SINK, Collector, EdgeSink, Obtrace, Rotel
from load import beside, in_turns, saturate, spread
from processes import Failed, log


def candidates(here):
    """Name → how to start it, in the order of a round."""
    starts = {}
    if os.path.exists(EDGE_SINK):
        starts["obtrace json, counting"] = lambda: EdgeSink("json")
        starts["obtrace otlp, counting"] = lambda: EdgeSink("otlp")
    else:
        log(f"{EDGE_SINK} is not there: cargo build --release --features bench --bin obtrace-edge-sink")
    if here.path("rotel"):
        starts["rotel"] = lambda: Rotel(here.path("rotel"))
    if here.path("collector"):
        starts["collector nop"] = lambda: Collector(here.path("collector"))
        starts["collector checked"] = lambda: Collector(here.path("collector"), checked=True)
    starts["obtrace json, durable"] = lambda: Obtrace("json", store=False)
    starts["obtrace otlp, durable"] = lambda: Obtrace("otlp", store=False)
    return starts


def once(start, seconds):
    """One candidate in one round."""
    with start() as server:
        warm = saturate(server, 1)
        before = sum(server.cpu())
        report = saturate(server, seconds)
        used = sum(server.cpu()) - before
        figure = {
            "spans_per_cpu_second": report["accepted"] / max(used, 0.01),
            "spans_per_second": report["records_per_second"],
            "server_cpu_seconds": used,
            "generator_cpu_seconds": report["own_cpu_seconds"],
            "peak_rss_mib": sum(server.peak_rss()),
            "allocator": getattr(server, "allocator", None),
        }
        if isinstance(server, EdgeSink):
            counted, taken = server.counted()["records"], warm["accepted"] + report["accepted"]
            # A request that was sent again after a lost answer may arrive twice; none may be missing.
            if counted < taken or (counted > taken and not warm["retried"] + report["retried"]):
                raise Failed(f"the edge acknowledged {taken} spans, {counted} arrived in the log")
            figure["acknowledged"], figure["arrived"] = taken, counted
        return figure


def measure(here, plan):
    def one(n, name, start):
        figure = once(start, plan["edge_seconds"])
        log(f"edge, round {n + 1}: {name}: {figure['spans_per_cpu_second'] / 1000:.0f}k spans per CPU-second")
        return figure

    runs, notes = in_turns(candidates(here), plan["edge_rounds"], one)
    summary = {name: {key: spread([run[key] for run in figures]) for key in ("spans_per_cpu_second", "peak_rss_mib")}
               for name, figures in runs.items()}
    allocator = runs["rotel"][0]["allocator"] if "rotel" in runs else None
    return {"runs": runs, "summary": summary, "ratios": beside(runs, "spans_per_cpu_second"), "notes": notes,
            "rotel_allocator": allocator}
